"""Metrics: by hand, against the COCO panoptic API's own figures, and against slow loops over every pair."""

import json
import math
import pickle
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wordmask.data.datasets import CocoPanoptic
from wordmask.data.labelled import LabelledPicture
from wordmask.evaluation.metrics import PanopticResult, PanopticScore, SemanticResult, SemanticScore

IGNORE = -1
THINGS = np.array([True, True, False, False])
pictures = st.lists(st.integers(0, 9999), min_size=1, max_size=6)  # seeds
quick = settings(deadline=None, max_examples=60)


# By hand


def test_miou_by_hand():
    score = SemanticScore(4)
    target = np.array([[0, 0, 0, 0], [1, 1, 2, IGNORE]])
    score.update(np.array([[0, 0, 0, 1], [1, 3, 2, 3]], np.uint8), target)
    result = score.compute()
    # class 0: 3 of 4 hit, nothing else called 0: 3/4. Class 1: 1 of 2 hit, one pixel of class 0 called 1: 1/3. Class 2:
    # 1/1. Class 3 is predicted, once on a pixel that counts, but is no pixel's target: NaN, in no mean.
    assert result.iou == pytest.approx([75, 100 / 3, 100, math.nan], nan_ok=True)
    assert result.accuracy == pytest.approx([75, 50, 100, math.nan], nan_ok=True)
    assert result.mean_iou == pytest.approx((75 + 100 / 3 + 100) / 3)
    assert result.mean_accuracy == pytest.approx((75 + 50 + 100) / 3)
    assert result.pixel_accuracy == pytest.approx(100 * 5 / 7)  # 3 + 1 + 1 of 4 + 2 + 1
    assert result.frequency_weighted_iou == pytest.approx((4 * 75 + 2 * 100 / 3 + 1 * 100) / 7)
    assert result.mean_iou_over([1, 3]) == pytest.approx(100 / 3)
    assert result.mean_iou_over(np.array([True, False, True, False])) == pytest.approx(87.5)
    assert math.isnan(result.mean_iou_over([3]))
    assert math.isnan(result.mean_iou_over([]))


@pytest.mark.parametrize("none", [np.uint8(255), np.uint16(65535), np.int64(-1), np.int64(2), np.uint8(254)])
def test_a_pixel_without_prediction_is_a_miss_and_nothing_else(none):
    score = SemanticScore(2)
    score.update(np.array([[0, none, 1, none]], none.dtype), np.array([[0, 0, 1, IGNORE]]))
    assert score.compute().iou == pytest.approx([50, 100])
    assert score.compute().pixel_accuracy == pytest.approx(100 * 2 / 3)


def test_another_value_to_ignore():
    score = SemanticScore(300)
    score.update(np.full((2, 2), 255), np.array([[255, 255], [65535, 299]], np.uint16), ignore=65535)
    # class 255: 2 of 2 hit, and one pixel of class 299 called 255: 2/3
    assert score.compute().iou[[255, 299]] == pytest.approx([200 / 3, 0])


def test_nothing_counted_is_no_number():
    score = SemanticScore(3)
    score.update(np.zeros((2, 2), int), np.full((2, 2), IGNORE))
    assert math.isnan(score.compute().mean_iou)
    assert math.isnan(score.compute().pixel_accuracy)
    score = PanopticScore(THINGS)
    score.update(
        segments("0 0"), labels(), target_segments=segments("0 0"), target_labels=labels(), target_crowd=crowd()
    )
    assert math.isnan(score.compute().overall.pq)
    assert score.compute().overall.classes == 0


def segments(*rows: str) -> np.ndarray:
    return np.array([row.split() for row in rows], int)


def labels(*values: int) -> np.ndarray:
    return np.array(values, int)


def crowd(*values: int) -> np.ndarray:
    return np.array(values, bool)


