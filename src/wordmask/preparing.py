"""Pictures on their way to a model: read, resized and laid out as it wants them; or large, and seen tile by tile."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wordmask.image import Frame, Picture, lasting, prepare, read_any
from wordmask.pixels import ImageInput, file_of, warn_of
from wordmask.surroundings import precision_kept
from wordmask.tiles import Grid

Asked = Picture | Callable[[], Picture]  # a picture, or what returns it


class Taken(NamedTuple):
    """A picture that nobody else writes to, and the file it is in, if any."""

    picture: Picture
    source: str | None


class Read(NamedTuple):
    """A picture that was read: its pixels, its file, and what was assumed or left out."""

    rgb: np.ndarray
    source: str | None
    notes: tuple[str, ...]


class Whole(NamedTuple):
    """A picture that is ready for the model."""

    read: Read
    pixels: Float[Tensor, "3 H W"]
    frame: Frame

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8, as it was read."""
        return self.read.rgb

    @property
    def source(self) -> str | None:
        """The file it is in, if any."""
        return self.read.source


class Tiled(NamedTuple):
    """A large picture, whose tiles are prepared one row after the other."""

    read: Read
    grid: Grid


def take(picture: Asked) -> Asked | Taken:
    """Make a picture last: whoever handed it over may use its memory for the next, while it is prepared in a thread."""
    if isinstance(picture, str | Path) or callable(picture):
        return picture
    return Taken(lasting(picture), file_of(picture))


@precision_kept()
def prepared(picture: Asked | Taken, wanted: ImageInput) -> Whole:
    """Read a picture and prepare it.

    Raises:
        ValueError: It can't be read.
    """
    read = _read(picture)
    return Whole(read, *prepare(read.rgb, wanted))


@precision_kept()
def prepared_or_tiled(picture: Asked | Taken, wanted: ImageInput, tile: int) -> Whole | Tiled:
    """The same; but a picture with a side longer than that of a tile is cut.

    Args:
        tile: Pixels of a tile's side; 0: none is cut.
    """
    read = _read(picture)
    if tile and max(read.rgb.shape[:2]) > tile:
        return Tiled(read, Grid.over(read.rgb.shape[:2], tile))
    return Whole(read, *prepare(read.rgb, wanted))


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


def _read(picture: Asked | Taken) -> Read:
    if isinstance(picture, Taken):
        (rgb, notes), source = read_any(picture.picture, own=False), picture.source
    else:
        picture = picture() if callable(picture) else picture
        (rgb, notes), source = read_any(picture), file_of(picture)
    warn_of(notes)
    return Read(rgb, None if source is None else printable(source), notes)
