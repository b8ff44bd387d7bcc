"""How learning rates change while a model learns: step → factor of all rates."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def warmup_cosine(steps: int, warmup: int, start: float) -> Schedule:
    """Rise linearly from `start` to the cosine's value after `warmup` steps, then follow the cosine to 0 after
    `steps`."""

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * min(step, steps) / steps)) / 2

    def factor(step: int) -> float:
        if step >= warmup:
            return cosine(step)
        return start + (cosine(warmup) - start) * step / warmup

    return factor


def rounds(first: int, steps: int, warmup: int, start: float) -> Schedule:
    """Follow the cosine to 0 after `first` steps, then rise and follow it again, to 0 after `steps`: what settled once
    learns on."""
    if steps <= first:
        return warmup_cosine(steps, min(warmup, steps // 10), start)
    once, again = (warmup_cosine(count, min(warmup, count // 10), start) for count in (first, steps - first))

    def factor(step: int) -> float:
        return once(step) if step < first else again(step - first)

    return factor


def drops(at: tuple[int, ...], factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each of these steps."""

    def product(step: int) -> float:
        return factor ** sum(step >= place for place in at)

    return product
