"""Readers of real data: every layout, every format of labels, and everything that users get wrong."""

import json
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from wordmask.data.datasets import CocoFolder, CocoPanoptic, CocoStuff, LabelledFolder, open_folder
from wordmask.data.outlines import read_runs
from wordmask.vocabulary import Vocabulary

SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]  # 4 × 3 pixels


def draw(path: Path, height: int = 6, width: int = 8, **options) -> Path:
    """Save a picture of its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path, **options)
    return path


def label(path: Path, values: np.ndarray | list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=getattr(values, "dtype", np.uint8))).save(path)
    return path


def checkered(*values: int, height: int = 6, width: int = 8) -> np.ndarray:
    """The values in turn."""
    return np.resize(np.array(values, np.uint8), (height, width))


def complains(check, *parts: str) -> str:
    """Assert that a call raises ValueError, whose message has all parts, and return the message."""
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        check()
    message = str(caught.value)
    assert all(part in message for part in parts), message
    return message


# ---------------------------------------------------------------- LabelledFolder


@pytest.fixture
def labelled(tmp_path) -> Path:
    """Two pictures of road, car and sky."""
    root = tmp_path / "streets"
    draw(root / "images" / "b.jpg")
    draw(root / "images" / "a.png")
    label(root / "labels" / "a.png", checkered(0, 1, 1, 255))
    label(root / "labels" / "b.png", checkered(2))
    (root / "names.txt").write_text("road\ncar, automobile\nsky\n")
    return root


def test_a_labelled_folder_is_read_in_the_order_of_names(labelled):
    data = LabelledFolder(labelled)
    data.check()
    assert len(data) == 2
    assert data.vocabulary.classes == Vocabulary.of(["road", "car, automobile", "sky"]).classes
    first, second = data
    assert first.source.endswith("a.png")
    assert first.labels.tolist() == [0, 1]
    assert not first.crowd.any()
    assert np.array_equal(first.semantic, checkered(0, 1, 1, 255).astype(np.int8))
    assert np.array_equal(first.segments, checkered(1, 2, 2, 0))
    assert np.array_equal(first.rgb, np.array(Image.open(labelled / "images" / "a.png")))
    assert second.labels.tolist() == [2]
    assert data[-1].source == second.source
    with pytest.raises(IndexError):
        data[2]


def test_hidden_files_and_others_are_passed_over(labelled):
    (labelled / "images" / "._a.png").write_bytes(b"junk")
    (labelled / "images" / "Thumbs.db").write_bytes(b"junk")
    (labelled / "labels" / "readme.txt").write_text("about")
    data = LabelledFolder(labelled)
    data.check()
    assert len(data) == 2


def test_of_a_palette_the_index_counts(labelled):
    image = Image.fromarray(checkered(0, 1, 2), mode="P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    for bits in (8, 4, 2):
        image.save(labelled / "labels" / "a.png", bits=bits)
        assert np.array_equal(LabelledFolder(labelled)[0].semantic, checkered(0, 1, 2))


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, as ImageMagick writes small label maps, but Pillow doesn't."""
    height, width = values.shape
    digits = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(labelled, bits):
    values = checkered(0, 1) if bits == 1 else checkered(0, 1, 2)
    (labelled / "labels" / "a.png").write_bytes(grey_png(values, bits))
    data = LabelledFolder(labelled)
    data.check()
    assert np.array_equal(data[0].semantic, values)


def test_16_bits_have_their_own_unlabelled_value(tmp_path):
    draw(tmp_path / "images" / "a.png")
    (tmp_path / "names.txt").write_text("\n".join(f"thing number {number}" for number in range(300)))
    values = checkered(0).astype(np.uint16)
    values[0, :3] = 255, 299, 65535
    label(tmp_path / "labels" / "a.png", values)
    data = LabelledFolder(tmp_path)
    data.check()
    assert data[0].labels.tolist() == [0, 255, 299]
    assert data[0].semantic[0, :4].tolist() == [255, 299, -1, 0]
    label(tmp_path / "labels" / "a.png", np.full((6, 8), 300, np.uint16))
    complains(data.check, "labels/a.png", "holds 300", "0 to 299", "or 65535")


def test_a_label_without_any_class_gives_no_segment(labelled):
    label(labelled / "labels" / "a.png", checkered(255))
    picture = LabelledFolder(labelled)[0]
    assert picture.labels.shape == (0,)
    assert (picture.semantic == -1).all()


