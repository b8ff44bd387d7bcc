"""What postprocessing read → the Segmentation that the user gets."""

import numpy as np

from wordmask.postprocess import Instances, PixelReading, Segments
from wordmask.regions import Packed, find_instances, find_regions, find_segments, look_up, paint_instances
from wordmask.segmentation import LEAST_SHOWN, Segmentation, label_type, unlabelled_value


def semantic_result(reading: PixelReading, origin: dict, *, per_pixel: bool) -> Segmentation:
    """Turn a reading of every pixel into a result."""
    best, confidence, second, second_confidence = (tensor.cpu().numpy() for tensor in reading)
    vocabulary = origin["vocabulary"]
    labels, runner_up = as_labels(best, len(vocabulary)), as_labels(second, len(vocabulary))
    labels[confidence < origin["settings"]["threshold"]] = unlabelled_value(len(vocabulary))
    regions = find_regions(labels, vocabulary, confidence=confidence, runner_up=runner_up)
    details = (
        {"confidence": confidence, "runner_up": runner_up, "runner_up_confidence": second_confidence}
        if per_pixel
        else {}
    )
    return Segmentation(labels=labels, regions=regions, **origin, **details)


def panoptic_result(found: Segments, origin: dict) -> Segmentation:
    """Turn panoptic segments into a result, with values per pixel where they were read."""
    vocabulary, ids = origin["vocabulary"], found.ids.cpu().numpy()
    lists = {name: getattr(found, name) for name in ("classes", "scores", "areas", "runners_up")}
    segments, regions = find_segments(ids, vocabulary, **lists)
    labels = look_up(as_labels(np.array([-1, *found.classes]), len(vocabulary)), ids)
    details = {}
    if found.confidence is not None:
        confidence = found.confidence.cpu().numpy()
        shares = look_up(np.array([0, *found.rival_shares], np.float32), ids)
        runner_up = look_up(as_labels(np.array([-1, *found.runners_up]), len(vocabulary)), ids)
        details = {"confidence": confidence, "runner_up": runner_up, "runner_up_confidence": confidence * shares}
    return Segmentation(labels=labels, regions=regions, segments=segments, **origin, **details)


def instance_result(found: Instances, origin: dict) -> Segmentation:
    """Turn instances into a result."""
    vocabulary, size = origin["vocabulary"], origin["picture"].shape[:2]
    sure = sum(score >= origin["settings"]["threshold"] for score in found.scores)  # the best come first
    masks = [Packed(found.bits[number], size[1]) for number in found.mask[:sure]]
    lists = {name: getattr(found, name)[:sure] for name in ("classes", "scores", "runners_up", "areas", "boxes")}
    regions = find_instances(vocabulary, **lists, pixels=masks)
    segments = paint_instances([region for region in regions if region.score >= LEAST_SHOWN], size)
    labels = look_up(as_labels(np.array([-1, *(region.label for region in regions)]), len(vocabulary)), segments)
    return Segmentation(labels=labels, regions=regions, segments=segments, **origin)


def as_labels(classes: np.ndarray, words: int) -> np.ndarray:
    """Write class indices as labels: those beyond the user's words (distractors), and -1, become unlabelled."""
    labels = np.full(classes.shape, unlabelled_value(words), label_type(words))
    np.copyto(labels, classes, where=(classes >= 0) & (classes < words), casting="unsafe")
    return labels
