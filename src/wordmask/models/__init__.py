"""The models: one table of presets, and what every model offers the rest of the project.

A model is an `nn.Module` with
    family            whose names a plain vocabulary means: `err-seg` or `eov-seg`
    tasks             what it can be asked for; the first is its own
    templates         the prompts a phrase is put into
    synonyms          how a class with several names is encoded where the user doesn't say
    training_vocabulary   which classes it was trained to segment, if that matters: what `Vocabulary.of` reads
    image_input       what pixels it wants (`ImageInput`)
    default_keep      number of classes → how many it refines; None: it has no such choice
    encode_text       phrases → unit vectors (S, D)
    is_trained        parameter name → whether the recipe trains it
    for_inference     leaves out, for good, what only training needs
    forward           pixels, words → raw tensors
and, in its file, `PRESETS`. `postprocess` reads the raw tensors. ERR-Seg's loss stands in its file, that of EOV-Seg's
sets of masks in `training.set_loss`.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wordmask import clip
from wordmask.light import without_compiler
from wordmask.models import eov_seg, err_seg
from wordmask.released import RELEASED, InPackage, OnDrive, OnHub

UNTRAINED_SEED = 0
LISTED = 5  # names given in an error; the rest are counted


@dataclass(frozen=True)
class ModelKind:
    """A family of models: how to build one, its presets, and where their released weights are."""

    family: str
    model: Callable[..., nn.Module]
    configuration: type
    presets: dict[str, object]
    released: dict[str, OnHub | OnDrive | InPackage]

    def skeleton(self, configuration: object) -> nn.Module:
        """Build without values: shapes only, in a fraction of a second."""
        with torch.device("meta"), without_compiler():
            return self.model(configuration)

    def fill(
        self, model: nn.Module, state: Mapping[str, Tensor], in_file: Mapping[str, str] | None = None
    ) -> nn.Module:
        """Give a skeleton its weights; return it in evaluation mode.

        Args:
            in_file: The name in the checkpoint → ours, where they differ: errors use the former.

        Raises:
            ValueError: A weight is missing, unknown or of another shape.
        """
        _check_weights(model.state_dict(), state, {ours: name for name, ours in (in_file or {}).items()})
        model.load_state_dict(dict(state), assign=True)
        clip.restore_buffers(model.clip)
        unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
        assert not unfilled, f"no values for {unfilled}"
        return model.eval()

    def random(self, configuration: object, seed: int = UNTRAINED_SEED) -> nn.Module:
        """Build with random weights that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model(configuration).eval()


MODELS = {
    "err-seg": ModelKind(
        "err-seg",
        err_seg.ErrSeg,
        err_seg.ErrSegConfig,
        err_seg.PRESETS,
        RELEASED["err-seg"],
    ),
    "eov-seg": ModelKind(
        "eov-seg",
        eov_seg.EovSeg,
        eov_seg.EovSegConfig,
        eov_seg.PRESETS,
        RELEASED["eov-seg"],
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


def _check_weights(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], in_file: Mapping[str, str]) -> None:
    shapes = {name: (tuple(expected[name].shape), tuple(state[name].shape)) for name in expected.keys() & state.keys()}
    found = {
        "missing": [
            f"{in_file.get(name, name)} {tuple(tensor.shape)}" for name, tensor in expected.items() if name not in state
        ],
        "of another shape": [
            f"{in_file.get(name, name)} is {came}, expected {wanted}"
            for name, (wanted, came) in sorted(shapes.items())
            if wanted != came
        ],
        "unknown": [name for name in state if name not in expected],
    }
    problems = [
        f"{len(names)} {what}: {'; '.join(names[:LISTED])}{' …' if len(names) > LISTED else ''}"
        for what, names in found.items()
        if names
    ]
    if problems:
        raise ValueError(
            f"The weights do not fit the model. {'. '.join(problems)}. Is it a checkpoint of another model?"
        )
