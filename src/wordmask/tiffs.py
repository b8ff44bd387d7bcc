"""TIFF: what its tags say, which of these files Pillow reads as TIFF 6.0 has it, and the others, read by tifffile.

Pillow takes 16-bit planes that lie apart for 8 bits and leaves 16-bit white-is-zero as it is, without a word, and
refuses much of what satellites send. `pillow_reads` is what was found equal to other decoders over all combinations
(tests/test_tiffs.py). Needs numpy and Pillow: `wordmask export` copies this file; tifffile is imported where it reads.
"""

import zlib
from collections.abc import Container, Iterable
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from .decoded import Decoded, PictureError, check_pixels, damaged

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8  # photometric interpretations
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
NAMED = {YCBCR: "YCbCr", LAB: "CIELab", 4: "a mask", 9: "ICCLab", 10: "ITULab", 32803: "a camera's raw mosaic"}
NAMED |= {34892: "a camera's raw pixels", 32844: "LogL", 32845: "LogLuv"}
UNSIGNED, SIGNED, FLOATING = 1, 2, 3  # sample formats
NONE, JPEG = 1, 7  # compressions
PLAIN = (NONE, 5, 8, 32773, 32946, 34925, 50000)  # LZW, deflate, PackBits, LZMA, Zstandard: they know bytes alone
DEFLATE = (8, 32946)
UNPREDICTED = (NONE, 32773)  # where a predictor has no meaning
LARGEST_PIECE = 2**30  # bytes of a strip or tile
FAX = (2, 3, 4)
COMPRESSIONS = {
    6: "the JPEG of TIFF 4",
    JPEG: "JPEG",
    34712: "JPEG 2000",
    50001: "WebP",
    34887: "LERC",
    50002: "JPEG XL",
}
ASSOCIATED, STRAIGHT = 1, 2  # extra samples: opacity, multiplied into the colours or not
REDUCED_OR_MASK = 0b101  # of NewSubfileType: overviews and masks are no pages
LEAST_OFFSET = 8  # the header's length
MATTERS = {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 281, 284, 317, 320, 322, 323, 324, 325, 332, 338, 339}
MOST_PAGES = 1000  # looked at, to tell whether there is a second
TOLD_WHITE = {2**bits - 1 for bits in range(9, 16)}  # what MaxSampleValue must be to mean bits, and no statistics
CONVERT = "Convert it, for example: gdal_translate -ot Byte -scale in.tif out.png."