def test_a_turned_photograph_fits_its_upright_label(labelled):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    draw(labelled / "images" / "b.jpg", 6, 8, exif=exif)
    values = checkered(0, 1, 1, 255, 2, height=8, width=6)
    for number, written in enumerate((values, np.ascontiguousarray(values.T[::-1]))):  # upright; as it is stored
        label(labelled / "labels" / "b.png", written)
        data = LabelledFolder(labelled)
        data.check()
        assert data[1].rgb.shape == (8, 6, 3)
        assert np.array_equal(data[1].semantic, values.astype(np.int8)), number
    label(labelled / "labels" / "b.png", checkered(2, height=7, width=6))
    complains(data.check, "another size than their label", "b.jpg (6×8 (stored as 8×6)), b.png (6×7)")


def test_a_label_is_read_as_it_lies_whatever_its_exif_says(labelled):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(checkered(2)).save(labelled / "labels" / "b.png", exif=exif)
    data = LabelledFolder(labelled)
    data.check()
    assert data[1].segments.shape == (6, 8)


def test_missing_labels_and_pictures_are_named(labelled):
    (labelled / "labels" / "a.png").rename(labelled / "labels" / "c.png")
    data = LabelledFolder(labelled)
    message = complains(data.check, "Pictures without a label", "labels'/<the same name>.png", "(1):\n  a.png")
    assert "Labels without a picture" in message
    assert "(1):\n  c.png" in message
    complains(lambda: data[0], "Pictures without a label", "a.png")


def test_the_first_five_are_named_and_the_rest_counted(labelled):
    for number in range(9):
        draw(labelled / "images" / f"more-{number}.png")
    message = complains(LabelledFolder(labelled).check, "Pictures without a label", "(9):")
    assert "  more-4.png\n  … and 4 more" in message
    assert "more-5.png" not in message


def test_a_value_outside_the_list_is_named(labelled):
    label(labelled / "labels" / "b.png", checkered(2, 3, 254))
    data = LabelledFolder(labelled)
    wanted = ("labels/b.png", "holds 3, 254", "expected 0 to 2, the 3 classes of names.txt, or 255")
    complains(data.check, *wanted)
    complains(lambda: data[1], *wanted)
    assert data[0].labels.tolist() == [0, 1]


def test_another_size_is_named(labelled):
    label(labelled / "labels" / "b.png", checkered(2, height=6, width=7))
    data = LabelledFolder(labelled)
    complains(data.check, "another size than their label", "b.jpg (8×6), b.png (7×6)")
    complains(lambda: data[1], "b.jpg", "8×6", "7×6")


def test_labels_in_colour_are_refused(labelled):
    draw(labelled / "labels" / "b.png")
    complains(LabelledFolder(labelled).check, "labels/b.png", "a PNG of mode RGB; expected a PNG with one channel")


def test_a_jpeg_is_no_label_whatever_it_is_called(labelled):
    Image.fromarray(checkered(2)).save(labelled / "labels" / "b.png", format="JPEG")
    complains(LabelledFolder(labelled).check, "labels/b.png", "a JPEG of mode L; expected a PNG")


@pytest.mark.parametrize(
    ("folder", "what"), [("images", "not a picture that can be read"), ("labels", "damaged or no picture")]
)
def test_damaged_files_are_named(labelled, folder, what):
    path = next((labelled / folder).glob("b.*"))
    path.write_bytes(b"not a picture")
    data = LabelledFolder(labelled)
    complains(data.check, f"{folder}/{path.name}", what)
    complains(lambda: data[1], f"{folder}/{path.name}")


def test_a_label_that_ends_early_is_named(labelled):
    draw(labelled / "images" / "b.jpg", 60, 80)
    path = label(labelled / "labels" / "b.png", np.random.default_rng(0).integers(0, 3, (60, 80), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-500])
    complains(LabelledFolder(labelled).check, "Labels that cannot be used (1)", "labels/b.png", "damaged")


def test_two_pictures_cannot_share_a_label(labelled):
    draw(labelled / "images" / "a.jpg")
    complains(LabelledFolder(labelled).check, "would share a label", "a.jpg, a.png")


