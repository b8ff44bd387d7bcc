"""How much of the time the model works where many pictures are asked for: one after the other, and as a stream.

    uv run python benchmarks/stream.py [MODEL] [PICTURES] [MEGAPIXELS]

Writes JPEGs, segments them, and writes the results as `wordmask segment` does. Prints, for each way, pictures a second and the share of the
time from the first picture read to the last file written in which the model worked.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wordmask.pipeline import ahead, thread_count, thread_pool
from wordmask.segmenter import Segmenter, load

WORDS = "sky; grass; wall; water; red circle; blue star; green square; house"
WARM_UP = 2  # pictures


class Stopwatch:
    """Sums up how long the model works."""

    def __init__(self, segmenter: Segmenter):
        self.seconds, self.device = 0.0, segmenter.device
        segmenter.model.register_forward_pre_hook(lambda *_: self._note(-1))
        segmenter.model.register_forward_hook(lambda *_: self._note(1))

    def _note(self, sign: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += sign * time.perf_counter()


def one_by_one(segmenter: Segmenter, paths: list[Path], output: Path) -> None:
    for path in paths:
        segmenter(path, WORDS).save(output / path.stem)


def as_stream(segmenter: Segmenter, paths: list[Path], output: Path) -> None:
    with thread_pool(thread_count()) as pool:
        results = zip(paths, segmenter.stream(paths, WORDS), strict=True)
        for outcome in ahead(results, lambda pair: pair[1].save(output / pair[0].stem), pool, most=thread_count()):
            assert not isinstance(outcome, Exception), outcome


def measure(way: Callable, segmenter: Segmenter, paths: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as output:
        way(segmenter, paths[:WARM_UP], Path(output))
        watch = Stopwatch(segmenter)
        start = time.perf_counter()
        way(segmenter, paths, Path(output))
        wall = time.perf_counter() - start
    print(f"{way.__name__:12} {len(paths) / wall:6.2f} pictures/s   the model worked {watch.seconds / wall:4.0%} of {wall:.1f} s")


def main(model: str = "err-seg-tiny", pictures: str = "40", megapixels: str = "2") -> None:
    segmenter = load(model)
    height = round((float(megapixels) * 1e6 * 3 / 4) ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(int(pictures))]
        for number, path in enumerate(paths):
            blocks = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((height * 4 // 3, height), Image.Resampling.BICUBIC).save(path)
        print(f"{segmenter}, {pictures} pictures of {megapixels} megapixels, {torch.get_num_threads()} threads for the model")
        for way in (one_by_one, as_stream):
            measure(way, segmenter, paths)


if __name__ == "__main__":
    main(*sys.argv[1:])
