"""Benchmarks in miniature, laid out as they are published; what is missing; and the real samples."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask
from scipy.io import savemat

from conftest import colourful
from wordmask.data import splits
from wordmask.data.ade20k import Ade20k150, Ade20k847, Ade20kPanoptic
from wordmask.data.cityscapes import Cityscapes, CityscapesPanoptic
from wordmask.data.pascal import PascalContext59, PascalContext459, PascalVoc
from wordmask.data.splits import SPLITS, data_root, describe_splits, find_split, open_split

SIZE = (6, 8)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colourful(*size)).save(path)
    return path


def label(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def quarters(a: int, b: int, c: int, d: int, dtype=np.uint8) -> np.ndarray:
    """Four values, each in a quarter of a picture of `SIZE`."""
    return np.kron(np.array([[a, b], [c, d]]), np.ones((3, 4), int)).astype(dtype)


def corners(labels: np.ndarray) -> list[int]:
    return labels[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()


# One builder for each published layout: it writes a picture with four quarters. ---------------------------------------


def a_150(root: Path) -> None:
    folder = root / "ADEChallengeData2016"
    picture(folder / "images" / "validation" / "ADE_val_00000001.jpg")
    label(folder / "annotations" / "validation" / "ADE_val_00000001.png", quarters(1, 0, 150, 13))


def ade20k_panoptic(root: Path) -> None:
    a_150(root)  # wall, nothing, flag (things), person (things)
    instances = np.zeros((*SIZE, 3), np.uint8)
    instances[3:, 4:] = (4, 1, 0)  # instance class 4 is label 12, person
    instances[4:, 4:6] = (4, 2, 0)
    instances[0, 0] = (1, 3, 0)  # a bed (7) pasted over the wall
    label(root / "ADEChallengeData2016" / "annotations_instance" / "validation" / "ADE_val_00000001.png", instances)


def a_847(root: Path) -> None:
    folder = root / "ADE20K_2021_17_01" / "images" / "ADE" / "validation" / "urban" / "street"
    picture(folder / "ADE_val_00000001.jpg")
    colours = np.zeros((*SIZE, 3), np.uint8)
    # wall, building, an object of no class, none
    for place, index in zip(((0, 0), (0, 4), (3, 0), (3, 4)), (2978, 312, 1, 0), strict=True):
        rows, columns = slice(place[0], place[0] + 3), slice(place[1], place[1] + 4)
        colours[rows, columns, 0], colours[rows, columns, 1], colours[rows, columns, 2] = (
            index // 256 * 10 + 3,
            index % 256,
            77,
        )
    label(folder / "ADE_val_00000001_seg.png", colours)
    label(folder / "ADE_val_00000001_parts_1.png", colours)
    label(folder / "ADE_val_00000001" / "instance_000_ADE_val_00000001.png", colours[..., 0])


def pc_59(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2010"
    # 7 is none of the 59
    outlines = {2: quarters(1, 0, 0, 0), 23: quarters(0, 1, 0, 0), 9: quarters(1, 0, 1, 0), 7: quarters(0, 0, 0, 1)}
    segments = []
    for category, pixels in outlines.items():
        rle = mask.encode(np.asfortranarray(pixels))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        segments.append(
            {"image_id": 2008000002, "category_id": category, "segmentation": segmentation, "id": len(segments)}
        )
    images = [
        {"image_id": 2008000002, "file_name": "2008_000002.jpg", "phase": "val", "height": 6, "width": 8},
        {"image_id": 2008000003, "file_name": "2008_000003.jpg", "phase": "train", "height": 6, "width": 8},
    ]
    picture(folder / "JPEGImages" / "2008_000002.jpg")
    (folder / "trainval_merged.json").write_text(json.dumps({"images": images, "annos_segmentation": segments}))


def pc_459(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2010"
    picture(folder / "JPEGImages" / "2008_000002.jpg")
    (folder / "trainval").mkdir()
    savemat(
        folder / "trainval" / "2008_000002.mat", {"LabelMap": quarters(1, 459, 0, 23, np.uint16)}, do_compression=True
    )


def pas_20(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    picture(folder / "JPEGImages" / "2007_000033.jpg")
    image = Image.fromarray(quarters(1, 0, 20, 255), mode="P")
    image.putpalette([value for place in range(256) for value in (place, 255 - place, 7)])
    (folder / "SegmentationClass").mkdir()
    image.save(folder / "SegmentationClass" / "2007_000033.png")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n")


def coco_stuff(root: Path) -> None:
    picture(root / "coco" / "val2017" / "000000000139.jpg")
    label(root / "coco" / "stuffthingmaps" / "val2017" / "000000000139.png", quarters(0, 255, 181, 11))


def coco_panoptic(root: Path) -> None:
    from wordmask.vocabulary import Vocabulary

    picture(root / "coco" / "val2017" / "000000000139.jpg")
    ids = quarters(1, 0, 300, 70000, np.int64)
    label(
        root / "coco" / "panoptic_val2017" / "000000000139.png",
        np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8),
    )
    parts = [
        {"id": 1, "category_id": 1},
        {"id": 300, "category_id": 1, "iscrowd": 1},
        {"id": 70000, "category_id": 200},
    ]
    categories = [{"id": entry.dataset_id} for entry in Vocabulary.builtin("eov-seg/coco-panoptic-133")]
    images = [{"id": 139, "file_name": "000000000139.jpg"}]
    annotations = [{"image_id": 139, "file_name": "000000000139.png", "segments_info": parts}]
    (root / "coco" / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco" / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))


def cityscapes(root: Path) -> None:
    picture(root / "cityscapes" / "leftImg8bit" / "val" / "munster" / "munster_000000_000019_leftImg8bit.png")
    stem = root / "cityscapes" / "gtFine" / "val" / "munster" / "munster_000000_000019_gtFine"
    label(stem.with_name(stem.name + "_labelIds.png"), quarters(7, 0, 26, 33))
    values = quarters(7, 0, 26, 33001, np.uint16)  # road, none, a crowd of cars, a bicycle
    values[4:, 4:] = 33000
    label(stem.with_name(stem.name + "_instanceIds.png"), values)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "a-150": a_150,
    "a-847": a_847,
    "pc-59": pc_59,
    "pc-459": pc_459,
    "pas-20": pas_20,
    "pas-20b": pas_20,
    "coco-stuff-171": coco_stuff,
    "coco-panoptic-133": coco_panoptic,
    "ade20k-panoptic": ade20k_panoptic,
    "cityscapes-19": cityscapes,
    "cityscapes-panoptic": cityscapes,
}
EXPECTED = {  # classes of the four corners
    "a-150": [0, -1, 149, 12],
    "a-847": [0, 1, -1, -1],
    "pc-59": [1, 5, 1, -1],  # aeroplane is painted over by bag, which comes later
    "pc-459": [0, 458, -1, 22],
    "pas-20": [0, -1, 19, -1],
    "pas-20b": [0, 20, 19, -1],
    "coco-stuff-171": [0, -1, 170, -1],
    "coco-panoptic-133": [0, -1, 0, 116],
    "ade20k-panoptic": [0, -1, 149, 12],
    "cityscapes-19": [0, -1, 13, 18],
    "cityscapes-panoptic": [0, -1, 13, 18],
}


def test_every_row_is_tried():
    assert set(BUILDERS) == {name for name, split in SPLITS.items() if split.folders} == set(EXPECTED)


@pytest.mark.parametrize("name", BUILDERS)
def test_published_layouts_are_read(tmp_path, name):
    BUILDERS[name](tmp_path)
    data, places = open_split(name, tmp_path, partial=True)
    assert len(places) == 1
    labelled = data[places[0]]
    assert labelled.rgb.shape == (*SIZE, 3)
    if name == "coco-panoptic-133":
        assert data.vocabulary.classes[labelled.semantic[-1, -1]].dataset_id == 200
    else:
        assert corners(labelled.semantic) == EXPECTED[name]
    again, _ = open_split(name, tmp_path / SPLITS[name].folders[0], partial=True)  # the data set's own folder
    assert np.array_equal(again[places[0]].segments, labelled.segments)


def test_things_are_pasted_over_stuff(tmp_path):
    ade20k_panoptic(tmp_path)
    labelled = Ade20kPanoptic(tmp_path / "ADEChallengeData2016")[0]
    assert sorted(labelled.labels.tolist()) == [0, 7, 12, 12]  # the wall, a bed, two people; the flag has no instance
    assert labelled.labels[labelled.segments[0, 0] - 1] == 7
    assert labelled.labels[labelled.segments[0, 1] - 1] == 0
    assert labelled.segments[3, 4] != labelled.segments[4, 4] > 0
    assert labelled.segments[4, 4] == labelled.segments[5, 5]
    assert labelled.segments[-1, 0] == 0
    assert labelled.semantic[0, 0] == 0, "semantic stays the label's own"


def test_cityscapes_crowds_and_train_ids(tmp_path):
    cityscapes(tmp_path)
    labelled = CityscapesPanoptic(tmp_path / "cityscapes")[0]
    assert labelled.labels.tolist() == [0, 13, 18, 18]
    assert labelled.crowd.tolist() == [False, True, False, False]
    folder = tmp_path / "cityscapes" / "gtFine" / "val" / "munster"
    label(folder / "munster_000000_000019_gtFine_labelTrainIds.png", quarters(18, 255, 0, 1))
    assert corners(Cityscapes(tmp_path / "cityscapes")[0].semantic) == [18, -1, 0, 1]


def test_the_augmented_labels_of_voc_come_first(tmp_path):
    pas_20(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    label(folder / "SegmentationClassAug" / "2007_000033.png", quarters(5, 5, 5, 0))
    assert corners(PascalVoc(folder)[0].semantic) == [4, 4, 4, -1]
    assert corners(PascalVoc(folder, background=True)[0].semantic) == [4, 4, 4, 20]


def test_labels_lie_elsewhere_than_a_first_folder(tmp_path):
    coco_stuff(tmp_path)
    (tmp_path / "coco").rename(tmp_path / "coco_stuff164k")
    picture(tmp_path / "coco" / "val2017" / "000000000139.jpg")
    data, _ = open_split("coco-stuff-171", tmp_path, partial=True)
    assert "coco_stuff164k" in str(data.root)


# What is not there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDERS)
def test_a_split_that_is_not_there(tmp_path, name):
    with pytest.raises(ValueError, match="is not here: looked for") as error:
        open_split(name, tmp_path)
    assert str(tmp_path / SPLITS[name].folders[0]) in str(error.value)
    assert "http" in str(error.value)
    assert "--data" in str(error.value)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_split_that_is_not_whole(tmp_path, name):
    BUILDERS[name](tmp_path)
    with pytest.raises(ValueError, match="is not whole: it has") as error:
        open_split(name, tmp_path)
    message = str(error.value)
    split = SPLITS[name]
    if name == "pc-459":
        assert f"missing or empty ({2 * (split.pictures - 1)})" in message
        assert "JPEGImages/2008_000003.jpg" in message
    else:
        assert f"no file at all ({split.pictures - 1})" in message
    assert ("  ADE_val_00000002" in message) == (split.named is not None)


def test_missing_and_empty_files_are_counted_and_named(tmp_path):
    a_150(tmp_path)
    folder = tmp_path / "ADEChallengeData2016"
    for number in range(2, 10):
        label(folder / "annotations" / "validation" / f"ADE_val_{number:08}.png", quarters(1, 1, 1, 1))
    picture(folder / "images" / "validation" / "ADE_val_00000011.jpg")
    (folder / "images" / "validation" / "ADE_val_00000012.jpg").touch()
    with pytest.raises(ValueError, match=r"missing or empty \(11\)") as error:
        open_split("a-150", tmp_path)
    assert "images/validation/ADE_val_00000002.jpg" in str(error.value)
    assert "no file at all (1989)" in str(error.value)
    assert "ADE_val_00000010" in str(error.value)
    _, places = open_split("a-150", tmp_path, partial=True)
    assert places == [0]


def test_a_split_that_is_whole(tmp_path, monkeypatch):
    a_150(tmp_path)
    split = SPLITS["a-150"]
    monkeypatch.setattr(splits, "SPLITS", {"a-150": splits.Split(split.title, 1, split.open, split.folders)})
    data, places = open_split("a-150", tmp_path)
    data.check()
    assert places == [0]


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_is_checked_thoroughly_if_asked(tmp_path, name):
    split = SPLITS[name]
    if name in BUILDERS:
        BUILDERS[name](tmp_path)
    data = split.open(tmp_path / split.folders[0] if split.folders else tmp_path)
    if name == "pc-459":  # its names come with wordmask: all other pictures are missing here
        data.rows = [row for row in data.rows if row[0].is_file()]
    assert all(path.is_file() for path in data.files(0))
    data.check()
    data.check(thorough=True)
    if len(data.files(0)) > 1:
        data.files(0)[-1].write_bytes(b"no label")
        with pytest.raises(ValueError, match="cannot be used:"):
            data.check(thorough=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_part_of_the_layout_that_is_missing(tmp_path, name):
    BUILDERS[name](tmp_path)
    folder = tmp_path / SPLITS[name].folders[0]
    gone = {"pc-59": "trainval_merged.json", "pc-459": "trainval", "pas-20": "ImageSets", "pas-20b": "ImageSets"}
    gone |= {
        "a-150": "annotations",
        "ade20k-panoptic": "annotations_instance",
        "a-847": "images",
        "coco-stuff-171": "stuffthingmaps",
    }
    gone |= {"coco-panoptic-133": "annotations", "cityscapes-19": "gtFine", "cityscapes-panoptic": "leftImg8bit"}
    path = folder / gone[name]
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(ValueError, match=r"cannot be read: .* It is") as error:
        open_split(name, tmp_path, partial=True)
    assert gone[name] in str(error.value)


@pytest.mark.parametrize(
    ("build", "damage", "reader", "message"),
    [
        (a_150, "annotations/validation/ADE_val_00000001.png", Ade20k150, "damaged"),
        (a_847, "images/ADE/validation/urban/street/ADE_val_00000001_seg.png", Ade20k847, "damaged"),
        (pc_59, "trainval_merged.json", PascalContext59, "cannot be read"),
        (pc_459, "trainval/2008_000002.mat", PascalContext459, "damaged"),
        (pas_20, "SegmentationClass/2007_000033.png", PascalVoc, "damaged"),
        (cityscapes, "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png", Cityscapes, "damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, build, damage, reader, message):
    build(tmp_path)
    folder = tmp_path / next(split.folders[0] for name, split in SPLITS.items() if BUILDERS.get(name) is build)
    (folder / damage).write_bytes(b"junk")
    with pytest.raises(ValueError, match=message) as error:
        reader(folder)[0]
    assert damage.rsplit("/", 1)[-1] in str(error.value)


def test_values_that_are_no_class_are_named(tmp_path):
    a_150(tmp_path)
    folder = tmp_path / "ADEChallengeData2016"
    label(folder / "annotations" / "validation" / "ADE_val_00000001.png", quarters(1, 151, 2, 2))
    with pytest.raises(ValueError, match="holds 151; expected 0 to 150"):
        Ade20k150(folder)[0]


# Names, and where data is ---------------------------------------------------------------------------------------------


def test_names_are_found():
    assert find_split("A-150") == "a-150"
    assert find_split("COCO Panoptic-133") == "coco-panoptic-133"
    with pytest.raises(ValueError, match="Did you mean a-150"):
        find_split("a150")
    with pytest.raises(ValueError, match="There are a-150 \\(A-150\\)"):
        find_split("nowhere")


def test_where_data_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("WORDMASK_DATA", raising=False)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert data_root(None) == Path("datasets")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/theirs")
    assert data_root(None) == Path("/theirs")
    monkeypatch.setenv("WORDMASK_DATA", "/ours")
    assert data_root(None) == Path("/ours")
    assert data_root(tmp_path) == tmp_path
    a_150(tmp_path)
    lines = describe_splits(tmp_path)
    assert len(lines) == len(SPLITS)
    assert next(line for line in lines if line.startswith("a-150")).endswith(str(tmp_path / "ADEChallengeData2016"))
    assert next(line for line in lines if line.startswith("pc-59")).endswith("VOCdevkit/VOC2010")


def test_generated_splits_need_nothing(tmp_path):
    for name, count in (("shapeland-150", 200), ("shapeland-847", 100)):
        data, places = open_split(name, tmp_path)
        assert len(places) == SPLITS[name].pictures == count
        assert len(data.vocabulary) == len(SPLITS[name].unseen()) == int(name.split("-")[1])


# Real data ------------------------------------------------------------------------------------------------------------


def test_real_labels_of_ade20k(shared, tmp_path):
    for kind, home in (("images", "images"), ("annotations", "annotations")):
        (tmp_path / "ADEChallengeData2016" / home).mkdir(parents=True)
        (tmp_path / "ADEChallengeData2016" / home / "validation").symlink_to(shared / "samples" / "ade20k" / kind)
    data, places = open_split("a-150", tmp_path, partial=True)
    assert len(places) == 3
    labelled = data[0]
    assert labelled.source.endswith("ADE_val_00000001.jpg")
    names = [
        data.vocabulary.classes[label].name for label in labelled.semantic[[10, 300, 500, 200], [10, 300, 100, 20]]
    ]
    assert names == ["sky", "building", "grass", "sky"]
    assert labelled.semantic.shape == (512, 683)
    assert (labelled.semantic == -1).sum() == 3613
    with pytest.raises(ValueError, match=r"no file at all \(1997\)"):
        open_split("a-150", tmp_path)


def test_real_labels_of_coco(shared, tmp_path):
    samples = shared / "samples" / "coco"
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    for name, source in {
        "val2017": "images",
        "annotations/panoptic_val2017": "panoptic",
        "annotations/panoptic_val2017.json": "panoptic.json",
    }.items():
        (tmp_path / "coco" / name).symlink_to(samples / source)
    data, places = open_split("coco-panoptic-133", tmp_path, partial=True)
    assert len(places) == 2
    assert [len(data[place].labels) for place in places] == [18, 32]
    assert [int(data[place].crowd.sum()) for place in places] == [1, 2]
