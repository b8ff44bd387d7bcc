"""Fine-tuning on one's own data: what it gains on one's own classes, what it costs elsewhere, and weights in
between."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from wordmask.data.augment import ColourJitter, CropAugmentation, ScaleAugmentation
from wordmask.data.datasets import open_folder
from wordmask.data.files import fingerprint, folder_of
from wordmask.data.labelled import DataSet
from wordmask.data.shapeland import Shapeland
from wordmask.models.load import load_model
from wordmask.training.beginning import check
from wordmask.training.recipe import Recipe, Settings, warmup_cosine
from wordmask.training.segmentation import Augmentation, eov_seg_recipe, err_seg_recipe, save_model
from wordmask.training.train import Outcome, train
from wordmask.training.validation import Part, validate
from wordmask.vocabulary import Vocabulary
from wordmask.words import same_phrase
from wordmask.writing import atomic

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the fine-tuned weights that are measured
HOLD_OUT_EVERY = 5  # without validation=…, one picture in so many is kept from the training
FINETUNED = "finetuned.safetensors"
EOV_SEG_SCALE = 1.6  # side of the training crop over the shortest edge at inference: the paper's 1024 / 640


class Measured(NamedTuple):
    """How good some weights are on one's own classes, and on a vocabulary that had no part in the fine-tuning."""

    own: dict[str, float]
    held_out: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSettings(Settings):
    """Args:
    data: One's own pictures and labels; see `wordmask.data.datasets`.
    validation: More of them, of the same classes, to measure on; None: every fifth picture of `data` is kept for that.
    heldout: Pictures with other classes, to see what is forgotten; None: generated scenes of Shapeland.
    start: A model, a checkpoint, or a hub id.
    blend: Share of the fine-tuned weights in what is saved; the rest is of the start. Less forgets less.
    pictures: How many pictures each measurement looks at, at most.
    hue: How far colours may turn in ERR-Seg's augmentation, of 180; lower it where colours matter.
    """

    data: Path
    validation: Path | None = None
    heldout: Path | None = None
    start: str = "err-seg-tiny"
    blend: float = 1.0
    pictures: int = 50
    hue: int = 18
    folder: Path = Path("runs/finetune")
    steps: int = 1000
    batch: int = 4
    at_once: int = 1
    rate: float = 1e-4
    validate_every: int = 250
    save_every: int = 250
    any_time: ClassVar[frozenset[str]] = Settings.any_time | {"blend", "heldout", "pictures"}


def finetune(settings: FineTuneSettings) -> Outcome:
    """Fine-tune, measure the start, the result and blends of both, and save the blend that was asked for.

    Raises:
        ValueError: The data are bad, or too few.
    """
    if not 0 <= settings.blend <= 1:
        raise ValueError(
            f"blend came as {settings.blend}; expected a share from 0 (the start) to 1 (the fine-tuned weights)."
        )
    learn, own, held_out = open_data(settings)
    if len(learn.vocabulary) == 1:
        Console(stderr=True).print(
            "note: with one class every labelled pixel is right; add a second one for what is not it, to see a score."
        )
    model = load_model(settings.start).model
    start = Weights.of(model)
    outcome = train(build(settings, model=with_classes(model, learn.vocabulary), learn=learn, own=own), settings)
    if not outcome.finished or int(os.environ.get("RANK", "0")) > 0:
        return outcome
    tuned = Weights.of(model)
    measured = {}
    for share in sorted({*BLENDS, settings.blend}):
        blend(model, start, tuned, share)
        measured[share] = Measured(validate(model, own), validate(model, held_out))
    blend(model, start, tuned, settings.blend)
    save_model(settings.folder / FINETUNED, model, f"fine-tuned from {settings.start}, blend {settings.blend}")
    report(settings, measured)
    return Outcome(measured[settings.blend].own, finished=True)


