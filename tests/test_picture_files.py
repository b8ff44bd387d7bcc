"""What people bring as pictures, and what is right; damage at random is in mutations.py."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import wordmask
from conftest import colourful
from mutations import outcomes, small_and_quiet
from wordmask.data.files import size_of
from wordmask.image import read_picture
from wordmask.pixels import PictureNote, read_noted
from wordmask.segmenter import Segmenter

RGB = colourful(6, 8)
NONE = ()
MUTATIONS = 400


@pytest.fixture(autouse=True)
def without_warnings():
    """Notes are looked at where they are what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PictureNote)
        yield


def encoded(image: Image.Image, format: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def chunk(kind: bytes, body: bytes, *, checksum: bool = True) -> bytes:
    crc = zlib.crc32(kind + body) ^ (not checksum)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def with_chunk(png: bytes, added: bytes) -> bytes:
    """Add a part after a PNG's header."""
    return png[:33] + added + png[33:]


PNG, JPEG = encoded(Image.fromarray(RGB), "PNG"), encoded(Image.fromarray(colourful(16, 16)), "JPEG", quality=95)


# The cases that were sent in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("planes_apart_16.tif", "four_bands_16.tif", "exif_block_is_text.png", "exif_block_empty_prefix.png"),
        *("text_of_2_megabytes.png", "text_with_wrong_checksum.png"),
    ],
)
def test_cases_that_hold_one_picture(shared, name):
    expected = np.load(shared / "cases" / "pictures" / "expected.rgb.npy")
    np.testing.assert_array_equal(read_picture(shared / "cases" / "pictures" / name), expected)
    with Image.open(shared / "cases" / "pictures" / "planes_apart_16.tif") as image:
        np.testing.assert_array_equal(read_picture(image), expected)


def test_other_cases(shared):
    folder = shared / "cases" / "pictures"
    expected = np.load(folder / "white_is_zero_16.expected.npy")
    np.testing.assert_array_equal(read_picture(folder / "white_is_zero_16.tif")[..., 0], expected)
    assert read_picture(folder / "planar16_2x2.tif").reshape(-1, 3).tolist() == [[255, 128, 0]] * 4
    assert read_picture(folder / "miniswhite16_1x2.tif")[0, :, 0].tolist() == [255, 0]
    bands = read_noted(folder / "eight_bands_16.tif")
    assert bands.notes == ("It has 8 bands; the first three were read.",)
    assert read_picture(folder / "f32_rgb_2x2.tif").reshape(-1).tolist() == [128] * 12
    assert read_picture(folder / "chunky16_3x_extrasamples_2x2.tif").reshape(-1).tolist() == [4] * 12
    with Image.open(folder / "xmp_orientation.jpg") as image:
        assert read_picture(folder / "xmp_orientation.jpg").shape == (*image.size[::-1], 3)
        assert read_picture(image).shape == (*image.size[::-1], 3)
        assert size_of(folder / "xmp_orientation.jpg") == image.size[::-1]


def test_a_colour_key_of_16_bits_is_transparent(shared):
    """OpenCV has the same opinion."""
    import cv2

    path = shared / "cases" / "pictures" / "grey16_trns.png"
    theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert theirs.ndim == 2  # it leaves the key out, so that the values can be compared with it
    with Image.open(path) as image:
        key = image.info["transparency"]
    expected = np.where(theirs == key, 255, (theirs.astype(int) + 128) // 257)
    np.testing.assert_array_equal(read_picture(path)[..., 0], expected)


# PNG ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"eXIf", b"no TIFF at all"),
        chunk(b"eXIf", b""),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 2_000_000)),
        chunk(b"iTXt", b"broken"),
        chunk(b"tEXt", b"Comment\0words", checksum=False),
        chunk(b"iCCP", b"name\0\0no zlib"),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(b"no profile")),
        chunk(b"tIME", b"\0"),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"\1"),
        chunk(b"sRGB", b""),
        chunk(b"acTL", b"\0"),
        chunk(b"tRNS", b"\0", checksum=False),
        chunk(b"prVt", b"x" * 100_000),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\nzz")),
    ],
    ids=lambda added: added[4:8].decode(),
)
def test_what_goes_with_a_png_never_keeps_it_from_being_read(tmp_path, added):
    (tmp_path / "a.png").write_bytes(with_chunk(PNG, added))
    np.testing.assert_array_equal(read_picture(with_chunk(PNG, added)), RGB)
    assert size_of(tmp_path / "a.png") == (6, 8)


