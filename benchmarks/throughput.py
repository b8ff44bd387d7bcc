"""Many pictures: what a batch costs beside one, and how much of the time the model works, picture by picture and as a
stream.

    uv run python benchmarks/throughput.py [--models NAME ...] [--pictures N] [--megapixels M]

Writes docs/results/throughput.json and throughput.md. Presets that aren't bundled get random weights: speed doesn't
depend on them. Run it on a machine that does nothing else. With `--report` the page is made anew from the json.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pages import arguments, write
from PIL import Image
from torch import nn

from wordmask.bench.machine import conditions, measure_yardstick
from wordmask.bench.model import build, textured_picture
from wordmask.bench.timing import RUNS, finish, timed
from wordmask.hardware import choose_device, choose_precision
from wordmask.memory import keep_freed_memory, peak_memory
from wordmask.pipeline import result_or_raise, thread_count, thread_pool, work_ahead
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary

MODELS = ("err-seg-tiny", "err-seg-base", "eov-seg-small")
VOCABULARY = "ade20k-150"
BATCHES = (1, 2, 4)
SIZE, TINY_SIZE = (480, 640), (192, 256)  # of a batch's pictures
WARM_UP = 2  # pictures


# Batches --------------------------------------------------------------------------------------------------------------


def measure_batches(segmenter: Segmenter, size: tuple[int, int], runs: int) -> Iterator[dict[str, object]]:
    """Time and memory of batches, beyond what was there before."""
    for batch in BATCHES:
        segmenter.batch = batch
        pictures = [textured_picture(*size)] * batch

        def together(pictures: list[np.ndarray] = pictures) -> None:
            segmenter(pictures, VOCABULARY)

        timing = timed(together, segmenter.device, runs=runs)
        memory = peak_memory(together, segmenter.device)
        yield {
            "batch": batch,
            "size": size,
            "seconds": asdict(timing),
            "bytes": memory and memory.added,
        }
    segmenter.batch = 1


# Streams --------------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Sums up how long the model works."""

    def __init__(self, segmenter: Segmenter):
        model = segmenter.model
        assert isinstance(model, nn.Module)
        self.seconds, self.device = 0.0, segmenter.device
        self.hooks = [
            model.register_forward_pre_hook(lambda *_: self._note(-1)),
            model.register_forward_hook(lambda *_: self._note(1)),
        ]

    def _note(self, sign: int) -> None:
        finish(self.device)
        self.seconds += sign * time.perf_counter()

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()


def one_by_one(segmenter: Segmenter, paths: list[Path], output: Path) -> None:
    """Read, segment and write, one picture after the other."""
    for path in paths:
        segmenter(path, VOCABULARY).save(output / path.stem)


def as_stream(segmenter: Segmenter, paths: list[Path], output: Path) -> None:
    """Read and write while the model works, as `wordmask segment` does."""
    with thread_pool(thread_count()) as pool:

        def save(pair: tuple[Path, Segmentation | Exception]) -> None:
            path, result = pair
            result_or_raise(result).save(output / path.stem)

        results = zip(paths, segmenter.stream(paths, VOCABULARY), strict=True)
        for outcome in work_ahead(results, save, pool, most=thread_count()):
            result_or_raise(outcome)


def measure_way(way: Callable, segmenter: Segmenter, paths: list[Path]) -> dict[str, object]:
    """Pictures per second, and the share of the time, from the first picture read to the last file written, in which
    the model worked."""
    with tempfile.TemporaryDirectory() as output:
        way(segmenter, paths[:WARM_UP], Path(output))
        watch = Stopwatch(segmenter)
        started = time.perf_counter()
        way(segmenter, paths, Path(output))
        wall = time.perf_counter() - started
        watch.remove()
    return {
        "way": way.__name__.replace("_", " "),
        "pictures per second": len(paths) / wall,
        "model": watch.seconds / wall,
    }


