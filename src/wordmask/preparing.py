"""Pictures on their way to a model: read, resized and laid out as it wants them; or large, and seen tile by tile."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wordmask.image import Frame, Picture, prepare, read_picture
from wordmask.pixels import ImageInput
from wordmask.surroundings import precision_kept
from wordmask.tiles import Grid

Asked = Picture | Callable[[], Picture]  # a picture, or what returns it


class Whole(NamedTuple):
    """A picture that is ready for the model."""

    rgb: np.ndarray
    source: str | None
    pixels: Float[Tensor, "3 H W"]
    frame: Frame


class Tiled(NamedTuple):
    """A large picture, whose tiles are prepared one row after the other."""

    rgb: np.ndarray
    source: str | None
    grid: Grid


@precision_kept()
def prepared(picture: Asked, wanted: ImageInput) -> Whole:
    """Read a picture and prepare it.

    Raises:
        ValueError: It can't be read.
    """
    rgb, source = _read(picture)
    return Whole(rgb, source, *prepare(rgb, wanted))


@precision_kept()
def prepared_or_tiled(picture: Asked, wanted: ImageInput, tile: int) -> Whole | Tiled:
    """The same; but a picture with a side longer than that of a tile is cut.

    Args:
        tile: Pixels of a tile's side; 0: none is cut.
    """
    rgb, source = _read(picture)
    if tile and max(rgb.shape[:2]) > tile:
        return Tiled(rgb, source, Grid.over(rgb.shape[:2], tile))
    return Whole(rgb, source, *prepare(rgb, wanted))


def stacked(pixels: list[Float[Tensor, "3 H W"]], device: torch.device) -> Float[Tensor, "B 3 H W"]:
    """Pictures of one size together.

    On a CPU channels lie last in memory: so the convolutions of a ResNet take three quarters of the time in bfloat16
    (docs/log.md). A graph chooses its own layouts.
    """
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    return torch.stack(pixels).to(device, memory_format=layout)


def printable(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 become escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _read(picture: Asked) -> tuple[np.ndarray, str | None]:
    picture = picture() if callable(picture) else picture
    return read_picture(picture), printable(picture) if isinstance(picture, str | Path) else None