def test_what_a_labelled_folder_needs(labelled):
    complains(lambda: LabelledFolder(labelled / "nowhere"), "nowhere' is not there; expected the folder of a data set")
    complains(lambda: LabelledFolder(labelled / "names.txt"), "names.txt' is a file")
    (labelled / "names.txt").write_text("\n")
    complains(lambda: LabelledFolder(labelled), "names.txt", "holds no words")
    (labelled / "names.txt").unlink()
    complains(lambda: LabelledFolder(labelled), "names.txt", "does not exist")
    for content, told in (
        ("\nroad\ncar\nsky\n", "blank line, line 1"),
        ("road\n\ncar\nsky\n", "blank line, line 2"),
        ("road; car\nsky\n", "several classes in line 1"),
        ("1: road\n2: car\n3: sky\n", "labels count from 0"),
        ("name\nroad\ncar\nsky\n", "the head of a table"),
    ):
        (labelled / "names.txt").write_text(content)
        complains(lambda: LabelledFolder(labelled), "names.txt", told)
    for content in ("# mine\nroad\ncar\nsky\n\n", "0: road\n1: car\n2: sky\n", "road: 0\ncar: 1\nsky: 2"):
        (labelled / "names.txt").write_text(content)
        assert LabelledFolder(labelled).vocabulary.names == ["road", "car", "sky"]


def test_names_with_a_blank_line(shared):
    """Their labels hold 1 and 2: the blank line was counted by who wrote them, and not by us."""
    folder = shared / "cases" / "data" / "names_with_a_blank_line"
    complains(lambda: LabelledFolder(folder), "names.txt", "blank line, line 1", "Values in labels count the lines")


def test_labels_have_a_folder(labelled):
    (labelled / "labels").rename(labelled / "old")
    complains(lambda: LabelledFolder(labelled), "has no folder of labels; expected labels or masks or")


def test_a_folder_without_pictures_is_refused(labelled):
    (labelled / "images").rename(labelled / "old")
    (labelled / "images" / "train").mkdir(parents=True)
    complains(lambda: LabelledFolder(labelled), "no picture in", "images")


def test_home_is_understood(labelled, monkeypatch):
    monkeypatch.setenv("HOME", str(labelled.parent))
    assert len(LabelledFolder("~/streets")) == 2


# ---------------------------------------------------------------- CocoStuff


def stuff(root: Path, pictures: str, labels: str, values: np.ndarray) -> Path:
    draw(root / pictures / "000000000009.jpg")
    label(root / labels / "000000000009.png", values)
    return root


RAW = checkered(0, 10, 11, 12, 89, 90, 91, 181, 255)  # street signs, 11, and hair brushes, 90, are not in the benchmark
MAPPED = checkered(0, 10, 255, 11, 79, 255, 80, 170, 255)  # as files say it


@pytest.mark.parametrize("pictures", ["images/train2017", "train2017"])
@pytest.mark.parametrize(
    "folder",
    [
        "stuffthingmaps",
        "stuffthingmaps_trainval2017",
        "annotations",
        "stuffthingmaps_detectron2",
        "annotations_detectron2",
    ],
)
def test_every_layout_of_coco_stuff(tmp_path, pictures, folder):
    values = MAPPED if folder.endswith("detectron2") else RAW
    data = CocoStuff(stuff(tmp_path, pictures, f"{folder}/train2017", values))
    data.check()
    data.check(thorough=True)
    assert len(data) == 1
    assert np.array_equal(data[0].semantic, np.where(MAPPED == 255, -1, MAPPED.astype(int)))
    assert data[0].labels.tolist() == [0, 10, 11, 79, 80, 170]
    names = [data.vocabulary.names[one] for one in data[0].labels]
    assert names[:5] == ["person", "fire hydrant", "stop sign", "toothbrush", "banner"]


def test_the_171_classes_are_the_shared_facts(tmp_path, shared):
    facts = json.loads((shared / "vocabularies" / "coco-stuff-171.labels.json").read_text())["label_of"]
    values = np.array([*range(182), 255], np.uint8)[None]
    draw(tmp_path / "val2017" / "1.jpg", 1, 183)
    label(tmp_path / "stuffthingmaps" / "val2017" / "1.png", values)
    labels = CocoStuff(tmp_path, "val2017")[0].semantic[0]
    assert labels.tolist() == [facts.get(str(value), -1) for value in values[0].tolist()]
    assert sorted(set(labels.tolist())) == [-1, *range(171)]


