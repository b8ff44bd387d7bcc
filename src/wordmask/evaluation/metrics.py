"""How good predictions are, in percent: IoU of label maps, panoptic quality of segments.

A score counts pictures one by one and merges with others that counted elsewhere. Everything it counted is in whole
numbers, in one plain array (`plain`): whatever the order of the pictures, and however they were divided, it comes to
the same figures, to the last bit.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from wordmask.data.labelled import UNLABELLED

WHOLE = 53  # an IoU above one half is a whole number of parts of 2**-53 …
LOW = 27  # … whose lower digits are summed apart: both sums stay exact for 2**36 segments

Classes = list[int] | Integer[np.ndarray, " K"] | Bool[np.ndarray, " T"]  # labels, or one truth value per class


@dataclass(frozen=True, eq=False)
class SemanticResult:
    """What a `SemanticScore` comes to, in percent; NaN for a class without a target pixel, which no mean counts."""

    iou: Float[np.ndarray, " T"]
    accuracy: Float[np.ndarray, " T"]
    mean_iou: float
    frequency_weighted_iou: float
    mean_accuracy: float
    pixel_accuracy: float

    def mean_iou_over(self, classes: Classes) -> float:
        """mIoU of some classes, such as those unseen in training; all classes still compete for the pixels."""
        return mean_of(self.iou[classes])


class SemanticScore:
    """Intersection over union of label maps, over one confusion matrix of all pictures.

    As detectron2's SemSegEvaluator @ 027099d; older ones (@ 9bd60d3) count classes that are predicted but never a
    target as 0 in mIoU.
    """

    def __init__(self, classes: int):
        # target, prediction; last: no class
        self.confusion: Int[np.ndarray, "T T+1"] = np.zeros((classes, classes + 1), np.int64)

    def update(
        self, predicted: Integer[np.ndarray, "H W"], target: Integer[np.ndarray, "H W"], *, ignore: int = UNLABELLED
    ) -> None:
        """Count a picture.

        Args:
            predicted: Labels; any that is no class misses the target's class, and is nobody's false positive.
            ignore: The target's value where pixels don't count.

        Raises:
            ValueError: The sizes differ, the target holds a label that is no class, or `ignore` is one.
        """
        classes, counted = len(self.confusion), target != ignore
        _check_sizes(predicted, target)
        if 0 <= ignore < classes:
            raise ValueError(
                f"ignore={ignore} is one of the {classes} classes; expected a value that is none, such as -1 or 65535."
            )
        true, guess = target[counted].astype(np.int64), predicted[counted].astype(np.int64)
        if len(true) and not 0 <= true.min() <= true.max() < classes:
            raise ValueError(
                f"The target's labels go from {true.min()} to {true.max()}; expected 0 to {classes - 1}, or {ignore}."
            )
        guess[(guess < 0) | (guess >= classes)] = classes
        pairs = np.bincount(true * (classes + 1) + guess, minlength=self.confusion.size)
        self.confusion += pairs.reshape(self.confusion.shape)

    def merge(self, other: "SemanticScore") -> None:
        """Add what another score, of as many classes, has counted."""
        if len(other.confusion) != len(self.confusion):
            raise ValueError(
                f"A score of {len(other.confusion)} classes came; expected {len(self.confusion)}, of the same data set."
            )
        self.confusion += other.confusion

    @property
    def plain(self) -> Int[np.ndarray, "T T+1"]:
        """All that was counted; it can be set."""
        return self.confusion

    @plain.setter
    def plain(self, counts: Int[np.ndarray, "T T+1"]) -> None:
        self.confusion = counts

    def compute(self) -> SemanticResult:
        """Read the counts so far; they stay."""
        both = self.confusion.diagonal()
        target, predicted = self.confusion.sum(axis=1), self.confusion[:, :-1].sum(axis=0)
        iou, accuracy = percent(both, target + predicted - both, target > 0), percent(both, target, target > 0)
        return SemanticResult(
            iou=iou,
            accuracy=accuracy,
            mean_iou=mean_of(iou),
            frequency_weighted_iou=mean_of(iou, target),
            mean_accuracy=mean_of(accuracy),
            pixel_accuracy=mean_of(accuracy, target),
        )


@dataclass(frozen=True)
class Quality:
    """Panoptic, segmentation and recognition quality in percent: means over `classes` classes; NaN over none."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True, eq=False)
class PanopticResult:
    """What a `PanopticScore` comes to: the qualities of each class in percent, NaN where it has no segment that
    counts."""

    pq: Float[np.ndarray, " T"]
    sq: Float[np.ndarray, " T"]
    rq: Float[np.ndarray, " T"]
    is_thing: Bool[np.ndarray, " T"]

    def over(self, classes: Classes) -> Quality:
        """The mean quality of some classes."""
        pq, sq, rq = self.pq[classes], self.sq[classes], self.rq[classes]
        return Quality(mean_of(pq), mean_of(sq), mean_of(rq), classes=int(np.count_nonzero(~np.isnan(pq))))

    @property
    def overall(self) -> Quality:
        return self.over(np.ones_like(self.is_thing))

    @property
    def things(self) -> Quality:
        return self.over(self.is_thing)

    @property
    def stuff(self) -> Quality:
        return self.over(~self.is_thing)


