"""How far some work with many pictures is: pictures a second, and the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SPEED_SECONDS = 60.0  # that the speed shown is a mean over


class PicturesPerSecond(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} pictures/s" if task.speed else "– pictures/s")


@contextmanager
def bar(title: str, done: int, total: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar until the block ends, if standard error is a terminal.

    Args:
        done: Pictures that were finished before.
        total: Pictures in all.
        shown: Whether to show it at all.

    Yields:
        What to call whenever one more is done.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        PicturesPerSecond(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, speed_estimate_period=SPEED_SECONDS) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda: progress.advance(task)
