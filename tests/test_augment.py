"""Augmentation: sizes, picture and segments together, colours against colorsys, randomness from the generator alone."""

import colorsys
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wordmask.data.augment import (
    GREY,
    ColourJitter,
    CropAugmentation,
    ScaleAugmentation,
    crop,
    flip,
    flip_half,
    pad,
    resize,
    scale_saturation,
    turn_hue,
)
from wordmask.data.labelled import LabelledPicture

PALETTE = np.random.default_rng(5).integers(0, 256, (7, 3), dtype=np.uint8)
EDGES = st.integers(1, 90)
SEEDS = st.integers(0, 2**32 - 1)


def coded(height: int, width: int, seed: int = 0) -> LabelledPicture:
    """A picture of 3 × 3 blocks, whose colours tell their segments, 0 to 6."""
    blocks = np.random.default_rng(seed).integers(0, 7, (3, 3))
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 3 // width
    segments = blocks[rows[:, None], columns]
    return LabelledPicture(PALETTE[segments], segments, np.arange(6) % 4, np.arange(6) == 2, "coded")


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(one: LabelledPicture, other: LabelledPicture) -> bool:
    return np.array_equal(one.rgb, other.rgb) and np.array_equal(one.segments, other.segments)


def disagreeing(labelled: LabelledPicture, reach: int) -> float:
    """How many of the pixels whose surroundings are one segment have another colour than it; NaN if there are none."""
    around = np.lib.stride_tricks.sliding_window_view(labelled.segments, (2 * reach + 1, 2 * reach + 1))
    inner = (around == around[..., :1, :1]).all(axis=(2, 3))
    middle = slice(reach, -reach), slice(reach, -reach)
    return (
        float((labelled.rgb[middle] != PALETTE[labelled.segments[middle]]).any(axis=2)[inner].mean())
        if inner.any()
        else float("nan")
    )


@given(EDGES, EDGES, SEEDS)
@settings(max_examples=25, deadline=None)
def test_flipping_twice_is_nothing(height, width, seed):
    labelled = coded(height, width, seed)
    assert same(flip(flip(labelled)), labelled)
    assert np.array_equal(flip(labelled).segments[:, 0], labelled.segments[:, -1])
    assert np.array_equal(flip(labelled).rgb[:, 0], labelled.rgb[:, -1])


@given(EDGES, EDGES, st.integers(1, 70), SEEDS)
@settings(max_examples=40, deadline=None)
def test_every_view_has_the_size_of_the_crop(height, width, side, seed):
    generator = np.random.default_rng(seed)
    for augment in (
        CropAugmentation(side, 2 * side, side),
        CropAugmentation(40, 60, side),
        ScaleAugmentation(side, 0.1, 2.0),
    ):
        view = augment(coded(height, width), generator)
        assert view.rgb.shape == (side, side, 3)
        assert view.segments.shape == (side, side)
        assert view.rgb.dtype == np.uint8
        assert view.rgb.flags.c_contiguous
        assert view.segments.flags.c_contiguous
        assert np.array_equal(view.labels, np.arange(6) % 4)
        assert np.array_equal(view.crowd, np.arange(6) == 2)


@given(st.integers(60, 120), st.integers(60, 120), st.integers(40, 90), SEEDS)
@settings(max_examples=30, deadline=None)
def test_picture_and_segments_move_together(height, width, side, seed):
    """Inside a segment the colour is the segment's: after scaling by up to 2 a pixel mixes those at most 3 away."""
    generator = np.random.default_rng(seed)
    for augment in (CropAugmentation(80, 200, side, None), ScaleAugmentation(side, 0.7, 1.3)):
        view = augment(replace(coded(height, width, seed)), generator)
        padded = (view.rgb == GREY).all(axis=2) & (view.segments == 0)
        view.rgb[padded] = PALETTE[0]
        assert not disagreeing(view, reach=3) > 0


def test_a_wrong_move_would_be_seen():
    """The test above has pixels to look at, and sees a picture that is flipped without its segments."""
    view = CropAugmentation(80, 200, 80, None)(coded(100, 100, 3), np.random.default_rng(0))
    assert disagreeing(view, reach=3) == 0
    assert disagreeing(replace(view, rgb=view.rgb[:, ::-1]), reach=3) > 0.1


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_same_generator_gives_the_same_view(seed):
    for augment in (CropAugmentation(40, 80, 32), ScaleAugmentation(32, 0.5, 2.0)):
        views = []
        for elsewhere in (1, 2):
            random.seed(elsewhere)
            np.random.seed(elsewhere)
            views.append(augment(coded(50, 60), np.random.default_rng(seed)))
        assert same(*views)


