"""A report as people read it: tables in the terminal, and Markdown."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from wordmask.evaluation.report import ClassScores, EvaluationReport, SplitReport

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WORDS = ("percent", "class", "kind", "taken for")  # columns that hold no numbers


class TextTable(NamedTuple):
    """A table in words: the columns' names, and the rows."""

    head: list[str]
    rows: list[list[str]]


def in_terminal(report: EvaluationReport) -> "Iterable[RenderableType]":
    """What a person sees first: figures, the worst classes, speed and the conditions."""
    from rich.text import Text

    for split in report.splits:
        yield _terminal_table(heading(report, split), figure_table(split))
        yield from map(Text, notes(split))
        yield _terminal_table("The worst classes", confusion_table(split))
    yield Text("\n".join(condition_lines(report)))


def _terminal_table(title: str, table: TextTable) -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in table.head:
        shown.add_column(Text(name), justify="left" if name in WORDS else "right")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def markdown(report: EvaluationReport) -> str:
    """All of a report, every class too."""
    parts = []
    for split in report.splits:
        parts += [f"## {heading(report, split)}", _markdown_table(figure_table(split))]
        parts.append("\n".join(f"* {note}" for note in notes(split)))
        parts += ["### The worst classes", _markdown_table(confusion_table(split))]
        parts += ["### Every class", _markdown_table(class_table(split))]
    parts += ["## Conditions", "\n".join(f"* {line}" for line in condition_lines(report))]
    return "\n\n".join(parts) + "\n"


def heading(report: EvaluationReport, split: SplitReport) -> str:
    return f"{report.conditions.model} on {split.title}, {split.pictures} of {split.whole} pictures"


def figure_table(split: SplitReport) -> TextTable:
    """Ours beside what was published."""
    rows = []
    for name, value in split.figures.items():
        difference = split.difference.get(name)
        shown = "" if difference is None else f"{difference:+.1f}"
        rows.append([name, number(value), number(split.published.get(name)), shown])
    return TextTable(["percent", "ours", split.published_by or "published", "difference"], rows)


def notes(split: SplitReport) -> list[str]:
    """What one has to know to read the figures."""
    protocol = split.protocol.to_dict() | {"input": split.input}
    lines = ["protocol: " + ", ".join(f"{name} {value}" for name, value in protocol.items() if name != "note")]
    if split.protocol.note:
        lines.append(f"protocol: {split.protocol.note}")
    if split.changed:
        changed = ", ".join(f"{name} {value}" for name, value in split.changed.items())
        lines.append(f"not the paper's protocol: {changed} was chosen")
    if split.pictures != split.whole:
        lines.append(f"only {split.pictures} of {split.whole} pictures: these figures compare with no others")
    if split.speed is not None:
        times = f"{split.speed.median_ms:.0f} ms a picture (median; 95 % below {split.speed.p95_ms:.0f})"
        lines.append(f"speed: {times}, {', '.join(split.tasks)}, one at a time, from RGB in memory to results")
    kinds = {"of memory": split.memory.machine_mib, "on the GPU": split.memory.gpu_mib}
    memory = [f"{value:.0f} MiB {kind}" for kind, value in kinds.items() if value is not None]
    if memory:
        lines.append(f"memory: {', '.join(memory)} at most")
    return lines


def confusion_table(split: SplitReport) -> TextTable:
    """The worst classes, and what their pixels are taken for."""
    rows = []
    for entry in split.confusion:
        taken = ", ".join(f"{other.name} {100 * other.share:.0f} %" for other in entry.taken_for)
        rows.append([entry.name, number(entry.iou), str(entry.pixels), taken])
    return TextTable(["class", "IoU", "pixels", "taken for"], rows)


def class_table(split: SplitReport) -> TextTable:
    """All classes that are in the truth, by label."""
    columns = list(split.classes[0].figures)
    rows = [_class_row(entry) for entry in split.classes if entry.share or _has_figures(entry)]
    return TextTable(["label", "class", "kind", "% of pixels", *columns], rows)


def _has_figures(entry: ClassScores) -> bool:
    return not all(math.isnan(value) for value in entry.figures.values())


def _class_row(entry: ClassScores) -> list[str]:
    about = [str(entry.label), entry.name, entry.kind, f"{100 * entry.share:.2f}"]
    return about + [number(value) for value in entry.figures.values()]


def condition_lines(report: EvaluationReport) -> list[str]:
    """How it was measured."""
    conditions = report.conditions
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    threads = f"{conditions.processes} × {conditions.threads} threads"
    machine = f"{conditions.device}, {conditions.precision}, {threads}"
    where = f", commit {conditions.commit}" if conditions.commit else ""
    return [f"{machine}; {conditions.date}", f"{versions}{where}; weights {conditions.weights}"]


def number(value: float | None) -> str:
    """One decimal, as papers have it."""
    return "" if value is None or math.isnan(value) else f"{value:.1f}"


def _markdown_table(table: TextTable) -> str:
    rules = ["---" if name in WORDS else "---:" for name in table.head]
    return "\n".join(_markdown_line(row) for row in (table.head, rules, *table.rows))


def _markdown_line(cells: list[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
