"""Scenes of Shapeland: a number in, a picture with its exact segments out. Whole numbers throughout: the same pixels on
any machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from numpy.random import RandomState

from wordmask.data.shapeland.materials import NAMES, TILE, packed_tile
from wordmask.data.shapeland.names import COLOURS, COMPOSITIONS, Composition
from wordmask.data.shapeland.shapes import INSIDE, ON_BORDER, OUTSIDE, SIDE, template

FIXED = 14  # bits after the point of fixed-point numbers
SINES = tuple(round(math.sin(math.radians(degrees)) * 2**FIXED) for degrees in range(360))
MOST_LEAN = 50  # degrees by which a thing is turned to either side
LEAST_VISIBLE = 40  # percent of a thing that others leave uncovered
SMALLEST_SIDE = 6  # pixels of a thing
TRIES = 12  # at finding a place for a thing
TONE = 14  # by which a thing's colour may differ from its name's, of 255
PATTERN_CELLS = 10  # stripes, squares and dots along a template
NOISE = 10  # the strongest, of 255


@dataclass(frozen=True)
class World:
    """What the scenes of a set look like.

    Args:
        height: The pictures' height in pixels.
        width: Their width.
        things: The kinds that may appear.
        count: The fewest and the most of them in a scene.
        size: The smallest and the largest, in percent of the shorter side.
        spread: How far the centre of a thing may be from that of the picture, in percent of the way to the edge.
    """

    height: int
    width: int
    things: Sequence[Composition] = COMPOSITIONS
    count: tuple[int, int] = (3, 7)
    size: tuple[int, int] = (18, 42)
    spread: int = 100


@dataclass(frozen=True)
class Scene:
    """A picture, and what is where in it.

    Args:
        rgb: The picture.
        segments: The number of each pixel's segment, from 1: things in the order they were put, then materials.
        names: What each segment is: a `Composition`, or the name of a material.
        sizes: Longer side of each thing before others covered it, in percent of the shorter side of the picture; 100
            for materials.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    segments: Int[np.ndarray, "H W"]
    names: tuple[Composition | str, ...]
    sizes: tuple[int, ...]


def draw_scene(seed: int, world: World) -> Scene:
    """Draw the scene with this number: the same pixels for the same number and world."""
    random = RandomState(seed % 2**32)
    canvas, material = _draw_ground(random, world)
    segments, things, sizes = _put_things(random, world, canvas)
    materials = present(material[segments == 0])
    number = np.zeros(len(NAMES), dtype=np.int32)
    number[materials] = len(things) + 1 + np.arange(len(materials))
    segments = np.where(segments == 0, number[material], segments)
    names = (*things, *(NAMES[place] for place in materials))
    return Scene(_photograph(random, canvas), segments, names, (*sizes, *[100] * len(materials)))


# The ground -----------------------------------------------------------------------------------------------------------


