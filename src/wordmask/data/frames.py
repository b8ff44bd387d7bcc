"""Pictures that lie on their side: upright as people see them, or as they are stored, which some tools label."""

from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags

from wordmask.data.files import Size, opened, width_by_height

Turned = TypeVar("Turned", bound=np.ndarray)
# EXIF's orientation → whether the axes are exchanged, and then which of them are walked backwards
TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class Frames(NamedTuple):
    """The two ways to see a picture's pixels; sizes are (height, width)."""

    upright: Size
    stored: Size
    orientation: int

    @classmethod
    def of(cls, path: Path, upright: Size) -> "Frames":
        """Read from the header how a picture, of which the upright size is known, is stored."""
        with opened(path, "picture") as image:
            stored = image.height, image.width
            if stored == upright:  # square ones, and those upside down, are labelled as people see them
                return cls(upright, upright, 1)
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return cls(upright, stored, orientation if orientation in TURNS else 1)

    def labelled_in(self, size: Size) -> Size | None:
        """Which of the two a label of this size was made on: its size again, or None if on neither."""
        return size if size in (self.upright, self.stored) else None

    def stand_up(self, label: Turned) -> Turned:
        """Turn the label of a stored picture upright; one that is upright stays."""
        if label.shape == self.upright:
            return label
        exchanged, down, across = TURNS[self.orientation]
        turned = label.T if exchanged else label
        # it keeps its type, which numpy's own types lose
        return np.ascontiguousarray(turned[:: -1 if down else 1, :: -1 if across else 1])  # pyright: ignore

    def __str__(self) -> str:
        upright, stored = width_by_height(self.upright), width_by_height(self.stored)
        return upright if upright == stored else f"{upright} (stored as {stored})"
