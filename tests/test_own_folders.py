"""One's own folders, as labelling tools and other programs leave them."""

import base64
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from wordmask.data.frames import Frames
from wordmask.data.labelled import LabelledPicture
from wordmask.data.layouts import open_folder
from wordmask.data.own_folder import on_ground
from wordmask.data.picture_files import PictureFinder
from wordmask.data.reading import FolderReading
from wordmask.data.survey import survey

HEIGHT, WIDTH = 18, 24
SQUARE = [2, 2, 14, 2, 14, 10, 2, 10]
CATEGORIES = [{"id": 1, "name": "car"}, {"id": 2, "name": "road"}]
PAINTED = np.zeros((HEIGHT, WIDTH), int)
PAINTED[2:10, 2:14] = 1


def picture(path: Path, seed: int = 0, **options) -> Path:
    """Save a picture of 24 × 18 pixels, of its own colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path, **options)
    return path


def coco(root: Path, file: str = "annotations.json", *, names=("a0.jpg", "a1.jpg"), draw=True, **changes) -> Path:
    """Write a json for some pictures, a car on each; and the pictures, in images/."""
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names, 1)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0}
        for n in range(1, len(names) + 1)
    ]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES} | changes
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    for number, name in enumerate(names if draw else ()):
        picture(root / "images" / name, number)
    return root


def labelled(root: Path, *values: np.ndarray, names: str = "road\ncar\n", folder: str = "labels") -> Path:
    for number, array in enumerate(values):
        picture(root / "images" / f"a{number}.jpg", number)
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(array).save(root / folder / f"a{number}.png")
    if names:
        (root / "names.txt").write_text(names)
    return root


def halves(left: int, right: int) -> np.ndarray:
    array = np.full((HEIGHT, WIDTH), left, np.uint8)
    array[:, WIDTH // 2 :] = right
    return array


def opened(root: Path, **reading):
    data = open_folder(root, FolderReading(**reading))
    data.check()
    return data


def refused(root: Path, *parts: str, **reading) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # each part is looked for below
        opened(root, **reading)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    return message


# ---------------------------------------------------------------- the cases beside the checkout


@pytest.mark.parametrize(
    ("case", "reading", "names", "labels"),
    [
        ("placeholder_category", {}, ["car", "road"], [[0], [1], [0]]),
        ("annotations_folder", {}, ["car", "road"], [[0], [1], [0]]),
        ("backslashes", {}, ["car", "road"], [[0], [1], [0]]),
        ("url_encoded", {}, ["car", "road"], [[0], [1], [0]]),
        ("one_empty_one_bad", {"partial": True}, ["car", "road"], [[], [], [0]]),
        ("one_empty_one_bad", {"partial": True, "boxes": "filled"}, ["car", "road"], [[0], [], [0]]),
        ("binary_0_255", {"values": "0,255"}, ["background", "car"], [[0, 1]] * 3),
        ("unlabelled_is_11", {"unlabelled": "11"}, ["sky", "road"], [[0, 1]] * 3),
        ("colour_coded", {}, ["road", "sky"], [[0, 1]] * 3),
        ("ultralytics", {}, ["car", "road"], [[0, 1]] * 4),
    ],
)
def test_a_case_is_read(shared, case, reading, names, labels):
    data = opened(shared / "cases" / "data" / case, **reading)
    assert data.vocabulary.names == names
    assert [one.labels.tolist() for one in data] == labels


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("binary_0_255", ("nothing but 0, which is 'background', and 255", "values=0,255", "unlabelled=255")),
        ("all_unlabelled", ("No pixel of any picture has a class",)),
        ("one_empty_one_bad", ("a box alone", "'a0.jpg'", "Annotation 2 of 'a1.jpg'", "partial=true")),
        ("unlabelled_is_11", ("holds 11", "unlabelled=VALUE")),
    ],
)
def test_a_case_is_refused(shared, case, parts):
    refused(shared / "cases" / "data" / case, *parts)


def test_crowds_and_upright_pictures_of_the_cases(shared):
    crowds = opened(shared / "cases" / "data" / "crowd_as_text")
    assert [one.crowd.tolist() for one in crowds] == [[False], [True], [False]]
    upright = opened(shared / "cases" / "data" / "exif_upright")[0]
    assert upright.rgb.shape[:2] == upright.segments.shape == (24, 18)
    assert upright.segments[2:14, 2:10].all()
    assert upright.segments.sum() == 96


# ---------------------------------------------------------------- COCO's json as tools write it


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        ("C:\\work\\shots\\a.jpg", "images/a.jpg"),
        ("/data/upload/1/3f2a91bc-a.jpg", "images/a.jpg"),
        ("/data/upload/1/3f2a91bc-a.jpg", "images/3f2a91bc-a.jpg"),
        ("/data/local-files/?d=shots%5Ca.jpg", "images/shots/a.jpg"),
        ("caf%C3%A9%200.jpg", "images/café 0.jpg"),
        ("100%25.jpg", "images/100%.jpg"),
        ("100%25.jpg", "images/100%25.jpg"),
        ("A.JPG", "images/a.jpg"),
        ("a.jpg", "images/A.JPG"),
        ("cafe\u0301.jpg", "images/caf\u00e9.jpg"),
        ("./a.jpg", "deep/inside/a.jpg"),
    ],
)
def test_pictures_are_found_whatever_a_tool_calls_them(tmp_path, name, file):
    coco(tmp_path, names=(name,), draw=False)
    picture(tmp_path / file)
    data = opened(tmp_path)
    assert data.files(0)[0] == tmp_path / file
    assert np.array_equal(data[0].segments, PAINTED)


@pytest.mark.parametrize("name", ["data:image/jpeg;base64," + "A" * 5000, "a\0.jpg", "", " ", "images", "..", "%"])
def test_names_that_no_file_has_are_missing_pictures(tmp_path, name):
    coco(tmp_path, names=("a.jpg", name), draw=False)
    picture(tmp_path / "images" / "a.jpg")
    refused(tmp_path, "Pictures that the json names")
    assert survey(opened(tmp_path, partial=True)).usable == [0]


def test_a_name_that_fits_two_pictures_is_named(tmp_path):
    coco(tmp_path, names=("a.jpg",), draw=False)
    for folder in ("one", "two"):
        picture(tmp_path / folder / "a.jpg")
    refused(tmp_path, "Pictures that may be several", "one/a.jpg", "two/a.jpg")


def test_a_picture_that_is_not_there_is_not_another_ones(tmp_path):
    coco(tmp_path, names=("one/a.jpg", "two/a.jpg"), draw=False)
    picture(tmp_path / "images" / "one" / "a.jpg")
    refused(tmp_path, "Pictures that the json names", "two/a.jpg")
    data = opened(tmp_path, partial=True)
    assert survey(data).usable == [0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_outlines_lie_on_the_frame_whose_size_the_json_says(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / "images" / "a.jpg", exif=exif)
    stood_up = ImageOps.exif_transpose(Image.open(tmp_path / "images" / "a.jpg"))
    width, height = stood_up.size if upright else (WIDTH, HEIGHT)
    images = [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}]
    data = opened(coco(tmp_path, names=("a.jpg",), draw=False, images=images))
    expected = np.zeros((height, width), np.uint8)
    expected[2:10, 2:14] = 1
    if not upright and orientation > 4:  # otherwise both have one size, and it is what people see
        turned = Image.fromarray(expected)
        turned.getexif()[0x0112] = orientation
        expected = np.array(ImageOps.exif_transpose(turned))
    assert np.array_equal(data[0].segments, expected)
    assert data[0].rgb.shape[:2] == stood_up.size[::-1]


def test_every_way_to_turn_a_label(tmp_path):
    for orientation in range(1, 9):
        values = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH) % 251)
        values.getexif()[0x0112] = orientation
        upright = ImageOps.exif_transpose(values)
        frames = Frames(upright.size[::-1], (HEIGHT, WIDTH), orientation)
        if frames.upright != frames.stored:
            assert np.array_equal(frames.stand_up(np.array(values)), np.array(upright)), orientation


@pytest.mark.parametrize(
    "changes",
    [
        {"categories": [{"id": "1", "name": "car"}, {"id": "2", "name": "road"}]},
        {"categories": [{"id": 1.0, "name": "car"}, {"id": 2.0, "name": "road"}]},
        {"images": [{"id": "1", "file_name": "a0.jpg"}, {"id": "2", "file_name": "a1.jpg"}]},
        {"images": [{"id": 1, "file_name": "a0.jpg", "width": 0, "height": 0}, {"id": 2, "file_name": "a1.jpg"}]},
        {"info": None, "licenses": []},
    ],
)
def test_ids_as_text_and_what_is_not_said(tmp_path, changes):
    data = opened(coco(tmp_path, **changes))
    assert [one.labels.tolist() for one in data] == [[0], [0]]
    assert np.array_equal(data[0].segments, PAINTED)


@pytest.mark.parametrize(
    ("said", "crowd"), [("0", False), ("1", True), ("false", False), ("True", True), (None, False), (1.0, True)]
)
def test_a_crowd_may_be_said_as_text(tmp_path, said, crowd):
    annotations = [{"image_id": 1, "category_id": 1, "segmentation": [SQUARE], "iscrowd": said}]
    assert opened(coco(tmp_path, annotations=annotations))[0].crowd.tolist() == [crowd]


def test_a_crowd_that_is_neither_is_named(tmp_path):
    annotations = [{"id": 7, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "iscrowd": "perhaps"}]
    refused(coco(tmp_path, annotations=annotations), "Annotation 7", "iscrowd", "'perhaps'")


@pytest.mark.parametrize(
    "outline",
    [
        SQUARE,
        json.dumps([SQUARE]),
        {"size": [HEIGHT, WIDTH], "counts": [38, *([8, 10] * 11), 8, 188]},
        json.dumps({"size": [HEIGHT, WIDTH], "counts": [38, *([8, 10] * 11), 8, 188]}),
    ],
)
def test_outlines_as_bare_lists_and_as_text(tmp_path, outline):
    annotations = [{"image_id": 1, "category_id": 1, "segmentation": outline}]
    assert np.array_equal(opened(coco(tmp_path, annotations=annotations))[0].segments, PAINTED)


def test_run_lengths_may_be_bare_text(tmp_path):
    from pycocotools import mask

    text = mask.encode(np.asfortranarray(PAINTED.astype(np.uint8)))["counts"].decode()
    annotations = [{"image_id": 1, "category_id": 1, "segmentation": text}]
    assert np.array_equal(opened(coco(tmp_path, annotations=annotations))[0].segments, PAINTED)


def test_boxes_are_no_outlines_unless_they_are_said_to_be(tmp_path):
    annotations = [{"id": 4, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [2, 2, 12, 8]}]
    coco(tmp_path, annotations=annotations)
    refused(tmp_path, "a box alone", "Annotation 4 of 'a0.jpg'", "boxes=filled")
    assert np.array_equal(opened(tmp_path, boxes="filled")[0].segments, PAINTED)


def test_annotations_that_stand_twice_count_once(tmp_path):
    one = {"image_id": 1, "category_id": 1, "segmentation": [SQUARE]}
    data = opened(coco(tmp_path, annotations=[one | {"id": 1}, one | {"id": 2}]))
    assert data[0].labels.tolist() == [0]
    assert "1 annotations stand twice" in data.notes[0]


def test_roboflows_placeholder_is_no_class(tmp_path):
    placeholder = {"id": 0, "name": "vehicles", "supercategory": "none"}
    others = [one | {"supercategory": "vehicles"} for one in CATEGORIES]
    data = opened(coco(tmp_path, "_annotations.coco.json", categories=[placeholder, *others]))
    assert data.vocabulary.names == ["car", "road"]
    assert "'vehicles'" in data.notes[0]
    used = [{"image_id": 1, "category_id": 0, "segmentation": [SQUARE]}]
    data = opened(coco(tmp_path, "_annotations.coco.json", categories=[placeholder, *others], annotations=used))
    assert data.vocabulary.names == ["vehicles", "car", "road"]


def test_one_bad_annotation_of_many_is_left_out(tmp_path):
    names = [f"a{number}.jpg" for number in range(5)]
    coco(tmp_path, names=names)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"][1]["segmentation"] = [[1, 1, 5, 5]]
    content["annotations"] += [{"id": 90, "image_id": 77, "category_id": 1}, {"id": 91, "image_id": 1}, 3]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    refused(tmp_path, "annotations[6]")
    data = opened(tmp_path, partial=True)
    assert [len(one.labels) for one in data] == [1, 0, 1, 1, 1]
    said = "\n".join(survey(data).findings.lines())
    assert all(
        part in said for part in ("Annotation 2 of 'a1.jpg'", "Annotation 90", "annotations[6]", "annotations[7]")
    )


def test_where_something_was_left_out_there_is_no_background(tmp_path):
    coco(tmp_path)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"][1]["segmentation"] = [[1, 1, 5, 5]]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    data = opened(tmp_path, partial=True, unlabelled="background")
    assert survey(data).usable == [0]


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_files_called_train_and_val_are_both_read(tmp_path, folder):
    coco(tmp_path, str(Path(folder) / "instances_train.json"), names=("a.jpg", "b.jpg"))
    coco(tmp_path, str(Path(folder) / "instances_val.json"), names=("c.jpg",))
    data = opened(tmp_path)
    assert [Path(one.source).name for one in data] == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.by_itself == [2]


def test_folders_called_train_and_valid_are_both_read(tmp_path):
    for folder, names in (("train", ("a.jpg", "b.jpg")), ("valid", ("a.jpg",)), ("test", ("z.jpg",))):
        coco(tmp_path / folder, "_annotations.coco.json", names=names)
        for name in names:
            (tmp_path / folder / "images" / name).rename(tmp_path / folder / name)
    data = opened(tmp_path)
    assert [Path(one.source).parent.name for one in data] == ["train", "train", "valid"]
    assert data.by_itself == [2]


# ---------------------------------------------------------------- label pictures


def test_masks_of_0_and_255_are_not_taken_for_one_class(tmp_path):
    root = labelled(tmp_path, halves(0, 255), halves(255, 0), names="background\ncar\n")
    refused(root, "nothing but 0", "values=0,255", "unlabelled=255")
    assert opened(root, values="0,255")[0].semantic[0, [0, -1]].tolist() == [0, 1]
    assert opened(root, unlabelled="255")[0].semantic[0, [0, -1]].tolist() == [0, -1]
    refused(root, "3 numbers; expected 2", values="0,128,255")


def test_labels_that_are_all_empty_are_an_error(tmp_path):
    refused(labelled(tmp_path, halves(255, 255)), "No pixel of any picture has a class")


def test_another_value_is_no_class(tmp_path):
    root = labelled(tmp_path, halves(1, 11))
    refused(root, "holds 11", "unlabelled=VALUE", "reduce_zero_label=true")
    assert opened(root, unlabelled="11")[0].semantic[0, [0, -1]].tolist() == [1, -1]


def test_zero_may_be_no_class(tmp_path):
    root = labelled(tmp_path, halves(0, 2), halves(1, 255))
    data = opened(root, reduce_zero_label=True)
    assert data[0].semantic[0, [0, -1]].tolist() == [-1, 1]
    assert data[1].semantic[0, [0, -1]].tolist() == [0, -1]
    refused(labelled(tmp_path, halves(0, 3)), "holds 3; expected 1 to 2", "or 0 or 255", reduce_zero_label=True)


def test_shifted_names_are_suspected(tmp_path):
    root = labelled(tmp_path, halves(0, 1), halves(0, 1), names="road\ncar\nsky\n")
    data = opened(root)
    (said,) = data.suspicions(survey(data).counts())
    assert "'sky', the last name, never occurs" in said
    assert "reduce_zero_label=true" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("colours.txt", "128 64 128 road\n70 130 180 sky\n0 0 0 unlabelled\n"),
        ("colors.txt", "road: 128, 64, 128\nsky: 70, 130, 180\nvoid: 0, 0, 0\n"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\nsky,70,130,180\nVoid,0,0,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:70,130,180::\nvoid:0,0,0::\n"),
        ("colours.txt", "#804080 road\n#4682b4 sky\n#000000 ignore\n"),
    ],
)
@pytest.mark.parametrize("names", ["", "sky\nroad\n"])
def test_colours_are_classes_by_a_table(tmp_path, file, text, names):
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:6], colours[6:12] = (128, 64, 128), (70, 130, 180)
    labelled(tmp_path, colours, names=names)
    (tmp_path / file).write_text(text)
    data = opened(tmp_path)
    expected = ["road", "sky"] if not names else ["sky", "road"]
    assert data.vocabulary.names == expected
    assert data[0].semantic[:, 0][[0, 6, 12]].tolist() == [expected.index("road"), expected.index("sky"), -1]
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / "labels" / "a0.png")  # the same colours, whatever their numbers
    assert np.array_equal(opened(tmp_path)[0].semantic, data[0].semantic)


def test_a_colour_that_the_table_lacks_is_named(tmp_path):
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[0, :5] = 9, 8, 7
    labelled(tmp_path, colours)
    refused(tmp_path, "mode RGB", "colours.txt")
    (tmp_path / "colours.txt").write_text("0 0 0 road\n")
    refused(tmp_path, "9 8 7 of 5 pixels", "colours.txt")


def test_voc_as_cvat_and_labelme_write_it(tmp_path):
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[3:9] = 128, 0, 0
    for number in range(3):
        picture(tmp_path / "JPEGImages" / f"a{number}.jpg", number)
    (tmp_path / "SegmentationClass").mkdir()
    for number in range(2):
        Image.fromarray(colours).quantize(4).save(tmp_path / "SegmentationClass" / f"a{number}.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a0\n")
    (lists / "val.txt").write_text("a1\n")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncar:128,0,0::\n")
    data = opened(tmp_path)
    assert (data.vocabulary.names, len(data), data.by_itself) == (["background", "car"], 2, [1])
    assert data[0].semantic[:, 0].tolist() == [0] * 3 + [1] * 6 + [0] * 9


def test_voc_without_names_has_vocs_own(tmp_path):
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    picture(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(halves(7, 255)).save(tmp_path / "SegmentationClass" / "a.png")
    data = opened(tmp_path)
    assert data.vocabulary.names[data[0].labels[0]] == "car"
    assert "VOC's own" in data.notes[0]


def test_parts_and_other_names_of_labels(tmp_path):
    for place, label in (
        ("train/a.jpg", "train/a.jpg.png"),
        ("train/b.jpg", "train/b_mask.png"),
        ("val/c.jpg", "val/c.png"),
    ):
        picture(tmp_path / "images" / place, len(place))
        (tmp_path / "masks" / label).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(halves(0, 1)).save(tmp_path / "masks" / label)
    (tmp_path / "names.txt").write_text("road\ncar\n")
    data = opened(tmp_path)
    assert (len(data), data.by_itself) == (3, [2])


# ---------------------------------------------------------------- Ultralytics, labelme, panoptic


def yolo(root: Path, *lines: str, yaml: str = "path: .\ntrain: images\nval: images\nnames: [car, road]\n") -> Path:
    for number, text in enumerate(lines):
        picture(root / "images" / f"a{number}.jpg", number)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"a{number}.txt").write_text(text)
    if yaml:
        (root / "data.yaml").write_text(yaml)
    return root


SHARES = " ".join(f"{value / (WIDTH, HEIGHT)[place % 2]:.8f}" for place, value in enumerate(SQUARE))


def test_ultralytics_outlines(tmp_path):
    data = opened(yolo(tmp_path, f"0 {SHARES}\n", f"1 {SHARES}\n0 {SHARES}\n", ""))
    assert [one.labels.tolist() for one in data] == [[0], [1, 0], []]
    assert np.array_equal(data[0].segments, PAINTED)
    assert data.by_itself is None  # train and val are the same


def test_ultralytics_parts(tmp_path):
    for part in ("train", "val"):
        yolo(tmp_path / part, f"0 {SHARES}\n", yaml="")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: /content/set/val/images\nnames: {0: car, 1: road}\n"
    )
    data = opened(tmp_path)
    assert (len(data), data.by_itself) == (2, [1])


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("2 " + SHARES, ("line 1", "the class 2 came; expected 0 to 1")),
        ("0 0.1 0.1 0.5", ("line 1", "4 numbers came")),
        ("0 10 10 40 10 40 30", ("Annotation of line 1", "from 10 to 40", "not pixels")),
        ("0 a b c d e f", ("line 1", "expected a class")),
        ("0 0.5 0.5 0.2 0.2", ("Annotation of line 1", "a box alone", "boxes=filled")),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path, line, parts):
    refused(yolo(tmp_path, f"{line}\n", f"0 {SHARES}\n"), *parts)
    assert [len(one.labels) for one in opened(tmp_path, partial=True)] == [0, 1]


@pytest.mark.parametrize(
    ("yaml", "parts"),
    [
        ("train: images\nnames: [car, no]\n", ("no text to yaml", "quotes")),
        ("train: images\nnames: [car, road]\nnc: 3\n", ("nc: 3, and has 2 names",)),
        ("train: images\nnames: {0: car, 2: road}\n", ("expected 0 to 1, each once",)),
        ("train: images\n", ("has no names",)),
        ("train: images\nnames: [car]\nkpt_shape: [17, 3]\n", ("key points",)),
        ("a: [", ("cannot be read",)),
        ("train: elsewhere\nnames: [car]\n", ("'elsewhere'", "images=FOLDER")),
    ],
)
def test_a_yaml_that_cannot_be_used_is_named(tmp_path, yaml, parts):
    folder = "pictures" if "elsewhere" in yaml else "images"
    yolo(tmp_path, f"0 {SHARES}\n", yaml=yaml)
    (tmp_path / "images").rename(tmp_path / folder)
    refused(tmp_path, "data.yaml", *parts)


def test_boxes_of_ultralytics_may_be_filled(tmp_path):
    box = f"0 {8 / WIDTH} {6 / HEIGHT} {12 / WIDTH} {8 / HEIGHT}\n"
    assert np.array_equal(opened(yolo(tmp_path, box), boxes="filled")[0].segments, PAINTED)


def test_a_list_of_classes_in_place_of_the_yaml(tmp_path):
    yolo(tmp_path, f"1 {SHARES}\n", yaml="")
    (tmp_path / "classes.txt").write_text("car\nroad\n")
    assert opened(tmp_path).vocabulary.names == ["car", "road"]


def labelme(path: Path, *shapes: dict, image: str = "a.jpg") -> None:
    content = {"version": "5", "shapes": list(shapes), "imagePath": image, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_labelme(tmp_path):
    corners = np.array(SQUARE).reshape(-1, 2).tolist()
    stamp = io.BytesIO()
    Image.fromarray(np.ones((8, 12), np.uint8) * 255).save(stamp, "PNG")
    mask = base64.b64encode(stamp.getvalue()).decode()
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg", 1)
    labelme(tmp_path / "a.json", {"label": "car", "points": corners, "shape_type": "polygon"})
    shape = {"label": "bike", "points": [[2, 2], [13, 9]], "shape_type": "mask", "mask": mask}
    labelme(tmp_path / "b.json", shape, {"label": "__ignore__", "points": corners}, image="..\\shots\\b.jpg")
    data = opened(tmp_path)
    assert data.vocabulary.names == ["bike", "car"]
    assert [one.labels.tolist() for one in data] == [[1], [0]]
    assert all(np.array_equal(one.segments, PAINTED) for one in data)
    labelme(tmp_path / "b.json", {"label": "bike", "points": [[1, 1], [5, 5]], "shape_type": "line"}, image="b.jpg")
    refused(tmp_path, "Shape 1 in", "it is a line of 2 points")
    labelme(
        tmp_path / "b.json", {"label": "bike", "points": [[2, 2], [14, 10]], "shape_type": "rectangle"}, image="b.jpg"
    )
    refused(tmp_path, "a box alone", "boxes=filled")
    labelme(
        tmp_path / "b.json", {"label": "bike", "points": [[12, 9], [12, 14]], "shape_type": "circle"}, image="b.jpg"
    )
    assert opened(tmp_path)[1].segments.sum() == pytest.approx(math.pi * 25, rel=0.1)


def test_a_panoptic_json_of_ones_own(tmp_path):
    coco(tmp_path, "panoptic.json", annotations=[])
    content = json.loads((tmp_path / "panoptic.json").read_text())
    parts = [{"id": 300, "category_id": 1, "iscrowd": "0"}, {"id": 7, "category_id": 2}]
    content["annotations"] = [{"image_id": n, "file_name": f"a{n - 1}.png", "segments_info": parts} for n in (1, 2)]
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:5], colours[5:9] = (300 % 256, 1, 0), (7, 0, 0)
    (tmp_path / "panoptic").mkdir()
    for number in range(2):
        Image.fromarray(colours).save(tmp_path / "panoptic" / f"a{number}.png")
    data = opened(tmp_path)
    assert data[0].labels.tolist() == [0, 1]
    assert data[1].segments[:, 0].tolist() == [1] * 5 + [2] * 4 + [0] * 9


# ---------------------------------------------------------------- which it is


def test_two_formats_in_one_folder_are_not_chosen_between(tmp_path):
    labelled(coco(tmp_path), halves(0, 1), halves(1, 0))
    refused(tmp_path, "format=labels", "format=coco")
    assert opened(tmp_path, format="coco").vocabulary.names == ["car", "road"]
    assert opened(tmp_path, format="labels").vocabulary.names == ["road", "car"]
    refused(tmp_path, "format came as 'voc'; expected labels, coco", format="voc")


def test_what_cannot_be_read_is_told_what_converts_it(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation/>")
    refused(tmp_path, "supervision converts them")
    shutil.rmtree(tmp_path / "Annotations")
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    refused(tmp_path, "Export it from CVAT as COCO")


def test_pictures_may_lie_elsewhere(tmp_path):
    coco(tmp_path / "labels of mine", draw=False)
    for name in ("a0.jpg", "a1.jpg"):
        picture(tmp_path / "pictures" / name)
    refused(tmp_path / "labels of mine", "does not have")
    assert len(opened(tmp_path / "labels of mine", images=tmp_path / "pictures")) == 2


def test_unlabelled_pixels_may_be_a_class(tmp_path):
    data = opened(coco(tmp_path), unlabelled="background")
    assert data.vocabulary.names == ["car", "road", "background"]
    assert np.array_equal(data[0].semantic, np.where(PAINTED == 1, 0, 2))
    again = labelled(tmp_path / "own", halves(0, 255), halves(1, 0), names="background\ncar\n")
    assert opened(again, unlabelled="background")[0].labels.tolist() == [0]  # it is one of the classes


def test_a_crowd_of_background_stays_apart():
    segments = np.array([[0, 1], [0, 1]], np.int32)
    one = LabelledPicture(np.zeros((2, 2, 3), np.uint8), segments, np.array([2]), np.array([True]), "a")
    assert on_ground(one, 2).labels.tolist() == [2, 2]


@pytest.mark.parametrize(
    "reading",
    [{"unlabelled": "grey"}, {"values": "0;1"}, {"boxes": "some"}, {"values": "0,1", "reduce_zero_label": True}],
)
def test_how_to_read_is_checked(reading):
    with pytest.raises(ValueError, match=r"came as|both given"):
        FolderReading(**reading)


def test_how_to_read_in_the_shell():
    reading = FolderReading.of(["unlabelled=11", "reduce_zero_label=true"], partial=True)
    assert reading == FolderReading(unlabelled="11", reduce_zero_label=True, partial=True)
    for wrong in ("colour=red", "unlabelled", "partial=perhaps"):
        with pytest.raises(ValueError, match="came"):
            FolderReading.of([wrong])


def test_a_finder_prefers_what_is_spelled_so(tmp_path):
    for name in ("a.jpg", "images/a.jpg", "b/c.jpg"):
        picture(tmp_path / name)
    finder = PictureFinder([tmp_path / "images", tmp_path])
    assert finder.find("a.jpg") == tmp_path / "images" / "a.jpg"
    assert finder.find("B\\C.JPG") == tmp_path / "b" / "c.jpg"
    assert finder.find("nowhere.jpg") is None


# ---------------------------------------------------------------- what is in them


def test_a_survey_counts_and_tells_contents_apart(tmp_path):
    root = labelled(tmp_path, halves(0, 1), halves(1, 255), halves(0, 0))
    shutil.copy(root / "images" / "a0.jpg", root / "images" / "a2.jpg")
    found = survey(opened(root))
    counts = found.counts()
    assert counts.pixels.tolist() == [216 + 432, 216 + 216]
    assert counts.pictures.tolist() == [2, 2]
    assert counts.unlabelled == 216
    assert found.alike() == [[0, 2], [1]]


def test_a_fingerprint_is_that_of_contents(tmp_path):
    one = survey(opened(labelled(tmp_path / "one", halves(0, 1), halves(1, 255)))).fingerprint()
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "two" / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "two" / "names.txt").write_bytes(b"road\r\ncar\r\n")
    assert survey(opened(tmp_path / "two")).fingerprint() == one
    (tmp_path / "three").mkdir()
    for name in ("images", "labels", "names.txt"):
        (tmp_path / "three" / name).symlink_to(tmp_path / "two" / name)
    assert survey(opened(tmp_path / "three")).fingerprint() == one
    Image.fromarray(halves(1, 0)).save(tmp_path / "two" / "labels" / "a1.png")
    assert survey(opened(tmp_path / "three")).fingerprint() != one


def test_a_truncated_photograph_is_found_before_it_matters(tmp_path):
    root = labelled(tmp_path, halves(0, 1), halves(1, 0), halves(1, 0))
    path = root / "images" / "a1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    refused(root, "Pictures that cannot be read (1)", "images/a1.jpg", "partial=true")
    assert survey(opened(root, partial=True)).usable == [0, 2]
