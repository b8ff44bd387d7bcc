"""Pictures in which things, and pieces of stuff, are outlined: what COCO's json, YOLO's lines and labelme's share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from wordmask.data.files import Size, width_by_height
from wordmask.data.labelled import Examined, Fault, Segments
from wordmask.data.outlines import Box, read_runs
from wordmask.data.own_folder import OwnFolder, read_upright
from wordmask.data.reading import FILLED, FolderReading
from wordmask.vocabulary import Vocabulary

UNUSABLE = "Outlines that cannot be used"
BOX_ALONE = "Things with a box alone, which is no outline"
HINT = "With boxes=filled each of these is the whole of its box."


@dataclass(frozen=True)
class Annotation:
    """A thing, or a piece of stuff.

    Args:
        id: For errors only.
        label: An index into the vocabulary.
        outline: See `read_runs`; a `Box` where there is nothing better; None: nothing at all.
        group: Annotations of one class and group are one thing; None: each is one.
    """

    id: object
    label: int
    outline: object
    crowd: bool = False
    group: object = None


@dataclass(frozen=True)
class ListedPicture:
    """A picture as a list of them has it.

    Args:
        name: As the list spells it.
        path: Where it is, or should be.
        source: The file that labels it.
        height: Pixels, which need not be said.
        width: Likewise.
        faults: What was wrong with its annotations already.
    """

    name: str
    path: Path
    source: Path
    annotations: Sequence[Annotation]
    height: int | None = None
    width: int | None = None
    faults: Sequence[Fault] = ()


class OutlinedFolder(OwnFolder):
    """Pictures with outlines. Smaller ones are painted over larger ones, of equal ones the later; stuff of one class is
    one segment.

    Args:
        missing: The kind of fault of a picture that is not there.
    """

    nowhere = "outlines cover no pixel at all"
    hints: ClassVar[Mapping[str, str]] = {BOX_ALONE: HINT}

    def __init__(
        self,
        root: Path,
        *,
        vocabulary: Vocabulary,
        pictures: Sequence[ListedPicture],
        reading: FolderReading,
        missing: str,
    ):
        super().__init__(root, vocabulary, reading)
        self.pictures, self.missing = list(pictures), missing

    def __len__(self) -> int:
        return len(self.pictures)

    def files(self, place: int) -> tuple[Path, ...]:
        """Where a picture should be, and what labels it."""
        picture = self.pictures[place]
        return picture.path, picture.source

    def _examine(self, place: int) -> Examined:
        picture = self.pictures[place]
        blank, frames, faults = read_upright(picture.path, self.missing)
        if blank is None or frames is None:
            named = [Fault(fault.kind, picture.name) if fault.kind == self.missing else fault for fault in faults]
            return Examined(None, [*named, *picture.faults])
        size = frames.labelled_in(_said(picture, frames.upright))
        if size is None:
            what = (
                f"The picture {picture.name!r} is {frames} pixels, but {str(picture.source)!r} says "
                f"{width_by_height(_said(picture, frames.upright))}. Export it again."
            )
            return Examined(None, [Fault("Pictures of another size", what), *picture.faults])
        (segments, labels, crowd), bad = self._paint(picture, size)
        turned = frames.stand_up(segments)
        return Examined(replace(blank, segments=turned, labels=labels, crowd=crowd), [*picture.faults, *bad])

    def _paint(self, picture: ListedPicture, size: Size) -> tuple[Segments, list[Fault]]:
        """Draw all that can be drawn."""
        numbers: dict[tuple[object, ...], int] = {}
        outlines, faults = [], list[Fault]()
        for place, annotation in enumerate(picture.annotations):
            runs = self._runs(annotation, picture, size)
            if isinstance(runs, Fault):
                faults.append(runs)
                continue
            thing = self.vocabulary.classes[annotation.label].thing
            alone = ("place", place) if annotation.group is None else ("group", annotation.group)
            key = annotation.label, annotation.crowd, alone if thing else None
            outlines.append((numbers.setdefault(key, len(numbers) + 1), runs))
        segments = np.zeros(size[0] * size[1], np.int32)  # column by column, as COCO's run lengths go
        for number, runs in sorted(outlines, key=lambda outline: -int(outline[1][1::2].sum())):
            segments[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = number
        labels, crowd = np.array([key[0] for key in numbers], np.int64), np.array([key[1] for key in numbers], bool)
        return (np.ascontiguousarray(segments.reshape(size[::-1]).T), labels, crowd), faults

    def _runs(self, annotation: Annotation, picture: ListedPicture, size: Size) -> Int[np.ndarray, " R"] | Fault:
        where = f"Annotation {annotation.id} of {picture.name!r} in {str(picture.source)!r}"
        if isinstance(annotation.outline, Box) and self.reading.boxes != FILLED:
            return Fault(BOX_ALONE, f"{where}: it has no outline, but a box alone.")
        try:
            return read_runs(annotation.outline, size)
        except ValueError as error:
            return Fault(UNUSABLE, f"{where}: {error}")


def _said(picture: ListedPicture, upright: Size) -> Size:
    """The size that a list says, where it says it."""
    return (
        upright[0] if picture.height is None else picture.height,
        upright[1] if picture.width is None else picture.width,
    )
