"""What a model learns from labelled pictures: what its loss reads of them, the loss, and the papers' numbers.

There are two: maps of classes, as ERR-Seg emits, and masks with a class each, as EOV-Seg does. Rows of
`wordmask.models.MODELS` name theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wordmask.data.labelled import UNLABELLED, LabelledPicture
from wordmask.models import MODELS, Model, err_seg
from wordmask.raw import ClassMaps, QueryMasks
from wordmask.text import Encoder, Words, encode_vocabulary
from wordmask.training.optimiser import ParameterGroup, matrices_by_muon, parameter_groups
from wordmask.training.recipe import Batch
from wordmask.training.set_loss import POINTS, Target, mean_count, set_loss
from wordmask.vocabulary import Vocabulary

Loss = Callable[[Model, Batch, list[Batch]], Float[Tensor, ""]]
KEPT = 32  # classes refined in training; ERR-Seg's reference, SAMPLE_CLASSES_NUM


@dataclass(frozen=True)
class Objective:
    """What a model learns, and how fast.

    Args:
        name: What rows of `wordmask.models.MODELS` call it.
        target: What the loss reads of a picture.
        loss: (the data's vocabulary, model) → the loss, as a recipe has it.
        clip_factor: Of the rate, for CLIP's weights.
        weight_decay: Of all weights but those of norms and embeddings.
        gradient_norm: The gradient is scaled down to this norm where it is larger; None: never.
        muon: Matrices follow Muon, at so many times the rate; None: AdamW updates all, as in the papers.
    """

    name: str
    target: Callable[[LabelledPicture], object]
    loss: Callable[[Vocabulary, Model], Loss]
    clip_factor: float
    weight_decay: float
    gradient_norm: float | None = None
    muon: float | None = None

    def groups(self, model: Model, rate: float) -> list[ParameterGroup]:
        """The parameters that learn, in groups for an optimiser."""
        groups = parameter_groups(model, rate=rate, clip_factor=self.clip_factor, weight_decay=self.weight_decay)
        return groups if self.muon is None else matrices_by_muon(groups, self.muon)


def objective_of(family: str) -> Objective:
    """What models of a family learn, with their paper's numbers.

    Raises:
        ValueError: It is not known.
    """
    return OBJECTIVES[objective_name(family)]()


def objective_name(family: str) -> str:
    """What models of a family learn: a name in `OBJECTIVES`.

    Raises:
        ValueError: It is not known.
    """
    named = MODELS[family].objective if family in MODELS else None
    if named not in OBJECTIVES:
        raise ValueError(
            f"The objective is not known for {family}: its row in wordmask.models.MODELS says {named!r}; "
            f"expected {' or '.join(OBJECTIVES)}."
        )
    return named


# Maps of classes ------------------------------------------------------------------------------------------------------


def semantic(
    *, most: int | None = None, keep: int = KEPT, clip_factor: float = 0.01, muon: float | None = None
) -> Objective:
    """The class of each pixel, as ERR-Seg learns it: decay 1e-4, none on norms; CLIP's weights ×0.01 (paper, section
    4.1).

    Args:
        most: See `SemanticLoss`.
        keep: Likewise.
        clip_factor: See `Objective`.
        muon: Likewise.
    """

    def loss(vocabulary: Vocabulary, _: Model) -> Loss:
        return SemanticLoss(vocabulary, most, keep)

    return Objective("semantic", semantic_target, loss, clip_factor=clip_factor, weight_decay=1e-4, muon=muon)


def semantic_target(labelled: LabelledPicture) -> Int[Tensor, "H W"]:
    """The class of each pixel, or `UNLABELLED`."""
    return torch.from_numpy(labelled.semantic)


class SemanticLoss:
    """The loss of maps of classes. The text tower learns too, so that the words are encoded anew for each part.

    Args:
        most: At most so many classes take part, those of the pictures and others at random. None: all, as in the paper.
        keep: Of those, how many are refined, by models that choose; those of the pictures first.
    """

    def __init__(self, vocabulary: Vocabulary, most: int | None = None, keep: int = KEPT):
        self.names = vocabulary.names
        self.most, self.keep = most, keep

    def __call__(self, model: Model, part: Batch[Tensor], whole: list[Batch[Tensor]]) -> Float[Tensor, ""]:
        chosen, target = self.choose(part.targets)
        text = model.encode_text([self.names[label] for label in chosen.tolist()])
        owner = torch.arange(len(chosen), device=text.device)
        words = Words(text, owner, torch.ones_like(owner, dtype=torch.bool))
        if model.keep_steps:
            raw = model(part.pixels, words, keep=self.keep, present=present(target, len(chosen)))
        else:
            raw = model(part.pixels, words)
        assert isinstance(raw, ClassMaps)
        return err_seg.loss(raw, target, ignore=UNLABELLED)

    def choose(self, target: Int[Tensor, "B H W"]) -> tuple[Int[Tensor, " C"], Int[Tensor, "B H W"]]:
        """Choose the classes that take part; return them, ascending, and the target in their numbers."""
        every = torch.arange(len(self.names), device=target.device)
        if self.most is None or self.most >= len(every):
            return every, target
        return choose_among(target, len(self.names), self.most)


def present(target: Int[Tensor, "B H W"], classes: int) -> Bool[Tensor, "B T"]:
    """Which classes a target holds."""
    there = torch.zeros(len(target), classes + 1, dtype=torch.bool, device=target.device)
    return there.scatter(1, torch.where(target < 0, classes, target).flatten(1), True)[:, :classes]


# Masks ----------------------------------------------------------------------------------------------------------------


def masks(
    *,
    points: int = POINTS,
    most: int | None = None,
    gradient_norm: float | None = 0.01,
    muon: float | None = None,
) -> Objective:
    """Masks with a class each, as EOV-Seg learns them: decay 0.05, none on norms and embeddings, as Mask2Former; the
    gradient's norm at most 0.01.

    Args:
        points: See `MaskLoss`.
        most: Likewise.
        gradient_norm: See `Objective`.
        muon: Likewise.
    """

    def loss(vocabulary: Vocabulary, model: Model) -> Loss:
        return MaskLoss(vocabulary, model.encode_text, points, most)

    return Objective(
        "masks", mask_target, loss, clip_factor=1.0, weight_decay=0.05, gradient_norm=gradient_norm, muon=muon
    )


def mask_target(labelled: LabelledPicture) -> Target:
    """The masks of all segments that can be seen and are no crowd."""
    counted = np.bincount(labelled.segments.ravel(), minlength=len(labelled.labels) + 1)[1:]
    kept = np.flatnonzero((counted > 0) & ~labelled.crowd)
    covered = labelled.segments[None] == (kept + 1)[:, None, None]
    return Target(torch.from_numpy(labelled.labels[kept].astype(np.int64)), torch.from_numpy(covered))


class MaskLoss:
    """The set loss of masks. The text tower is frozen: the words are encoded once.

    Args:
        encode: Phrases → unit vectors.
        points: At which masks are compared.
        most: At most so many classes take part, those of the pictures and others at random. None: all, as in the paper.
    """

    def __init__(self, vocabulary: Vocabulary, encode: Encoder, points: int = POINTS, most: int | None = None):
        self.vocabulary, self.encode, self.points, self.most = vocabulary, encode, points, most

    @cached_property
    @torch.no_grad()
    def words(self) -> Words:
        return encode_vocabulary(self.vocabulary, "each", self.encode)

    def __call__(self, model: Model, part: Batch[list[Target]], whole: list[Batch[list[Target]]]) -> Float[Tensor, ""]:
        with torch.autocast(part.pixels.device.type, enabled=False):  # they are the same for the whole training
            words = Words(*(tensor.to(part.pixels.device) for tensor in self.words))
        words, targets = self.choose(words, part.targets)
        count = mean_count([target for one in whole for target in one.targets], part.pixels, parts=len(whole))
        raw = model(part.pixels, words)
        assert isinstance(raw, QueryMasks)
        return set_loss(raw, targets, count=count, points=self.points)

    def choose(self, words: Words, targets: list[Target]) -> tuple[Words, list[Target]]:
        """Choose the classes that take part; return their words, and the targets in their numbers."""
        if self.most is None or self.most >= len(words.seen):
            return words, targets
        counts = [len(target.labels) for target in targets]
        chosen, labels = choose_among(torch.cat([target.labels for target in targets]), len(words.seen), self.most)
        taken = torch.isin(words.owner, chosen)
        fewer = Words(words.embeddings[taken], torch.searchsorted(chosen, words.owner[taken]), words.seen[chosen])
        return fewer, [target._replace(labels=part) for target, part in zip(targets, labels.split(counts), strict=True)]


OBJECTIVES: dict[str, Callable[[], Objective]] = {"semantic": semantic, "masks": masks}


def choose_among(labels: Int[Tensor, "..."], classes: int, most: int) -> tuple[Int[Tensor, " C"], Int[Tensor, "..."]]:
    """Choose the classes that labels hold, and others at random up to `most`; return them, ascending, and the labels in
    their numbers.

    Negative labels are none, and stay −1.
    """
    every = torch.arange(classes, device=labels.device)
    there = labels[labels >= 0].unique()
    rest = every[torch.isin(every, there, invert=True)]
    others = rest[torch.randperm(len(rest), device=labels.device)[: max(0, most - len(there))]]
    chosen = torch.cat([there, others]).sort().values
    return chosen, torch.where(labels >= 0, torch.searchsorted(chosen, labels.clamp(min=0)), -1)
