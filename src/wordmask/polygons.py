"""Masks → polygons along the pixels' edges, exactly."""

import numpy as np
from scipy import ndimage

Ring = list[list[int]]
Edge = tuple[int, int, int]  # row and column of the corner where it starts, and its direction
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (rows, columns): right, down, left, up; a turn to the right adds 1


def to_polygons(mask: np.ndarray) -> list[list[Ring]]:
    """Outline every connected part of a mask, (H, W) bool: its outer ring first, then one ring per hole.

    Rings are corners [x, y] in pixels, from the left upper edge of the picture; the last is not the first again. Pixels
    that touch at a corner only belong to different parts. Filled by the even-odd rule, the rings give the mask again.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    parts, count = ndimage.label(padded)
    polygons: list[list[Ring]] = [[] for _ in range(count)]
    edges = _edges(padded)
    left = set(edges)
    for start in edges:
        if start in left:
            ring, part = _follow(left, start), parts[_inside(*start)]
            polygons[part - 1].insert(0 if _area(ring) > 0 else len(polygons[part - 1]), ring)
    return polygons


def _edges(padded: np.ndarray) -> list[Edge]:
    """Every edge between inside and outside, walked with the inside on the right."""
    above, below, left, right = padded[:-1], padded[1:], padded[:, :-1], padded[:, 1:]
    starts = (
        (below & ~above, (1, 0)),  # the top of a pixel, to the right
        (left & ~right, (0, 1)),  # its right side, down
        (above & ~below, (1, 1)),  # its bottom, to the left
        (right & ~left, (1, 1)),  # its left side, up
    )
    corners = [(np.argwhere(places) + shift).tolist() for places, shift in starts]
    return [(row, column, direction) for direction, found in enumerate(corners) for row, column in found]


def _follow(left: set[Edge], start: Edge) -> Ring:
    """Walk round from `start`, take the edges out of those left, and note the corners; where two parts touch, turn
    right."""
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


def _inside(row: int, column: int, direction: int) -> tuple[int, int]:
    """The pixel to the right of an edge."""
    return ((row, column), (row, column - 1), (row - 1, column - 1), (row - 1, column))[direction]


def _area(ring: Ring) -> float:
    """Positive for a ring walked with its inside on the right, y pointing down."""
    x, y = np.array(ring, np.int64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2
