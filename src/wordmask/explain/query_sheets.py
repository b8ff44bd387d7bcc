"""The sheets of masks of queries: where the model looks, what its queries found, how embeddings were mixed."""

import numpy as np
from PIL import Image

from wordmask.drawing import choose_colours, tint
from wordmask.explain.charts import (
    Bar,
    Fonts,
    Row,
    blank,
    captioned,
    chart,
    colour_scale,
    columns,
    fitted,
    heat,
    key,
    sheet,
    widest,
)
from wordmask.explain.maps import on_picture
from wordmask.explain.query_masks import FATES, Gates, QueryExplanation, Selection
from wordmask.models.eov_seg import SEEN_WEIGHT, UNSEEN_WEIGHT

BLUE, ORANGE, GREEN, DARK = (66, 118, 200), (232, 148, 50), (58, 150, 96), (60, 60, 66)
OPINIONS = {"the decoder": BLUE, "CLIP itself": ORANGE, "the ensemble of both": DARK}
WAYS = {"semantic (CNN)": BLUE, "spatial (first block of the ViT)": GREEN}
SURE = (0.0, 1.0)  # limits of a probability


def draw_selection(explanation: QueryExplanation, selection: Selection, fonts: Fonts) -> Image.Image:
    """How much each pixel counts."""
    picture, found = fitted(explanation.result.picture), explanation.result
    weights = on_picture(selection.weights[None], explanation.frame, (picture.height, picture.width))[0]
    limits = float(weights.min()), float(weights.max())
    names = dict.fromkeys(region.name for region in found.shown)
    painted = fitted(np.asarray(tint(found, choose_colours(found.shown))))
    row = [(picture, ""), (heat(picture, weights, limits), ""), (painted, ", ".join(names) or "nothing was found")]
    panels = [captioned(panel, [line], fonts.text) for panel, line in row]
    scales = [blank(), colour_scale(limits, fonts.text, 3), blank()]
    page = columns([panels, scales], ["the picture", "weight of each pixel", "the result"])
    notes = [
        f"Vocabulary-aware selection multiplies the map of features by clarity times {selection.scale:.3f} plus "
        f"{selection.offset:.3f}. Clarity is the largest probability that a softmax over void and {selection.phrases} "
        f"names of classes gives at a pixel: here {selection.clarity.min():.4f} to {selection.clarity.max():.4f}."
    ]
    return sheet("Where it looks", notes, [page], fonts)


# What the queries found -----------------------------------------------------------------------------------------------


def draw_queries(explanation: QueryExplanation, fonts: Fonts, *, most: int) -> Image.Image:
    """What the queries cover, and what the decoder, CLIP and the ensemble of both call that."""
    queries, picture = explanation.order[:most].tolist(), fitted(explanation.result.picture)
    logits = on_picture(explanation.mask_logits[queries], explanation.frame, (picture.height, picture.width))
    labels = [label for query in queries for label in explanation.named(query)]
    label_width = widest([class_label(explanation, label) for label in labels], fonts.text)
    rows = []
    for query, mask in zip(queries, logits, strict=True):
        covered = heat(picture, 0.5 + 0.5 * np.tanh(mask / 2), SURE, mask > 0)
        opinions = draw_opinions(explanation, query, fonts, label_width=label_width)
        rows.append([captioned(covered, query_lines(explanation, query), fonts.text), opinions])
    rows.append([colour_scale(SURE, fonts.text, 0), blank()])
    page = columns(rows, ["probability of the mask", "probability of the words"])
    notes = [
        fate_note(explanation),
        "Outlined: the mask, where its probability is above 0.5; pixels that another query is surer of go to that "
        "one. The three opinions are of the words alone; the probability of void is the decoder's. CLIP counts "
        f"{SEEN_WEIGHT} for words that training saw, and {UNSEEN_WEIGHT} for others.",
    ]
    return sheet("What the queries found", notes, [key(OPINIONS, fonts.text), page], fonts)


