"""The stuff of Shapeland: sixteen procedural textures as seamless tiles, in whole numbers."""

import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Int, UInt8, UInt32
from numpy.random import RandomState  # its streams are frozen: the same numbers from any version of numpy

TILE = 256  # pixels; tiles repeat without a seam
Tile = UInt8[np.ndarray, "T T 3"]
Field = Int[np.ndarray, "T T"]


def smooth_noise(random: RandomState, *cells: int) -> Field:
    """Noise in [0, 255]: random values on coarser and coarser grids, in between bilinear, averaged.

    Args:
        cells: Sides of the grids' cells in pixels, powers of two.
    """
    total = np.zeros((TILE, TILE), dtype=np.int64)
    for cell in cells:
        grid = random.randint(0, 256, (TILE // cell, TILE // cell))
        total += _stretch(_stretch(grid, cell).T, cell).T
    return total // len(cells)


def _stretch(grid: np.ndarray, cell: int) -> np.ndarray:
    """Interpolate along the first axis, around the end to the beginning."""
    step = np.tile(np.arange(cell), len(grid))[:, None]
    first = grid.repeat(cell, axis=0)
    return (first * (cell - step) + np.roll(grid, -1, axis=0).repeat(cell, axis=0) * step) // cell


def blend(field: Field, *colours: tuple[int, int, int]) -> Tile:
    """Colour a field in [0, 255] by going through some colours, from the first at 0 to the last at 255."""
    parts = len(colours) - 1
    palette = np.array(colours, dtype=np.int64)
    place = np.clip(field, 0, 255) * parts
    first = np.minimum(place // 255, parts - 1)
    share = (place - 255 * first)[..., None]
    return ((palette[first] * (255 - share) + palette[first + 1] * share) // 255).astype(np.uint8)


def _grid() -> tuple[Field, Field]:
    return np.meshgrid(np.arange(TILE), np.arange(TILE), indexing="ij")


def _cells(random: RandomState, spacing: int, wander: int) -> tuple[Field, Field]:
    """Squared distance to the nearest of scattered points, how much further the second is (0 at the borders), both per
    pixel."""
    count = TILE // spacing
    y, x = _grid()
    offset = random.randint(-wander, wander + 1, (2, count, count))
    nearest = np.full((2, TILE, TILE), 10**6)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            row, column = (y // spacing + i) % count, (x // spacing + j) % count
            dy = (y // spacing + i) * spacing + spacing // 2 + offset[0][row, column] - y
            dx = (x // spacing + j) * spacing + spacing // 2 + offset[1][row, column] - x
            nearest = np.sort(np.concatenate([nearest, (dx * dx + dy * dy)[None]]), axis=0)[:2]
    return nearest[0], nearest[1] - nearest[0]


def _sky(random: RandomState) -> Tile:
    clouds = smooth_noise(random, 128, 64, 32)
    return blend((clouds - 125) * 4, (95, 160, 235), (125, 180, 240), (235, 240, 248))


def _grass(random: RandomState) -> Tile:
    blades = random.randint(0, 256, (TILE // 8, TILE)).repeat(8, axis=0)
    blades = np.stack(
        [np.roll(column, shift) for column, shift in zip(blades.T, random.randint(0, 8, TILE), strict=True)], axis=1
    )
    return blend((blades + smooth_noise(random, 32)) // 2, (40, 95, 25), (85, 150, 45), (140, 190, 80))


def _sand(random: RandomState) -> Tile:
    y, x = _grid()
    bend = smooth_noise(random, 64) // 8
    ripple = np.abs((y + bend) % 16 - 8) * 16
    grain = random.randint(0, 60, (TILE, TILE))
    return blend(ripple + grain + (x & 1), (195, 165, 110), (235, 210, 160))


def _water(random: RandomState) -> Tile:
    y, _ = _grid()
    bend = smooth_noise(random, 32, 64) // 4
    wave = np.abs((y + bend) % 32 - 16) * 16
    return blend(wave, (10, 60, 110), (25, 100, 150), (120, 190, 210))


def _brick(random: RandomState) -> Tile:
    y, x = _grid()
    row = y // 16
    x = (x + 16 * (row % 2)) % TILE
    mortar = (y % 16 < 2) | (x % 32 < 2)
    tone = random.randint(0, 160, (TILE // 16, TILE // 32))[row, x // 32] + random.randint(0, 60, (TILE, TILE))
    return np.where(mortar[..., None], np.uint8(205), blend(tone, (130, 50, 38), (190, 90, 66)))


def _planks(random: RandomState) -> Tile:
    y, x = _grid()
    plank = x // 32
    grain = np.roll(random.randint(0, 256, TILE), 3)[x] // 2 + smooth_noise(random, 64) // 3
    knots = (smooth_noise(random, 16, 32) > 190) * 60
    tone = random.randint(0, 80, TILE // 32)[plank] + grain - knots
    return np.where((x % 32 < 2)[..., None], np.uint8(50), blend(tone + (y & 1), (115, 75, 38), (205, 155, 95)))


def _snow(random: RandomState) -> Tile:
    drift = smooth_noise(random, 64, 128)
    pits = (smooth_noise(random, 8) > 185) * 90
    return blend(drift + 60 - pits, (165, 178, 205), (225, 232, 242), (255, 255, 255))


def _cobblestone(random: RandomState) -> Tile:
    near, gap = _cells(random, 32, 9)
    tone = 220 - near // 3 + smooth_noise(random, 8) // 8
    return np.where((gap < 90)[..., None], np.uint8(48), blend(tone, (70, 72, 78), (165, 165, 168)))


def _asphalt(random: RandomState) -> Tile:
    grain = random.randint(0, 200, (TILE, TILE))
    cracks = np.abs(smooth_noise(random, 64, 32) - 128) < 2
    return blend(np.where(cracks, 0, grain), (45, 46, 50), (98, 98, 102))


def _carpet(random: RandomState) -> Tile:
    y, x = _grid()
    diamond = (np.abs(x % 32 - 16) + np.abs(y % 32 - 16)) // 4
    weave = ((x + y) % 4 < 2) * 40
    pattern = np.where((diamond == 2) | (diamond == 5), 220, 40) + weave
    return blend(pattern, (105, 20, 60), (150, 40, 85), (225, 185, 95))


def _tiles(random: RandomState) -> Tile:
    y, x = _grid()
    chequer = ((x // 32 + y // 32) % 2) * 190 + smooth_noise(random, 32) // 8
    grout = (x % 32 < 2) | (y % 32 < 2)
    return np.where(grout[..., None], np.uint8(225), blend(chequer, (70, 140, 145), (205, 225, 215)))


def _soil(random: RandomState) -> Tile:
    clods = smooth_noise(random, 4, 8, 16)
    return blend((clods - 128) * 2 + 128, (45, 28, 15), (95, 62, 38), (135, 95, 62))


def _hay(random: RandomState) -> Tile:
    y, x = _grid()
    lean = (x + 2 * y) % TILE
    straws = random.randint(0, 256, TILE)[lean] // 2 + random.randint(0, 256, TILE)[(2 * x - y) % TILE] // 2
    return blend(straws, (150, 105, 30), (215, 175, 75), (245, 220, 130))


def _hedge(random: RandomState) -> Tile:
    near, _ = _cells(random, 16, 6)
    return blend(255 - near * 3 + smooth_noise(random, 64) // 6, (10, 40, 22), (30, 85, 45), (75, 135, 75))


def _marble(random: RandomState) -> Tile:
    veins = np.abs(smooth_noise(random, 128, 64, 16) - 128)
    return blend(veins * 12, (110, 112, 125), (215, 212, 210), (242, 238, 232))


def _lava(random: RandomState) -> Tile:
    _, gap = _cells(random, 64, 20)
    glow = 255 - gap // 3 + smooth_noise(random, 16) // 4
    return blend(glow, (40, 18, 18), (75, 25, 18), (235, 80, 15), (255, 215, 70))


MATERIALS: dict[str, Callable[[RandomState], Tile]] = {
    "sky": _sky,
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
    "planks": _planks,
    "snow": _snow,
    "cobblestone": _cobblestone,
    "asphalt": _asphalt,
    "carpet": _carpet,
    "tiles": _tiles,
    "soil": _soil,
    "hay": _hay,
    "hedge": _hedge,
    "marble": _marble,
    "lava": _lava,
}

NAMES = tuple(MATERIALS)


@cache
def tile(material: str) -> Tile:
    """Draw a material: a tile that repeats without a seam, always the same."""
    return MATERIALS[material](RandomState(zlib.crc32(material.encode())))


@cache
def packed_tile(material: str) -> UInt32[np.ndarray, " TT"]:
    """The pixels of a tile, row by row, each in one number: red + 256 · green + 65536 · blue."""
    return (
        (tile(material).astype(np.uint32) << np.array([0, 8, 16], dtype=np.uint32))
        .sum(axis=-1, dtype=np.uint32)
        .ravel()
    )
