"""The file of a picture → what is in it: PNG and TIFF by their own readers, all else by Pillow.

Needs numpy and Pillow: `wordmask export` copies this file beside the graphs.
"""

import io
import struct
from contextlib import suppress
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from .decoded import Decoded, PictureError, check_pixels, named_errors, open_quietly, orientation_in, quietly
from .pngs import SIGNATURE, decode_png, read_chunks
from .tiffs import (
    COMPRESSIONS,
    MOST_PAGES,
    REDUCED_OR_MASK,
    Tags,
    check_tags,
    decode_tiff,
    is_tiff,
    pillow_reads,
    tags_of,
)

XMP = ("xmp", "XML:com.adobe.xmp")  # where Pillow keeps it; browsers take no orientation from it
MOST_TAGS = 4096  # of a directory
QOI_END = bytes([0, 0, 0, 0, 0, 0, 0, 1])
LAYERED = ("PSD", "ICO", "ICNS", "CUR", "XCF")  # their further pictures are parts or sizes of the first
START_OF_SCAN, EXIF, PROFILE, ADOBE = 0xDA, 0xE1, 0xE2, 0xEE  # JPEG's markers
PHOTO_SEGMENTS = {EXIF: (b"Exif\0\0", 8), PROFILE: (b"ICC_PROFILE\0", 16), ADOBE: (b"Adobe", 12)}  # start, least length


class PictureSize(NamedTuple):
    """In pixels; upright unless said otherwise."""

    height: int
    width: int


def decode_file(file: IO[bytes], name: str, formats: tuple[str, ...] | None = None) -> Decoded:
    """Decode the first picture of a file.

    Args:
        formats: Those of Pillow's that may be read; None: all.

    Raises:
        ValueError: It is no picture, damaged, too large, or of a kind that isn't read; the message says which.
    """
    start = file.read(16)
    file.seek(0)
    if start.startswith(SIGNATURE):
        return decode_png(file, name)
    if is_tiff(start):
        return _tiff(file, name)
    with named_errors(name), _photo(file, start, formats) as image:
        _check_kind(image, file)
        return decode_image(image, name)


