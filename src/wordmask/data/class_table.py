"""What is in a data set, as a person reads it before anything is trained or measured on it."""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from wordmask.data.files import first_few
from wordmask.data.own_folder import OwnFolder
from wordmask.data.survey import ClassCounts, Survey
from wordmask.vocabulary import Vocabulary

WIDEST = 140  # columns where the terminal doesn't say
DECIMALS = 2  # of shares, in percent


class CountedHalf:
    """A part of a data set: what it is for, how many pictures it has, and what is in them."""

    def __init__(self, title: str, pictures: int, counts: ClassCounts):
        self.title, self.pictures, self.counts = title, pictures, counts

    @property
    def all_pixels(self) -> int:
        return int(self.counts.pixels.sum()) + self.counts.unlabelled

    def cells(self, label: int, thing: bool | None) -> list[str]:
        """What is said of a class; `thing` is None where things are not told apart."""
        pixels, pictures = int(self.counts.pixels[label]), int(self.counts.pictures[label])
        cells = [*_amount(pixels, self.all_pixels), f"{pictures:,}"]
        if thing is not None:
            cells.append(f"{int(self.counts.segments[label]):,}" if thing else "–")
        return cells


def class_table(vocabulary: Vocabulary, halves: Sequence[CountedHalf], *, things_apart: bool) -> Table:
    """A row for each class: its pixels, and their share, the pictures it is in, and how many things it is."""
    table = Table(box=SIMPLE)
    table.add_column("class", no_wrap=True, overflow="fold")
    for half in halves:
        named = [f"{half.title}: pixels", "share", "pictures", *(["things"] if things_apart else [])]
        for name in named:
            table.add_column(name, justify="right")
    for label, entry in enumerate(vocabulary):
        row = [f"{label} {entry.name}"]
        for half in halves:
            row += half.cells(label, entry.thing if things_apart else None)
        table.add_row(*row)
    last = ["(unlabelled)"]
    for half in halves:
        last += [*_amount(half.counts.unlabelled, half.all_pixels), *([""] * (2 if things_apart else 1))]
    table.add_row(*last)
    return table


def absences(vocabulary: Vocabulary, halves: Sequence[CountedHalf]) -> list[str]:
    """A line for each half in which a class never occurs."""
    lines = []
    for half in halves:
        absent = [entry.name for label, entry in enumerate(vocabulary) if not half.counts.pixels[label]]
        if absent:
            lines.append(
                f"never in what is {half.title}: {first_few(absent)} ({len(absent)} of {len(vocabulary)} classes)"
            )
    return lines


def tell_own_folder(data: OwnFolder, found: Survey) -> None:
    """Print what is in a folder that is measured on."""
    console, vocabulary = wide_console(), data.vocabulary
    tell_what_was_found(data, found, console)
    counted = [CountedHalf("measured", len(found.usable), found.counts())]
    console.print(class_table(vocabulary, counted, things_apart=data.tells_things_apart))
    for line in absences(vocabulary, counted):
        console.print(f"note: {line}.", soft_wrap=True, markup=False)


def wide_console() -> Console:
    """Where what is found is told: standard error."""
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, width=WIDEST)


def _costs_nothing(data: OwnFolder, found: Survey) -> list[str]:
    """Whether things alone are labelled, on ground that is not."""
    counts, things = found.counts(), np.array([entry.thing for entry in data.vocabulary])
    total = counts.pixels.sum() + counts.unlabelled
    if not data.tells_things_apart or counts.pixels[~things].any() or not counts.unlabelled:
        return []
    return [
        f"only things are labelled, and {100 * counts.unlabelled / total:.0f} % of the pixels have no label: what a "
        "model invents there costs it nothing in PQ and mIoU; with unlabelled=background it does"
    ]


def _amount(pixels: int, total: int) -> list[str]:
    return [f"{pixels:,}", f"{100 * pixels / max(1, total):.{DECIMALS}f} %"]


def tell_what_was_found(data: OwnFolder, found: Survey, console: Console) -> None:
    """Say what was assumed, what is left out, and what may be meant otherwise."""
    for note in data.notes:
        console.print(f"note: {note}.", soft_wrap=True)
    if found.findings.kinds:
        gone = found.total - len(found.found)
        console.print(f"note: left out of {str(data.root)!r}, with {gone} whole pictures of {found.total}:")
        for line in found.findings.lines():
            console.print(line, soft_wrap=True, markup=False)
    for suspicion in [*data.suspicions(found.counts()), *_costs_nothing(data, found)]:
        console.print(f"warning: {suspicion}.", soft_wrap=True, style="bold", markup=False)
