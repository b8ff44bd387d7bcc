import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from conftest import asked_for, colourful
from wordmask.data.label_maps import read_values
from wordmask.drawing import choose_colours, deepest_point, lacks, legible, number_names, outline, palette, tint
from wordmask.postprocess import Instances, Segments
from wordmask.regions import find_regions, label_type, unlabelled_value
from wordmask.results import instance_result, panoptic_result
from wordmask.segmentation import Segmentation
from wordmask.vocabulary import Vocabulary
from wordmask.words import WordClass
from wordmask.writing import undisturbed


def numbered(count: int) -> Vocabulary:
    return Vocabulary(tuple(WordClass((f"word {number}",), thing=number % 2 == 0) for number in range(count)))


def labelled(labels: np.ndarray, vocabulary: Vocabulary) -> Segmentation:
    labels = labels.astype(label_type(len(vocabulary)))
    confidence = np.where(labels == unlabelled_value(len(vocabulary)), 0, 0.25 + labels % 3 / 4).astype(np.float32)
    regions = find_regions(labels, vocabulary, confidence=confidence, runner_up=np.roll(labels, 1, axis=1))
    return Segmentation(labels, regions, asked_for(colourful(*labels.shape), vocabulary, source="a.jpg"))


@given(height=st.integers(1, 20), width=st.integers(1, 20), classes=st.integers(1, 300), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_regions_agree_with_the_label_map(height, width, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (height, width))
    labels[rng.random((height, width)) < 0.2] = unlabelled_value(classes)
    result = labelled(labels, numbered(classes))
    assert sum(region.area for region in result.regions) + result.unlabelled_area == height * width
    assert [region.area for region in result.regions] == sorted(
        (region.area for region in result.regions), reverse=True
    )
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
    (region,) = find_regions(
        labels, numbered(3), confidence=np.ones((2, 3), np.float32), runner_up=np.full((2, 3), 255, np.uint8)
    )
    assert region.runner_up is None


@pytest.mark.parametrize(
    ("classes", "bits", "unlabelled"), [(1, 8, 255), (254, 8, 255), (255, 16, 65535), (847, 16, 65535)]
)
def test_saved_files_can_be_read_back(tmp_path, classes, bits, unlabelled):
    labels = np.arange(48 * 64).reshape(48, 64) % classes
    labels[0, :5] = unlabelled
    result = labelled(labels, numbered(classes))
    overlay, label_file, description = result.save(tmp_path / "deep" / "a")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [
        "a.labels.png",
        "a.masks.json",
        "a.masks.png",
    ]
    with Image.open(label_file) as image:
        assert image.mode == ("P" if bits == 8 else "I;16")
        np.testing.assert_array_equal(np.array(image), labels)
        if bits == 8:
            assert np.array(image.convert("RGB"))[0, 0].tolist() == [0, 0, 0]  # unlabelled
            assert np.array(image.convert("RGB"))[1:].reshape(-1, 3).max(-1).min() > 100  # all else is seen
    np.testing.assert_array_equal(read_values(label_file), labels)
    with Image.open(overlay) as image:
        assert image.width >= 64
        assert image.height > 48
    content = json.loads(description.read_text())
    assert content["size"] == {"height": 48, "width": 64}
    assert content["unlabelled"] == unlabelled
    assert (content["picture"], content["model"]) == ("a.jpg", "test")
    assert content["settings"] == {
        "threshold": 0.0,
        "background": None,
        "synonyms": "first",
        "precision": "float32",
    }
    assert len(content["classes"]) == classes
    assert content["regions"][0].keys() == {
        "id",
        "name",
        "label",
        "thing",
        "score",
        "area",
        "box",
        "runner_up",
        "segmentation",
    }
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
    vocabulary = Vocabulary.of(
        ["x", "the long name of something that nobody would ever look for in a picture, but might"]
    )
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


# Segments and instances -----------------------------------------------------------------------------------------------


def segmented() -> Segmentation:
    """Two persons, grass, and a dog among the distractors, which is dropped."""
    vocabulary = Vocabulary.of("person; grass; sky")
    ids = np.zeros((40, 60), np.int32)
    ids[20:], ids[5:30, 10:20], ids[8:35, 40:50], ids[:4, :9] = 1, 2, 3, 4
    reading = Segments(
        ids=torch.from_numpy(ids),
        confidence=torch.full((40, 60), 0.75),
        classes=[1, 0, 0, 3],
        scores=[0.5, 0.9, 0.7, 0.8],
        areas=np.bincount(ids.ravel())[1:].tolist(),
        runners_up=[2, 1, -1, 0],
        rival_shares=[0.5, 0.25, 0.0, 0.5],
        queries=[[0], [1], [2], [3]],
    )
    return panoptic_result(reading, asked_for(colourful(40, 60), vocabulary, "panoptic", source="a.jpg"))


def test_segments_become_regions():
    result = segmented()
    assert [(region.id, region.name, region.thing, region.score, region.runner_up) for region in result.regions] == [
        (1, "grass", False, 0.5, "sky"),
        (3, "person", True, 0.7, None),
        (2, "person", True, 0.9, "grass"),
    ]
    for region in result.regions:
        assert (region.mask == (result.segments == region.id)).all()
        assert region.area == region.mask.sum()
        assert (result.labels[region.mask] == region.label).all()
    assert (result.labels[:4, :9] == 255).all(), "a distractor"
    assert result.unlabelled_area == 2400 - sum(region.area for region in result.regions)
    assert result.confidence[25, 15] == 0.75
    assert (result.runner_up[25, 15], result.runner_up_confidence[25, 15]) == (1, 0.75 * 0.25)
    assert (result.runner_up[10, 45], result.runner_up_confidence[10, 45]) == (255, 0)
    assert repr(result) == "Segmentation(40×60, 2 of 3 classes, panoptic: 3 regions, model='test')"


def test_the_panoptic_format_is_read_back(tmp_path):
    """As the COCO panoptic API reads it: colours to ids, and every id of the picture has its segment, with the same
    area."""
    result = segmented()
    written = {path.name: path for path in result.save(tmp_path / "a")}
    assert list(written) == ["a.masks.png", "a.labels.png", "a.panoptic.png", "a.panoptic.json", "a.masks.json"]
    content = json.loads(written["a.panoptic.json"].read_text())
    categories = {entry["id"]: entry for entry in content["categories"]}
    (annotation,) = content["annotations"]
    assert annotation["image_id"] == content["images"][0]["id"]
    with Image.open(tmp_path / annotation["file_name"]) as image:
        colours = np.array(image, dtype=np.uint32)
    ids = colours[..., 0] + 256 * colours[..., 1] + 256**2 * colours[..., 2]
    areas = dict(zip(*(values.tolist() for values in np.unique(ids, return_counts=True)), strict=True))
    areas.pop(0)
    assert areas == {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
    for segment in annotation["segments_info"]:
        (region,) = (region for region in result.regions if region.id == segment["id"])
        assert categories[segment["category_id"]]["name"] == region.name
        assert categories[segment["category_id"]]["isthing"] == region.thing
        left, top, width, height = segment["bbox"]
        assert (left, top, left + width, top + height) == region.box
        assert (ids == segment["id"])[top : top + height, left : left + width].sum() == segment["area"]


def test_ids_beyond_a_byte_are_coded_in_three_colours():
    ids = np.arange(300 * 4).reshape(300, 4) // 4 + 1
    reading = Segments(
        torch.from_numpy(ids),
        torch.ones(300, 4),
        [0] * 300,
        [0.5] * 300,
        [4] * 300,
        [-1] * 300,
        [0.0] * 300,
        [[0]] * 300,
    )
    origin = asked_for(colourful(300, 4), Vocabulary.of("person"), "panoptic")
    colours = np.array(panoptic_result(reading, origin).panoptic_image(), dtype=int)
    assert sorted(set((colours @ [1, 256, 65536]).ravel().tolist())) == list(range(1, 301))


def instances(scores=(0.9, 0.6, 0.05)) -> Segmentation:
    """Two persons that overlap, and a faint one."""
    masks = np.zeros((3, 40, 61), bool)
    masks[0, 5:30, 10:30], masks[1, 10:35, 20:50], masks[2] = True, True, True
    boxes = [(10, 5, 30, 30), (20, 10, 50, 35), (0, 0, 61, 40)]
    areas = [int(mask.sum()) for mask in masks]
    found = Instances(
        [0, 0, 1], list(scores), [1, -1, 0], areas, boxes, [2, 0, 1], np.packbits(masks[[1, 2, 0]], axis=2)
    )
    words = Vocabulary.of("person; dog")
    return instance_result(found, asked_for(colourful(40, 61), words, "instance", threshold=0.02, source="a.jpg"))


def test_instances_overlap_and_the_best_is_on_top():
    result = instances()
    assert [(region.name, region.area, region.runner_up) for region in result.regions] == [
        ("person", 500, "dog"),
        ("person", 750, None),
        ("dog", 2440, "person"),
    ]
    assert (result.regions[0].mask & result.regions[1].mask).sum() == 200
    assert (result.segments == 1).sum() == 500
    assert (result.segments == 2).sum() == 550
    assert result.shown == result.regions[:2], "a faint one is listed, not painted"
    assert (result.labels[result.segments == 0] == 255).all()
    assert len(instances(scores=(0.9, 0.01, 0.001)).regions) == 1, "threshold"


def test_instances_are_read_back_by_coco(tmp_path):
    result = instances()
    written = {path.name: path for path in result.save(tmp_path / "a")}
    assert list(written) == ["a.masks.png", "a.labels.png", "a.instances.json", "a.masks.json"]
    coco = COCO(written["a.instances.json"])
    for annotation, region in zip(coco.loadAnns(coco.getAnnIds()), result.regions, strict=True):
        assert (coco.annToMask(annotation) == region.mask).all()
        assert annotation["score"] == region.score
        assert coco.loadCats(annotation["category_id"])[0]["name"] == region.name
    with pytest.raises(ValueError, match="this one is instance"):
        result.panoptic_image()
    with pytest.raises(ValueError, match="this one is instance"):
        result.to_coco_panoptic("a.png")


def test_the_overlay_tells_instances_apart():
    result = segmented()
    colours = choose_colours(result.regions)
    assert len(set(colours.values())) == 3
    assert number_names(result.regions) == ["grass", "person 2", "person 1"], (
        "the number follows the id, the list the area"
    )
    drawn = np.array(tint(result, colours)).astype(int)
    left, right = drawn[12, 15], drawn[12, 45]
    assert np.abs(left - right).sum() > 60
    assert (drawn[5, 10:20] == colours[2]).all(), "outlined in its own colour"
    touching = replace(result, segments=np.where(result.segments > 0, result.segments, 3).astype(np.uint16))
    assert touching.draw().height > 40
    many = instances(scores=(0.9, 0.6, 0.05)).draw()
    assert many.height > 40


def test_names_stand_on_what_can_be_seen():
    """An instance that a better one covers is not named on it, and the legend says that it is hidden."""
    bits = np.packbits(np.ones((2, 80, 120), bool), axis=2)
    box = (0, 0, 120, 80)
    both = Instances([0, 1], [0.9, 0.8], [-1, -1], [9600, 9600], [box, box], [0, 1], bits)
    alone = Instances([0], [0.9], [-1], [9600], [box], [0], bits)
    origin = asked_for(colourful(80, 120), Vocabulary.of("a; b"), "instance")
    both, alone = (instance_result(found, origin) for found in (both, alone))
    assert [int(both.visible(region).sum()) for region in both.regions] == [9600, 0]
    assert (np.array(both.draw(legend=False)) == np.array(alone.draw(legend=False))).all()


@pytest.mark.parametrize("order", ["panoptic instance", "instance panoptic"])
def test_files_of_another_task_are_removed(tmp_path, order):
    kinds = {"panoptic": (segmented, 5), "instance": (instances, 4)}
    for kind in order.split():
        make, files = kinds[kind]
        make().save(tmp_path / "a")
        assert len(list(tmp_path.iterdir())) == files


def test_a_folder_in_the_way_is_said(tmp_path):
    (tmp_path / "a.panoptic.json").mkdir()
    with pytest.raises(ValueError, match=r"a\.panoptic\.json' is a folder"):
        segmented().save(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.panoptic.json"]


def test_what_others_wrote_is_never_removed(tmp_path):
    """Without a description of ours beside them, files of these names are somebody else's."""
    for name in ("a.panoptic.png", "a.panoptic.json", "b.instances.json"):
        (tmp_path / name).write_text("mine")
    labelled(np.zeros((20, 30), int), numbered(3)).save(tmp_path / "a")
    (tmp_path / "b.masks.json").write_text('{"task": ["no", "description"]}')
    segmented().save(tmp_path / "b")
    assert all(
        (tmp_path / name).read_text() == "mine" for name in ("a.panoptic.png", "a.panoptic.json", "b.instances.json")
    )


def test_odd_names_are_folders():
    for stem in ("~", "..", "x/.."):
        with pytest.raises(ValueError, match="is a folder"):
            segmented().save(stem)


def test_signals_wait_for_what_belongs_together():
    steps = []

    def write() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            steps.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert steps == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
