"""How ERR-Seg and EOV-Seg learn from labelled pictures: examples, words, losses, and the two recipes that the files in
recipes/ fill in."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from wordmask import weights
from wordmask.data.labelled import UNLABELLED, DataSet, LabelledPicture
from wordmask.image import MEAN, STD
from wordmask.models import err_seg
from wordmask.text import Words, encode_vocabulary
from wordmask.training.optimiser import matrices_by_muon
from wordmask.training.recipe import Batch, Example, Recipe, Settings, parameter_groups
from wordmask.training.set_loss import POINTS, Target, mean_count, set_loss
from wordmask.vocabulary import Vocabulary

Augmentation = Callable[[LabelledPicture, np.random.Generator], LabelledPicture]
ERR_SEG_NUMBERS = {"clip_factor": 0.01, "weight_decay": 1e-4}  # paper, section 4.1
KEPT = 32  # classes refined in training; reference SAMPLE_CLASSES_NUM
EOV_SEG_NUMBERS = {"clip_factor": 1.0, "weight_decay": 0.05}  # Mask2Former's, as the paper says
EOV_SEG_GRADIENT_NORM = 0.01


class Examples(Dataset):
    """Augmented pictures by number, without end: number n is picture n of the epochs' permutations, augmented by
    randomness of its own.

    Args:
        target: What the loss reads, from the augmented picture.
        shuffle: Permute each epoch; generated pictures need not.
    """

    def __init__(
        self,
        data: DataSet,
        augment: Augmentation,
        target: Callable[[LabelledPicture], object],
        *,
        seed: int,
        shuffle: bool = True,
    ):
        self.data, self.augment, self.target, self.seed, self.shuffle = data, augment, target, seed, shuffle
        self.order: tuple[int, np.ndarray | None] = (-1, None)

    def __getitem__(self, number: int) -> Example:
        labelled = self.augment(self.data[self._place(number)], np.random.default_rng([self.seed, 1, number]))
        return Example(normalised(labelled.rgb), self.target(labelled), labelled.source)

    def _place(self, number: int) -> int:
        epoch, place = divmod(number, len(self.data))
        if not self.shuffle:
            return place
        if self.order[0] != epoch:
            self.order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.data))
        return int(self.order[1][place])


def normalised(rgb: np.ndarray) -> Float[Tensor, "3 H W"]:
    """Subtract the mean of natural pictures and divide by their deviation, as both papers do."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float()
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def semantic_target(labelled: LabelledPicture) -> Int[Tensor, "H W"]:
    """The class of each pixel, or `UNLABELLED`."""
    return torch.from_numpy(labelled.semantic)


def mask_target(labelled: LabelledPicture) -> Target:
    """The masks of all segments that can be seen and are no crowd."""
    counted = np.bincount(labelled.segments.ravel(), minlength=len(labelled.labels) + 1)[1:]
    kept = np.flatnonzero((counted > 0) & ~labelled.crowd)
    masks = labelled.segments[None] == (kept + 1)[:, None, None]
    return Target(torch.from_numpy(labelled.labels[kept].astype(np.int64)), torch.from_numpy(masks))


# ERR-Seg --------------------------------------------------------------------------------------------------------------


class SemanticLoss:
    """ERR-Seg's loss. The text tower learns too, so that the words are encoded anew for each part.

    Args:
        most: At most so many classes take part, those of the pictures and others at random. None: all, as in the paper.
        keep: Of those, how many the aggregator refines.
    """

    def __init__(self, vocabulary: Vocabulary, most: int | None = None, keep: int = KEPT):
        self.names = vocabulary.names
        self.most, self.keep = most, keep

    def __call__(self, model: nn.Module, part: Batch, whole: list[Batch]) -> Float[Tensor, ""]:
        chosen, target = self.choose(part.targets)
        text = model.encode_text([self.names[label] for label in chosen.tolist()])
        words = Words(
            text,
            torch.arange(len(chosen), device=text.device),
            torch.ones(len(chosen), dtype=torch.bool, device=text.device),
        )
        raw = model(part.pixels, words, keep=self.keep, present=present(target, len(chosen)))
        return err_seg.loss(raw, target, ignore=UNLABELLED)

    def choose(self, target: Int[Tensor, "B H W"]) -> tuple[Int[Tensor, " C"], Int[Tensor, "B H W"]]:
        """Choose the classes that take part; return them, ascending, and the target in their numbers."""
        every = torch.arange(len(self.names), device=target.device)
        if self.most is None or self.most >= len(every):
            return every, target
        return choose_among(target, len(self.names), self.most)


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


def present(target: Int[Tensor, "B H W"], classes: int) -> Tensor:
    """Which classes a target holds, (B, T) bool."""
    there = torch.zeros(len(target), classes + 1, dtype=torch.bool, device=target.device)
    return there.scatter(1, torch.where(target < 0, classes, target).flatten(1), True)[:, :classes]


# EOV-Seg --------------------------------------------------------------------------------------------------------------


