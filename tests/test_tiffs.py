"""Every combination of what TIFFs say of their samples: read as GDAL and tifffile read it, or refused by name."""

import io
import itertools
import sys
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from wordmask.decoded import PictureNote
from wordmask.picture_files import _tags
from wordmask.pixels import read_noted
from wordmask.tiffs import pillow_reads

HEIGHT, WIDTH = 19, 26
LAYOUTS = [  # photometric interpretation, samples, extra samples
    *(("miniswhite", 1, ()), ("minisblack", 1, ()), ("rgb", 3, ()), ("palette", 1, ())),
    *(("minisblack", 2, (kind,)) for kind in (0, 1, 2)),
    *(("minisblack", bands, (0,) * (bands - 1)) for bands in (3, 4, 8)),
    *(("rgb", 4, (kind,)) for kind in (0, 1, 2)),
    *(("rgb", 5, kinds) for kinds in ((0, 0), (2, 0))),
]
TYPES = ("uint8", "uint16", "uint32", "int16", "float16", "float32", "float64", 2, 4, 10, 12)
PACKINGS = ((None, False), ("zlib", False), ("zlib", True), ("lzw", True), ("packbits", False), ("zstd", False))


@pytest.fixture(autouse=True)
def without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def written(pixels: np.ndarray, **settings: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **settings)
    return file.getvalue()


def by_gdal(content: bytes) -> np.ndarray:
    """(H, W, S)."""
    from rasterio.io import MemoryFile

    with MemoryFile(content) as file, file.open() as raster:
        return np.moveaxis(raster.read(), 0, -1)


def meant(values: np.ndarray, photometric: str, extra: tuple[int, ...], palette: np.ndarray | None) -> np.ndarray:
    """What samples in 0–255 mean by TIFF 6.0, with bands of grey as colours and opacity laid on white."""
    number = 3 if photometric == "rgb" or values.shape[2] >= 3 else 1
    colours = values[..., :number]
    if palette is not None:
        return palette.T[values[..., 0].astype(int)] / 257
    if photometric == "miniswhite":
        colours = 255 - colours
    if extra[:1] and extra[0] in (1, 2) and values.shape[2] > number:
        opacity = values[..., number : number + 1] / 255
        if extra[0] == 1:
            colours = np.minimum(np.divide(colours, opacity, out=np.zeros_like(colours), where=opacity > 0), 255)
        colours = colours * opacity + 255 * (1 - opacity)
    return np.broadcast_to(colours, (HEIGHT, WIDTH, 3))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout[0]} {layout[1]} {layout[2]}")
def test_all_combinations_are_read_as_by_gdal(layout):
    photometric, samples, extra = layout
    chance, seen = np.random.default_rng(0), 0
    for kind, (packing, predicted), apart, tile in itertools.product(TYPES, PACKINGS, (False, True), (None, (16, 16))):
        settings: dict = {"compression": packing, "predictor": predicted, "tile": tile}
        bits = kind if isinstance(kind, int) else 8 * np.dtype(kind).itemsize
        if (apart and samples == 1) or (isinstance(kind, int) and packing):
            continue
        if photometric == "palette" and kind not in ("uint8", "uint16"):
            continue
        pixels = chance.random((HEIGHT, WIDTH, samples))
        if isinstance(kind, int):
            pixels, whole = (pixels * 2**kind).astype(np.uint8 if kind < 8 else np.uint16), 2**kind - 1
            settings["bitspersample"] = kind
        elif kind.startswith("float"):
            pixels, whole = pixels.astype(kind), 1
        else:
            whole = min(np.iinfo(kind).max, 65535) if kind != "int16" else 65535
            pixels = (pixels * min(np.iinfo(kind).max, 65536)).astype(kind)
        palette = None
        if photometric == "palette":
            palette = settings["colormap"] = (chance.random((3, 2**bits)) * 65536).astype(np.uint16)
        laid = np.moveaxis(pixels, -1, 0) if apart else pixels if samples > 1 else pixels[..., 0]
        planar = None if samples == 1 else "separate" if apart else "contig"
        content = written(laid, photometric=photometric, planarconfig=planar, extrasamples=extra or None, **settings)
        theirs = by_gdal(content)
        np.testing.assert_array_equal(theirs, pixels)
        values = theirs.astype(float) if palette is not None else theirs.astype(float) * 255 / whole
        ours = read_noted(content).rgb
        assert np.abs(ours - meant(values, photometric, extra, palette)).max() <= (2 if {1, 2} & set(extra) else 1), (
            kind,
            settings,
        )
        seen += 1
    assert seen >= 15


