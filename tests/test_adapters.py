"""Results in other people's formats, read back by the tools themselves where they are installed."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO

from conftest import asked_for, colourful
from wordmask import adapters
from wordmask.postprocess import Instances
from wordmask.regions import find_regions, unlabelled_value
from wordmask.results import instance_result
from wordmask.segmentation import Segmentation
from wordmask.vocabulary import Vocabulary

WORDS = Vocabulary.of(['red "car"', "sky & sea", "tree"])


def semantic(seed: int = 0, words: Vocabulary = WORDS, size: tuple[int, int] = (24, 31)) -> Segmentation:
    labels = (
        np.random.default_rng(seed)
        .integers(0, 3, (4, 5))
        .astype(np.uint8)
        .repeat(6, 0)
        .repeat(7, 1)[: size[0], : size[1]]
    )
    labels[:3, :5] = unlabelled_value(len(words))
    confidence = (0.25 + labels % 3 / 4).astype(np.float32)
    regions = find_regions(labels, words, confidence=confidence, runner_up=np.roll(labels, 1, axis=1))
    return Segmentation(labels, regions, asked_for(colourful(*size, seed), words, source=f"photos/{seed}.jpg"))


def instances() -> Segmentation:
    """Two that overlap, and a faint one."""
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:12, 3:15] = masks[1, 8:18, 10:28] = masks[2, 0:4, 20:30] = True
    boxes = [(3, 2, 15, 12), (10, 8, 28, 18), (20, 0, 30, 4)]
    areas = masks.sum(axis=(1, 2)).tolist()
    found = Instances([0, 2, 0], [0.9, 0.5, 0.05], [2, 0, -1], areas, boxes, [0, 1, 2], np.packbits(masks, axis=2))
    return instance_result(found, asked_for(colourful(20, 30), WORDS, "instance"))


BOTH = pytest.mark.parametrize("result", [semantic(), instances()], ids=["semantic", "instances"])


@pytest.mark.parametrize("package", ["supervision", "fiftyone", "datasets"])
def test_a_package_that_is_missing_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    convert = {
        "supervision": Segmentation.to_supervision,
        "fiftyone": Segmentation.to_fiftyone,
        "datasets": lambda it: adapters.to_dataset([it]),
    }
    with pytest.raises(ValueError, match=rf"wordmask\[{package}\]"):
        convert[package](semantic())


@BOTH
def test_supervision(result):
    sv = pytest.importorskip("supervision")
    found = result.to_supervision()
    assert isinstance(found, sv.Detections)
    assert len(found) == len(result.regions) == 3
    for number, region in enumerate(result.regions):
        assert (found.mask[number] == region.mask).all()
        assert found.xyxy[number].tolist() == list(region.box)
        assert found.class_id[number] == region.label
        assert found.data["class_name"][number] == region.name
        assert found.confidence[number] == pytest.approx(region.score)
    assert (
        found[found.confidence > 0.4].area == [region.area for region in result.regions if region.score > 0.4]
    ).all()
    annotated = sv.MaskAnnotator().annotate(result.picture.copy(), found)
    assert (annotated != result.picture).any()


def test_supervision_of_nothing():
    pytest.importorskip("supervision")
    result = semantic()
    nothing = Segmentation(np.full_like(result.labels, 255), [], asked_for(result.picture, WORDS))
    assert len(nothing.to_supervision()) == 0


class Label(SimpleNamespace):
    """Stands for FiftyOne's labels, with the fields that its documentation gives them."""

    fields: tuple[str, ...]

    def __init__(self, **given):
        assert set(given) <= set(self.fields), given.keys()
        super().__init__(**given)


def label(*fields: str) -> type[Label]:
    return type("Label", (Label,), {"fields": fields})


@pytest.fixture
def fiftyone(monkeypatch):
    """FiftyOne starts a database when it is imported: a stand-in, with its field names."""
    detection = label("label", "bounding_box", "mask", "mask_path", "confidence", "index", "attributes")
    names = SimpleNamespace(
        Detection=detection, Detections=label("detections"), Segmentation=label("mask", "mask_path")
    )
    monkeypatch.setitem(sys.modules, "fiftyone", names)
    return names


