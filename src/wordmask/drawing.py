"""The picture people look at: regions tinted, outlined and named, with a legend of what is present."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wordmask.regions import LEAST_SHOWN

if TYPE_CHECKING:
    from wordmask.regions import Region
    from wordmask.segmentation import Segmentation

COLOURS = 256
FILL = 0.45  # opacity of a region's tint
SIMILAR = 0.14  # distance in OKLab under which two colours of one picture are told apart with effort
# of 9: of a photograph a third of the default's time and a tenth more bytes; label maps are smaller at the default
PNG_EFFORT = 1
ROWS_AT_ONCE = 256  # of a picture that are blended in floating point
SMALLEST_FONT = 13  # pixels
PAPER, INK, FAINT, SHADE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (0, 0, 0, 150)
WORD_SPACE = 0.33  # of the font's size
NAME_WIDTH = 40  # characters after which a name goes on in the next line
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "PingFang.ttc",
    "NotoSansCJK-Regular.ttc",
)
TITLE_SIZE, GAP = 14, 10  # pixels, of titles and between pictures that are laid out
NO_CHARACTER = "\U0010fffe"  # no font has it: its picture is the font's box
NAME_OVER_REGION = 0.6  # of a name's width must lie over its own region, or it stands in the legend only
GRID = 96  # cells along the longer side, when a place for a name is looked for
LEGEND_ENTRIES = 60  # further regions are counted

Colour = tuple[int, int, int]


class Entry(NamedTuple):
    """A line of the legend; no colour means unlabelled."""

    colour: Colour | None
    lines: list[str]
    note: str


def draw(result: "Segmentation", *, legend: bool = True) -> Image.Image:
    """Draw a segmentation over its picture.

    Args:
        legend: Add, below the picture, the name, score and share of every class present.
    """
    colours = choose_colours(result.shown)
    picture = tint(result, colours)
    names = number_names(result.shown)
    font = choose_font(names, size=max(SMALLEST_FONT, round(math.sqrt(result.labels.size) / 40)))
    _write_names(picture, result, names, font)
    return _add_legend(picture, _legend_entries(result, names, colours, font), font) if legend else picture


def lay_out(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Lay pictures out in rows and columns, with a title above each column."""
    font = choose_font(titles, size=TITLE_SIZE)
    widths = [_widest(column) for column in zip(*rows, strict=True)]
    heights = [_highest(row) for row in rows]
    lefts, tops = _edges(widths, first=GAP), _edges(heights, first=2 * TITLE_SIZE)
    page = Image.new("RGB", (lefts[-1], tops[-1]), "white")
    pen = ImageDraw.Draw(page)
    for left, title in zip(lefts, titles, strict=False):
        write_text(pen, (left, TITLE_SIZE), title, font, INK)
    for top, pictures in zip(tops, rows, strict=False):
        for left, picture in zip(lefts, pictures, strict=False):
            page.paste(picture.convert("RGB"), (left, top))
    return page


def _edges(sizes: Sequence[int], *, first: int) -> list[int]:
    """Where things of these sizes begin, one beside the other, and where one more would."""
    edges = [first]
    for size in sizes:
        edges.append(edges[-1] + size + GAP)
    return edges


def _widest(pictures: Sequence[Image.Image]) -> int:
    return max(picture.width for picture in pictures)


def _highest(pictures: Sequence[Image.Image]) -> int:
    return max(picture.height for picture in pictures)


def number_names(regions: "list[Region]") -> list[str]:
    """The name of every region; those that share a class are numbered in the order of their ids: person 1, person 2."""
    of_class: dict[int, list[int]] = {}
    for region in sorted(regions, key=lambda region: region.id):
        of_class.setdefault(region.label, []).append(region.id)

    def name(region: "Region") -> str:
        ids = of_class[region.label]
        return f"{region.name} {ids.index(region.id) + 1}" if len(ids) > 1 else region.name

    return [name(region) for region in regions]


