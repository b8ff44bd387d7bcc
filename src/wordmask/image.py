"""Pictures: anything that shows one → RGB → pixels for a model, and the Frame that undoes the sizes."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from wordmask.pixels import (
    CHANNELS,
    ImageInput,
    PictureSizes,
    PlainPicture,
    ReadPicture,
    decoded_array,
    finished,
    input_size,
    read_noted,
    resize_picture,
    warn_of,
)

Picture = PlainPicture | Tensor


@dataclass(frozen=True)
class Frame(PictureSizes):
    """The sizes a picture had, (height, width): the only thing that knows how to get back to them."""

    def restore_strips(self, maps: Float[Tensor, "K h w"]) -> Iterator[Float[Tensor, "K s W"]]:
        """Bring maps on the model's grid back to the original picture, bilinearly, some rows at a time from top to
        bottom.

        Where the picture was padded, maps are brought to the padded input, cropped, and brought to the original, as the
        references do. Bilinear resizing is separable: first all rows, still narrow; then strip by strip all columns.
        """
        narrow = self._restore(maps[None], axis=0)  # (1, K, H, w)
        for strip in narrow.split(self.strip_rows(len(maps)), dim=2):
            yield self._restore(strip, axis=1)[0]

    def restoring(self, maps: Float[Tensor, "K h w"]) -> tuple[Float[Tensor, "H h"], Float[Tensor, "W w"]]:
        """The same as two matrices, for parts of a picture: `restore_strips` yields down @ maps @ across.T."""
        down, across = (torch.eye(side, dtype=maps.dtype, device=maps.device)[None, None] for side in maps.shape[1:])
        return self._restore(down, axis=0)[0, 0], self._restore(across, axis=1)[0, 0].T

    def _restore(self, maps: Float[Tensor, "1 K h w"], axis: int) -> Float[Tensor, "1 K h2 w2"]:
        """Restore the height (axis 0) or the width (axis 1) of maps."""
        if self.resized is not None and self.padded is not None:
            maps = _resize_axis(maps, self.padded[axis], axis).narrow(axis + 2, 0, self.resized[axis])
        return _resize_axis(maps, self.original[axis], axis)


def _resize_axis(maps: Float[Tensor, "1 K h w"], size: int, axis: int) -> Float[Tensor, "1 K h2 w2"]:
    whole = (size, maps.shape[3]) if axis == 0 else (maps.shape[2], size)
    if maps.numel() == 0:  # interpolation refuses what has no maps
        return maps.new_empty(*maps.shape[:2], *whole)
    return F.interpolate(maps, size=whole, mode="bilinear", align_corners=False)


def prepare(picture: UInt8[np.ndarray, "H W 3"], wanted: ImageInput) -> tuple[Float[Tensor, "3 H W"], Frame]:
    """Resize and normalise an RGB picture as `wanted` says."""
    height, width = picture.shape[:2]
    pixels = torch.from_numpy(resize_picture(picture, wanted)).permute(2, 0, 1).float()
    pixels = normalise(pixels, wanted)
    padded = input_size(height, width, wanted)
    if wanted.square is not None:
        stretched = F.interpolate(pixels[None], size=padded, mode="bilinear", align_corners=False)[0]  # (3, R, R)
        return stretched, Frame((height, width))
    new_height, new_width = pixels.shape[1:]
    pixels = F.pad(pixels, (0, padded[1] - new_width, 0, padded[0] - new_height))
    return pixels, Frame((height, width), (new_height, new_width), padded)


def normalise(pixels: Float[Tensor, "3 H W"], wanted: ImageInput) -> Float[Tensor, "3 H W"]:
    """Subtract a model's mean from RGB in 0–255, and divide by its standard deviation: the one place that does."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (wanted.mean, wanted.std))
    return (pixels - mean) / std


def read_picture(picture: Picture, *, white: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Read any picture as upright 8-bit sRGB, in memory of its own, as `pixels.read_rgb` does; here it may be a tensor,
    too. What was assumed or left out is a warning, `PictureNote`.

    Args:
        picture: A path, the bytes of a file, a binary file, a PIL image, or an array or tensor: H×W, H×W×1, ×3 or ×4
            (tensors also 1, 3 or 4 first), uint8, uint16, bool, or float in [0, 1]; channels in the order RGB.
        white: The value of white in integers that use fewer bits than they have: 4095 for 12.

    Raises:
        ValueError: It does not exist, is not a picture, ends early, is empty, too large, or has values out of range.
    """
    read = read_any(picture, white=white)
    warn_of(read.notes)
    return read.rgb


def read_any(picture: Picture, *, white: int | None = None, own: bool = True) -> ReadPicture:
    """The same, with notes in place of warnings.

    Args:
        own: Whether the result may not be memory of the array or tensor that came.
    """
    if isinstance(picture, Tensor):
        return finished(decoded_array(_channels_last(picture), "tensor"), "tensor", white=white, own=own)
    return read_noted(
        picture, white=white, own=own, expected="a path, bytes, an open file, a PIL image, an array or a tensor"
    )


def lasting(picture: Picture) -> Picture:
    """Copy what the caller may overwrite with the next picture: an array, a tensor, a picture, what is in a file. What
    can't be read stays, and says so when it is read."""
    if isinstance(picture, Tensor):
        return picture.detach().clone()
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, Image.Image):
        return picture.copy() if type(picture) is Image.Image else picture  # others are read from their files, once
    if hasattr(picture, "__array__") or hasattr(picture, "__array_interface__"):
        return np.asarray(picture).copy()  # not `np.array`: what offers itself may leave its wish for a copy unheard
    if reading := getattr(picture, "read", None):
        with suppress(OSError, ValueError):  # closed, or open for writing
            content = reading()
            return content if isinstance(content, bytes) and content else picture
    return picture


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
