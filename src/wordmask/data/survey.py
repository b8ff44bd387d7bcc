"""What is in a data set: every picture and its label decoded once, before anything is trained or measured on them."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from wordmask.data.files import Findings
from wordmask.data.labelled import DataSet, Examined, Fault, LabelledPicture
from wordmask.pipeline import result_or_raise, thread_count, thread_pool, work_ahead
from wordmask.vocabulary import Vocabulary

CHUNK = 1 << 20  # bytes of a file that are read at a time

PARTLY = "With partial=true these are left out, and the rest is used."

# title, pictures done, pictures in all → call for each
Watch = Callable[[str, int, int], AbstractContextManager[Callable[[], None]]]


class Examinable(DataSet, Protocol):
    """A data set that says of each picture all that is wrong with it, and of all together what is odd."""

    root: Path
    hints: ClassVar[Mapping[str, str]]

    def examine(self, place: int) -> Examined: ...

    def structure(self) -> list[Fault]:
        """What is wrong that belongs to no picture."""
        ...

    def doubts(self, counts: "ClassCounts") -> list[Fault]:
        """What can't be meant, now that the classes are counted."""
        ...


@dataclass(frozen=True)
class PictureCount:
    """What was found in one picture.

    Args:
        classes: Class → pixels, and how many segments, of those that it shows.
        pixels: In all.
        unlabelled: Pixels without a class.
        contents: Tells pictures with other pixels apart.
        identity: Changes with the picture's file, and with its label.
        source: Where it came from.
    """

    classes: dict[int, tuple[int, int]]
    pixels: int
    unlabelled: int
    contents: bytes
    identity: bytes
    source: str


@dataclass(frozen=True)
class ClassCounts:
    """What is in some pictures together: pixels, pictures and segments of each class, and pixels without one."""

    pixels: np.ndarray
    pictures: np.ndarray
    segments: np.ndarray
    unlabelled: int

    @classmethod
    def of(cls, classes: int, counts: list[PictureCount]) -> "ClassCounts":
        pixels, pictures, segments = np.zeros((3, classes), np.int64)
        for count in counts:
            for label, (area, parts) in count.classes.items():
                pixels[label] += area
                pictures[label] += 1
                segments[label] += parts
        return cls(pixels, pictures, segments, sum(count.unlabelled for count in counts))


@dataclass(frozen=True)
class Survey:
    """What is in a data set: place → what was found there, of the pictures that can be used; and what can't be."""

    root: Path
    vocabulary: Vocabulary
    total: int
    found: dict[int, PictureCount]
    findings: Findings = field(compare=False)
    doubts: Findings = field(compare=False)
    hints: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> list[int]:
        return list(self.found)

    def counts(self, places: list[int] | None = None) -> ClassCounts:
        """What is in some of the pictures together, or in all."""
        chosen = self.found if places is None else places
        return ClassCounts.of(len(self.vocabulary), [self.found[place] for place in chosen])

    def require(self, *, partial: bool) -> None:
        """Raise `ValueError` if anything is wrong.

        Args:
            partial: What is wrong with single pictures doesn't matter, if some can be used.
        """
        if not (partial and self.found):
            hints = [hint for kind, hint in self.hints.items() if kind in self.findings.kinds]
            self.findings.report(*hints, *([PARTLY] if self.found else []))
        self.doubts.report()

    def fingerprint(self) -> str:
        """Changes with the classes, and with the contents of any picture or label; not with where they are."""
        digest = hashlib.sha256(repr([entry.names for entry in self.vocabulary]).encode())
        for place, count in self.found.items():
            digest.update(f"{place}\n".encode() + count.identity)
        return digest.hexdigest()[:16]

    def alike(self) -> list[list[int]]:
        """Places of pictures with the same pixels, together; the others alone."""
        groups: dict[bytes, list[int]] = {}
        for place, count in self.found.items():
            groups.setdefault(count.contents, []).append(place)
        return list(groups.values())


@contextmanager
def unwatched(title: str, done: int, total: int) -> Iterator[Callable[[], None]]:
    """Show nothing."""

    def count() -> None:
        pass

    yield count


def survey(data: Examinable, watch: Watch = unwatched) -> Survey:
    """Decode every picture and its label, in threads, and count what is there; keep nothing of them."""
    findings, found = Findings(data.root), {}
    for kind, what in data.structure():
        findings.add(kind, what)

    def look(place: int) -> tuple[PictureCount | None, list[Fault]]:
        labelled, faults = data.examine(place)
        if labelled is None:
            return None, faults
        files = data.files(place)
        return count_picture(labelled, files[0] if files else None), faults

    with watch("Checking", 0, len(data)) as count, thread_pool(thread_count()) as pool:
        for place, outcome in enumerate(work_ahead(range(len(data)), look, pool, most=2 * thread_count())):
            counted, faults = result_or_raise(outcome)
            for kind, what in faults:
                findings.add(kind, what)
            if counted is not None:
                found[place] = counted
            count()
    result = Survey(data.root, data.vocabulary, len(data), found, findings, Findings(data.root), data.hints)
    for kind, what in data.doubts(result.counts()) if found else []:
        result.doubts.add(kind, what)
    return result


def count_picture(labelled: LabelledPicture, file: Path | None) -> PictureCount:
    """Count the pixels and segments of each class of a picture."""
    areas = np.bincount(labelled.segments.ravel(), minlength=len(labelled.labels) + 1).tolist()
    classes: dict[int, tuple[int, int]] = {}
    for label, area in zip(labelled.labels.tolist(), areas[1:], strict=True):
        if area:
            pixels, segments = classes.get(label, (0, 0))
            classes[label] = pixels + area, segments + 1
    contents = _digest(labelled.rgb, repr(labelled.rgb.shape).encode())
    identity = contents if file is None else _digest_of_file(file)
    identity += _digest(labelled.segments, labelled.labels.tobytes() + labelled.crowd.tobytes())
    pixels = math.prod(labelled.segments.shape)
    return PictureCount(classes, pixels, areas[0], contents, identity, labelled.source)


def _digest(array: np.ndarray, more: bytes) -> bytes:
    digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16)
    digest.update(more)
    return digest.digest()


def _digest_of_file(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()
