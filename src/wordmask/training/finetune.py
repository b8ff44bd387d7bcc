"""Fine-tuning on one's own data: what it gains on one's own classes, and what it costs elsewhere."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.console import Console

from wordmask.data.augment import ColourJitter, CropAugmentation, ScaleAugmentation
from wordmask.data.datasets import open_folder
from wordmask.data.labelled import DataSet, data_fingerprint
from wordmask.data.shapeland import Shapeland
from wordmask.models import Model
from wordmask.models.load import load_model
from wordmask.processes import Processes
from wordmask.surroundings import as_if_alone, float32_by_default
from wordmask.terminal import on_one_line, say
from wordmask.training.blends import SHARES, Measured, Weights, blend, print_report, write_report
from wordmask.training.from_labels import Augmentation, Views, check_data, labelled_recipe, save_model
from wordmask.training.loop import TrainingOutcome, train
from wordmask.training.objectives import objective_of
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import warmup_cosine
from wordmask.training.validation import Subset, validate
from wordmask.vocabulary import Vocabulary
from wordmask.words import same_phrase

HOLD_OUT_EVERY = 5  # without validation=…, one picture in so many is kept from the training
FINETUNED = "finetuned.safetensors"
EOV_SEG_SCALE = 1.6  # side of the training crop over the shortest edge at inference: the paper's 1024 / 640


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        data: One's own pictures and labels; see `wordmask.data.datasets`.
        validation: More of them, of the same classes, to measure on; None: every fifth picture of `data` is kept for
            that.
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
    any_time: ClassVar[frozenset[str]] = TrainingSettings.any_time | {"blend", "heldout", "pictures"}


class FineTuneData(NamedTuple):
    """What to learn from, what to measure on, and what had no part."""

    learn: DataSet
    own: DataSet
    held_out: DataSet


@as_if_alone()
@float32_by_default()
def finetune(settings: FineTuneSettings) -> TrainingOutcome:
    """Fine-tune, measure the start, the result and blends of both, and save the blend that was asked for.

    Raises:
        ValueError: The data are bad, or too few.
    """
    if not 0 <= settings.blend <= 1:
        raise ValueError(
            f"blend came as {settings.blend}; expected a share from 0 (the start) to 1 (the fine-tuned weights)."
        )
    data = open_data(settings)
    if len(data.learn.vocabulary) == 1:
        Console(stderr=True).print(
            "note: with one class every labelled pixel is right; add a second one for what is not it, to see a score."
        )
    model = load_model(settings.start).model
    start = Weights.of(model)
    outcome = train(build(settings, with_classes(model, data.learn.vocabulary), data), settings)
    if not outcome.finished or not Processes.started().first:
        return outcome
    tuned = Weights.of(model)
    measured = {}
    for share in sorted({*SHARES, settings.blend}):
        blend(model, start, tuned, share)
        measured[share] = Measured(validate(model, data.own), validate(model, data.held_out))
    blend(model, start, tuned, settings.blend)
    save_model(settings.folder / FINETUNED, model, f"fine-tuned from {settings.start}, blend {settings.blend}")
    tell(settings, measured)
    return TrainingOutcome(measured[settings.blend].own, finished=True)


def build(settings: FineTuneSettings, model: Model, data: FineTuneData) -> Recipe:
    """The objective of the model's paper; rate and steps as asked for, with a warm-up and a cosine."""
    recipe = labelled_recipe(
        settings,
        model,
        Views(data.learn, augmentation_for(model, settings.hue), seed=settings.seed),
        objective=objective_of(model.family),
        schedule=warmup_cosine(settings.steps, warmup=min(100, settings.steps // 10), start=0.001),
        validate=partial(_validate, own=data.own),
        origin=f"fine-tuned from {settings.start}",
    )
    return dataclasses.replace(recipe, fingerprint=f"{data_fingerprint(data.learn)} {data_fingerprint(data.own)}")


def _validate(model: Model, folder: Path, own: DataSet) -> dict[str, float]:
    return validate(model, own, folder)


def augmentation_for(model: Model, hue: int) -> Augmentation:
    """The augmentation of the paper whose model sees such an input, at its size; scales vary less than EOV-Seg's 0.1 to
    2."""
    wanted = model.image_input
    if wanted.square is not None:
        return CropAugmentation(
            shortest_edge=wanted.square,
            longest_edge=2 * wanted.square,
            crop=wanted.square,
            colours=ColourJitter(hue=hue),
        )
    return ScaleAugmentation(side=int(EOV_SEG_SCALE * wanted.shortest_edge) // 32 * 32, smallest=0.5, largest=1.5)


def open_data(settings: FineTuneSettings) -> FineTuneData:
    """Open and check all data; nothing is trained if anything is wrong.

    Raises:
        ValueError: The data are bad, or too few.
    """
    data = open_folder(settings.data)
    check_data(data)
    if settings.validation is None:
        learn, own = _divided(data, settings.data)
    else:
        learn, own = data, _of_same_classes(settings.validation, data, settings.data)
    if settings.heldout is None:
        held_out = Shapeland("shapeland-150", "test", settings.pictures)
    else:
        held_out = open_folder(settings.heldout)
    check_data(held_out)
    return FineTuneData(learn, Subset.first(own, settings.pictures), Subset.first(held_out, settings.pictures))


def _divided(data: DataSet, folder: Path) -> tuple[DataSet, DataSet]:
    """Keep some pictures for measuring."""
    if len(data) < 2:
        raise ValueError(
            f"{str(folder)!r} holds {len(data)} picture; expected at least 2: one to learn from, one to measure on."
        )
    kept = range(0, len(data), HOLD_OUT_EVERY)
    return Subset(data, [place for place in range(len(data)) if place not in kept]), Subset(data, kept)


def _of_same_classes(folder: Path, other: DataSet, other_folder: Path) -> DataSet:
    """Open more pictures of the classes that another data set has."""
    data = open_folder(folder)
    check_data(data)
    if data.vocabulary.names != other.vocabulary.names:
        raise ValueError(
            f"{str(folder)!r} has other classes than {str(other_folder)!r}; expected the same, in the same order."
        )
    return data


def with_classes(model: Model, vocabulary: Vocabulary) -> Model:
    """Note in the configuration of a model that tells seen classes from others that it is about to see these too."""
    if not model.training_vocabulary:
        return model
    known = Vocabulary.of(model.training_vocabulary, model.vocabularies)
    names = {same_phrase(name) for entry in known for name in entry.names}
    words = [", ".join(entry.names) for entry in known]
    for entry in vocabulary:
        if names.isdisjoint(same_phrase(name) for name in entry.names):
            words.append(", ".join(entry.names))
    model.config = dataclasses.replace(  # pyright: ignore[reportAttributeAccessIssue]  # `Model` can't say its type
        model.config,  # pyright: ignore[reportArgumentType]  # likewise
        training_vocabulary="; ".join(words),
    )
    return model


def tell(settings: FineTuneSettings, measured: dict[float, Measured]) -> None:
    """Print what each blend scores, and write it as report.json."""
    write_report(settings.folder / "report.json", settings.start, settings.blend, measured)
    console = Console()
    print_report(console, settings.blend, measured)
    if settings.heldout is None:
        console.print(
            "held-out: generated scenes, of which a model for photographs knows little; "
            "name pictures like yours with heldout=FOLDER."
        )
    say(f"Saved as {on_one_line(settings.folder / FINETUNED)}; run again with blend=… for another share.")
