"""The shapes of Shapeland, drawn once as templates. Whole numbers throughout: the same pixels on any machine."""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8

SIDE = 192  # pixels of a template
REACH = 100  # a shape is drawn in coordinates from -REACH to REACH, y downwards
BORDER = 8  # template pixels: the width of the dark line around a shape
OUTSIDE, INSIDE, ON_BORDER = 0, 1, 2  # values of a template

Point = tuple[int, int]
Part = tuple[int, str, tuple]  # 1 to add or 0 to take away, the kind, its numbers


def _polygon(*points: Point) -> Part:
    return 1, "polygon", points


def _ellipse(x: int, y: int, across: int, down: int) -> Part:
    return 1, "ellipse", (x, y, across, down)


def _disc(x: int, y: int, radius: int) -> Part:
    return _ellipse(x, y, radius, radius)


def _box(left: int, top: int, right: int, bottom: int) -> Part:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _without(part: Part) -> Part:
    return 0, *part[1:]


def _spikes(count: int, outer: int, inner: int) -> Part:
    angles = (math.pi * step / count for step in range(2 * count))
    radii = (inner if step % 2 else outer for step in range(2 * count))
    points = ((round(r * math.sin(a)), round(-r * math.cos(a))) for a, r in zip(angles, radii, strict=True))
    return _polygon(*points)


SHAPES: dict[str, tuple[Part, ...]] = {
    "star": (_spikes(5, 100, 42),),
    "heart": (_disc(-43, -35, 48), _disc(43, -35, 48), _polygon((-87, -14), (0, 95), (87, -14), (0, -40))),
    "house": (_polygon((-95, -10), (0, -95), (95, -10)), _box(-70, -12, 70, 92), _without(_box(-18, 35, 18, 92))),
    "fish": (_ellipse(-18, 0, 76, 50), _polygon((40, 0), (98, -52), (98, 52)), _without(_disc(-56, -12, 9))),
    "key": (
        _disc(-58, 0, 40),
        _without(_disc(-58, 0, 18)),
        _box(-20, -11, 96, 11),
        _box(46, 8, 62, 42),
        _box(76, 8, 92, 34),
    ),
    "tree": (
        _polygon((-60, -20), (0, -98), (60, -20)),
        _polygon((-78, 22), (0, -60), (78, 22)),
        _polygon((-94, 64), (0, -20), (94, 64)),
        _box(-16, 60, 16, 98),
    ),
    "moon": (_disc(0, 0, 96), _without(_disc(42, -14, 80))),
    "arrow": (_polygon((-96, -24), (14, -24), (14, -72), (97, 0), (14, 72), (14, 24), (-96, 24)),),
    "cross": (_box(-30, -96, 30, 96), _box(-96, -30, 96, 30)),
    "ring": (_disc(0, 0, 96), _without(_disc(0, 0, 54))),
    "triangle": (_polygon((0, -92), (96, 80), (-96, 80)),),
    "square": (_box(-80, -80, 80, 80),),
    "circle": (_disc(0, 0, 92),),
    "mushroom": (
        _ellipse(0, -8, 96, 82),
        _without(_box(-100, 0, 100, 100)),
        _polygon((-26, -4), (26, -4), (36, 94), (-36, 94)),
    ),
    "cup": (
        _disc(56, -4, 40),
        _without(_disc(56, -4, 22)),
        _polygon((-82, -62), (56, -62), (42, 82), (-68, 82)),
    ),
    "umbrella": (
        _disc(0, 0, 96),
        _without(_box(-100, 0, 100, 100)),
        _without(_disc(-64, 4, 30)),
        _without(_disc(0, 4, 30)),
        _without(_disc(64, 4, 30)),
        _box(-7, -20, 7, 84),
        _box(-34, 74, 7, 94),
    ),
    "bottle": (_box(-20, -98, 20, -40), _polygon((-20, -60), (20, -60), (48, -8), (-48, -8)), _box(-48, -10, 48, 96)),
    "bell": (_disc(0, -30, 58), _polygon((-58, -34), (58, -34), (88, 66), (-88, 66)), _disc(0, 74, 20)),
    "boat": (
        _polygon((-96, 34), (96, 34), (62, 88), (-62, 88)),
        _box(-8, -92, 6, 36),
        _polygon((14, -84), (84, 22), (14, 22)),
    ),
    "car": (
        _polygon((-52, -58), (34, -58), (62, -8), (-76, -8)),
        _box(-97, -12, 97, 36),
        _disc(-52, 38, 26),
        _disc(52, 38, 26),
        _without(_polygon((-42, -46), (-10, -46), (-10, -16), (-58, -16))),
    ),
    "flag": (_box(-84, -96, -66, 98), _polygon((-70, -92), (92, -60), (92, -58), (-70, 22))),
    "hammer": (_box(-13, -50, 13, 98), _polygon((-78, -92), (50, -92), (90, -60), (50, -46), (-78, -46))),
    "crown": (_polygon((-92, -66), (-48, -4), (0, -84), (48, -4), (92, -66), (78, 72), (-78, 72)),),
    "butterfly": (
        _ellipse(-52, -38, 46, 50),
        _ellipse(52, -38, 46, 50),
        _ellipse(-42, 48, 36, 42),
        _ellipse(42, 48, 36, 42),
        _ellipse(0, 4, 12, 78),
    ),
}


@cache
def template(shape: str) -> UInt8[np.ndarray, "S S"]:
    """Draw a shape: `OUTSIDE`, `INSIDE` or `ON_BORDER` for each pixel. The outermost pixels are outside."""
    inside = _draw(SHAPES[shape])
    core = inside.copy()
    for _ in range(BORDER):
        padded = np.pad(core, 1)
        core = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = np.where(core, INSIDE, np.where(inside, ON_BORDER, OUTSIDE)).astype(np.uint8)
    drawn[[0, -1]] = drawn[:, [0, -1]] = OUTSIDE
    return drawn


def _draw(parts: Iterable[Part]) -> Bool[np.ndarray, "S S"]:
    """Add and take away parts in order. Coordinates are scaled by the side, so that the centres of pixels are whole
    numbers."""
    steps = (2 * np.arange(SIDE, dtype=np.int64) + 1 - SIDE) * REACH
    x, y = steps[None], steps[:, None]
    drawn = np.zeros((SIDE, SIDE), dtype=bool)
    for add, kind, numbers in parts:
        covers = _inside_polygon(numbers, x, y) if kind == "polygon" else _inside_ellipse(numbers, x, y)
        drawn = drawn | covers if add else drawn & ~covers
    return drawn


def _inside_polygon(points: tuple[Point, ...], x: np.ndarray, y: np.ndarray) -> Bool[np.ndarray, "S S"]:
    """Even-odd rule: does a ray to the right cross an odd number of edges?"""
    corners = [(px * SIDE, py * SIDE) for px, py in points]
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y1 == y2:
            continue
        left_of_edge = ((x - x1) * (y2 - y1) < (x2 - x1) * (y - y1)) == (y2 > y1)
        inside ^= ((y1 > y) != (y2 > y)) & left_of_edge
    return inside


def _inside_ellipse(numbers: tuple[int, int, int, int], x: np.ndarray, y: np.ndarray) -> Bool[np.ndarray, "S S"]:
    centre_x, centre_y, across, down = numbers
    return ((x - centre_x * SIDE) * down) ** 2 + ((y - centre_y * SIDE) * across) ** 2 <= (across * down * SIDE) ** 2