def test_jpeg_in_tiff_is_read_as_by_tifffile():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([x * 9, y * 12, x + y], -1).astype(np.uint8)
    for pixels, photometric in ((rgb, "rgb"), (rgb, "ycbcr"), (rgb[..., 0], "minisblack")):
        for tile in (None, (16, 16)):
            content = written(pixels, photometric=photometric, compression="jpeg", tile=tile)
            theirs = tifffile.imread(io.BytesIO(content)).reshape(HEIGHT, WIDTH, -1)
            assert pillow_reads(_tags(io.BytesIO(content), "")[0])
            assert np.abs(read_noted(content).rgb - theirs.astype(int)).max() <= 1


def test_inks_become_colours():
    inks = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    expected = np.array(Image.fromarray(inks, "CMYK").convert("RGB"))
    deep = inks.astype(np.uint16) * 257
    for pixels in (inks, deep):
        content = written(pixels, photometric="separated")
        assert np.abs(read_noted(content).rgb - expected.astype(int)).max() <= 1
        content = written(np.moveaxis(pixels, -1, 0), photometric="separated", planarconfig="separate")
        assert np.abs(read_noted(content).rgb - expected.astype(int)).max() <= 1


def test_an_old_palette_of_8_bits_is_no_black_picture():
    """libtiff takes a palette whose entries are all below 256 for one of 8 bits."""
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    palette[0, 0] = 255
    indices = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    content = written(indices, photometric="palette", colormap=palette)
    np.testing.assert_array_equal(read_noted(content).rgb, palette.T[indices])


@pytest.mark.parametrize(
    ("pixels", "settings", "what"),
    [
        (np.zeros((9, 9, 3), np.uint8), {"photometric": "ycbcr"}, "its colours are YCbCr"),
        (np.zeros((9, 9, 3), np.uint16), {"photometric": "cielab"}, "its colours are CIELab"),
        (np.zeros((9, 9), np.uint8), {"photometric": "cfa"}, "camera's raw file"),
        (np.zeros((9, 9), np.uint16), {"compression": "jpeg2000"}, "its compression is JPEG 2000"),
        (np.zeros((9, 9), np.complex64), {}, "complex"),
        (np.full((9, 9), -5, np.int16), {}, "signed 16-bit integers from -5 to -5"),
        (np.full((9, 9), 70_000, np.uint32), {}, "unsigned 32-bit integers from 70000 to 70000"),
        (np.full((9, 9), 9, np.int8), {}, "signed 8-bit integers"),
        (np.full((9, 9), 9.0, np.float32), {"photometric": "minisblack"}, r"floats from 9 to 9; expected \[0, 1\]"),
        (np.full((9, 9), np.nan, np.float32), {"photometric": "minisblack"}, r"expected \[0, 1\]"),
    ],
)
def test_other_kinds_are_refused_by_name(pixels, settings, what):
    with pytest.raises(ValueError, match=what):
        read_noted(written(pixels, **settings))