def test_fiftyone_detections(fiftyone):
    result = instances()
    found = result.to_fiftyone().detections
    assert [(one.label, one.confidence, one.index) for one in found] == [
        (region.name, region.score, region.id) for region in result.regions
    ]
    for one, region in zip(found, result.regions, strict=True):
        left, top, width, height = (
            round(part * side) for part, side in zip(one.bounding_box, (30, 20, 30, 20), strict=True)
        )
        assert (left, top, left + width, top + height) == region.box
        whole = np.zeros((20, 30), bool)
        whole[top : top + height, left : left + width] = one.mask
        assert (whole == region.mask).all()


def test_fiftyone_label_map(fiftyone):
    result = semantic()
    mask, targets = result.to_fiftyone().mask, adapters.mask_targets(WORDS)
    assert mask.dtype == np.uint8
    assert ((mask == 0) == (result.labels == result.unlabelled)).all()
    assert {targets[value] for value in np.unique(mask) if value} == {region.name for region in result.regions}
    for region in result.regions:
        assert (mask[region.mask] == region.label + 1).all()


def decode_brush(data: list[int]) -> np.ndarray:
    """Label Studio's decoder, from the description of its format."""
    bits, place = "".join(f"{byte:08b}" for byte in data), 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    count, word = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated, width = read(1), widths[read(2)]
        length = read(width) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (24, 31), (300, 400)])
def test_brush_masks(size):
    rng = np.random.default_rng(0)
    for mask in (
        np.zeros(size, bool),
        np.ones(size, bool),
        rng.random(size) < 0.02,
        np.arange(size[1])[None] * np.ones((size[0], 1)) > 3,
    ):
        data = adapters.brush_rle(mask)
        assert all(0 <= byte <= 255 for byte in data)
        try:
            from label_studio_converter.brush import decode_rle
        except ImportError:
            decode_rle = decode_brush
        assert (decode_rle(data).reshape(*size, 4) == 255 * mask[..., None]).all()


