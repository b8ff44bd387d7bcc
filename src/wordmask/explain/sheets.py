"""An explanation as pictures: one sheet for each question."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from wordmask.drawing import GAP, TITLE_SIZE, choose_colours, choose_font, lay_out, tint
from wordmask.explain.answer import Explanation
from wordmask.explain.charts import (
    Bar,
    Font,
    Row,
    blank,
    captioned,
    chart,
    colour_scale,
    fitted,
    heat,
    key,
    outlined,
    sheet,
    widest,
)
from wordmask.explain.class_maps import ClassMapExplanation
from wordmask.explain.maps import on_picture
from wordmask.explain.query_masks import FATES, QueryExplanation, Selection
from wordmask.models.eov_seg import SEEN_WEIGHT, UNSEEN_WEIGHT
from wordmask.models.err_seg import RANK_VOTES

MOST = 6  # classes or queries that are drawn
KEPT_ROWS, LAST_ROWS, MISSED_ROWS = 48, 4, 8  # of the votes: the first and the last that are kept, and those after them
BLUE, ORANGE, GREEN, DARK, GREY = (66, 118, 200), (232, 148, 50), (58, 150, 96), (60, 60, 66), (170, 170, 178)
SURE = (0.0, 1.0)  # limits of a probability


def draw(explanation: Explanation, *, most: int = MOST) -> dict[str, Image.Image]:
    """Draw an explanation: the name of each question → its sheet.

    Of ERR-Seg `votes` and `costs`; of EOV-Seg `selection`, `queries` and `gates`, if the model has these parts.

    Args:
        most: How many classes or queries are drawn, at least 1.
    """
    if isinstance(explanation, ClassMapExplanation):
        drawn: dict[str, Callable] = {"votes": draw_votes, "costs": partial(draw_costs, most=most)}
    else:
        drawn = {"selection": partial(draw_selection, explanation.selection)} if explanation.selection else {}
        drawn |= {"queries": partial(draw_queries, most=most)}
        drawn |= {"gates": partial(draw_gates, most=most)} if explanation.gates else {}
    fonts = [choose_font([*explanation.names, "…"], size=size) for size in (TITLE_SIZE, TITLE_SIZE + 4)]
    return {question: function(explanation, *fonts) for question, function in drawn.items()}


# ERR-Seg --------------------------------------------------------------------------------------------------------------


def draw_votes(explanation: ClassMapExplanation, font: Font, large: Font) -> Image.Image:
    """Which classes were kept, and why."""
    kept, classes = len(explanation.kept), explanation.order.tolist()
    shown = (
        classes[:kept] if kept <= KEPT_ROWS + LAST_ROWS else [*classes[:KEPT_ROWS], *classes[kept - LAST_ROWS : kept]]
    )
    missed, competed = classes[kept : kept + MISSED_ROWS], len(classes) > len(explanation.result.vocabulary)
    lost = [label for label in explanation.lost_words() if label not in missed][:MISSED_ROWS] if competed else []
    most = max(float(explanation.votes.max()), 2 * RANK_VOTES[-1])
    peaks = explanation.peaks[[*shown, *missed, *lost]]
    low, high = float(peaks.min()), float(peaks.max())
    ranks = {label: rank for rank, label in enumerate(classes, 1)}

    def row(label: int, colour: tuple[int, int, int]) -> Row:
        votes, peak = float(explanation.votes[label]), float(explanation.peaks[label])
        share = float(explanation.shares[label]) if label < len(explanation.shares) else None
        strength = math.log(votes / RANK_VOTES[-1]) / math.log(most / RANK_VOTES[-1]) if votes > 0 else 0
        height = (peak - low) / (high - low) if high > low else 1
        bars = (
            Bar(max(strength, 0.01 if votes else 0), f"{votes:.2f}", colour),
            Bar(height, f"{peak:.3f}", colour),
            Bar(share or 0, "background" if share is None else f"{share:.1%}", colour),
        )
        return Row(f"{ranks[label]}. {explanation.names[label]}", [[bar] for bar in bars])

    rows = [row(label, BLUE) for label in shown]
    if len(shown) < kept:
        rows.insert(KEPT_ROWS, Row(f"… and {kept - len(shown)} more …", []))
    if missed:
        rows += [Row("not kept, the first of them:", []), *(row(label, GREY) for label in missed)]
    if lost:
        rows += [Row("and of your own words:", []), *(row(label, GREY) for label in lost)]
    titles = [
        "class",
        f"votes, 0.01 to {most:.2f}, logarithmic",
        f"highest cosine, {low:.3f} to {high:.3f}",
        "share of the picture, in the result",
    ]
    chosen = (
        f"The {kept} with the most votes are kept and refined; of equal votes the higher cosine decides."
        if missed
        else "All are kept."
    )
    notes = [
        f"Each of the {explanation.voters} pixels of the x16 map gives 1, 0.1 and 0.01 votes to its three best "
        f"classes. {chosen}"
    ]
    if competed:
        others = len(classes) - len(explanation.result.vocabulary)
        notes.append(
            f"Beside the words asked for, {others} classes of the background competed. What these win is unlabelled."
        )
    return sheet(f"Which classes were kept: {kept} of {len(classes)}", notes, [chart(titles, rows, font)], font, large)


def draw_costs(explanation: ClassMapExplanation, font: Font, large: Font, *, most: int) -> Image.Image:
    """The maps of the kept classes with most votes, before and after aggregation."""
    picture, places = (
        fitted(explanation.result.picture),
        {label: place for place, label in enumerate(explanation.kept.tolist())},
    )
    classes = [label for label in explanation.order.tolist() if label in places][:most]
    taken = [places[label] for label in classes]
    stages = (explanation.cost_x16, explanation.cost_x32, explanation.probability)
    stages = [on_picture(maps[taken], explanation.frame, size_of(picture)) for maps in stages]
    limits = [(float(maps.min()), float(maps.max())) for maps in stages]
    limits[2] = (0.0, limits[2][1])
    rows = []
    for rank, (label, *maps) in enumerate(zip(classes, *stages, strict=True), 1):
        asked = label < len(explanation.shares)  # beyond them a label may be the value of what is unlabelled
        region = shrunk(explanation.result.labels == label, picture.size) if asked else None
        won = f"{explanation.shares[label]:.1%} of the picture" if asked else "of the background"
        lines = [f"{rank}. {explanation.names[label]}", f"{explanation.votes[label]:.2f} votes, {won}"]
        panels = [captioned(outlined(picture, region), lines, font)]
        for values, ends, digits in zip(maps, limits, (3, 3, 2), strict=True):
            line = f"{values.min():.{digits}f} to {values.max():.{digits}f}"
            panels.append(captioned(heat(picture, values, ends, region), [line], font))
        rows.append(panels)
    scales = [colour_scale(ends, font, digits) for ends, digits in zip(limits, (3, 3, 2), strict=True)]
    page = columns(
        [*rows, [blank(), *scales]], ["class", "before: cosine at x16", "before: cosine at x32", "after: probability"]
    )
    notes = [
        "Of the kept classes those with the most votes. Cosines of pixel and word go into the aggregator, "
        "probabilities come out of the decoder; each pixel takes the class with the highest. Outlined: where the "
        "result has the class. The colours of a column mean the same in all rows."
    ]
    return sheet("What aggregation does", notes, [page], font, large)


# EOV-Seg --------------------------------------------------------------------------------------------------------------


def draw_selection(selection: Selection, explanation: QueryExplanation, font: Font, large: Font) -> Image.Image:
    """How much each pixel counts."""
    picture = fitted(explanation.result.picture)
    weights = on_picture(selection.weights[None], explanation.frame, size_of(picture))[0]
    limits = float(weights.min()), float(weights.max())
    found, names = explanation.result, dict.fromkeys(region.name for region in explanation.result.shown)
    painted = fitted(np.asarray(tint(found, choose_colours(found.shown))))
    row = [(picture, ""), (heat(picture, weights, limits), ""), (painted, ", ".join(names) or "nothing was found")]
    panels = [captioned(panel, [line], font) for panel, line in row]
    scales = [blank(), colour_scale(limits, font, 3), blank()]
    page = columns([panels, scales], ["the picture", "weight of each pixel", "the result"])
    notes = [
        f"Vocabulary-aware selection multiplies the map of features by clarity times {selection.scale:.3f} plus "
        f"{selection.offset:.3f}. Clarity is the largest probability that a softmax over void and {selection.phrases} "
        f"names of classes gives at a pixel: here {selection.clarity.min():.4f} to {selection.clarity.max():.4f}."
    ]
    return sheet("Where it looks", notes, [page], font, large)


def draw_queries(explanation: QueryExplanation, font: Font, large: Font, *, most: int) -> Image.Image:
    """What the queries cover, and what the decoder, CLIP and the ensemble of both call that."""
    queries, picture = explanation.order[:most].tolist(), fitted(explanation.result.picture)
    logits = on_picture(explanation.mask_logits[queries], explanation.frame, size_of(picture))
    scores = {region.id: region.score for region in explanation.result.regions}
    labels = [label for query in queries for label in explanation.named(query)]
    label_width = widest([class_label(explanation, label) for label in labels], font)
    rows = []
    for query, mask in zip(queries, logits, strict=True):
        region, name = int(explanation.regions[query]), explanation.names[explanation.named(query)[0]]
        fate = f"segment {region}, score {scores[region]:.2f}" if region else f"no segment: {explanation.fates[query]}"
        lines = [f"query {query}: {name}", fate, f"void {explanation.final[query, -1]:.2f}"]
        panel = captioned(heat(picture, 0.5 + 0.5 * np.tanh(mask / 2), SURE, mask > 0), lines, font)
        rows.append([panel, draw_opinions(explanation, query, font, label_width=label_width)])
    page = columns(
        [*rows, [colour_scale(SURE, font, 0), blank()]], ["probability of the mask", "probability of the words"]
    )
    counts = {fate: explanation.fates.count(fate) for fate in FATES}
    lost = "; ".join(f"{count} {fate} ({FATES[fate]})" for fate, count in counts.items() if count and fate != "segment")
    notes = [
        f"{counts['segment']} of {len(explanation.fates)} queries are in segments{lost and f'; {lost}'}.",
        "Outlined: the mask, where its probability is above 0.5; pixels that another query is surer of go to that "
        "one. The three opinions are of the words alone; the probability of void is the decoder's. CLIP counts "
        f"{SEEN_WEIGHT} for words that training saw, and {UNSEEN_WEIGHT} for others.",
    ]
    colours = key([(BLUE, "the decoder"), (ORANGE, "CLIP itself"), (DARK, "the ensemble of both")], font)
    return sheet("What the queries found", notes, [colours, page], font, large)


def draw_opinions(explanation: QueryExplanation, query: int, font: Font, *, label_width: float) -> Image.Image:
    """The best words of a query in three opinions."""

    def row(label: int) -> Row:
        probs = [float(opinion[label]) for opinion in explanation.opinions(query).values()]
        bars = [Bar(prob, f"{prob:.2f}", colour) for prob, colour in zip(probs, (BLUE, ORANGE, DARK), strict=True)]
        return Row(class_label(explanation, label), [bars])

    return chart(["word", "0 to 1"], [row(label) for label in explanation.named(query)], font, label_width=label_width)


def size_of(picture: Image.Image) -> tuple[int, int]:
    """(height, width)."""
    return picture.height, picture.width


def class_label(explanation: QueryExplanation, label: int) -> str:
    """The name of a class, and whether training saw it."""
    return explanation.names[label] + (" (seen)" if explanation.seen[label] else "")


def draw_gates(explanation: QueryExplanation, font: Font, large: Font, *, most: int) -> Image.Image:
    """How the queries' embeddings were mixed."""
    strongest = max(
        float(max(gates.semantic_strength.max(), gates.spatial_strength.max())) for gates in explanation.gates
    )

    def row(label: str, queries: slice | list[int]) -> Row:
        cells = []
        for gates in explanation.gates:
            ways = (
                (gates.semantic[queries], gates.semantic_strength[queries], BLUE),
                (gates.spatial[queries], gates.spatial_strength[queries], GREEN),
            )
            cells.append(
                [Bar(float(gate.mean()), f"{gate.mean():.2f}", colour, spread_of(gate)) for gate, _, colour in ways]
            )
            cells.append(
                [Bar(float(size.mean()) / strongest, f"{size.mean():.2f}", colour) for _, size, colour in ways]
            )
        return Row(label, cells)

    rows = []
    for query in explanation.order[:most].tolist():
        region, name = int(explanation.regions[query]), explanation.names[explanation.named(query)[0]]
        rows.append(row(f"query {query}: {name}" + (f", segment {region}" if region else ""), [query]))
    rows.append(row(f"mean of all {len(explanation.fates)} queries", slice(None)))
    titles = ["query"]
    for gates in explanation.gates:
        titles += [f"layer {gates.layer}: gate, 0 to 1", f"let through, 0 to {strongest:.2f}"]
    notes = [
        "TDEE multiplies what the CNN knows of a region, and what the spatial extractor knows, by a gate for every "
        "channel, and adds both. A bar is the mean over the channels, the line in it spans four fifths of them. Gates "
        "are normalised over the channels so that their mean is near 0.5: what differs is the range, and how much "
        "they let through (the mean size of gate times embedding). Only the last layer's embeddings name the masks of "
        "a result."
    ]
    colours = key([(BLUE, "semantic (CNN)"), (GREEN, "spatial (first block of the ViT)")], font)
    return sheet(
        "How semantic and spatial knowledge are mixed", notes, [colours, chart(titles, rows, font)], font, large
    )


def spread_of(values: np.ndarray) -> tuple[float, float]:
    """From where to where the middle 80 % of values lie."""
    low, high = np.quantile(values, [0.1, 0.9]).tolist()
    return low, high


def columns(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """`lay_out` without the margin at the left: a sheet has its own."""
    page = lay_out(rows, titles)
    return page.crop((GAP, 0, page.width, page.height))


def shrunk(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region, (H, W) bool, in the size (width, height) that sheets show its picture in."""
    return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))