class MaskLoss:
    """EOV-Seg's set loss. Its text tower is frozen: the words are encoded once.

    Args:
        points: At which masks are compared.
        most: At most so many classes take part, those of the pictures and others at random. None: all, as in the paper.
    """

    def __init__(self, vocabulary: Vocabulary, model: nn.Module, points: int = POINTS, most: int | None = None):
        self.vocabulary, self.encode, self.points, self.most = vocabulary, model.encode_text, points, most

    @cached_property
    @torch.no_grad()
    def words(self) -> Words:
        return encode_vocabulary(self.vocabulary, "each", self.encode)

    def __call__(self, model: nn.Module, part: Batch, whole: list[Batch]) -> Float[Tensor, ""]:
        with torch.autocast(part.pixels.device.type, enabled=False):  # they are the same for the whole training
            words = Words(*(tensor.to(part.pixels.device) for tensor in self.words))
        words, targets = self.choose(words, part.targets)
        count = mean_count([target for one in whole for target in one.targets], part.pixels, parts=len(whole))
        return set_loss(model(part.pixels, words), targets, count=count, points=self.points)

    def choose(self, words: Words, targets: list[Target]) -> tuple[Words, list[Target]]:
        """Choose the classes that take part; return their words, and the targets in their numbers."""
        if self.most is None or self.most >= len(words.seen):
            return words, targets
        counts = [len(target.labels) for target in targets]
        chosen, labels = choose_among(torch.cat([target.labels for target in targets]), len(words.seen), self.most)
        taken = torch.isin(words.owner, chosen)
        fewer = Words(words.embeddings[taken], torch.searchsorted(chosen, words.owner[taken]), words.seen[chosen])
        return fewer, [target._replace(labels=part) for target, part in zip(targets, labels.split(counts), strict=True)]


# Recipes --------------------------------------------------------------------------------------------------------------


def err_seg_recipe(
    settings: Settings,
    model: nn.Module,
    data: DataSet,
    *,
    most: int | None = None,
    keep: int = KEPT,
    clip_factor: float = ERR_SEG_NUMBERS["clip_factor"],
    **parts,
) -> Recipe:
    """ERR-Seg's recipe: rate 2e-4, CLIP's weights ×0.01, decay 1e-4, none on norms.

    Args:
        most: See `SemanticLoss`.
        keep: Likewise.
        clip_factor: Of the rate, for CLIP's weights.
        parts: `augment`, `schedule`, `validate` and `origin`; also `shuffle` and `muon`: see `_recipe`.
    """
    loss = SemanticLoss(data.vocabulary, most, keep)
    numbers = ERR_SEG_NUMBERS | {"clip_factor": clip_factor}
    return _recipe(settings, model, data, loss=loss, target=semantic_target, numbers=numbers, **parts)


def eov_seg_recipe(
    settings: Settings, model: nn.Module, data: DataSet, *, points: int = POINTS, most: int | None = None, **parts
) -> Recipe:
    """EOV-Seg's recipe: rate 1e-4, decay 0.05, none on norms and embeddings; the gradient's norm at most 0.01.

    Args:
        points: See `MaskLoss`.
        most: Likewise.
        parts: `augment`, `schedule`, `validate` and `origin`; also `gradient_norm`, `shuffle` and `muon`: see
            `_recipe`.
    """
    limit = {"gradient_norm": parts.pop("gradient_norm", EOV_SEG_GRADIENT_NORM)}
    loss = MaskLoss(data.vocabulary, model, points, most)
    return _recipe(settings, model, data, loss=loss, target=mask_target, numbers=EOV_SEG_NUMBERS, **limit, **parts)


def _recipe(
    settings: Settings,
    model: nn.Module,
    data: DataSet,
    *,
    loss: Callable,
    target: Callable,
    numbers: dict[str, float],
    muon: float | None = None,
    **parts,
) -> Recipe:
    """Fill in a recipe. The papers have AdamW for all; with `muon` the matrices follow Muon, at so many times the
    rate."""
    wanted = "err-seg" if target is semantic_target else "eov-seg"
    if model.family != wanted:
        raise ValueError(
            f"This recipe trains models of the family {wanted}; {model.family} came. "
            "Choose another model, or another recipe."
        )
    examples = Examples(data, parts.pop("augment"), target, seed=settings.seed, shuffle=parts.pop("shuffle", True))
    origin = parts.pop("origin")

    def groups(model: nn.Module) -> list[dict[str, object]]:
        by_adamw = parameter_groups(model, rate=settings.rate, **numbers)
        return by_adamw if muon is None else matrices_by_muon(by_adamw, muon)

    return Recipe(
        model=model,
        groups=groups,
        examples=examples,
        loss=loss,
        save=lambda path, model: save_model(path, model, origin),
        **parts,
    )


def save_model(path: Path, model: nn.Module, origin: str) -> None:
    """Write a checkpoint that `wordmask.load` reads."""
    weights.save(path, model.state_dict(), family=model.family, configuration=model.config, origin=origin)
