"""What a training tells while it runs: curves in files, a progress bar, and TensorBoard where it is installed."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wordmask.training.recipe import TrainingSettings
from wordmask.writing import atomic, named

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SMOOTH = 0.95  # share of the old value in the loss that is shown
FLUSH_EVERY = 20  # steps
SAID_EVERY = 100  # steps, where there is no terminal to draw a bar on


class TrainingJournal:
    """`losses.csv`, `scores.csv`, TensorBoard where it is installed, and a progress bar. Rows after the checkpoint are
    written anew.

    Args:
        first: Steps done before.
        quiet: Nothing is written or shown: another process does.
    """

    def __init__(self, settings: TrainingSettings, first: int, *, quiet: bool):
        self.settings, self.first, self.quiet = settings, first, quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.shown: float | None = None

    def __enter__(self) -> "TrainingJournal":
        if self.first and not self.quiet:
            done = "is finished" if self.first == self.settings.steps else "goes on"
            self.say(
                f"The training in {str(self.settings.folder)!r} {done} after step {self.first} of "
                f"{self.settings.steps}."
            )
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=self.quiet or not self.console.is_terminal)
        self.bar.start()
        self.task = self.bar.add_task("", total=self.settings.steps, completed=self.first)
        self.board = None if self.quiet else tensorboard(self.settings.folder, self.first)
        self.losses = self.scores = None
        if not self.quiet:
            self.losses = CurveFile(self.settings.folder / "losses.csv", self.first, FLUSH_EVERY)
            self.scores = CurveFile(self.settings.folder / "scores.csv", self.first)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        for part in (self.losses, self.scores, self.board):
            if part is not None:
                part.close()

    def write(self, step: int, loss: float, rate: float, pace: float) -> None:
        """Note a step: its loss, the learning rate, and pictures per second."""
        if self.losses is None:
            return
        self.shown = loss if self.shown is None else SMOOTH * self.shown + (1 - SMOOTH) * loss
        self.losses.write(step, {"loss": repr(loss), "rate": f"{rate:.6g}", "pictures_per_second": f"{pace:.4g}"})
        text = f"loss {self.shown:.4g}  rate {rate:.3g}  {pace:.3g} pictures/s"
        self.bar.update(self.task, completed=step, description=text)
        if not self.console.is_terminal and (step % SAID_EVERY == 0 or step == self.settings.steps):
            self.say(f"step {step} of {self.settings.steps}  {text}")
        self._show_on_board(step, {"loss": loss, "rate": rate})

    def flush(self) -> None:
        """Bring the rows to the disk: before a checkpoint, so that none is missing after it."""
        if self.losses is not None:
            with named(self.losses.path):
                self.losses.file.flush()

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Note a validation."""
        if self.scores is None:
            return
        self.scores.write(step, {name: f"{value:.6g}" for name, value in scores.items()})
        self.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        self._show_on_board(step, scores)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def _show_on_board(self, step: int, values: Mapping[str, float]) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)


class CurveFile:
    """A CSV file that grows, a row for a step; rows beyond a step, of a training that was interrupted, are dropped when
    it is opened again.

    Args:
        first: Rows of later steps are dropped.
        flush_every: Rows after which they are brought to the disk.
    """

    def __init__(self, path: Path, first: int, flush_every: int = 1):
        kept: list[dict[str, str]] = []
        if first and path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= first]
        with atomic(path) as temporary, temporary.open("w", newline="") as file:
            if kept:
                csv.DictWriter(file, list(kept[0])).writeheader()
                csv.DictWriter(file, list(kept[0])).writerows(kept)
        self.path, self.file = path, path.open("a", newline="")
        self.columns = list(kept[0]) if kept else None
        self.rows, self.flush_every = 0, flush_every

    def write(self, step: int, values: Mapping[str, str]) -> None:
        """Add a row; the first one says what the columns are."""
        row = {"step": str(step), **values}
        writer = csv.DictWriter(self.file, self.columns or list(row))
        if self.columns is None:
            self.columns = list(row)
            writer.writeheader()
        with named(self.path):
            writer.writerow(row)
            self.rows += 1
            if self.rows % self.flush_every == 0:
                self.file.flush()

    def close(self) -> None:
        with named(self.path):
            self.file.close()


def tensorboard(folder: Path, first: int) -> "SummaryWriter | None":
    """A writer for TensorBoard, if it is installed; what it shows after a step, of a training that was interrupted,
    goes away."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first + 1)