@pytest.mark.parametrize(
    ("folder", "value", "expected"),
    [("stuffthingmaps", 182, "0 to 181"), ("stuffthingmaps_detectron2", 171, "0 to 170")],
)
def test_values_beyond_coco_stuff_are_named(tmp_path, folder, value, expected):
    data = CocoStuff(stuff(tmp_path, "train2017", f"{folder}/train2017", checkered(0, value)))
    data.check()
    complains(lambda: data.check(thorough=True), "000000000009.png", f"holds {value}", expected)
    complains(lambda: data[0], "000000000009.png", f"holds {value}")


def test_coco_stuff_names_what_is_missing(tmp_path):
    stuff(tmp_path, "train2017", "stuffthingmaps/train2017", RAW)
    draw(tmp_path / "train2017" / "000000000025.jpg")
    draw(tmp_path / "train2017" / "000000000030.jpg", 5, 5)
    label(tmp_path / "stuffthingmaps/train2017/000000000030.png", RAW)
    message = complains(CocoStuff(tmp_path).check, "Pictures without a label", "000000000025.jpg")
    assert "000000000030.jpg (5×5), 000000000030.png (8×6)" in message
    complains(lambda: CocoStuff(tmp_path, "val2017"), "no folder of pictures; expected images/val2017 or val2017")
    (tmp_path / "stuffthingmaps").rename(tmp_path / "labels")
    complains(lambda: CocoStuff(tmp_path), "no folder of labels", "stuffthingmaps/train2017", "annotations/train2017")


def test_coco_stuff_has_8_bits(tmp_path):
    data = CocoStuff(stuff(tmp_path, "train2017", "annotations/train2017", RAW.astype(np.uint16)))
    complains(lambda: data[0], "000000000009.png", "16 bits a pixel; expected 8")


# ---------------------------------------------------------------- CocoPanoptic

PEOPLE = {3226956: 1, 66051: 1, 7: 184}  # a crowd, a person, a tree


@pytest.fixture
def panoptic(tmp_path) -> Path:
    """One picture as published; the ids need all three colours."""
    ids = np.resize(np.array([0, *PEOPLE]), (6, 8))
    draw(tmp_path / "train2017" / "000000000042.jpg")
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    label(tmp_path / "annotations" / "panoptic_train2017" / "000000000042.png", colours)
    parts = [{"id": one, "category_id": category, "iscrowd": int(one == 3226956)} for one, category in PEOPLE.items()]
    content = {
        "images": [{"id": 42, "file_name": "000000000042.jpg", "height": 6, "width": 8}],
        "annotations": [{"image_id": 42, "file_name": "000000000042.png", "segments_info": parts}],
        "categories": [
            {"id": entry.dataset_id, "name": entry.name} for entry in Vocabulary.builtin("eov-seg/coco-panoptic-133")
        ],
    }
    (tmp_path / "annotations" / "panoptic_train2017.json").write_text(json.dumps(content))
    return tmp_path


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_coco_panoptic_as_published(panoptic):
    data = CocoPanoptic(panoptic)
    data.check()
    data.check(thorough=True)
    picture = data[0]
    assert np.array_equal(picture.segments, checkered(0, 1, 2, 3))
    assert [data.vocabulary.names[one] for one in picture.labels] == ["person", "person", "tree"]
    assert picture.crowd.tolist() == [True, False, False]
    with pytest.raises(IndexError):
        data[1]


def test_a_broken_photograph_of_coco_is_found_by_a_thorough_check(panoptic, tmp_path):
    mapped = stuff(tmp_path / "stuff", "train2017", "annotations/train2017", RAW)
    for data in (CocoPanoptic(panoptic), CocoStuff(mapped)):
        picture = data.files(0)[0]
        draw(picture, 60, 80)
        picture.write_bytes(picture.read_bytes()[:-300])
        complains(lambda data=data: data.check(thorough=True), "Pictures that cannot be read", picture.name)


def test_other_places_of_coco_panoptic(panoptic):
    (panoptic / "annotations" / "panoptic_train2017").rename(panoptic / "panoptic_train2017")
    (panoptic / "images").mkdir()
    (panoptic / "train2017").rename(panoptic / "images" / "train2017")
    assert CocoPanoptic(panoptic)[0].labels.tolist() == CocoPanoptic(panoptic)[-1].labels.tolist()
    places = {"segments": panoptic / "panoptic_train2017", "pictures": "images/train2017"}
    assert len(CocoPanoptic(panoptic, annotations="annotations/panoptic_train2017.json", **places)) == 1
    complains(lambda: CocoPanoptic(panoptic, pictures="photos"), "no folder of pictures; expected photos")


