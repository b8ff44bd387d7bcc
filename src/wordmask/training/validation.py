"""What a training looks at now and then: scores on pictures it never learned from, and the pictures themselves."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wordmask.data.labelled import DataSet, LabelledPicture
from wordmask.drawing import lay_out
from wordmask.evaluation.average_precision import InstanceScore
from wordmask.evaluation.metrics import PanopticScore, SemanticScore, mean_of
from wordmask.evaluation.scoring import instances_of, only_things, present, segments_of
from wordmask.models import Model
from wordmask.regions import find_regions, find_segments, unlabelled_value
from wordmask.results import as_labels
from wordmask.segmentation import Origin, Segmentation
from wordmask.segmenter import Segmenter
from wordmask.settings import Task, of_known_labels
from wordmask.vocabulary import Vocabulary
from wordmask.writing import atomic

DRAWN = 6  # pictures per validation


def validate(
    model: Model,
    data: DataSet,
    folder: Path | None = None,
    *,
    unseen: np.ndarray | None = None,
    instances: bool = False,
) -> dict[str, float]:
    """Segment every picture of a data set by its vocabulary and score the result, in percent.

    Args:
        data: Labelled pictures that the model never learned from.
        folder: Where the first predictions are drawn, beside the truth; None: nowhere.
        unseen: (T,) bool: classes never labelled in training, which are scored apart.
        instances: Whether each thing has a segment of its own, so that they can be counted one by one.

    Returns:
        `mIoU`; before it `PQ`, of models that tell segments apart, and with `instances` after it their `AP`. With
        `unseen` also `… seen` and `… unseen`.
    """
    scores = ValidationScores(Segmenter(model), data.vocabulary, instances=instances)
    for place, labelled in enumerate(pictures_of(data)):
        found = scores.add(labelled)
        if folder is not None and place < DRAWN:
            draw_beside_truth(found[scores.task], labelled, folder / f"{place}.png")
    return scores.compute(unseen)


class ValidationScores:
    """What a segmenter makes of labelled pictures: mIoU, and first PQ where it tells segments apart."""

    def __init__(self, segmenter: Segmenter, vocabulary: Vocabulary, *, instances: bool = False):
        self.segmenter, self.vocabulary = segmenter, vocabulary
        self.task: Task = segmenter.model.tasks[0]
        self.is_thing = np.array([entry.thing for entry in vocabulary])
        self.semantic = SemanticScore(len(vocabulary))
        self.panoptic = PanopticScore(self.is_thing)
        counts_instances = instances and "instance" in segmenter.model.tasks and bool(self.is_thing.any())
        self.instance = InstanceScore(len(vocabulary)) if counts_instances else None
        self.pictures = 0

    def add(self, labelled: LabelledPicture) -> dict[Task, Segmentation]:
        """Segment one more picture; return what was found, by task."""
        tasks: set[Task] = {"semantic", self.task}
        if self.instance is not None:
            tasks.add("instance")
        found, target = self.segmenter.readings(labelled.rgb, self.vocabulary, tasks), present(labelled)
        self.semantic.update(found["semantic"].labels, labelled.semantic)
        if self.task == "panoptic":
            self.panoptic.update(*segments_of(found["panoptic"]), **target)
        if self.instance is not None:
            self.instance.update(self.pictures, instances_of(found["instance"]), **only_things(target, self.is_thing))
        self.pictures += 1
        return found

    def compute(self, unseen: np.ndarray | None = None) -> dict[str, float]:
        """The scores of all pictures so far, in percent; see `validate`."""
        by_class = {"PQ": self.panoptic.compute().pq} if self.task == "panoptic" else {}
        by_class["mIoU"] = self.semantic.compute().iou
        if self.instance is not None:
            by_class["AP"] = self.instance.compute().ap
        return summary(by_class, unseen)


class Subset:
    """Pictures of a data set, by their places: a data set of its own."""

    def __init__(self, data: DataSet, places: Sequence[int]):
        self.data, self.places, self.vocabulary = data, places, data.vocabulary

    @classmethod
    def spread(cls, data: DataSet, most: int) -> "Subset":
        """At most so many pictures, evenly spread over all."""
        count = min(most, len(data))
        return cls(data, [number * len(data) // count for number in range(count)])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> LabelledPicture:
        return self.data[self.places[place]]

    def files(self, place: int) -> tuple[Path, ...]:
        """See `DataSet.files`."""
        return self.data.files(self.places[place])

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`: of all pictures."""
        self.data.check(thorough=thorough)


def pictures_of(data: DataSet) -> Iterator[LabelledPicture]:
    """Go through a data set once."""
    return (data[place] for place in range(len(data)))


def summary(by_class: dict[str, np.ndarray], unseen: np.ndarray | None) -> dict[str, float]:
    """Mean over all classes that have a score, over those seen in training, and over the others."""
    scores = {name: mean_of(values) for name, values in by_class.items()}
    if unseen is not None:
        for name, values in by_class.items():
            scores |= {f"{name} seen": mean_of(values[~unseen]), f"{name} unseen": mean_of(values[unseen])}
    return scores


def draw_beside_truth(result: Segmentation, labelled: LabelledPicture, path: Path) -> None:
    """Draw what was found, and beside it what is there."""
    truth = truth_of(labelled, result.vocabulary, result.task)
    with atomic(path) as temporary:
        lay_out([[result.draw(), truth.draw()]], ["found", "true"]).save(temporary)


def truth_of(labelled: LabelledPicture, vocabulary: Vocabulary, task: Task) -> Segmentation:
    """The label of a picture as a perfect model would return it: by segments, or by classes."""
    origin = Origin(labelled.rgb, vocabulary, of_known_labels(task), "the truth")
    labels = as_labels(labelled.semantic, len(vocabulary))
    if task != "panoptic":
        sure, nothing = np.ones(labels.shape, dtype=np.float32), np.full_like(labels, unlabelled_value(len(vocabulary)))
        return Segmentation(labels, find_regions(labels, vocabulary, confidence=sure, runner_up=nothing), origin)
    target = present(labelled)
    ids, classes = target["target_segments"], target["target_labels"].tolist()
    segments, regions = find_segments(
        ids,
        vocabulary,
        classes=classes,
        scores=[1.0] * len(classes),
        areas=np.bincount(ids.ravel(), minlength=len(classes) + 1)[1:].tolist(),
        runners_up=[-1] * len(classes),
    )
    return Segmentation(labels, regions, origin, segments)
