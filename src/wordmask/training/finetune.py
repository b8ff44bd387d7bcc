"""Fine-tuning on one's own data: what it gains on one's own classes, and what it costs elsewhere."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.console import Console

from wordmask.data.augment import ColourJitter, CropAugmentation, ScaleAugmentation
from wordmask.data.class_table import wide_console
from wordmask.data.labelled import DataSet
from wordmask.data.reading import REFUSED, FolderReading
from wordmask.data.shapeland import Shapeland
from wordmask.hardware import choose_device
from wordmask.models import Model
from wordmask.models.load import load_model
from wordmask.processes import Processes
from wordmask.surroundings import as_if_alone, float32_by_default
from wordmask.terminal import on_one_line, say
from wordmask.training.blends import SHARES, Measured, Weights, blend, print_report, write_report
from wordmask.training.from_labels import Augmentation, Views, labelled_recipe, save_model
from wordmask.training.loop import TrainingOutcome, train
from wordmask.training.objectives import objective_of
from wordmask.training.own_data import divide, divide_by_folder, look_into, tell_classes
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import warmup_cosine
from wordmask.training.validation import Subset, validate
from wordmask.vocabulary import Vocabulary
from wordmask.words import same_phrase

FINETUNED = "finetuned.safetensors"
EOV_SEG_SCALE = 1.6  # side of the training crop over the shortest edge at inference: the paper's 1024 / 640


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        data: One's own pictures and labels; see `wordmask.data.layouts`.
        validation: More of them, of the same classes, to measure on; None: what `data` itself keeps for that, or every
            fifth of its pictures.
        heldout: Pictures with other classes, to see what is forgotten; None: generated scenes of Shapeland.
        start: A model, a checkpoint, or a hub id.
        blend: Share of the fine-tuned weights in what is saved; the rest is of the start. Less forgets less.
        pictures: How many pictures each measurement looks at, at most; they are spread over all.
        hue: How far colours may turn in ERR-Seg's augmentation, of 180; lower it where colours matter.
        format: How `data` and `validation` are to be read; this and what follows: see `FolderReading`.
    """

    data: Path
    validation: Path | None = None
    heldout: Path | None = None
    start: str = "err-seg-tiny"
    blend: float = 1.0
    pictures: int = 50
    hue: int = 18
    format: str | None = None
    annotations: Path | None = None
    images: Path | None = None
    unlabelled: str | None = None
    values: str | None = None
    reduce_zero_label: bool = False
    boxes: str = REFUSED
    partial: bool = False
    folder: Path = Path("runs/finetune")
    steps: int = 1000
    batch: int = 4
    at_once: int = 1
    rate: float = 1e-4
    validate_every: int = 250
    save_every: int = 250
    any_time: ClassVar[frozenset[str]] = TrainingSettings.any_time | {
        "blend",
        "heldout",
        "pictures",
        # where and how they are read may change as long as the same comes of it: the data have a fingerprint
        "data",
        "validation",
        "images",
        "partial",
    }

    def reading(self) -> FolderReading:
        """How one's own folders are to be read."""
        return FolderReading(
            format=self.format,
            annotations=self.annotations,
            images=self.images,
            unlabelled=self.unlabelled,
            values=self.values,
            reduce_zero_label=self.reduce_zero_label,
            boxes=self.boxes,
            partial=self.partial,
        )


class FineTuneData(NamedTuple):
    """What to learn from, what to measure on, and what had no part.

    Args:
        things_apart: Whether each thing of one's own has a segment of its own.
        fingerprint: Changes with what is learnt from and measured on.
    """

    learn: DataSet
    own: DataSet
    held_out: DataSet
    things_apart: bool
    fingerprint: str


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
        measured[share] = Measured(
            validate(model, data.own, instances=data.things_apart), validate(model, data.held_out)
        )
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
        validate=partial(_validate, data=data),
        origin=f"fine-tuned from {settings.start}",
    )
    return dataclasses.replace(recipe, fingerprint=data.fingerprint)


def _validate(model: Model, folder: Path, data: FineTuneData) -> dict[str, float]:
    return validate(model, data.own, folder, instances=data.things_apart)


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
    processes = Processes.join(choose_device(Processes.started().device(settings.device)))
    console, reading = wide_console(), settings.reading()
    console.quiet = not processes.first
    whole = look_into(settings.data, reading, processes, console)
    if settings.validation is None:
        halves = divide(whole, console)
    else:
        elsewhere = dataclasses.replace(reading, images=None, annotations=None)
        halves = divide_by_folder(whole, look_into(settings.validation, elsewhere, processes, console), console)
    tell_classes(halves, console)
    if settings.heldout is None:
        held_out: DataSet = Shapeland("shapeland-150", "test", settings.pictures)
    else:
        others = look_into(settings.heldout, FolderReading(partial=settings.partial), processes, console)
        held_out = Subset(others.data, others.survey.usable)
    own = Subset.spread(halves.own, settings.pictures)
    console.print(f"Each measurement looks at {len(own)} of the {len(halves.own)} pictures to measure on.")
    return FineTuneData(
        halves.learn,
        own,
        Subset.spread(held_out, settings.pictures),
        whole.data.tells_things_apart,
        halves.fingerprint(),
    )


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
