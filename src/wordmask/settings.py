"""What a user may ask for: `Settings` as they came, checked; `ChosenSettings` when model and words are known.

Every default of a setting has its home here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict, get_args

from wordmask.background import Background, competing
from wordmask.vocabulary import Synonyms, Vocabulary
from wordmask.words import MOST_CLASSES
from wordmask.writing import JsonObject

if TYPE_CHECKING:
    from wordmask.pixels import ImageInput  # needs numpy, which `wordmask --help` does without

Task = Literal["semantic", "panoptic", "instance"]
KeepSteps = Sequence[tuple[int, int]]  # (from so many classes on, so many are kept), ascending; empty: all are kept

DEFAULT_OVERLAP = 0.8  # both papers' and the reference's; see `postprocess.read_panoptic`
DEFAULT_MOST = 100  # likewise; see `postprocess.read_instances`
MOST_INSTANCES = 65535  # their ids fill 16 bits
MOST_KEPT = MOST_CLASSES
LEAST_TILE = 64  # pixels: two of the coarsest cells of a model's grid
LEAST_SIZE = 32  # pixels: one of them
SQUARE_STEP = 16  # pixels: a square input is so many cells of stride 16 wide, with nothing left over


class Askable(Protocol):
    """What settings have to know of a model; see `wordmask.models.Model`."""

    family: str
    tasks: tuple[Task, ...]
    synonyms: Synonyms
    keep_steps: KeepSteps

    @property
    def image_input(self) -> "ImageInput": ...


class SettingsByName(TypedDict, total=False):
    """The fields of `Settings`, as keyword arguments."""

    task: Task | None
    keep: int | None
    threshold: float
    overlap: float | None
    most: int | None
    background: Literal["other"] | None
    synonyms: Synonyms | None
    tile: int | Literal["auto"] | None
    size: int | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user asks for; None leaves the choice to the model.

    Args:
        task: `semantic` labels every pixel with the word that fits best; `panoptic` assigns every pixel to one segment
            at most, and tells things apart; `instance` finds things alone, and they may overlap. The first of the
            model's own tasks if not told: EOV-Seg does all three, panoptic first; ERR-Seg is semantic.
        keep: How many classes a model that chooses among them (ERR-Seg) refines.
        threshold: A probability in [0, 1]. What is at least as probable stays: pixels (semantic; the others become
            unlabelled), instances (by their score). Masks of a panoptic result stay if their class is more probable:
            there the references compare so.
        overlap: A share in [0, 1]. Panoptic: a mask survives if it wins at least this share of the pixels that it
            covers; `DEFAULT_OVERLAP` if not told.
        most: Instance: how many pairs of mask and class are looked at, the most probable ones; `DEFAULT_MOST` if not
            told.
        background: `other` lets everyday things and stuff compete with the words; what they win stays unlabelled.
        synonyms: `first` encodes a class by its first name, `mean` by the mean over all its names; `each` takes the
            best of all its names. What the model's paper does if not told: `first` for ERR-Seg, which has no `each`,
            and `each` for EOV-Seg.
        tile: Pixels. A picture with a longer side is seen in overlapping squares of this side, each as a picture of its
            own would be, and blended: for details that shrinking to the model's input would lose. `auto` is that
            input's side, so that nothing is shrunk. Semantic only: where tiles meet, segments and instances would have
            to be matched.
        size: Pixels of the model's input, for benchmarks: the side of a square one, a multiple of `SQUARE_STEP`, else
            its shorter edge.

    Raises:
        ValueError: One is out of range.
    """

    task: Task | None = None
    keep: int | None = None
    threshold: float = 0.0
    overlap: float | None = None
    most: int | None = None
    background: Literal["other"] | None = None
    synonyms: Synonyms | None = None
    tile: int | Literal["auto"] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            self._check("keep", _whole(1), "a number of classes, at least 1, or nothing for the model's own choice")
        if self.most is not None:
            numbers = f"a number of instances, at least 1 and at most {MOST_INSTANCES}"
            self._check("most", _whole(1, MOST_INSTANCES), numbers)
        self._check("threshold", _is_share, "a probability in [0, 1]")
        if self.overlap is not None:
            self._check("overlap", _is_share, "a share in [0, 1]")
        if self.background is not None:
            self._check("background", ("other",).__contains__, "'other', or nothing")
        if self.synonyms is not None:
            self._check("synonyms", get_args(Synonyms).__contains__, "'first', 'mean' or 'each'")
        if self.tile is not None and self.tile != "auto":
            self._check("tile", _whole(LEAST_TILE), f"pixels, at least {LEAST_TILE}, or 'auto'")
        if self.size is not None:
            self._check("size", _whole(LEAST_SIZE), f"pixels, at least {LEAST_SIZE}")
        for name in ("keep", "most", "tile", "size"):  # numpy's numbers become plain ones, which json can hold
            if isinstance(getattr(self, name), Integral):
                object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("threshold", "overlap"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))

    def _check(self, name: str, is_right: Callable[[object], bool], expected: str) -> None:
        value = getattr(self, name)
        if not is_right(value):
            raise ValueError(f"{name} came as {value!r}; expected {expected}.")

    def for_task(self, task: Task) -> "Settings":
        """The same for one of several tasks: without what says nothing to it."""
        overlap = self.overlap if task == "panoptic" else None
        most = self.most if task == "instance" else None
        return replace(self, task=task, overlap=overlap, most=most)

    def seen_by(self, model: Askable) -> "ImageInput":
        """What a model sees of a picture."""
        return model.image_input if self.size is None else model.image_input.of_size(self.size)

    def chosen_for(
        self, model: Askable, vocabulary: Vocabulary, *, name: str = "", precision: str = "float32"
    ) -> "ChosenSettings":
        """Choose what was left open, now that model and words are known.

        Args:
            name: What the model is called in errors; its family if empty.
            precision: What the model runs in, for the record.

        Raises:
            ValueError: The model can't do it, or a setting says nothing to it.
        """
        task, synonyms = self.task or model.tasks[0], self.synonyms or model.synonyms
        self._check_for(model, vocabulary, task, name or model.family)
        classes = len(competing(vocabulary, self.background or "none"))
        seen = self.seen_by(model)
        return ChosenSettings(
            task=task,
            keep=min(self.keep or kept_of(model.keep_steps, classes), classes),
            chooses_classes=bool(model.keep_steps),
            threshold=self.threshold,
            overlap=DEFAULT_OVERLAP if self.overlap is None else self.overlap,
            most=self.most or DEFAULT_MOST,
            background=self.background or "none",
            synonyms=synonyms,
            tile=seen.side if self.tile == "auto" else self.tile or 0,
            image_input=seen,
            precision=precision,
            asked=self,
        )

    def _check_for(self, model: Askable, vocabulary: Vocabulary, task: Task, name: str) -> None:
        if task not in model.tasks:
            raise ValueError(
                f"task came as {task!r}; {name} does {', '.join(model.tasks)}. EOV-Seg models do all three."
            )
        if task == "instance" and not any(entry.thing for entry in vocabulary):
            words = ", ".join(vocabulary.names[:3])
            raise ValueError(
                f"task 'instance' finds things, and no word is one: {words}. "
                f"Write '{vocabulary.names[0]} [thing]' if it is."
            )
        if self.synonyms == "each" and model.synonyms != "each":
            raise ValueError(f"synonyms came as 'each'; {name} takes one vector per class: expected 'first' or 'mean'.")
        used = {"keep": bool(model.keep_steps), "overlap": task == "panoptic", "most": task == "instance"}
        for setting, is_used in used.items():
            if not is_used and getattr(self, setting) is not None:
                raise ValueError(f"{setting} says nothing to {name} for task {task!r}. Leave it out.")
        if self.size is not None and model.image_input.square is not None and self.size % SQUARE_STEP:
            raise ValueError(
                f"size came as {self.size}; the input of {name} is square: take a multiple of {SQUARE_STEP} pixels, "
                f"such as {max(LEAST_SIZE, self.size // SQUARE_STEP * SQUARE_STEP)}."
            )
        if self.tile is not None and task != "semantic":
            raise ValueError(
                f"tile works for the task 'semantic', and this is {task!r}: segments would end where tiles do. "
                "Leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class ChosenSettings:
    """Settings in which nothing is open any more.

    Args:
        keep: K, how many classes are refined; at most as many as compete.
        chooses_classes: Whether the model makes that choice; if not, it looks at all.
        tile: Pixels of a tile's side; 0: the picture is seen whole.
        image_input: What the model sees of a picture.
        precision: What the model runs in.
        asked: What they were chosen from; see there for the rest.
    """

    task: Task
    keep: int
    chooses_classes: bool
    threshold: float
    overlap: float
    most: int
    background: Background
    synonyms: Synonyms
    tile: int
    image_input: "ImageInput"
    precision: str
    asked: Settings

    @property
    def choice(self) -> dict[str, int]:
        """What `forward` of a model takes besides pixels and words."""
        return {"keep": self.keep} if self.chooses_classes else {}

    def to_dict(self) -> JsonObject:
        """Those that say something to the model and the task, in plain values, for the record."""
        values: JsonObject = {"keep": self.keep} if self.chooses_classes else {}
        values["threshold"] = self.threshold
        if self.task == "panoptic":
            values["overlap"] = self.overlap
        if self.task == "instance":
            values["most"] = self.most
        values |= {"background": self.asked.background, "synonyms": self.synonyms}
        for name in ("tile", "size"):  # as they were asked for, where they were
            if getattr(self.asked, name) is not None:
                values[name] = getattr(self.asked, name)
        return values | {"precision": self.precision}


def of_known_labels(task: Task) -> ChosenSettings:
    """Settings of a result that no model made: labels that are known, to be drawn or saved as a result is."""
    from wordmask.pixels import MEAN, STD, ImageInput

    return ChosenSettings(
        task=task,
        keep=0,
        chooses_classes=False,
        threshold=0.0,
        overlap=DEFAULT_OVERLAP,
        most=DEFAULT_MOST,
        background="none",
        synonyms="first",
        tile=0,
        image_input=ImageInput(1, 1, square=None, mean=MEAN, std=STD),
        precision="float32",
        asked=Settings(task=task),
    )


def kept_of(steps: KeepSteps, classes: int) -> int:
    """How many of so many classes a model keeps if nobody says: as its last step below says, at most all."""
    chosen = [kept for least, kept in steps if classes >= least]
    return min(classes, chosen[-1]) if chosen else classes


def _whole(least: int, most: int | None = None) -> Callable[[object], bool]:
    def is_right(value: object) -> bool:
        return isinstance(value, Integral) and int(value) >= least and (most is None or int(value) <= most)

    return is_right


def _is_share(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1
