"""Reference checkpoints → ours, every key accounted for."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wordmask.models import MODELS, Model, kind_of


def from_reference(preset: str, state: Mapping[str, Tensor | np.ndarray]) -> Model:
    """Build the model of a preset with a reference implementation's weights, in evaluation mode.

    Args:
        preset: Such as `err-seg-large`.
        state: Reference name → tensor (or array); float16 and bfloat16 become float32. A leading `module.` is ignored,
            and so are the keys that `Reference.dropped` names.

    Raises:
        ValueError: A key is missing, unknown or of another shape; the message names it. Or the family's reference is
            not known.
    """
    kind = kind_of(preset)
    reference = kind.known(kind.reference, "reference implementation's naming")
    model = kind.skeleton(kind.presets[preset])
    expected = model.state_dict()
    names = {reference.name(name): name for name in expected}
    dropped = set(reference.dropped_names(state))
    weights = {}
    for name, tensor in state.items():
        if name not in dropped:
            ours = names.get(name.removeprefix("module."), name.removeprefix("module."))
            dtype = expected[ours].dtype if ours in expected else torch.float32
            weights[ours] = torch.as_tensor(tensor).to(dtype)
    return kind.fill(model, weights, in_file=names)


def guess_preset(state: Mapping[str, Tensor]) -> str:
    """Find the preset that a reference state dict belongs to: the one with most weights of the same name and shape.

    Raises:
        ValueError: None has half of them.
    """
    shapes = {(name.removeprefix("module."), tuple(tensor.shape)) for name, tensor in state.items()}
    shares = {}
    for kind in MODELS.values():
        reference = kind.reference
        if reference is None:
            continue
        for preset, configuration in kind.presets.items():
            weights = kind.skeleton(configuration).state_dict()
            expected = {(reference.name(name), tuple(tensor.shape)) for name, tensor in weights.items()}
            shares[preset] = len(expected & shapes) / len(expected)
            if expected <= shapes:
                return preset
    best = max(shares, key=shares.__getitem__)
    if shares[best] < 0.5:
        raise ValueError(
            f"This is a checkpoint of another model: its {len(state)} weights (the first is {next(iter(state))!r}) do "
            f"not fit {', '.join(shares)}. Expected the state dict of a reference implementation, or a file written by "
            "`wordmask convert`."
        )
    return best
