"""How long an action takes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

RUNS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of several runs, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float
    runs: int


def timed(action: Callable[[], object], device: torch.device, *, runs: int = RUNS, warm_up: int = 1) -> Timing:
    """Time an action, until the device is done with it."""
    return summary(seconds_of(action, device, runs=runs, warm_up=warm_up))


def seconds_of(
    action: Callable[[], object], device: torch.device, *, runs: int = RUNS, warm_up: int = 1
) -> list[float]:
    """What each run of an action took."""
    for _ in range(warm_up):
        action()
    seconds = []
    for _ in range(runs):
        finish(device)
        started = time.perf_counter()
        action()
        finish(device)
        seconds.append(time.perf_counter() - started)
    return seconds


def summary(seconds: list[float]) -> Timing:
    """What is told of several runs."""
    return Timing(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
