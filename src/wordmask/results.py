"""What postprocessing read → the Segmentation that the user gets."""

import numpy as np

from wordmask.postprocess import Instances, PixelReading, Segments
from wordmask.raw import Reading
from wordmask.regions import (
    LEAST_SHOWN,
    Packed,
    find_instances,
    find_regions,
    find_segments,
    label_type,
    look_up,
    paint_instances,
    unlabelled_value,
)
from wordmask.segmentation import Origin, Segmentation


def result_of(reading: Reading, origin: Origin, *, per_pixel: bool = False) -> Segmentation:
    """Turn a reading into a result; with values per pixel where they were asked for and read."""
    if isinstance(reading, PixelReading):
        return semantic_result(reading, origin, per_pixel=per_pixel)
    if isinstance(reading, Segments):
        return panoptic_result(reading, origin)
    return instance_result(reading, origin)


def semantic_result(reading: PixelReading, origin: Origin, *, per_pixel: bool) -> Segmentation:
    """Turn a reading of every pixel into a result: pixels less probable than the threshold are unlabelled."""
    best, confidence, second, second_confidence = (tensor.cpu().numpy() for tensor in reading)
    vocabulary = origin.vocabulary
    labels, runner_up = as_labels(best, len(vocabulary)), as_labels(second, len(vocabulary))
    labels[~(confidence >= origin.settings.threshold)] = unlabelled_value(len(vocabulary))
    regions = find_regions(labels, vocabulary, confidence=confidence, runner_up=runner_up)
    if not per_pixel:
        return Segmentation(labels, regions, origin)
    return Segmentation(
        labels,
        regions,
        origin,
        confidence=confidence,
        runner_up=runner_up,
        runner_up_confidence=second_confidence,
    )


def panoptic_result(found: Segments, origin: Origin) -> Segmentation:
    """Turn panoptic segments into a result, with values per pixel where they were read."""
    vocabulary, ids = origin.vocabulary, found.ids.cpu().numpy()
    segments, regions = find_segments(
        ids,
        vocabulary,
        classes=found.classes,
        scores=found.scores,
        areas=found.areas,
        runners_up=found.runners_up,
    )
    labels = look_up(as_labels(np.array([-1, *found.classes]), len(vocabulary)), ids)
    if found.confidence is None:
        return Segmentation(labels, regions, origin, segments)
    confidence = found.confidence.cpu().numpy()
    return Segmentation(
        labels,
        regions,
        origin,
        segments,
        confidence=confidence,
        runner_up=look_up(as_labels(np.array([-1, *found.runners_up]), len(vocabulary)), ids),
        runner_up_confidence=confidence * look_up(np.array([0, *found.rival_shares], np.float32), ids),
    )


def instance_result(found: Instances, origin: Origin) -> Segmentation:
    """Turn instances into a result: those with a lower score than the threshold are left out."""
    vocabulary, size = origin.vocabulary, origin.picture.shape[:2]
    sure = sum(score >= origin.settings.threshold for score in found.scores)  # the best come first
    regions = find_instances(
        vocabulary,
        classes=found.classes[:sure],
        scores=found.scores[:sure],
        runners_up=found.runners_up[:sure],
        areas=found.areas[:sure],
        boxes=found.boxes[:sure],
        pixels=[Packed(found.bits[number], size[1]) for number in found.mask[:sure]],
    )
    segments = paint_instances([region for region in regions if region.score >= LEAST_SHOWN], size)
    labels = look_up(as_labels(np.array([-1, *(region.label for region in regions)]), len(vocabulary)), segments)
    return Segmentation(labels, regions, origin, segments)


def as_labels(classes: np.ndarray, words: int) -> np.ndarray:
    """Write class indices as labels: those beyond the user's words (distractors), and -1, become unlabelled."""
    labels = np.full(classes.shape, unlabelled_value(words), label_type(words))
    np.copyto(labels, classes, where=(classes >= 0) & (classes < words), casting="unsafe")
    return labels
