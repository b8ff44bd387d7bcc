"""Masks → polygons along the pixels' edges, exactly."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

Ring = list[list[int]]


class Corners(NamedTuple):
    """Where outlines turn, row by row: the first and the second corner of a row are the ends of a level side, the third
    and the fourth of the next one, and so on. Where two pixels touch at a corner only, there are two corners.

    Args:
        points: x and y in pixels, from the left upper edge of the picture.
        across: For each corner, the other end of its upright side.
        rightwards: For each level side, whether its inside is below: rings are walked with the inside on the right.
    """

    points: Int[np.ndarray, "N 2"]
    across: Int[np.ndarray, " N"]
    rightwards: Bool[np.ndarray, " S"]


def to_polygons(mask: np.ndarray) -> list[list[Ring]]:
    """Outline every connected part of a mask, (H, W) bool: its outer ring first, then one ring per hole.

    Rings are corners [x, y] in pixels, from the left upper edge of the picture; the last is not the first again. Pixels
    that touch at a corner only belong to different parts. Filled by the even-odd rule, the rings are the mask again.
    """
    return [_plain(rings) for rings in outlines(mask)]


def outlines(mask: np.ndarray) -> list[list[Int[np.ndarray, "N 2"]]]:
    """Outline a mask as `to_polygons` does, with an array of corners for each ring."""
    mask = np.asarray(mask, bool)
    parts, count = ndimage.label(mask)  # pyright: ignore[reportGeneralTypeIssues]  # a pair, as no output is handed in
    polygons: list[list[np.ndarray]] = [[] for _ in range(count)]
    if not count:
        return polygons
    corners = _find_corners(mask)
    ends = np.arange(0, len(corners.points), 2) + corners.rightwards  # the corner where the walk leaves a level side
    sides, starts = _walk(corners.across[ends] // 2, corners.rightwards)
    walked = np.stack([ends[sides], corners.across[ends[sides]]], axis=1).ravel()
    rings = np.split(corners.points[walked], 2 * starts[1:])
    x, y = corners.points[2 * sides[starts]].T  # of the pixel below each ring's first side: it is inside
    for part, ring in zip(parts[y, x].tolist(), rings, strict=True):
        polygons[part - 1].append(ring)  # a part's first pixel is below its outer ring: that comes before the holes
    return polygons


def _plain(rings: list[np.ndarray]) -> list[Ring]:
    return [ring.tolist() for ring in rings]


def _find_corners(mask: Bool[np.ndarray, "H W"]) -> Corners:
    padded = np.pad(mask, 1)
    above, below = padded[:-1], padded[1:]
    upper_left, upper_right, lower_left, lower_right = above[:, :-1], above[:, 1:], below[:, :-1], below[:, 1:]
    touching = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    height, width = touching.shape
    places = np.flatnonzero(touching | (upper_left ^ upper_right ^ lower_left ^ lower_right))
    places = np.repeat(places, 1 + touching.ravel()[places])
    y, x = np.divmod(places, width)
    inside_right, inside_left = lower_right[y, x], lower_left[y, x]
    begins = np.arange(len(places)) % 2 == 0  # a level side, which goes on to the right
    # each of two touching pixels keeps its own corner: of a pixel on the lower right it is the one that begins a side
    downwards = np.where(touching[y, x], begins == inside_right, inside_left != inside_right)
    column_by_column = np.argsort((x * height + y) * 2 + downwards)  # a side that ends here before one that begins
    upper, lower = column_by_column[0::2], column_by_column[1::2]
    across = np.empty_like(places)
    across[upper], across[lower] = lower, upper
    return Corners(np.stack([x, y], axis=1), across, inside_right[begins])


def _walk(
    following: Int[np.ndarray, " S"], rightwards: Bool[np.ndarray, " S"]
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " R"]]:
    """Go round every ring, from its first side that leads to the right, in the order of these.

    Args:
        following: For each level side, the next one of its ring.

    Returns:
        The sides as they are walked, and where in them each ring starts.
    """
    ring = connected_components(_graph(following))[1]
    candidates = np.flatnonzero(rightwards)
    firsts = np.sort(candidates[np.unique(ring[candidates], return_index=True)[1]])
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    chained = following.copy()  # the last side of each ring leads to the first of the next: one search walks them all
    chained[before[firsts]] = np.roll(firsts, -1)
    sides = depth_first_order(_graph(chained), firsts[0], return_predecessors=False)
    lengths = np.bincount(ring)[ring[firsts]]
    return sides, np.cumsum(lengths) - lengths


def _graph(following: Int[np.ndarray, " S"]) -> csr_array:
    """One arrow from each entry to the one that it names."""
    count = len(following)
    return csr_array((np.ones(count), following, np.arange(count + 1)), shape=(count, count))
