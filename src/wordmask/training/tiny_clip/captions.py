"""How a CLIP learns Shapeland's words from nothing: pictures and captions are brought together, all others apart.

"Learning Transferable Visual Models From Natural Language Supervision", Radford et al., ICML 2021. Captions are also
compared with other captions of the same pictures: words whose pictures can't be told apart yet come to mean the same
otherwise (docs/log.md).
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from numpy.random import RandomState
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from wordmask import clip
from wordmask.data.shapeland import World, caption, draw_scene
from wordmask.data.shapeland.sets import FIRST
from wordmask.training.recipe import Batch, Example
from wordmask.training.tiny_clip.pair import ClipPair, pixels_of_scene


class Captions(NamedTuple):
    """Tokens of two captions of each picture, zero-padded."""

    tokens: Int[Tensor, "B L"]
    again: Int[Tensor, "B L2"]


class Captioned(Dataset[Example[list[list[int]]]]):
    """Scenes with the tokens of two captions, by number, without end.

    Args:
        worlds: From which number on scenes come from which world; the first from 0.
    """

    def __init__(self, worlds: list[tuple[int, World]]):
        self.worlds = worlds

    def __getitem__(self, number: int) -> Example[list[list[int]]]:
        world = [world for start, world in self.worlds if start <= number][-1]
        seed = FIRST["captions"] + number
        scene = draw_scene(seed, world)
        random = RandomState(seed)
        captions = clip.tokenize([caption(scene, random), caption(scene, random)])
        return Example(pixels_of_scene(scene.rgb), captions, f"Shapeland scene {seed}")


def pad_captions(examples: list[Example[list[list[int]]]]) -> Batch[Captions]:
    """Stack pictures; captions are padded to the longest."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    captions = Captions(
        pad([torch.tensor(example.target[0]) for example in examples]),
        pad([torch.tensor(example.target[1]) for example in examples]),
    )
    return Batch(
        torch.stack([example.pixels for example in examples]), captions, [example.source for example in examples]
    )


def contrastive_loss(model: ClipPair, part: Batch[Captions], whole: list[Batch[Captions]]) -> Float[Tensor, ""]:
    """Both image towers against captions, and captions against captions, over the pictures of all processes: the sum of
    the losses."""
    assert len(whole) == 1
    pixels = part.pixels.contiguous(memory_format=torch.channels_last)
    by_convnext = unit(clip.encode_picture(model.clip, pixels))
    by_vit = unit(clip.encode_by_vit(model.vit, pixels))
    captions = unit(clip.encode_tokens(model.clip, part.targets.tokens))
    again = unit(clip.encode_tokens(model.clip, part.targets.again))
    scale = model.clip.logit_scale.exp().clamp(max=100)
    loss = clip.contrastive_loss(by_convnext, captions, scale) + clip.contrastive_loss(by_vit, captions, scale)
    return loss + clip.contrastive_loss(again, captions, scale)


def unit(vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """The same of length 1, in full precision."""
    return F.normalize(vectors.float(), dim=-1)
