import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wordmask.polygons import to_polygons


def filled(polygons: list, size: tuple[int, int]) -> np.ndarray:
    """Fill rings by the even-odd rule: every upright edge flips the pixels to its right."""
    flips = np.zeros((size[0], size[1] + 1), bool)
    for ring in (ring for polygon in polygons for ring in polygon):
        for (x, y), (next_x, next_y) in zip(ring, ring[1:] + ring[:1], strict=True):
            assert (x == next_x) != (y == next_y), "corners only, upright and level in turn"
            if x == next_x:
                flips[min(y, next_y) : max(y, next_y), x] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :-1]


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)))
def test_polygons_give_the_mask_again(mask):
    np.testing.assert_array_equal(filled(to_polygons(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["."], []),
        (["#"], [[[[1, 0], [1, 1], [0, 1], [0, 0]]]]),
        (["##", "##"], [[[[2, 0], [2, 2], [0, 2], [0, 0]]]]),
        (["###", "#.#", "###"], [[[[3, 0], [3, 3], [0, 3], [0, 0]], [[2, 2], [2, 1], [1, 1], [1, 2]]]]),
        (["#.", ".#"], [[[[1, 0], [1, 1], [0, 1], [0, 0]]], [[[2, 1], [2, 2], [1, 2], [1, 1]]]]),
    ],
)
def test_by_hand(rows, expected):
    mask = np.array([[character == "#" for character in row] for row in rows])
    assert to_polygons(mask) == expected


@given(st.integers(0, 2**30))
def test_every_part_is_one_polygon(seed):
    from scipy import ndimage

    mask = np.random.default_rng(seed).random((9, 9)) < 0.6
    polygons = to_polygons(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    for outer, *holes in polygons:
        part = filled([[outer]], mask.shape)
        assert part.any()
        assert all((filled([[hole]], mask.shape) <= part).all() for hole in holes)
