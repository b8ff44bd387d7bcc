"""What every data set gives, real or generated: a picture, and which segment each of its pixels belongs to."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8

from wordmask.vocabulary import Vocabulary

UNLABELLED = -1  # in semantic label maps in memory, where a pixel belongs to no class; files say it in their own ways


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with its segments: things one by one, stuff one segment per class.

    Args:
        rgb: The picture.
        segments: Of each pixel, the number of its segment; 0 where there is none. Segment n is entry n − 1 of the next
            two.
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
            raise ValueError(
                f"{self.source}: the picture is {_size(self.rgb)} pixels, its label {_size(self.segments)}; "
                "expected the same size."
            )
        assert len(self.labels) == len(self.crowd)
        assert self.segments.size == 0 or 0 <= self.segments.min() <= self.segments.max() <= len(self.labels)

    @property
    def semantic(self) -> Int[np.ndarray, "H W"]:
        """The class of each pixel; `UNLABELLED` where there is none."""
        return np.concatenate([[UNLABELLED], self.labels])[self.segments]


@runtime_checkable
class DataSet(Protocol):
    """Labelled pictures in a fixed order, all of one vocabulary."""

    vocabulary: Vocabulary

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> LabelledPicture: ...

    def check(self) -> None:
        """Look for what would stop a training: missing files, wrong sizes, unknown labels.

        Raises:
            ValueError: Names the first files that are wrong, and what was expected.
        """


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"
