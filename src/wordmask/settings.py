"""What a user may ask for: settings, device and precision, checked before anything runs."""

from numbers import Integral, Real
from typing import Literal, get_args

import torch

from wordmask.vocabulary import Synonyms

NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16")  # of a CPU's capabilities, as torch names them
LEAST_TILE = 64  # pixels: two of the coarsest cells of a model's grid
MOST_INSTANCES = 65535  # their ids fill 16 bits
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Task = Literal["semantic", "panoptic", "instance"]


def check_settings(
    *,
    keep: int | None = None,
    threshold: float = 0.0,
    overlap: float | None = None,
    most: int | None = None,
    background: str | None = None,
    synonyms: str | None = None,
    tile: int | str | None = None,
) -> dict[str, object]:
    """Return the settings in plain values, for the record.

    Raises:
        ValueError: One is out of range.
    """
    if keep is not None and not (isinstance(keep, Integral) and keep >= 1):
        raise ValueError(
            f"keep came as {keep!r}; expected a number of classes, at least 1, or nothing for the model's own choice."
        )
    if most is not None and not (isinstance(most, Integral) and 1 <= most <= MOST_INSTANCES):
        raise ValueError(
            f"most came as {most!r}; expected a number of instances, at least 1 and at most {MOST_INSTANCES}."
        )
    if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise ValueError(f"threshold came as {threshold!r}; expected a probability in [0, 1].")
    if overlap is not None and not (isinstance(overlap, Real) and 0 <= overlap <= 1):
        raise ValueError(f"overlap came as {overlap!r}; expected a share in [0, 1].")
    if background not in (None, "other"):
        raise ValueError(f"background came as {background!r}; expected 'other', or nothing.")
    if synonyms is not None and synonyms not in get_args(Synonyms):
        raise ValueError(f"synonyms came as {synonyms!r}; expected 'first', 'mean' or 'each'.")
    if tile is not None and tile != "auto" and not (isinstance(tile, Integral) and tile >= LEAST_TILE):
        raise ValueError(f"tile came as {tile!r}; expected pixels, at least {LEAST_TILE}, or 'auto'.")
    tile = tile if tile in (None, "auto") else int(tile)
    keep, most = (None if number is None else int(number) for number in (keep, most))
    numbers = {
        "keep": keep,
        "threshold": float(threshold),
        "overlap": None if overlap is None else float(overlap),
        "most": most,
    }
    return numbers | {"background": background, "synonyms": synonyms, "tile": tile}


def choose_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Raises:
        ValueError: It is unknown, or this machine lacks it.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].removesuffix(".")[:160]
        raise ValueError(
            f"The device {device!r} cannot be used here: {reason}. Choose auto, cpu, cuda or mps."
        ) from None
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """Resolve `auto`: bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    Raises:
        ValueError: An unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision came as {precision!r}; expected one of {', '.join(get_args(Precision))}.")
    if precision != "auto":
        return precision
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: CUDA from compute capability 8.0 on; CPUs with AMX or
    avx512_bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in NATIVE_BFLOAT16)