def write_pictures(folder: Path, count: int, megapixels: float) -> list[Path]:
    """JPEGs with edges and gradients."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        blocks = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((height * 4 // 3, height), Image.Resampling.BICUBIC).save(path)
    return paths


# The page -------------------------------------------------------------------------------------------------------------


def page(found: dict) -> str:
    """What was measured, as Markdown."""
    where = found["conditions"]
    lines = [
        "# Many pictures",
        "",
        f"Made by `benchmarks/throughput.py`. {where['cpu']}, {where['threads']} threads, torch {where['torch']}, "
        f"{where['date'][:10]}; {found['precision']}, the default there; {len(Vocabulary.builtin(VOCABULARY))} words, "
        "known.",
        "A yardstick (the image tower of ERR-Seg B, as in [speed](speed.md)) was "
        f"{found['yardstick']['median']:.2f} s.",
        "",
        "## A batch beside one picture",
        "",
        "Seconds are medians (from – to); memory is the highest, beyond what was there before.",
        "",
        "| model | pictures together | seconds | seconds per picture | yardsticks | MB | MB per picture |",
        "|---|---|---|---|---|---|---|",
    ]
    yardstick = found["yardstick"]["median"]
    for model in found["models"]:
        lines += [_batch_line(model["model"], one, yardstick) for one in model["batches"]]
    pictures = f"{found['pictures']} JPEGs of {found['megapixels']:g} megapixels"
    streams = f"{pictures}, read, segmented and written (label map, overlay, regions)."
    lines += [
        *("", "## The model at work", "", streams),
        "Of the whole time, the model worked the share in the last column, and waited in the rest. "
        "On a CPU threads that read and write",
        *("take cores from it while it works: what a stream gains is seen in pictures per second.", ""),
        "| model | way | pictures per second | yardsticks per picture | seconds in the model, per picture | the model "
        "worked |",
        "|---|---|---|---|---|---|",
    ]
    for model in found["models"]:
        for one in model["streams"]:
            rate, share = one["pictures per second"], one["model"]
            cells = [
                model["model"],
                one["way"],
                f"{rate:.2f}",
                f"{1 / rate / yardstick:.2f}",
                f"{share / rate:.2f}",
                f"{share:.0%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _batch_line(model: str, one: dict, yardstick: float) -> str:
    took, count, memory, (height, width) = one["seconds"], one["batch"], one["bytes"], one["size"]
    spread = f"{took['median']:.2f} ({took['fastest']:.2f} – {took['slowest']:.2f})"
    each = took["median"] / count
    cells = [model, f"{count} of {height}×{width}", spread, f"{each:.2f}", f"{each / yardstick:.3f}"]
    cells += [f"{memory / 2**20:.0f}", f"{memory / 2**20 / count:.0f}"] if memory else ["", ""]
    return f"| {' | '.join(cells)} |"


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Everything, in plain values."""
    device, models = choose_device(asked.device), []
    yardstick = measure_yardstick(device)
    keep_freed_memory()  # as the command line does; the yardstick was taken without
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), asked.pictures, asked.megapixels)
        for name in asked.models:
            print(f"{name} …", flush=True)
            model, title = build(name)
            segmenter = Segmenter(model.for_inference().to(device), name=title, precision="auto")
            segmenter.encode_words(Vocabulary.builtin(VOCABULARY))
            batches = list(measure_batches(segmenter, TINY_SIZE if "tiny" in name else SIZE, asked.runs))
            streams = [measure_way(way, segmenter, paths) for way in (one_by_one, as_stream)]
            models.append({"model": title, "batches": batches, "streams": streams})
    where = {
        "conditions": asdict(conditions(device)),
        "precision": choose_precision("auto", device),
        "yardstick": asdict(yardstick),
    }
    return where | {"pictures": asked.pictures, "megapixels": asked.megapixels, "models": models}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--megapixels", type=float, default=2)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    write("throughput", asked, lambda: measure(asked), page)


if __name__ == "__main__":
    main()
