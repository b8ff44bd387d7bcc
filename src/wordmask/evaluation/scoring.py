"""What a model found in a picture, held against what is there: the scores of one split, which merge."""

from collections.abc import Mapping

import numpy as np

from wordmask.data.labelled import UNLABELLED, LabelledPicture
from wordmask.evaluation.average_precision import Instance, InstanceScore
from wordmask.evaluation.boundaries import BoundaryScore
from wordmask.evaluation.metrics import Classes, PanopticScore, SemanticScore
from wordmask.segmentation import Segmentation
from wordmask.vocabulary import Vocabulary

Score = SemanticScore | BoundaryScore | PanopticScore | InstanceScore


class Scores:
    """All scores that some tasks allow, over the pictures counted so far, which it remembers, with the time that each
    took.

    Args:
        tasks: `semantic`, `panoptic`, `instance`.
        vocabulary: Of the model's labels.
        folded: Labels from this on count as this one.
    """

    def __init__(self, tasks: tuple[str, ...], vocabulary: Vocabulary, folded: int | None = None):
        self.is_thing, self.folded = np.array([entry.thing for entry in vocabulary]), folded
        classes = len(vocabulary) if folded is None else folded + 1
        made = {
            "semantic": lambda: {"semantic": SemanticScore(classes), "boundary": BoundaryScore(classes)},
            "panoptic": lambda: {"panoptic": PanopticScore(self.is_thing)},
            "instance": lambda: {"instance": InstanceScore(classes)},
        }
        self.parts: dict[str, Score] = {name: score for task in tasks for name, score in made[task]().items()}
        self.pictures: list[int] = []
        self.seconds: list[float] = []

    def update(
        self, place: int, found: Mapping[str, Segmentation], labelled: LabelledPicture, *, seconds: float
    ) -> None:
        """Count a picture.

        Args:
            place: Of the picture in its data set.
            found: Of each task, what the model says.
            seconds: How long the model took.

        Raises:
            ValueError: The label doesn't fit the split's classes.
        """
        target = present(labelled)
        if "semantic" in found:
            labels = found["semantic"].labels.astype(np.int64)
            labels[labels == found["semantic"].unlabelled] = UNLABELLED
            if self.folded is not None:
                labels = np.minimum(labels, self.folded)
            self.parts["semantic"].update(labels, labelled.semantic)
            self.parts["boundary"].update(labels, labelled.semantic)
        if "panoptic" in found:
            self.parts["panoptic"].update(*segments_of(found["panoptic"]), **target)
        if "instance" in found:
            instances = [Instance(region.label, region.score, region.to_rle()) for region in found["instance"].regions]
            self.parts["instance"].update(place, instances, **only_things(target, self.is_thing))
        self.pictures.append(place)
        self.seconds.append(seconds)

    def merge(self, other: "Scores") -> None:
        """Add what another has counted, of other pictures of the same split."""
        assert not set(self.pictures) & set(other.pictures)
        for name, score in self.parts.items():
            score.merge(other.parts[name])
        self.pictures += other.pictures
        self.seconds += other.seconds

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as plain arrays."""
        own = {"pictures": np.array(self.pictures, np.int64), "seconds": np.array(self.seconds, np.float64)}
        return own | {name: score.plain for name, score in self.parts.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> "Scores":
        """Take over what `state` gave.

        Raises:
            ValueError: It is of other scores.
        """
        for name, score in self.parts.items():
            plain = state[name]
            if plain.dtype != score.plain.dtype or (name != "instance" and plain.shape != score.plain.shape):
                raise ValueError(f"A state of other scores came: {name} is {plain.dtype} of {plain.shape}.")
            score.plain = plain
        self.pictures, self.seconds = state["pictures"].tolist(), state["seconds"].tolist()
        return self


def present(labelled: LabelledPicture) -> dict[str, np.ndarray]:
    """The segments of a picture that have pixels, numbered anew, as scores take them: what is wholly covered can't be
    found."""
    there = np.bincount(labelled.segments.ravel(), minlength=len(labelled.labels) + 1)[1:] > 0
    whole = {"target_segments": labelled.segments, "target_labels": labelled.labels, "target_crowd": labelled.crowd}
    return only(whole, there)


def only_things(target: Mapping[str, np.ndarray], is_thing: np.ndarray) -> dict[str, np.ndarray]:
    """The things among segments, numbered anew."""
    return only(target, is_thing[target["target_labels"]])


def only(target: Mapping[str, np.ndarray], kept: Classes) -> dict[str, np.ndarray]:
    """Some of the segments, numbered anew from 1."""
    numbers = np.concatenate([[0], np.cumsum(kept) * kept])
    rest = {name: target[name][kept] for name in ("target_labels", "target_crowd")}
    return {"target_segments": numbers[target["target_segments"]], **rest}


def segments_of(found: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a panoptic result, which count from 1 without a gap, and the class of each."""
    return found.segments, np.array(
        [region.label for region in sorted(found.regions, key=lambda region: region.id)], np.int64
    )
