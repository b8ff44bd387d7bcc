"""How far a job is: pictures a second, and the time that is left."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from wordmask.batch.job import Outcome


class Speed(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} pictures/s" if task.speed else "– pictures/s")


def with_bar(outcomes: Iterable[Outcome], total: int, earlier: int) -> Iterator[Outcome]:
    """Go through outcomes with a bar on the terminal, if there is one.

    Args:
        total: Pictures in all.
        earlier: Those finished before.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=60) as progress:
        task = progress.add_task("Segmenting", total=total, completed=earlier)
        for outcome in outcomes:
            progress.advance(task)
            yield outcome
