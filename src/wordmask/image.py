"""Pictures: anything that shows one → RGB → pixels for a model, and the Frame that undoes the sizes."""

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from wordmask.writing import at_home

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with opacity
STRIP_ENTRIES = 2**22  # of K maps restored at a time: 16 MB
UINT16_TO_UINT8 = 257  # 65535 / 255
# of RGB in 0–255 over ImageNet; what both papers subtract and divide by
MEAN, STD = ((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
PADDING = 32  # pixels, the coarsest stride
OPENING = threading.Lock()

Picture = str | Path | bytes | Image.Image | np.ndarray | Tensor


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
class Frame:
    """The sizes a picture had, (height, width): the only thing that knows how to get back to them.

    Args:
        original: As it was read.
        resized: Without padding; None if it was stretched over the whole input.
        padded: The model's input; None likewise.
    """

    original: tuple[int, int]
    resized: tuple[int, int] | None = None
    padded: tuple[int, int] | None = None

    def restore_strips(self, maps: Float[Tensor, "K h w"]) -> Iterator[Float[Tensor, "K s W"]]:
        """Bring maps on the model's grid back to the original picture, bilinearly, some rows at a time from top to
        bottom.

        Where the picture was padded, maps are brought to the padded input, cropped, and brought to the original, as the
        references do. Bilinear resizing is separable: first all rows, still narrow; then strip by strip all columns.
        """
        width = self.original[1]
        rows = max(1, STRIP_ENTRIES // (max(1, len(maps)) * max(width, self.padded[1] if self.padded else 0)))
        narrow = self._restore(maps[None], axis=0)  # (1, K, H, w)
        for strip in narrow.split(rows, dim=2):
            yield self._restore(strip, axis=1)[0]

    def restoring(self, maps: Float[Tensor, "K h w"]) -> tuple[Float[Tensor, "H h"], Float[Tensor, "W w"]]:
        """The same as two matrices, for parts of a picture: down @ maps @ across.T is what `restore_strips` gives."""
        down, across = (torch.eye(side, dtype=maps.dtype, device=maps.device)[None, None] for side in maps.shape[1:])
        return self._restore(down, axis=0)[0, 0], self._restore(across, axis=1)[0, 0].T

    def _restore(self, maps: Float[Tensor, "1 K h w"], axis: int) -> Float[Tensor, "1 K h2 w2"]:
        """Restore the height (axis 0) or the width (axis 1) of maps."""
        if self.padded is not None:
            maps = _resize_axis(maps, self.padded[axis], axis).narrow(axis + 2, 0, self.resized[axis])
        return _resize_axis(maps, self.original[axis], axis)


def prepare(picture: UInt8[np.ndarray, "H W 3"], wanted: ImageInput) -> tuple[Float[Tensor, "3 H W"], Frame]:
    """Resize and normalise an RGB picture as `wanted` says."""
    height, width = picture.shape[:2]
    new_height, new_width = shortest_edge_size(
        height, width, shortest=wanted.shortest_edge, longest=wanted.longest_edge
    )
    small = Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float()
    pixels = normalise(pixels, wanted)
    if wanted.square is None:
        padded = input_size(height, width, wanted)
        pixels = F.pad(pixels, (0, padded[1] - new_width, 0, padded[0] - new_height))
        return pixels, Frame((height, width), (new_height, new_width), padded)
    pixels = F.interpolate(pixels[None], size=(wanted.square, wanted.square), mode="bilinear", align_corners=False)[
        0
    ]  # (3, R, R)
    return pixels, Frame((height, width))


def normalise(pixels: Float[Tensor, "3 H W"], wanted: ImageInput) -> Float[Tensor, "3 H W"]:
    """Subtract a model's mean from RGB in 0–255, and divide by its standard deviation: the one place that does."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (wanted.mean, wanted.std))
    return (pixels - mean) / std


def input_size(height: int, width: int, wanted: ImageInput) -> tuple[int, int]:
    """(height, width) of the pixels that `prepare` makes of a picture."""
    if wanted.square is not None:
        return wanted.square, wanted.square
    new_height, new_width = shortest_edge_size(
        height, width, shortest=wanted.shortest_edge, longest=wanted.longest_edge
    )
    return -(-new_height // PADDING) * PADDING, -(-new_width // PADDING) * PADDING


def _resize_axis(maps: Float[Tensor, "1 K h w"], size: int, axis: int) -> Float[Tensor, "1 K h2 w2"]:
    whole = (size, maps.shape[3]) if axis == 0 else (maps.shape[2], size)
    if maps.numel() == 0:  # interpolation refuses what has no maps
        return maps.new_empty(*maps.shape[:2], *whole)
    return F.interpolate(maps, size=whole, mode="bilinear", align_corners=False)


def shortest_edge_size(height: int, width: int, *, shortest: int, longest: int) -> tuple[int, int]:
    """Scale (height, width) so that the shorter edge is `shortest`, or the longer one `longest` if it would exceed it.

    Multiplies twice and rounds half up, as detectron2's ResizeShortestEdge does, so that no size differs by one pixel.
    """
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    shrink = min(1.0, longest / max(new_height, new_width))
    return max(1, math.floor(new_height * shrink + 0.5)), max(1, math.floor(new_width * shrink + 0.5))


def read_picture(picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """Read any picture as upright 8-bit RGB.

    Orientation from EXIF is applied; transparency is laid on white; 16-bit values are scaled from 0–65535.

    Args:
        picture: A path, the bytes of a file, a PIL image, or an array or tensor: H×W, H×W×1, ×3 or ×4 (tensors also 1,
            3 or 4 first), uint8, uint16, or float in [0, 1]; channels in the order RGB.

    Raises:
        ValueError: It does not exist, is not a picture, ends early, is empty, too large, or has values out of range.
    """
    if isinstance(picture, Tensor):
        return _from_array(_channels_last(picture), "tensor")
    if isinstance(picture, np.ndarray):
        return _from_array(picture, "array")
    if isinstance(picture, Image.Image):
        return _decode(lambda: nullcontext(picture), "image")
    if isinstance(picture, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(bytes(picture)), f"{len(picture)} bytes", len(picture))
    if not isinstance(picture, str | Path):
        raise ValueError(
            f"A picture came as {type(picture).__name__}; expected a path, bytes, a PIL image, an array or a tensor."
        )
    if not str(picture).strip():
        raise ValueError("The name of the picture is empty; expected a path.")
    path = at_home(picture)
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; expected a picture file.")
    if not path.exists():
        raise ValueError(f"The picture {str(path)!r} does not exist. Check the spelling and the current folder.")
    return _from_file(path, f"file {str(path)!r}", path.stat().st_size)


def _from_file(file: Path | io.BytesIO, name: str, size: int) -> np.ndarray:
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
            f"The {name} is too large: the limit is {limit:.0f} million pixels, against files made to fill the "
            "memory. Shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"The {name} is not a picture that can be read: its content is of no known picture format."
        ) from None
    except PermissionError:
        raise ValueError(f"The {name} may not be read. Change its permissions, or ask its owner.") from None
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # decoders raise almost anything on damaged files: OSError, SyntaxError, RuntimeError, struct.error …
        raise ValueError(f"The {name} is damaged or ends early: {error}. Fetch or export it again.") from None
    return _from_pil(upright, name)


def _opened(open_image: Callable[[], AbstractContextManager[Image.Image]]) -> AbstractContextManager[Image.Image]:
    """Read the header, in one thread at a time: all share the list of warnings that are left out."""
    with OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is fine; twice that is an error
        return open_image()


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    if image.width == 0 or image.height == 0:
        raise ValueError(f"The {name} is {image.width}×{image.height} pixels; expected at least 1×1.")
    if image.mode.startswith("I;16") or image.mode == "I":
        return _from_array(_as_uint16(np.array(image), name), name)
    if image.mode == "F":
        return _from_array(np.array(image), name)
    if image.has_transparency_data:
        return _on_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _as_uint16(array: np.ndarray, name: str) -> np.ndarray:
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(f"The {name} has values from {array.min()} to {array.max()}; expected 16 bits, 0 to 65535.")
    return array.astype(np.uint16)


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
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


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
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


def _channels_last(picture: Tensor) -> np.ndarray:
    picture = picture.detach().cpu()
    array = (picture.float() if picture.dtype in (torch.bfloat16, torch.float16) else picture).numpy()
    if array.ndim != 3 or array.shape[0] not in CHANNELS:
        return array
    if array.shape[2] in CHANNELS:
        raise ValueError(
            f"The tensor's shape {array.shape} may mean channels first or last; pass an array, H×W×3, instead."
        )
    return np.moveaxis(array, 0, -1)
