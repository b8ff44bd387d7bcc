"""What a model found in a picture, held against what is there: the scores of one split, which merge."""

from collections.abc import Collection, Mapping
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Int, Integer

from wordmask.data.labelled import UNLABELLED, LabelledPicture
from wordmask.evaluation.average_precision import Instance, InstanceScore
from wordmask.evaluation.boundaries import BoundaryScore
from wordmask.evaluation.metrics import Classes, PanopticScore, SemanticScore
from wordmask.segmentation import Segmentation
from wordmask.settings import Task
from wordmask.vocabulary import Vocabulary

Score = SemanticScore | BoundaryScore | PanopticScore | InstanceScore


class TargetSegments(TypedDict):
    """The segments of a labelled picture, as keyword arguments of scores; see `PanopticScore.update`."""

    target_segments: Integer[np.ndarray, "H W"]
    target_labels: Integer[np.ndarray, " N"]
    target_crowd: Bool[np.ndarray, " N"]


class Scores:
    """All scores that tasks allow, over the pictures counted so far, which it remembers, with the time that each took.

    Args:
        tasks: What the model does and the split's labels allow; `semantic`, which every model and split has, and
            perhaps `panoptic` and `instance`, which are None without.
        vocabulary: What the model's labels mean.
        folded: Labels from this on count as this one.
    """

    def __init__(self, tasks: Collection[Task], vocabulary: Vocabulary, folded: int | None = None):
        assert "semantic" in tasks, tasks
        self.is_thing, self.folded = np.array([entry.thing for entry in vocabulary]), folded
        classes = len(vocabulary) if folded is None else folded + 1
        self.semantic, self.boundary = SemanticScore(classes), BoundaryScore(classes)
        self.panoptic = PanopticScore(self.is_thing) if "panoptic" in tasks else None
        self.instance = InstanceScore(classes) if "instance" in tasks else None
        self.pictures: list[int] = []
        self.seconds: list[float] = []

    def update(
        self, place: int, found: Mapping[Task, Segmentation], labelled: LabelledPicture, *, seconds: float
    ) -> None:
        """Count a picture.

        Args:
            place: The picture's, in its data set.
            found: What the model says, by task.
            seconds: How long the model took.

        Raises:
            ValueError: The label doesn't fit the split's classes.
        """
        target = present(labelled)
        labels = labels_of(found["semantic"], self.folded)
        self.semantic.update(labels, labelled.semantic)
        self.boundary.update(labels, labelled.semantic)
        if self.panoptic is not None:
            self.panoptic.update(*segments_of(found["panoptic"]), **target)
        if self.instance is not None:
            self.instance.update(place, instances_of(found["instance"]), **only_things(target, self.is_thing))
        self.pictures.append(place)
        self.seconds.append(seconds)

    def merge(self, other: "Scores") -> None:
        """Add what another has counted, of other pictures of the same split."""
        assert not set(self.pictures) & set(other.pictures)
        self.semantic.merge(other.semantic)
        self.boundary.merge(other.boundary)
        if self.panoptic is not None and other.panoptic is not None:
            self.panoptic.merge(other.panoptic)
        if self.instance is not None and other.instance is not None:
            self.instance.merge(other.instance)
        self.pictures += other.pictures
        self.seconds += other.seconds

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as plain arrays."""
        own = {"pictures": np.array(self.pictures, np.int64), "seconds": np.array(self.seconds, np.float64)}
        return own | {name: score.plain for name, score in self._by_name().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> "Scores":
        """Take over what `state` returned.

        Raises:
            ValueError: It is of other scores.
        """
        for name, score in self._by_name().items():
            plain = state[name]
            if plain.dtype != score.plain.dtype or (name != "instance" and plain.shape != score.plain.shape):
                raise ValueError(f"A state of other scores came: {name} is {plain.dtype} of {plain.shape}.")
            score.plain = plain
        self.pictures, self.seconds = state["pictures"].tolist(), state["seconds"].tolist()
        return self

    def _by_name(self) -> dict[str, Score]:
        scores = {
            "semantic": self.semantic,
            "boundary": self.boundary,
            "panoptic": self.panoptic,
            "instance": self.instance,
        }
        return {name: score for name, score in scores.items() if score is not None}


def labels_of(found: Segmentation, folded: int | None) -> Int[np.ndarray, "H W"]:
    """The label of each pixel of a semantic result, `UNLABELLED` where no word fits; labels from `folded` on count as
    this one."""
    labels = found.labels.astype(np.int64)
    labels[labels == found.unlabelled] = UNLABELLED
    return labels if folded is None else np.minimum(labels, folded)


def present(labelled: LabelledPicture) -> TargetSegments:
    """The segments of a picture that have pixels, numbered anew, as scores take them: what is wholly covered can't be
    found."""
    there = np.bincount(labelled.segments.ravel(), minlength=len(labelled.labels) + 1)[1:] > 0
    return only(
        TargetSegments(target_segments=labelled.segments, target_labels=labelled.labels, target_crowd=labelled.crowd),
        there,
    )


def only_things(target: TargetSegments, is_thing: np.ndarray) -> TargetSegments:
    """The things among segments, numbered anew."""
    return only(target, is_thing[target["target_labels"]])


def only(target: TargetSegments, kept: Classes) -> TargetSegments:
    """The segments that are kept, numbered anew from 1."""
    numbers = np.concatenate([[0], np.cumsum(kept) * kept])
    return TargetSegments(
        target_segments=numbers[target["target_segments"]],
        target_labels=target["target_labels"][kept],
        target_crowd=target["target_crowd"][kept],
    )


def instances_of(found: Segmentation) -> list[Instance]:
    """The regions of an instance result as scores take them."""
    return [Instance(region.label, region.score, region.to_rle()) for region in found.regions]


def segments_of(found: Segmentation) -> tuple[Integer[np.ndarray, "H W"], Int[np.ndarray, " N"]]:
    """The ids of a panoptic result, which count from 1 without a gap, and the class of each."""
    assert found.segments is not None, found.task
    regions = sorted(found.regions, key=lambda region: region.id)
    return found.segments, np.array([region.label for region in regions], np.int64)