def test_panoptic_quality_by_hand():
    score = PanopticScore(THINGS)
    score.update(
        segments("1 1 1 1 2 2", "3 3 3 3 3 4"),
        labels(0, 0, 2, 1),
        target_segments=segments("1 1 1 2 2 2", "3 3 3 3 0 0"),
        target_labels=labels(0, 0, 2),
        target_crowd=crowd(0, 0, 0),
    )
    # Class 0: segment 1 and target 1 share 3 of 4 + 3 − 3 pixels, IoU 3/4; segment 2 and target 2 share 2 of 2 + 3 − 2,
    # IoU 2/3. Class 2: segment 3 has 5 pixels, one of them in void, so the union is 5 + 4 − 4 − 1 = 4, IoU 4/4.
    # Class 1: segment 4 lies in void alone, no false positive; so class 1 and class 3 have nothing that counts.
    result = score.compute()
    assert result.pq == pytest.approx([100 * (3 / 4 + 2 / 3) / 2, math.nan, 100, math.nan], nan_ok=True)
    assert result.overall.classes == 2
    assert result.overall.rq == 100
    assert (result.things.pq, result.stuff.pq) == pytest.approx((100 * (3 / 4 + 2 / 3) / 2, 100))
    assert result.over([2, 3]).pq == 100
    assert math.isnan(result.over([]).pq)


def test_a_miss_and_a_false_alarm_by_hand():
    score = PanopticScore(THINGS)
    score.update(
        segments("1 1 1 2 2 2", "4 4 0 0 3 3"),
        labels(0, 0, 0, 3),
        target_segments=segments("1 1 1 2 2 2", "3 3 3 3 0 0"),
        target_labels=labels(0, 0, 2),
        target_crowd=crowd(0, 0, 0),
    )
    # Class 0: two perfect pairs; segment 3 lies in void. Class 2: its target is missed. Class 3: segment 4 is a false
    # alarm.
    result = score.compute()
    assert result.pq == pytest.approx([100, math.nan, 0, 0], nan_ok=True)
    assert result.sq == pytest.approx([100, math.nan, 0, 0], nan_ok=True)
    assert result.overall.pq == pytest.approx(100 / 3)
    assert (result.things.classes, result.stuff.classes) == (1, 2)


def test_half_is_no_match():
    score = PanopticScore(THINGS)
    score.update(
        segments("1 1"),
        labels(0),
        target_segments=segments("1 2"),
        target_labels=labels(0, 0),
        target_crowd=crowd(0, 0),
    )
    assert score.counts[:, 0].tolist() == [0, 0, 2, 1]  # IoU 1/2: two missed, one false alarm


@pytest.mark.parametrize(
    ("prediction", "label", "spurious"),
    [
        ("1 1 0 0 0 0", 0, 0),  # inside the crowd
        ("1 1 0 0 0 0", 1, 1),  # inside the crowd of another class
        ("0 1 1 1 1 0", 0, 1),  # one pixel in the crowd, one in void, two in neither: half, which does not excuse
        ("1 1 1 1 1 0", 0, 0),  # two in the crowd and one in void, of five
    ],
)
def test_crowds_are_neither_matched_nor_missed(prediction, label, spurious):
    score = PanopticScore(THINGS)
    truth = {"target_segments": segments("1 1 2 2 0 0"), "target_labels": labels(0, 2), "target_crowd": crowd(1, 0)}
    score.update(segments(prediction), labels(label), **truth)
    assert score.counts[:, label].tolist() == [0, 0, 0, spurious]
    assert score.counts[:, 2].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(("prediction", "spurious"), [("1 1 0 0", 1), ("0 0 1 1", 0)])
def test_only_the_last_crowd_of_a_class_excuses(prediction, spurious):
    score = PanopticScore(THINGS)
    truth = {"target_segments": segments("1 1 2 2"), "target_labels": labels(0, 0), "target_crowd": crowd(1, 1)}
    score.update(segments(prediction), labels(0), **truth)
    assert score.counts[:, 0].tolist() == [0, 0, 0, spurious]


# What cannot be right


def test_wrong_label_maps_are_refused():
    score, maps = SemanticScore(300), np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="ignore=255 is one of the 300 classes"):
        score.update(maps, maps, ignore=255)
    with pytest.raises(ValueError, match="go from 0 to 300; expected 0 to 299"):
        score.update(maps, np.array([[0, 1, 2], [3, 4, 300]]), ignore=-1)
    with pytest.raises((ValueError, TypeError)):  # by us, or before by the shapes in the signature if tests check them
        score.update(maps.T, maps, ignore=-1)
    with pytest.raises(ValueError, match="2 classes came; expected 300"):
        score.merge(SemanticScore(2))
    assert not score.confusion.any()