def test_pictures_come_in_the_order_of_their_id(panoptic):
    def add(content):
        parts = content["annotations"][0]["segments_info"]
        content["images"].insert(0, {"id": 100, "file_name": "z.jpg"})
        content["annotations"].insert(
            0, {"image_id": 100, "file_name": "000000000042.png", "segments_info": parts[::-1]}
        )

    change(panoptic / "annotations/panoptic_train2017.json", add)
    draw(panoptic / "train2017" / "z.jpg")
    data = CocoPanoptic(panoptic)
    assert [Path(picture.source).name for picture in data] == ["000000000042.jpg", "z.jpg"]
    assert data[1].crowd.tolist() == [False, False, True]
    assert np.array_equal(data[1].segments, checkered(0, 3, 2, 1))


def test_an_id_that_the_json_does_not_list_is_named(panoptic):
    change(
        panoptic / "annotations/panoptic_train2017.json",
        lambda content: content["annotations"][0]["segments_info"].pop(1),
    )
    data = CocoPanoptic(panoptic)
    data.check()
    complains(lambda: data.check(thorough=True), "000000000042.png", "segments 66051", "does not list")
    complains(lambda: data[0], "000000000042.png", "segments 66051", "does not list")


def test_a_picture_without_segments_is_all_unlabelled(panoptic):
    change(
        panoptic / "annotations/panoptic_train2017.json",
        lambda content: content["annotations"][0]["segments_info"].clear(),
    )
    label(panoptic / "annotations/panoptic_train2017/000000000042.png", np.zeros((6, 8, 3), np.uint8))
    picture = CocoPanoptic(panoptic)[0]
    assert len(picture.labels) == 0
    assert not picture.segments.any()


def edited(parts: dict):
    return lambda content: content["annotations"][0]["segments_info"][0].update(parts)


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (edited({"category_id": 12}), ("000000000042.png: 12", "category that COCO Panoptic does not have")),
        (edited({"category_id": [1]}), ("000000000042.png: [1]", "category that COCO Panoptic does not have")),
        (edited({"id": 7}), ("000000000042.png: 7", "the same id")),
        (edited({"id": 0}), ("000000000042.png", "without an id from 1 to 16777215")),
        (lambda content: content["images"].clear(), ("panoptic_train2017.json", "has no images")),
        (lambda content: content["annotations"].clear(), ("panoptic_train2017.json", "has no annotations")),
        (
            lambda content: content["images"][0].update(id=41),
            ("panoptic_train2017.json", "images it does not list: 42"),
        ),
        (
            lambda content: content["images"][0].pop("file_name"),
            ("panoptic_train2017.json", "images[0]", "'file_name': str"),
        ),
        (
            lambda content: content["categories"].pop(),
            ("has 132 categories; expected the 133 of COCO Panoptic", "200", "CocoFolder"),
        ),
    ],
)
def test_what_a_panoptic_json_may_not_say(panoptic, edit, wanted):
    change(panoptic / "annotations/panoptic_train2017.json", edit)
    complains(lambda: CocoPanoptic(panoptic), *wanted)


def test_coco_panoptic_names_missing_files_and_other_sizes(panoptic):
    data = CocoPanoptic(panoptic)
    draw(panoptic / "train2017" / "000000000042.jpg", 6, 9)
    complains(data.check, "another size", "000000000042.jpg (9×6), 000000000042.png (8×6)")
    complains(lambda: data[0], "000000000042.jpg", "9×6")
    label(panoptic / "annotations/panoptic_train2017/000000000042.png", checkered(0))
    complains(lambda: data[0], "000000000042.png", "PNG of mode L; expected a PNG with red, green and blue")
    for path in (panoptic / "train2017/000000000042.jpg", panoptic / "annotations/panoptic_train2017/000000000042.png"):
        path.unlink()
        complains(data.check, "does not have; fetch them again", path.name)