@pytest.mark.parametrize("part", [b"IHDR", b"IDAT"])
def test_what_makes_a_png_must_be_whole(part):
    place = PNG.index(part) + 6
    with pytest.raises(ValueError, match=f"checksum of its part '{part.decode()}' is wrong"):
        read_picture(PNG[:place] + bytes([PNG[place] ^ 1]) + PNG[place + 1 :])
    with pytest.raises(ValueError, match="damaged or ends early"):
        read_picture(PNG[: PNG.index(b"IDAT") + 12])


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("filtering", [0, 1, 2, 3, 4])
def test_sixteen_bits_of_a_png_are_read_in_full(colour, channels, filtering):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    read = read_noted(deep_png(values, colour, filtering)).rgb
    shown = values[..., : 3 if channels > 2 else 1] / 257
    if channels in (2, 4):
        opacity = values[..., -1:] / 65535
        shown = shown * opacity + 255 * (1 - opacity)
    assert np.abs(read - shown).max() <= (1.3 if channels in (2, 4) else 0.5)
    assert read_noted(deep_png(values // 16, colour, filtering), white=4095).rgb.mean() == pytest.approx(
        read.mean(), abs=20
    )


def test_a_colour_key_of_16_bit_colours():
    """Two colours that differ in their lower halves alone: one is transparent."""
    values = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD]]], np.uint16)
    png = deep_png(values, 2, 0, tRNS=values[0, 0].astype(">u2").tobytes())
    assert read_picture(png).tolist() == [[[255, 255, 255], [0x12, 0x56, 0x9A]]]


@pytest.mark.parametrize(
    ("depth", "values"), [(1, [0, 1]), (2, [0, 1, 2, 3]), (4, [0, 5, 10, 15]), (8, [0, 7, 200, 255])]
)
def test_a_colour_key_of_few_bits(depth, values):
    row = "".join(f"{value:0{depth}b}" for value in values)
    body = bytes([0]) + int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big")
    header = struct.pack(">IIBBBBB", len(values), 1, depth, 0, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(">H", values[1]))
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    )
    expected = [value * 255 // (2**depth - 1) for value in values]
    expected[1] = 255
    assert read_picture(png)[0, :, 0].tolist() == expected


def deep_png(values: np.ndarray, colour: int, filtering: int, **parts: bytes) -> bytes:
    """A PNG of 16 bits, all rows with one filter, written by the book."""
    height, width, channels = values.shape
    step, rows = 2 * channels, values.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    packed, above = b"", np.zeros(rows.shape[1], int)
    for row in rows:
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        estimate = left + above - corner
        distances = np.abs([estimate - left, estimate - above, estimate - corner])
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        packed += (
            bytes([filtering])
            + ((row - [0, left, above, (left + above) // 2, paeth][filtering]) % 256).astype(np.uint8).tobytes()
        )
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), body) for name, body in parts.items())
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(packed)),
            chunk(b"IEND", b""),
        ]
    )


# JPEG and others ------------------------------------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "added",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, b"Exif\0\0broken"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta broken"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\1no profile"),
        segment(0xE2, b"MPF\0broken"),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\2\0\7\0\0\0\1\0\0\0\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\4\4"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b"\xff\xfe words"),
    ],
    ids=lambda added: added[4:9].decode("latin-1"),
)
def test_what_goes_with_a_jpeg_never_keeps_it_from_being_read(added):
    np.testing.assert_array_equal(read_picture(JPEG[:2] + added + JPEG[2:]), read_picture(JPEG))