def test_views_differ_and_the_picture_is_left_alone():
    for augment in (CropAugmentation(40, 80, 32), ScaleAugmentation(32, 0.5, 2.0)):
        labelled, generator = coded(50, 60), np.random.default_rng(0)
        views = {augment(labelled, generator).rgb.tobytes() for _ in range(20)}
        assert len(views) > 15
        assert same(labelled, coded(50, 60))


@pytest.mark.parametrize("size", [(37, 91), (200, 150), (1, 7)])
def test_resizing_is_pillows(size):
    labelled = replace(coded(64, 48), rgb=noisy(64, 48))
    ours = resize(labelled, size)
    assert np.array_equal(
        ours.rgb, np.array(Image.fromarray(labelled.rgb).resize(size[::-1], Image.Resampling.BILINEAR))
    )
    small = Image.fromarray(labelled.segments.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(ours.segments, np.array(small))


def test_segments_beyond_8_and_16_bits_survive_resizing():
    segments = np.array([[0, 300], [70000, 5]])
    labelled = LabelledPicture(noisy(2, 2), segments, np.zeros(70000, int), np.zeros(70000, bool), "many")
    assert np.array_equal(resize(labelled, (4, 4)).segments, segments.repeat(2, 0).repeat(2, 1))


def test_the_shortest_edge_is_resized_and_the_longest_limited():
    """In a larger crop the picture keeps its size, and everything around it is padding."""
    ones = replace(coded(50, 100), segments=np.ones((50, 100), int))
    for longest, expected in ((400, (40, 80)), (60, (30, 60))):
        view = CropAugmentation(40, longest, 90, None)(ones, np.random.default_rng(0))
        assert (view.segments.any(axis=1).sum(), view.segments.any(axis=0).sum()) == expected
        assert view.segments[: expected[0], : expected[1]].all()


def test_padding_is_grey_at_the_right_and_the_bottom():
    padded = pad(coded(3, 5), 8)
    assert np.array_equal(padded.rgb[:3, :5], coded(3, 5).rgb)
    assert (padded.rgb[3:] == 128).all()
    assert (padded.rgb[:, 5:] == 128).all()
    assert not padded.segments[3:].any()
    assert not padded.segments[:, 5:].any()


def test_padding_keeps_its_grey_whatever_happens_to_colours():
    view = CropAugmentation(20, 20, 32, ColourJitter(hue=90))
    bottoms = [view(coded(40, 40), np.random.default_rng(seed)).rgb[20:] for seed in range(20)]
    assert all((bottom == 128).all() for bottom in bottoms)


def test_crops_reach_every_corner():
    """20 × 30 cut to 20: all of the 11 places along the width, no other along the height, all about as often."""
    wide = np.broadcast_to(np.arange(1, 31), (20, 30))
    labelled = LabelledPicture(noisy(20, 30), wide, np.zeros(30, int), np.zeros(30, bool), "wide")
    augment, generator = CropAugmentation(20, 30, 20, None), np.random.default_rng(0)
    lefts = [int(augment(labelled, generator).segments.min()) - 1 for _ in range(1100)]
    counts = np.bincount(lefts, minlength=11)
    assert len(counts) == 11
    assert counts.min() > 60
    assert counts.max() < 150


def test_the_scale_is_spread_over_its_range():
    ones = replace(coded(40, 20), segments=np.ones((40, 20), int))
    augment, generator = ScaleAugmentation(64, 0.1, 1.0), np.random.default_rng(0)
    heights = np.array([augment(ones, generator).segments.any(axis=1).sum() for _ in range(400)])
    assert heights.min() in (6, 7)
    assert heights.max() in (63, 64)
    assert abs(heights.mean() - 0.55 * 64) < 2


def test_a_large_scale_shows_a_part_in_full():
    """At scale 2, a picture of the crop's shape fills it, and one random number places the crop on the diagonal."""
    grid = np.arange(1, 65).reshape(8, 8).repeat(4, 0).repeat(4, 1)
    labelled = LabelledPicture(noisy(32, 32), grid, np.zeros(64, int), np.zeros(64, bool), "grid")
    augment = ScaleAugmentation(32, 2.0, 2.0)
    for seed in range(10):
        view = augment(labelled, np.random.default_rng(seed)).segments
        assert view.all()
        assert len(np.unique(view)) <= 25  # half of 8 blocks, and one that is cut, along each axis
        top, left = divmod(int(view.min()) - 1, 8)
        flipped = view[0, 0] > view[0, -1]
        right = 7 - (int(view[0].max()) - 1) % 8
        assert abs(top - (right if flipped else left)) <= 1


def test_half_of_the_views_are_flipped():
    labelled, generator = coded(9, 9, 1), np.random.default_rng(0)
    flipped = sum(same(flip_half(labelled, generator), flip(labelled)) for _ in range(400))
    assert not same(labelled, flip(labelled))
    assert 160 < flipped < 240


def test_crop_takes_what_there_is():
    view = crop(coded(30, 30), (20, 5), 16)
    assert view.segments.shape == (10, 16)
    assert np.array_equal(view.rgb, coded(30, 30).rgb[20:, 5:21])


def reference_hsv(colours: np.ndarray, turn: float, factor: float) -> np.ndarray:
    changed = []
    for red, green, blue in colours.reshape(3, -1).T / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        changed.append(colorsys.hsv_to_rgb((hue + turn) % 1, min(1, saturation * factor), value))
    return np.array(changed).T.reshape(colours.shape) * 255


@given(st.floats(-0.5, 0.5), SEEDS)
@settings(max_examples=30, deadline=None)
def test_turning_hue_is_colorsys(turn, seed):
    colours = np.moveaxis(noisy(4, 4, seed), -1, 0).astype(np.float32)
    colours[:, 0] = ((0, 255, 90, 255), (0, 255, 90, 0), (0, 255, 90, 0))  # black, white, grey, red
    np.testing.assert_allclose(turn_hue(colours, turn), reference_hsv(colours, turn, 1), atol=0.01)


@given(st.floats(0, 3), SEEDS)
@settings(max_examples=30, deadline=None)
def test_scaling_saturation_is_colorsys(factor, seed):
    colours = np.moveaxis(noisy(4, 4, seed), -1, 0).astype(np.float32)
    colours[:, 0] = ((0, 255, 90, 255), (0, 255, 90, 0), (0, 255, 90, 0))
    np.testing.assert_allclose(scale_saturation(colours, factor), reference_hsv(colours, 0, factor), atol=0.01)


STILL = ColourJitter(brightness=0.0, contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=0)


@pytest.mark.parametrize(
    ("jitter", "before", "outcomes"),
    [
        (replace(STILL, contrast=(1.5, 1.5)), (100, 60, 20), {(100, 60, 20), (150, 90, 30)}),
        (replace(STILL, contrast=(1.5, 1.5)), (200, 60, 20), {(200, 60, 20), (255, 90, 30)}),
        (replace(STILL, saturation=(0.5, 0.5)), (200, 100, 0), {(200, 100, 0), (200, 150, 100)}),
        (STILL, (12, 200, 7), {(12, 200, 7)}),
    ],
    ids=["contrast", "clipped", "saturation", "nothing"],
)
def test_each_step_happens_to_half_of_the_pictures(jitter, before, outcomes):
    rgb, generator = np.array([[before]], np.uint8), np.random.default_rng(0)
    seen = [tuple(jitter(rgb, generator)[0, 0].tolist()) for _ in range(200)]
    assert set(seen) == outcomes
    assert len(outcomes) == 1 or 70 < seen.count(before) < 130


def test_contrast_comes_before_or_after_saturation():
    """250 × 1.5 is cut to 255, so that the order shows."""
    jitter, generator = replace(STILL, contrast=(1.5, 1.5), saturation=(0.5, 0.5)), np.random.default_rng(0)
    rgb = np.array([[(250, 100, 100)]], np.uint8)
    first, last = (
        (255, 202, 202),
        (255, 255, 255),
    )  # (255 + 150) / 2 = 202.5, to even; (250 + 100) / 2 · 1.5 = 262.5, cut
    seen = [tuple(jitter(rgb, generator)[0, 0].tolist()) for _ in range(400)]
    assert set(seen) == {(250, 100, 100), (255, 150, 150), (250, 175, 175), first, last}
    assert 25 < seen.count(first) < 80  # an eighth
    assert 25 < seen.count(last) < 80


def test_brightness_and_hue_stay_in_their_range():
    generator, rgb = np.random.default_rng(0), np.array([[(100, 100, 100)]], np.uint8)
    added = [int(replace(STILL, brightness=32.0)(rgb, generator)[0, 0, 0]) - 100 for _ in range(500)]
    assert min(added) in (-32, -31)
    assert max(added) in (31, 32)
    red = np.array([[(255, 0, 0)]], np.uint8)
    turned = {tuple(replace(STILL, hue=18)(red, generator)[0, 0].tolist()) for _ in range(2000)}
    assert len(turned) == 37  # −18 to 18, of 180
    assert (255, 153, 0) in turned  # 36° of 60° to yellow
    assert (255, 0, 153) in turned


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="given 0; its sizes and scales must be above 0"):
        CropAugmentation(640, 1333, 0)
    with pytest.raises(ValueError, match=r"given -0\.1"):
        ScaleAugmentation(1024, -0.1, 2.0)
    with pytest.raises(ValueError, match=r"smallest scale, 2.0, is above the largest, 0.1"):
        ScaleAugmentation(1024, 2.0, 0.1)
