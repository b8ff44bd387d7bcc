import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from conftest import colourful
from wordmask.drawing import choose_colours, deepest_point, lacks, legible, outline, palette, tint
from wordmask.regions import find_regions
from wordmask.segmentation import Segmentation, label_type, unlabelled_value
from wordmask.vocabulary import Vocabulary, WordClass


def numbered(count: int) -> Vocabulary:
    return Vocabulary(tuple(WordClass((f"word {number}",), thing=number % 2 == 0) for number in range(count)))


def labelled(labels: np.ndarray, vocabulary: Vocabulary) -> Segmentation:
    labels = labels.astype(label_type(len(vocabulary)))
    confidence = np.where(labels == unlabelled_value(len(vocabulary)), 0, 0.25 + labels % 3 / 4).astype(np.float32)
    regions = find_regions(labels, vocabulary, confidence=confidence, runner_up=np.roll(labels, 1, axis=1))
    return Segmentation(labels, vocabulary, regions, colourful(*labels.shape), "test", {"threshold": 0.0}, "a.jpg")


@given(height=st.integers(1, 20), width=st.integers(1, 20), classes=st.integers(1, 300), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_regions_agree_with_the_label_map(height, width, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (height, width))
    labels[rng.random((height, width)) < 0.2] = unlabelled_value(classes)
    result = labelled(labels, numbered(classes))
    assert sum(region.area for region in result.regions) + result.unlabelled_area == height * width
    assert [region.area for region in result.regions] == sorted((region.area for region in result.regions), reverse=True)
    for region in result.regions:
        left, top, right, bottom = region.box
        assert region.mask.sum() == region.area == region.mask[top:bottom, left:right].sum()
        assert region.mask[top].any()
        assert region.mask[bottom - 1].any()
        assert region.mask[:, left].any()
        assert region.mask[:, right - 1].any()
        assert region.score == pytest.approx(0.25 + region.label % 3 / 4)
        assert region.thing == (region.label % 2 == 0)
        rle = region.to_rle()
        assert (coco_mask.decode({**rle, "counts": rle["counts"].encode()}) == region.mask).all()


def test_the_runner_up_of_a_region_is_the_most_frequent():
    labels, runner_up = np.zeros((2, 3), np.uint8), np.array([[1, 2, 2], [2, 255, 255]], np.uint8)
    (region,) = find_regions(labels, numbered(3), confidence=np.ones((2, 3), np.float32), runner_up=runner_up)
    assert region.runner_up == "word 2"
    (region,) = find_regions(labels, numbered(3), confidence=np.ones((2, 3), np.float32), runner_up=np.full((2, 3), 255, np.uint8))
    assert region.runner_up is None


@pytest.mark.parametrize(("classes", "bits", "unlabelled"), [(1, 8, 255), (254, 8, 255), (255, 16, 65535), (847, 16, 65535)])
def test_saved_files_can_be_read_back(tmp_path, classes, bits, unlabelled):
    labels = np.arange(48 * 64).reshape(48, 64) % classes
    labels[0, :5] = unlabelled
    result = labelled(labels, numbered(classes))
    overlay, label_file, description = result.save(tmp_path / "deep" / "a")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.labels.png", "a.masks.json", "a.masks.png"]
    with Image.open(label_file) as image:
        assert image.mode == ("L" if bits == 8 else "I;16")
        np.testing.assert_array_equal(np.array(image), labels)
    with Image.open(overlay) as image:
        assert image.width >= 64
        assert image.height > 48
    content = json.loads(description.read_text())
    assert content["size"] == {"height": 48, "width": 64}
    assert content["unlabelled"] == unlabelled
    assert (content["picture"], content["model"], content["settings"]) == ("a.jpg", "test", {"threshold": 0.0})
    assert len(content["classes"]) == classes
    assert content["regions"][0].keys() == {"id", "name", "label", "thing", "score", "area", "box", "runner_up", "segmentation"}
    assert sum(region["area"] for region in content["regions"]) == 48 * 64 - 5


def test_coco_reads_it_back(tmp_path):
    result = labelled(np.arange(48 * 64).reshape(48, 64) // 400, numbered(12))
    (tmp_path / "coco.json").write_text(json.dumps(result.to_coco(image_id=7, file_name="a.jpg")))
    coco = COCO(tmp_path / "coco.json")
    assert coco.getImgIds() == [7]
    assert result.to_coco()["images"][0]["file_name"] == "a.jpg", "that of the picture"
    for annotation, region in zip(coco.loadAnns(coco.getAnnIds()), result.regions, strict=True):
        assert (coco.annToMask(annotation) == region.mask).all()
        assert coco.loadCats(annotation["category_id"])[0]["name"] == region.name
        left, top, width, height = annotation["bbox"]
        assert (left, top, left + width, top + height) == region.box


def test_nothing_found_is_drawn_and_saved_too(tmp_path):
    result = labelled(np.full((20, 30), 255), numbered(3))
    assert result.regions == []
    assert len(result.save(tmp_path / "a")) == 3
    assert result.draw(legend=False).size == (30, 20)


def test_colours_of_one_picture_differ():
    assert len({tuple(colour) for colour in palette().tolist()}) == 256
    result = labelled(np.arange(60 * 100).reshape(60, 100) // 100, numbered(847))
    colours = choose_colours(result.regions)
    assert len(set(colours.values())) == len(colours) == 60
    first = choose_colours(result.regions[:1])
    assert first.items() <= colours.items(), "a class keeps its colour where it can"


def test_regions_are_tinted_and_outlined():
    labels = np.full((40, 60), 255)
    labels[10:30, 10:50] = 0
    result = labelled(labels, numbered(1))
    colours = choose_colours(result.regions)
    drawn, colour = np.array(tint(result, colours)).astype(int), np.array(colours[1])
    assert (drawn[labels == 255] == result.picture[labels == 255]).all(), "the unlabelled keeps its pixels"
    assert (drawn[10, 10:50] == colour).all(), "the outline has the full colour"
    inner = drawn[20, 45]
    np.testing.assert_allclose(inner, 0.55 * result.picture[20, 45] + 0.45 * colour, atol=1)


def test_outline_marks_both_sides():
    labels = np.zeros((5, 8), np.uint8)
    labels[:, 4:] = 1
    assert outline(labels, 1)[0].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert outline(labels, 2)[0].tolist() == [False] * 2 + [True] * 4 + [False] * 2
    assert not outline(np.zeros((3, 3), np.uint8), 2).any()


def test_names_stand_in_the_middle():
    mask = np.zeros((100, 200), bool)
    mask[20:60, 50:150] = True
    x, y, depth = deepest_point(mask)
    assert abs(x - 100) < 35
    assert abs(y - 40) < 5
    assert 15 < depth < 25
    assert deepest_point(np.zeros((10, 10), bool)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [(4, 4), (64, 48), (30, 400), (400, 30)])
def test_a_legend_is_never_cut(size):
    """The sheet is as wide as its longest entry needs: the last column of pixels is paper."""
    vocabulary = Vocabulary.of(["x", "the long name of something that nobody would ever look for in a picture, but might"])
    labels = np.zeros(size, int)
    labels[: size[0] // 2] = 1
    drawn = np.array(labelled(labels, vocabulary).draw())
    assert drawn.shape[1] >= size[1]
    assert (drawn[size[0] :, -2:] == 255).all()
    assert (drawn[-2:] == 255).all()


def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    """Three files are one result: none appears when the last can't be written."""

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="no space"):
        labelled(np.zeros((20, 30), int), numbered(3)).save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_name(tmp_path):
    for stem in (str(tmp_path) + "/", "", "."):
        with pytest.raises(ValueError, match="give a name inside it"):
            labelled(np.zeros((20, 30), int), numbered(3)).save(stem)


def test_a_folder_of_the_same_name_is_no_hindrance(tmp_path):
    (tmp_path / "street").mkdir()
    assert len(labelled(np.zeros((20, 30), int), numbered(3)).save(tmp_path / "street")) == 3


def test_names_are_written_over_their_own_regions_and_apart():
    """A tall strip is deep enough for the letters but too narrow for the word; two names never cross."""
    labels = np.zeros((200, 200), int)
    labels[:, 90:120] = 1
    vocabulary = Vocabulary.of("sky; a telegraph pole")
    with_names = np.array(labelled(labels, vocabulary).draw(legend=False)).astype(int)
    result = labelled(labels, vocabulary)
    plain = np.array(tint(result, choose_colours(result.regions))).astype(int)
    assert (with_names[:, :90] != plain[:, :90]).any(), "sky is named"
    assert (with_names[:, 90:120] == plain[:, 90:120]).all(), "the pole isn't"


def test_a_long_file_name_can_be_saved(tmp_path):
    assert len(labelled(np.zeros((20, 30), int), numbered(3)).save(tmp_path / ("x" * 240))) == 3


def test_names_beyond_ascii_are_drawn_or_replaced():
    font = ImageFont.load_default(14)
    assert lacks(font, "é")
    assert not lacks(font, "e")
    assert legible("crème brûlée, 猫", font) == "creme brulee, ?"
    for name in ("crème brûlée", "кошка", "猫", "🐈"):
        labelled(np.zeros((60, 200), int), Vocabulary.of([name])).draw()
