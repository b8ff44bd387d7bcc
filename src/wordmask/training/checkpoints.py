"""What a training goes on from, and the weights that it leaves."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from wordmask.models.fitting import check_finite
from wordmask.training.recipe import TrainingSettings
from wordmask.writing import atomic, check_writable

LAST, BEST, RESUME = "last.safetensors", "best.safetensors", "last.pt"
CODE = "the code's fingerprint"
DATA = "the data's fingerprint"
Plain = str | int | float | bool | None  # of settings, as a checkpoint holds them


class TrainingState:
    """Everything that is needed to go on as if nothing had happened, in one file that is replaced as a whole.

    Beside it lie the weights alone, as `wordmask.load` reads them: of the last checkpoint, and of the best validation.

    Args:
        save: (file, model): write the weights.
        fingerprint: Of the data; see `Recipe`.
        code: Likewise of what computes.
        writes: Whether this process does.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        save: Callable[[Path, nn.Module], None],
        fingerprint: str = "",
        code: str = "",
        writes: bool = True,
    ):
        self.fingerprint, self.code = fingerprint, code
        self.settings, self.model, self.optimiser, self.scaler = settings, model, optimiser, scaler
        self.save, self.writes = save, writes
        self.folder = Path(settings.folder)
        self.step, self.validation_due = 0, False
        self.scores: dict[str, float] = {}
        self.best: float | None = None

    @property
    def saved(self) -> str:
        """What there is, for messages."""
        return f"the last checkpoint is of step {self.step}" if self.step else "there is no checkpoint yet"

    def resume(self) -> int:
        """Load the checkpoint in the folder, if there is one; return the steps done.

        Raises:
            ValueError: It is of a training with other settings, or can't be read.
        """
        check_writable(self.folder)
        file = self.folder / RESUME
        if not file.exists():
            return 0
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            settings, weights = dict(state["settings"]), dict(state["model"])
        except Exception as error:  # a damaged file makes torch raise almost anything
            raise _unreadable(file, type(error).__name__) from None
        self._compare(settings)
        check_finite({name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)})
        try:
            self.model.load_state_dict(weights)
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            self.step, self.validation_due = state["step"], state["validation_due"]
            self.best, self.scores = state["best"], state["scores"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _unreadable(file, " ".join(str(error).split())[:200]) from None
        return self.step

    def write(self, step: int, *, validation_due: bool) -> None:
        """Replace the checkpoint of before by the present state; only the process that writes does.

        Args:
            validation_due: The validation after this step is still to come.
        """
        if self.writes:
            self.save(self.folder / LAST, self.model)
            state = {
                "step": step,
                "validation_due": validation_due,
                "best": self.best,
                "scores": self.scores,
                "settings": self._fixed(),
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            with atomic(self.folder / RESUME) as temporary:
                try:
                    torch.save(state, temporary)
                except RuntimeError as error:  # torch's own, for a full disk
                    raise OSError(
                        f"{str(self.folder / RESUME)!r} could not be written: {' '.join(str(error).split())[:200]}"
                    ) from None
        self.step, self.validation_due = step, validation_due

    def keep_best(self, scores: dict[str, float]) -> None:
        """Note the scores of a validation; keep the weights if the first score is the highest so far."""
        # numpy's numbers could not be read again
        self.scores = scores = {name: float(value) for name, value in scores.items()}
        score = next(iter(scores.values()), math.nan)
        if not math.isnan(score) and (self.best is None or score > self.best):
            self.best = score
            self.save(self.folder / BEST, self.model)

    def _compare(self, before: dict[str, Plain]) -> None:
        """Raise `ValueError` where settings that decide the result have changed."""
        now = self._fixed()
        changed = self._unaccepted([name for name in before | now if now.get(name) != before.get(name)])
        if changed == [CODE]:
            was = "with other code, or other versions of the libraries underneath"
            if CODE not in before:
                was = "by a version of wordmask that did not note its code, so that nobody can tell if it is the same"
            raise ValueError(
                f"The training in the folder {str(self.folder)!r} was begun {was}: half of it would be of each. Choose "
                "another folder=…, or remove it to begin anew. If the change has nothing to do with it, add "
                "accept_changed_code=true: it goes on with this code."
            )
        listed = "; ".join(f"{name} is {now.get(name)}, was {before.get(name)}" for name in changed)
        if changed == [DATA]:
            raise ValueError(
                f"The folder {str(self.folder)!r} holds a training with other data: {listed}. If they were changed on "
                "purpose, such as a picture that was repaired or taken out, add accept_changed_data=true: it goes on "
                "with these. Otherwise choose another folder=…."
            )
        if changed:
            raise ValueError(
                f"The folder {str(self.folder)!r} holds a training with other settings: {listed}. "
                "Choose another folder=…, or remove it."
            )

    def _unaccepted(self, changed: list[str]) -> list[str]:
        """What has changed, without what may change on purpose; say so of that."""
        accepted = {CODE: self.settings.accept_changed_code, DATA: self.settings.accept_changed_data}
        notes = {CODE: "the code has changed; the training goes on with this."}
        notes[DATA] = "the data have changed; the training goes on with these."
        for name in changed:
            if accepted.get(name) and self.writes:
                Console(stderr=True).print(f"note: {notes[name]}")
        return [name for name in changed if not accepted.get(name)]

    def _fixed(self) -> dict[str, Plain]:
        """What must be the same when a training goes on, in plain values."""
        fixed: dict[str, Plain] = {"recipe": type(self.settings).__module__}
        for field in dataclasses.fields(self.settings):
            if field.name not in self.settings.any_time:
                value = getattr(self.settings, field.name)
                fixed[field.name] = str(value) if isinstance(value, Path) else value
        if self.fingerprint:
            fixed[DATA] = self.fingerprint
        if self.code:
            fixed[CODE] = self.code
        return fixed


def _unreadable(file: Path, reason: str) -> ValueError:
    return ValueError(f"The checkpoint {str(file)!r} can't be read ({reason}). Remove it to begin again.")
