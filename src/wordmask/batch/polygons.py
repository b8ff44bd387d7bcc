"""Masks → polygons, as YOLO wants regions."""

from itertools import chain

import numpy as np

from wordmask.polygons import outlines

TOLERANCE = 0.75  # pixels an outline may leave the pixels' edges by: a staircase of single pixels, 0.71, becomes a line


def as_polygons(mask: np.ndarray, *, whole: bool, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """Outline a mask by polygons, (N, 2) of x and y in pixels, along the edges of its pixels.

    Holes, and pieces if `whole`, are joined to one polygon by lines walked there and back, as YOLO's own tools do.

    Args:
        mask: (H, W) bool.
        whole: One polygon for all pieces; otherwise one each.
        tolerance: Pixels; 0 keeps every corner.
    """
    polygons = outlines(mask)
    groups = [list(chain.from_iterable(polygons))] if whole and polygons else polygons
    return [_join_simplified(rings, tolerance) for rings in groups]


def _join_simplified(rings: list[np.ndarray], tolerance: float) -> np.ndarray:
    return _join([_simplify(ring, tolerance) for ring in rings])


def _simplify(loop: np.ndarray, tolerance: float) -> np.ndarray:
    """Drop corners that a line within `tolerance` can do without (Douglas and Peucker), from the two that are far
    apart."""
    if tolerance == 0 or len(loop) <= 4:
        return loop
    far = int(((loop - loop[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([loop, loop[:1]])
    kept = np.zeros(len(closed), bool)
    kept[[0, far]] = True
    spans = [(0, far), (far, len(loop))]
    while spans:
        first, last = spans.pop()
        inner = closed[first + 1 : last]
        if not len(inner):
            continue
        line = closed[last] - closed[first]
        offset = inner - closed[first]
        length = np.hypot(*line)
        distance = np.abs(line[0] * offset[:, 1] - line[1] * offset[:, 0]) / length if length else np.hypot(*offset.T)
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    simple = loop[kept[:-1]]
    return simple if len(simple) >= 3 else loop


def _join(loops: list[np.ndarray]) -> np.ndarray:
    """One after the other, from start to start, and all the way back."""
    if len(loops) == 1:
        return loops[0]
    closed = [np.concatenate([loop, loop[:1]]) for loop in loops]
    return np.concatenate([*closed, *(loop[:1] for loop in reversed(loops[:-1]))])