def build(settings: FineTuneSettings, *, model: nn.Module, learn: DataSet, own: DataSet) -> Recipe:
    """The parameters, loss and decay of the model's paper; rate and steps as asked for, with a warm-up and a cosine."""
    kind: Callable[..., Recipe] = err_seg_recipe if model.family == "err-seg" else eov_seg_recipe
    return kind(
        settings,
        model,
        learn,
        augment=augmentation_for(model, settings.hue),
        schedule=warmup_cosine(settings.steps, warmup=min(100, settings.steps // 10), start=0.001),
        validate=lambda model, folder: validate(model, own, folder),
        origin=f"fine-tuned from {settings.start}",
        fingerprint=" ".join(
            fingerprint(folder_of(folder)) for folder in (settings.data, settings.validation) if folder is not None
        ),
    )


def augmentation_for(model: nn.Module, hue: int) -> Augmentation:
    """The augmentation of the model's paper, at the size of its input; scales vary less than EOV-Seg's 0.1 to 2."""
    wanted = model.image_input
    if wanted.square is not None:
        return CropAugmentation(
            shortest_edge=wanted.square,
            longest_edge=2 * wanted.square,
            crop=wanted.square,
            colours=ColourJitter(hue=hue),
        )
    return ScaleAugmentation(side=int(EOV_SEG_SCALE * wanted.shortest_edge) // 32 * 32, smallest=0.5, largest=1.5)


def open_data(settings: FineTuneSettings) -> tuple[DataSet, DataSet, DataSet]:
    """Open and check what to learn from, what to measure on, and what had no part; nothing is trained if anything is
    wrong."""
    data = open_folder(settings.data)
    check(data)
    if settings.validation is not None:
        learn, own = data, open_folder(settings.validation)
        check(own)
        if own.vocabulary.names != data.vocabulary.names:
            raise ValueError(
                f"{str(settings.validation)!r} has other classes than {str(settings.data)!r}; "
                "expected the same, in the same order."
            )
    elif len(data) < 2:
        raise ValueError(
            f"{str(settings.data)!r} holds {len(data)} picture; expected at least 2: one to learn from, one to "
            "measure on."
        )
    else:
        kept = range(0, len(data), HOLD_OUT_EVERY)
        learn, own = Part(data, [place for place in range(len(data)) if place not in kept]), Part(data, kept)
    held_out = (
        Shapeland("shapeland-150", "test", settings.pictures)
        if settings.heldout is None
        else open_folder(settings.heldout)
    )
    check(held_out)
    return (
        learn,
        Part(own, range(min(settings.pictures, len(own)))),
        Part(held_out, range(min(settings.pictures, len(held_out)))),
    )


def with_classes(model: nn.Module, vocabulary: Vocabulary) -> nn.Module:
    """Note in an EOV-Seg's configuration that it is about to see these classes too."""
    if not model.training_vocabulary:
        return model
    known = Vocabulary.of(model.training_vocabulary, model.family)
    names = {same_phrase(name) for entry in known for name in entry.names}
    words = [", ".join(entry.names) for entry in known]
    words += [", ".join(entry.names) for entry in vocabulary if not names & {same_phrase(name) for name in entry.names}]
    model.config = dataclasses.replace(model.config, training_vocabulary="; ".join(words))
    return model


class Weights(NamedTuple):
    """What a model is at one moment: its tensors, and its configuration, which says what it has seen."""

    tensors: dict[str, Tensor]
    configuration: object

    @classmethod
    def of(cls, model: nn.Module) -> "Weights":
        return cls({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, model.config)


def blend(model: nn.Module, start: Weights, tuned: Weights, share: float) -> None:
    """Give a model the weights on the straight line from the start (share 0) to the fine-tuned ones (1); at 0 it is the
    start.

    Statistics of batch norms are averaged like weights: an approximation, which measures blends of EOV-Seg rather too
    low.
    """
    before = {name: tensor.to(tuned.tensors[name].device) for name, tensor in start.tensors.items()}
    whole = start.tensors if share == 0 else tuned.tensors  # of what can't be averaged: counts
    mixed = {
        name: torch.lerp(before[name], t, share) if t.is_floating_point() else whole[name]
        for name, t in tuned.tensors.items()
    }
    model.load_state_dict(mixed)
    model.config = start.configuration if share == 0 else tuned.configuration


def report(settings: FineTuneSettings, measured: dict[float, Measured]) -> None:
    """Print what each blend scores, and write it as report.json."""
    content = {str(share): {"own": scores.own, "held out": scores.held_out} for share, scores in measured.items()}
    with atomic(settings.folder / "report.json") as temporary:
        temporary.write_text(
            json.dumps({"start": settings.start, "blend": settings.blend, "scores": content}, indent=1)
        )
    console = Console()
    table = Table(
        "fine-tuned share",
        *(f"own {name}" for name in measured[0.0].own),
        *(f"held-out {name}" for name in measured[0.0].held_out),
    )
    for share, scores in measured.items():
        name = {0.0: "0 (before)", 1.0: "1 (after)"}.get(share, f"{share:g}") + (
            " ← saved" if share == settings.blend else ""
        )
        table.add_row(name, *(f"{value:.1f}" for value in (*scores.own.values(), *scores.held_out.values())))
    console.print(table)
    if settings.heldout is None:
        console.print(
            "held-out: generated scenes, of which a model for photographs knows little; "
            "name pictures like yours with heldout=FOLDER."
        )
    console.print(f"Saved as {settings.folder / FINETUNED}; run again with blend=… for another share.", soft_wrap=True)
