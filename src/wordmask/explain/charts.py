"""What the sheets of an explanation are made of: maps over a picture, colour scales, bars and text."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from wordmask.drawing import (
    FAINT,
    GAP,
    INK,
    PAPER,
    TITLE_SIZE,
    Colour,
    choose_font,
    lay_out,
    legible,
    outline,
    text_width,
    write_text,
)

WIDTH, HEIGHT = 260, 340  # pixels that a picture in a sheet is fitted into
LINE = 21  # pixels from one line of text to the next
BAR, BETWEEN = 15, 8  # pixels: the height of a bar, and the space below a row
BAR_LENGTH = 180  # pixels of the longest
LONGEST_LABEL = 300  # pixels
STRIP = 12  # height of a colour scale
HEAT = 0.65  # opacity of a map over its picture
LIFTED = (76, 242)  # what black and white of a picture become under a map, so that its colours stay those of the scale
# viridis, from low to high: as readable in grey, and for the colour-blind
COLOURS = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32", "#fde725")
Font = ImageFont.FreeTypeFont


class Fonts(NamedTuple):
    """What a sheet is written in."""

    text: Font
    title: Font

    @classmethod
    def that_write(cls, texts: list[str]) -> "Fonts":
        """Choose those that have as many of the characters as there are."""
        return cls(choose_font(texts, size=TITLE_SIZE), choose_font(texts, size=TITLE_SIZE + 4))


class Bar(NamedTuple):
    """A bar of a length in [0, 1], with its value in words, and the range whose mean it is."""

    length: float
    note: str
    colour: Colour
    spread: tuple[float, float] | None = None


class Row(NamedTuple):
    """A line of a chart: in each column bars, one below the other. Without columns it is a heading."""

    label: str
    cells: list[list[Bar]]


@cache
def colour_table() -> np.ndarray:
    """The colours from low to high, (256, 3) float."""
    colours = np.array([ImageColor.getrgb(colour) for colour in COLOURS])
    places = np.linspace(0, len(colours) - 1, 256)
    return np.stack([np.interp(places, np.arange(len(colours)), channel) for channel in colours.T], axis=1)


def fitted(rgb: np.ndarray) -> Image.Image:
    """A picture, (H, W, 3), in the size that sheets show it in."""
    height, width = rgb.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)


def heat(
    picture: Image.Image, values: np.ndarray, limits: tuple[float, float], edge: np.ndarray | None = None
) -> Image.Image:
    """Lay a map over a picture in grey.

    Args:
        values: (H, W) as the picture.
        limits: What the first and the last colour mean.
        edge: (H, W) bool, a region whose outline is drawn.
    """
    low, high = limits
    shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    grey = np.interp(np.asarray(picture.convert("L"), np.float32)[..., None], (0, 255), LIFTED)
    blended = HEAT * colour_table()[(shares * 255).round().astype(int)] + (1 - HEAT) * grey
    return outlined(Image.fromarray(blended.round().astype(np.uint8)), edge)


def outlined(picture: Image.Image, region: np.ndarray | None) -> Image.Image:
    """Draw the outline of a region, (H, W) bool: white, with a dark rim."""
    if region is None:
        return picture
    pixels = np.array(picture)
    pixels[outline(region, 2)], pixels[outline(region, 1)] = INK, PAPER
    return Image.fromarray(pixels)


def colour_scale(limits: tuple[float, float], font: Font, digits: int) -> Image.Image:
    """The colours of a map, with numbers at both ends."""
    strip = np.repeat(colour_table()[None, np.linspace(0, 255, WIDTH).round().astype(int)], STRIP, axis=0)
    page = Image.new("RGB", (WIDTH, STRIP + LINE), PAPER)
    page.paste(Image.fromarray(strip.round().astype(np.uint8)))
    pen, (low, high) = ImageDraw.Draw(page), (f"{value:.{digits}f}" for value in limits)
    write_text(pen, (0, STRIP + LINE / 2), low, font, INK)
    write_text(pen, (WIDTH - text_width(high, font), STRIP + LINE / 2), high, font, INK)
    return page


def captioned(picture: Image.Image, lines: list[str], font: Font) -> Image.Image:
    """Put lines below a picture, each cut to the width of a sheet's column; the first in full black."""
    page = Image.new("RGB", (WIDTH, picture.height + LINE * len(lines) + GAP // 2), PAPER)
    page.paste(picture)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        at = 0, picture.height + (number + 0.6) * LINE
        write_text(pen, at, shortened(line, font, WIDTH), font, FAINT if number else INK)
    return page


def blank() -> Image.Image:
    """Nothing, where a sheet's row has no picture."""
    return Image.new("RGB", (WIDTH, 1), PAPER)


def chart(titles: list[str], rows: list[Row], font: Font, *, label_width: float | None = None) -> Image.Image:
    """Draw rows of bars below titles, that of the labels first, then that of each column.

    Args:
        label_width: In pixels, so that several charts are aligned; as the labels need it if None.
    """
    barred = [row for row in rows if row.cells]
    lefts, right = [0.0], label_width or widest([titles[0], *(row.label for row in barred)], font)
    for column, title in enumerate(titles[1:]):
        lefts.append(right + 2 * GAP)
        notes = max(text_width(bar.note, font) for row in barred for bar in row.cells[column])
        right = lefts[-1] + max(BAR_LENGTH + GAP + notes, text_width(title, font))
    page = Image.new("RGB", (round(right), LINE + sum(map(_height_of, rows))), PAPER)
    pen, top = ImageDraw.Draw(page), LINE
    for title, left in zip(titles, lefts, strict=True):
        write_text(pen, (left, LINE / 2), title, font, FAINT)
    for row in rows:
        label = shortened(row.label, font, LONGEST_LABEL)
        write_text(pen, (0, top + BAR / 2), label, font, INK if row.cells else FAINT)
        for left, bars in zip(lefts[1:], row.cells, strict=False):
            _draw_bars(pen, (left, top), bars, font)
        top += _height_of(row)
    return page


def _height_of(row: Row) -> int:
    return BAR * max(map(len, row.cells), default=1) + BETWEEN


def widest(labels: list[str], font: Font) -> float:
    """How many pixels the widest of a chart's labels takes."""
    return max(text_width(shortened(label, font, LONGEST_LABEL), font) for label in labels)


def _draw_bars(pen: ImageDraw.ImageDraw, at: tuple[float, float], bars: list[Bar], font: Font) -> None:
    left, top = at
    for number, bar in enumerate(bars):
        y, length = top + BAR * number, round(BAR_LENGTH * min(1, max(0, bar.length)))
        pen.rectangle((left, y + 1, left + BAR_LENGTH, y + BAR - 2), fill=(240, 240, 242))
        if length:
            pen.rectangle((left, y + 1, left + length, y + BAR - 2), fill=bar.colour)
        if bar.spread:
            ends, middle = [left + BAR_LENGTH * end for end in bar.spread], y + BAR / 2 - 1
            pen.line((ends[0], middle, ends[1], middle), fill=INK)
            for end in ends:
                pen.line((end, middle - 3, end, middle + 3), fill=INK)
        write_text(pen, (left + BAR_LENGTH + GAP, y + BAR / 2), bar.note, font, INK)


def key(entries: Mapping[str, Colour], font: Font) -> Image.Image:
    """Say what colours mean, in a line."""
    width = sum(text_width(name, font) + 2 * LINE for name in entries)
    page = Image.new("RGB", (round(width), LINE), PAPER)
    pen, left = ImageDraw.Draw(page), 0.0
    for name, colour in entries.items():
        pen.rectangle((left, LINE * 0.2, left + LINE * 0.6, LINE * 0.8), fill=colour)
        write_text(pen, (left + LINE, LINE / 2), name, font, INK)
        left += text_width(name, font) + 2 * LINE
    return page


def sheet(title: str, notes: list[str], parts: list[Image.Image], fonts: Fonts) -> Image.Image:
    """Put parts below each other, under a title and notes that are broken to the sheet's width."""
    font, large = fonts
    inside = max(*(part.width for part in parts), round(text_width(title, large)), 2 * WIDTH)
    lines = [line for note in notes for line in wrapped(note, font, inside)]
    top = round(1.2 * LINE) + LINE * len(lines) + GAP
    page = Image.new("RGB", (inside + 2 * GAP, top + sum(part.height + GAP for part in parts) + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    write_text(pen, (GAP, GAP + LINE * 0.4), title, large, INK)
    for number, line in enumerate(lines):
        write_text(pen, (GAP, GAP + LINE * (number + 1.5)), line, font, FAINT)
    top += GAP
    for part in parts:
        page.paste(part, (GAP, top))
        top += part.height + GAP
    return page


def columns(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """`lay_out` without the margin at the left: a sheet has its own."""
    page = lay_out(rows, titles)
    return page.crop((GAP, 0, page.width, page.height))


def shrunk(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region, (H, W) bool, in the size (width, height) that sheets show its picture in."""
    return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))


def wrapped(text: str, font: Font, width: float) -> list[str]:
    """Break a text into lines that fit a width, in pixels."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shortened(text: str, font: Font, width: float) -> str:
    """A text as a font can write it, cut where it is wider than so many pixels."""
    text = whole = legible(text, font)
    while text and text_width(text if text == whole else f"{text}…", font) > width:
        text = text[:-1]
    return text if text == whole else f"{text.rstrip()}…"
