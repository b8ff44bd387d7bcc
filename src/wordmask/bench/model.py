"""One model: a picture through it by part, a batch, its words, its memory.

Released presets are built with random weights: speed doesn't depend on them. Every time is the median of several runs
after a warm-up, with the fastest and the slowest; only words that are encoded for the first time have one run.
"""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from wordmask.bench.counting import ModelPart, counting, timing
from wordmask.bench.machine import Machine
from wordmask.bench.timing import RUNS, Timing, seconds_of, timed
from wordmask.hardware import Precision
from wordmask.image import prepare, read_picture
from wordmask.memory import MemoryUse, peak_memory
from wordmask.models import InPackage, Model, kind_of
from wordmask.models.load import load_model
from wordmask.preparing import stacked
from wordmask.segmenter import Segmenter
from wordmask.surroundings import float32_by_default, precision_kept
from wordmask.text import TextCache, Words
from wordmask.vocabulary import Vocabulary
from wordmask.watching import watched
from wordmask.writing import JsonObject

SIZE = (480, 640)  # of the picture
TEXT_CLASSES = 150  # at most, of those that are encoded to time the text tower


class BenchCase(NamedTuple):
    """What is timed.

    Args:
        model: A preset.
        vocabulary: A built-in list.
        batch: Pictures that go through together.
        compile: Whether the model is compiled; its parts can't be told apart then.
    """

    model: str
    vocabulary: str
    precision: Precision
    batch: int = 1
    compile: bool = False


@dataclass(frozen=True)
class TextTiming:
    """What encoding a number of phrases took: for the first time, from the disk, and from memory."""

    phrases: int
    cold: Timing
    on_disk: Timing
    in_memory: Timing

    def to_dict(self) -> JsonObject:
        """The same in plain values."""
        ways = {"cold": asdict(self.cold), "on disk": asdict(self.on_disk), "in memory": asdict(self.in_memory)}
        return {"phrases": self.phrases, **ways}


@dataclass(frozen=True)
class InputSizes:
    """(height, width) of the picture, as it was drawn and as the frame knows it; and of the model's pixels."""

    picture: tuple[int, int]
    pixels: tuple[int, int]
    original: tuple[int, int]


@dataclass(frozen=True)
class BenchReport:
    """What a model took on a machine.

    Args:
        classes: T, how many the vocabulary has.
        parameters: How many the model has.
        whole: A call with one picture, words known.
        batch: A call with all pictures of a batch; None for a batch of one.
        memory: None where it can't be measured.
        parts: In the order in which data meets them.
    """

    case: BenchCase
    machine: Machine
    classes: int
    parameters: int
    text: TextTiming
    whole: Timing
    batch: Timing | None
    memory: MemoryUse | None
    parts: list[ModelPart]
    sizes: InputSizes

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values, as it is written; without the machine."""
        report: dict[str, Any] = {
            "asked": self.case._asdict(),
            "classes": self.classes,
            "parameters": self.parameters,
            "text": self.text.to_dict(),
            "whole": asdict(self.whole),
        }
        if self.batch is not None:
            each = self.batch.median / self.case.batch
            report["batch"] = asdict(self.batch) | {"per picture": each, "yardsticks": self.machine.yardsticks(each)}
        return report | {
            "memory": self.memory and self.memory._asdict(),
            "parts": [self._describe(part) for part in self.parts],
            "floor": sum(part.floor(self.machine) for part in self.parts),
            "yardsticks": self.machine.yardsticks(self.whole.median),
            "input": asdict(self.sizes),
        }

    def _describe(self, part: ModelPart) -> JsonObject:
        return asdict(part.timing) | {
            "part": part.label,
            "yardsticks": self.machine.yardsticks(part.timing.median),
            "operations": part.operations.total(),
            "by precision": dict(part.operations),
            "bytes": part.bytes,
            "floor": part.floor(self.machine),
        }


@precision_kept()
@float32_by_default()
def bench(case: BenchCase, machine: Machine, device: torch.device, *, runs: int = RUNS) -> BenchReport:
    """Time one picture through a model, by part, and a batch; count operations, bytes, parameters and memory.

    Raises:
        ValueError: No such preset or vocabulary, or a batch of no picture.
    """
    model, name = build(case.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model.requires_grad_(False)  # the counter looks for the gradients of what has some
    model = model.for_inference().to(device)
    segmenter = Segmenter(model, name=name, precision=case.precision, batch=case.batch, compile=case.compile)
    vocabulary = Vocabulary.builtin(case.vocabulary, model.vocabularies)
    text = time_text(segmenter, vocabulary)
    segmenter.text.vectors = UnitVectors(model.config.clip.width)  # what the words are doesn't matter from here on
    rgb = textured_picture(*SIZE)
    words, (pixels, frame) = segmenter.encode_words(vocabulary), prepare(rgb, model.image_input)
    segmenter(rgb, vocabulary)
    whole, batch = timed(lambda: segmenter(rgb, vocabulary), device, runs=runs, warm_up=0), None
    if case.batch > 1:
        batch = timed(lambda: segmenter([rgb] * case.batch, vocabulary), device, runs=max(2, runs // 2))
    memory = peak_memory(lambda: segmenter(rgb, vocabulary), device)
    first, *last = time_around(segmenter, rgb, vocabulary, runs)
    inside = [] if case.compile else time_parts(segmenter, stacked([pixels], device), words, runs)
    height, width = pixels.shape[1:]
    return BenchReport(
        case=case,
        machine=machine,
        classes=len(vocabulary),
        parameters=parameters,
        text=text,
        whole=whole,
        batch=batch,
        memory=memory,
        parts=[first, *inside, *last],
        sizes=InputSizes(SIZE, (height, width), frame.original),
    )


def build(name: str) -> tuple[Model, str]:
    """A preset with weights: bundled ones have their own, others random ones; and what it is called then."""
    kind = kind_of(name)
    if isinstance(kind.released.get(name), InPackage):
        return load_model(name).model, name
    return kind.random(kind.presets[name]), f"{name} (random weights)"


class UnitVectors(dict[str, Tensor]):
    """A vector for any phrase, without a text tower: its place decides."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.random = width, torch.Generator().manual_seed(0)

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, phrase: str) -> Tensor:
        self[phrase] = vector = F.normalize(torch.randn(self.width, generator=self.random), dim=0)
        return vector