def tint(result: "Segmentation", colours: dict[int, Colour]) -> Image.Image:
    """Tint every region and draw its outline in the full colour."""
    areas = result.labels if result.segments is None else result.segments
    values = np.iinfo(areas.dtype).max + 1
    table, opacity = np.zeros((values, 3), np.float32), np.zeros((values, 1), np.float32)
    for region in result.shown:
        value = region.label if result.segments is None else region.id
        table[value], opacity[value] = colours[region.id], FILL
    edge = outline(areas, max(1, round(min(result.size) / 300)))
    tinted = np.empty_like(result.picture)
    for start in range(0, len(edge), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        area = areas[rows]
        strength = np.where(edge[rows, :, None] & (opacity[area] > 0), 1, opacity[area])  # (rows, W, 1)
        tinted[rows] = result.picture[rows] * (1 - strength) + table[area] * strength + 0.5
    return Image.fromarray(tinted)


def outline(areas: np.ndarray, width: int) -> np.ndarray:
    """Find the pixels within `width` of another value, (H, W) bool."""
    edge = np.zeros(areas.shape, bool)
    for distance in range(1, width + 1):
        before, after = slice(None, -distance), slice(distance, None)
        for near, far in ((before, after), ((slice(None), before), (slice(None), after))):
            differs = areas[near] != areas[far]
            edge[near] |= differs
            edge[far] |= differs
    return edge


def choose_colours(regions: "list[Region]") -> dict[int, Colour]:
    """Choose a colour of its own for every region, by its id.

    It is the palette's for its label, so that a class looks alike in all pictures, or the next that differs enough from
    those of regions before it: so instances of one class are told apart.
    """
    colours, taken = {}, np.empty((0, 3))
    oklab = _to_oklab(palette())
    for region in regions:
        candidates = (region.label + np.arange(COLOURS)) % COLOURS
        distance = np.linalg.norm(oklab[candidates, None] - taken[None], axis=-1).min(axis=1, initial=np.inf)
        free = np.flatnonzero(distance > SIMILAR)
        choice = candidates[free[0] if len(free) else distance.argmax()]
        colours[region.id] = tuple(int(value) for value in palette()[choice])
        taken = np.vstack([taken, oklab[choice]])
    return colours


@cache
def palette() -> np.ndarray:
    """Colours, (256, 3) uint8, each as far as can be from those before it (in OKLab), and not very dark, very light or
    grey."""
    steps = np.linspace(0, 255, 12).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    oklab = _to_oklab(grid)
    chroma = np.linalg.norm(oklab[:, 1:], axis=1)
    lively = (oklab[:, 0] > 0.5) & (oklab[:, 0] < 0.9) & (chroma > 0.09) & (chroma < 0.19)
    grid, oklab = grid[lively], oklab[lively]
    chosen = [int(np.linalg.norm(grid - (40, 110, 240), axis=1).argmin())]  # begin with a blue
    distance = np.linalg.norm(oklab - oklab[chosen[0]], axis=1)
    while len(chosen) < COLOURS:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(oklab - oklab[chosen[-1]], axis=1))
    return grid[chosen].astype(np.uint8)


def _to_oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB in 0–255 → OKLab, where distances are as people see them (Ottosson 2020)."""
    values = np.asarray(colours, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def _write_names(picture: Image.Image, result: "Segmentation", names: list[str], font: ImageFont.FreeTypeFont) -> None:
    """Write each name inside what can be seen of its region, the first first, where there is room for it."""
    pen, taken = ImageDraw.Draw(picture, "RGBA"), []
    for region, name in zip(result.shown, names, strict=True):
        mask, name = result.visible(region), legible(name, font)
        x, y, radius = deepest_point(mask)
        width, height, pad = text_width(name, font), round(font.size * 0.8), round(font.size * 0.35)
        if radius < height / 2 + pad or width + 2 * pad > picture.width or len(name) > NAME_WIDTH:
            continue
        x = min(max(x - width / 2, pad), picture.width - width - pad)
        y = min(max(y, height / 2 + pad), picture.height - height / 2 - pad)
        if mask[int(y), int(x) : int(x + width)].mean() < NAME_OVER_REGION:
            continue
        box = (x - pad, y - height / 2 - pad, x + width + pad, y + height / 2 + pad)
        if any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken):
            continue
        taken.append(box)
        pen.rounded_rectangle(box, radius=pad, fill=SHADE)
        write_text(pen, (x, y), name, font, PAPER)


def deepest_point(mask: np.ndarray) -> tuple[float, float, float]:
    """Find the pixel of a mask that is farthest from its edge: x, y and about how far, in pixels."""
    step = max(1, -(-max(mask.shape) // GRID))
    cells = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    if not cells.any():
        return 0.0, 0.0, 0.0
    depth = 0
    while True:
        smaller = cells.copy()
        smaller[1:-1, 1:-1] &= cells[:-2, 1:-1] & cells[2:, 1:-1] & cells[1:-1, :-2] & cells[1:-1, 2:]
        if not smaller.any():
            break
        cells, depth = smaller, depth + 1
    rows, columns = np.nonzero(cells)
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return (columns[middle] - 0.5) * step, (rows[middle] - 0.5) * step, (depth + 0.5) * step


def choose_font(texts: list[str], *, size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or the one of the system's that has more of the characters (Pillow's has little but ASCII)."""
    characters = set("".join(texts))
    best = ImageFont.load_default(size)
    assert isinstance(best, ImageFont.FreeTypeFont)  # the other kind has one size only
    missing = sum(lacks(best, character) for character in characters)
    for name in SYSTEM_FONTS if missing else ():
        try:
            font = ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
        lacking = sum(lacks(font, character) for character in characters)
        best, missing = (font, lacking) if lacking < missing else (best, missing)
    return best


