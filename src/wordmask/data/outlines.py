"""Outlines as COCO's detection format writes them: polygons, or lengths of runs."""

import math

import numpy as np
from jaxtyping import Int

from wordmask.data.files import Size, width_by_height

POLYGON_NUMBERS = 6  # x and y of three corners; pycocotools takes four numbers for a box


def read_runs(segmentation: object, size: Size) -> Int[np.ndarray, " R"]:
    """Read an outline as COCO writes it: the lengths of runs outside and inside in turn, column by column.

    Run lengths are decoded here: pycocotools 2.0.11 returns memory it never wrote where they end early.

    Raises:
        ValueError: No outline, or one that does not fit a picture of `size`, (height, width).
    """
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if segmentation.get("size") != list(size):
            raise ValueError(
                f"its run lengths are for [height, width] {segmentation.get('size')}; expected {list(size)}."
            )
    elif isinstance(segmentation, list) and segmentation:
        counts = _fill_polygons(segmentation, size)
    else:
        raise ValueError(
            f"it has no outline ('segmentation' is {segmentation!r}); "
            "expected polygons or run lengths, not a box alone."
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
