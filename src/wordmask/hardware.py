"""What a model runs on, and in which precision: checked before anything runs."""

from typing import Literal, get_args

import torch

NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16")  # of a CPU's capabilities, as torch names them
Precision = Literal["auto", "float32", "bfloat16", "float16"]
ChosenPrecision = Literal["float32", "bfloat16", "float16"]


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


def choose_precision(precision: str, device: torch.device) -> ChosenPrecision:
    """Resolve `auto`: bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    Raises:
        ValueError: An unknown precision.
    """
    if precision == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    if precision in ("float32", "bfloat16", "float16"):
        return precision
    raise ValueError(f"precision came as {precision!r}; expected one of {', '.join(get_args(Precision))}.")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: CUDA from compute capability 8.0 on; CPUs with AMX or
    avx512_bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in NATIVE_BFLOAT16)