def lacks(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Tell whether a font would draw a box in place of a character."""
    return not character.isspace() and _bitmap(character, font) == _bitmap(NO_CHARACTER, font)


def _bitmap(character: str, font: ImageFont.FreeTypeFont) -> bytes:
    # Pillow's inner pictures are sequences of numbers, which its types don't say
    return bytes(font.getmask(character))  # pyright: ignore[reportArgumentType]


def legible(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Replace what a font can't draw by what it can: é by e, the rest by a question mark."""

    def replacement(character: str) -> str:
        plain = unicodedata.normalize("NFKD", character)[0]
        return "?" if lacks(font, plain) else plain

    return "".join(replacement(character) if lacks(font, character) else character for character in text)


def text_width(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Width of what `write_text` writes, in pixels."""
    return sum(font.getlength(word) for word in text.split(" ")) + text.count(" ") * font.size * WORD_SPACE


def write_text(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: ImageFont.FreeTypeFont, fill: tuple[int, ...]
) -> None:
    """Write a line, `at` its left end at half its height, word by word: the font would kern some spaces away ("paper
    filer")."""
    x, y = at
    for word in text.split(" "):
        pen.text((x, y), word, font=font, fill=fill, anchor="lm")
        x += font.getlength(word) + font.size * WORD_SPACE


def _legend_entries(
    result: "Segmentation", names: list[str], colours: dict[int, Colour], font: ImageFont.FreeTypeFont
) -> list[Entry]:
    seen = {region.id for region in result.shown}
    if result.task == "instance" and result.segments is not None:  # better ones may cover some
        seen = set(np.unique(result.segments).tolist())
    entries = []
    for region, name in list(zip(result.shown, names, strict=True))[:LEGEND_ENTRIES]:
        hidden = "" if region.id in seen else " · hidden"
        note = f"{_share(region.area, result)} · score {region.score:.2f}{hidden}"
        entries.append(Entry(colours[region.id], textwrap.wrap(legible(name, font), NAME_WIDTH), note))
    if len(names) > LEGEND_ENTRIES:
        entries.append(Entry(None, [f"… and {len(names) - LEGEND_ENTRIES} more"], ""))
    if len(result.regions) > len(names):
        below = f"{len(result.regions) - len(names)} with a score below {LEAST_SHOWN}"
        entries.append(Entry(None, [below], "not drawn"))
    if result.unlabelled_area:
        entries.append(Entry(None, ["unlabelled"], _share(result.unlabelled_area, result)))
    return entries


def _share(area: int, result: "Segmentation") -> str:
    whole = result.labels.size
    return f"{area / whole:.0%}" if area >= whole / 100 else "<1%"


def _add_legend(picture: Image.Image, entries: list[Entry], font: ImageFont.FreeTypeFont) -> Image.Image:
    """Put a legend below: as many columns as fit, the sheet wider than the picture if a single one doesn't."""
    line = round(font.size * 1.5)
    column = round(2.5 * line + max(_entry_width(entry, font) for entry in entries))
    columns = max(1, min(len(entries), (picture.width - line) // column))
    rows = -(-len(entries) // columns)
    stacks = [entries[start : start + rows] for start in range(0, len(entries), rows)]
    lines = max(map(_line_count, stacks))
    sheet = Image.new("RGB", (max(picture.width, column + line), picture.height + (lines + 1) * line), PAPER)
    sheet.paste(picture, ((sheet.width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for number, stack in enumerate(stacks):
        x, y = line // 2 + number * ((sheet.width - line) // columns), picture.height + line // 2
        for entry in stack:
            _draw_entry(pen, (x, y), entry, font)
            y += len(entry.lines) * line
    return sheet


def _entry_width(entry: Entry, font: ImageFont.FreeTypeFont) -> float:
    return max(text_width(f"{line}  {entry.note}", font) for line in entry.lines)


def _line_count(entries: list[Entry]) -> int:
    return sum(len(entry.lines) for entry in entries)


def _draw_entry(pen: ImageDraw.ImageDraw, at: tuple[int, int], entry: Entry, font: ImageFont.FreeTypeFont) -> None:
    (x, y), line = at, round(font.size * 1.5)
    swatch = (x, y + 0.15 * line, x + line, y + 0.85 * line)
    pen.rounded_rectangle(swatch, radius=line // 6, fill=entry.colour or PAPER, outline=entry.colour or FAINT)
    x = x + 1.4 * line
    for number, name in enumerate(entry.lines):
        write_text(pen, (x, y + (number + 0.5) * line), name, font, INK)
    behind = x + text_width(f"{entry.lines[-1]}  ", font), y + (len(entry.lines) - 0.5) * line
    write_text(pen, behind, entry.note, font, FAINT)
