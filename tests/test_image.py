import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import colourful
from wordmask import pixels
from wordmask.image import Frame, prepare, read_picture
from wordmask.pixels import ImageInput, shortest_edge_size

RGB = colourful(6, 8)


def encoded(image: Image.Image, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **settings)
    return buffer.getvalue()


def test_every_form_of_one_picture(tmp_path):
    image = Image.fromarray(RGB)
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(RGB.copy())
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        image,
        RGB,
        RGB.astype(np.uint16) * 257,
        (RGB.astype(np.uint16) * 257).astype(">u2"),
        RGB / 255,
        (RGB / 255).astype(np.float32),
        np.dstack([RGB, np.full((6, 8), 255, np.uint8)]),
        tensor,
        tensor.permute(2, 0, 1),
        tensor.permute(2, 0, 1).float() / 255,
    ]
    for form in forms:
        np.testing.assert_array_equal(read_picture(form), RGB)


@pytest.mark.parametrize("grey", [np.array([[0, 128, 255]], np.uint8), np.array([[[0], [128], [255]]], np.uint8)])
def test_grey_pictures(grey):
    assert read_picture(grey)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
)
def test_modes(mode):
    base = Image.fromarray(RGB)
    if mode == "I;16":
        image = Image.fromarray(np.array(base.convert("L")).astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(np.array(base.convert("L")).astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(np.array(base.convert("L")).astype(np.float32) / 255)
    elif mode in ("PA", "La"):
        image = base.convert("LA").convert(mode)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (8, 6), bytes(RGB))
    else:
        image = base.convert(mode)
    read = read_picture(image)
    assert read.shape == (6, 8, 3)
    assert read.dtype == np.uint8
    if mode in ("L", "LA", "La", "I", "I;16", "F"):
        np.testing.assert_allclose(read[..., 0], np.array(base.convert("L")), atol=1)
    if mode in ("RGB", "RGBA", "CMYK"):
        np.testing.assert_allclose(read, RGB, atol=1)


def test_sixteen_bit_png_file(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 100, 255]


def test_transparency_is_laid_on_white():
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    expected = [[255, 255, 255], [10, 20, 30], [127, 127, 127]]
    assert read_picture(rgba)[0].tolist() == expected
    assert read_picture(Image.fromarray(rgba))[0].tolist() == expected


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90°, clockwise
    turned = read_picture(encoded(Image.fromarray(colourful(32, 48)), format="JPEG", exif=exif, quality=95))
    assert turned.shape == (48, 32, 3)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.full((4, 4, 3), 2.0), r"floats from 2 to 2; expected \[0, 1\]"),
        (np.full((4, 4, 3), -0.1), r"expected \[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"expected \[0, 1\]"),
        (np.zeros((4, 4, 3), np.int64), "holds int64"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (torch.full((3, 5, 6), 200.0), r"expected \[0, 1\]"),
        (torch.zeros(4, 7, 3), "channels first or last"),
        (np.full((4, 4, 3), 1.0000001), r"to 1\.0000001; expected"),
        ("", "name of the picture is empty"),
        (b"", "empty"),
        (b"no picture at all", "not a picture"),
        (Image.new("RGB", (0, 5)), "0×5 pixels"),
        (17, "came as int"),
        ("missing.jpg", "does not exist"),
        (".", "is a folder"),
        ("x" * 300 + ".png", "cannot be opened: File name too long"),
    ],
)
def test_what_is_no_picture_is_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        read_picture(picture)


def test_a_truncated_file_is_refused(tmp_path):
    for name, settings in (("a.jpg", {"quality": 95}), ("a.png", {})):
        path = tmp_path / name
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, **settings)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match="damaged or ends early"):
            read_picture(path)


def test_a_truncated_image_object_is_refused():
    whole = encoded(Image.fromarray(colourful(64, 64)), format="JPEG")
    with pytest.raises(ValueError, match="damaged or ends early"):
        read_picture(Image.open(io.BytesIO(whole[:-60])))


def test_any_decoder_error_is_a_message(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("decoder exploded")

    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(ValueError, match="decoder exploded"):
        read_picture(tmp_path / "a.png")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(ValueError, match="may not be read"):
        read_picture(tmp_path / "a.png")


def test_a_text_file_called_png_is_refused(tmp_path):
    (tmp_path / "notes.png").write_text("milk, bread")
    with pytest.raises(ValueError, match="not a picture"):
        read_picture(tmp_path / "notes.png")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 48 pixels are more than twice that
    with pytest.raises(ValueError, match="too large"):
        read_picture(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # and less than twice this
    assert read_picture(tmp_path / "bomb.png").shape == (6, 8, 3)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_sizes_keep_the_shape(height, width):
    new_height, new_width = shortest_edge_size(height, width, shortest=800, longest=1333)
    assert min(new_height, new_width) <= 800
    assert max(new_height, new_width) <= 1333
    assert min(new_height, new_width) == 800 or max(new_height, new_width) in (1332, 1333)
    assert abs(new_height / new_width - height / width) <= max(1.0, height / width) * 1.01 / min(new_height, new_width)


def test_the_frame_undoes_the_sizes():
    wanted = ImageInput(80, 133, 64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    prepared, frame = prepare(colourful(30, 90), wanted)
    assert prepared.shape == (3, 64, 64)
    assert frame == Frame((30, 90))


@pytest.mark.parametrize("entries", [1, 700, 10**6])
def test_strips_equal_the_whole(monkeypatch, entries):
    monkeypatch.setattr(pixels, "STRIP_ENTRIES", entries)
    maps = torch.rand(3, 16, 16)
    strips = list(Frame((30, 90)).restore_strips(maps))
    assert len(strips) == {1: 30, 700: 15, 10**6: 1}[entries]
    whole = torch.nn.functional.interpolate(maps[None], size=(30, 90), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(torch.cat(strips, dim=1), whole)
