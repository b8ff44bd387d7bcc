"""Pictures of every format, damaged at random: each must be read as another decoder reads it, or be refused.

    python tests/mutations.py --mutations 5000

The others are OpenCV (libpng, libjpeg-turbo, libwebp, OpenJPEG, libavif, and its own BMP, GIF and PNM), tifffile with
imagecodecs, and FFmpeg. A JPEG whose compressed data is damaged has no right value: its decoders fill in what they can.
"""

import argparse
import collections
import contextlib
import io
import random
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms

from wordmask.pixels import read_noted

ROUNDING = 2  # steps of 255: 16 bits → 8 is one, and laying on white another
LOSSY = ("jpeg", "webp", "jp2", "avif")
HEIGHT, WIDTH = 19, 26
SMALL_LIMIT = 4_000_000  # pixels: a mutated size must not cost minutes


@dataclass(frozen=True)
class Sample:
    """An intact picture.

    Args:
        kind: Its format, and what is special.
        content: The file.
        other: Another decoder: bytes → RGB or None where it refuses.
    """

    kind: str
    content: bytes
    other: "Decoder"


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged picture.

    Args:
        verdict: `refused`, `equal`, `alone` (no other decoder reads it), `different`, or `broke` (another exception).
        detail: Of the last two.
    """

    kind: str
    verdict: str
    content: bytes
    detail: str = ""


Decoder = Callable[[bytes], "np.ndarray | None"]


# Intact pictures ------------------------------------------------------------------------------------------------------


def samples() -> list[Sample]:
    """One of each kind."""
    return [*_pngs(), *_photos(), *_simple(), *_tiffs()]


def _rgb(channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth, with noise: what compresses, and what doesn't."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [(x * 9 + y * 3 * number) % 256 for number in range(1, channels + 1)]
    noise = np.random.default_rng(seed).integers(0, 24, (HEIGHT, WIDTH, channels))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


def _saved(image: Image.Image, format: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def _pngs() -> Iterator[Sample]:
    rgb = Image.fromarray(_rgb())
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Comment", "some words " * 20, zip=True)
    text.add_itxt("Title", "Näme")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = Image.fromarray(_rgb(4), "RGBA").convert(mode) if mode in ("LA", "RGBA") else rgb.convert(mode)
        yield Sample(f"png {mode}", _saved(image, "PNG"), opencv)
    yield Sample("png P 4 bits", _saved(rgb.quantize(11), "PNG", bits=4), opencv)
    yield Sample("png P transparent", _saved(rgb.quantize(20), "PNG", transparency=3), opencv)
    yield Sample("png RGB metadata", _saved(rgb, "PNG", exif=exif, pnginfo=text, dpi=(72, 72)), opencv)
    yield Sample("png RGB profile", _saved(rgb, "PNG", icc_profile=profile), opencv)
    for channels in (1, 3, 4):
        deep = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
        yield Sample(f"png 16 bits ×{channels}", cv2.imencode(".png", deep)[1].tobytes(), opencv)


def _photos() -> Iterator[Sample]:
    rgb = Image.fromarray(_rgb())
    exif = Image.Exif()
    exif[0x010E] = "a photograph"
    for mode in ("L", "RGB"):
        yield Sample(f"jpeg {mode}", _saved(rgb.convert(mode), "JPEG", quality=92), opencv)
    yield Sample("jpeg progressive", _saved(rgb, "JPEG", progressive=True), opencv)
    yield Sample("jpeg exif", _saved(rgb, "JPEG", exif=exif, comment=b"words", dpi=(72, 72)), opencv)
    yield Sample("jpeg restarts", _saved(rgb, "JPEG", restart_marker_blocks=1), opencv)
    yield Sample("webp lossy", _saved(rgb, "WEBP", quality=80), opencv)
    yield Sample("webp lossless", _saved(Image.fromarray(_rgb(4), "RGBA"), "WEBP", lossless=True), opencv)
    yield Sample("webp exif", _saved(rgb, "WEBP", exif=exif), opencv)
    yield Sample("jp2", _saved(rgb, "JPEG2000"), opencv)
    yield Sample("avif", _saved(rgb, "AVIF"), opencv)


def _simple() -> Iterator[Sample]:
    rgb = Image.fromarray(_rgb())
    grey, palette = rgb.convert("L"), rgb.quantize(30)
    yield Sample("gif", _saved(palette, "GIF"), opencv)
    yield Sample("gif transparent", _saved(palette, "GIF", transparency=2), opencv)
    frames = [Image.fromarray(_rgb(seed=seed)).quantize(16) for seed in range(3)]
    yield Sample("gif frames", _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), opencv)
    for image in (rgb.convert("1"), grey, palette, rgb):
        yield Sample(f"bmp {image.mode}", _saved(image, "BMP"), opencv)
    yield Sample("pgm", _saved(grey, "PPM"), opencv)
    yield Sample("ppm", _saved(rgb, "PPM"), opencv)
    yield Sample("pbm", _saved(rgb.convert("1"), "PPM"), opencv)
    deep = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    yield Sample("pgm 16 bits", cv2.imencode(".pgm", deep)[1].tobytes(), opencv)
    for image, name in ((rgb, "RGB"), (grey, "L")):
        yield Sample(f"tga {name}", _saved(image, "TGA"), ffmpeg("targa"))
        yield Sample(f"tga {name} rle", _saved(image, "TGA", compression="tga_rle"), ffmpeg("targa"))
        yield Sample(f"pcx {name}", _saved(image, "PCX"), ffmpeg("pcx"))
        yield Sample(f"sgi {name}", _saved(image, "SGI"), ffmpeg("sgi"))
    yield Sample("qoi", _saved(rgb, "QOI"), ffmpeg("qoi"))
    yield Sample("ico", _saved(Image.fromarray(_rgb(4), "RGBA"), "ICO", sizes=[(16, 16)]), nothing)


def _tiffs() -> Iterator[Sample]:
    kinds: list[tuple[str, np.ndarray, dict]] = []
    deep = np.random.default_rng(4).integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
    floats = (deep[..., :3] / 65535).astype(np.float32)
    rgb, grey = _rgb(), _rgb(1)[..., 0]
    for packing in (None, "zlib", "lzw", "packbits", "zstd"):
        kinds.append((f"8 bits {packing}", rgb, {"photometric": "rgb", "compression": packing}))
        kinds.append((f"16 bits {packing}", deep[..., :3], {"photometric": "rgb", "compression": packing}))
    apart = {"photometric": "rgb", "planarconfig": "separate"}
    kinds.append(("16 bits apart", np.moveaxis(deep[..., :3], -1, 0), apart))
    kinds.append(("16 bits apart tiles", np.moveaxis(deep[..., :3], -1, 0), apart | {"tile": (16, 16)}))
    kinds.append(("8 bits apart", np.moveaxis(rgb, -1, 0), apart))
    kinds.append(("grey", grey, {"photometric": "minisblack"}))
    kinds.append(("white is zero", grey, {"photometric": "miniswhite", "compression": "zlib"}))
    kinds.append(("16 bits grey", deep[..., 0], {"photometric": "minisblack", "byteorder": ">"}))
    kinds.append(("16 bits white is zero", deep[..., 0], {"photometric": "miniswhite"}))
    kinds.append(("four bands", deep, {"photometric": "rgb", "extrasamples": (0,)}))
    kinds.append(("bands", deep, {"photometric": "minisblack", "extrasamples": (0, 0, 0), "planarconfig": "contig"}))
    kinds.append(("predictor", deep[..., :3], {"photometric": "rgb", "compression": "lzw", "predictor": True}))
    kinds.append(("floats", floats, {"photometric": "rgb"}))
    kinds.append(("floats packed", floats, {"photometric": "rgb", "compression": "zlib", "predictor": True}))
    kinds.append(("12 bits", deep[..., 0] >> 4, {"photometric": "minisblack", "bitspersample": 12}))
    kinds.append(("big", rgb, {"photometric": "rgb", "bigtiff": True}))
    kinds.append(("jpeg", rgb, {"photometric": "rgb", "compression": "jpeg"}))
    for name, pixels, settings in kinds:
        file, big = io.BytesIO(), bool(settings.pop("bigtiff", False))
        order = settings.pop("byteorder", "<")
        tifffile.imwrite(file, pixels, bigtiff=big, byteorder=order, metadata=None, rowsperstrip=8, **settings)
        yield Sample(f"tiff {name}", file.getvalue(), by_tifffile)


# Other decoders -------------------------------------------------------------------------------------------------------


def opencv(content: bytes) -> np.ndarray | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None:
        return None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    white = re.match(rb"P[2356]\s(?:#.*\s|\s)*\d+\s+\d+\s+(\d+)", content)
    pixels = pixels * (255 / int(white[1])) if white else pixels / (257 if pixels.dtype == np.uint16 else 1)
    pixels = np.minimum(pixels, 255)
    colours = pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels[..., :1]
    return _laid(colours, pixels[..., 3:] if pixels.shape[2] == 4 else None)


def ffmpeg(codec: str) -> Decoder:
    def decode(content: bytes) -> np.ndarray | None:
        try:
            frames = av.CodecContext.create(codec, "r").decode(av.Packet(content))
            frame = frames[0]
            if "a" in frame.format.name or frame.format.name.startswith("pal"):
                pixels = frame.to_ndarray(format="rgba").astype(float)
                return _laid(pixels[..., :3], pixels[..., 3:])
            return frame.to_ndarray(format="rgb24").astype(float)
        except (av.error.FFmpegError, IndexError, ValueError, OSError, TypeError):
            return None

    return decode


def by_tifffile(content: bytes) -> np.ndarray | None:
    """Samples by tifffile and imagecodecs; what they mean, by TIFF 6.0."""
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages[0]
            whole_file = len(page.dataoffsets) == len(page.databytecounts)  # it leaves what it doesn't find black
            if page.imagelength * page.imagewidth > SMALL_LIMIT or not whole_file:
                return None
            samples = page.asarray()
            if page.planarconfig == 2 and page.samplesperpixel > 1:
                samples = np.moveaxis(samples, 0, -1)
            samples = samples.reshape(page.imagelength, page.imagewidth, -1)
            whole = float(2**page.bitspersample - 1) if samples.dtype.kind in "ub" else 1.0
            whole = whole if page.bitspersample <= 16 or samples.dtype.kind != "u" else 65535.0
            whole = 65535.0 if samples.dtype.kind == "i" else whole
            values = samples.astype(float) * 255 / whole
            bands = int(page.photometric) in (0, 1) and values.shape[2] >= 3 and not set(page.extrasamples[:1]) & {1, 2}
            colours = values[..., : 3 if bands or int(page.photometric) in (2, 6) else 1]
            if int(page.photometric) == 0:
                colours = 255 - colours
            number = colours.shape[2]
            kind = next(iter(page.extrasamples), 2 if number == 3 and values.shape[2] == 4 and not bands else 0)
            if kind in (1, 2) and values.shape[2] > number:
                opacity = values[..., number : number + 1]
                if kind == 1:
                    safe = np.where(opacity > 0, opacity, 1)
                    colours = np.where(opacity > 0, np.minimum(colours * 255 / safe, 255), 0)
                return _laid(colours, opacity)
            return _laid(colours, None)
    except Exception:  # of damaged files it raises almost anything
        return None


def nothing(content: bytes) -> None:
    """No other decoder reads it."""


def _laid(colours: np.ndarray, opacity: np.ndarray | None) -> np.ndarray:
    if opacity is not None:
        colours = colours * (opacity / 255) + 255 * (1 - opacity / 255)
    return np.broadcast_to(colours, (*colours.shape[:2], 3))


# Damage ---------------------------------------------------------------------------------------------------------------


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to three places."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        content = chance.choice([_byte, _byte, _bit, _header_byte, _cut, _taken, _put, _repeated])(content, chance)
    if content.startswith(b"\x89PNG") and chance.random() < 0.5:
        content = _with_checksums(content)
    return content


def _byte(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(max(1, len(content)))
    return content[:place] + bytes([chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])]) + content[place + 1 :]


def _bit(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(max(1, len(content)))
    return (
        content[:place]
        + bytes(byte ^ 1 << chance.randrange(8) for byte in content[place : place + 1])
        + content[place + 1 :]
    )


def _header_byte(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(min(96, max(1, len(content))))
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(max(1, len(content)))]


def _taken(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(max(1, len(content)))
    return content[:place] + content[place + chance.choice([1, 2, 4, 16]) :]


def _put(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(max(1, len(content)))
    return content[:place] + chance.randbytes(chance.choice([1, 2, 4, 16])) + content[place:]


def _repeated(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(max(1, len(content)))
    return content[:place] + content[place : place + 24] + content[place:]


def _with_checksums(content: bytes) -> bytes:
    """Make a PNG's checksums right again, so that the damage goes deeper."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        if place + 12 + length > len(content):
            break
        body = content[place + 4 : place + 8 + length]
        parts.append(content[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        place += 12 + length
    return b"".join([*parts, content[place:]])


# Verdicts -------------------------------------------------------------------------------------------------------------


def outcome_of(sample: Sample, content: bytes) -> Outcome:
    """Read a file here and elsewhere."""
    try:
        ours = read_noted(content).rgb
    except ValueError:
        return Outcome(sample.kind, "refused", content)
    except Exception as error:  # whatever it is, it is what is looked for
        return Outcome(sample.kind, "broke", content, f"{type(error).__name__}: {error}")
    intact = read_noted(sample.content).rgb
    if ours.shape == intact.shape and np.abs(ours - intact.astype(int)).max() <= ROUNDING:
        return Outcome(sample.kind, "equal", content)  # to the intact picture: the damage is where none is
    theirs = sample.other(content)
    if theirs is None:
        return Outcome(sample.kind, "alone", content)
    if theirs.shape != ours.shape:
        return Outcome(sample.kind, "different", content, f"{ours.shape} here, {theirs.shape} there")
    apart = np.abs(ours - theirs).max(-1)
    if apart.max() <= ROUNDING:
        return Outcome(sample.kind, "equal", content)
    return Outcome(
        sample.kind, "different", content, f"{(apart > ROUNDING).mean():.1%} of pixels, by {apart.max():.0f}"
    )


def outcomes(mutations: int, seed: int = 0) -> Iterator[Outcome]:
    """Go through the kinds in turn, so many times in all; the same numbers give the same damage."""
    kinds = samples()
    for number in range(mutations):
        sample = kinds[number % len(kinds)]
        yield outcome_of(sample, damaged(sample.content, random.Random(f"{seed} {number}")))


@contextlib.contextmanager
def small_and_quiet() -> Iterator[None]:
    """Refuse large pictures, whatever reads them, and leave out what decoders say on the side."""
    import logging

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, SMALL_LIMIT // 2
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
            logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="a folder for files that are different or broke the reader")
    given = parser.parse_args()
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    found = 0
    with small_and_quiet():
        for number, outcome in enumerate(outcomes(given.mutations, given.seed)):
            table[outcome.kind][outcome.verdict] += 1
            if outcome.verdict in ("different", "broke"):
                found += 1
                print(f"{number} {outcome.kind}: {outcome.verdict}, {outcome.detail}")
                if given.keep:
                    import pathlib

                    pathlib.Path(given.keep, f"{number}.{outcome.kind.split()[0]}").write_bytes(outcome.content)
    columns = ("equal", "refused", "alone", "different", "broke")
    for kind, counts in table.items():
        print(f"{kind:28}", *(f"{counts[column]:6}" for column in columns))
    print(f"{'all':28}", *(f"{sum(counts[column] for counts in table.values()):6}" for column in columns), columns)
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
