"""What a decoder made of a picture → upright 8-bit sRGB: sixteen bits, floats, profiles, opacity, orientation.

Needs numpy and Pillow, and nothing else of wordmask: `wordmask export` copies this file beside the graphs. H W pixels.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

WHITE_16 = 65535
DARK = 16384  # 16-bit values that stay below: no more than 14 bits are used, and the picture is nearly black
SPACES = {1: ("L", "GRAY"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK")}  # channels → Pillow's mode, ICC's name
ROUNDING = 2  # steps of 255 by which a profile may differ from sRGB and still be it: its curves are written in 16 bits
TURNED = {1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False)}  # upside down, left for right
OPENING = threading.Lock()


class PictureError(ValueError):
    """A picture that can't be read; the text says why, and what to do."""


class PictureNote(UserWarning):
    """What was assumed, or left out, when a picture was read."""


@dataclass
class Decoded:
    """A picture as its file or array has it.

    Args:
        colours: (H, W, C); 1 channel is grey, 3 are RGB, 4 are CMYK's inks. uint8, uint16, bool, or float in [0, 1].
        opacity: (H, W) of the same type, not multiplied into the colours; None: opaque.
        white: The value of white in integers; None: the largest one of their type.
        orientation: As EXIF counts it, 1 to 8.
        profile: ICC's description of the colours; None: sRGB.
        notes: What to tell of it.
        lent: Whether `colours` is memory of whoever gave the picture.
    """

    colours: np.ndarray
    opacity: np.ndarray | None = None
    white: int | None = None
    orientation: int = 1
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    lent: bool = False


def rgb_of(decoded: Decoded, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn what was decoded into (H, W, 3) uint8, and say what was assumed; errors call it `name`.

    The pixels may be those that came, not a copy.

    Raises:
        ValueError: Floats outside [0, 1], or a type that isn't known.
    """
    notes = decoded.notes + _assumed(decoded)
    colours = in_8_bits(decoded.colours, name, decoded.white)
    opacity = None if decoded.opacity is None else in_8_bits(decoded.opacity, name, decoded.white)
    if decoded.profile:
        colours = _in_srgb(colours, decoded.profile)
    if colours.shape[2] == 4:
        colours = np.array(Image.fromarray(colours, "CMYK").convert("RGB"))
    if opacity is not None:
        colours = _on_white(colours, opacity[..., None])
    colours = _upright(colours, decoded.orientation)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))), notes


def orientation_in(exif: bytes | None) -> int:
    """The orientation that a block of EXIF says, 1 (upright) where it says none or is broken, as viewers take it."""
    if not exif:
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
        value = block.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises almost anything on broken blocks
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def in_8_bits(array: np.ndarray, name: str, white: int | None = None) -> np.ndarray:
    """Scale values to 0–255: integers from 0 to `white`, floats from [0, 1]."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        largest = int(np.iinfo(array.dtype).max)
        if white in (None, 255) and largest == 255:
            return array
        white = white or largest
        scaled = (array.astype(np.uint32) * 255 + white // 2) // white
        return np.minimum(scaled, 255).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise PictureError(f"The {name} holds {array.dtype}; expected uint8, uint16, or floats in [0, 1].")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise PictureError(
            f"The {name} holds floats from {low:.9g} to {high:.9g}; expected [0, 1]. "
            "Clip them, divide by 255, or pass uint8."
        )
    return (array * 255 + 0.5).astype(np.uint8)


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out Pillow's warnings, in one thread at a time: all share the list of those that are left out.

    Large pictures are fine (twice that is an error), and damage is said by what comes of it.
    """
    with OPENING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def open_quietly(file: Path | IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Have Pillow read a header."""
    with quietly():
        return Image.open(file, formats=formats)


def check_pixels(width: int, height: int, name: str) -> None:
    """Refuse a picture that is empty, or larger than Pillow would read.

    Raises:
        ValueError: It is.
    """
    if width < 1 or height < 1:
        raise PictureError(f"The {name} is {width}×{height} pixels; expected at least 1×1.")
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit and width * height > limit:
        raise _too_large(name)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an error that says which picture it was, and what to do."""
    try:
        yield
    except (MemoryError, PictureError):
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except UnidentifiedImageError:
        raise PictureError(
            f"The {name} is not a picture that can be read: its content is of no known picture format."
        ) from None
    # decoders raise almost anything on damaged files: OSError, SyntaxError, RuntimeError, struct.error …
    except Exception as error:
        raise damaged(name, error) from None


def damaged(name: str, why: object) -> PictureError:
    return PictureError(f"The {name} is damaged or ends early: {why}. Fetch or export it again.")


def _too_large(name: str) -> PictureError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return PictureError(
        f"The {name} is too large: the limit is {limit:.0f} million pixels, against files made to fill the memory. "
        "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
    )


def _assumed(decoded: Decoded) -> tuple[str, ...]:
    colours = decoded.colours
    if colours.dtype.newbyteorder("=") != np.uint16 or decoded.white is not None:
        return ()
    highest = int(colours.max())
    if not 0 < highest < DARK:
        return ()
    bits = 12 if highest < 4096 else 14
    return (
        f"Its 16-bit values end at {highest} of {WHITE_16} and were read as they are, nearly black. If they hold "
        f"{bits} bits, say white={2**bits - 1} where it is read (wordmask.read_picture), or scale them.",
    )


def _in_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert to sRGB; a profile that is broken, or of another kind of picture, is ignored, as browsers do."""
    from PIL import ImageCms

    mode, space = SPACES[colours.shape[2]]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != space:  # pyright: ignore[reportAttributeAccessIssue]
            return colours
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return colours
    if mode != "CMYK" and _changes_nothing(transform, mode):
        return colours
    image = Image.fromarray(np.ascontiguousarray(colours[..., 0] if mode == "L" else colours), mode)
    return np.array(transform.apply(image))


def _changes_nothing(transform: "object", mode: str) -> bool:
    """Try it on a few colours: so many profiles are sRGB that the whole picture shall not pay for it."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        before = Image.fromarray(steps[None], "L")
    else:
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
        before = Image.fromarray(cube.reshape(len(steps), -1, 3), "RGB")
    after = np.array(transform.apply(before), int)  # pyright: ignore[reportAttributeAccessIssue]
    return bool(abs(after - np.array(before.convert("RGB"), int)).max() <= ROUNDING)


def _on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    opacity = opacity.astype(np.uint16)
    return ((colours * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation > 4:  # 5 to 8 lie on their side: what 5, 6, 7, 8 are then is 1, 4, 3, 2
        pixels = pixels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    down, across = (slice(None, None, -1) if turned else slice(None) for turned in TURNED[orientation])
    return pixels[down, across]
