"""How a model learns from labelled pictures: the recipe that the files in recipes/ fill in, and the examples it
takes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from wordmask import weights
from wordmask.data.labelled import DataSet, LabelledPicture
from wordmask.image import normalise
from wordmask.models import MODELS, Model
from wordmask.pixels import ImageInput
from wordmask.processes import Processes
from wordmask.training.objectives import Objective, objective_name
from wordmask.training.recipe import Example, Recipe, TrainingSettings
from wordmask.training.schedules import Schedule

Augmentation = Callable[[LabelledPicture, np.random.Generator], LabelledPicture]


def labelled_recipe(
    settings: TrainingSettings,
    model: Model,
    views: "Views",
    *,
    objective: Objective,
    schedule: Schedule,
    validate: Callable[[Model, Path], dict[str, float]],
    origin: str,
) -> Recipe:
    """The recipe by which a model learns from labelled pictures.

    Args:
        views: What it learns from.
        objective: What it learns; that of its paper is `objective_of(model)`.
        schedule: Step → factor of all rates.
        validate: (model, folder for pictures) → scores; the first says which checkpoint is best.
        origin: What checkpoints say of where they come from.

    Raises:
        ValueError: The model has another objective, or none that is known.
    """
    own_objective = objective_name(model.family)
    if own_objective != objective.name:
        fitting = [family for family, kind in MODELS.items() if kind.objective == objective.name]
        raise ValueError(
            f"This recipe trains models of the family {' or '.join(fitting)}; {model.family} came. "
            "Choose another model, or another recipe."
        )
    assert isinstance(model, nn.Module)  # every model is; a protocol can't say so
    return Recipe(
        model=model,
        groups=partial(objective.groups, rate=settings.rate),
        schedule=schedule,
        examples=Examples(views, objective.target, model.image_input),
        loss=objective.loss(views.data.vocabulary, model),
        validate=validate,
        save=partial(save_model, origin=origin),
        gradient_norm=objective.gradient_norm,
    )


class Views:
    """Augmented pictures by number, without end: number n is picture n of the epochs' permutations, augmented by
    randomness of its own.

    Args:
        shuffle: Permute each epoch; generated pictures need not.
    """

    def __init__(self, data: DataSet, augment: Augmentation, *, seed: int, shuffle: bool = True):
        self.data, self.augment, self.seed, self.shuffle = data, augment, seed, shuffle
        self.epoch, self.order = -1, np.arange(0)

    def __getitem__(self, number: int) -> LabelledPicture:
        return self.augment(self.data[self._place(number)], np.random.default_rng([self.seed, 1, number]))

    def _place(self, number: int) -> int:
        epoch, place = divmod(number, len(self.data))
        if not self.shuffle:
            return place
        if self.epoch != epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.data))
        return int(self.order[place])


class Examples(Dataset[Example]):
    """Views, ready for a model.

    Args:
        target: What the loss reads, from the augmented picture.
        wanted: What the model wants to see.
    """

    def __init__(self, views: Views, target: Callable[[LabelledPicture], object], wanted: ImageInput):
        self.views, self.target, self.wanted = views, target, wanted

    def __getitem__(self, number: int) -> Example:
        labelled = self.views[number]
        return Example(pixels_of(labelled.rgb, self.wanted), self.target(labelled), labelled.source)


def pixels_of(rgb: UInt8[np.ndarray, "H W 3"], wanted: ImageInput) -> Float[Tensor, "3 H W"]:
    """Normalise a picture that has its size already."""
    return normalise(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float(), wanted)


def check_data(*sets: DataSet, thorough: bool = False) -> None:
    """Check data sets before anything is trained; the first of several processes does it for all.

    Args:
        thorough: Decode every picture and label, even of a set that otherwise looks at names and sizes alone.

    Raises:
        ValueError: See `DataSet.check`.
    """
    if Processes.started().first:
        Console(stderr=True).print(f"Checking {sum(map(len, sets))} pictures and their labels …", highlight=False)
        for data in sets:
            data.check(thorough=thorough)


def save_model(path: Path, model: Model, origin: str) -> None:
    """Write a checkpoint that `wordmask.load` reads."""
    weights.save(path, model.state_dict(), family=model.family, configuration=model.config, origin=origin)
