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

import torch
from pages import arguments, write
from speed_page import ROWS, draw, page

from wordmask import load, weights
from wordmask.bench.machine import Machine, measure_machine
from wordmask.bench.model import SIZE, BenchCase, UnitVectors, bench, build, png_of, textured_picture
from wordmask.bench.table import machine_line
from wordmask.bench.timing import Timing, summary, timed
from wordmask.clip import CONTEXT_LENGTH, encode_tokens, tokenize
from wordmask.hardware import choose_device, choose_precision
from wordmask.memory import keep_freed_memory, peak_memory
from wordmask.models import kind_of
from wordmask.segmenter import Segmenter
from wordmask.text import PROMPTS_AT_ONCE
from wordmask.vocabulary import Vocabulary

WORDS = (10, 100, 1000, 5000, 20_000)  # of the memory curve
STARTS = 5


def measure_rows(names: list[str], device: torch.device, runs: int) -> Iterator[tuple[Machine, dict[str, object]]]:
    """Time each row in float32 and, where it is another, in the default precision; beside each, what the machine does
    at that time."""
    for name in names:
        precisions = dict.fromkeys(("float32", choose_precision("auto", device)))
        machine = machine_now(device, set(precisions))
        print(f"{name}: {machine_line(machine)}", flush=True)
        for precision in precisions:
            row = ROWS[name]
            report = bench(BenchCase(row.model, row.vocabulary, precision), machine, device, runs=runs)
            yield machine, {"row": name, "yardstick": machine.yardstick.median} | report.to_dict()


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
    built, name = build(model)
    segmenter = Segmenter(built.for_inference().to(device), name=name, precision="auto")
    segmenter.text.vectors = UnitVectors(built.config.clip.width)
    rgb = textured_picture(*SIZE)
    segmenter(rgb, "warm; up")

    def grown_by(count: int) -> int:
        vocabulary = Vocabulary.of([f"word {number}" for number in range(count)])
        segmenter.encode_words(vocabulary)
        found = peak_memory(lambda: segmenter(rgb, vocabulary), device)
        assert found is not None, "memory can't be measured on this system"
        return found.added

    return {"model": model, "words": WORDS, "bytes": [grown_by(count) for count in WORDS]}


def measure_start(device: torch.device) -> dict[str, object]:
    """The shell's command from start to written picture; loading 200 M parameters; 847 words from the disk cache."""
    with tempfile.TemporaryDirectory() as folder:
        picture, file = Path(folder, "picture.png"), Path(folder, "base.safetensors")
        picture.write_bytes(png_of(textured_picture(*SIZE)))
        program = [sys.executable, "-m", "wordmask", "segment"]
        command = [*program, str(picture), "cup", "spoon", "--model", "err-seg-tiny", "-o", folder]
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


def measure_disk(folder: Path, device: torch.device) -> Timing:
    """Read the vectors of 847 classes from the disk cache."""
    vocabulary = Vocabulary.builtin("ade20k-847")

    def read() -> float:
        segmenter = load("err-seg-tiny", device=str(device), cache=folder)
        started = time.perf_counter()
        segmenter.encode_words(vocabulary)
        return time.perf_counter() - started

    seconds = [read() for _ in range(STARTS + 1)]
    return summary(seconds[1:])


@torch.inference_mode()
def measure_text(model: str, device: torch.device, names: int) -> dict[str, object]:
    """Words never seen: our way, and every prompt at CLIP's full length, as the reference encodes them."""
    built, _ = build(model)
    phrases = Vocabulary.builtin("ade20k-150").names[:names]
    prompts = tokenize([template.format(phrase) for phrase in phrases for template in built.templates])
    rows = torch.tensor([prompt + [0] * (CONTEXT_LENGTH - len(prompt)) for prompt in prompts], device=device)
    built = built.to(device)

    def at_full_length() -> None:
        for part in rows.split(PROMPTS_AT_ONCE):
            encode_tokens(built.clip, part)

    ours, full = (timed(way, device, runs=3) for way in (lambda: built.encode_text(phrases), at_full_length))
    return {"model": model, "names": names, "prompts": len(prompts), "ours": asdict(ours), "full length": asdict(full)}


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Everything, in plain values."""
    device = choose_device(asked.device)
    keep_freed_memory()  # as the command line does
    start = measure_start(device)
    memory = [measure_memory(model, device) for model in ("err-seg-base", "eov-seg-small")]
    text = [measure_text("err-seg-base", device, 64), measure_text("eov-seg-small", device, 12)]
    rows = list(measure_rows(asked.rows, device, asked.runs))
    machine = combined([machine for machine, _ in rows])
    return {
        "start": start,
        "memory": memory,
        "text": text,
        "models": [report for _, report in rows],
        "machine": asdict(machine),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    draw(write("speed", asked, lambda: measure(asked), page), asked.out)


if __name__ == "__main__":
    main()