def test_the_sample_photographs(shared):
    """The same segments in both formats; areas and crowds as the json says."""
    root = shared / "samples" / "coco"
    panoptic = CocoPanoptic(root, annotations="panoptic.json", segments="panoptic", pictures="images")
    detection = CocoFolder(root, annotations="instances.json")
    panoptic.check(thorough=True)
    detection.check()
    entries = json.loads((root / "panoptic.json").read_text())["annotations"]
    assert [len(picture.labels) for picture in panoptic] == [18, 32]
    for ours, other, entry in zip(
        panoptic, detection, sorted(entries, key=lambda entry: entry["image_id"]), strict=True
    ):
        assert Path(ours.source).stem == Path(entry["file_name"]).stem
        assert np.bincount(ours.segments.ravel())[1:].tolist() == [part["area"] for part in entry["segments_info"]]
        assert ours.crowd.tolist() == [bool(part["iscrowd"]) for part in entry["segments_info"]]
        assert [panoptic.vocabulary.classes[one].dataset_id for one in ours.labels] == [
            part["category_id"] for part in entry["segments_info"]
        ]
        assert np.array_equal(ours.semantic, other.semantic)
        assert np.array_equal(ours.segments, other.segments)
        assert np.array_equal(ours.crowd, other.crowd)
        assert np.array_equal(ours.rgb, other.rgb)


# ---------------------------------------------------------------- CocoFolder


def coco(root: Path, annotations: list[dict], name: str = "export.json", **more) -> Path:
    """One picture, 8 × 6, with these annotations; categories 5, bird, and 2, sea."""
    draw(root / "images" / "a.jpg")
    categories = [{"id": 5, "name": "bird"}, {"id": 2, "name": "sea", "isthing": 0}]
    entries = [
        {"id": number, "image_id": 1, "category_id": 5, "segmentation": SQUARE, **one}
        for number, one in enumerate(annotations)
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}]
    (root / name).write_text(json.dumps({"images": images, "annotations": entries, "categories": categories, **more}))
    return root


