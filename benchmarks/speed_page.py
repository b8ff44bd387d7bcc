"""The page and the plots of `speed.py`, and what the reference took."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wordmask.bench.machine import Machine, MachineConditions
from wordmask.bench.table import machine_line
from wordmask.bench.timing import Timing

REFERENCE_YARDSTICK = 1.75  # seconds, where the reference was measured


class Row(NamedTuple):
    """A model at a vocabulary; what the reference took, seconds (its float32, its bfloat16 autocast), and its peak
    memory in GB.

    Two AMX cores, text embeddings cached, one 480×640 photograph, median of 3.
    """

    model: str
    vocabulary: str
    float32: float
    bfloat16: float
    memory: float
    asked: tuple[float, float]  # times faster than its float32: in float32, at default precision


ROWS = {
    "ERR-Seg B, 150": Row("err-seg-base", "ade20k-150", 5.2, 2.2, 2.5, (1.25, 3)),
    "ERR-Seg B, 847": Row("err-seg-base", "ade20k-847", 7.4, 3.8, 3.0, (1.5, 4)),
    "ERR-Seg L, 847": Row("err-seg-large", "ade20k-847", 16.2, 9.3, 3.9, (1.5, 4)),
    "EOV-Seg S, 150": Row("eov-seg-small", "ade20k-150", 4.7, 3.0, 3.1, (1.25, 3)),
    "EOV-Seg M, 150": Row("eov-seg-medium", "ade20k-150", 5.9, 3.7, 3.6, (1.25, 3)),
    "EOV-Seg L, 150": Row("eov-seg-large", "ade20k-150", 7.7, 3.9, 4.1, (1.25, 3)),
}


def page(found: dict) -> str:
    """What was measured, as Markdown."""
    machine = found["machine"]
    parts = [
        "# Speed",
        "",
        f"Made by `benchmarks/speed.py`. {machine_line(_machine(machine))}; {machine['conditions']['date'][:10]}.",
        "Random weights (speed doesn't depend on them), words known, one picture of 480×640, from the array to the "
        "result; the median.",
        "",
        "## Beside the reference",
        "",
        "The reference's code was timed on another machine (two cores with AMX, float32 eager and bfloat16 autocast). "
        "So both are given in",
        "*yardsticks*: the image tower of ERR-Seg B with both dense maps, 640×640, float32, on the same machine.",
        f"It is taken anew before each model ({machine['yardstick']['fastest']:.2f} to "
        f"{machine['yardstick']['slowest']:.2f} s): a shared machine has slow minutes.",
        *_native(machine["rates"]),
        "",
        *_rows(found),
        "",
        "![Beside the reference](speed.png)",
        "",
        "## By part",
        "",
        "The *floor* is the longer of two times: the part's operations, each at the rate of its own precision in a "
        "matrix product or a",
        "convolution, whichever is faster here; and its bytes (weights and inputs once) at the bandwidth.",
        _largest_gap(found["models"]),
        "",
        *_parts(found),
        *_memory(found),
        *_start(found),
    ]
    return "\n".join(parts) + "\n"


def _machine(content: dict) -> Machine:
    yardstick, conditions = Timing(**content["yardstick"]), MachineConditions(**content["conditions"])
    return Machine(content["rates"], content["bandwidth"], yardstick, conditions)


def _native(rates: dict[str, float]) -> Iterator[str]:
    """How far this machine's bfloat16 is from the other's."""
    if "bfloat16" in rates:
        times = rates["bfloat16"] / rates["float32"]
        yield (
            f"What is asked of bfloat16 was set for AMX; this machine multiplies it {times:.1f} times as fast as "
            "float32."
        )


def _rows(found: dict) -> Iterator[str]:
    yield (
        "| | precision | seconds (from – to) | yardsticks | the reference's (float32, bfloat16) | times faster than "
        "its float32 | asked |"
    )
    yield "|---|---|---|---|---|---|---|"
    for one in found["models"]:
        row, whole, precision = ROWS[one["row"]], one["whole"], one["asked"]["precision"]
        theirs = [seconds / REFERENCE_YARDSTICK for seconds in (row.float32, row.bfloat16)]
        asked = row.asked[precision != "float32"]
        cells = [
            one["row"],
            precision,
            f"{whole['median']:.2f} ({whole['fastest']:.2f} – {whole['slowest']:.2f})",
            f"{one['yardsticks']:.2f}",
            f"{theirs[0]:.2f}, {theirs[1]:.2f}",
            f"{theirs[0] / one['yardsticks']:.1f}×",
            f"{asked}×",
        ]
        yield f"| {' | '.join(cells)} |"


def _parts(found: dict) -> Iterator[str]:
    for one in found["models"]:
        yield f"**{one['row']}, {one['asked']['precision']}**"
        yield ""
        yield "| part | ms (from – to) | yardsticks | GFLOP | floor, ms | × floor |"
        yield "|---|---|---|---|---|---|"
        for part in one["parts"]:
            spread = f"{1e3 * part['fastest']:.0f} – {1e3 * part['slowest']:.0f}"
            cells = [part["part"], f"{1e3 * part['median']:.0f} ({spread})", f"{part['yardsticks']:.3f}"]
            yield f"| {' | '.join([*cells, *_floor_cells(part)])} |"
        part = _largest(one["parts"])
        yield ""
        yield f"The largest gap: {part['part']}, {1e3 * _gap(part):.0f} ms above its floor."
        yield ""


def _floor_cells(part: dict) -> tuple[str, str, str]:
    floor = part["floor"]
    if not floor:
        return "", "", ""
    return f"{part['operations'] / 1e9:.1f}", f"{1e3 * floor:.0f}", f"{part['median'] / floor:.1f}"


def _gap(part: dict) -> float:
    """Seconds above the floor."""
    return part["median"] - part["floor"]


def _largest_gap(models: list[dict]) -> str:
    """The largest among everything measured, by precision."""
    largest: dict[str, tuple[str, dict]] = {}  # precision → row and part
    for one in models:
        part, precision = _largest(one["parts"]), one["asked"]["precision"]
        if precision not in largest or _gap(part) > _gap(largest[precision][1]):
            largest[precision] = one["row"], part
    gaps = []
    for precision, (row, part) in largest.items():
        times = part["median"] / part["floor"]
        gaps.append(
            f"{part['part']} of {row}, {_gap(part):.1f} s above its floor or {times:.1f} times as long ({precision})"
        )
    return f"The largest gaps: {'; '.join(gaps)}."


def _largest(parts: list[dict]) -> dict:
    return max((part for part in parts if part["floor"]), key=_gap)


def _memory(found: dict) -> list[str]:
    lines = ["## Memory", "", "Peak beyond what was there before, for one picture, in MB:", ""]
    curves = found["memory"]
    lines += [
        "| words | " + " | ".join(f"{count}" for count in curves[0]["words"]) + " |",
        "|---" * (1 + len(curves[0]["words"])) + "|",
    ]
    for curve in curves:
        lines.append(f"| {curve['model']} | " + " | ".join(f"{size / 2**20:.0f}" for size in curve["bytes"]) + " |")
    return [*lines, "", "![Memory](memory.png)", ""]


def _start(found: dict) -> list[str]:
    start = found["start"]
    command, loading, disk = start["command"], start["load"], start["disk"]
    return [
        "## Starting, and words",
        "",
        f"* `wordmask segment` with a bundled model, from the shell to the written picture: {command['median']:.1f} s"
        f" ({command['fastest']:.1f} – {command['slowest']:.1f}, {command['runs']} runs, files in memory).",
        f"* `load()` of {loading['parameters'] / 1e6:.0f} M parameters from our safetensors: {loading['median']:.2f} s"
        f" ({loading['fastest']:.2f} – {loading['slowest']:.2f}).",
        (
            f"* 847 classes from the disk cache: {1e3 * disk['median']:.0f} ms ({1e3 * disk['fastest']:.0f} – "
            f"{1e3 * disk['slowest']:.0f})."
        ),
        *map(_text_line, found["text"]),
    ]


def _text_line(one: dict) -> str:
    ours, full = one["ours"]["median"], one["full length"]["median"]
    line = f"* {one['model']}, words never seen: {one['names']} names in {one['prompts']} prompts take {ours:.2f} s;"
    return f"{line} at CLIP's full length, as in the reference, {full:.2f} s ({full / ours:.1f}×)."


def draw(found: dict, folder: Path) -> None:
    """The two plots of the page."""
    draw_rows(found["models"], folder / "speed.png")
    draw_memory(found["memory"], folder / "memory.png")


def draw_rows(models: list[dict], file: Path) -> None:
    """Each row in yardsticks, beside the reference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(one["row"] for one in models))
    bars = {"reference, float32": {name: ROWS[name].float32 / REFERENCE_YARDSTICK for name in names}}
    bars["reference, bfloat16"] = {name: ROWS[name].bfloat16 / REFERENCE_YARDSTICK for name in names}
    for one in models:
        bars.setdefault(f"wordmask, {one['asked']['precision']}", {})[one["row"]] = one["yardsticks"]
    width = 0.8 / len(bars)
    colours = ("#c9ccd1", "#9aa0a8", "#7fb3e6", "#1f6fbf")
    for number, ((label, values), colour) in enumerate(zip(bars.items(), colours, strict=False)):
        places = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * width
        axes.bar(places, [values.get(name, np.nan) for name in names], width, label=label, color=colour)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("yardsticks (less is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


def draw_memory(curves: list[dict], file: Path) -> None:
    """What more words take."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        axes.plot(curve["words"], np.array(curve["bytes"]) / 2**20, marker="o", label=curve["model"])
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("words")
    axes.set_ylabel("MB beyond the weights")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)
