"""One's own pictures, however they are labelled."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from wordmask.data.frames import Frames
from wordmask.data.labelled import Examined, Fault, LabelledPicture
from wordmask.data.reading import BACKGROUND, FolderReading
from wordmask.data.survey import ClassCounts, survey
from wordmask.image import read_picture
from wordmask.vocabulary import Vocabulary
from wordmask.words import WordClass, same_phrase


class OwnFolder(ABC):
    """Labelled pictures of one's own: a data set that says all that is wrong with it at once.

    A way to label them says what to read: `_examine`.

    Attributes:
        hints: What to say besides, where faults of a kind are found.
        notes: What was assumed or left out, for a person to read.
        tells_things_apart: Whether each thing has a segment of its own.
        by_itself: Places that the folder itself keeps for measuring; None if it doesn't say.
    """

    tells_things_apart = True
    nowhere = "all labels are empty"
    hints: ClassVar[Mapping[str, str]] = {}

    def __init__(self, root: Path, vocabulary: Vocabulary, reading: FolderReading):
        self.root, self.reading = root, reading
        self.notes: list[str] = []
        self.by_itself: list[int] | None = None
        self.vocabulary, self._ground = _with_background(vocabulary) if reading.background else (vocabulary, None)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def files(self, place: int) -> tuple[Path, ...]:
        """See `DataSet.files`."""

    @abstractmethod
    def _examine(self, place: int) -> Examined:
        """Read a picture and its label, and find all that is wrong with them."""

    def __getitem__(self, place: int) -> LabelledPicture:
        labelled, faults = self.examine(range(len(self))[place])
        if labelled is None or (faults and not self.reading.partial):
            raise ValueError(f"{faults[0].kind}: {faults[0].what}")
        return labelled

    def examine(self, place: int) -> Examined:
        """Read a picture and its label, and find all that is wrong with them.

        Where something of a label was left out, what lies there is no background: then the picture can't be used.
        """
        labelled, faults = self._examine(place)
        if labelled is None or self._ground is None:
            return Examined(labelled, faults)
        return Examined(None if faults else on_ground(labelled, self._ground), faults)

    def structure(self) -> list[Fault]:
        """What is wrong that belongs to no picture."""
        return []

    def doubts(self, counts: ClassCounts) -> list[Fault]:
        """What can't be meant, now that the classes of all pictures are counted."""
        if counts.pixels.any():
            return []
        return [Fault("No pixel of any picture has a class: there is nothing to learn, or to measure on", self.nowhere)]

    def suspicions(self, counts: ClassCounts) -> list[str]:
        """What may be meant otherwise."""
        return []

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; `thorough` or not, every picture and label is decoded."""
        survey(self).require(partial=self.reading.partial)


def read_upright(path: Path, missing: str) -> tuple[LabelledPicture | None, Frames | None, list[Fault]]:
    """Read a picture, as yet without any segment, and how it is stored.

    Args:
        missing: The kind of fault that it is if there is no such file.
    """
    try:
        if not path.is_file():
            return None, None, [Fault(missing, path.name)]
    except OSError as error:  # a name that no file can have
        return None, None, [Fault(missing, f"{path.name[:80]}: {error.strerror}")]
    try:
        rgb = read_picture(path)
        frames = Frames.of(path, rgb.shape[:2])
    except ValueError as error:
        return None, None, [Fault("Pictures that cannot be read", str(error))]
    nothing = np.zeros(rgb.shape[:2], np.int32), np.zeros(0, np.int64), np.zeros(0, bool)
    return LabelledPicture(rgb, *nothing, str(path)), frames, []


def on_ground(labelled: LabelledPicture, ground: int) -> LabelledPicture:
    """Make one more segment, of the class `ground`, of all pixels that have none; a segment of it there is joined."""
    nothing = labelled.segments == 0
    if not nothing.any():
        return labelled
    own = np.flatnonzero((labelled.labels == ground) & ~labelled.crowd)
    number = int(own[0]) + 1 if len(own) else len(labelled.labels) + 1
    segments = np.where(nothing, labelled.segments.dtype.type(number), labelled.segments)
    if len(own):
        return replace(labelled, segments=segments)
    return replace(
        labelled, segments=segments, labels=np.append(labelled.labels, ground), crowd=np.append(labelled.crowd, False)
    )


def _with_background(vocabulary: Vocabulary) -> tuple[Vocabulary, int]:
    """The classes with one called background, and which it is."""
    for label, entry in enumerate(vocabulary):
        if entry.is_among({same_phrase(BACKGROUND)}):
            return vocabulary, label
    classes = (*vocabulary, WordClass((BACKGROUND,), thing=False))
    return replace(vocabulary, classes=classes), len(vocabulary)
