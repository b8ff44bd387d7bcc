"""What a training recipe is made of: the numbers, the parts, which parameters train, how fast, and which decay."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

# the third: synchronised ones too
UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)


class Example(NamedTuple):
    """One picture to learn from, ready for the model.

    Args:
        pixels: (3, H, W), normalised.
        target: What the recipe's loss reads.
        source: Where it came from, for messages.
    """

    pixels: Tensor
    target: object
    source: str


class Batch(NamedTuple):
    """Examples that go through the model together."""

    pixels: Tensor  # (B, 3, H, W)
    targets: object
    sources: list[str]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.pixels.to(device, non_blocking=True), _moved(self.targets, device), self.sources)


def _moved(target: object, device: torch.device) -> object:
    if isinstance(target, Tensor):
        return target.to(device, non_blocking=True)
    moved = [_moved(entry, device) for entry in target]
    return type(target)(*moved) if hasattr(target, "_fields") else moved


def stack(examples: list[Example]) -> Batch:
    """Stack pictures, and targets where they are tensors; others stay a list."""
    pixels, targets, sources = (list(column) for column in zip(*examples, strict=True))
    return Batch(torch.stack(pixels), torch.stack(targets) if isinstance(targets[0], Tensor) else targets, sources)


@dataclass(frozen=True)
class Settings:
    """What every training can be told, `wordmask train RECIPE key=value`; a recipe gives the defaults and adds its own.

    Args:
        folder: Where checkpoints, curves and pictures go; a training found there goes on.
        steps: Updates of the weights.
        batch: Pictures per update, over all processes and all parts.
        at_once: Pictures that a process holds at a time; smaller means less memory. 0: its whole share.
        rate: Learning rate, at its highest.
        precision: Of the forward pass: float32, bfloat16, float16, or auto, see `wordmask.hardware.choose_precision`.
        device: auto, cpu, cuda or mps.
        seed: Of weights, order, augmentation and random parts of models; Shapeland's scenes have numbers of their own.
        workers: Processes that prepare pictures, per process that trains.
        validate_every: Steps between validations, pictures included.
        save_every: Steps between checkpoints.
        any_time: Settings that may change when a training goes on.
    """

    folder: Path
    steps: int
    batch: int
    rate: float
    at_once: int = 0
    precision: str = "float32"
    device: str = "auto"
    seed: int = 0
    workers: int = 1
    validate_every: int = 5000
    save_every: int = 1000
    any_time: ClassVar[frozenset[str]] = frozenset(
        {"folder", "at_once", "device", "workers", "validate_every", "save_every"}
    )


Losses = Callable[[nn.Module, Batch, list[Batch]], Tensor]


@dataclass(frozen=True)
class Recipe:
    """The parts of a training, in the order in which the loop uses them.

    Args:
        model: With the weights it starts from.
        groups: Model → parameter groups for AdamW, each with its `lr`; what is in none stays as it is.
        schedule: Step → factor of all rates.
        examples: Number of an example → `Example`. Numbers are never used twice: order, epochs and augmentation follow
            from them.
        collate: Examples → batch.
        loss: (model, part of the batch, all parts of this process) → mean loss of the part.
        gradient_norm: The gradient is scaled down to this norm where it is larger; None: never.
        betas: Of AdamW.
        validate: (model, folder for pictures) → scores; the first says which checkpoint is best.
        save: (file, model): write what `wordmask.load` reads.
        fingerprint: Of what the examples are made of, where that may change: a training goes on with the same alone.
        divisible: Whether a batch may be taken in parts, one after the other, whose losses are averaged.
    """

    model: nn.Module
    groups: Callable[[nn.Module], list[dict]]
    schedule: Callable[[int], float]
    examples: Dataset
    loss: Losses
    validate: Callable[[nn.Module, Path], dict[str, float]]
    save: Callable[[Path, nn.Module], None]
    collate: Callable[[list[Example]], Batch] = field(default=stack)
    gradient_norm: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    fingerprint: str = ""
    divisible: bool = True


def warmup_cosine(steps: int, warmup: int, start: float) -> Callable[[int], float]:
    """Rise linearly from `start` to the cosine's value after `warmup` steps, then follow the cosine to 0 after
    `steps`."""

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * min(step, steps) / steps)) / 2

    def factor(step: int) -> float:
        if step >= warmup:
            return cosine(step)
        return start + (cosine(warmup) - start) * step / warmup

    return factor


def rounds(first: int, steps: int, warmup: int, start: float) -> Callable[[int], float]:
    """Follow the cosine to 0 after `first` steps, then rise and follow it again, to 0 after `steps`: what settled once
    learns on."""
    if steps <= first:
        return warmup_cosine(steps, min(warmup, steps // 10), start)
    once, again = (warmup_cosine(count, min(warmup, count // 10), start) for count in (first, steps - first))
    return lambda step: once(step) if step < first else again(step - first)


def drops(at: tuple[int, ...], factor: float = 0.1) -> Callable[[int], float]:
    """Multiply by `factor` at each of some steps."""
    return lambda step: factor ** sum(step >= place for place in at)


def parameter_groups(
    model: nn.Module, *, rate: float, clip_factor: float, weight_decay: float
) -> list[dict[str, object]]:
    """Group the trained parameters for an optimiser; the model says which they are (`is_trained`).

    ERR-Seg trains with rate 2e-4, CLIP's parameters ×0.01, weight decay 1e-4 and none on norms (paper, section 4.1);
    EOV-Seg with 1e-4, decay 0.05 and none on norms and embeddings.

    Returns:
        `{"params", "names", "lr", "weight_decay"}` per combination, in the order of first use.
    """
    undecayed = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, UNDECAYED)
        for name, _ in module.named_parameters()
    }
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not model.is_trained(name):
            continue
        setting = (rate * (clip_factor if name.startswith("clip.") else 1), 0.0 if name in undecayed else weight_decay)
        group = groups.setdefault(setting, {"params": [], "names": [], "lr": setting[0], "weight_decay": setting[1]})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
