"""Boundary IoU: by hand, and against erosion class by class, as the paper has it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wordmask.evaluation.boundaries import BoundaryScore, boundary

IGNORE = -1


def test_boundaries_by_hand():
    labels = np.zeros((7, 7), np.int64)
    labels[:, 5:] = 1
    edge = boundary(labels)  # of a diagonal of 9.9 pixels 2 % is less than one: d = 1
    expected = np.ones((7, 7), bool)
    expected[1:-1, 1:4] = False  # inside class 0, away from the picture's edge and from class 1
    assert np.array_equal(edge, expected)
    score = BoundaryScore(3)
    score.update(labels, labels)
    assert score.compute().iou == pytest.approx([100, 100, math.nan], nan_ok=True)
    shifted = np.zeros((7, 7), np.int64)
    shifted[:, 6:] = 1
    score = BoundaryScore(3)
    score.update(shifted, labels)
    # Class 1: its 14 pixels are all boundary, the prediction's 7 too, which are among them.
    assert score.compute().iou[1] == pytest.approx(100 * 7 / 14)
    # Class 0: target 7 · 5 − 5 · 3 = 20 pixels; prediction 7 · 6 − 5 · 4 = 22, of which column 5, but its ends, is
    # class 1's truth.
    both = 20 - 5  # the truth's column 4, but its ends, is inside the prediction
    assert score.compute().iou[0] == pytest.approx(100 * both / (20 + 22 - both))


def test_wide_boundaries():
    labels = np.zeros((300, 400), np.int64)  # diagonal 500: d = 10
    assert boundary(labels).sum() == 300 * 400 - 280 * 380


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(-1, 3, (4, 5)), np.ones((5, 5), int))
    predicted = np.roll(target, int(rng.integers(-2, 3)), axis=1)
    predicted[rng.random(predicted.shape) < 0.02] = 255
    return predicted, target


def slow_iou(seeds: list[int]) -> list[float]:
    """Mask by mask: what d = 1 erosion takes away, where the truth is known."""
    both, either, there = np.zeros(3), np.zeros(3), np.zeros(3)
    for seed in seeds:
        predicted, target = maps(seed)
        known = target != IGNORE
        for label in range(3):
            edges = []
            for mask in (target == label, (predicted == label) & known):
                eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)))[1:-1, 1:-1]
                edges.append(mask & ~eroded)
            both[label] += (edges[0] & edges[1]).sum()
            either[label] += (edges[0] | edges[1]).sum()
            there[label] += edges[0].sum()
    return [100 * both[label] / either[label] if there[label] else -1 for label in range(3)]


def scored(seeds: list[int]) -> BoundaryScore:
    score = BoundaryScore(3)
    for seed in seeds:
        score.update(*maps(seed))
    return score


@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_equal_to_erosion_class_by_class(seeds):
    assert np.nan_to_num(scored(seeds).compute().iou, nan=-1) == pytest.approx(slow_iou(seeds))


@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=4), data=st.data())
@settings(deadline=None, max_examples=20)
def test_neither_order_nor_split_matters(seeds, data):
    shuffled = data.draw(st.permutations(seeds))
    place = data.draw(st.integers(0, len(seeds)))
    part = scored(shuffled[:place])
    part.merge(scored(shuffled[place:]))
    assert np.array_equal(part.plain, scored(seeds).plain)


def test_what_cannot_be_right_is_refused():
    score = BoundaryScore(2)
    with pytest.raises(ValueError, match="beyond 0 to 1"):
        score.update(np.zeros((2, 2), int), np.full((2, 2), 2))
    with pytest.raises(ValueError, match="3 classes came; expected 2"):
        score.merge(BoundaryScore(3))
