"""Pictures without torch: anything that shows one → upright 8-bit RGB, resized for a model, and the sizes on the way.

Needs numpy and Pillow, and nothing else of wordmask but the files beside it: `wordmask export` copies this file beside
the graphs. H W pixels.
"""

import io
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from .decoded import Decoded, PictureNote, rgb_of
from .picture_files import PictureSize, decode_file, decode_image, size_in_file

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with opacity
STRIP_ENTRIES = 2**22  # of maps that are restored at a time: 16 MB
# of RGB in 0–255 over ImageNet; what both papers subtract and divide by
MEAN, STD = ((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
PADDING = 32  # pixels, the coarsest stride


class SupportsArray(Protocol):
    """What offers itself as an array."""

    def __array__(self) -> np.ndarray: ...


class ReadPicture(NamedTuple):
    """A picture as it was read.

    Args:
        rgb: (H, W, 3) uint8, upright sRGB.
        notes: What was assumed or left out.
    """

    rgb: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PictureFile:
    """A picture's file in memory, of which the header was read.

    Args:
        width: As the file has it, not upright.
        formats: Those of Pillow's that may be read; None: all.
    """

    content: bytes
    width: int
    height: int
    formats: tuple[str, ...] | None = None


PlainPicture = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray | SupportsArray | PictureFile


# Reading --------------------------------------------------------------------------------------------------------------


def read_rgb(
    picture: PlainPicture,
    *,
    white: int | None = None,
    expected: str = "a path, bytes, an open file, a PIL image or an array",
) -> np.ndarray:
    """Read any picture as upright 8-bit sRGB, (H, W, 3), in memory of its own; warn of what was assumed.

    Orientation from EXIF is applied; transparency is laid on white; colours of another profile are converted to sRGB;
    16-bit values are scaled from 0–65535.

    Args:
        picture: A path, the bytes of a file, a binary file, a PIL image, or an array: H×W, H×W×1, ×3 or ×4, uint8,
            uint16, bool, or float in [0, 1]; channels in the order RGB. What offers itself as an array is one.
        white: The value of white in integers that use fewer bits than they have: 4095 for 12.
        expected: What the error says of anything else.

    Raises:
        ValueError: It does not exist, is not a picture, ends early, is empty, too large, or has values out of range.
    """
    read = read_noted(picture, white=white, expected=expected)
    warn_of(read.notes)
    return read.rgb


def read_noted(
    picture: PlainPicture,
    *,
    white: int | None = None,
    own: bool = True,
    expected: str = "a path, bytes, an open file, a PIL image or an array",
) -> ReadPicture:
    """The same, with notes in place of warnings.

    Args:
        own: Whether the result may not be memory of the array that came.
    """
    return finished(*_decoded(picture, expected), white=white, own=own)


def finished(decoded: Decoded, name: str, *, white: int | None = None, own: bool = True) -> ReadPicture:
    """Make RGB of what was decoded; see `read_noted`."""
    if white is not None and not white >= 1:
        raise ValueError(f"white came as {white!r}; expected the value of white, such as 4095 for 12 bits.")
    rgb, notes = rgb_of(decoded if white is None else replace(decoded, white=white), name)
    if own and decoded.lent and np.may_share_memory(rgb, decoded.colours):
        rgb = rgb.copy()
    return ReadPicture(rgb, notes)


def warn_of(notes: Sequence[str]) -> None:
    """Tell a program's author of what was assumed; Python shows each text once."""
    for note in notes:
        warnings.warn(PictureNote(note), stacklevel=3)


def read_file_header(content: bytes, formats: tuple[str, ...] | None = None) -> PictureFile:
    """Read the header of a picture's file.

    Args:
        formats: Those of Pillow's that may be read; None: all.

    Raises:
        ValueError: It is no picture, damaged, or too large.
    """
    size = size_in_file(io.BytesIO(content), f"{len(content)} bytes", formats, upright=False)
    return PictureFile(content, size.width, size.height, formats)


def size_of_file(path: Path, *, upright: bool = True) -> PictureSize:
    """Read the size of a picture from the header of its file; `upright` as `read_rgb` returns it.

    Raises:
        ValueError: It is no picture, or its header is damaged.
        OSError: There is no such file.
    """
    with path.open("rb") as file:
        return size_in_file(file, f"file {str(path)!r}", upright=upright)


def file_of(picture: object) -> str | None:
    """The file that a picture is in, if it says so: a path, an open file, a PIL image that was opened from one."""
    if isinstance(picture, str | Path):
        return str(picture)
    place = getattr(picture, "filename" if isinstance(picture, Image.Image) else "name", None)
    return place if isinstance(place, str) and place and not isinstance(picture, np.ndarray) else None


def decoded_array(array: np.ndarray, name: str) -> Decoded:
    """Take an array as `read_rgb` does; errors call it `name`."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise ValueError(
            f"The {name} has shape {array.shape}; expected H×W, H×W×3 or H×W×4 (tensors also 3×H×W), one picture at a "
            "time."
        )
    if 0 in array.shape:
        raise ValueError(f"The {name} is empty, of shape {array.shape}; expected at least 1×1 pixels.")
    opacity = array[..., 3] if array.shape[2] == 4 else None
    return Decoded(array[..., :3] if array.shape[2] > 1 else array, opacity, lent=True)


def _decoded(picture: Any, expected: str) -> tuple[Decoded, str]:
    """Decode a picture, and name it."""
    if isinstance(picture, Image.Image):
        return decode_image(picture, "image"), "image"
    if isinstance(picture, np.ndarray):
        return decoded_array(picture, "array"), "array"
    if isinstance(picture, PictureFile):
        name = f"{len(picture.content)} bytes"
        return decode_file(io.BytesIO(picture.content), name, picture.formats), name
    if isinstance(picture, bytes | bytearray | memoryview):
        return _decoded_file(io.BytesIO(picture), f"{len(picture)} bytes")
    if isinstance(picture, str | Path):
        return _decoded_path(picture)
    if hasattr(picture, "__array__") or hasattr(picture, "__array_interface__"):
        return decoded_array(np.asarray(picture), type(picture).__name__), type(picture).__name__
    if hasattr(picture, "read"):
        return _decoded_open_file(picture)
    raise ValueError(f"A picture came as {type(picture).__name__}; expected {expected}.")


def _decoded_path(picture: str | Path) -> tuple[Decoded, str]:
    if not str(picture).strip():
        raise ValueError("The name of the picture is empty; expected a path.")
    path = Path(os.path.expanduser(picture))
    try:
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder; expected a picture file.")
        if not path.exists():
            raise ValueError(f"The picture {str(path)!r} does not exist. Check the spelling and the current folder.")
        with path.open("rb") as file:
            return _decoded_file(file, f"file {str(path)!r}")
    except PermissionError:
        raise ValueError(f"The file {str(path)!r} may not be read. Change its permissions, or ask its owner.") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"The picture {str(path)!r} cannot be opened: {error.strerror}. Check its name.") from None


def _decoded_open_file(file: IO[bytes]) -> tuple[Decoded, str]:
    """Read an open file from where it stands; what follows there is the picture."""
    name = f"open file {file_of(file)!r}" if file_of(file) else f"open {type(file).__name__}"
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise ValueError(f"The {name} cannot be read: {error}. Open it with mode 'rb'.") from None
    if not isinstance(content, bytes):
        raise ValueError(f"The {name} gives {type(content).__name__}; expected bytes. Open it with mode 'rb'.")
    if not content:
        raise ValueError(f"The {name} is at its end, or empty; expected a picture. Call seek(0) on it first.")
    return _decoded_file(io.BytesIO(content), name)


def _decoded_file(file: IO[bytes], name: str) -> tuple[Decoded, str]:
    if not file.read(1):
        raise ValueError(f"The {name} is empty (0 bytes); expected a picture.")
    file.seek(0)
    return decode_file(file, name), name


# Sizes ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageInput:
    """What a model wants to see.

    Args:
        shortest_edge: Pixels; the picture is first resized to this, antialiased, on 8 bits …
        longest_edge: … unless its longer edge would exceed this.
        square: The normalised picture is then stretched to a square of this side, bilinearly, without antialiasing;
            None keeps its shape and pads zeros at the right and the bottom to a multiple of 32.
        mean: Subtracted from RGB in 0–255.
        std: Divides the difference.
    """

    shortest_edge: int
    longest_edge: int
    square: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def side(self) -> int:
        """Pixels: of a square input its side, else the shorter edge."""
        return self.square or self.shortest_edge

    def of_size(self, size: int) -> "ImageInput":
        """The same with another side."""
        if self.square is not None:
            return replace(self, square=size)
        return replace(self, shortest_edge=size, longest_edge=max(size, self.longest_edge))


@dataclass(frozen=True)
class PictureSizes:
    """The sizes a picture had on its way into a model, (height, width).

    Args:
        original: As it was read.
        resized: Without padding; None if it was stretched over the whole input.
        padded: The model's input; None likewise.
    """

    original: tuple[int, int]
    resized: tuple[int, int] | None = None
    padded: tuple[int, int] | None = None

    def strip_rows(self, maps: int) -> int:
        """How many rows of so many maps are brought back to the original at a time, so that memory stays bounded."""
        width = max(self.original[1], self.padded[1] if self.padded else 0)
        return max(1, STRIP_ENTRIES // (max(1, maps) * width))


def resize_picture(picture: np.ndarray, wanted: ImageInput) -> np.ndarray:
    """Resize RGB, (H, W, 3) uint8, to the edges that a model wants, antialiased, on 8 bits."""
    height, width = resized_size(picture.shape[0], picture.shape[1], wanted)
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def input_size(height: int, width: int, wanted: ImageInput) -> tuple[int, int]:
    """(height, width) of the pixels that a model sees of a picture."""
    if wanted.square is not None:
        return wanted.square, wanted.square
    new_height, new_width = resized_size(height, width, wanted)
    return -(-new_height // PADDING) * PADDING, -(-new_width // PADDING) * PADDING


def resized_size(height: int, width: int, wanted: ImageInput) -> tuple[int, int]:
    """(height, width) of a picture before it is padded or stretched."""
    return shortest_edge_size(height, width, shortest=wanted.shortest_edge, longest=wanted.longest_edge)


def shortest_edge_size(height: int, width: int, *, shortest: int, longest: int) -> tuple[int, int]:
    """Scale (height, width) so that the shorter edge is `shortest`, or the longer one `longest` if it would exceed it.

    Multiplies twice and rounds half up, as detectron2's ResizeShortestEdge does, so that no size differs by one pixel.
    """
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    shrink = min(1.0, longest / max(new_height, new_width))
    return max(1, math.floor(new_height * shrink + 0.5)), max(1, math.floor(new_width * shrink + 0.5))