def textured_picture(height: int, width: int) -> np.ndarray:
    """A picture with edges and texture, the same everywhere; (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (7 + 9 * i) + y / (23 - 5 * i)) + 37 * ((x // 40 + y // 40) % 2) for i in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def time_text(segmenter: Segmenter, vocabulary: Vocabulary) -> TextTiming:
    """Time the text tower on the names of the first classes; and the same words again, from the disk and from
    memory."""
    names, model, device = [entry.name for entry in vocabulary][:TEXT_CLASSES], segmenter.model, segmenter.device
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        cache = TextCache("bench", model.templates, Path(folder))

        def encode_anew() -> None:
            remembers_nothing = TextCache("bench", model.templates, Path(folder))
            remembers_nothing.encode(names, model.encode_text)

        cold = timed(lambda: cache.encode(names, model.encode_text), device, runs=1, warm_up=0)
        memory = timed(lambda: cache.encode(names, model.encode_text), device)
        return TextTiming(len(names), cold, on_disk=timed(encode_anew, device), in_memory=memory)


def time_around(segmenter: Segmenter, rgb: np.ndarray, vocabulary: Vocabulary, runs: int) -> Iterator[ModelPart]:
    """Time what is done before the model, the first part, and after it."""
    result, device = segmenter(rgb, vocabulary), segmenter.device
    wanted, encoded = segmenter.model.image_input, png_of(rgb)
    decoding = seconds_of(lambda: prepare(read_picture(encoded), wanted), device, runs=runs)
    yield ModelPart("decoding and resizing", decoding)
    look = segmenter.look(rgb, vocabulary)
    yield ModelPart("reading out", seconds_of(lambda: segmenter.read(look), device, runs=runs))
    yield ModelPart("drawing (not in the whole)", seconds_of(lambda: result.draw(), device, runs=runs))


def png_of(rgb: np.ndarray) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def time_parts(segmenter: Segmenter, pixels: Tensor, words: Words, runs: int) -> list[ModelPart]:
    """Time every stage of a model, and count its operations and bytes."""
    model, device = segmenter.model, segmenter.device
    parts = {method: ModelPart(label) for method, label in model.stages.items()}
    with torch.inference_mode(), watched(model, parts, timing(device)), segmenter.autocast():
        for _ in range(runs):
            model(pixels, words)
    # in inference mode operators come whole, uncountable
    with torch.no_grad(), watched(model, parts, counting), segmenter.autocast():
        model(pixels, words)
    return list(parts.values())
