"""Scores with their spread: every scene is counted by itself, so that means can be drawn again from other scenes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from torch import nn

from wordmask.data.labelled import DataSet
from wordmask.evaluation.metrics import PanopticScore, SemanticScore
from wordmask.evaluation.scoring import present, segments_of
from wordmask.segmenter import Segmenter
from wordmask.training.validation import pictures_of

DRAWS = 1000  # bootstrap samples
MIDDLE = (2.5, 97.5)  # percentiles: 95 of 100 draws lie between
SAMPLES_AT_ONCE = 50  # of DRAWS: 847 classes take 1 MB each

# by score: part, whole, and whether the class counts, of every scene and class
Scenes = Mapping[str, Float[np.ndarray, "N 3 T"]]


class Estimate(NamedTuple):
    """A figure, and the ends of its interval: 95 % of bootstrap draws are as near to their mean."""

    value: float
    low: float
    high: float


def score_scenes(model: nn.Module, data: DataSet, *, keep: int | None = None) -> dict[str, Float[np.ndarray, "N 3 T"]]:
    """Segment every scene and count it by itself: `mIoU`; of EOV-Seg also `PQ`, first.

    Args:
        keep: ERR-Seg's K; its own choice by default.
    """
    segmenter, vocabulary = Segmenter(model), data.vocabulary
    things = np.array([entry.thing for entry in vocabulary])
    is_panoptic, choice = "panoptic" in model.tasks, {} if keep is None else {"keep": keep}
    scenes: dict[str, list[np.ndarray]] = {"PQ": [], "mIoU": []} if is_panoptic else {"mIoU": []}
    for labelled in pictures_of(data):
        found = segmenter.readings(labelled.rgb, vocabulary, {"semantic", model.tasks[0]}, **choice)
        semantic = SemanticScore(len(vocabulary))
        semantic.update(found["semantic"].labels, labelled.semantic)
        scenes["mIoU"].append(semantic_parts(semantic))
        if is_panoptic:
            panoptic = PanopticScore(things)
            panoptic.update(*segments_of(found["panoptic"]), **present(labelled))
            scenes["PQ"].append(panoptic_parts(panoptic))
    return {name: np.stack(parts) for name, parts in scenes.items()}


def semantic_parts(score: SemanticScore) -> Float[np.ndarray, "3 T"]:
    """Intersection, union, and pixels of the target."""
    both = score.confusion.diagonal()
    target, predicted = score.confusion.sum(axis=1), score.confusion[:, :-1].sum(axis=0)
    return np.stack([both, target + predicted - both, target]).astype(float)


def panoptic_parts(score: PanopticScore) -> Float[np.ndarray, "3 T"]:
    """The sum of IoU, segments (missed and spurious ones count half), and the same again."""
    iou_sum, matched, missed, spurious = score.counts
    segments = matched + (missed + spurious) / 2
    return np.stack([iou_sum, segments, segments])


def means(
    scenes: Float[np.ndarray, "N 3 T"], weights: Float[np.ndarray, "R N"], classes: Bool[np.ndarray, " T"]
) -> Float[np.ndarray, " R"]:
    """The mean over some classes, in percent, for each of R ways to count every scene so often."""
    found = []
    for some in np.array_split(weights, max(1, len(weights) // SAMPLES_AT_ONCE)):
        part, whole, counted = np.moveaxis(np.tensordot(some, scenes[:, :, classes], axes=1), 1, 0)  # (R, T) each
        quality = 100 * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        there = counted > 0
        total, number = np.where(there, quality, 0).sum(axis=1), there.sum(axis=1)
        found.append(np.divide(total, number, out=np.full(len(some), np.nan), where=number > 0))
    return np.concatenate(found)


def draws(scenes: int) -> Float[np.ndarray, "R N"]:
    """How often each scene is drawn: once each in the first row, then at random with replacement, the same at every
    call."""
    random = np.random.default_rng(0)
    return np.concatenate(
        [np.ones((1, scenes)), random.multinomial(scenes, np.full(scenes, 1 / scenes), size=DRAWS)]
    ).astype(float)


def estimate(values: Float[np.ndarray, " R"]) -> Estimate:
    """The first value, and as far below and above it as the others spread about their own mean.

    That mean lies elsewhere, mostly higher: where a class isn't drawn, what is mistaken for it costs nothing.
    """
    known = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(known, MIDDLE) - known.mean() if len(known) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(values[0] + low), float(values[0] + high))


def figures(scenes: Scenes, unseen: Bool[np.ndarray, " T"]) -> dict[str, Float[np.ndarray, " R"]]:
    """Every score over all classes, over those seen in training, and over the others, for each draw of scenes.

    Two models that were asked about the same scenes can be subtracted: the draws are the same.
    """
    groups = {"": np.ones_like(unseen), " seen": ~unseen, " unseen": unseen}
    weights = draws(len(next(iter(scenes.values()))))
    return {
        f"{name}{group}": means(parts, weights, classes)
        for name, parts in scenes.items()
        for group, classes in groups.items()
    }
