import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from wordmask.polygons import to_polygons

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (rows, columns): right, down, left, up; a turn to the right adds 1


def filled(polygons: list, size: tuple[int, int]) -> np.ndarray:
    """Fill rings by the even-odd rule: every upright edge flips the pixels to its right."""
    flips = np.zeros((size[0], size[1] + 1), bool)
    for ring in (ring for polygon in polygons for ring in polygon):
        for (x, y), (next_x, next_y) in zip(ring, ring[1:] + ring[:1], strict=True):
            assert (x == next_x) != (y == next_y), "corners only, upright and level in turn"
            if x == next_x:
                flips[min(y, next_y) : max(y, next_y), x] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :-1]


def walked(mask: np.ndarray) -> list:
    """The slow, obvious version: note every edge between inside and outside, and walk from one to the next."""
    padded = np.pad(mask, 1)
    parts, count = ndimage.label(padded)
    polygons: list = [[] for _ in range(count)]
    edges = edges_of(padded)
    left = set(edges)
    for start in edges:
        if start in left:
            ring, part = follow(left, start), parts[pixel_inside(*start)]
            polygons[part - 1].insert(0 if enclosed(ring) > 0 else len(polygons[part - 1]), ring)
    return polygons


def edges_of(padded: np.ndarray) -> list[tuple[int, int, int]]:
    """Row, column and direction of every edge, walked with the inside on the right."""
    above, below, left, right = padded[:-1], padded[1:], padded[:, :-1], padded[:, 1:]
    starts = (
        (below & ~above, (1, 0)),  # the top of a pixel, to the right
        (left & ~right, (0, 1)),  # its right side, down
        (above & ~below, (1, 1)),  # its bottom, to the left
        (right & ~left, (1, 1)),  # its left side, up
    )
    corners = [(np.argwhere(places) + shift).tolist() for places, shift in starts]
    return [(row, column, direction) for direction, found in enumerate(corners) for row, column in found]


def follow(left: set, start: tuple[int, int, int]) -> list:
    """Walk round, take the edges out of those left, and note the corners; where two parts touch, turn right."""
    ring, edge = [], start
    while not ring or edge != start:
        row, column = edge[0] + STEPS[edge[2]][0], edge[1] + STEPS[edge[2]][1]
        turns = ((row, column, (edge[2] + turn) % 4) for turn in (1, 0, -1))
        following = next(turned for turned in turns if turned in left)
        if following[2] != edge[2]:
            ring.append([column - 1, row - 1])  # without the padding
        if edge != start:
            left.remove(edge)
        edge = following
    left.remove(start)
    return ring


def pixel_inside(row: int, column: int, direction: int) -> tuple[int, int]:
    """The pixel to the right of an edge."""
    return ((row, column), (row, column - 1), (row - 1, column - 1), (row - 1, column))[direction]


def enclosed(ring: list) -> float:
    """The area of a ring; positive where it is walked with its inside on the right, y pointing down."""
    x, y = np.array(ring, np.int64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=8))


@given(MASKS)
def test_polygons_give_the_mask_again(mask):
    np.testing.assert_array_equal(filled(to_polygons(mask), mask.shape), mask)


@given(MASKS)
def test_the_same_rings_as_by_walking(mask):
    assert to_polygons(mask) == walked(mask)


@given(st.integers(0, 2**30), st.floats(0, 1), st.floats(0, 2))
def test_the_same_rings_as_by_walking_at_any_density(seed, density, grain):
    """Specks, holes, islands in holes, diagonals and borders; the coarser, the longer the rings."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((24, 31)), grain)
    mask = noise < np.quantile(noise, density)
    assert to_polygons(mask) == walked(mask)


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
    mask = np.random.default_rng(seed).random((9, 9)) < 0.6
    polygons = to_polygons(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    for outer, *holes in polygons:
        part = filled([[outer]], mask.shape)
        assert part.any()
        assert all((filled([[hole]], mask.shape) <= part).all() for hole in holes)