def _draw_ground(random: RandomState, world: World) -> tuple[UInt8[np.ndarray, "H W 3"], Int[np.ndarray, "H W"]]:
    """Lay a material below and one above a horizon, and sometimes patches of others; return the picture and the
    material of each pixel."""
    below, above, *patches = random.permutation(len(NAMES))[: 2 + random.randint(0, 3)]
    material = np.full((world.height, world.width), below, dtype=np.int32)
    x, y = np.arange(world.width)[None], np.arange(world.height)[:, None]
    if random.randint(0, 4):
        level = world.height * random.randint(20, 70) // 100
        slope, wave = random.randint(-25, 26), random.randint(0, 8)
        length = max(8, world.width // random.randint(1, 5))
        hills = np.abs((x + random.randint(0, length)) % length * 2 - length) * world.height * wave // (100 * length)
        np.copyto(material, above, where=y < level + (x - world.width // 2) * slope // 100 + hills)
    for patch in patches:
        centre_x, centre_y = random.randint(0, world.width), random.randint(0, world.height)
        across, down = (max(2, side * random.randint(12, 40) // 100) for side in (world.width, world.height))
        near_x, near_y = (np.abs(x - centre_x) << 8) // across, (np.abs(y - centre_y) << 8) // down
        inside = (
            near_x * near_x + near_y * near_y < 1 << 16 if random.randint(0, 2) else np.maximum(near_x, near_y) < 1 << 8
        )
        np.copyto(material, patch, where=inside)
    return _cover(random, material, world), material


def _cover(random: RandomState, material: np.ndarray, world: World) -> UInt8[np.ndarray, "H W 3"]:
    """Cover each material's ground with its texture, at some magnification and brightness."""
    colours = np.empty((world.height, world.width), dtype=np.uint32)
    bright = np.empty((world.height, world.width), dtype=np.int32)
    for place in present(material):
        zoom, shade = random.randint(180, 400), random.randint(205, 268)  # of 256
        rows, columns = (
            ((np.arange(side) * zoom >> 8) + random.randint(0, TILE)) % TILE for side in (world.height, world.width)
        )
        columns = columns[::-1] if random.randint(0, 2) else columns
        here = material == place
        np.copyto(colours, np.take(packed_tile(NAMES[place]), rows[:, None] * TILE + columns), where=here)
        np.copyto(bright, shade, where=here)
    unpacked = colours.astype("<u4").view(np.uint8).reshape(world.height, world.width, 4)[..., :3]
    return np.minimum(unpacked * bright[..., None] >> 8, 255).astype(np.uint8)


def present(material: Int[np.ndarray, "..."]) -> Int[np.ndarray, " M"]:
    """The materials of a map, ascending."""
    return np.flatnonzero(np.bincount(material.ravel(), minlength=len(NAMES)))


# Things ---------------------------------------------------------------------------------------------------------------


def _put_things(
    random: RandomState, world: World, canvas: np.ndarray
) -> tuple[np.ndarray, list[Composition], list[int]]:
    """Put things on the canvas, the later over the earlier; return the number of the thing at each pixel, the kinds,
    and their sizes."""
    segments = np.zeros(canvas.shape[:2], dtype=np.int32)
    things, sizes, whole, visible = [], [], [0], np.zeros(1, dtype=np.int64)
    for _ in range(random.randint(world.count[0], world.count[1] + 1)):
        again = bool(things) and random.randint(0, 5) == 0
        thing = things[random.randint(0, len(things))] if again else world.things[random.randint(0, len(world.things))]
        for _ in range(TRIES):
            size = random.randint(world.size[0], world.size[1] + 1)
            rows, columns, drawn, u, v = _place(random, thing.shape, world, size)
            covers = drawn != OUTSIDE
            left = visible - np.bincount(segments[rows, columns][covers], minlength=len(whole))
            inside, area = covers.sum(), whole_area(thing.shape, size, world)
            if 100 * inside >= LEAST_VISIBLE * area and (100 * left >= LEAST_VISIBLE * np.array(whole))[1:].all():
                things.append(thing)
                sizes.append(size)
                whole.append(area)
                visible = np.append(left, inside)
                np.copyto(segments[rows, columns], len(things), where=covers)
                np.copyto(canvas[rows, columns], _paint(random, thing, drawn, u, v), where=covers[..., None])
                break
    return segments, things, sizes


def _place(
    random: RandomState, shape: str, world: World, size: int
) -> tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray]:
    """Turn a shape and put it somewhere; return the box it lies in, its template there, and the template's coordinates
    of each pixel."""
    side = side_of(size, world)
    angle = random.randint(-MOST_LEAN, MOST_LEAN + 1) % 360
    reach_x, reach_y = world.width * world.spread // 200, world.height * world.spread // 200
    centre_x = world.width // 2 + random.randint(-reach_x, reach_x + 1)
    centre_y = world.height // 2 + random.randint(-reach_y, reach_y + 1)
    half = side * 3 // 4
    top, bottom = max(0, centre_y - half), min(world.height, centre_y + half)
    left, right = max(0, centre_x - half), min(world.width, centre_x + half)
    dx, dy = np.arange(left, right)[None] - centre_x, np.arange(top, bottom)[:, None] - centre_y
    if random.randint(0, 2):
        dx = -dx
    sine, cosine = SINES[angle] * SIDE // side, SINES[(angle + 90) % 360] * SIDE // side
    u = np.clip((dx * cosine + dy * sine >> FIXED) + SIDE // 2, 0, SIDE - 1)
    v = np.clip((dy * cosine - dx * sine >> FIXED) + SIDE // 2, 0, SIDE - 1)
    return slice(top, bottom), slice(left, right), template(shape)[v, u], u, v


def side_of(size: int, world: World) -> int:
    """Longer side of a thing in pixels."""
    return max(SMALLEST_SIDE, min(world.height, world.width) * size // 100)


def whole_area(shape: str, size: int, world: World) -> int:
    """About how many pixels of a thing there are when nothing covers it and the picture goes on."""
    return int((template(shape) != OUTSIDE).sum()) * side_of(size, world) ** 2 // SIDE**2


def _paint(
    random: RandomState, thing: Composition, drawn: np.ndarray, u: np.ndarray, v: np.ndarray
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a thing: its tone, the second tone of its pattern, a dark border, lighter towards one side."""
    base = np.clip(np.array(COLOURS[thing.colour]) + random.randint(-TONE, TONE + 1, 3), 0, 255)
    second = base // 2 + 20 if thing.colour == "white" else (base + 245) // 2
    if thing.colour in ("yellow", "pink"):
        second = base * 11 // 16
    palette = np.zeros((3, 3), dtype=np.int64)
    palette[INSIDE], palette[ON_BORDER], palette[0] = base, base * 9 // 20, second
    marked = _pattern(thing.pattern, u, v) & (drawn == INSIDE)
    light = 256 + (u - SIDE // 2) * random.randint(-40, 41) // SIDE + (v - SIDE // 2) * random.randint(-40, 41) // SIDE
    painted = palette[np.where(marked, 0, np.maximum(drawn, 1))]
    return np.minimum(painted * light[..., None] >> 8, 255).astype(np.uint8)


def _pattern(pattern: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the second tone of a pattern shows, in a template's coordinates."""
    cell = SIDE // PATTERN_CELLS
    if pattern == "striped":
        return (v // cell) % 2 == 0
    if pattern == "checked":
        return (u // cell + v // cell) % 2 == 0
    if pattern == "dotted":
        spacing = 2 * cell
        across, down = u % spacing - cell, (v + cell) % spacing - cell
        return across * across + down * down < cell * cell * 9 // 20
    return np.zeros(u.shape, dtype=bool)


# Light and camera -----------------------------------------------------------------------------------------------------


def _photograph(random: RandomState, canvas: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Light the scene unevenly, blur it a little and add noise."""
    height, width, _ = canvas.shape
    across, down = (random.randint(-70, 71) for _ in range(2))
    gain = 256 + random.randint(-30, 31) + (np.arange(width) * across // width - across // 2)[None]
    gain = gain + (np.arange(height) * down // height - down // 2)[:, None]
    photograph = (canvas * gain.astype(np.int32)[..., None]) >> 8
    for _ in range(random.randint(0, 3)):
        photograph = _blurred(photograph)
    noise = np.frombuffer(random.bytes(canvas.size), dtype=np.int8).reshape(canvas.shape)
    return np.clip(photograph + (noise.astype(np.int32) * random.randint(1, NOISE + 1) >> 7), 0, 255).astype(np.uint8)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Blur with the binomial kernel 1 2 1 along both axes."""
    padded = np.pad(x, ((1, 1), (0, 0), (0, 0)), mode="edge")
    x = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) >> 4
