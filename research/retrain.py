"""Short trainings by the recipes for Shapeland, with a part exchanged; each goes on where it was stopped."""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scenes import Scenes, means, score_scenes
from starting_clip import starting_clip
from variants import Variant
from wordmask import clip, fingerprints, weights
from wordmask.data.labelled import DataSet, data_fingerprint
from wordmask.hardware import choose_device, choose_precision
from wordmask.models.eov_seg import EovSeg
from wordmask.training.checkpoints import LAST
from wordmask.training.command import load_recipe, read_settings, settings_class
from wordmask.training.loop import train
from wordmask.training.tiny_clip import pair
from wordmask.writing import atomic

RECIPES = {"err-seg": "shapeland_err_seg", "eov-seg": "shapeland_eov_seg"}
STEPS = {"err-seg": 600, "eov-seg": 700, "clip": 600}  # about eight minutes each on one core, the last four
COUNTED = "scenes.npz"  # in a training's folder: what its last weights found in the scenes
MADE_OF = "made of"  # in that file: the fingerprint of weights, scenes and code
HERE = Path(__file__).parent
SOURCES = tuple(HERE / f"{name}.py" for name in ("eov_seg_parts", "err_seg_parts", "retrain", "scenes", "variants"))


@dataclass(frozen=True)
class Budget:
    """What all trainings that are compared have in common.

    Args:
        folder: In which each has its own.
        clip: What recipes/shapeland_regions.py wrote; None: that of the bundled models, see `with_clip`.
        steps: None: those of `STEPS`.
        more: Further settings of the recipes, as `key=value`.
    """

    folder: Path
    clip: Path | None
    steps: int | None
    device: str
    more: tuple[str, ...] = ()


def with_clip(budget: Budget, steps: int) -> Budget:
    """The budget with a CLIP to begin with: the one that it names, or that of the bundled models, whose further blocks
    are trained first.

    Raises:
        InterruptedError: That training was told to stop.
    """
    if budget.clip is not None:
        return budget
    return replace(
        budget, clip=starting_clip(budget.folder / "clip", budget.device, min(STEPS["clip"], steps), budget.more)
    )


def retrain(variant: Variant, name: str, budget: Budget, held_out: DataSet, *, seed: int = 0) -> Scenes:
    """Train a variant, or take up its training where it stopped, and count what it finds in scenes that it never
    learned from.

    All variants begin with the same values wherever names and shapes agree.

    Args:
        name: Of its folder, with the seed.

    Raises:
        ValueError: There is no such CLIP, or the folder holds a training with other settings.
        InterruptedError: It was told to stop.
    """
    module = load_recipe(RECIPES[variant.family])
    steps = budget.steps or STEPS[variant.family]
    folder = budget.folder / re.sub(r"\W+", "_", f"{variant.family} {name} {seed}")
    given = (
        f"folder={folder}",
        f"clip={budget.clip}",
        f"steps={steps}",
        f"seed={seed}",
        f"validate_every={steps}",
        "precision=auto",
    )
    settings = read_settings(settings_class(module), [*given, f"device={budget.device}", *budget.more])
    settings = replace(settings, precision=choose_precision(settings.precision, choose_device(settings.device)))
    torch.manual_seed(seed)
    recipe = module.build(settings)
    model = begin(variant.build(recipe.model.config), recipe.model, budget.clip)
    fingerprint = weights.fingerprint(recipe.model.state_dict())  # of CLIP, above all: another one is another training
    validate = partial(validated, held_out=held_out, file=folder / COUNTED)
    recipe = replace(recipe, model=model.train(), validate=validate, fingerprint=fingerprint, sources=SOURCES)
    outcome = train(recipe, settings)
    if not outcome.finished:
        raise InterruptedError(f"The training in {str(folder)!r} was stopped; the same command goes on from there.")
    model.load_state_dict(weights.read(folder / LAST).state)
    return counted_once(model.eval(), held_out, folder / COUNTED)


def validated(model: nn.Module, _: Path, *, held_out: DataSet, file: Path) -> dict[str, float]:
    """Count what a model finds, and say its scores over all classes."""
    every = np.ones(len(held_out.vocabulary), dtype=bool)
    once = np.ones((1, len(held_out)))
    return {name: float(means(parts, once, every)[0]) for name, parts in counted_once(model, held_out, file).items()}


def begin(model: nn.Module, base: nn.Module, clip_file: Path) -> nn.Module:
    """Give a variant the values of the model it varies, wherever names and shapes agree; a longer spatial tower gets
    CLIP's own blocks."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    shared = {name: tensor for name, tensor in base.state_dict().items() if shapes.get(name) == tensor.shape}
    model.load_state_dict(shared, strict=False)
    if isinstance(model, EovSeg) and model.spatial is not None:
        beginning = replace(model.config.spatial, blocks=len(model.spatial.blocks))
        model.spatial.load_state_dict(clip.beginning_of(pair.load(clip_file).vit.state_dict(), beginning))
    return model


def counted_once(model: nn.Module, held_out: DataSet, file: Path) -> Scenes:
    """Count what a model finds, unless the file holds that already: of the same weights and scenes, by the same
    code."""
    own = weights.fingerprint(model.state_dict())
    made_of = fingerprints.of_values(own, data_fingerprint(held_out), fingerprints.of_code(SOURCES))
    if file.exists():
        with np.load(file) as saved:
            scenes = dict(saved)
        if str(scenes.pop(MADE_OF, "")) == made_of:
            return scenes
    scenes = score_scenes(model, held_out)
    with atomic(file) as temporary:
        np.savez(temporary, **scenes, **{MADE_OF: np.array(made_of)})
    return scenes
