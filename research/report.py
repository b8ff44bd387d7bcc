"""A measured table, as json keeps it → a page and a plot. Nothing is measured here: the same json gives the same
page."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from claims import SAID, holds, sentence, stated
from wordmask.writing import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, object]
COLOURS = {"": "#1f4e79", " seen": "#4c9f70", " unseen": "#d1495b"}  # of scores over all classes, seen and unseen ones
PAPER = "#999999"
WIDTH, ROW_HEIGHT = 4.2, 0.42  # inches, of a panel and of a row in it


def write(name: str, table: dict[str, object], folder: Path) -> None:
    """Write the page and the plot of one table."""
    with atomic(folder / f"{name}.md") as temporary:
        temporary.write_text(page(name, table))
    with atomic(folder / f"{name}.png") as temporary:
        draw(table, temporary)


def write_summary(tables: dict[str, dict[str, object]], missing: list[str], folder: Path) -> None:
    """Write what the tables come to: every claim, and whether it holds here.

    Args:
        missing: Names of tables that were not measured yet.
    """
    lines = [
        "# The papers' tables in small",
        "",
        (
            "Written by `python research/tables.py`; don't edit. The world is Shapeland, generated scenes with an open "
            "vocabulary, and models"
        ),
        "are small: what holds here may not hold on photographs, and the other way round.",
        "",
        "| table | agrees | doesn't agree | can't be told |",
        "|---|---|---|---|",
    ]
    for name, table in tables.items():
        verdicts = [holds(claim) for claim in table["claims"]]
        lines.append(
            f"| [{table['title']}]({name}.md) | {' | '.join(str(verdicts.count(verdict)) for verdict in SAID)} |"
        )
    lines += ["", f"Not measured yet: {', '.join(missing)}."] if missing else []
    for verdict, said in SAID.items():
        found = [(table, claim) for table in tables.values() for claim in table["claims"] if holds(claim) is verdict]
        lines += [
            "",
            f"## {said}",
            "",
            *([f"* *{table['title']}*: {stated(claim)}" for table, claim in found] or ["Nothing."]),
        ]
    with atomic(folder / "README.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


# The page -------------------------------------------------------------------------------------------------------------


def page(name: str, table: dict[str, object]) -> str:
    """A table in Markdown, with its claims and conditions."""
    columns = columns_of(table["rows"])
    lines = [f"# {table['title']}", "", f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for row in table["rows"]:
        cells = cells_of(row, table)
        lines.append(f"| {row['variant']} | {' | '.join(cells.get(column, '') for column in columns)} |")
    lines += ["", f"![{table['title']}]({name}.png)", ""]
    lines += [f"* {sentence(claim)}" for claim in table["claims"]]
    lines += ["", *table["notes"], "", "## Conditions", ""]
    lines += [f"* {condition}: {said(value)}" for condition, value in table["conditions"].items()]
    return "\n".join(lines) + "\n"


def columns_of(rows: list[Row]) -> list[str]:
    """The columns that any row has something for, in their order."""
    has = {part for row in rows for part in row}
    columns = list(dict.fromkeys(score for row in rows for score in row.get("scores", {})))
    columns += ["× time", "ms"] if "time" in has else []
    columns += ["M parameters", "of these in the spatial tower", "G operations"] if "cost" in has else []
    return columns + (
        ["paper: PQ", "paper: mIoU", "paper: × time", "paper: M parameters"] if "published" in has else []
    )


def cells_of(row: Row, table: dict[str, object]) -> dict[str, str]:
    """The cells of a row, by column."""
    cells = {
        score: f"{value:.1f} ({low:.1f}–{high:.1f})" for score, (value, low, high) in row.get("scores", {}).items()
    }
    if "time" in row:
        time = row["time"]
        cells |= {
            "× time": f"{time['ratio']:.2f} ({time['low']:.2f}–{time['high']:.2f})",
            "ms": f"{1e3 * time['seconds']:.0f}",
        }
    if "cost" in row:
        cost = row["cost"]
        cells |= {
            "M parameters": f"{cost['parameters'] / 1e6:.2f}",
            "of these in the spatial tower": f"{cost['spatial tower'] / 1e6:.2f}",
        }
        cells |= {"G operations": f"{cost['operations'] / 1e9:.2f}"}
    if "published" in row:
        cells |= published_cells(row, table)
    return cells


def published_cells(row: Row, table: dict[str, object]) -> dict[str, str]:
    """What the paper says of a row."""
    published = row["published"]
    cells = {"paper: PQ": f"{published['pq']:.1f}", "paper: mIoU": f"{published['miou']:.1f}"}
    return cells | {
        "paper: × time": f"{published_ratio(row, table):.2f}",
        "paper: M parameters": f"{published['parameters']:.0f}",
    }


def published_ratio(row: Row, table: dict[str, object]) -> float:
    """How many times the time of the first variant one takes, by the paper's pictures per second."""
    base = next(other for other in table["rows"] if other["variant"] == table["base"])
    return base["published"]["fps"] / row["published"]["fps"]


