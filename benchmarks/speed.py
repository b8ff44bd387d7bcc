"""Everything about speed in one run: models beside the reference's figures, by part; words; memory; starting. Needs no
weights.

    uv run --with matplotlib python benchmarks/speed.py [--rows NAME ...] [--runs N]

Writes docs/results/speed.json, speed.md and two plots. Run it on a machine that does nothing else. With `--report` the
page and the plots are made anew from the json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pages import arguments, write

from wordmask import bench, load, weights
from wordmask.bench import BenchCase, Machine, measure_machine, some_picture, summary, timed
from wordmask.clip import CONTEXT_LENGTH, encode_tokens, tokenize
from wordmask.hardware import choose_device, choose_precision
from wordmask.memory import keep_freed_memory, peak_memory
from wordmask.models import kind_of
from wordmask.segmenter import Segmenter
from wordmask.text import PROMPTS_AT_ONCE
from wordmask.vocabulary import Vocabulary

WORDS = (10, 100, 1000, 5000, 20_000)  # of the memory curve
STARTS = 5
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


# Measuring ------------------------------------------------------------------------------------------------------------


def measure_rows(names: list[str], device: torch.device, runs: int) -> Iterator[tuple[Machine, dict[str, object]]]:
    """Time each row in float32 and, where it is another, in the default precision; beside each, what the machine does
    at that time."""
    for name in names:
        precisions = dict.fromkeys(("float32", choose_precision("auto", device)))
        machine = machine_now(device, set(precisions))
        print(f"{name}: {bench.machine_line(machine)}", flush=True)
        for precision in precisions:
            row = ROWS[name]
            report = bench.bench(BenchCase(row.model, row.vocabulary, precision), machine, device, runs=runs)
            yield machine, {"row": name, "yardstick": machine.yardstick.median} | report


def machine_now(device: torch.device, precisions: set[str]) -> Machine:
    """Measure the machine in a process of its own, where freed memory isn't kept: the reference's yardstick was taken
    so."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_machine, device, precisions).result()


def combined(machines: list[Machine]) -> Machine:
    """The highest rates, and all yardsticks."""
    rates = {precision: max(machine.rates[precision] for machine in machines) for precision in machines[0].rates}
    yardstick = summary([machine.yardstick.median for machine in machines])
    return Machine(rates, max(machine.bandwidth for machine in machines), yardstick, machines[0].conditions)


def measure_memory(model: str, device: torch.device) -> dict[str, object]:
    """Bytes beyond what was there before, for one picture and more and more words; their vectors are random."""
    built, name = bench.build(model)
    segmenter = Segmenter(built.for_inference().to(device), name=name, precision="auto")
    segmenter.text.vectors = bench.UnitVectors(built.config.clip.width)
    rgb, grown = some_picture(*bench.SIZE), []
    segmenter(rgb, "warm; up")
    for count in WORDS:
        vocabulary = Vocabulary.of([f"word {number}" for number in range(count)])
        segmenter.encode_words(vocabulary)
        found = peak_memory(lambda vocabulary=vocabulary: segmenter(rgb, vocabulary), device)
        grown.append(found.added)
    return {"model": model, "words": WORDS, "bytes": grown}


def measure_start(device: torch.device) -> dict[str, object]:
    """The shell's command from start to written picture; loading 200 M parameters; 847 words from the disk cache."""
    with tempfile.TemporaryDirectory() as folder:
        picture, file = Path(folder, "picture.png"), Path(folder, "base.safetensors")
        picture.write_bytes(bench.png_of(some_picture(*bench.SIZE)))
        command = [
            sys.executable,
            "-m",
            "wordmask",
            "segment",
            str(picture),
            "cup",
            "spoon",
            "--model",
            "err-seg-tiny",
            "-o",
            folder,
        ]
        # the first run compiles
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        seconds = []
        for _ in range(STARTS + 1):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            seconds.append(time.perf_counter() - started)
        kind = kind_of("err-seg-base")
        model = kind.random(kind.presets["err-seg-base"])
        weights.save(file, model.state_dict(), family=kind.family, configuration=model.config, origin="random")
        loading = timed(lambda: load(file, device=str(device), cache=None), device)
        return {
            "command": asdict(summary(seconds[1:])),
            "load": asdict(loading) | {"parameters": sum(parameter.numel() for parameter in model.parameters())},
            "disk": asdict(measure_disk(Path(folder), device)),
        }


def measure_disk(folder: Path, device: torch.device) -> bench.Timing:
    """Read the vectors of 847 classes from the disk cache."""
    vocabulary = Vocabulary.builtin("ade20k-847")

    def read() -> Segmenter:
        segmenter = load("err-seg-tiny", device=str(device), cache=folder)
        started = time.perf_counter()
        segmenter.encode_words(vocabulary)
        seconds.append(time.perf_counter() - started)

    seconds: list[float] = []
    for _ in range(STARTS + 1):
        read()
    return summary(seconds[1:])


