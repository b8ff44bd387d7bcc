"""Benchmarks as they are published: pictures, each with the files that say what is where."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wordmask.data.files import Findings, compare_sizes
from wordmask.data.label_maps import NO_CLASS, UNKNOWN, Coding
from wordmask.data.labelled import LabelledPicture, Segments
from wordmask.image import read_picture
from wordmask.vocabulary import Vocabulary


class Published(ABC):
    """Pictures in a fixed order, each with the files of its label. A benchmark says how to read these: `_segments`.

    Args:
        rows: For each picture, its file and those of its label; they need not be there.

    Raises:
        ValueError: No rows.
    """

    def __init__(self, root: Path, vocabulary: Vocabulary, rows: list[tuple[Path, ...]], expected: str):
        self.root, self.vocabulary, self.rows = root, vocabulary, rows
        if not rows:
            raise ValueError(f"There is no picture in {str(root)!r}; expected {expected}.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> LabelledPicture:
        picture = self.rows[place][0]
        rgb = read_picture(picture)
        return LabelledPicture(rgb, *self._segments(place), str(picture))

    def files(self, place: int) -> tuple[Path, ...]:
        """Where a picture and its label should be."""
        return self.rows[place]

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; only `thorough` decodes every label."""
        findings = Findings(self.root)
        for place, (picture, *labels) in enumerate(self.rows):
            absent = [path for path in (picture, *labels) if not path.is_file()]
            for path in absent:
                findings.add("Files that are missing", path)
            if thorough and not absent:
                findings.attempt("Labels that cannot be used", self.__getitem__, place)
            elif not absent:
                for label in (path for path in labels if path.suffix == ".png"):
                    compare_sizes(findings, picture, label)
        findings.report()

    @abstractmethod
    def _segments(self, place: int) -> Segments:
        """Read the label of a picture: its segments, their classes, which are crowds."""


def shifted(classes: int, *, zero: int = NO_CLASS, void: Iterable[int] = ()) -> Coding:
    """Values of 8 bits that count classes from 1.

    Args:
        zero: What 0 means: no class, or one.
        void: Other values that are no class.
    """
    label_of = np.full(256, UNKNOWN, np.int64)
    label_of[0], label_of[1 : classes + 1] = zero, np.arange(classes)
    label_of[list(void)] = NO_CLASS
    return Coding(label_of, f"0 to {classes}{''.join(f', or {value}' for value in void)}")


def stems_below(root: Path, endings: dict[str, str], *, skip: str = "") -> dict[str, dict[str, Path]]:
    """Find files in all folders below one, by their stems, in the order of these: kind → file.

    Args:
        endings: What names end with → the kind.
        skip: Folders whose names begin so are not entered; empty: all are.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder, kind, name, stem in _walk(root, endings, skip):
        found.setdefault(stem, {})[kind] = folder / name
    return dict(sorted(found.items()))


def _walk(root: Path, endings: dict[str, str], skip: str) -> Iterator[tuple[Path, str, str, str]]:
    for folder, inside, names in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith(".") and not (skip and name.startswith(skip)))
        for name in names:
            for ending, kind in endings.items():
                if name.endswith(ending) and not name.startswith("."):
                    yield Path(folder), kind, name, name.removesuffix(ending)
