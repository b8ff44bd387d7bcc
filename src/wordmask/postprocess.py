"""Raw tensors + Frame → one label per pixel, with its confidence and the runner-up."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wordmask.image import Frame


class PixelReading(NamedTuple):
    """The best and second-best class of every pixel, and their probabilities; class -1 where there is no second."""

    best: Int[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    runner_up: Int[Tensor, "H W"]
    runner_up_confidence: Float[Tensor, "H W"]


def read_semantic(logits: Float[Tensor, "K h w"], kept: Int[Tensor, " K"], frame: Frame) -> PixelReading:
    """Bring the probabilities of the kept classes to the original picture and rank them at every pixel.

    Equal to the reference, which fills T maps with 0 for the classes not kept and takes the argmax. The picture is read in strips: memory
    grows with neither T nor K.

    Args:
        logits: Of one picture; the sigmoid is the probability.
        kept: Their classes, ascending: of equal probabilities the first wins.
    """
    classes = kept.int()
    strips = [_best_two(maps, classes) for maps in frame.restore_strips(logits.float().sigmoid())]
    return PixelReading(*(torch.cat(parts) for parts in zip(*strips, strict=True)))


def _best_two(maps: Float[Tensor, "K s W"], classes: Int[Tensor, " K"]) -> PixelReading:
    """Rank the classes at the pixels of a strip; the first of equals comes first."""
    best, place = maps.max(dim=0)
    second, second_place = maps.scatter(0, place[None], -1.0).max(dim=0)
    runner_up = classes[second_place] if len(maps) > 1 else torch.full_like(classes[place], -1)
    return PixelReading(classes[place], best, runner_up, second.clamp(min=0))
