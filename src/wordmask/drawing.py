"""The picture people look at: regions tinted, outlined and named, with a legend of what is present."""

import textwrap
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from wordmask.segmentation import Region, Segmentation

COLOURS = 256
FILL = 0.45  # opacity of a region's tint
SIMILAR = 0.14  # distance in OKLab under which two colours of one picture are told apart with effort
SMALLEST_FONT = 13  # pixels
PAPER, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
NAME_WIDTH = 40  # characters after which a name goes on in the next line
GRID = 96  # cells along the longer side, when a place for a name is looked for


def draw(result: "Segmentation", *, legend: bool = True) -> Image.Image:
    """Draw a segmentation over its picture.

    Args:
        legend: Add, below the picture, the name, score and share of every class present.
    """
    colours = choose_colours(result.regions)
    picture = tint(result, colours)
    font = ImageFont.load_default(max(SMALLEST_FONT, round(max(result.size) / 46)))
    _write_names(picture, result.regions, font)
    return _add_legend(picture, result, colours, font) if legend else picture


def tint(result: "Segmentation", colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    """Tint every region and draw its outline in the full colour."""
    table = np.zeros((result.unlabelled + 1, 3), np.float32)
    opacity = np.zeros((result.unlabelled + 1, 1), np.float32)
    for label, colour in colours.items():
        table[label], opacity[label] = colour, FILL
    edge = outline(result.labels, max(1, round(min(result.size) / 300)))
    strength = np.where(edge[..., None] & (opacity[result.labels] > 0), 1, opacity[result.labels])  # (H, W, 1)
    blend = result.picture * (1 - strength) + table[result.labels] * strength
    return Image.fromarray((blend + 0.5).astype(np.uint8))


def outline(labels: np.ndarray, width: int) -> np.ndarray:
    """Find the pixels within `width` of another label, (H, W) bool."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for distance in range(1, width + 1):
            near, far = (np.take(labels, range(*cut), axis) for cut in ((0, labels.shape[axis] - distance), (distance, labels.shape[axis])))
            differs = near != far
            pads = [(0, 0), (0, 0)]
            pads[axis] = (0, labels.shape[axis] - differs.shape[axis])
            edge |= np.pad(differs, pads)
            edge |= np.pad(differs, [pad[::-1] for pad in pads])
    return edge


def choose_colours(regions: "list[Region]") -> dict[int, tuple[int, int, int]]:
    """Give every label present its own colour: the palette's, so that a class looks alike in all pictures, or the next that differs enough."""
    colours, taken = {}, np.empty((0, 3))
    oklab = _to_oklab(palette())
    for region in regions:
        candidates = (region.label + np.arange(COLOURS)) % COLOURS
        distance = np.linalg.norm(oklab[candidates, None] - taken[None], axis=-1).min(axis=1, initial=np.inf)
        free = np.flatnonzero(distance > SIMILAR)
        choice = candidates[free[0] if len(free) else distance.argmax()]
        colours[region.label] = tuple(int(value) for value in palette()[choice])
        taken = np.vstack([taken, oklab[choice]])
    return colours


@cache
def palette() -> np.ndarray:
    """Colours, (256, 3) uint8, each as far as can be from those before it (in OKLab); none very dark, very light or grey."""
    steps = np.linspace(0, 255, 12).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    oklab = _to_oklab(grid)
    lively = (oklab[:, 0] > 0.45) & (oklab[:, 0] < 0.9) & (np.linalg.norm(oklab[:, 1:], axis=1) > 0.1)
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
    cones = linear @ np.array([[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376], [0.0514459929, 0.1073969566, 0.6299787005]])
    return np.cbrt(cones) @ np.array([[0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662], [-0.0040720468, 0.4505937099, -0.8086757660]])


def _write_names(picture: Image.Image, regions: "list[Region]", font: ImageFont.FreeTypeFont) -> None:
    """Write each name inside its region, largest first, where there is room for it."""
    pen, taken = ImageDraw.Draw(picture, "RGBA"), []
    for region in regions:
        x, y, radius = deepest_point(region.mask)
        left, top, right, bottom = pen.textbbox((0, 0), region.name, font=font)
        width, height, pad = right - left, bottom - top, round(font.size * 0.3)
        if radius < height / 2 + pad or width + 2 * pad > picture.width or len(region.name) > NAME_WIDTH:
            continue
        x = min(max(x - width / 2, pad), picture.width - width - pad)
        y = min(max(y - height / 2, pad), picture.height - height - pad)
        box = (x - pad, y - pad, x + width + pad, y + height + pad)
        if any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken):
            continue
        taken.append(box)
        pen.rounded_rectangle(box, radius=pad, fill=(0, 0, 0, 150))
        pen.text((x - left, y - top), region.name, font=font, fill=(255, 255, 255, 255))


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


def _add_legend(picture: Image.Image, result: "Segmentation", colours: dict, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Put a legend below: as many columns as fit, the picture widened if a single one doesn't."""
    pixels = result.labels.size
    entries = [(colours[r.label], r.name, f"{r.area / pixels:.0%} · score {r.score:.2f}" if r.area >= pixels / 200 else f"<1% · score {r.score:.2f}") for r in result.regions]
    if result.unlabelled_area:
        entries.append((None, "unlabelled", f"{result.unlabelled_area / pixels:.0%}"))
    entries = [(colour, textwrap.fill(name, NAME_WIDTH), note) for colour, name, note in entries]
    unit, pen = round(font.size * 1.5), ImageDraw.Draw(picture)
    text_width = max(pen.multiline_textbbox((0, 0), f"{name}  {note}", font=font)[2] for _, name, note in entries)
    column = unit * 2 + text_width
    columns = max(1, min(len(entries), (picture.width - unit) // column))
    rows = -(-len(entries) // columns)
    lines = max(name.count("\n") for _, name, _ in entries) + 1
    height = rows * unit * lines + unit
    sheet = Image.new("RGB", (max(picture.width, column + unit), picture.height + height), PAPER)
    sheet.paste(picture, ((sheet.width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for number, (colour, name, note) in enumerate(entries):
        x = unit // 2 + (number // rows) * ((sheet.width - unit) // columns)
        y = picture.height + unit // 2 + (number % rows) * unit * lines
        pen.rounded_rectangle((x, y + unit * 0.15, x + unit, y + unit * 0.85), radius=unit // 6, fill=colour or PAPER, outline=colour or FAINT)
        pen.multiline_text((x + unit * 1.4, y + unit * 0.12), name, font=font, fill=INK)
        last = name.rsplit("\n", 1)[-1]
        pen.text((x + unit * 1.4 + pen.textlength(last + "  ", font=font), y + unit * (0.12 + name.count("\n") * 0.85)), note, font=font, fill=FAINT)
    return sheet
