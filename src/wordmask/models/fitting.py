"""Weights of a file → weights of a model: each there, of its shape, and numbers of the kind that is expected."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

LISTED = 5  # names given in an error; the rest are counted
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # each holds the value of a weight by itself


def fitted(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], in_file: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the weights as the model wants them: those in half or double precision become float32.

    Args:
        in_file: Our name → the one in the checkpoint, where they differ: errors use the latter.

    Raises:
        ValueError: A weight is missing, unknown, of another shape or kind, or not finite.
    """
    _check_shapes(expected, state, in_file)
    check_kinds({in_file.get(name, name): (state[name], expected[name].dtype) for name in state})
    weights = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    check_finite({in_file.get(name, name): tensor for name, tensor in weights.items()})
    return weights


def check_kinds(weights: Mapping[str, tuple[Tensor, torch.dtype]]) -> None:
    """Raise a ValueError if a weight is no plain tensor of numbers of its kind; whole numbers may be told as floats.

    Args:
        weights: Name in the file → what is there, and the type that is expected.
    """
    strange = [f"{name} is {_kind(tensor)}" for name, (tensor, wanted) in weights.items() if not _is(tensor, wanted)]
    if strange:
        raise ValueError(
            f"{_counted(strange)} not of the expected kind: floats of 16, 32 or 64 bits, with their values. "
            f"{_listed(strange)}. Quantised weights mean nothing without their scales: take the checkpoint that they "
            "were made from."
        )


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if a weight is infinite or not a number; the message names it.

    A sum tells, at the pace of memory; only where it overflows is every value looked at.
    """
    bad = []
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.sum().isfinite():
            count = tensor.numel() - int(tensor.isfinite().sum())
            if count:
                kinds = " or ".join(_present(tensor))
                bad.append(f"{name} ({count} of {tensor.numel()} values: {kinds})")
    if bad:
        raise ValueError(
            f"{_counted(bad)} not finite: {_listed(bad)}. A training that diverged leaves such weights, or a "
            "conversion to half precision. Take another checkpoint."
        )


def _check_shapes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], in_file: Mapping[str, str]) -> None:
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
    problems = [f"{len(names)} {what}: {_listed(names)}" for what, names in found.items() if names]
    if problems:
        raise ValueError(
            f"The weights do not fit the model. {'. '.join(problems)}. Is it a checkpoint of another model?"
        )


def _is(tensor: Tensor, wanted: torch.dtype) -> bool:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    if wanted.is_floating_point or tensor.is_floating_point():
        return tensor.dtype in FLOATS
    return not tensor.is_complex()


def _kind(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "without values"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return dtype if tensor.layout == torch.strided else f"{dtype}, {str(tensor.layout).removeprefix('torch.')}"


def _present(tensor: Tensor) -> Iterable[str]:
    tests: dict[str, Callable[[Tensor], Tensor]] = {"nan": torch.isnan, "infinite": torch.isinf}
    return [kind for kind, test in tests.items() if test(tensor).any()]


def _counted(names: list[str]) -> str:
    return "A weight is" if len(names) == 1 else f"{len(names)} weights are"


def _listed(names: list[str]) -> str:
    return f"{'; '.join(names[:LISTED])}{' …' if len(names) > LISTED else ''}"
