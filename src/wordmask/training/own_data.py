"""One's own data before a training: looked at picture by picture, divided, and told about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wordmask.bars import bar
from wordmask.data.class_table import CountedHalf, absences, class_table, tell_what_was_found
from wordmask.data.files import first_few
from wordmask.data.labelled import DataSet
from wordmask.data.layouts import open_folder
from wordmask.data.own_folder import OwnFolder
from wordmask.data.reading import FolderReading
from wordmask.data.survey import Survey, survey
from wordmask.processes import Processes
from wordmask.training.validation import Subset

HOLD_OUT_EVERY = 5  # one picture in so many is kept from the training, where nobody says which
LEARNT, MEASURED = "learnt", "measured"


@dataclass(frozen=True)
class Surveyed:
    """A folder of one's own, and what was found in it."""

    data: OwnFolder
    survey: Survey


@dataclass(frozen=True)
class Halves:
    """What to learn from, and what to measure on.

    Args:
        learnt: Places of the first.
        measured: Places of the second, which may be of another folder.
    """

    learn_from: Surveyed
    learnt: list[int]
    measure_on: Surveyed
    measured: list[int]

    @property
    def learn(self) -> DataSet:
        return Subset(self.learn_from.data, self.learnt)

    @property
    def own(self) -> DataSet:
        return Subset(self.measure_on.data, self.measured)

    def fingerprint(self) -> str:
        """Changes with what is learnt from, and with what is measured on: contents, classes, and how they are
        divided."""
        digest = hashlib.sha256(repr((self.learnt, self.measured)).encode())
        for one in dict.fromkeys((self.learn_from.survey.fingerprint(), self.measure_on.survey.fingerprint())):
            digest.update(one.encode())
        return digest.hexdigest()[:16]


def look_into(folder: Path, reading: FolderReading, processes: Processes, console: Console) -> Surveyed:
    """Open a folder of one's own, and decode everything in it; the first of several processes does it for all.

    Raises:
        ValueError: Something can't be used; with `reading.partial`, nothing can.
    """
    data, found = open_folder(folder, reading), None
    if processes.first:
        console.print(f"Checking {len(data)} pictures and their labels …")

        def watch(title: str, done: int, total: int):
            return bar(title, done, total)

        found = survey(data, watch)
    found = processes.from_first(found)
    assert found is not None  # the first has it
    found.require(partial=reading.partial)
    if processes.first:
        tell_what_was_found(data, found, console)
    return Surveyed(data, found)


def divide(whole: Surveyed, console: Console) -> Halves:
    """Keep some pictures of a folder for measuring: those that it names itself, otherwise one in five of those that
    show anything, spread over it. Pictures with the same contents stay together.

    Raises:
        ValueError: There are too few.
    """
    found = whole.survey
    if len(found.usable) < 2:
        raise ValueError(
            f"{str(whole.data.root)!r} holds {len(found.usable)} picture; expected at least 2: one to learn from, one "
            "to measure on."
        )
    groups = found.alike()
    labelled = [group for group in groups if _shows_anything(found, group)]
    if whole.data.by_itself is not None:
        kept = set(whole.data.by_itself) & set(found.usable)
        learnt = _unless_alike(whole, [place for place in found.usable if place not in kept], whole, kept, console)
        halves = Halves(whole, learnt, whole, sorted(kept))
    elif len(labelled) > 1:
        _tell_alike(found, groups, console)
        chosen = {place for group in labelled[::HOLD_OUT_EVERY] for place in group}
        halves = Halves(
            whole, [place for place in found.usable if place not in chosen], whole, _only(found.usable, chosen)
        )
    else:
        halves = _divided_singly(whole, len(groups), console)
    if not halves.learnt or not halves.measured:
        raise ValueError(
            f"{str(whole.data.root)!r} has {len(halves.learnt)} pictures to learn from and {len(halves.measured)} to "
            "measure on; expected at least one of each."
        )
    return halves


