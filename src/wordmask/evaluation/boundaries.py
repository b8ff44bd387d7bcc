"""How well outlines are found: boundary IoU of label maps (Cheng et al., CVPR 2021)."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from wordmask.data.labelled import UNLABELLED
from wordmask.evaluation.metrics import mean_of, percent

WIDTH = 0.02  # of a boundary, as a part of the picture's diagonal; the paper's for pictures of ADE20K's and COCO's size


@dataclass(frozen=True, eq=False)
class BoundaryResult:
    """What a `BoundaryScore` comes to, in percent; NaN for a class without a target pixel, which the mean doesn't
    count."""

    iou: Float[np.ndarray, " T"]
    mean_iou: float


class BoundaryScore:
    """IoU of the inner boundaries of T classes, over all pictures.

    A pixel belongs to the boundary of its class if another class, or the picture's edge, is at most d pixels away along
    both axes: what the paper's d erosions by a square of 3×3 take away. d is 2 % of the diagonal, at least 1.
    """

    def __init__(self, classes: int):
        # pixels in both boundaries, in the target's, in the other
        self.plain: Int[np.ndarray, "3 T"] = np.zeros((3, classes), np.int64)

    def update(
        self, predicted: Integer[np.ndarray, "H W"], target: Integer[np.ndarray, "H W"], *, ignore: int = UNLABELLED
    ) -> None:
        """Count a picture.

        Args:
            predicted: Labels; any that is no class has no boundary of its own.
            ignore: The target's value where pixels don't count; they bound classes, as the picture's edge does.

        Raises:
            ValueError: The sizes differ, or the target holds a label that is no class.
        """
        classes = self.plain.shape[1]
        if predicted.shape != target.shape:
            raise ValueError(
                f"The prediction is {predicted.shape}, its target {target.shape}; expected the same (height, width)."
            )
        counted = target != ignore
        if counted.any() and not 0 <= target[counted].min() <= target[counted].max() < classes:
            raise ValueError(f"The target holds labels beyond 0 to {classes - 1}, and {ignore}.")
        true = np.where(counted, target, classes).astype(np.int64)
        guess = np.where((predicted >= 0) & (predicted < classes), predicted, classes).astype(np.int64)
        guess = np.where(counted, guess, classes)
        edges_true, edges_guess = boundary(true) & counted, boundary(guess) & counted
        both = edges_true & edges_guess & (true == guess)
        for row, labels in enumerate((true[both], true[edges_true], guess[edges_guess])):
            self.plain[row] += np.bincount(labels, minlength=classes + 1)[:classes]

    def merge(self, other: "BoundaryScore") -> None:
        """Add what another score, of as many classes, has counted."""
        if other.plain.shape != self.plain.shape:
            raise ValueError(
                f"A score of {other.plain.shape[1]} classes came; expected {self.plain.shape[1]}, of the same data set."
            )
        self.plain += other.plain

    def compute(self) -> BoundaryResult:
        """Read the counts so far; they stay."""
        both, target, predicted = self.plain
        iou = percent(both, target + predicted - both, target > 0)
        return BoundaryResult(iou=iou, mean_iou=mean_of(iou))


def boundary(labels: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Which pixels belong to the boundary of their class, for all classes at once."""
    from scipy import ndimage

    width = max(1, round(WIDTH * math.hypot(*labels.shape)))
    padded = np.pad(labels, 1, constant_values=-1)
    side = 2 * width + 1
    lowest = ndimage.minimum_filter(padded, size=side, mode="nearest")
    highest = ndimage.maximum_filter(padded, size=side, mode="nearest")
    return (lowest != highest)[1:-1, 1:-1]
