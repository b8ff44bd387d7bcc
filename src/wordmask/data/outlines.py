"""Outlines as COCO's detection format writes them: polygons, or lengths of runs."""

import json
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from wordmask.data.files import Size, width_by_height

FARTHEST = 0.05  # how far outside a picture shares of its sides may lie
POLYGON_NUMBERS = 6  # x and y of three corners; pycocotools takes four numbers for a box


@dataclass(frozen=True)
class Shares:
    """A polygon in shares of width and height: x, y, x, y …"""

    corners: tuple[float, ...]


@dataclass(frozen=True)
class Box:
    """All that is known of where something is.

    Args:
        edges: Left, top, right, bottom: in pixels, or in shares of width and height.
    """

    edges: tuple[float, float, float, float]
    in_shares: bool = False


@dataclass(frozen=True)
class MaskAt:
    """A mask of a part of the picture, (h, w) bool, whose left upper corner is at (left, top)."""

    mask: Bool[np.ndarray, "h w"]
    left: int
    top: int

    def runs(self, size: Size) -> list[int]:
        """Run lengths over the whole picture; what lies outside is cut off."""
        whole = np.zeros(size, bool)
        top, left = max(self.top, 0), max(self.left, 0)
        part = self.mask[top - self.top : size[0] - self.top, left - self.left : size[1] - self.left]
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        flat = whole.T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        starts = [0] if flat[:1].any() else []  # the first run is outside
        return np.diff([0, *starts, *edges.tolist(), flat.size]).tolist()


def read_runs(outline: object, size: Size) -> Int[np.ndarray, " R"]:
    """Read an outline, as COCO's json has it or one of the above: the lengths of runs outside and inside in turn,
    column by column.

    Run lengths are decoded here: pycocotools 2.0.11 returns memory it never wrote where they end early. A polygon may
    be bare, and an outline may be text, as tables that became json have it.

    Raises:
        ValueError: No outline, or one that does not fit a picture of `size`, (height, width).
    """
    if isinstance(outline, Shares | Box):
        outline = [_corners(outline, size)]
    if isinstance(outline, MaskAt):
        return np.array(outline.runs(size), np.int64)
    if isinstance(outline, str):
        outline = _of_text(outline, size)
    if isinstance(outline, dict):
        counts = outline.get("counts")
        if outline.get("size") != list(size):
            raise ValueError(f"its run lengths are for [height, width] {outline.get('size')}; expected {list(size)}.")
    elif isinstance(outline, list) and outline:
        bare = all(_is_number(number) for number in outline)
        counts = _fill_polygons([outline] if bare else outline, size)
    else:
        raise ValueError(
            f"it has no outline ('segmentation' is {outline!r}); expected polygons or run lengths, not a box alone."
        )
    if isinstance(counts, str | bytes):
        counts = _decompress(counts)
    if (
        not isinstance(counts, list)
        or not all(type(count) is int and count >= 0 for count in counts)
        or sum(counts) != math.prod(size)
    ):
        raise ValueError(
            f"its run lengths are damaged; expected whole numbers that sum to {math.prod(size)}, height × width."
        )
    return np.array(counts, np.int64)


def _of_text(text: str, size: Size) -> object:
    """Json in a string; or compressed run lengths without the size that they are for."""
    try:
        return json.loads(text)
    except ValueError:
        return {"size": list(size), "counts": text} if text.strip() else []


def _corners(outline: Shares | Box, size: Size) -> list[float]:
    """The polygon in pixels."""
    if isinstance(outline, Box):
        left, top, right, bottom = outline.edges
        corners, shares = (left, top, right, top, right, bottom, left, bottom), outline.in_shares
    else:
        corners, shares = outline.corners, True
    if not shares:
        return list(corners)
    if not all(-FARTHEST <= number <= 1 + FARTHEST for number in corners):
        raise ValueError(
            f"its corners go from {min(corners):g} to {max(corners):g}; expected shares of the picture's sides, from 0 "
            "to 1, not pixels."
        )
    return [number * size[1 - place % 2] for place, number in enumerate(corners)]


def _decompress(text: str | bytes) -> list[int]:
    """Undo COCO's compression: digits to the base 32, lowest first, 48 added, 32 for "goes on"; from the fourth,
    differences two back."""
    counts, value, shift = [], 0, 0
    for character in text.encode("ascii", "replace") if isinstance(text, str) else text:
        digit = character - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            signed = value - (1 << shift if digit & 16 else 0)
            counts.append(signed + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts


def _fill_polygons(polygons: list, size: Size) -> str | bytes:
    from pycocotools import mask

    height, width = size
    for polygon in polygons:
        if (
            not isinstance(polygon, list)
            or len(polygon) < POLYGON_NUMBERS
            or len(polygon) % 2
            or not all(map(_is_number, polygon))
        ):
            raise ValueError(
                f"it has the polygon {str(polygon)[:80]}; expected [x, y, x, y, x, y, …], at least three corners."
            )
        corners = np.array(polygon).reshape(-1, 2)
        if (corners < (-width, -height)).any() or (corners > (2 * width, 2 * height)).any():
            raise ValueError(
                f"a polygon lies far outside the picture of {width_by_height(size)}; "
                "expected coordinates in its pixels."
            )
    return mask.merge(mask.frPyObjects(polygons, height, width))["counts"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