def query_lines(explanation: QueryExplanation, query: int) -> list[str]:
    """What is said below the mask of a query."""
    region, name = int(explanation.regions[query]), explanation.names[explanation.named(query)[0]]
    fate = f"no segment: {explanation.fates[query]}"
    if region:
        scores = {found.id: found.score for found in explanation.result.regions}
        fate = f"segment {region}, score {scores[region]:.2f}"
    return [f"query {query}: {name}", fate, f"void {explanation.final[query, -1]:.2f}"]


def fate_note(explanation: QueryExplanation) -> str:
    """How many queries are in segments, and what became of the others."""
    counts = {fate: explanation.fates.count(fate) for fate in FATES}
    told = [f"{counts['segment']} of {len(explanation.fates)} queries are in segments"]
    told += [f"{counts[fate]} {fate} ({FATES[fate]})" for fate in FATES if counts[fate] and fate != "segment"]
    return "; ".join(told) + "."


def draw_opinions(explanation: QueryExplanation, query: int, fonts: Fonts, *, label_width: float) -> Image.Image:
    """The best words of a query in three opinions."""

    def row(label: int) -> Row:
        probs = [float(opinion[label]) for opinion in explanation.opinions(query).values()]
        bars = [Bar(prob, f"{prob:.2f}", colour) for prob, colour in zip(probs, OPINIONS.values(), strict=True)]
        return Row(class_label(explanation, label), [bars])

    rows = [row(label) for label in explanation.named(query)]
    return chart(["word", "0 to 1"], rows, fonts.text, label_width=label_width)


def class_label(explanation: QueryExplanation, label: int) -> str:
    """The name of a class, and whether training saw it."""
    return explanation.names[label] + (" (seen)" if explanation.seen[label] else "")


# How embeddings were mixed --------------------------------------------------------------------------------------------


def draw_gates(explanation: QueryExplanation, fonts: Fonts, *, most: int) -> Image.Image:
    """How the queries' embeddings were mixed."""
    layers = explanation.gates
    strongest = max(float(max(gates.semantic_strength.max(), gates.spatial_strength.max())) for gates in layers)

    def row(label: str, queries: slice | list[int]) -> Row:
        cells = []
        for gates in layers:
            cells += gate_cells(gates, queries, strongest)
        return Row(label, cells)

    rows = []
    for query in explanation.order[:most].tolist():
        region, name = int(explanation.regions[query]), explanation.names[explanation.named(query)[0]]
        rows.append(row(f"query {query}: {name}" + (f", segment {region}" if region else ""), [query]))
    rows.append(row(f"mean of all {len(explanation.fates)} queries", slice(None)))
    titles = ["query"]
    for gates in layers:
        titles += [f"layer {gates.layer}: gate, 0 to 1", f"let through, 0 to {strongest:.2f}"]
    notes = [
        "TDEE multiplies what the CNN knows of a region, and what the spatial extractor knows, by a gate for every "
        "channel, and adds both. A bar is the mean over the channels, the line in it spans four fifths of them. Gates "
        "are normalised over the channels so that their mean is near 0.5: what differs is the range, and how much "
        "they let through (the mean size of gate times embedding). Only the last layer's embeddings name the masks of "
        "a result."
    ]
    parts = [key(WAYS, fonts.text), chart(titles, rows, fonts.text)]
    return sheet("How semantic and spatial knowledge are mixed", notes, parts, fonts)


def gate_cells(gates: Gates, queries: slice | list[int], strongest: float) -> list[list[Bar]]:
    """The two cells of a layer: how far the gates are open for some queries, and how much they let through."""
    opened, through = [], []
    both = (gates.semantic, gates.semantic_strength), (gates.spatial, gates.spatial_strength)
    for (gate, strength), colour in zip(both, WAYS.values(), strict=True):
        values, size = gate[queries], strength[queries]
        opened.append(Bar(float(values.mean()), f"{values.mean():.2f}", colour, spread_of(values)))
        through.append(Bar(float(size.mean()) / strongest, f"{size.mean():.2f}", colour))
    return [opened, through]


def spread_of(values: np.ndarray) -> tuple[float, float]:
    """From where to where the middle 80 % of values lie."""
    low, high = np.quantile(values, [0.1, 0.9]).tolist()
    return low, high
