"""PNG: its pixels, whatever is wrong with what stands beside them, and 16-bit colours in full.

Viewers show a picture whose texts, times or EXIF are broken; Pillow refuses some. So the parts that make the picture
are taken out and checked here, and Pillow decodes those alone. Needs numpy and Pillow: `wordmask export` copies it.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from .decoded import Decoded, check_pixels, damaged, named_errors, open_quietly, orientation_in

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour; 3 has a palette
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]  # of Adam7
LONGEST_METADATA = 2**24  # bytes of a profile or of EXIF, unpacked
RAW_EXIF = b"Raw profile type exif"  # ImageMagick's place for it


class Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlaced: int


@dataclass
class Chunks:
    """The parts of a PNG that matter here; `picture` are those that make it, as they stand in the file."""

    header: Header
    picture: list[bytes] = field(default_factory=list)
    pixels: list[bytes] = field(default_factory=list)
    transparency: bytes | None = None
    exif: bytes | None = None
    profile: bytes | None = None
    frames: int = 1


def decode_png(file: IO[bytes], name: str) -> Decoded:
    """Decode a PNG.

    Raises:
        ValueError: What makes the picture is damaged or ends early. Damage to what merely goes with it is none.
    """
    chunks = read_chunks(file, name)
    check_pixels(chunks.header.width, chunks.header.height, name)
    notes = () if chunks.frames < 2 else (f"It has {chunks.frames} frames; the first was read.",)
    colours, opacity = _deep(chunks, name) if chunks.header.depth == 16 else _shallow(chunks, name)
    return Decoded(colours, opacity, orientation=orientation_in(chunks.exif), profile=chunks.profile, notes=notes)


def read_chunks(file: IO[bytes], name: str, *, with_pixels: bool = True) -> Chunks:
    """Sort the parts of a PNG, and check those that make the picture; pixels are skipped where they aren't wanted."""
    found = None
    for kind, body, whole, right in _chunks(file, with_pixels=with_pixels):
        if not right and not kind[0] & 32:  # a capital: without it there is no picture
            raise damaged(name, f"the checksum of its part {kind.decode('latin-1')!r} is wrong")
        if found is None:
            if kind != b"IHDR" or len(body) != 13:
                raise damaged(name, "it does not begin with its header")
            found = Chunks(_header(body, name), [whole])
        elif kind in (b"PLTE", b"IDAT"):
            found.picture.append(whole)
            if kind == b"IDAT":
                found.pixels.append(body)
        elif kind == b"IEND":
            break
        elif not kind[0] & 32:
            raise damaged(name, f"it has a second header or an unknown part {kind.decode('latin-1')!r}")
        elif right:
            _note_beside(found, kind, body, whole)
    if found is None or not found.pixels:
        raise damaged(name, "it ends before its pixels")
    if found.header.colour == 3 and not any(part[4:8] == b"PLTE" for part in found.picture):
        raise damaged(name, "its palette is missing")
    return found