def divide_by_folder(whole: Surveyed, others: Surveyed, console: Console) -> Halves:
    """Learn from one folder and measure on another, which has the same classes.

    Raises:
        ValueError: It has others.
    """
    if others.data.vocabulary.names != whole.data.vocabulary.names:
        raise ValueError(
            f"{str(others.data.root)!r} has other classes than {str(whole.data.root)!r}; expected the same, in the "
            "same order."
        )
    measured = others.survey.usable
    return Halves(whole, _unless_alike(whole, whole.survey.usable, others, measured, console), others, measured)


def tell_classes(halves: Halves, console: Console) -> None:
    """Print the table of classes, and warn where one never occurs.

    Raises:
        ValueError: There is nothing to learn.
    """
    learn, own = halves.learn_from, halves.measure_on
    vocabulary = learn.data.vocabulary
    counted = (
        CountedHalf(LEARNT, len(halves.learnt), learn.survey.counts(halves.learnt)),
        CountedHalf(MEASURED, len(halves.measured), own.survey.counts(halves.measured)),
    )
    console.print(f"{counted[0].pictures} pictures to learn from, {counted[1].pictures} to measure on:")
    console.print(class_table(vocabulary, counted, things_apart=learn.data.tells_things_apart))
    for line in absences(vocabulary, counted):
        console.print(f"warning: {line}.", soft_wrap=True, style="bold", markup=False)
    if not counted[0].counts.pixels.any():
        raise ValueError(f"No picture to learn from in {str(learn.data.root)!r} has a label. Label more of them.")
    if not counted[1].counts.pixels.any():
        console.print(
            "warning: no picture to measure on has a label: there will be no score. Label more, or name a folder: "
            "validation=FOLDER.",
            soft_wrap=True,
            style="bold",
        )


def _divided_singly(whole: Surveyed, contents: int, console: Console) -> Halves:
    """Divide pictures of which all that show anything have the same contents."""
    found = whole.survey
    labelled = [place for place in found.usable if found.found[place].classes]
    if len(labelled) > 1:
        console.print(
            f"warning: all {len(labelled)} labelled pictures have the same contents, and stand in both halves: scores "
            "say nothing.",
            style="bold",
            soft_wrap=True,
        )
        chosen = set(labelled[::HOLD_OUT_EVERY])
    else:
        chosen = {next(place for place in found.usable if place not in labelled)}
    learnt = [place for place in found.usable if place not in chosen]
    return Halves(whole, learnt, whole, _only(found.usable, chosen))


def _unless_alike(
    whole: Surveyed, learnt: Sequence[int], others: Surveyed, measured: Sequence[int] | set[int], console: Console
) -> list[int]:
    """The pictures to learn from without those whose contents are measured too, which are named."""
    contents = {others.survey.found[place].contents for place in measured}
    apart = [place for place in learnt if whole.survey.found[place].contents not in contents]
    both = [place for place in learnt if whole.survey.found[place].contents in contents]
    if not both:
        return apart
    names = first_few([Path(whole.survey.found[place].source).name for place in both])
    if not apart:
        console.print(
            f"warning: all {len(both)} pictures to learn from are measured too ({names}): scores say how well they are "
            "known by heart.",
            style="bold",
            soft_wrap=True,
            markup=False,
        )
        return both
    console.print(
        f"note: {len(both)} pictures have the same contents as one that is measured, and are not learnt from: {names}.",
        soft_wrap=True,
        markup=False,
    )
    return apart


def _tell_alike(found: Survey, groups: Sequence[Sequence[int]], console: Console) -> None:
    several = [group for group in groups if len(group) > 1]
    if several:
        listed = []
        for group in several:
            names = [Path(found.found[place].source).name for place in group]
            listed.append(" = ".join(names[:2]) + (f" = … ({len(names)})" if len(names) > 2 else ""))
        pictures = sum(len(group) for group in several)
        console.print(
            f"note: {pictures} pictures have the same contents as another; they are kept in one half: "
            f"{first_few(listed)}.",
            soft_wrap=True,
            markup=False,
        )


def _shows_anything(found: Survey, places: Sequence[int]) -> bool:
    return any(found.found[place].classes for place in places)


def _only(places: Sequence[int], chosen: set[int]) -> list[int]:
    return [place for place in places if place in chosen]