@torch.inference_mode()
def measure_text(model: str, device: torch.device, names: int) -> dict[str, object]:
    """Words never seen: our way, and every prompt at CLIP's full length, as the reference encodes them."""
    built, _ = bench.build(model)
    phrases = Vocabulary.builtin("ade20k-150").names[:names]
    prompts = tokenize([template.format(phrase) for phrase in phrases for template in built.templates])
    rows = torch.tensor([prompt + [0] * (CONTEXT_LENGTH - len(prompt)) for prompt in prompts], device=device)
    built = built.to(device)

    def at_full_length() -> None:
        for part in rows.split(PROMPTS_AT_ONCE):
            encode_tokens(built.clip, part)

    ours, full = (timed(way, device, runs=3) for way in (lambda: built.encode_text(phrases), at_full_length))
    return {"model": model, "names": names, "prompts": len(prompts), "ours": asdict(ours), "full length": asdict(full)}


# The page -------------------------------------------------------------------------------------------------------------


def page(found: dict) -> str:
    """What was measured, as Markdown."""
    machine = found["machine"]
    parts = [
        "# Speed",
        "",
        (
            f"Made by `benchmarks/speed.py`. {bench.machine_line(_machine(machine))}; "
            f"{machine['conditions']['date'][:10]}."
        ),
        (
            "Random weights (speed doesn't depend on them), words known, one picture of 480×640, from the array to the "
            "result; the median."
        ),
        "",
        "## Beside the reference",
        "",
        (
            "The reference's code was timed on another machine (two cores with AMX, float32 eager and bfloat16 "
            "autocast). "
            "So both are given in"
        ),
        "*yardsticks*: the image tower of ERR-Seg B with both dense maps, 640×640, float32, on the same machine.",
        (
            f"It is taken anew before each model ({machine['yardstick']['fastest']:.2f} to "
            f"{machine['yardstick']['slowest']:.2f} s): a shared machine has slow minutes."
        ),
        *_native(machine["rates"]),
        "",
        *_rows(found),
        "",
        "![Beside the reference](speed.png)",
        "",
        "## By part",
        "",
        (
            "The *floor* is the longer of two times: the part's operations, each at the rate of its own precision in a "
            "matrix product or a"
        ),
        "convolution, whichever is faster here; and its bytes (weights and inputs once) at the bandwidth.",
        _largest_gap(found["models"]),
        "",
        *_parts(found),
        *_memory(found),
        *_start(found),
    ]
    return "\n".join(parts) + "\n"


def _machine(content: dict) -> Machine:
    return Machine(content["rates"], content["bandwidth"], bench.Timing(**content["yardstick"]), content["conditions"])


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
            floor = part["floor"]
            spread = f"{1e3 * part['fastest']:.0f} – {1e3 * part['slowest']:.0f}"
            cells = [part["part"], f"{1e3 * part['median']:.0f} ({spread})", f"{part['yardsticks']:.3f}"]
            cells += (
                [f"{part['operations'] / 1e9:.1f}", f"{1e3 * floor:.0f}", f"{part['median'] / floor:.1f}"]
                if floor
                else ["", "", ""]
            )
            yield f"| {' | '.join(cells)} |"
        part = max((part for part in one["parts"] if part["floor"]), key=_gap)
        yield ""
        yield f"The largest gap: {part['part']}, {1e3 * _gap(part):.0f} ms above its floor."
        yield ""


def _gap(part: dict) -> float:
    """Seconds above the floor."""
    return part["median"] - part["floor"]


def _largest_gap(models: list[dict]) -> str:
    """Of everything measured, by precision."""
    gaps = []
    for precision in dict.fromkeys(one["asked"]["precision"] for one in models):
        parts = [
            (one["row"], part)
            for one in models
            if one["asked"]["precision"] == precision
            for part in one["parts"]
            if part["floor"]
        ]
        row, part = max(parts, key=lambda pair: _gap(pair[1]))
        times = part["median"] / part["floor"]
        gaps.append(
            f"{part['part']} of {row}, {_gap(part):.1f} s above its floor or {times:.1f} times as long ({precision})"
        )
    return f"The largest gaps: {'; '.join(gaps)}."


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(one["row"] for one in found["models"]))
    bars = {"reference, float32": {name: ROWS[name].float32 / REFERENCE_YARDSTICK for name in names}}
    bars["reference, bfloat16"] = {name: ROWS[name].bfloat16 / REFERENCE_YARDSTICK for name in names}
    for one in found["models"]:
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
    figure.savefig(folder / "speed.png", dpi=110)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve in found["memory"]:
        axes.plot(curve["words"], np.array(curve["bytes"]) / 2**20, marker="o", label=curve["model"])
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("words")
    axes.set_ylabel("MB beyond the weights")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(folder / "memory.png", dpi=110)


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Everything, in plain values."""
    device = choose_device(asked.device)
    keep_freed_memory()  # as the command line does
    found = {"start": measure_start(device)}
    found["memory"] = [measure_memory(model, device) for model in ("err-seg-base", "eov-seg-small")]
    found["text"] = [measure_text("err-seg-base", device, 64), measure_text("eov-seg-small", device, 12)]
    machines, found["models"] = map(list, zip(*measure_rows(asked.rows, device, asked.runs), strict=True))
    found["machine"] = asdict(combined(machines))
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    draw(write("speed", asked, lambda: measure(asked), page), asked.out)


if __name__ == "__main__":
    main()
