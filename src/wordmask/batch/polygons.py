"""Masks → polygons, as YOLO wants regions."""

import numpy as np
from scipy import ndimage

TOLERANCE = 0.75  # pixels an outline may leave the pixels' edges by: a staircase of single pixels, 0.71, becomes a line


def as_polygons(mask: np.ndarray, *, whole: bool, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """Outline a mask by polygons, (N, 2) of x and y in pixels, along the edges of its pixels.

    Holes, and pieces if `whole`, are joined to one polygon by lines walked there and back, as YOLO's own tools do.

    Args:
        mask: (H, W) bool.
        whole: One polygon for all pieces; otherwise one each.
        tolerance: Pixels; 0 keeps every corner.
    """
    if whole:
        return [_join([_simplify(loop, tolerance) for loop in outlines(mask)])] if mask.any() else []
    pieces, _ = ndimage.label(mask)
    polygons = []
    for piece, place in enumerate(ndimage.find_objects(pieces), 1):
        loops = outlines(pieces[place] == piece)
        corner = np.array([place[1].start, place[0].start])
        polygons.append(_join([_simplify(loop, tolerance) for loop in loops]) + corner)
    return polygons


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Walk around a mask, the inside on the right: the corners, (N, 2) of x and y, of the border of every piece and hole."""
    padded = np.pad(mask.astype(np.int8), 1)
    down, right = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]  # (H + 1, W), (H, W + 1): 1 enters, -1 leaves
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edges, (from_x, from_y), (to_x, to_y) in (  # of each pixel edge: where it starts and ends, (y, x) added to its index
        (down == 1, (0, 0), (1, 0)),  # the top of a pixel, walked to the right
        (down == -1, (1, 0), (0, 0)),
        (right == -1, (0, 0), (0, 1)),  # the right side of a pixel, walked down
        (right == 1, (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(edges).tolist():
            ahead.setdefault((x + from_x, y + from_y), []).append((x + to_x, y + to_y))
    loops = []
    while ahead:
        loops.append(_walk(ahead, next(iter(ahead))))
    return loops


def _walk(ahead: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> np.ndarray:
    """Follow edges until the start is reached; where two pixels touch at a corner, turn right: they are two pieces."""
    here, step, corners = start, None, []
    while True:
        ways = ahead[here]
        turned = None if step is None else (here[0] - step[1], here[1] + step[0])
        there = turned if turned in ways else ways[0]
        ways.remove(there)
        if not ways:
            del ahead[here]
        direction = (there[0] - here[0], there[1] - here[1])
        if direction != step:
            corners.append(here)
        here, step = there, direction
        if here == start:
            return np.array(corners)


def _simplify(loop: np.ndarray, tolerance: float) -> np.ndarray:
    """Drop corners that a line within `tolerance` can do without (Douglas and Peucker), from the two that are far apart."""
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