def square(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def filled(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((6, 8), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    return np.diff(edges, prepend=0).tolist()


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": None, "width": 8}])
def test_a_size_that_is_not_said_is_the_pictures(tmp_path, size):
    data = CocoFolder(coco(tmp_path, [{}], images=[{"id": 1, "file_name": "a.jpg", **size}]))
    data.check()
    assert data[0].segments.shape == (6, 8)


def test_half_a_size_is_checked(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg", "height": None, "width": 9}]
    data = CocoFolder(coco(tmp_path, [{}], images=images))
    with pytest.raises(ValueError, match=r"a\.jpg"):
        data.check()


@pytest.mark.parametrize("kind", ["polygons", "run lengths", "compressed"])
def test_every_way_to_write_an_outline(tmp_path, kind):
    mask = filled(1, 1, 5, 4)
    compressed = coco_mask.encode(np.asfortranarray(mask))
    outline = {
        "polygons": SQUARE,
        "run lengths": {"size": [6, 8], "counts": runs_of(mask)},
        "compressed": {"size": [6, 8], "counts": compressed["counts"].decode()},
    }[kind]
    data = CocoFolder(coco(tmp_path, [{"segmentation": outline}]))
    data.check()
    assert np.array_equal(data[0].segments, mask)
    assert data[0].labels.tolist() == [1]


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_run_lengths_are_cocos(height, width, density, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    compressed = coco_mask.encode(np.asfortranarray(mask))
    for counts in (compressed["counts"].decode(), compressed["counts"]):
        runs = read_runs({"size": [height, width], "counts": counts}, (height, width))
        assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T, mask)
    assert read_runs({"size": [height, width], "counts": runs.tolist()}, (height, width)).tolist() == runs.tolist()


def test_polygons_of_one_annotation_are_one_segment(tmp_path):
    data = CocoFolder(coco(tmp_path, [{"segmentation": square(0, 0, 2, 2) + square(5, 3, 8, 6)}]))
    assert np.array_equal(data[0].segments, filled(0, 0, 2, 2) + filled(5, 3, 8, 6))


def test_smaller_ones_lie_on_top_and_of_equal_ones_the_later(tmp_path):
    outlines = [square(2, 2, 4, 4), square(0, 0, 8, 6), square(3, 2, 5, 4)]
    segments = CocoFolder(coco(tmp_path, [{"segmentation": one} for one in outlines]))[0].segments
    expected = filled(0, 0, 8, 6) * 2
    expected[2:4, 2:4] = 1
    expected[2:4, 3:5] = 3
    assert np.array_equal(segments, expected)


def test_classes_are_the_categories_by_id_and_stuff_is_one_segment(tmp_path):
    parts = [square(0, 0, 2, 2), square(2, 0, 4, 2), square(4, 0, 6, 2), square(6, 0, 8, 2)]
    annotations = [{"segmentation": one, "category_id": 2 if number % 2 else 5} for number, one in enumerate(parts)]
    annotations[2]["iscrowd"] = 1
    data = CocoFolder(coco(tmp_path, annotations))
    assert [(entry.name, entry.thing, entry.dataset_id) for entry in data.vocabulary] == [
        ("sea", False, 2),
        ("bird", True, 5),
    ]
    assert data[0].labels.tolist() == [1, 0, 1]
    assert data[0].crowd.tolist() == [False, False, True]
    assert data[0].segments[0].tolist() == [1, 1, 2, 2, 3, 3, 2, 2]


def test_kinds_come_from_the_json_or_from_the_word(tmp_path):
    categories = [{"id": 1, "name": "sky"}, {"id": 5, "name": "sea", "isthing": 1}, {"id": 7, "name": "brid, bird"}]
    data = CocoFolder(coco(tmp_path, [{}], categories=categories))
    assert [entry.thing for entry in data.vocabulary] == [False, True, True]
    assert data.vocabulary.classes[2].names == ("brid", "bird")


def test_a_picture_without_annotations_shows_nothing(tmp_path):
    images = [{"id": 9, "file_name": "empty.jpg"}, {"id": 1, "file_name": "a.jpg"}]
    data = CocoFolder(coco(tmp_path, [{}], images=images))
    draw(tmp_path / "images" / "empty.jpg", 3, 3)
    data.check()
    assert [Path(picture.source).name for picture in data] == ["a.jpg", "empty.jpg"]
    assert data[1].labels.shape == (0,)
    assert not data[1].segments.any()


@pytest.mark.parametrize("written", ["images/a.jpg", "a.jpg"])
def test_file_names_may_be_relative_to_the_json(tmp_path, written):
    coco(tmp_path, [{}], images=[{"id": 1, "file_name": written}])
    CocoFolder(tmp_path).check()
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "a.jpg")
    CocoFolder(tmp_path).check()


@pytest.mark.parametrize("text", ["{}", "[]", "", "\n", "null"])
def test_an_empty_json_is_named(tmp_path, text):
    coco(tmp_path, [{}])
    (tmp_path / "export.json").write_text(text)
    complains(lambda: CocoFolder(tmp_path), "export.json", "holds nothing", "expected {'images'")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("[1]", "holds a list"), ('{"images": [', "cannot be read"), ("\x00\x01", "cannot be read"), ("3", "holds a int")],
)
def test_a_json_of_another_kind_is_named(tmp_path, text, wanted):
    coco(tmp_path, [{}])
    (tmp_path / "export.json").write_text(text)
    complains(lambda: CocoFolder(tmp_path), "export.json", wanted)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_json_without_entries_is_named(tmp_path, key):
    for nothing in ([], {}, None):
        change(coco(tmp_path, [{}]) / "export.json", lambda content, nothing=nothing: content.update({key: nothing}))
        complains(lambda: CocoFolder(tmp_path), "export.json", f"has no {key}", "Export it again")


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"images": [{"id": None, "file_name": "a.jpg"}]}, ("images[0] is", "'id': int, 'file_name': str")),
        ({"images": [{"id": 1, "file_name": "a.jpg"}] * 2}, ("two images with the id 1",)),
        ({"images": [{"id": 2, "file_name": "a.jpg"}]}, ("annotations of images it does not list: 1",)),
        ({"categories": [{"id": 3, "name": "bird"}]}, ("annotations of categories it does not list: 5",)),
        ({"categories": [{"id": 5, "name": "bird"}, {"id": 6, "name": "Bird"}]}, ("'Bird' is given twice",)),
        ({"categories": [{"id": 5, "name": "bird; sea"}]}, ("';' in its name",)),
        ({"categories": [{"id": 5, "name": " "}]}, ("is blank",)),
    ],
)
def test_entries_that_do_not_fit_are_named(tmp_path, more, wanted):
    coco(tmp_path, [{}], **more)
    complains(lambda: CocoFolder(tmp_path), "export.json", *wanted)


OUTSIDE = "run lengths are damaged; expected whole numbers that sum to 48"


