"""The sheets of maps of classes: which were kept, and what aggregation does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from wordmask.drawing import Colour
from wordmask.explain.charts import (
    Bar,
    Font,
    Fonts,
    Row,
    blank,
    captioned,
    chart,
    colour_scale,
    columns,
    fitted,
    heat,
    outlined,
    sheet,
    shrunk,
)
from wordmask.explain.class_maps import ClassMapExplanation
from wordmask.explain.maps import on_picture
from wordmask.models.err_seg import RANK_VOTES

KEPT_ROWS, LAST_ROWS, MISSED_ROWS = 48, 4, 8  # of the votes: the first and the last that are kept, and those after them
LEAST_LENGTH = 0.01  # of the bar of a class that has any vote
KEPT_COLOUR, MISSED_COLOUR = (66, 118, 200), (170, 170, 178)


# Which classes were kept ----------------------------------------------------------------------------------------------


def draw_votes(explanation: ClassMapExplanation, fonts: Fonts) -> Image.Image:
    """Which classes were kept, and why."""
    listed = list_classes(explanation)
    scales = VoteScales.of(explanation, [*listed.kept, *listed.missed, *listed.lost])
    titles = [
        "class",
        f"votes, {RANK_VOTES[-1]} to {scales.most:.2f}, logarithmic",
        f"highest cosine, {scales.low:.3f} to {scales.high:.3f}",
        "share of the picture, in the result",
    ]
    table = chart(titles, list(vote_rows(explanation, listed, scales)), fonts.text)
    title = f"Which classes were kept: {len(explanation.kept)} of {len(explanation.names)}"
    return sheet(title, list(vote_notes(explanation, listed)), [table], fonts)


class ListedClasses(NamedTuple):
    """The classes on the sheet of votes, best first.

    Args:
        kept: The first and the last of those kept, if there are many.
        left_out: How many lie between them.
        missed: The first of those not kept.
        lost: The user's own words among the rest, if the background's classes competed.
    """

    kept: list[int]
    left_out: int
    missed: list[int]
    lost: list[int]


def list_classes(explanation: ClassMapExplanation) -> ListedClasses:
    """Choose the classes that the sheet of votes shows."""
    kept, classes = len(explanation.kept), explanation.order.tolist()
    shown = classes[:kept]
    if kept > KEPT_ROWS + LAST_ROWS:
        shown = [*classes[:KEPT_ROWS], *classes[kept - LAST_ROWS : kept]]
    missed, lost = classes[kept : kept + MISSED_ROWS], []
    if background_classes(explanation):
        lost = [label for label in explanation.lost_words() if label not in missed][:MISSED_ROWS]
    return ListedClasses(shown, kept - len(shown), missed, lost)


def background_classes(explanation: ClassMapExplanation) -> int:
    """How many classes of the background competed."""
    return len(explanation.names) - len(explanation.result.vocabulary)


@dataclass(frozen=True)
class VoteScales:
    """What the lengths of the bars mean: votes up to `most`, cosines from `low` to `high`."""

    most: float
    low: float
    high: float

    @classmethod
    def of(cls, explanation: ClassMapExplanation, classes: list[int]) -> "VoteScales":
        """Those that fit all votes, and the cosines of some classes."""
        peaks = explanation.peaks[classes]
        most = max(float(explanation.votes.max()), 2 * RANK_VOTES[-1])
        return cls(most, float(peaks.min()), float(peaks.max()))

    def length_of_votes(self, votes: float) -> float:
        """Of a bar, in [0, 1]; logarithmic."""
        if votes <= 0:
            return 0
        return max(LEAST_LENGTH, math.log(votes / RANK_VOTES[-1]) / math.log(self.most / RANK_VOTES[-1]))

    def length_of_peak(self, peak: float) -> float:
        """Of a bar, in [0, 1]."""
        return (peak - self.low) / (self.high - self.low) if self.high > self.low else 1


def vote_rows(explanation: ClassMapExplanation, listed: ListedClasses, scales: VoteScales) -> Iterator[Row]:
    """The rows of the chart, with headings between them."""
    ranks = {label: rank for rank, label in enumerate(explanation.order.tolist(), 1)}

    def row(label: int, colour: Colour) -> Row:
        votes, peak = float(explanation.votes[label]), float(explanation.peaks[label])
        share, note = 0.0, "background"
        if label < len(explanation.shares):
            share = float(explanation.shares[label])
            note = f"{share:.1%}"
        bars = (
            Bar(scales.length_of_votes(votes), f"{votes:.2f}", colour),
            Bar(scales.length_of_peak(peak), f"{peak:.3f}", colour),
            Bar(share, note, colour),
        )
        return Row(f"{ranks[label]}. {explanation.names[label]}", [[bar] for bar in bars])

    for place, label in enumerate(listed.kept):
        if listed.left_out and place == KEPT_ROWS:
            yield Row(f"… and {listed.left_out} more …", [])
        yield row(label, KEPT_COLOUR)
    if listed.missed:
        yield Row("not kept, the first of them:", [])
        yield from (row(label, MISSED_COLOUR) for label in listed.missed)
    if listed.lost:
        yield Row("and of your own words:", [])
        yield from (row(label, MISSED_COLOUR) for label in listed.lost)


def vote_notes(explanation: ClassMapExplanation, listed: ListedClasses) -> Iterator[str]:
    """What is said above the chart."""
    chosen = "All are kept."
    if listed.missed:
        kept = len(explanation.kept)
        chosen = f"The {kept} with the most votes are kept and refined; of equal votes the higher cosine decides."
    yield (
        f"Each of the {explanation.voters} pixels of the x16 map gives 1, 0.1 and 0.01 votes to its three best "
        f"classes. {chosen}"
    )
    if others := background_classes(explanation):
        yield f"Beside the words asked for, {others} classes of the background competed. What these win is unlabelled."


# What aggregation does ------------------------------------------------------------------------------------------------


class MapColumn(NamedTuple):
    """Maps on the picture, one per class; the ends of their colour scale, and how many digits its numbers have."""

    maps: np.ndarray
    limits: tuple[float, float]
    digits: int


def draw_costs(explanation: ClassMapExplanation, fonts: Fonts, *, most: int) -> Image.Image:
    """The maps of the kept classes with most votes, before and after aggregation."""
    picture, places = fitted(explanation.result.picture), explanation.kept.tolist()
    classes = [label for label in explanation.order.tolist() if label in places][:most]
    taken = [places.index(label) for label in classes]

    def column(maps: np.ndarray, digits: int, low: float | None = None) -> MapColumn:
        shown = on_picture(maps[taken], explanation.frame, (picture.height, picture.width))
        return MapColumn(shown, (float(shown.min()) if low is None else low, float(shown.max())), digits)

    stages = (column(explanation.cost_x16, 3), column(explanation.cost_x32, 3), column(explanation.probability, 2, 0.0))
    rows = [cost_row(explanation, place, label, picture, stages, fonts.text) for place, label in enumerate(classes)]
    scales = [colour_scale(stage.limits, fonts.text, stage.digits) for stage in stages]
    titles = ["class", "before: cosine at x16", "before: cosine at x32", "after: probability"]
    notes = [
        "The kept classes with the most votes. Cosines of pixel and word go into the aggregator, "
        "probabilities come out of the decoder; each pixel takes the class with the highest. Outlined: where the "
        "result has the class. The colours of a column mean the same in all rows."
    ]
    return sheet("What aggregation does", notes, [columns([*rows, [blank(), *scales]], titles)], fonts)


def cost_row(
    explanation: ClassMapExplanation,
    place: int,
    label: int,
    picture: Image.Image,
    stages: tuple[MapColumn, ...],
    font: Font,
) -> list[Image.Image]:
    """A class in the result, and its map in every column."""
    region, won = None, "of the background"
    if label < len(explanation.shares):  # beyond them a label may be the value of what is unlabelled
        region = shrunk(explanation.result.labels == label, picture.size)
        won = f"{explanation.shares[label]:.1%} of the picture"
    lines = [f"{place + 1}. {explanation.names[label]}", f"{explanation.votes[label]:.2f} votes, {won}"]
    panels = [captioned(outlined(picture, region), lines, font)]
    for stage in stages:
        values = stage.maps[place]
        line = f"{values.min():.{stage.digits}f} to {values.max():.{stage.digits}f}"
        panels.append(captioned(heat(picture, values, stage.limits, region), [line], font))
    return panels
