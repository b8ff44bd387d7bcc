"""AP of instances: by hand, against pycocotools run on all pictures at once, and whatever the order and the division of
the pictures."""

import contextlib
import io
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wordmask.data.datasets import CocoPanoptic
from wordmask.evaluation.average_precision import Instance, InstanceResult, InstanceScore
from wordmask.evaluation.scoring import only_things, present


def found(pixels: np.ndarray, label: int, score: float) -> Instance:
    return Instance(label, score, mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))


def truth(segments: list[list[int]], labels: list[int], crowd: list[bool] | None = None) -> dict[str, np.ndarray]:
    crowd = np.array(crowd or [False] * len(labels), bool)
    return {"target_segments": np.array(segments), "target_labels": np.array(labels, np.int64), "target_crowd": crowd}


def test_by_hand():
    score = InstanceScore(3)
    target = truth([[1, 1, 1, 1, 2, 2, 2, 2]], [0, 0])
    first, second = target["target_segments"] == 1, target["target_segments"] == 2
    nothing = np.zeros_like(first)
    nothing[0, 3] = True
    score.update(0, [found(first, 0, 0.9), found(nothing, 0, 0.8), found(second, 0, 0.7)], **target)
    result = score.compute()
    # Ranked: a hit, a false alarm, a hit. Precision is 1 up to recall 1/2 (51 of 101 places), and 2/3 after it.
    assert result.ap[0] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert math.isnan(result.ap[1])
    assert [result.mean_ap, result.ap50, result.ap75, result.small] == pytest.approx([result.ap[0]] * 4)
    assert math.isnan(result.large)


def test_a_loose_mask_counts_at_low_thresholds_alone():
    score = InstanceScore(1)
    target = truth([[1, 1, 1, 0, 0]], [0])
    # IoU 3/4: hit at 0.50, 0.55 … 0.75, six of ten
    score.update(0, [found(np.array([[1, 1, 1, 1, 0]]), 0, 0.5)], **target)
    assert score.compute().mean_ap == pytest.approx(60)
    assert (score.compute().ap50, score.compute().ap75) == pytest.approx((100, 100))


def test_a_crowd_excuses_what_lies_in_it():
    score = InstanceScore(1)
    target = truth([[1, 1, 0, 2, 2, 2]], [0, 0], [False, True])
    score.update(
        0, [found(target["target_segments"] == 1, 0, 0.5), found(np.array([[0, 0, 0, 1, 1, 0]]), 0, 0.9)], **target
    )
    assert score.compute().mean_ap == pytest.approx(100)


def test_nothing_counted_is_no_number():
    assert math.isnan(InstanceScore(2).compute().mean_ap)
    score = InstanceScore(2)
    score.update(0, [], **truth([[0, 0]], []))
    assert math.isnan(score.compute().mean_ap)


def test_what_cannot_be_right_is_refused():
    score = InstanceScore(2)
    score.update(7, [], **truth([[1, 0]], [1]))
    with pytest.raises(ValueError, match="Picture 7 was counted before"):
        score.update(7, [], **truth([[1, 0]], [1]))
    with pytest.raises(ValueError, match="no class; expected 0 to 1"):
        score.update(8, [], **truth([[1, 0]], [2]))
    with pytest.raises(ValueError, match="some of the same pictures"):
        score.merge(pickle.loads(pickle.dumps(score)))
    with pytest.raises(ValueError, match="3 classes came; expected 2"):
        score.merge(InstanceScore(3))


def case(seed: int) -> tuple[list[Instance], dict[str, np.ndarray]]:
    """A picture of a few instances, and what was found: some of them, shifted, with scores that are often equal."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 5))
    segments = np.sort(rng.integers(0, count + 1, (6, 9)), axis=1)
    target = truth(segments.tolist(), rng.integers(0, 3, count).tolist(), (rng.random(count) < 0.2).tolist())
    guesses = []
    for _ in range(int(rng.integers(0, 7))):
        pixels = np.roll(target["target_segments"] == rng.integers(0, count + 1), int(rng.integers(0, 2)), axis=1)
        guesses.append(found(pixels, int(rng.integers(0, 3)), float(rng.choice([0.1, 0.5, 0.9]))))
    return guesses, target


def scored(seeds: list[int]) -> InstanceScore:
    score = InstanceScore(3)
    for seed in seeds:
        guesses, target = case(seed)
        score.update(seed, guesses, **target)
    return score


def figures(result: InstanceResult) -> list[float]:
    return np.nan_to_num(np.hstack([getattr(result, name) for name in result.__dataclass_fields__]), nan=-1).tolist()


@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True), data=st.data())
@settings(deadline=None, max_examples=25)
def test_neither_order_nor_split_matters(seeds, data):
    shuffled = data.draw(st.permutations(seeds))
    place = data.draw(st.integers(0, len(seeds)))
    part, other = scored(shuffled[:place]), scored(shuffled[place:])
    again = InstanceScore(3)
    again.plain = pickle.loads(pickle.dumps(other.plain))
    part.merge(again)
    assert figures(part.compute()) == figures(scored(seeds).compute())


def pycocotools_alone(truth_file, detections: list[dict], things: list[int]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = json.loads(truth_file.read_text())
        for number, entry in enumerate(dataset.dataset["annotations"], 1):
            entry["id"] = number  # pycocotools takes a match with the annotation 0 for none, and the samples have one
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(detections), "segm")
        evaluation.params.catIds = things
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_pycocotools_on_perturbed_samples(shared, seed):
    folder, rng = shared / "samples" / "coco", np.random.default_rng(seed)
    data = CocoPanoptic(folder, annotations="panoptic.json", segments="panoptic", pictures="images")
    images = sorted(entry["id"] for entry in json.loads((folder / "instances.json").read_text())["images"])
    is_thing = np.array([entry.thing for entry in data.vocabulary])
    ids = [entry.dataset_id for entry in data.vocabulary]
    score, detections = InstanceScore(len(ids)), []
    for place, image in enumerate(images):
        target = only_things(present(data[place]), is_thing)
        guesses = []
        for number, label in enumerate(target["target_labels"].tolist(), 1):
            pixels = np.roll(target["target_segments"] == number, rng.integers(-4, 5, 2), axis=(0, 1))
            other = label if rng.random() < 0.8 else int(rng.choice(target["target_labels"]))
            guesses += [found(pixels, other, float(rng.integers(1, 6)) / 5)] if rng.random() < 0.9 else []
        score.update(place, guesses, **target)
        detections += [
            {"image_id": image, "category_id": ids[one.label], "score": one.score, "segmentation": one.rle}
            for one in guesses
        ]
    expected = pycocotools_alone(
        folder / "instances.json", detections, [one for one, thing in zip(ids, is_thing, strict=True) if thing]
    )
    result = score.compute()
    ours = [result.mean_ap, result.ap50, result.ap75, result.small, result.medium, result.large]
    assert 5 < result.mean_ap < 95
    assert np.nan_to_num(ours, nan=-100).tolist() == (100 * expected.stats[:6]).tolist()
