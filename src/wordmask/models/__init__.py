"""The models: one table of families. What every model offers the rest of the project is `Model`.

A family is a file in this folder, which holds its `PRESETS`, and a row in `MODELS`: all that can't be derived from it.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from wordmask import clip
from wordmask.compiler_stand_in import without_compiler
from wordmask.models import eov_seg, err_seg, reference
from wordmask.models.fitting import fitted
from wordmask.models.model import HasClip, Model, ModelClass
from wordmask.models.reference import Reference
from wordmask.released import RELEASED, InPackage, OnDrive, OnHub
from wordmask.surroundings import as_if_alone, float32_by_default

__all__ = ["MODELS", "InPackage", "Model", "ModelKind", "OnDrive", "OnHub", "kind_of", "preset_names"]

Known = TypeVar("Known")

UNTRAINED_SEED = 0


@dataclass(frozen=True)
class ModelKind:
    """A family of models: how to build one, and what is known of it.

    Args:
        family: Its name; presets begin with it.
        model: Configuration → model with random weights.
        configuration: The type that `model` takes.
        presets: Name → configuration.
        reference: What the reference implementation calls its weights; None: not known.
        released: Preset → where its trained weights are.
        objective: What it learns, `semantic` or `masks`; see `wordmask.training.objectives`. None: not known.
        published_clip: Preset → the CLIP that its training begins with, open_clip's name and tag.
        published_spatial: Likewise of all presets, the vision transformer whose beginning sees where things are.
    """

    family: str
    model: ModelClass
    configuration: type
    presets: Mapping[str, HasClip]
    reference: Reference | None = None
    released: Mapping[str, OnHub | OnDrive | InPackage] = field(default_factory=dict)
    objective: str | None = None
    published_clip: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    published_spatial: tuple[str, str] | None = None

    @property
    def vocabularies(self) -> str:
        """Whose names a plain built-in vocabulary means."""
        return self.model.vocabularies

    def known(self, value: Known | None, what: str) -> Known:
        """A field that a row may lack.

        Raises:
            ValueError: It does.
        """
        if value is None:
            raise ValueError(f"The {what} is not known for {self.family}: its row in wordmask.models.MODELS has none.")
        return value

    def skeleton(self, configuration: HasClip) -> Model:
        """Build without values: shapes only, in a fraction of a second."""
        with as_if_alone(), float32_by_default(), torch.device("meta"), without_compiler():
            return self.model(configuration)

    @as_if_alone()
    def fill(self, model: Model, state: Mapping[str, Tensor], in_file: Mapping[str, str] | None = None) -> Model:
        """Give a skeleton its weights; return it in evaluation mode.

        Args:
            in_file: The name in the checkpoint → ours, where they differ: errors use the former.

        Raises:
            ValueError: A weight is missing, unknown, of another shape or kind, or not finite.
        """
        names = {ours: name for name, ours in (in_file or {}).items()}
        model.load_state_dict(fitted(model.state_dict(), state, names), assign=True)
        clip.restore_buffers(model.clip)
        unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
        assert not unfilled, f"no values for {unfilled}"
        return model.eval()

    def random(self, configuration: HasClip, seed: int = UNTRAINED_SEED) -> Model:
        """Build with random weights that depend on the seed alone."""
        with as_if_alone(), float32_by_default(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model(configuration).eval()


MODELS = {
    "err-seg": ModelKind(
        "err-seg",
        err_seg.ErrSeg,
        err_seg.ErrSegConfig,
        err_seg.PRESETS,
        reference=reference.ERR_SEG,
        released=RELEASED["err-seg"],
        objective="semantic",
        published_clip={
            "err-seg-base": ("convnext_base_w_320", "laion_aesthetic_s13b_b82k"),
            "err-seg-large": ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup"),
        },
    ),
    "eov-seg": ModelKind(
        "eov-seg",
        eov_seg.EovSeg,
        eov_seg.EovSegConfig,
        eov_seg.PRESETS,
        reference=reference.EOV_SEG,
        released=RELEASED["eov-seg"],
        objective="masks",
        published_clip={
            "eov-seg-small": ("RN50-quickgelu", "openai"),
            "eov-seg-medium": ("RN50x4-quickgelu", "openai"),
            "eov-seg-large": ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup"),
        },
        published_spatial=("ViT-B-16-quickgelu", "openai"),
    ),
}


def preset_names() -> list[str]:
    """Every preset of every family."""
    return [preset for kind in MODELS.values() for preset in kind.presets]


def kind_of(preset: str) -> ModelKind:
    """Find the family of a preset.

    Raises:
        ValueError: No such preset; the message has the near matches.
    """
    for kind in MODELS.values():
        if preset in kind.presets:
            return kind
    near = difflib.get_close_matches(preset, preset_names(), n=3, cutoff=0.3) or preset_names()
    raise ValueError(
        f"There is no model {preset!r}. Did you mean {' or '.join(near)}? A checkpoint file or a hub id, owner/name, "
        "works too."
    )