def decode_image(image: Image.Image, name: str) -> Decoded:
    """Decode a picture of Pillow's; what was opened and not yet decoded, as its file is."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with named_errors(name):
            tags = tags_of(image.tag_v2)
            check_tags(tags, (), (), name)
        return _opened_tiff(image, tags, name)
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile and image.fp and image.tell() == 0:
        place = image.fp.tell()
        try:
            return decode_png(image.fp, name)
        finally:
            image.fp.seek(place)  # for who decodes it later
    with named_errors(name):
        notes = _further_frames(image)
        image.load()
        exif, profile = image.info.get("exif") or _raw_exif(image), image.info.get("icc_profile")
        decoded = _pixels_of(image, name)
    decoded.orientation = orientation_in(exif if isinstance(exif, bytes) else None)
    decoded.profile = profile if isinstance(profile, bytes) and image.mode not in ("LAB", "I", "F") else None
    decoded.notes += notes
    return decoded


def size_in_file(
    file: IO[bytes], name: str, formats: tuple[str, ...] | None = None, *, upright: bool = True
) -> PictureSize:
    """Read the size of a picture from its header alone; `upright` as it is decoded.

    Raises:
        ValueError: It is no picture, or its header is damaged.
    """
    start = file.read(16)
    file.seek(0)
    with named_errors(name):
        if start.startswith(SIGNATURE):
            chunks = read_chunks(file, name, with_pixels=False)
            width, height, orientation = chunks.header.width, chunks.header.height, orientation_in(chunks.exif)
        elif is_tiff(start):
            tags = _tags(file, name)[0]
            width, height, orientation = tags.width, tags.height, tags.orientation
        else:
            with _photo(file, start, formats) as image:
                (width, height), orientation = image.size, orientation_in(image.info.get("exif"))
    check_pixels(width, height, name)
    return PictureSize(width, height) if upright and orientation > 4 else PictureSize(height, width)


def _check_kind(image: Image.Image, file: IO[bytes]) -> None:
    """Refuse what Pillow would read wrongly without a word."""
    if image.format == "TGA":
        file.seek(17)
        if file.read(1)[0] & 0xC0:
            raise ValueError("its rows are interleaved, which is not read")
    elif image.format == "PCX":
        file.seek(0)
        header = file.read(68)
        needed = -(-image.width * header[3] // 8)
        if int.from_bytes(header[66:68], "little") not in (needed, needed + needed % 2):
            raise ValueError("its rows have another length than its size needs")
    elif image.format == "QOI":
        file.seek(0)
        content = file.read()
        otherwise = open_quietly(io.BytesIO(content[: -len(QOI_END)] + bytes([254, 1, 2, 3, 254, 4, 5, 6])), ("QOI",))
        if not content.endswith(QOI_END) or image.tobytes() != otherwise.tobytes():  # the end was taken for pixels
            raise ValueError("it ends before its last pixel")


def _photo(file: IO[bytes], start: bytes, formats: tuple[str, ...] | None) -> Image.Image:
    """Have Pillow open a file; a JPEG whose metadata it stumbles over without them."""
    try:
        return open_quietly(file, formats)
    except Exception as error:
        if not start.startswith(b"\xff\xd8") or isinstance(error, Image.DecompressionBombError):
            raise
    file.seek(0)
    return open_quietly(io.BytesIO(_without_broken_segments(file.read())), formats)


def _without_broken_segments(jpeg: bytes) -> bytes:
    """Leave out what goes with a JPEG's picture, but for EXIF, profile and Adobe's word on the colours where they are
    whole."""
    kept, place = [jpeg[:2]], 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF and jpeg[place + 1] != START_OF_SCAN:
        marker, end = jpeg[place + 1], place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        start, least = PHOTO_SEGMENTS.get(marker, (b"", 0))
        beside = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not beside or (least and end - place - 4 >= least and jpeg[place + 4 :].startswith(start)):
            kept.append(jpeg[place:end])
        place = max(end, place + 4)
    return b"".join([*kept, jpeg[place:]])


def _tiff(file: IO[bytes], name: str) -> Decoded:
    with named_errors(name):
        tags, paged = _tags(file, name)
    decoded = _by_the_book(file, tags, name)
    decoded.notes += ("It has several pages; the first was read.",) * paged
    return decoded


def _by_the_book(file: IO[bytes], tags: Tags, name: str, page: int = 0) -> Decoded:
    """Read a TIFF by Pillow where that is right, else by tifffile."""
    try:
        if not pillow_reads(tags):
            return decode_tiff(file, tags, name, page)
    except ImportError as error:
        if not pillow_reads(tags, nearly=True):
            kind = COMPRESSIONS.get(tags.compression, f"compression {tags.compression}")
            raise PictureError(
                f"The {name} is a TIFF that Pillow does not read rightly ({len(tags.bits)} × {tags.bits[0]} bits, "
                f"{kind}): {error}. Install what is missing: pip install tifffile imagecodecs."
            ) from None
    file.seek(0)
    with named_errors(name), open_quietly(file, ("TIFF",)) as image:
        image.seek(page)
        for place in XMP:
            image.info.pop(place, None)  # or Pillow turns the picture by it
        image.load()  # Pillow turns it upright, here alone
        decoded = _pixels_of(image, name)
    decoded.profile, decoded.notes = tags.profile, decoded.notes + tags.notes
    return decoded


def _opened_tiff(image: TiffImagePlugin.TiffImageFile, tags: Tags, name: str) -> Decoded:
    """Read what Pillow opened from a TIFF: anew from the file, unless it is decoded already."""
    if image.tile and image.fp is not None and not image.fp.closed:
        return _by_the_book(image.fp, tags, name, image.tell())
    if not pillow_reads(tags, nearly=True):
        raise PictureError(
            f"The {name} was decoded by Pillow from a TIFF of a kind that it does not read rightly. Pass the file's "
            "path instead."
        )
    decoded = _pixels_of(image, name)
    decoded.profile, decoded.notes = tags.profile, tags.notes
    return decoded


def _tags(file: IO[bytes], name: str) -> tuple[Tags, bool]:
    """Read the tags of the first page, and tell whether there is a second."""
    file.seek(0)
    header = file.read(8)
    header += file.read(8) if header[2:4] in (b"+\0", b"\0+") else b""  # BigTIFF
    with quietly():
        first = _directory(file, header, None)
        tags = tags_of(first)
        check_tags(tags, _listed(file, header, first), first, name)
        with suppress(Exception):  # damage beyond the first page
            page, seen = first, 1
            while page.next and seen < MOST_PAGES:
                page, seen = _directory(file, header, page.next), seen + 1
                if not int(page.get(254, 0)) & REDUCED_OR_MASK:
                    return tags, True
    return tags, False


def _directory(file: IO[bytes], header: bytes, place: int | None) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(place or directory.next)
    directory.load(file)
    return directory


def _listed(file: IO[bytes], header: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2) -> list[int]:
    """The numbers of all tags in a directory: Pillow leaves out those that it can't read, and some that follow."""
    order, big = ("<" if header.startswith(b"II") else ">"), len(header) == 16
    start = directory.offset + (8 if big else 2)
    file.seek(directory.offset)
    (number,) = struct.unpack(f"{order}{'Q' if big else 'H'}", file.read(8 if big else 2))
    entry = 20 if big else 12
    file.seek(start)
    entries = file.read(entry * min(number, MOST_TAGS))
    return [tag for (tag,) in struct.iter_unpack(f"{order}H{entry - 2}x", entries[: len(entries) // entry * entry])]


def _pixels_of(image: Image.Image, name: str) -> Decoded:
    """The pixels of a picture that Pillow has decoded, as they lie."""
    if image.width == 0 or image.height == 0:
        raise PictureError(f"The {name} is {image.width}×{image.height} pixels; expected at least 1×1.")
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(
                f"The {name} has values from {values.min()} to {values.max()}; expected 16 bits, 0 to 65535."
            )
        values, key = values.astype(np.uint16), image.info.get("transparency")
        opacity = np.where(values == key, 0, 65535).astype(np.uint16) if isinstance(key, int) else None
        return Decoded(values[..., None], opacity)
    if image.mode == "F":
        return Decoded(np.array(image)[..., None])
    if image.mode == "La":  # Pillow turns it into nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        pixels = np.array(image.convert("RGBA"))
        return Decoded(pixels[..., :3], pixels[..., 3])
    if image.mode in ("1", "L"):
        return Decoded(np.array(image.convert("L"))[..., None])
    return Decoded(np.array(image if image.mode == "CMYK" else image.convert("RGB")))


def _raw_exif(image: Image.Image) -> bytes | None:
    """EXIF as ImageMagick writes it into a PNG."""
    text = image.info.get("Raw profile type exif")
    with suppress(ValueError):
        return bytes.fromhex("".join(text.split("\n")[3:])) if isinstance(text, str) else None
    return None


def _further_frames(image: Image.Image) -> tuple[str, ...]:
    """Say that there are more pictures, where they are of one kind with the first, which is read."""
    if image.format in LAYERED or image.tell():
        return ()
    with suppress(Exception):  # damage beyond the first frame
        if image.format == "MPO":  # a photograph; the others are mostly previews of it, or what brightens it
            entries = getattr(image, "mpinfo", {}).get(0xB002, [])
            kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
            return ("It has several views; the first was read.",) if kinds[1:] and "Frame" in kinds[1] else ()
        if getattr(image, "is_animated", False):
            return ("It has several frames; the first was read.",)
    return ()
