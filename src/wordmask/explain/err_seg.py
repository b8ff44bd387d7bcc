"""ERR-Seg: which classes were kept and why, and their maps before and after aggregation."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wordmask.explain.maps import as_array, competing, rounded
from wordmask.image import Frame, Picture
from wordmask.models.err_seg import RANK_VOTES
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.watching import recorded


@dataclass(frozen=True, eq=False)
class ErrSegExplanation:
    """What ERR-Seg went by in a picture, T classes of which it kept K.

    Maps lie on the grid of the model's input; `wordmask.explain.maps.on_picture(maps, frame)` brings them to the
    picture.

    Args:
        result: The segmentation, as the segmenter gives it.
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

    def to_dict(self) -> dict[str, object]:
        """The numbers in plain values, classes as the vote ranks them; without the maps."""
        kept, columns = set(self.kept.tolist()), [rounded(values) for values in (self.votes, self.peaks, self.shares)]
        columns[2] += [None] * (len(self.names) - len(columns[2]))
        classes = [
            {"rank": rank, "class": label, "name": self.names[label], "kept": label in kept}
            | {name: column[label] for name, column in zip(("votes", "peak_cosine", "share"), columns, strict=True)}
            for rank, label in enumerate(self.order.tolist(), 1)
        ]
        result = self.result
        about = {"picture": result.source, "model": result.model, "task": result.task, "settings": result.settings}
        return about | {"voters": self.voters, "votes_of_a_pixel": list(RANK_VOTES), "classes": classes}


def explain_err_seg(
    segmenter: Segmenter, picture: Picture, words: object, settings: dict[str, object]
) -> ErrSegExplanation:
    """See `wordmask.explain.answer.explain`."""
    model = segmenter.model
    with recorded({"read": (segmenter, "_read"), "vote": (model, "vote"), "cost": (model, "cost")}) as calls:
        result = segmenter(picture, words, **settings)
    (read,), (vote,), (x16, x32) = calls["read"], calls["vote"], calls["cost"]  # as `ErrSeg.aggregate` orders them
    raw, number, frame = read.arguments
    votes, peaks = vote.result
    return ErrSegExplanation(
        result=result,
        frame=frame,
        names=[entry.name for entry in competing(result)],
        votes=as_array(votes[number]),
        peaks=as_array(peaks[number]),
        kept=as_array(raw.kept[number]),
        cost_x16=as_array(x16.result[number]),
        cost_x32=as_array(x32.result[number]),
        probability=as_array(raw.logits[number].float().sigmoid()),
    )