def test_orientation_survives_what_is_broken_beside_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(colourful(16, 24)), "JPEG", exif=exif)
    assert read_picture(turned).shape == (24, 16, 3)
    broken = turned[:2] + segment(0xE0, b"JFIF\0") + turned[2:]
    assert read_picture(broken).shape == (24, 16, 3)


@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation(orientation):
    """As Pillow turns pictures."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF", "WEBP"):
        content = encoded(Image.fromarray(RGB), format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(read_picture(content), np.array(ImageOps.exif_transpose(image)))
        with Image.open(io.BytesIO(content)) as image:
            expected = read_picture(content)
            np.testing.assert_array_equal(read_picture(image), expected)


@pytest.mark.parametrize("format", ["WEBP", "PNG", "JPEG"])
def test_orientation_in_xmp_alone_is_left(format):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = encoded(Image.fromarray(colourful(16, 24)), format, **({} if format == "PNG" else {"xmp": xmp}))
    if format == "PNG":
        content = with_chunk(content, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    assert read_picture(content).shape == (16, 24, 3)
    with Image.open(io.BytesIO(content)) as image:
        assert read_picture(image).shape == (16, 24, 3)


# Colour profiles ------------------------------------------------------------------------------------------------------


def wide_profile() -> bytes:
    """A profile with Display P3's primaries and a gamma of 2.2, as its book has it (ICC.1:2001)."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.5151, 0.2412, -0.0011),
        b"gXYZ": xyz(0.2919, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1571, 0.0666, 0.7841),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    header = bytearray(128)
    header[8:12] = bytes([2, 0x20, 0, 0])
    header[12:24], header[36:40] = b"mntrRGB XYZ ", b"acsp"
    header[68:80] = number(0.9642) + number(1.0) + number(0.8249)
    header[0:4] = struct.pack(">I", place + len(body))
    return bytes(header) + table + body