@pytest.mark.parametrize(
    ("outline", "wanted"),
    [
        ([], "has no outline"),
        (None, "has no outline"),
        ([[1, 1, 4, 4]], "at least three corners"),
        ([[1, 1, 4, 4, 2, 2, 3]], "at least three corners"),
        ([[1, 1, 4, 4, 2, "2"]], "at least three corners"),
        ([[1, 1, 4, 4, 2, float("nan")]], "at least three corners"),
        ([[1, 1, 4, 4, 2, 4e9]], "far outside the picture of 8×6"),
        ([[1, 1, 4, 4, -2e9, 3]], "far outside the picture of 8×6"),
        ({"size": [8, 6], "counts": [48]}, "for [height, width] [8, 6]; expected [6, 8]"),
        ({"size": [6, 8], "counts": [3, 4]}, OUTSIDE),
        ({"size": [6, 8], "counts": [3, 46]}, OUTSIDE),
        ({"size": [6, 8], "counts": [50, -2]}, OUTSIDE),
        ({"size": [6, 8], "counts": "zzz"}, OUTSIDE),
        ({"size": [6, 8], "counts": ""}, OUTSIDE),
        ({"size": [6, 8], "counts": "é\n"}, OUTSIDE),
        ({"size": [6, 8]}, OUTSIDE),
    ],
)
def test_outlines_that_cannot_be_used_are_named(tmp_path, outline, wanted):
    data = CocoFolder(coco(tmp_path, [{}, {"segmentation": outline}]))
    complains(data.check, "Outlines that cannot be used (1)", "Annotation 1 of 'a.jpg'", wanted)
    complains(lambda: data[0], "Annotation 1 of 'a.jpg'", "export.json", wanted)


def test_coordinates_that_are_parts_of_the_picture_are_seen(tmp_path):
    data = CocoFolder(coco(tmp_path, [{"segmentation": [[0.1, 0.1, 0.5, 0.1, 0.5, 0.4]]}] * 3))
    complains(data.check, "export.json", "cover no pixel at all; expected coordinates in pixels")


def test_pictures_of_the_json_are_looked_for_and_measured(tmp_path):
    data = CocoFolder(coco(tmp_path, [{}]))
    draw(tmp_path / "images" / "a.jpg", 8, 6)
    wanted = ("'a.jpg' is 6×8 pixels", "says 8×6")
    complains(data.check, "Pictures of another size", *wanted)
    complains(lambda: data[0], *wanted)
    (tmp_path / "images" / "a.jpg").write_bytes(b"no picture")
    complains(data.check, "Pictures that cannot be read", "images/a.jpg")
    (tmp_path / "images" / "a.jpg").unlink()
    complains(data.check, "Pictures that the json names", "does not have (1):\n  a.jpg")
    complains(lambda: data[0], "Pictures that the json names", "a.jpg")


def test_which_json_is_meant(tmp_path):
    coco(tmp_path, [{}])
    two, three = [{}, {"category_id": 2}], [{}, {"category_id": 2}, {"iscrowd": 1}]
    coco(tmp_path, two, name="other.json")
    complains(lambda: CocoFolder(tmp_path), "these json files: export.json, other.json. Expected one")
    assert len(CocoFolder(tmp_path, annotations="other.json")[0].labels) == 2
    coco(tmp_path, three, name="annotations.json")
    assert len(CocoFolder(tmp_path)[0].labels) == 3
    complains(lambda: CocoFolder(tmp_path, annotations="none.json"), "none.json", "does not exist")


# ---------------------------------------------------------------- all


def test_open_folder_sees_which_of_the_two_it_is(labelled, tmp_path):
    assert isinstance(open_folder(labelled), LabelledFolder)
    assert isinstance(open_folder(str(coco(tmp_path / "tool", [{}]))), CocoFolder)
    (labelled / "about.json").write_text("{}")
    assert isinstance(open_folder(labelled), LabelledFolder)
    coco(labelled, [{}], name="about.json")
    (labelled / "names.txt").unlink()
    assert isinstance(open_folder(labelled), CocoFolder)
    (labelled / "about.json").unlink()
    complains(lambda: open_folder(labelled), "names.txt", "does not exist")


def test_open_folder_says_both_layouts(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    complains(
        lambda: open_folder(tmp_path),
        "holds no data set",
        "labels/*.png",
        "names.txt",
        "*.json in COCO's detection format",
    )
    complains(lambda: open_folder(tmp_path / "no"), "is not there")


def test_every_data_set_goes_to_other_processes(labelled, panoptic, tmp_path):
    tool = coco(tmp_path / "tool", [{}])
    mapped = stuff(tmp_path / "stuff", "train2017", "annotations/train2017", RAW)
    for data in (LabelledFolder(labelled), CocoPanoptic(panoptic), CocoFolder(tool), CocoStuff(mapped)):
        again = pickle.loads(pickle.dumps(data))
        assert np.array_equal(again[0].segments, data[0].segments)
        assert len(again) == len(data)
