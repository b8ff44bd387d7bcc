"""One's own folder as something to measure on: a split that no table lists."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wordmask.data.layouts import open_folder
from wordmask.data.own_folder import OwnFolder
from wordmask.data.reading import FolderReading
from wordmask.data.splits import ALL_TASKS, SPLITS, Split
from wordmask.data.survey import Survey, Watch, survey
from wordmask.processes import Processes
from wordmask.writing import expanded

Tell = Callable[[OwnFolder, Survey], None]  # what is in a folder


@dataclass(frozen=True)
class OwnSplit:
    """A folder of one's own, which of its pictures can be used, and what changes with their contents."""

    split: Split
    data: OwnFolder
    places: list[int]
    fingerprint: str


def silent(data: OwnFolder, found: Survey) -> None:
    """Tell nothing."""


def is_own_folder(name: str) -> bool:
    """Whether what is to be measured on is a folder, and no split of the table."""
    return name.strip().lower() not in SPLITS and expanded(name).is_dir()


def open_own(name: str, reading: FolderReading, watch: Watch, tell: Tell) -> OwnSplit:
    """Open a folder and decode everything in it; the first of several processes does it for all.

    Raises:
        ValueError: Something can't be used; with `reading.partial`, nothing can.
    """
    processes, folder = Processes.join(), expanded(name)
    data = open_folder(folder, reading)
    found = processes.from_first(survey(data, watch) if processes.first else None)
    assert found is not None  # the first has it
    found.require(partial=reading.partial)
    if processes.first:
        tell(data, found)

    def again(root: Path) -> OwnFolder:
        return open_folder(root, reading)

    tasks = ALL_TASKS if data.tells_things_apart else ("semantic",)
    split = Split(folder.resolve().name, len(found.usable), again, get="one's own", tasks=tasks)
    return OwnSplit(split, data, found.usable, found.fingerprint())


def spread(places: list[int], most: int | None) -> list[int]:
    """At most so many, evenly spread over all."""
    if most is None or most >= len(places):
        return places
    return [places[number * len(places) // most] for number in range(most)]
