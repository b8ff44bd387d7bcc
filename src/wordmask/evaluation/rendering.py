"""A report as people read it: tables in the terminal, and Markdown."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from wordmask.evaluation.report import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = list[str]
WORDS = ("percent", "class", "kind", "taken for")  # columns that hold no numbers


def in_terminal(report: Report) -> "Iterable[RenderableType]":
    """What a person sees first: figures, the worst classes, speed and the conditions."""
    from rich.table import Table
    from rich.text import Text

    def table(title: str, head: Row, rows: list[Row]) -> Table:
        shown = Table(title=Text(title), title_justify="left", title_style="bold")
        for name in head:
            shown.add_column(Text(name), justify="left" if name in WORDS else "right")
        for row in rows:
            shown.add_row(*map(Text, row))
        return shown

    for split in report.splits:
        yield table(heading(report, split), *figure_table(split))
        yield from map(Text, notes(split))
        yield table("The worst classes", *confusion_table(split))
    yield Text("\n".join(condition_lines(report)))


def markdown(report: Report) -> str:
    """All of a report, every class too."""
    parts = []
    for split in report.splits:
        parts += [
            f"## {heading(report, split)}",
            _markdown_table(*figure_table(split)),
            "\n".join(f"* {note}" for note in notes(split)),
        ]
        parts += ["### The worst classes", _markdown_table(*confusion_table(split))]
        parts += ["### Every class", _markdown_table(*class_table(split))]
    parts += ["## Conditions", "\n".join(f"* {line}" for line in condition_lines(report))]
    return "\n\n".join(parts) + "\n"


def heading(report: Report, split: Mapping) -> str:
    return f"{report.conditions['model']} on {split['title']}, {split['pictures']} of {split['of']} pictures"


def figure_table(split: Mapping) -> tuple[Row, list[Row]]:
    """Ours beside what was published."""
    rows = []
    for name, value in split["figures"].items():
        theirs, difference = split["published"].get(name), split["difference"].get(name)
        rows.append([name, number(value), number(theirs), "" if difference is None else f"{difference:+.1f}"])
    return ["percent", "ours", split["published_by"] or "published", "difference"], rows


def notes(split: Mapping) -> list[str]:
    """What one has to know to read the figures."""
    protocol = ", ".join(f"{name} {value}" for name, value in split["protocol"].items() if name != "note")
    lines = [f"protocol: {protocol}"]
    if "note" in split["protocol"]:
        lines.append(f"protocol: {split['protocol']['note']}")
    if split["changed"]:
        lines.append(
            "not the paper's protocol: "
            + ", ".join(f"{name} {value}" for name, value in split["changed"].items())
            + " was chosen"
        )
    if split["pictures"] != split["of"]:
        lines.append(f"only {split['pictures']} of {split['of']} pictures: these figures compare with no others")
    speed, memory = split["speed"], split["memory"]
    if speed:
        tasks = ", ".join(split["tasks"])
        times = f"{speed['median_ms']:.0f} ms a picture (median; 95 % below {speed['p95_ms']:.0f})"
        lines.append(f"speed: {times}, {tasks}, one at a time, from RGB in memory to results")
    if memory:
        kinds = {"machine_mib": "of memory", "gpu_mib": "on the GPU"}
        lines.append(
            "memory: " + ", ".join(f"{value:.0f} MiB {kinds[name]}" for name, value in memory.items()) + " at most"
        )
    return lines


def confusion_table(split: Mapping) -> tuple[Row, list[Row]]:
    """The worst classes, and what their pixels are taken for."""
    rows = []
    for entry in split["confusion"]:
        taken = ", ".join(f"{other['name']} {100 * other['share']:.0f} %" for other in entry["taken_for"])
        rows.append([entry["name"], number(entry["IoU"]), str(entry["pixels"]), taken])
    return ["class", "IoU", "pixels", "taken for"], rows


def class_table(split: Mapping) -> tuple[Row, list[Row]]:
    """All classes that are in the truth, by label."""
    columns = [name for name in split["classes"][0] if name not in ("label", "name", "kind", "share")]
    rows = [
        [
            str(row["label"]),
            row["name"],
            row["kind"],
            f"{100 * row['share']:.2f}",
            *(number(row[column]) for column in columns),
        ]
        for row in split["classes"]
        if row["share"] or any(not math.isnan(row[column]) for column in columns)
    ]
    return ["label", "class", "kind", "% of pixels", *columns], rows


def condition_lines(report: Report) -> list[str]:
    """How it was measured."""
    conditions = report.conditions
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    threads = f"{conditions['processes']} × {conditions['threads']} threads"
    machine = f"{conditions['device']}, {conditions['precision']}, {threads}"
    where = f", commit {conditions['commit']}" if conditions["commit"] else ""
    return [f"{machine}; {conditions['date']}", f"{versions}{where}; weights {conditions['weights']}"]


def number(value: float | None) -> str:
    """One decimal, as papers have it."""
    return "" if value is None or math.isnan(value) else f"{value:.1f}"


def _markdown_table(head: Row, rows: list[Row]) -> str:
    lines = [head, ["---" if name in WORDS else "---:" for name in head], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
