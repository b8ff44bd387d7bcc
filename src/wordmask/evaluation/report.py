"""What an evaluation comes to: figures beside the published ones, every class, what the worst are taken for, and the
conditions.

`to_dict` of each says the same for json, where what is not a number becomes None.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from wordmask.evaluation.protocols import Figures, Protocol
from wordmask.writing import JsonObject


@dataclass(frozen=True)
class Conditions:
    """Under which conditions it was measured.

    Args:
        weights: Their fingerprint.
        threads: How many each process has.
        versions: Those of wordmask, torch, numpy and python, by name.
        commit: The checkout's, with a + if it was changed since; None if it is none.
        date: With the time, UTC.
    """

    model: str
    weights: str
    device: str
    precision: str
    threads: int
    processes: int
    versions: Mapping[str, str]
    commit: str | None
    date: str


@dataclass(frozen=True)
class ClassScores:
    """A class of a split.

    Args:
        kind: `thing` or `stuff`.
        share: Its part of all labelled pixels.
        figures: In percent; NaN where it is nowhere in the truth.
    """

    label: int
    name: str
    kind: str
    share: float
    figures: Figures

    def to_dict(self) -> JsonObject:
        """One level: figures beside the rest."""
        about = {"label": self.label, "name": self.name, "kind": self.kind, "share": self.share}
        return dict(about, **_numbers(self.figures))


@dataclass(frozen=True)
class TakenFor:
    """A class, or `nothing`, that pixels of another one are taken for, and which part of these."""

    name: str
    share: float


@dataclass(frozen=True)
class ConfusedClass:
    """A class that is found badly: its IoU in percent, its pixels, and what most of those not found are taken for."""

    label: int
    name: str
    iou: float
    pixels: int
    taken_for: tuple[TakenFor, ...]

    def to_dict(self) -> JsonObject:
        return {
            "label": self.label,
            "name": self.name,
            "IoU": _number(self.iou),
            "pixels": self.pixels,
            "taken_for": [asdict(other) for other in self.taken_for],
        }


@dataclass(frozen=True)
class PictureTimes:
    """Milliseconds a picture, from RGB in memory to the results of all tasks; words, reading files and scoring don't
    count."""

    median_ms: float
    p95_ms: float
    mean_ms: float


@dataclass(frozen=True)
class PeakMemory:
    """The most that the first process had, in MiB: of the machine's memory, and of the GPU's; None if not known."""

    machine_mib: float | None = None
    gpu_mib: float | None = None

    def to_dict(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SplitReport:
    """All that is to be said of one split.

    Args:
        split: Its name.
        title: What papers call it.
        pictures: How many were looked at …
        whole: … of how many.
        protocol: How it was measured, with what was chosen otherwise.
        input: What the model sees of a picture, in words.
        changed: What was chosen otherwise than the paper does.
        figures: In percent, over the whole split.
        published: Those of them that were published, by `published_by`; None if none were.
        difference: Ours minus the published ones, where all pictures were looked at.
        classes: In the order of labels.
        confusion: The worst classes, the worst first.
        speed: None if no picture was looked at.
    """

    split: str
    title: str
    pictures: int
    whole: int
    tasks: tuple[str, ...]
    protocol: Protocol
    input: str
    changed: Mapping[str, object]
    figures: Figures
    published: Figures
    published_by: str | None
    difference: Figures
    classes: tuple[ClassScores, ...]
    confusion: tuple[ConfusedClass, ...]
    speed: PictureTimes | None
    memory: PeakMemory

    def to_dict(self) -> JsonObject:
        return {
            "split": self.split,
            "title": self.title,
            "pictures": self.pictures,
            "of": self.whole,
            "tasks": list(self.tasks),
            "protocol": self.protocol.to_dict() | {"input": self.input},
            "changed": dict(self.changed),
            "figures": _numbers(self.figures),
            "published": _numbers(self.published),
            "published_by": self.published_by,
            "difference": _numbers(self.difference),
            "classes": [entry.to_dict() for entry in self.classes],
            "confusion": [entry.to_dict() for entry in self.confusion],
            "speed": {} if self.speed is None else asdict(self.speed),
            "memory": self.memory.to_dict(),
        }


@dataclass(frozen=True)
class EvaluationReport:
    """An evaluation: the conditions, and what came out on each split."""

    conditions: Conditions
    splits: tuple[SplitReport, ...]

    def to_dict(self) -> JsonObject:
        return {"conditions": asdict(self.conditions), "splits": [split.to_dict() for split in self.splits]}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numbers(figures: Figures) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}