@pytest.mark.parametrize(
    ("prediction", "classes", "message"),
    [
        ("1 2", [0], "segments 1 to 2, but 1 labels"),
        ("1 -1", [0], "segments -1 to 1"),
        ("1 1", [4], "go from 4 to 4; expected 0 to 3"),
        ("1 1", [-1], "go from -1 to -1"),
        ("1 1", [0, 0], "has no pixel"),
    ],
)
def test_wrong_segments_are_refused(prediction, classes, message):
    score = PanopticScore(THINGS)
    with pytest.raises(ValueError, match=message):
        score.update(
            segments(prediction),
            labels(*classes),
            target_segments=segments("0 0"),
            target_labels=labels(),
            target_crowd=crowd(),
        )
    assert not score.counts.any()


def test_scores_of_other_things_do_not_merge():
    with pytest.raises(ValueError, match="other things"):
        PanopticScore(THINGS).merge(PanopticScore(~THINGS))


# The COCO panoptic API


def coco_segments(folder, entry: dict, categories: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segment map, labels and crowd of one picture of a COCO panoptic data set."""
    red, green, blue = np.moveaxis(np.asarray(Image.open(folder / entry["file_name"]), dtype=int), -1, 0)
    known = [0, *(segment["id"] for segment in entry["segments_info"])]
    order = np.argsort(known)
    numbers = order[np.searchsorted(known, red + 256 * green + 65536 * blue, sorter=order)]
    classes = [categories.index(segment["category_id"]) for segment in entry["segments_info"]]
    return (
        numbers,
        np.array(classes),
        np.array([segment.get("iscrowd", 0) for segment in entry["segments_info"]], dtype=bool),
    )


def test_panoptic_quality_is_that_of_the_coco_api(shared, parity):
    truth = json.loads((shared / "samples" / "coco" / "panoptic.json").read_text())
    prediction = json.loads((parity.folder / "pq" / "pred_0.json").read_text())
    categories = [category["id"] for category in truth["categories"]]
    score = PanopticScore(np.array([category["isthing"] == 1 for category in truth["categories"]]))
    for target, predicted in zip(truth["annotations"], prediction["annotations"], strict=True):
        assert target["image_id"] == predicted["image_id"]
        numbers, classes, crowds = coco_segments(shared / "samples" / "coco" / "panoptic", target, categories)
        assert crowds.any()
        guess = coco_segments(parity.folder / "pq" / "pred_0", predicted, categories)
        score.update(guess[0], guess[1], target_segments=numbers, target_labels=classes, target_crowd=crowds)
    expected = json.loads((parity.folder / "pq" / "expected.json").read_text())
    result = score.compute()
    for name, quality in {"All": result.overall, "Things": result.things, "Stuff": result.stuff}.items():
        figures = [100 * expected[name][key] for key in ("pq", "sq", "rq")]
        assert [quality.pq, quality.sq, quality.rq] == pytest.approx(figures, rel=1e-14, abs=0)
        assert quality.classes == expected[name]["n"]


def perturbed(target: LabelledPicture, seed: int) -> dict[str, np.ndarray]:
    """A prediction that is the truth but for segments dropped, merged, shifted, cut or called otherwise, and crowds
    taken for one thing."""
    rng = np.random.default_rng(seed)
    segments, labels = np.zeros_like(target.segments), [0]
    for number in rng.permutation(np.arange(1, len(target.labels) + 1)):
        mask, label, fate = target.segments == number, int(target.labels[number - 1]), rng.random()
        if fate < 0.15:
            continue
        if fate < 0.5:
            mask = np.roll(mask, rng.integers(-9, 10, 2), axis=(0, 1))
        elif fate < 0.6:
            label = int(rng.choice(target.labels))
        elif fate < 0.7:
            mask |= target.segments == rng.integers(1, len(target.labels) + 1)
        elif fate < 0.8:
            mask |= target.segments == 0
        segments[mask] = len(labels)
        labels.append(label)
    there, numbers = np.unique(np.append(0, segments), return_inverse=True)
    return {"predicted_segments": numbers[1:].reshape(segments.shape), "predicted_labels": np.array(labels)[there[1:]]}


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_quality_of_perturbed_samples_is_that_of_slow_loops(shared, seed):
    folder = shared / "samples" / "coco"
    data = CocoPanoptic(folder, annotations="panoptic.json", segments="panoptic", pictures="images")
    score, slow = PanopticScore(np.array([entry.thing for entry in data.vocabulary])), np.zeros((4, 133))
    events = set()
    for place in range(len(data)):
        target = data[place]
        truth = {"target_segments": target.segments, "target_labels": target.labels, "target_crowd": target.crowd}
        case = truth | perturbed(target, 10 * seed + place)
        score.update(**case)
        counts, happened = slow_counts(case, 133)
        slow, events = slow + counts, events | happened
    assert events >= {"matched", "missed", "spurious"}
    sums, matched, missed, spurious = slow
    whole = matched + missed / 2 + spurious / 2
    there = whole > 0
    result = score.compute()
    assert result.pq[there] == pytest.approx(100 * sums[there] / whole[there], abs=1e-9)
    assert np.isnan(result.pq[~there]).all()
    assert result.overall.pq == pytest.approx(np.mean(100 * sums[there] / whole[there]), abs=1e-9)
    assert result.overall.sq == pytest.approx(np.mean(100 * sums[there] / np.maximum(matched[there], 1)), abs=1e-9)
    assert result.overall.rq == pytest.approx(np.mean(100 * matched[there] / whole[there]), abs=1e-9)


# Random small maps


@cache
def picture(seed: int) -> dict[str, np.ndarray]:
    """A panoptic target of up to six segments, with void and crowds, and a prediction that is mostly like it."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 6)
    target = np.sort(rng.integers(0, count + 1, (4, 7)), axis=1)
    truth = {
        "target_segments": target,
        "target_labels": rng.integers(0, len(THINGS), count),
        "target_crowd": rng.random(count) < 0.3,
    }
    wrong = rng.random(target.shape) < rng.choice([0, 0.2, 0.6])
    mixed = np.where(wrong, rng.integers(0, count + 3, target.shape), target)
    if rng.random() < 0.3:
        mixed[:, :3] = rng.integers(0, count + 1)
    names, numbers = np.unique(np.append(0, mixed), return_inverse=True)
    guess = np.append(truth["target_labels"], rng.integers(0, len(THINGS), 2))[names[1:] - 1]
    guess = np.where(rng.random(len(guess)) < 0.2, rng.integers(0, len(THINGS), len(guess)), guess)
    return truth | {"predicted_segments": numbers[1:].reshape(target.shape), "predicted_labels": guess}


def label_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction, with pixels of no class, and its target, with pixels to ignore."""
    rng = np.random.default_rng(seed)
    target = rng.choice([0, 1, 2, 3, IGNORE], (4, 7))
    return np.where(rng.random(target.shape) < 0.5, rng.choice([0, 1, 2, 3, 4, 255, -1], target.shape), target), target


def panoptic(*seeds: int) -> PanopticScore:
    score = PanopticScore(THINGS)
    for seed in seeds:
        score.update(**picture(seed))
    return score


def semantic(*seeds: int) -> SemanticScore:
    score = SemanticScore(5)
    for seed in seeds:
        score.update(*label_maps(seed))
    return score


def figures(result: SemanticResult | PanopticResult) -> list[float]:
    """All numbers of a result; NaN as −1, to be compared."""
    names = ("pq", "sq", "rq") if isinstance(result, PanopticResult) else result.__dataclass_fields__
    return np.nan_to_num(np.hstack([getattr(result, name) for name in names]), nan=-1).tolist()


@pytest.mark.parametrize("scored", [semantic, panoptic])
@given(seeds=pictures, data=st.data())
@quick
def test_neither_order_nor_split_matters(scored, seeds, data):
    shuffled = data.draw(st.permutations(seeds))
    place = data.draw(st.integers(0, len(seeds)))
    part, other = scored(*shuffled[:place]), pickle.loads(pickle.dumps(scored(*shuffled[place:])))
    other_alone = figures(other.compute())
    part.merge(other)
    part.merge(scored())
    assert figures(part.compute()) == figures(scored(*seeds).compute())  # to the last bit
    assert figures(other.compute()) == other_alone


@given(seeds=pictures)
@quick
def test_a_perfect_prediction_gets_100(seeds):
    semantic_score, panoptic_score = SemanticScore(5), PanopticScore(THINGS)
    for seed in seeds:
        _, target = label_maps(seed)
        semantic_score.update(target, target)
        present, numbers = np.unique(np.append(0, picture(seed)["target_segments"]), return_inverse=True)
        classes = picture(seed)["target_labels"][present[1:] - 1]
        truth = {
            "target_segments": numbers[1:].reshape(4, 7),
            "target_labels": classes,
            "target_crowd": np.zeros(len(classes), bool),
        }
        panoptic_score.update(
            **truth | {"predicted_segments": truth["target_segments"], "predicted_labels": truth["target_labels"]}
        )
    assert all(figure in (-1, 100) for figure in figures(semantic_score.compute()))
    assert all(figure in (-1, 100) for figure in figures(panoptic_score.compute()))


def slow_iou(seeds: list[int]) -> list[float]:
    """IoU of each of five classes, one pixel after the other; −1 without a target."""
    hit, either, targets = [0] * 5, [0] * 5, [0] * 5
    for seed in seeds:
        for guess, true in zip(*(labels.ravel() for labels in label_maps(seed)), strict=True):
            for label in range(5):
                if true != IGNORE:
                    hit[label] += guess == label == true
                    either[label] += label in (guess, true)
                    targets[label] += label == true
    return [100 * hit[label] / either[label] if targets[label] else -1 for label in range(5)]


@given(seeds=pictures)
@quick
def test_miou_is_that_of_slow_loops(seeds):
    slow, result = slow_iou(seeds), semantic(*seeds).compute()
    assert np.nan_to_num(result.iou, nan=-1) == pytest.approx(slow)
    if max(slow) >= 0:
        assert result.mean_iou == pytest.approx(np.mean([iou for iou in slow if iou >= 0]))


def slow_counts(case: dict[str, np.ndarray], classes: int = len(THINGS)) -> tuple[np.ndarray, set[str]]:
    """Sum of IoU, matched, missed and spurious segments of each class, one pair of masks after the other; and what
    happened."""
    counts, events = np.zeros((4, classes)), set()
    true = [(label, case["target_segments"] == number, many) for number, (label, many) in enumerate(truths(case), 1)]
    guessed = [
        (label, case["predicted_segments"] == number) for number, label in enumerate(case["predicted_labels"], 1)
    ]
    void, matched_true, matched_guess = case["target_segments"] == 0, set(), set()
    for (i, (label, mask)), (j, (target, truth, many)) in product(enumerate(guessed), enumerate(true)):
        union = ((mask & ~void) | truth).sum()
        if label == target and not many and union and (mask & truth).sum() / union > 0.5:
            counts[:2, label] += (mask & truth).sum() / union, 1
            matched_guess.add(i)
            matched_true.add(j)
            events.add("matched beside void" if (mask & void).any() else "matched")
    for j, (target, _, many) in enumerate(true):
        if j not in matched_true and not many:
            counts[2, target] += 1
            events.add("missed")
    for i, (label, mask) in enumerate(guessed):
        if i not in matched_guess:
            crowds = [truth for target, truth, many in true if many and target == label]
            excuse = (mask & void).sum() + (mask & crowds[-1]).sum() if crowds else (mask & void).sum()
            excused = excuse / mask.sum() > 0.5
            counts[3, label] += not excused
            events.add(
                "spurious" if not excused else "by a crowd" if (mask & void).sum() / mask.sum() <= 0.5 else "by void"
            )
            events |= {"several crowds"} if len(crowds) > 1 and (mask & crowds[0]).any() else set()
    return counts, events


def truths(case: dict[str, np.ndarray]):
    return zip(case["target_labels"], case["target_crowd"], strict=True)


@given(seed=st.integers(0, 9999))
@quick
def test_panoptic_counts_are_those_of_slow_loops(seed):
    assert panoptic(seed).counts == pytest.approx(slow_counts(picture(seed))[0])


def test_the_random_maps_have_every_case():
    events = set().union(*(slow_counts(picture(seed))[1] for seed in range(150)))
    assert events == {"matched", "matched beside void", "missed", "spurious", "by void", "by a crowd", "several crowds"}