def _chunks(file: IO[bytes], *, with_pixels: bool) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Yield kind, body, the part as a whole, and whether its checksum is right; a part that ends early is not."""
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"IDAT" and not with_pixels:
            file.seek(length + 4, io.SEEK_CUR)
            yield kind, b"", b"", True
            continue
        rest = file.read(length + 4)
        body, right = rest[:-4], len(rest) == length + 4
        right = right and zlib.crc32(kind + body) == int.from_bytes(rest[-4:], "big")
        yield kind, body, start + rest, right


def _header(body: bytes, name: str) -> Header:
    header = Header(*struct.unpack(">IIBBBBB", body))
    depths = {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(header.colour, (8, 16))
    odd = header.compression or header.filtering or header.interlaced > 1
    if header.colour not in CHANNELS or header.depth not in depths or odd:
        raise damaged(name, "its header says what no PNG has")
    return header


def _note_beside(found: Chunks, kind: bytes, body: bytes, whole: bytes) -> None:
    """Keep what changes how the picture looks, of the parts that a viewer may do without."""
    if kind == b"tRNS" and _fits(found.header, body):
        found.transparency = body
        if found.header.colour == 3:
            found.picture.append(whole)
    elif kind == b"eXIf":
        found.exif = b"Exif\0\0" + body
    elif kind in (b"tEXt", b"zTXt") and body.startswith(RAW_EXIF + b"\0"):
        text = body[len(RAW_EXIF) + 1 :]
        found.exif = found.exif or _exif_in(text if kind == b"tEXt" else _inflated(text[1:]))
    elif kind == b"iCCP":
        found.profile = _inflated(body.partition(b"\0")[2][1:]) or None
    elif kind == b"acTL" and len(body) == 8:
        found.frames = int.from_bytes(body[:4], "big")


def _fits(header: Header, transparency: bytes) -> bool:
    if header.colour == 3:
        return 0 < len(transparency) <= 256
    return len(transparency) == {0: 2, 2: 6}.get(header.colour)


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, LONGEST_METADATA)
    except zlib.error:
        return b""


def _exif_in(text: bytes) -> bytes | None:
    """EXIF as ImageMagick writes it: a name, a length, hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _shallow(chunks: Chunks, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Up to 8 bits: Pillow's work."""
    end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
    order = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
    parts = sorted(chunks.picture, key=lambda part: order.index(part[4:8]))
    picture = io.BytesIO(SIGNATURE + b"".join(parts) + end)
    with named_errors(name), open_quietly(picture, formats=("PNG",)) as image:
        image.load()
        if image.has_transparency_data:
            pixels = np.array(image.convert("RGBA"))
            return pixels[..., :3], pixels[..., 3]
        pixels = np.array(image.convert({"P": "RGB", "1": "L"}.get(image.mode, image.mode)))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if chunks.transparency is None or chunks.header.colour == 3:
        return pixels, None
    stretched = 255 // (2**chunks.header.depth - 1)  # Pillow brings 1, 2 and 4 bits to 0–255
    key = np.frombuffer(chunks.transparency, np.uint8)[1::2] * np.uint8(stretched)
    return pixels, _but_for(pixels, key)


def _deep(chunks: Chunks, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """16 bits, of which Pillow keeps the upper half where there are colours."""
    header = chunks.header
    channels = CHANNELS[header.colour]
    passes = PASSES if header.interlaced else [(0, 0, 1, 1)]
    sizes = [_size_of(step, header) for step in passes]
    expected = sum(height * (1 + 2 * channels * width) for width, height in sizes if width)
    with named_errors(name):
        data = zlib.decompressobj().decompress(b"".join(chunks.pixels), expected)
    if len(data) < expected:
        raise damaged(name, "it ends before its last pixel")
    pixels, place = np.empty((header.height, header.width, channels), np.uint16), 0
    for (left, top, across, down), (width, height) in zip(passes, sizes, strict=True):
        if width and height:
            rows = np.frombuffer(data, np.uint8, height * (1 + 2 * channels * width), place).reshape(height, -1)
            place += rows.size
            high, low = (_unfiltered(rows, half, width, channels, name) for half in (1, 2))
            pixels[top::down, left::across] = high.astype(np.uint16) << 8 | low
    if channels in (2, 4):
        return pixels[..., :-1], pixels[..., -1]
    if chunks.transparency is None:
        return pixels, None
    key = np.frombuffer(chunks.transparency, ">u2")
    return pixels, _but_for(pixels, key)


def _but_for(pixels: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Opaque everywhere, but for pixels of the colour that stands for transparency."""
    return np.where((pixels == key).all(axis=-1), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def _size_of(step: tuple[int, int, int, int], header: Header) -> tuple[int, int]:
    left, top, across, down = step
    return max(0, -(-(header.width - left) // across)), max(0, -(-(header.height - top) // down))


def _unfiltered(rows: np.ndarray, half: int, width: int, channels: int, name: str) -> np.ndarray:
    """Take one half of every 16-bit value. PNG filters bytes, each by its neighbours of the same place in a pixel, so
    that either half is a picture of 8 bits, with the same filters, for Pillow."""
    one_half = np.concatenate([rows[:, :1], rows[:, half::2]], axis=1)
    mode, size = MODES[channels], (width, len(rows))
    with named_errors(name):
        image = Image.frombytes(mode, size, zlib.compress(one_half.tobytes(), 0), "zip", mode, 0)
    return np.array(image).reshape(len(rows), width, channels)