def in_p3(red: float, green: float, blue: float) -> list[float]:
    """A colour of that profile in sRGB, by the matrices alone."""
    to_xyz = np.array([[0.5151, 0.2919, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = np.linalg.solve(srgb, to_xyz @ (np.array([red, green, blue]) / 255) ** 2.2).clip(0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (curved * 255).tolist()


def test_a_wide_gamut_becomes_srgb():
    colours = np.array([[[200, 100, 50], [120, 130, 140], [60, 160, 90], [255, 255, 255]]], np.uint8)
    expected = [in_p3(*colour) for colour in colours[0].tolist()]
    assert np.abs(np.array(expected) - colours[0]).max() > 8
    for content in (
        encoded(Image.fromarray(colours), "PNG", icc_profile=wide_profile()),
        encoded(Image.fromarray(colours), "TIFF", icc_profile=wide_profile()),
        encoded(Image.fromarray(colours), "WEBP", icc_profile=wide_profile(), lossless=True),
    ):
        np.testing.assert_allclose(read_picture(content)[0], expected, atol=2)
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_allclose(read_picture(image)[0], expected, atol=2)
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    jpeg = encoded(Image.fromarray(flat), "JPEG", quality=98, icc_profile=wide_profile())
    np.testing.assert_allclose(read_picture(jpeg)[8, 8], in_p3(200, 100, 50), atol=4)


def test_opacity_is_laid_on_white_in_srgb():
    rgba = np.array([[[200, 100, 50, 128], [200, 100, 50, 255]]], np.uint8)
    read = read_picture(encoded(Image.fromarray(rgba, "RGBA"), "PNG", icc_profile=wide_profile()))[0]
    np.testing.assert_allclose(read[1], in_p3(200, 100, 50), atol=2)
    np.testing.assert_allclose(read[0], np.array(in_p3(200, 100, 50)) * 128 / 255 + 127, atol=2)


@pytest.mark.parametrize(
    "profile", [b"broken", wide_profile()[:200], ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_and_broken_profiles_change_nothing(profile):
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(RGB), "PNG", icc_profile=profile)), RGB)
    grey = Image.fromarray(RGB[..., 0])
    np.testing.assert_array_equal(read_picture(encoded(grey, "PNG", icc_profile=profile))[..., 0], RGB[..., 0])


# Notes ----------------------------------------------------------------------------------------------------------------


def frames(format: str, **settings: object) -> bytes:
    first, second = (Image.fromarray(colourful(16, 16, seed)) for seed in (0, 1))
    return encoded(first, format, save_all=True, append_images=[second], **settings)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_further_pages_and_frames_are_said(format):
    one, several = encoded(Image.fromarray(colourful(16, 16)), format), frames(format)
    assert read_noted(one).notes == NONE
    notes = read_noted(several).notes
    assert notes == NONE if format == "MPO" else "first was read" in notes[0]  # an MPO's others are previews, mostly
    if format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_picture(several), colourful(16, 16))


def test_a_frame_that_was_chosen_is_read():
    with Image.open(io.BytesIO(frames("TIFF"))) as image:
        image.seek(1)
        read = read_noted(image)
    np.testing.assert_array_equal(read.rgb, colourful(16, 16, 1))
    assert read.notes == NONE


def test_twelve_bits_in_sixteen_are_said_and_can_be_told(tmp_path):
    values = np.array([[0, 1000, 4095]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values).save(tmp_path / "told.tif", tiffinfo={281: 4095})
    for picture in (values, tmp_path / "a.png", tmp_path / "a.tif", Image.fromarray(values)):
        with pytest.warns(wordmask.PictureNote, match="end at 4095 of 65535 and were read as they are, nearly black"):
            assert wordmask.read_picture(picture)[0, :, 0].tolist() == [0, 4, 16]
        read = read_noted(picture, white=4095)
        assert read.rgb[0, :, 0].tolist() == [0, 62, 255]
        assert read.notes == NONE
    told = read_noted(tmp_path / "told.tif")
    assert told.rgb[0, :, 0].tolist() == [0, 62, 255]
    assert told.notes == NONE
    with pytest.raises(ValueError, match="white came as 0"):
        read_noted(values, white=0)


def test_results_say_what_was_assumed(tmp_path, capsys):
    segment = wordmask.load("err-seg-untrained")
    (tmp_path / "a.gif").write_bytes(frames("GIF"))
    with pytest.warns(wordmask.PictureNote, match="several frames"):
        result = segment(tmp_path / "a.gif", "sky")
    assert result.notes == ("It has several frames; the first was read.",)
    assert result.to_dict()["notes"] == list(result.notes)


def bands() -> bytes:
    import tifffile

    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 65536, (16, 16, 8), dtype=np.uint16)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig", metadata=None)
    return file.getvalue()


def test_the_shell_says_what_was_left_out(run, tmp_path):
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(bands())
    asked = ["sky", "--model", "err-seg-untrained"]
    status, _, err = run("segment", "a.tif", "b.tif", *asked)
    assert status == 0, err
    assert "note: a.tif and 1 other: It has 8 bands; the first three were read." in err
    assert "PictureNote" not in err
    status, _, err = run("batch", "*.tif", "out", *asked)
    assert status == 0, err
    assert "note: a and 1 other: It has 8 bands; the first three were read." in err


def test_the_server_says_what_was_left_out():
    from serving import running

    segmenter = wordmask.load("err-seg-untrained")
    with running({"err": segmenter}) as server:
        answer = server.segment(bands(), words=["sky"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["notes"] == ["It has 8 bands; the first three were read."]
        plain = server.segment(with_chunk(PNG, chunk(b"eXIf", b"broken")), words=["sky"])
        assert (plain.status_code, plain.json()["notes"]) == (200, [])


# Objects --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return wordmask.load("err-seg-tiny").model


class Offers:
    """An array of another library."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array


class OffersInterface:
    def __init__(self, array: np.ndarray):
        self.__array_interface__ = array.__array_interface__
        self.kept = array


def test_objects_that_show_a_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    with (tmp_path / "a.png").open("rb") as file:
        for picture in (Offers(RGB), OffersInterface(RGB), io.BytesIO(PNG), file, bytearray(PNG), memoryview(PNG)):
            np.testing.assert_array_equal(read_picture(picture), RGB)
    with pytest.raises(ValueError, match="is at its end, or empty"):
        read_picture(io.BytesIO())
    with (tmp_path / "a.png").open("w") as file, pytest.raises(ValueError, match="Open it with mode 'rb'"):
        read_picture(file)


def test_the_file_of_an_opened_picture_is_known(tmp_path):
    segment = wordmask.load("err-seg-untrained")
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with Image.open(path) as image, path.open("rb") as file:
        assert segment(image, "sky").source == str(path)
        assert segment(file, "sky").to_coco()["images"][0]["file_name"] == "a.png"
        file.seek(0)
        sources = [result.source for result in segment.stream([image, file, RGB], "sky")]
    assert sources == [str(path), str(path), None]


@pytest.mark.parametrize(
    "kind", ["array", "float array", "tensor", "tensor first", "bytearray", "BytesIO", "image", "offered"]
)
def test_a_buffer_may_be_used_again_while_pictures_stream(tiny, kind):
    """Each result has its own picture, and its own labels."""
    segment = Segmenter(tiny, batch=2)
    scenes = [np.full((24, 32, 3), shade, np.uint8) for shade in range(0, 240, 40)]

    def overwritten():
        buffer = np.empty((24, 32, 3), np.float32 if kind == "float array" else np.uint8)
        tensor, image, file, raw = torch.from_numpy(buffer), Image.new("RGB", (32, 24)), io.BytesIO(), bytearray()
        for scene in scenes:
            buffer[:] = scene / 255 if kind == "float array" else scene
            image.paste(Image.fromarray(scene))
            file.seek(0)
            file.write(encoded(Image.fromarray(scene), "BMP"))
            file.seek(0)
            raw[:] = encoded(Image.fromarray(scene), "BMP")
            yield {
                "array": buffer,
                "float array": buffer,
                "tensor": tensor,
                "tensor first": tensor.permute(2, 0, 1),
                "bytearray": raw,
                "BytesIO": file,
                "image": image,
                "offered": Offers(buffer),
            }[kind]

    results = list(segment.stream(overwritten(), "sky; grass", size=64))
    for scene, result in zip(scenes, results, strict=True):
        np.testing.assert_array_equal(result.picture, scene)
        np.testing.assert_array_equal(result.labels, segment(scene, "sky; grass", size=64).labels)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, Offers])
def test_results_own_their_picture(form):
    segment = wordmask.load("err-seg-untrained")
    buffer = RGB.copy()
    one, (two,) = segment(form(buffer), "sky"), segment([form(buffer)], "sky")
    (three,) = segment.stream([lambda: form(buffer)], "sky")
    read = read_picture(form(buffer))
    buffer[:] = 0
    for picture in (one.picture, two.picture, three.picture, read):
        np.testing.assert_array_equal(picture, RGB)


# Damage at random -----------------------------------------------------------------------------------------------------


def test_damaged_pictures_are_read_as_others_read_them_or_refused():
    """A part of `python tests/mutations.py --mutations 5000`."""
    with small_and_quiet():
        found = list(outcomes(MUTATIONS))
    wrong = [outcome for outcome in found if outcome.verdict in ("different", "broke")]
    assert not wrong, [(outcome.kind, outcome.verdict, outcome.detail) for outcome in wrong]
    assert sum(outcome.verdict == "equal" for outcome in found) > MUTATIONS / 5
    assert len({outcome.kind for outcome in found}) > 60


def test_intact_pictures_of_every_kind_are_read_as_others_read_them():
    from mutations import outcome_of, samples

    with small_and_quiet():
        for sample in samples():
            assert outcome_of(sample, sample.content).verdict == "equal", sample.kind
            theirs = sample.other(sample.content)
            assert theirs is None or np.abs(read_noted(sample.content).rgb - theirs).max() <= 2, sample.kind


def test_the_file_of_a_picture_is_closed(tmp_path):
    Path(tmp_path, "a.png").write_bytes(PNG)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_picture(tmp_path / "a.png")