def said(value: object) -> str:
    """A condition in words."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# The plot -------------------------------------------------------------------------------------------------------------


def draw(table: dict[str, object], path: Path) -> None:
    """Draw a table: scores with their intervals beside times with theirs."""
    from matplotlib.figure import Figure

    panels = list(panels_of(table))
    height = 3.8 if table["plot"] == "curve" else 1.7 + ROW_HEIGHT * len(table["rows"])
    left = 0 if table["plot"] == "curve" else 1.6
    figure = Figure(figsize=(left + WIDTH * len(panels), height), layout="constrained")
    figure.suptitle(table["title"])
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=table["plot"] != "curve")[0]
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        curve(axis, table, panel) if table["plot"] == "curve" else dots(axis, table, panel, first=place == 0)
    figure.savefig(path, dpi=110)


def panels_of(table: dict[str, object]) -> Iterator[str]:
    """What there is to draw: scores over all classes stand for those over seen and unseen ones too."""
    rows = table["rows"]
    yield from dict.fromkeys(score for row in rows for score in row.get("scores", {}) if not score.endswith("seen"))
    if not any("scores" in row for row in rows):
        yield "M parameters"
    if any("time" in row for row in rows):
        yield "× time"


def series_of(table: dict[str, object], panel: str) -> Iterator[tuple[str, str, list[list[float] | None]]]:
    """Label, colour and, of every row, value, low end and high end; None where there is none."""
    rows = table["rows"]
    if panel == "M parameters":
        ours = ([row["cost"]["parameters"] / 1e6] * 3 for row in rows)
        yield "counted", COLOURS[""], list(ours)
        theirs = [[row["published"]["parameters"]] * 3 if "published" in row else None for row in rows]
    elif panel == "× time":
        times = (row.get("time") for row in rows)
        yield (
            "measured (middle half)",
            COLOURS[""],
            [time and [time["ratio"], time["low"], time["high"]] for time in times],
        )
        theirs = [[published_ratio(row, table)] * 3 if "published" in row else None for row in rows]
    else:
        for group, colour in COLOURS.items():
            yield f"{group.strip() or 'all'} classes", colour, [row["scores"].get(panel + group) for row in rows]
        return
    if any(theirs):
        yield "paper", PAPER, theirs


def dots(axis: "Axes", table: dict[str, object], panel: str, *, first: bool) -> None:
    """One line per variant, one dot per figure, with its interval."""
    every = list(series_of(table, panel))
    for number, (label, colour, values) in enumerate(every):
        places = [place + 0.22 * (number - (len(every) - 1) / 2) for place, value in enumerate(values) if value]
        known = [value for value in values if value]
        errors = [[value - low for value, low, _ in known], [high - value for value, _, high in known]]
        axis.errorbar(
            [value for value, *_ in known],
            places,
            xerr=errors,
            fmt="o",
            markersize=5,
            color=colour,
            label=label,
            capsize=2,
        )
    axis.set_xlabel(
        f"{panel}, %" if panel in ("PQ", "mIoU") else f"{panel} of {table['base']}" if panel == "× time" else panel
    )
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlim(0, 1.05 * axis.dataLim.x1 or 1)
    if first:
        axis.set_yticks(range(len(table["rows"])), [row["variant"] for row in table["rows"]])
        axis.invert_yaxis()
    legend_below(axis)


def curve(axis: "Axes", table: dict[str, object], panel: str) -> None:
    """Figures over K, with bands for their intervals."""
    keeps = [row["K"] for row in table["rows"]]
    for label, colour, values in series_of(table, panel):
        middle, low, high = zip(*values, strict=True)
        axis.plot(keeps, middle, "o-", color=colour, label=label, markersize=4)
        axis.fill_between(keeps, low, high, color=colour, alpha=0.15)
    axis.set_xscale("log")
    axis.set_xticks(keeps, [str(keep) for keep in keeps])
    axis.minorticks_off()
    axis.set_xlabel("K, classes refined")
    axis.set_ylabel(f"{panel}, %" if panel == "mIoU" else f"{panel} of {table['base']}")
    if panel == "× time":
        axis.set_yscale("log")  # from a hundredth to the whole
    else:
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    legend_below(axis)


def legend_below(axis: "Axes") -> None:
    """A legend that covers no figure."""
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -52 / axis.bbox.height), ncols=3, frameon=False)
