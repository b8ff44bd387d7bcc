"""Pictures without torch: anything that shows one → upright 8-bit RGB, resized for a model, and the sizes on the way.

Needs numpy and Pillow, and nothing else of wordmask: `wordmask export` copies this file beside the graphs. H W pixels.
"""

import io
import math
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with opacity
STRIP_ENTRIES = 2**22  # of maps that are restored at a time: 16 MB
UINT16_TO_UINT8 = 257  # 65535 / 255
# of RGB in 0–255 over ImageNet; what both papers subtract and divide by
MEAN, STD = ((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
PADDING = 32  # pixels, the coarsest stride
OPENING = threading.Lock()

PlainPicture = str | Path | bytes | Image.Image | np.ndarray


# Reading --------------------------------------------------------------------------------------------------------------


def read_rgb(picture: PlainPicture, *, expected: str = "a path, bytes, a PIL image or an array") -> np.ndarray:
    """Read any picture as upright 8-bit RGB, (H, W, 3).

    Orientation from EXIF is applied; transparency is laid on white; 16-bit values are scaled from 0–65535.

    Args:
        picture: A path, the bytes of a file, a PIL image, or an array: H×W, H×W×1, ×3 or ×4, uint8, uint16, bool, or
            float in [0, 1]; channels in the order RGB.
        expected: What the error says of anything else.

    Raises:
        ValueError: It does not exist, is not a picture, ends early, is empty, too large, or has values out of range.
    """
    if isinstance(picture, np.ndarray):
        return rgb_of_array(picture, "array")
    if isinstance(picture, Image.Image):
        return _decode(lambda: nullcontext(picture), "image")
    if isinstance(picture, bytes | bytearray | memoryview):
        return _read_file(io.BytesIO(picture), f"{len(picture)} bytes", len(picture))
    if not isinstance(picture, str | Path):
        raise ValueError(f"A picture came as {type(picture).__name__}; expected {expected}.")
    if not str(picture).strip():
        raise ValueError("The name of the picture is empty; expected a path.")
    path = Path(os.path.expanduser(picture))
    try:
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder; expected a picture file.")
        if not path.exists():
            raise ValueError(f"The picture {str(path)!r} does not exist. Check the spelling and the current folder.")
        return _read_file(path, f"file {str(path)!r}", path.stat().st_size)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"The picture {str(path)!r} cannot be opened: {error.strerror}. Check its name.") from None


def rgb_of_array(array: np.ndarray, name: str) -> np.ndarray:
    """Turn an array as `read_rgb` takes it into (H, W, 3) uint8; errors call it `name`."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise ValueError(
            f"The {name} has shape {array.shape}; expected H×W, H×W×3 or H×W×4 (tensors also 3×H×W), one picture at a "
            "time."
        )
    if 0 in array.shape:
        raise ValueError(f"The {name} is empty, of shape {array.shape}; expected at least 1×1 pixels.")
    array = _to_uint8(array, name)
    if array.shape[2] == 4:
        return _on_white(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _read_file(file: Path | io.BytesIO, name: str, size: int) -> np.ndarray:
    if size == 0:
        raise ValueError(f"The {name} is empty (0 bytes); expected a picture.")
    return _decode(lambda: Image.open(file), name)


def _decode(open_image: Callable[[], AbstractContextManager[Image.Image]], name: str) -> np.ndarray:
    try:
        with _opened(open_image) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ValueError(
            f"The {name} is too large: the limit is {limit:.0f} million pixels, against files made to fill the memory. "
            "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"The {name} is not a picture that can be read: its content is of no known picture format."
        ) from None
    except PermissionError:
        raise ValueError(f"The {name} may not be read. Change its permissions, or ask its owner.") from None
    except MemoryError:
        raise
    # decoders raise almost anything on damaged files: OSError, SyntaxError, RuntimeError, struct.error …
    except Exception as error:
        raise ValueError(f"The {name} is damaged or ends early: {error}. Fetch or export it again.") from None
    return _rgb_of_image(upright, name)


def _opened(open_image: Callable[[], AbstractContextManager[Image.Image]]) -> AbstractContextManager[Image.Image]:
    """Read the header, in one thread at a time: all share the list of warnings that are left out."""
    with OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is fine; twice that is an error
        return open_image()


def _rgb_of_image(image: Image.Image, name: str) -> np.ndarray:
    if image.width == 0 or image.height == 0:
        raise ValueError(f"The {name} is {image.width}×{image.height} pixels; expected at least 1×1.")
    if image.mode.startswith("I;16") or image.mode == "I":
        return rgb_of_array(_as_uint16(np.array(image), name), name)
    if image.mode == "F":
        return rgb_of_array(np.array(image), name)
    if image.mode == "La":  # Pillow turns it into nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        return _on_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _as_uint16(array: np.ndarray, name: str) -> np.ndarray:
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(f"The {name} has values from {array.min()} to {array.max()}; expected 16 bits, 0 to 65535.")
    return array.astype(np.uint16)


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.newbyteorder("=") == np.uint16:
        return ((array.astype(np.uint32) + UINT16_TO_UINT8 // 2) // UINT16_TO_UINT8).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"The {name} holds {array.dtype}; expected uint8, uint16, or floats in [0, 1].")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(
            f"The {name} holds floats from {low:.9g} to {high:.9g}; expected [0, 1]. "
            "Clip them, divide by 255, or pass uint8."
        )
    return (array * 255 + 0.5).astype(np.uint8)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    opacity = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


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