def test_label_studio():
    result = instances()
    task = json.loads(json.dumps(result.to_labelstudio("https://example.org/a.jpg")))
    assert task["data"] == {"image": "https://example.org/a.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "test"
    assert prediction["score"] == pytest.approx(0.7), "of the two that are shown"
    assert [entry["value"]["brushlabels"] for entry in prediction["result"]] == [['red "car"'], ["tree"]]
    for entry, region in zip(prediction["result"], result.shown, strict=True):
        assert (entry["original_width"], entry["original_height"], entry["image_rotation"]) == (30, 20, 0)
        assert (decode_brush(entry["value"]["rle"]).reshape(20, 30, 4)[..., 3] == 255 * region.mask).all()
    tree = ElementTree.fromstring(adapters.labelstudio_config(WORDS))
    brush, image = tree.find("BrushLabels"), tree.find("Image")
    assert [entry.get("value") for entry in brush] == WORDS.names
    assert (brush.get("name"), brush.get("toName")) == (
        prediction["result"][0]["from_name"],
        prediction["result"][0]["to_name"],
    )
    assert (image.get("name"), image.get("value")) == ("image", "$image")


def test_cvat(tmp_path):
    results = [semantic(0), instances(), semantic(1)]
    path = adapters.write_cvat(results, tmp_path / "masks.zip", names=["0.jpg", "deep/two.png", "1.jpg"])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["annotations/instances_default.json"]
        (tmp_path / "read.json").write_bytes(archive.read(archive.namelist()[0]))
    read = COCO(tmp_path / "read.json")
    assert [image["file_name"] for image in read.loadImgs([1, 2, 3])] == ["0.jpg", "deep/two.png", "1.jpg"]
    assert len(read.anns) == 9, "every annotation has an id of its own"
    assert {category["name"] for category in read.cats.values()} == {
        entry["name"] for entry in adapters.cvat_labels(WORDS)
    }
    for number, result in enumerate(results, 1):
        annotations = read.loadAnns(read.getAnnIds(imgIds=number))
        for annotation, region in zip(annotations, result.regions, strict=True):
            assert (read.annToMask(annotation) == region.mask).all()
            assert read.cats[annotation["category_id"]]["name"] == region.name


def test_pictures_of_one_archive_have_names_of_their_own(tmp_path):
    """CVAT finds them by name: with the same one, or none, it would give the masks to another picture, or to none."""
    for results, message in (
        ([semantic(0), instances()], "Result 2 has no file name"),
        ([semantic(0), semantic(1), semantic(0)], "Result 3 has the file name '0.jpg', as result 1 does"),
    ):
        with pytest.raises(ValueError, match=message):
            adapters.write_cvat(results, tmp_path / "masks.zip")
    with pytest.raises(ValueError, match="1 names came for 2 results"):
        adapters.write_cvat([semantic(0), semantic(1)], tmp_path / "masks.zip", names=["a.jpg"])
    adapters.write_cvat([semantic(0), semantic(1)], tmp_path / "masks.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["masks.zip"]


def test_a_task_says_where_its_picture_is():
    assert semantic().to_labelstudio()["data"] == {"image": "0.jpg"}
    with pytest.raises(ValueError, match="no file name, by which Label Studio finds it"):
        instances().to_labelstudio()


def test_results_load_beside_every_coco_file_of_ours():
    """pycocotools 2.0.8 to 2.0.10 copy `info` of the file, and fail where there is none."""
    for content in (semantic().to_coco(), instances().to_coco(), adapters.join_coco([semantic(0), semantic(1)])):
        assert list(content)[:2] == ["info", "licenses"]
        read = COCO()
        read.dataset = content
        read.createIndex()
        assert len(read.loadRes(content["annotations"]).anns) == len(content["annotations"])


def test_results_of_other_words_do_not_mix(tmp_path):
    other = semantic(1, Vocabulary.of(["house", "road", "lamp"]))
    with pytest.raises(ValueError, match="Result 2 has the words house, road, lamp"):
        adapters.write_cvat([semantic(), other], tmp_path / "masks.zip")
    with pytest.raises(ValueError, match="at least one"):
        adapters.to_dataset([])
    with pytest.raises(ValueError, match=r"ends in \.zip"):
        adapters.write_cvat([semantic()], tmp_path / "masks.json")
    assert list(tmp_path.iterdir()) == []


def test_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    results = [semantic(0), instances()]
    adapters.to_dataset(results).to_parquet(tmp_path / "masks.parquet")
    read = datasets.Dataset.from_parquet(str(tmp_path / "masks.parquet"), cache_dir=str(tmp_path / "cache"))
    assert read.features == adapters.features(WORDS)
    for row, result in zip(read, results, strict=True):
        assert (np.array(row["labels"]) == result.labels).all()
        assert (np.array(row["image"]) == result.picture).all()
        assert [region["segmentation"] for region in row["regions"]] == [region.to_rle() for region in result.regions]
        assert [region["label"] for region in row["regions"]] == [region.label for region in result.regions]
        assert [region["score"] for region in row["regions"]] == pytest.approx(
            [region.score for region in result.regions]
        )


def test_names_that_two_classes_share():
    datasets = pytest.importorskip("datasets")
    names = adapters.features(Vocabulary.builtin("err-seg/ade20k-847"))["regions"]
    region = names[0] if isinstance(names, list) else names.feature
    assert isinstance(region["label"], datasets.ClassLabel)
    assert len(set(region["label"].names)) == 847


def test_what_the_page_says(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    shutil.copytree(root / "docs" / "pictures", tmp_path / "docs" / "pictures")
    monkeypatch.chdir(tmp_path)
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (root / "docs" / "export.md").read_text(), re.DOTALL)
        if "cvat" in block
    ]
    exec(compile(block, "docs/export.md", "exec"), {})
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["image"].endswith("coffee.jpg")
    assert zipfile.is_zipfile(tmp_path / "masks.zip")
