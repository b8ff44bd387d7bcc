"""What a graph emits, in arrays → labels and regions: what `postprocess` does with tensors, without torch.

Needs numpy and pixels.py, and nothing else of wordmask: `wordmask export` copies this file beside the graphs.
T classes, K or Q maps, H W pixels, h w a grid.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .pixels import PictureSizes


class NamedRegion(NamedTuple):
    """The pixels of one class, or of one segment of it: its id counts from 1, its area is in pixels."""

    id: int
    name: str
    label: int
    score: float
    area: int


class Found(NamedTuple):
    """Labels (H, W), -1 where there is none; ids of regions (H, W), 0 where there is none; regions, largest first."""

    labels: np.ndarray
    ids: np.ndarray
    regions: list[NamedRegion]


class ArrayFrame(PictureSizes):
    """The sizes of a picture, and the way back to it."""

    def strips(self, maps: np.ndarray, most: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Bring maps (K, h, w) back to the picture, some rows at a time: (rows, maps). So many maps, `most`, are in
        memory at once."""
        tall, many = self.restore(maps, 0), self.strip_rows(most)
        return ((slice(y, y + many), self.restore(tall[:, y : y + many], 1)) for y in range(0, self.original[0], many))

    def restore(self, maps: np.ndarray, axis: int) -> np.ndarray:
        """Restore the height (axis 0) or the width (axis 1) of maps (K, h, w)."""
        if self.resized is not None and self.padded is not None:
            maps = np.take(resize(maps, self.padded[axis], axis + 1), np.arange(self.resized[axis]), axis + 1)
        return resize(maps, self.original[axis], axis + 1)


def read_semantic(
    maps: np.ndarray, classes: np.ndarray, frame: ArrayFrame, names: list[str], weights: np.ndarray | None = None
) -> Found:
    """Label every pixel with its most probable class.

    Args:
        maps: Probabilities (K, h, w), or with `weights` the logits of masks (Q, h, w).
        classes: Of the maps, (K,); with `weights` all, (T,).
        names: Of all classes.
        weights: Of each mask for each class, (T, Q): its probabilities are summed by them.
    """
    labels, confidence = np.empty(frame.original, np.int32), np.empty(frame.original, np.float32)
    for rows, strip in frame.strips(maps, max(len(maps), len(classes))):
        probs = strip if weights is None else np.tensordot(weights, sigmoid(strip), 1)
        labels[rows], confidence[rows] = classes[probs.argmax(axis=0)], np.minimum(probs.max(axis=0), 1)
    areas, sums = np.bincount(labels.ravel()), np.bincount(labels.ravel(), confidence.ravel())
    order = [label for label in np.argsort(-areas, kind="stable").tolist() if areas[label]]
    table = np.zeros(len(names), np.int32)
    table[order] = np.arange(1, len(order) + 1)
    regions = [
        NamedRegion(number, names[label], label, float(sums[label] / areas[label]), int(areas[label]))
        for number, label in enumerate(order, 1)
    ]
    return Found(labels, table[labels], regions)


def read_panoptic(
    probs: np.ndarray,
    mask_logits: np.ndarray,
    frame: ArrayFrame,
    *,
    names: list[str],
    things: list[bool],
    overlap: float,
) -> Found:
    """Assign every pixel to the query that is surest of it; keep the queries that win most of their masks; stuff merges
    by class.

    Args:
        probs: Of each query's class, (Q, T + 1), void last.
        mask_logits: (Q, h, w).
        overlap: A query is kept if it wins at least this share of the pixels that its mask covers.
    """
    kept = np.flatnonzero(probs.argmax(axis=1) != len(names))
    classes, scores, count = probs.argmax(axis=1)[kept], probs.max(axis=1)[kept], len(kept)
    winner = np.full(frame.original, -1)  # -1 outside the winner's own mask
    covered, won, taken, evidence = np.zeros((4, count))
    for rows, strip in frame.strips(mask_logits[kept], count) if count else ():
        covers, masks = strip >= 0, sigmoid(strip) * scores[:, None, None]
        best = masks.argmax(axis=0)
        inside = np.take_along_axis(covers, best[None], 0)[0]
        covered += covers.sum(axis=(1, 2))
        won += np.bincount(best.ravel(), minlength=count)
        taken += np.bincount(best[inside], minlength=count)
        evidence += np.bincount(best[inside], masks.max(axis=0)[inside], count)
        winner[rows] = np.where(inside, best, -1)
    groups: dict[tuple[int, int], list[int]] = {}  # the queries of a segment: one of a thing, all of one kind of stuff
    for query in np.flatnonzero((taken > 0) & (won >= overlap * covered)).tolist():
        label = int(classes[query])
        groups.setdefault((label, query if things[label] else -1), []).append(query)
    table, regions = np.zeros(count + 1, np.int32), []  # the last entry is for -1
    for number, queries in enumerate(sorted(groups.values(), key=lambda group: -taken[group].sum()), 1):
        table[queries], label, area = number, int(classes[queries[0]]), int(taken[queries].sum())
        score = float(evidence[queries].sum() / area)
        regions.append(NamedRegion(number, names[label], label, score, area))
    labels = np.array([-1, *(region.label for region in regions)], np.int32)
    return Found(labels[table[winner]], table[winner], regions)


def checked(outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Return what a graph emitted; raise a ValueError if a value is no number, or infinite: nothing can be read of
    it."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError(
            "What the graph emitted for this picture holds values that are no numbers (nan or infinite), so that "
            "nothing can be read of it. The graph is damaged, or its words' vectors are: export it again."
        )
    return outputs


def resize(maps: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resize one axis bilinearly, without antialiasing; the corners of pixels are aligned."""
    place = np.clip((np.arange(size) + 0.5) * (maps.shape[axis] / size) - 0.5, 0, None)
    low = place.astype(int)
    share = (place - low).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(maps.ndim)])
    return maps.take(low, axis) * (1 - share) + maps.take(np.minimum(low + 1, maps.shape[axis] - 1), axis) * share


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ˣ)."""
    with np.errstate(over="ignore"):  # small values count: where no mask covers a pixel, the least unlikely one wins it
        return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