class Tags(NamedTuple):
    """What a directory says of its samples, as plain numbers.

    Args:
        bits: Of each sample.
        extra: What samples beyond the colours are; padded with 0 (not said).
        white: The largest value, where MaxSampleValue says a number of bits; else None.
        rows: Of a strip or tile.
        columns: Likewise.
        offsets: Where strips or tiles begin in the file.
        counts: How many bytes they have; 0, as the offset, where nothing was written.
    """

    width: int
    height: int
    photometric: int
    bits: tuple[int, ...]
    format: int
    extra: tuple[int, ...]
    apart: bool
    compression: int
    predictor: int
    fill_order: int
    inks: int
    white: int | None
    orientation: int
    profile: bytes | None
    palette: tuple[int, ...]
    raw: bool
    rows: int
    columns: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        return len(self.bits)

    @property
    def colours(self) -> int:
        """How many samples make the colour."""
        if self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and self.samples >= 3 and not self.opacity(1):
            return 3  # bands, as GDAL writes them: the first three are shown
        return COLOURS.get(self.photometric, self.samples)

    def opacity(self, place: int) -> int:
        """What the sample at a place is: `ASSOCIATED` or `STRAIGHT` opacity, or 0."""
        first = COLOURS.get(self.photometric, self.samples)
        kind = self.extra[place - first] if first <= place < self.samples else 0
        if self.photometric == RGB and self.samples == 4 and place == 3 and self.extra == (-1,):
            return STRAIGHT  # not said, against the book: usual of old files
        return {999: STRAIGHT}.get(kind, kind if kind in (ASSOCIATED, STRAIGHT) else 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out."""
        used = self.colours + bool(self.opacity(self.colours))
        if self.samples <= used or self.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            return ()
        read = "first was" if self.colours == 1 else "first three were"
        return (f"It has {self.samples} bands; the {read} read{', and its opacity' * (used > self.colours)}.",)


def is_tiff(start: bytes) -> bool:
    return start[:4] in STARTS


def tags_of(directory: TiffImagePlugin.ImageFileDirectory_v2) -> Tags:
    """Read the tags of a directory.

    Raises:
        ValueError: They say nothing that a picture has.
    """

    def numbers(tag: int, *default: int) -> tuple[int, ...]:
        value: Any = directory.get(tag, default)
        values = value if isinstance(value, tuple) else (value,)
        return tuple(int(one) for one in values) or default

    photometric = numbers(262, -1)[0]
    tiled = 324 in directory
    bits, samples = numbers(258, 1), numbers(277, 1)[0]
    bits = bits * samples if len(bits) == 1 and 0 < samples <= 65535 else bits[: max(1, samples)]
    formats = set(numbers(339, UNSIGNED))
    beyond = len(bits) - COLOURS.get(photometric, len(bits))
    extra = numbers(338) if 338 in directory else (-1,) * max(0, beyond)
    extra = (extra + (0,) * beyond)[: max(0, beyond)]
    profile = directory.get(34675)
    highest = numbers(281, 0)[0]
    return Tags(
        width=numbers(256, 0)[0],
        height=numbers(257, 0)[0],
        photometric=photometric,
        bits=bits,
        format=formats.pop() if len(formats) == 1 else 0,
        extra=extra,
        apart=numbers(284, 1)[0] == 2 and len(bits) > 1,
        compression=numbers(259, NONE)[0],
        predictor=numbers(317, 1)[0],
        fill_order=numbers(266, 1)[0],
        inks=numbers(332, 1)[0],
        white=highest if highest in TOLD_WHITE and max(bits) == 16 else None,
        orientation=numbers(274, 1)[0] if numbers(274, 1)[0] in range(1, 9) else 1,
        profile=profile if isinstance(profile, bytes) else None,
        palette=numbers(320),
        raw=50706 in directory,
        rows=numbers(323, 0)[0] if tiled else min(numbers(278, 2**32 - 1)[0], numbers(257, 0)[0]),
        columns=numbers(322, 0)[0] if tiled else numbers(256, 0)[0],
        offsets=numbers(324 if tiled else 273),
        counts=numbers(325 if tiled else 279),
    )


def check_tags(tags: Tags, listed: Iterable[int], known: Container[int], name: str) -> None:
    """Check that tags say where all pixels are, and that none which matters was lost.

    Args:
        listed: The numbers of the tags that the directory lists.
        known: Those that could be read.

    Raises:
        ValueError: They don't.
    """
    lost = [tag for tag in listed if tag in MATTERS and tag not in known]
    if lost:
        raise damaged(name, f"its tag {lost[0]} cannot be read")
    if tags.photometric == -1:
        raise damaged(name, "it does not say what its values mean (PhotometricInterpretation)")
    check_pixels(tags.width, tags.height, name)
    if tags.rows < 1 or tags.columns < 1:
        raise damaged(name, "its strips or tiles have no size")
    planes = tags.samples if tags.apart else 1
    needed = planes * -(-tags.height // tags.rows) * -(-tags.width // tags.columns)
    if len(tags.offsets) != needed or len(tags.counts) not in (needed, 0 if tags.compression == NONE else needed):
        raise damaged(name, f"it lists {len(tags.offsets)} strips or tiles; its size needs {needed}")
    for offset, count in zip(tags.offsets, tags.counts, strict=False):
        if (offset < LEAST_OFFSET or count < 1) and (offset or count):
            raise damaged(name, "a strip or tile has no place in the file")


def pillow_reads(tags: Tags, *, nearly: bool = False) -> bool:
    """Tell whether Pillow reads such a file by the book; `nearly` also where it keeps the upper 8 bits of 16."""
    depths, samples, packing = set(tags.bits), tags.samples, tags.compression
    if tags.apart or tags.raw or tags.format != UNSIGNED or len(depths) != 1 or tags.predictor > 2:
        return False
    (depth,) = depths
    if not all(tags.offsets):
        return False  # nothing was written there; Pillow takes the file's start for it
    if tags.predictor > 1 and packing in UNPREDICTED:
        return False  # libtiff does without the predictor then, and tifffile does not
    if (tags.fill_order != 1 and packing not in FAX) or (tags.extra == (-1,) and tags.photometric != RGB):
        return False
    if depth == 16:
        grey = tags.photometric == BLACK_IS_ZERO and samples == 1
        return nearly and packing in PLAIN and (grey or (tags.photometric == RGB and samples in (3, 4)))
    if packing in FAX:
        return tags.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples == depth == 1
    if packing == JPEG:
        return depth == 8 and (tags.photometric, samples) in ((BLACK_IS_ZERO, 1), (RGB, 3), (YCBCR, 3))
    if packing not in PLAIN:
        return False
    if tags.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples == 1:
        return depth in (1, 2, 4, 8)
    if tags.photometric == PALETTE:
        return samples == 1 and depth in (1, 2, 4, 8) and max(tags.palette, default=0) > 255
    if depth != 8:
        return False
    if tags.photometric == RGB:
        return samples == 3 or (samples <= 6 and not any(tags.extra[1:]))
    if tags.photometric == CMYK:
        return samples == 4 and tags.inks == 1
    return (tags.photometric == LAB and samples == 3) or (tags.photometric == BLACK_IS_ZERO and samples == 2)


def decode_tiff(file: IO[bytes], tags: Tags, name: str, page: int = 0) -> Decoded:
    """Decode a page of a TIFF by tifffile.

    Raises:
        ValueError: It is damaged, or of a kind that isn't read; the message says of which.
        ImportError: There is no tifffile, or it lacks the codec.
    """
    _check_kind(tags, name)
    check_pixels(tags.width, tags.height, name)
    values = _samples(file, tags, name, page)
    white = tags.white or (2 ** tags.bits[0] - 1 if tags.format == UNSIGNED and tags.bits[0] < 16 else None)
    values, notes = _in_16_bits(values, tags, name)
    colours, opacity = values[..., : tags.colours], None
    if tags.photometric == WHITE_IS_ZERO:
        colours = _largest(colours, white) - colours
    if tags.photometric == PALETTE:
        colours, white = _painted(colours[..., 0], tags), None
    if kind := tags.opacity(tags.colours):
        opacity = values[..., tags.colours]
        colours = _divided(colours, opacity) if kind == ASSOCIATED else colours
    if values.dtype.itemsize == 1 and white == 255:
        white = None
    return Decoded(colours, opacity, white, tags.orientation, tags.profile, notes + tags.notes)


def _check_kind(tags: Tags, name: str) -> None:
    """Refuse what no one here reads, and say what it is."""
    kind = None
    if tags.raw or tags.photometric in (32803, 34892):
        raise PictureError(
            f"The {name} is a camera's raw file (DNG or TIFF). Develop it first, and save it as JPEG, PNG or TIFF."
        )
    if tags.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK):
        kind = f"its colours are {NAMED.get(tags.photometric, f'of kind {tags.photometric}')}"
    elif tags.photometric == CMYK and tags.inks != 1:
        kind = "its inks are not cyan, magenta, yellow and black"
    elif tags.compression not in PLAIN:
        kind = f"its compression is {COMPRESSIONS.get(tags.compression, f'number {tags.compression}')}"
    elif len(set(tags.bits)) != 1:
        kind = f"its bands have {', '.join(map(str, tags.bits[:8]))} bits"
    elif tags.format not in (UNSIGNED, SIGNED, FLOATING):
        kind = "its samples are complex, or of several types"
    elif tags.samples < tags.colours:
        kind = f"it has {tags.samples} samples a pixel, too few for its colours"
    elif tags.photometric == PALETTE and (tags.samples > 1 or len(tags.palette) != 3 * 2 ** min(16, tags.bits[0])):
        kind = "its palette does not fit its samples"
    elif tags.fill_order != 1 or tags.predictor > 3 or (tags.predictor > 1 and tags.compression in UNPREDICTED):
        kind = f"its bits or bytes lie in an unusual order (FillOrder {tags.fill_order}, Predictor {tags.predictor})"
    if kind:
        raise PictureError(f"The {name} is a TIFF of a kind that is not read: {kind}. {CONVERT}")


def _samples(file: IO[bytes], tags: Tags, name: str, page: int) -> np.ndarray:
    """Read the samples that are shown, (H, W, S), strip by strip or tile by tile."""
    import tifffile

    used = tags.colours + bool(tags.opacity(tags.colours))
    try:
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            directory = tiff.pages[page]
            assert isinstance(directory, tifffile.TiffPage)
            shape = directory.imagelength, directory.imagewidth, directory.samplesperpixel
            if shape != (tags.height, tags.width, tags.samples) or directory.dtype is None or directory.imagedepth != 1:
                raise ValueError("its tags contradict each other")
            pixels = np.zeros((tags.height, tags.width, used), directory.dtype)
            pieces = list(zip(directory.dataoffsets, directory.databytecounts, strict=True))
            if pieces != list(zip(tags.offsets, tags.counts or directory.databytecounts, strict=True)):
                raise ValueError("its strips or tiles are not where it says")
            most = _piece_bytes(tags, directory.dtype.itemsize)
            shown = len(pieces) // tags.samples * used if tags.apart else len(pieces)
            for number, (offset, count) in enumerate(pieces[:shown]):
                if count == 0:
                    continue  # nothing was written: it is black, as GDAL leaves it
                file.seek(offset)
                packed = file.read(count)
                if len(packed) < count:
                    raise ValueError("it ends before its last pixel")
                _check_unpacked(packed, tags.compression, most)
                piece, (plane, _, top, left, _), (_, height, width, _) = directory.decode(packed, number)
                piece = np.asarray(piece)[0, :height, :width]
                into = pixels[top : top + height, left : left + width]
                if tags.apart:
                    into[..., plane] = piece[: into.shape[0], : into.shape[1], 0]
                else:
                    into[...] = piece[: into.shape[0], : into.shape[1], :used]
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of damaged files it raises almost anything
        if "imagecodecs" in str(error):
            raise ImportError(str(error)) from None
        raise damaged(name, error) from None
    return pixels


def _piece_bytes(tags: Tags, itemsize: int) -> int:
    """How many bytes a strip or tile has, unpacked."""
    size = tags.rows * tags.columns * (1 if tags.apart else tags.samples) * itemsize
    if size > LARGEST_PIECE:
        raise ValueError(f"its strips or tiles have {size / 1e6:.0f} MB each")
    return size


def _check_unpacked(packed: bytes, compression: int, most: int) -> None:
    """Without imagecodecs, tifffile unpacks whatever a few bytes grow into; see first what they do."""
    try:
        import imagecodecs  # noqa: F401  # pyright: ignore[reportMissingImports]  # which keeps to the size asked for
    except ImportError:
        if compression in DEFLATE:
            if len(zlib.decompressobj().decompress(packed, most + 1)) > most:
                raise ValueError("its strips or tiles are longer than its tags say") from None
        elif compression not in (NONE, 32773):
            raise


def _in_16_bits(values: np.ndarray, tags: Tags, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Take wider or signed integers for 16-bit ones where they fit, and say so; leave others as they are."""
    if tags.format == FLOATING or (tags.format == UNSIGNED and tags.bits[0] <= 16):
        return values.astype(np.uint8) if values.dtype == bool else values, ()
    kind = f"{'signed' if tags.format == SIGNED else 'unsigned'} {tags.bits[0]}-bit integers"
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or tags.bits[0] == 8:
        raise PictureError(
            f"The {name} has {kind} from {low} to {high}; expected unsigned ones of up to 16 bits, or floats in "
            "[0, 1]. Scale them: read the file as an array and pass that, or use gdal_translate -ot Byte -scale."
        )
    return values.astype(np.uint16), (f"Its {kind}, {low} to {high}, were read as 16-bit ones, where white is 65535.",)


def _largest(colours: np.ndarray, white: int | None) -> Any:
    if np.issubdtype(colours.dtype, np.floating):
        return colours.dtype.type(1)
    return colours.dtype.type(white or np.iinfo(colours.dtype).max)


def _painted(indices: np.ndarray, tags: Tags) -> np.ndarray:
    """The colours of a palette's indices. Old programs wrote them in 8 bits, which libtiff understands too."""
    palette = np.array(tags.palette).reshape(3, -1)
    palette = palette * 257 if palette.max() < 256 else palette
    return palette.T.astype(np.uint16)[indices]


def _divided(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Undo that opacity was multiplied into the colours: floats in [0, 1]."""
    opacity = opacity[..., None].astype(np.float64)
    straight = np.divide(colours, opacity, out=np.zeros(colours.shape), where=opacity > 0)
    return np.clip(straight, 0, 1)
