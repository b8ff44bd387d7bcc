"""What models emit, and how it is read: everything after a model asks what came out, never which family it was.

Two kinds: maps of classes, and masks of queries. A reading is of one picture of a batch, on its own pixels.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wordmask.image import Frame
from wordmask.postprocess import (
    Instances,
    PixelReading,
    Segments,
    read_instances,
    read_panoptic,
    read_query_semantic,
    read_semantic,
)
from wordmask.settings import ChosenSettings
from wordmask.tiles import ClassTile, QueryTile

Reading = PixelReading | Segments | Instances


class ClassMaps(NamedTuple):
    """Logit maps of K kept classes (their probability is the sigmoid), which ones, ascending, and each class's votes.

    A model that looks at all classes keeps all. Votes are what kept them: their unit is the model's own.
    """

    logits: Float[Tensor, "B K h w"]
    kept: Int[Tensor, "B K"]
    votes: Float[Tensor, "B T"]


class QueryMasks(NamedTuple):
    """The logarithms of each query's class probabilities, void last, and its mask; and what led to them.

    Args:
        class_logits: By which results are read.
        mask_logits: On the model's grid; the sigmoid is the probability.
        layer_class_logits: What each layer said, before it was blended with CLIP's opinion. Outside training there may
            be the last layer alone.
        layer_mask_logits: Likewise.
        clip_class_logits: What CLIP itself says of each region, void last; None in training, or if it isn't asked.
    """

    class_logits: Float[Tensor, "B Q T1"]
    mask_logits: Float[Tensor, "B Q h w"]
    layer_class_logits: Float[Tensor, "L B Q T1"]
    layer_mask_logits: Float[Tensor, "L B Q h w"]
    clip_class_logits: Float[Tensor, "B Q T1"] | None = None


RawOutput = ClassMaps | QueryMasks


def read(
    raw: RawOutput,
    number: int,
    frame: Frame,
    chosen: ChosenSettings,
    *,
    things: Bool[Tensor, " T"],
    per_pixel: bool = False,
) -> Reading:
    """Read what came out for one picture of a batch, for the task that was chosen.

    Args:
        number: The place of the picture in its batch.
        things: Which of all competing classes are counted.
        per_pixel: Also read the confidence of every pixel of panoptic segments.

    Raises:
        ValueError: What came out holds what is no number.
    """
    check_numbers(raw, number)
    if isinstance(raw, ClassMaps):
        return read_semantic(raw.logits[number], raw.kept[number], frame)
    masks = raw.class_logits[number], raw.mask_logits[number]
    if chosen.task == "semantic":
        return read_query_semantic(*masks, frame)
    if chosen.task == "instance":
        return read_instances(*masks, things=things, frame=frame, most=chosen.most)
    limits = {"threshold": chosen.threshold, "overlap": chosen.overlap}
    return read_panoptic(*masks, things=things, frame=frame, per_pixel=per_pixel, **limits)


def read_tile(raw: RawOutput, number: int, frame: Frame) -> ClassTile | QueryTile:
    """Take what came out for one tile of a large picture, so that `tiles.read_tiles` can blend it with its neighbours.

    Args:
        number: The place of the tile in its batch.

    Raises:
        ValueError: What came out holds what is no number.
    """
    check_numbers(raw, number)
    if isinstance(raw, ClassMaps):
        return ClassTile(raw.logits[number].float().sigmoid(), raw.kept[number], frame)
    probs = raw.class_logits[number].float().softmax(dim=-1)[:, :-1]
    return QueryTile(raw.mask_logits[number].float(), probs, frame)


def check_numbers(raw: RawOutput, number: int) -> None:
    """Raise a ValueError if what came out for one picture holds what is no number, or infinite: nothing can be read of
    it. Of class logits some may be -inf, which is a probability of 0."""
    if isinstance(raw, ClassMaps):
        maps = raw.logits[number]
        fine = maps.sum(dtype=torch.float32).isfinite()
    else:
        classes, maps = raw.class_logits[number], raw.mask_logits[number]
        fine = maps.sum(dtype=torch.float32).isfinite() & (classes.amax(dim=-1).isfinite().all())
    if not fine:
        raise ValueError(
            "What the model emitted for this picture holds values that are no numbers (nan or infinite), so that "
            "nothing can be read of it. In half precision, try precision='float32'; else the checkpoint is damaged."
        )