def test_notes_say_what_was_left_or_assumed():
    def notes(pixels: np.ndarray, **settings: object) -> tuple[str, ...]:
        return read_noted(written(pixels, **settings)).notes

    deep = np.random.default_rng(0).integers(0, 65536, (9, 9, 8), dtype=np.uint16)
    bands = {"photometric": "minisblack", "planarconfig": "contig"}
    assert notes(deep, **bands) == ("It has 8 bands; the first three were read.",)
    assert notes(deep[..., :2], **bands) == ("It has 2 bands; the first was read.",)
    assert notes(deep[..., :3], photometric="rgb") == ()
    assert notes(deep[..., :4], photometric="rgb", extrasamples=(2,)) == ()
    assert notes(deep[..., :4].astype(np.uint8), photometric="rgb", extrasamples=(0,)) == (
        "It has 4 bands; the first three were read.",
    )
    assert "unsigned 32-bit integers, " in notes(deep[..., 0].astype(np.uint32))[0]


def test_overviews_are_no_pages():
    file, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels, subfiletype=0)
        writer.write(pixels[::2, ::2], subfiletype=1)
    assert read_noted(file.getvalue()).notes == ()
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels)
        writer.write(pixels)
    assert read_noted(file.getvalue()).notes == ("It has several pages; the first was read.",)


def test_what_was_never_written_is_black():
    """GDAL leaves such tiles out of a file (SPARSE_OK)."""
    content = bytearray(written(np.full((32, 32), 200, np.uint8), tile=(16, 16), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        for tag in (tags[324], tags[325]):
            size = {3: 2, 4: 4}[int(tag.dtype)]
            content[tag.valueoffset : tag.valueoffset + size] = bytes(size)
    expected = np.full((32, 32), 200)
    expected[:16, :16] = 0
    np.testing.assert_array_equal(read_noted(bytes(content)).rgb[..., 0], expected)
    np.testing.assert_array_equal(by_gdal(bytes(content))[..., 0], expected)


def test_a_few_bytes_that_unpack_to_many_are_refused():
    import zlib

    good = written(np.zeros((64, 64), np.uint16), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(good)) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    for size in (2**20, 64):
        packed = zlib.compress(bytes(size), 9)
        content = bytearray(good + packed)
        with tifffile.TiffFile(io.BytesIO(good)) as file:
            for number, value in ((273, len(good)), (279, len(packed))):
                tag = file.pages[0].tags[number]
                width = {3: 2, 4: 4}[int(tag.dtype)]
                content[tag.valueoffset : tag.valueoffset + width] = value.to_bytes(width, "little")
        with pytest.raises(ValueError, match="damaged or ends early"):
            read_noted(bytes(content))
    assert offset
    assert count


@pytest.mark.parametrize("missing", ["imagecodecs", "tifffile"])
def test_without_a_package_the_message_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "imagecodecs":
        monkeypatch.setattr(tifffile.tifffile, "imagecodecs", __import__("tifffile._imagecodecs", fromlist=["x"]))
        for table in ("DECOMPRESSORS", "UNPREDICTORS"):
            monkeypatch.setattr(getattr(tifffile.TIFF, table), "_codecs", {})
    deep = np.random.default_rng(0).integers(0, 65536, (3, 9, 9), dtype=np.uint16)
    apart = written(
        deep, photometric="rgb", planarconfig="separate", compression="zlib" if missing == "tifffile" else None
    )
    if missing == "tifffile":
        with pytest.raises(ValueError, match=r"Pillow does not read rightly .* pip install tifffile imagecodecs"):
            read_noted(apart)
    else:
        np.testing.assert_allclose(read_noted(apart).rgb, np.moveaxis(deep, 0, -1) / 257, atol=0.51)
    grey = written(deep[0], photometric="minisblack")
    np.testing.assert_allclose(read_noted(grey).rgb[..., 0], deep[0] / 257, atol=0.51)  # Pillow alone does this


def test_a_picture_that_pillow_opened_is_read_from_its_file(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (3, 9, 9), dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(written(deep, photometric="rgb", planarconfig="separate"))
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_allclose(read_noted(image).rgb, np.moveaxis(deep, 0, -1) / 257, atol=0.51)
        image.load()
        with pytest.raises(ValueError, match=r"was decoded by Pillow .* Pass the file's path instead"):
            read_noted(image)


def test_notes_are_warnings():
    assert issubclass(PictureNote, UserWarning)
