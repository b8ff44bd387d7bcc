"""Large pictures: overlapping tiles, each seen as a small picture would be, and read as if they had been one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wordmask.image import Frame
from wordmask.postprocess import PixelReading, rank_classes, rank_queries

OVERLAP = 0.25  # of a tile's side, at least, that its neighbour sees too
BLOCK_ENTRIES = 2**22  # of class or mask maps that are blended at a time: 16 MB
SMALL_CLASSES = 2**15  # so many class indices fit 16 bits, which a large picture has 100 million of


class ClassTile(NamedTuple):
    """What a model says of one tile: probabilities of some classes on its grid, and which classes these are."""

    maps: Float[Tensor, "K h w"]
    classes: Int[Tensor, " K"]
    frame: Frame


class QueryTile(NamedTuple):
    """What a model says of one tile: mask logits of its queries on its grid, and the probabilities of their classes."""

    maps: Float[Tensor, "Q h w"]
    class_probs: Float[Tensor, "Q T"]
    frame: Frame


TileMaps = ClassTile | QueryTile


@dataclass(frozen=True)
class Grid:
    """Where tiles lie in a picture: in rows and columns, evenly, all of one size.

    Args:
        picture: (height, width).
        tile: (height, width); at most the picture's.
    """

    picture: tuple[int, int]
    tile: tuple[int, int]

    @classmethod
    def over(cls, picture: tuple[int, int], side: int) -> "Grid":
        """Lay tiles of this side, or as long as the picture where that is less, over a picture."""
        return cls(picture, (min(side, picture[0]), min(side, picture[1])))

    @cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """The first row of every row of tiles, and the first column of every column."""
        return _starts(self.picture[0], self.tile[0]), _starts(self.picture[1], self.tile[1])

    @cached_property
    def weights(self) -> tuple[Float[Tensor, "N th"], Float[Tensor, "M tw"]]:
        """How much each pixel row of each row of tiles counts, and each pixel column: smooth, and 1 in sum wherever
        tiles overlap."""
        (height, width), (tile_height, tile_width), (rows, columns) = self.picture, self.tile, self.starts
        return _weights(height, tile_height, rows), _weights(width, tile_width, columns)

    def boxes(self, row: int) -> list[tuple[slice, slice]]:
        """The pixels of every tile in a row of tiles."""
        (rows, columns), (height, width) = self.starts, self.tile
        return [(slice(rows[row], rows[row] + height), slice(left, left + width)) for left in columns]


def read_tiles(grid: Grid, look: Callable[[int], list[TileMaps]], *, classes: int) -> PixelReading:
    """Blend what is said of every tile, and rank the classes at every pixel of the picture.

    Where tiles overlap, probabilities are averaged with weights that fall smoothly to the tile's border; a class that
    was not kept in a tile has no probability there. Pixels are read as soon as no later tile covers them, a block at a
    time: besides the reading itself, on the CPU, there are the maps of two or three rows of tiles.

    Args:
        look: Number of a row of tiles → its maps, all of one kind, asked in order.
        classes: How many compete.
    """
    small = torch.int16 if classes < SMALL_CLASSES else torch.int32
    whole = PixelReading(
        *(torch.empty(grid.picture, dtype=kind) for kind in (small, torch.float32, small, torch.float32))
    )
    starts, height = grid.starts[0], grid.tile[0]
    rows: dict[int, list[TileMaps]] = {}
    for number in range(len(starts)):
        rows[number] = look(number)
        following = starts[number + 1] if number + 1 < len(starts) else grid.picture[0]
        for vertical, horizontal, parts in _blocks(grid, rows, (starts[number], following)):
            for values, part in zip(whole, _rank(parts), strict=True):
                values[vertical, horizontal] = part
        rows = {above: maps for above, maps in rows.items() if starts[above] + height > following}
    return whole


class _Part(NamedTuple):
    """What one tile says of a block: maps on its grid, what brings them to the block's pixels, and how much it counts
    there."""

    tile: TileMaps
    down: Float[Tensor, "s h"]
    across: Float[Tensor, "c w"]
    weights: Float[Tensor, "s c"]

    def restore(self) -> Float[Tensor, "N s c"]:
        return self.down @ self.tile.maps @ self.across.T


def _blocks(
    grid: Grid, rows: dict[int, list[TileMaps]], span: tuple[int, int]
) -> Iterator[tuple[slice, slice, list[_Part]]]:
    """Cut the pixel rows of a span into blocks that the same tiles cover wholly, small enough to be blended at a
    time."""
    columns = _cuts(grid.starts[1], grid.tile[1], (0, grid.picture[1]))
    restoring = {}  # one pair of matrices, as all tiles have one size
    for top, bottom in _cuts([grid.starts[0][row] for row in rows], grid.tile[0], span):
        above = [row for row in rows if grid.starts[0][row] <= top < grid.starts[0][row] + grid.tile[0]]
        for left, right in columns:
            beside = [column for column, start in enumerate(grid.starts[1]) if start <= left < start + grid.tile[1]]
            places = list(product(above, beside))
            entries = sum(len(rows[row][column].maps) for row, column in places) * (right - left)
            step = max(1, BLOCK_ENTRIES // max(1, entries))
            for first in range(top, bottom, step):
                block = first, min(first + step, bottom), left, right
                parts = [_part(grid, rows[row][column], (row, column), block, restoring) for row, column in places]
                yield slice(first, block[1]), slice(left, right), parts


def _part(
    grid: Grid, tile: TileMaps, place: tuple[int, int], block: tuple[int, int, int, int], restoring: dict
) -> _Part:
    (row, column), (first, last, left, right) = place, block
    key = tile.maps.shape[1:]
    if key not in restoring:
        restoring[key] = tile.frame.restoring(tile.maps)
    down, across = restoring[key]
    start_y, start_x = grid.starts[0][row], grid.starts[1][column]
    vertical, horizontal = slice(first - start_y, last - start_y), slice(left - start_x, right - start_x)
    weights = torch.outer(grid.weights[0][row, vertical], grid.weights[1][column, horizontal]).to(tile.maps.device)
    return _Part(tile, down[vertical], across[horizontal], weights)


def _rank(parts: list[_Part]) -> PixelReading:
    classes = [part.tile.classes for part in parts if isinstance(part.tile, ClassTile)]
    if classes:
        return _rank_classes(parts, classes)
    return _rank_queries(parts, [part.tile.class_probs for part in parts if isinstance(part.tile, QueryTile)])


def _rank_classes(parts: list[_Part], classes: list[Int[Tensor, " _"]]) -> PixelReading:
    present, place = torch.cat(classes).unique(return_inverse=True)  # ascending: of equal probabilities the first wins
    blended = parts[0].weights.new_zeros(len(present), *parts[0].weights.shape)
    for part, where in zip(parts, place.split([len(labels) for labels in classes]), strict=True):
        blended.index_add_(0, where, part.restore() * part.weights)
    return rank_classes(blended.clamp_(max=1), present.int())  # weights may sum to a rounding error more


def _rank_queries(parts: list[_Part], class_probs: list[Float[Tensor, "_ T"]]) -> PixelReading:
    """Sums over the queries of all tiles: the weighted average of what each tile's would be."""
    masks = torch.cat([part.restore().sigmoid() * part.weights for part in parts])
    return rank_queries(torch.cat(class_probs).T, masks)


def _starts(length: int, side: int) -> list[int]:
    overlap = round(OVERLAP * side)
    count = 1 if length <= side else -(-(length - overlap) // (side - overlap))
    return [round(number * (length - side) / max(1, count - 1)) for number in range(count)]


def _weights(length: int, side: int, starts: list[int]) -> Float[Tensor, "N t"]:
    """Squared sines that rise over the overlap at either end of a tile, over their sum at each pixel."""
    from_border = torch.minimum(torch.arange(side), torch.arange(side).flip(0)).float() + 0.5
    window = (torch.pi / 2 * (from_border / max(1, round(OVERLAP * side))).clamp(max=1)).sin().square()
    total = torch.zeros(length, dtype=torch.float32)
    for start in starts:
        total[start : start + side] += window
    return torch.stack([window / total[start : start + side] for start in starts])


def _cuts(starts: list[int], side: int, span: tuple[int, int]) -> list[tuple[int, int]]:
    """Cut a span wherever a tile begins or ends."""
    first, last = span
    inner = {edge for start in starts for edge in (start, start + side) if first < edge < last}
    edges = [first, *sorted(inner), last]
    return list(pairwise(edges))
