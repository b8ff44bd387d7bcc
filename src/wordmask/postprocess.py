"""Raw tensors + Frame → one label per pixel, with its confidence and the runner-up."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wordmask.image import Frame

MAPS_AT_ONCE = 8  # class maps at full resolution: 10 MB at 480×640, 400 MB at 12 megapixels


class PixelReading(NamedTuple):
    """The best and second-best class of every pixel, and their probabilities; class -1 where there is no second."""

    best: Int[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    runner_up: Int[Tensor, "H W"]
    runner_up_confidence: Float[Tensor, "H W"]


def read_semantic(logits: Float[Tensor, "K h w"], kept: Int[Tensor, "K"], frame: Frame) -> PixelReading:
    """Bring the probabilities of the kept classes to the original picture and rank them at every pixel.

    Equal to the reference, which fills T maps with 0 for the classes not kept and takes the argmax; memory grows with neither T nor K.

    Args:
        logits: Of one picture; the sigmoid is the probability.
        kept: Their classes, ascending: of equal probabilities the first wins.
    """
    probs = logits.float().sigmoid()
    top = torch.full((2, *frame.original), -1.0, device=probs.device)
    owner = torch.full((2, *frame.original), -1, dtype=kept.dtype, device=probs.device)
    for start in range(0, len(probs), MAPS_AT_ONCE):
        maps = frame.restore(probs[start : start + MAPS_AT_ONCE])  # (k, H, W)
        chunk_top, place = _best_two(maps)
        top, choice = _best_two(torch.cat([top, chunk_top]))
        owner = torch.cat([owner, kept[start : start + MAPS_AT_ONCE][place]]).gather(0, choice)
    second = torch.where(top[1] < 0, -1, owner[1])
    return PixelReading(owner[0], top[0], second, top[1].clamp(min=0))


def _best_two(maps: Float[Tensor, "k H W"]) -> tuple[Float[Tensor, "2 H W"], Int[Tensor, "2 H W"]]:
    """The two largest of every pixel, the first of equals first; -2 stands in for a second where there is one map."""
    best, place = maps.max(dim=0, keepdim=True)
    rest, rest_place = maps.scatter(0, place, -2.0).max(dim=0, keepdim=True)
    return torch.cat([best, rest]), torch.cat([place, rest_place])
