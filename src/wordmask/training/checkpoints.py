"""What a training leaves behind: checkpoints to go on from, curves, and a bar while it runs."""

import csv
import dataclasses
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from wordmask.training.recipe import Settings
from wordmask.writing import atomic, check_writable

LAST, BEST, RESUME = "last.safetensors", "best.safetensors", "last.pt"
SMOOTH = 0.95  # share of the old value in the loss that is shown
FLUSH_EVERY = 20  # steps


class Checkpoint:
    """Everything that is needed to go on as if nothing had happened, in one file that is replaced as a whole.

    Beside it lie the weights alone, as `wordmask.load` reads them: of the last checkpoint, and of the best validation.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        save: Callable[[Path, nn.Module], None],
        fingerprint: str = "",
        writes: bool = True,
    ):
        self.fingerprint = fingerprint
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
        except Exception as error:  # a damaged file makes torch raise almost anything
            raise ValueError(
                f"The checkpoint {str(file)!r} can't be read ({type(error).__name__}). Remove it to begin again."
            ) from None
        before, now = state["settings"], self._fixed()
        changed = {
            name: (now.get(name), before.get(name)) for name in before | now if now.get(name) != before.get(name)
        }
        if changed:
            listed = "; ".join(f"{name} is {new}, was {old}" for name, (new, old) in changed.items())
            raise ValueError(
                f"The folder {str(self.folder)!r} holds a training with other settings: {listed}. "
                "Choose another folder=…, or remove it."
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.validation_due, self.best, self.scores = (
            state[name] for name in ("step", "validation_due", "best", "scores")
        )
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
            }
            state |= {
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

    def _fixed(self) -> dict[str, object]:
        values = dataclasses.asdict(self.settings).items()
        fixed = {"recipe": type(self.settings).__module__} | {
            name: value for name, value in values if name not in self.settings.any_time
        }
        fixed |= {"the data's fingerprint": self.fingerprint} if self.fingerprint else {}
        return {name: str(value) if isinstance(value, Path) else value for name, value in fixed.items()}


class Journal:
    """`losses.csv`, `scores.csv`, TensorBoard where it is installed, and a progress bar. Rows after the checkpoint are
    written anew."""

    def __init__(self, settings: Settings, first: int, *, quiet: bool):
        self.settings, self.first, self.quiet = settings, first, quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.shown: float | None = None

    def __enter__(self) -> "Journal":
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        if self.first and not self.quiet:
            done = "is finished" if self.first == self.settings.steps else "goes on"
            self.say(
                f"The training in {str(self.settings.folder)!r} {done} after step {self.first} of "
                f"{self.settings.steps}."
            )
        self.bar = Progress(*columns, console=self.console, disable=self.quiet or not self.console.is_terminal)
        self.bar.start()
        self.task = self.bar.add_task("", total=self.settings.steps, completed=self.first)
        self.board = None if self.quiet else tensorboard(self.settings.folder, self.first)
        self.losses = self.scores = None
        if not self.quiet:
            self.losses = Table(self.settings.folder / "losses.csv", self.first, FLUSH_EVERY)
            self.scores = Table(self.settings.folder / "scores.csv", self.first)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        for table in filter(None, (self.losses, self.scores)):
            table.close()
        if self.board:
            self.board.close()

    def write(self, step: int, loss: float, rate: float, pace: float) -> None:
        """Note a step: its loss, the learning rate, and pictures per second."""
        if self.quiet:
            return
        self.shown = loss if self.shown is None else SMOOTH * self.shown + (1 - SMOOTH) * loss
        self.losses.write(
            {"step": step, "loss": repr(loss), "rate": f"{rate:.6g}", "pictures_per_second": f"{pace:.4g}"}
        )
        text = f"loss {self.shown:.4g}  rate {rate:.3g}  {pace:.3g} pictures/s"
        self.bar.update(self.task, completed=step, description=text)
        if not self.console.is_terminal and (step % 100 == 0 or step == self.settings.steps):
            self.say(f"step {step} of {self.settings.steps}  {text}")
        if self.board:
            self.board.add_scalar("loss", loss, step)
            self.board.add_scalar("rate", rate, step)

    def flush(self) -> None:
        """Bring the rows to the disk: before a checkpoint, so that none is missing after it."""
        if self.losses:
            self.losses.file.flush()

    def write_scores(self, step: int, scores: dict[str, float]) -> None:
        """Note a validation."""
        self.scores.write({"step": step, **{name: f"{value:.6g}" for name, value in scores.items()}})
        self.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        for name, value in scores.items() if self.board else ():
            self.board.add_scalar(name, value, step)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)


class Table:
    """A CSV file that grows; rows beyond a step, of a training that was interrupted, are dropped when it is opened
    again."""

    def __init__(self, path: Path, first: int, flush_every: int = 1):
        kept: list[dict[str, str]] = []
        if first and path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= first]
        with atomic(path) as temporary, temporary.open("w", newline="") as file:
            if kept:
                csv.DictWriter(file, list(kept[0])).writeheader()
                csv.DictWriter(file, list(kept[0])).writerows(kept)
        self.file = path.open("a", newline="")
        self.columns = list(kept[0]) if kept else None
        self.rows, self.flush_every = 0, flush_every

    def write(self, row: dict[str, object]) -> None:
        writer = csv.DictWriter(self.file, self.columns or list(row))
        if self.columns is None:
            self.columns = list(row)
            writer.writeheader()
        writer.writerow(row)
        self.rows += 1
        if self.rows % self.flush_every == 0:
            self.file.flush()

    def close(self) -> None:
        self.file.close()


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a wish to stop after the present step; the second Ctrl-C stops at once."""

    def __enter__(self) -> "StopSignal":
        self.received = False
        try:
            self.before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: nobody sends us signals
            self.before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            print("\nStopping after this step, and saving.", file=sys.stderr)
        self.received = True


def tensorboard(folder: Path, first: int) -> object | None:
    """A writer for TensorBoard, if it is installed; what it shows after a step, of a training that was interrupted,
    goes away."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first + 1)
