"""Weights between a model and what fine-tuning made of it: how good each is, on one's own classes and elsewhere."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from wordmask.models import Model
from wordmask.writing import atomic

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the fine-tuned weights that are measured
NAMED_SHARES = {0.0: "0 (before)", 1.0: "1 (after)"}


class Measured(NamedTuple):
    """How good some weights are on one's own classes, and on a vocabulary that had no part in the fine-tuning."""

    own: dict[str, float]
    held_out: dict[str, float]


class Weights(NamedTuple):
    """What a model is at one moment: its tensors, and its configuration, which says what it has seen."""

    tensors: dict[str, Tensor]
    configuration: object

    @classmethod
    def of(cls, model: Model) -> "Weights":
        return cls({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, model.config)


def blend(model: Model, start: Weights, tuned: Weights, share: float) -> None:
    """Set a model's weights on the straight line from the start (share 0) to the fine-tuned ones (1); at 0 it is the
    start.

    Statistics of batch norms are averaged like weights: an approximation, which measures blends of EOV-Seg rather too
    low.
    """
    nearest = start if share == 0 else tuned  # for what can't be averaged: counts, and the configuration
    mixed = {}
    for name, after in tuned.tensors.items():
        before = start.tensors[name].to(after.device)
        mixed[name] = torch.lerp(before, after, share) if after.is_floating_point() else nearest.tensors[name]
    model.load_state_dict(mixed)
    model.config = nearest.configuration  # pyright: ignore[reportAttributeAccessIssue]  # `Model` can't say its type


def write_report(path: Path, start: str, blend: float, measured: dict[float, Measured]) -> None:
    """Write as json what each blend scores.

    Args:
        start: What was fine-tuned.
        blend: The share that was saved.
    """
    content = {str(share): {"own": scores.own, "held out": scores.held_out} for share, scores in measured.items()}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"start": start, "blend": blend, "scores": content}, indent=1))


def print_report(console: Console, blend: float, measured: dict[float, Measured]) -> None:
    """Print what each blend scores, a row for each; `blend` was saved."""
    saved = measured[blend]
    table = Table(
        "fine-tuned share",
        *(f"own {name}" for name in saved.own),
        *(f"held-out {name}" for name in saved.held_out),
    )
    for share, scores in measured.items():
        name = NAMED_SHARES.get(share, f"{share:g}") + (" ← saved" if share == blend else "")
        table.add_row(name, *(f"{value:.1f}" for value in (*scores.own.values(), *scores.held_out.values())))
    console.print(table)