class PanopticScore:
    """Panoptic quality (Kirillov et al., CVPR 2019) of T classes, things or stuff, as the COCO panoptic API @ 1ad5afa
    counts it."""

    def __init__(self, things: Bool[np.ndarray, " T"]):
        self.is_thing = np.array(things, dtype=bool)
        # matched, missed, spurious; sum of IoU: high, low digits
        self.plain: Int[np.ndarray, "5 T"] = np.zeros((5, len(things)), np.int64)

    @property
    def counts(self) -> Float[np.ndarray, "4 T"]:
        """The sum of each class's IoU, and how many of its segments were matched, missed, spurious."""
        *_, high, low = self.plain.tolist()
        sums = [((upper << LOW) + lower) / (1 << WHOLE) for upper, lower in zip(high, low, strict=True)]
        return np.array([sums, *self.plain[:3].astype(float)])

    def update(
        self,
        predicted_segments: Integer[np.ndarray, "H W"],
        predicted_labels: Integer[np.ndarray, " M"],
        *,
        target_segments: Integer[np.ndarray, "H W"],
        target_labels: Integer[np.ndarray, " N"],
        target_crowd: Bool[np.ndarray, " N"],
    ) -> None:
        """Count a picture. Segment n of a map has entry n − 1 of its labels; 0 is nothing, in the target void.

        If a class has several crowds in a picture, only the last excuses predictions: the API remembers one per class.

        Raises:
            ValueError: Sizes differ, a map names a segment without label, a label is no class, or a predicted segment
                has no pixel.
        """
        guess, true = predicted_labels.astype(np.int64), target_labels.astype(np.int64)
        assert (target_crowd.dtype, len(target_crowd)) == (bool, len(true))
        _check_sizes(predicted_segments, target_segments)
        _check_segments("prediction", predicted_segments, guess, len(self.is_thing))
        _check_segments("target", target_segments, true, len(self.is_thing))
        shape = len(guess) + 1, len(true) + 1
        pairs = predicted_segments.astype(np.int64) * shape[1] + target_segments.astype(np.int64)
        overlap = np.bincount(pairs.ravel(), minlength=math.prod(shape)).reshape(shape)  # pixels, (M + 1, N + 1)
        if not overlap[1:].any(axis=1).all():
            raise ValueError("A segment of the prediction has no pixel. Leave out segments that others cover.")
        self._count(guess, true, target_crowd, overlap)

    def _count(
        self,
        guess: Int[np.ndarray, " M"],
        true: Int[np.ndarray, " N"],
        crowd: Bool[np.ndarray, " N"],
        overlap: Int[np.ndarray, "M+1 N+1"],
    ) -> None:
        area, shared = overlap[1:].sum(axis=1), overlap[1:, 1:]  # pixels
        excused = overlap[1:, 0].copy()  # those in the void
        union = (area - excused)[:, None] + overlap[:, 1:].sum(axis=0) - shared  # (M, N)
        # IoU > 0.5, so at most one in a row and in a column
        match = (guess[:, None] == true) & ~crowd & (2 * shared > union)
        last_crowd = {true[place]: place for place in np.flatnonzero(crowd)}
        for place, label in enumerate(guess):
            if label in last_crowd:
                excused[place] += shared[place, last_crowd[label]]
        found, iou = true[match.nonzero()[1]], shared[match] / union[match]
        missed, spurious = true[~match.any(axis=0) & ~crowd], guess[~match.any(axis=1) & (2 * excused <= area)]
        parts = np.ldexp(iou, WHOLE).astype(np.int64)
        for row, labels in enumerate((found, missed, spurious)):
            self.plain[row] += np.bincount(labels, minlength=len(self.is_thing))
        np.add.at(self.plain[3], found, parts >> LOW)
        np.add.at(self.plain[4], found, parts & ((1 << LOW) - 1))

    def merge(self, other: "PanopticScore") -> None:
        """Add what another score, of the same things, has counted."""
        if not np.array_equal(other.is_thing, self.is_thing):
            raise ValueError(
                "A score with other things or another number of classes came. Merge scores of one data set."
            )
        self.plain += other.plain

    def compute(self) -> PanopticResult:
        """Read the counts so far; they stay."""
        iou_sum, matched, missed, spurious = self.counts
        segments = matched + (missed + spurious) / 2
        pq, rq = percent(iou_sum, segments, segments > 0), percent(matched, segments, segments > 0)
        sq = percent(iou_sum, np.maximum(matched, 1), segments > 0)  # 0 without a match
        return PanopticResult(pq=pq, sq=sq, rq=rq, is_thing=self.is_thing)


def percent(part: np.ndarray, whole: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """100 · part / whole, and NaN where nothing is counted."""
    return np.divide(100 * part, whole, out=np.full(len(part), math.nan), where=counted)


def mean_of(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The mean of all that is not NaN; NaN if nothing is."""
    valid = ~np.isnan(values)
    if not valid.any():
        return math.nan
    return float(np.average(values[valid], weights=None if weights is None else weights[valid]))


def _check_sizes(predicted: np.ndarray, target: np.ndarray) -> None:
    if predicted.shape != target.shape:
        raise ValueError(
            f"The prediction is {predicted.shape}, its target {target.shape}; expected the same (height, width)."
        )


def _check_segments(whose: str, segments: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if segments.size and not 0 <= segments.min() <= segments.max() <= len(labels):
        raise ValueError(
            f"The {whose} has segments {segments.min()} to {segments.max()}, but {len(labels)} labels; "
            "expected one for each."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"The {whose}'s labels go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}.")
