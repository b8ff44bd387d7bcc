"""Reference checkpoints → ours, every key accounted for."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wordmask.models import MODELS, Model, kind_of
from wordmask.surroundings import as_if_alone

COMPILED = "_orig_mod."  # before the names of a part that torch.compile wraps


class Unwrapped(NamedTuple):
    """A state dict without what wrappers put before its names, and that."""

    state: dict[str, Tensor | np.ndarray]
    prefix: str


@as_if_alone()
def from_reference(preset: str, state: Mapping[str, Tensor | np.ndarray]) -> Model:
    """Build the model of a preset with a reference implementation's weights, in evaluation mode.

    Args:
        preset: Such as `err-seg-large`.
        state: Reference name → tensor (or array); other floats become float32. What wrappers put before all names is
            ignored, see `unwrapped`, and so are the keys that `Reference.dropped` names.

    Raises:
        ValueError: A key is missing, unknown, of another shape or kind, or not finite; the message names it. Or the
            family's reference is not known.
    """
    kind = kind_of(preset)
    reference = kind.known(kind.reference, "reference implementation's naming")
    model = kind.skeleton(kind.presets[preset])
    names = {reference.name(name): name for name in model.state_dict()}
    plain, prefix = unwrapped(state, names)
    dropped = set(reference.dropped_names(plain))
    weights = {names.get(name, name): torch.as_tensor(plain[name]) for name in plain if name not in dropped}
    return kind.fill(model, weights, in_file={prefix + name: ours for name, ours in names.items()})


def unwrapped(state: Mapping[str, Tensor | np.ndarray], names: Collection[str]) -> Unwrapped:
    """Take off what wrappers put before the names of weights: DDP `module.`, Lightning `model.` or `net.`, a moving
    average `ema_model.`, whatever it is: the beginning after which most names are known. torch.compile's `_orig_mod.`
    goes wherever it stands.

    Args:
        names: Those that are known.

    Raises:
        ValueError: There are two such beginnings: the file holds the weights twice.
    """
    compiled = {name: name.replace(COMPILED, "") for name in state}
    counts: Counter[str] = Counter()
    for name in compiled.values():
        starts = (0, *(match.end() for match in re.finditer(r"\.", name)))
        start = next((start for start in starts if name[start:] in names), None)
        if start is not None:
            counts[name[:start]] += 1
    (prefix, most), *others = counts.most_common() or [("", 0)]
    plain = {name: short.removeprefix(prefix) for name, short in compiled.items()}
    rivals = [other for other, count in others if count > most / 2]
    if rivals or len(set(plain.values())) < len(plain):
        listed = " and ".join(f"{start}…" if start else "…" for start in [prefix, *(rivals or ["another name"])])
        raise ValueError(
            f"The checkpoint holds the same weights twice, as {listed}; which are meant can't be told. Save a state "
            "dict of one of them."
        )
    changed = COMPILED if any(COMPILED in name for name in state) else ""
    return Unwrapped({short: state[name] for name, short in plain.items()}, changed + prefix)


def guess_preset(state: Mapping[str, Tensor]) -> str:
    """Find the preset that a reference state dict belongs to: the one with most weights of the same name and shape.

    Raises:
        ValueError: None has half of them.
    """
    plain = {(name.removeprefix("module."), tuple(tensor.shape)) for name, tensor in state.items()}
    known = [kind for kind in MODELS.values() if kind.reference is not None]
    expected: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    for preset in [preset for kind in known for preset in kind.presets]:
        expected[preset] = _shapes(preset)
        if expected[preset] <= plain:  # nothing fits better, and the others take their time
            return preset
    names = {name for shapes in expected.values() for name, _ in shapes}
    found = {(name, tuple(tensor.shape)) for name, tensor in unwrapped(state, names).state.items()}
    shares = {preset: len(shapes & found) / len(shapes) for preset, shapes in expected.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < 0.5:
        raise ValueError(
            f"This is a checkpoint of another model: its {len(state)} weights (the first is {next(iter(state))!r}) do "
            f"not fit {', '.join(shares)}. Expected the state dict of a reference implementation, or a file written by "
            "`wordmask convert`."
        )
    return best


def reference_names(preset: str) -> set[str]:
    """What the reference calls the weights of a preset."""
    return {name for name, _ in _shapes(preset)}


def _shapes(preset: str) -> set[tuple[str, tuple[int, ...]]]:
    """The reference's names of a preset's weights, and their shapes."""
    kind = kind_of(preset)
    reference = kind.known(kind.reference, "reference implementation's naming")
    weights = kind.skeleton(kind.presets[preset]).state_dict()
    return {(reference.name(name), tuple(tensor.shape)) for name, tensor in weights.items()}
