"""Maps of classes: which classes were kept and why, and their maps before and after aggregation."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from wordmask.explain.maps import about, as_array, competing, rounded
from wordmask.image import Frame
from wordmask.models.err_seg import RANK_VOTES, Features
from wordmask.preparing import stacked
from wordmask.raw import ClassMaps
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Look, Segmenter
from wordmask.writing import JsonObject


@dataclass(frozen=True, eq=False)
class ClassMapExplanation:
    """What a model that votes on cost maps (ERR-Seg) went by in a picture, T classes of which it kept K.

    Maps lie on the grid of the model's input; `wordmask.explain.maps.on_picture(maps, frame)` brings them to the
    picture.

    Args:
        result: The segmentation, as the segmenter returns it.
        frame: How maps get back to the picture.
        names: T, of the words, and of the background's classes after them, if they competed.
        votes: (T,) float32; every pixel of the x16 grid gives 1, 0.1 and 0.01 to its three best classes.
        peaks: (T,) float32, the highest cosine of the class with any of these pixels; of equal votes it decides.
        kept: (K,), classes in ascending order: the first axis of the maps.
        cost_x16: (K, h, w) float32 cosine of pixel and word, before aggregation.
        cost_x32: (K, h / 2, w / 2), likewise of the coarser map.
        probability: (K, 4h, 4w) float32, after aggregation and decoder.
    """

    result: Segmentation
    frame: Frame
    names: list[str]
    votes: np.ndarray
    peaks: np.ndarray
    kept: np.ndarray
    cost_x16: np.ndarray
    cost_x32: np.ndarray
    probability: np.ndarray

    @cached_property
    def order(self) -> np.ndarray:
        """(T,), classes as the vote ranks them; the first K are kept."""
        return np.lexsort((-self.peaks, -self.votes))

    @property
    def voters(self) -> int:
        """How many pixels voted."""
        return self.cost_x16[0].size

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of the picture that each word has in the result; what the background's classes win is unlabelled
        there."""
        areas = np.zeros(len(self.result.vocabulary))
        for region in self.result.regions:
            areas[region.label] = region.area
        return areas / self.result.labels.size

    def lost_words(self) -> list[int]:
        """The user's words that were not kept, the best first; the background's classes are left out."""
        return [label for label in self.order[len(self.kept) :].tolist() if label < len(self.result.vocabulary)]

    def to_dict(self) -> JsonObject:
        """The numbers in plain values, classes as the vote ranks them; without the maps."""
        kept = set(self.kept.tolist())
        votes, peaks = rounded(self.votes), rounded(self.peaks)
        shares = [*rounded(self.shares), *[None] * (len(self.names) - len(self.shares))]
        classes = [
            {
                "rank": rank,
                "class": label,
                "name": self.names[label],
                "kept": label in kept,
                "votes": votes[label],
                "peak_cosine": peaks[label],
                "share": shares[label],
            }
            for rank, label in enumerate(self.order.tolist(), 1)
        ]
        return about(self.result) | {"voters": self.voters, "votes_of_a_pixel": list(RANK_VOTES), "classes": classes}


@runtime_checkable
class VotesOnCosts(Protocol):
    """A model whose pixels vote on cost maps at x16 and x32, as ERR-Seg's do."""

    def encode_image(self, pixels: Tensor) -> Features: ...

    def vote(self, dense_x16: Tensor, text: Tensor) -> tuple[Tensor, Tensor]: ...

    def cost(self, pixels: Tensor, text: Tensor) -> Tensor: ...


def explain_class_maps(segmenter: Segmenter, look: Look, raw: ClassMaps) -> ClassMapExplanation:
    """See `wordmask.explain.answer.explain`.

    Raises:
        ValueError: The model keeps classes otherwise than by votes on cost maps.
    """
    model, text = segmenter.model, look.encoded.words.embeddings
    if not isinstance(model, VotesOnCosts):
        raise ValueError(f"What decides which classes are kept is not known for {model.family}: it can't be explained.")
    with torch.inference_mode(), segmenter.autocast():
        features = model.encode_image(stacked([look.picture.pixels], segmenter.device))
        votes, peaks = model.vote(features.dense_x16, text)
        cost_x16, cost_x32 = (model.cost(x, text[raw.kept]) for x in (features.dense_x16, features.dense_x32))
    result = segmenter.read(look)
    return ClassMapExplanation(
        result=result,
        frame=look.frame,
        names=[entry.name for entry in competing(result)],
        votes=as_array(votes[0]),
        peaks=as_array(peaks[0]),
        kept=as_array(raw.kept[0]),
        cost_x16=as_array(cost_x16[0]),
        cost_x32=as_array(cost_x32[0]),
        probability=as_array(raw.logits[0].float().sigmoid()),
    )
