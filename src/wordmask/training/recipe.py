"""What a training is made of: its settings, its parts, and the examples that travel through them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from wordmask.training.optimiser import ParameterGroup

Network = TypeVar("Network", bound=nn.Module)
Targets = TypeVar("Targets")  # of one picture, or of several: what the recipe's loss reads


class Example(NamedTuple, Generic[Targets]):
    """One picture to learn from, ready for the model.

    Args:
        pixels: (3, H, W), normalised.
        target: What the recipe's loss reads.
        source: Where it came from, for messages.
    """

    pixels: Tensor
    target: Targets
    source: str


class Batch(NamedTuple, Generic[Targets]):
    """Examples that go through the model together."""

    pixels: Float[Tensor, "B 3 H W"]
    targets: Targets
    sources: list[str]

    def to(self, device: torch.device) -> "Batch[Targets]":
        """The same on a device."""
        return self._replace(pixels=self.pixels.to(device, non_blocking=True), targets=_moved(self.targets, device))


def _moved(target: object, device: torch.device) -> object:
    """Move a tensor, or all tensors of a list or a tuple."""
    if isinstance(target, Tensor):
        return target.to(device, non_blocking=True)
    assert isinstance(target, list | tuple), type(target)
    moved = [_moved(entry, device) for entry in target]
    if hasattr(target, "_fields"):  # a tuple with names takes its entries one by one
        return type(target)(*moved)  # pyright: ignore[reportArgumentType]
    return type(target)(moved)


def stack(examples: list[Example]) -> Batch:
    """Stack pictures, and targets where they are tensors; others stay a list."""
    targets = [example.target for example in examples]
    return Batch(
        torch.stack([example.pixels for example in examples]),
        torch.stack(targets) if isinstance(targets[0], Tensor) else targets,
        [example.source for example in examples],
    )


@dataclass(frozen=True)
class TrainingSettings:
    """What every training can be told, `wordmask train RECIPE key=value`; a recipe has the defaults and adds its own.

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
        accept_changed_code: Go on although the code, or a library's version, is another than before.
        accept_changed_data: Go on although the data are others than before.
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
    accept_changed_code: bool = False
    accept_changed_data: bool = False
    any_time: ClassVar[frozenset[str]] = frozenset(
        {"folder", "at_once", "device", "workers", "validate_every", "save_every"}
        | {"accept_changed_code", "accept_changed_data"}
    )


@dataclass(frozen=True)
class Recipe(Generic[Network]):
    """The parts of a training, in the order in which the loop uses them.

    Args:
        model: With the weights it starts from.
        groups: Model → what is trained, and how fast; what is in no group stays as it is.
        schedule: Step → factor of all rates.
        examples: Number of an example → `Example`. Numbers are never used twice: order, epochs and augmentation follow
            from them.
        loss: (model, part of the batch, all parts of this process) → mean loss of the part.
        validate: (model, folder for pictures) → scores; the first says which checkpoint is best.
        save: (file, model): write what `wordmask.load` reads.
        collate: Examples → batch.
        gradient_norm: The gradient is scaled down to this norm where it is larger; None: never.
        betas: Of AdamW.
        fingerprint: Of what the examples are made of, where that may change: a training goes on with the same alone.
        sources: Files that take part, beside wordmask's own, the recipe's, and those of the model's parts.
        divisible: Whether a batch may be taken in parts, one after the other, whose losses are averaged.
    """

    model: Network
    groups: Callable[[Network], list[ParameterGroup]]
    schedule: Callable[[int], float]
    examples: Dataset[Example]
    loss: Callable[[Network, Batch, list[Batch]], Tensor]
    validate: Callable[[Network, Path], dict[str, float]]
    save: Callable[[Path, Network], None]
    collate: Callable[[list[Example]], Batch] = field(default=stack)
    gradient_norm: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    fingerprint: str = ""
    sources: tuple[Path, ...] = ()
    divisible: bool = True
