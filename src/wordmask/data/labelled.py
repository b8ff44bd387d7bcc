"""What every data set consists of, real or generated: a picture, and which segment each of its pixels belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8

from wordmask import fingerprints
from wordmask.data.files import width_by_height
from wordmask.vocabulary import Vocabulary

# segments, labels, crowd: as `LabelledPicture` has them
Segments = tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]
UNLABELLED = -1  # in semantic label maps in memory, where a pixel belongs to no class; files say it in their own ways


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with its segments: things one by one, stuff one segment per class.

    Args:
        rgb: The picture.
        segments: The number of each pixel's segment; 0 where there is none. Segment n is entry n − 1 of the next two.
        labels: The class of each segment, an index into the data set's vocabulary.
        crowd: Whether a segment is a crowd: several things that nobody told apart.
        source: Where it came from: a path, or a seed.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    segments: Int[np.ndarray, "H W"]
    labels: Int[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    source: str

    def __post_init__(self):
        if self.rgb.shape[:2] != self.segments.shape:
            came, label = width_by_height(self.rgb.shape[:2]), width_by_height(self.segments.shape)
            raise ValueError(f"{self.source}: the picture is {came} pixels, its label {label}; expected the same size.")
        assert len(self.labels) == len(self.crowd)
        assert self.segments.size == 0 or 0 <= self.segments.min() <= self.segments.max() <= len(self.labels)

    @property
    def semantic(self) -> Int[np.ndarray, "H W"]:
        """The class of each pixel; `UNLABELLED` where there is none."""
        return np.concatenate([[UNLABELLED], self.labels])[self.segments]


class Fault(NamedTuple):
    """Something that is wrong with one picture, or its label: of which kind, and what."""

    kind: str
    what: str


class Examined(NamedTuple):
    """A picture that was looked at; None if it can't be used. Of one that can be, something may have been left out."""

    labelled: LabelledPicture | None
    faults: list[Fault]


@runtime_checkable
class DataSet(Protocol):
    """Labelled pictures in a fixed order, all of one vocabulary."""

    vocabulary: Vocabulary

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> LabelledPicture: ...

    def files(self, place: int) -> tuple[Path, ...]:
        """Where a picture, and what labels it, should be; nothing if it is generated."""
        ...

    def check(self, *, thorough: bool = False) -> None:
        """Look for what would stop a training: missing files, wrong sizes, unknown labels.

        Args:
            thorough: Decode every picture and label, where otherwise names and sizes alone are looked at.

        Raises:
            ValueError: Names the first files that are wrong, and what was expected.
        """


def data_fingerprint(data: DataSet, places: Iterable[int] | None = None) -> str:
    """Whether data are the same as before: the classes, and pictures and labels in their order, by name and contents.
    Where they lie says nothing, nor do other files, nor line ends.

    Args:
        places: Of some pictures; None: of all.

    Raises:
        OSError: A file can't be read.
    """
    words = [(entry.names, entry.thing) for entry in data.vocabulary]
    chosen, known = list(range(len(data)) if places is None else places), {}
    rows = []
    for place in chosen:
        for number, path in enumerate(data.files(place)):
            if path not in known:  # one json may label all
                known[path] = fingerprints.of_file(path) if number else fingerprints.of_picture(path)
            rows.append((place, path.name, known[path]))
    return fingerprints.of_values(words, chosen, rows)


def one_segment_a_class(classes: Int[np.ndarray, "H W"]) -> Segments:
    """Turn a map of classes, -1 where there is none, into segments."""
    counts = np.bincount(classes.ravel() + 1)
    labels = np.flatnonzero(counts[1:])
    numbers = np.zeros(len(counts), np.int32)
    numbers[labels + 1] = np.arange(1, len(labels) + 1)
    return numbers[classes + 1], labels, np.zeros(len(labels), bool)
