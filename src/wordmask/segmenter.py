"""A model with the words it was asked for: pictures in, segmentations out."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from wordmask.image import PADDING, Frame, ImageInput, Picture, prepare, read_picture
from wordmask.models.load import load_model
from wordmask.pipeline import Steps, overlapping, raised, thread_count
from wordmask.postprocess import PixelReading, read_instances, read_panoptic, read_query_semantic, read_semantic
from wordmask.results import instance_result, panoptic_result, semantic_result
from wordmask.segmentation import Segmentation
from wordmask.settings import Precision, Task, check_settings, choose_device, choose_precision
from wordmask.text import TextCache, Words, encode_vocabulary
from wordmask.tiles import Grid, TileMaps, read_tiles, tile_side
from wordmask.vocabulary import Synonyms, Vocabulary, WordClass, same_phrase
from wordmask.weights import text_tower_fingerprint
from wordmask.writing import at_home, cache_folder

# everyday things and stuff that compete with the user's words under background="other"
DISTRACTORS = "eov-seg/coco-panoptic-133"
OVERLAP, MOST = 0.8, 100  # the paper's; see `read_panoptic` and `read_instances`


def load(
    name: str | Path = "err-seg-base",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    cache: Path | Literal["auto"] | None = "auto",
    batch: int = 1,
    compile: bool = False,
) -> "Segmenter":
    """Load a model, ready to segment.

    Args:
        name: A preset (`err-seg-base`, `err-seg-large`, `eov-seg-small`, `eov-seg-medium`, `eov-seg-large`), a
            checkpoint file (ours or the reference's), or a hub id `owner/name`.
        device: `auto` takes CUDA, then Apple's MPS, then the CPU; or a torch device such as `cuda:1`.
        precision: Of the image side: `float32`, `bfloat16`, `float16`; `auto` is bfloat16 where the hardware multiplies
            it natively (CUDA from 8.0 on, CPUs with AMX or avx512_bf16), else float32. Votes, cosines, embedded costs
            and probabilities are always float32.
        cache: Folder for text embeddings; `auto` is the user's cache folder, None keeps them in memory only.
        batch: How many pictures of equal input size go through the model together, where many are asked for.
        compile: Compile the model when it is first used, which takes minutes and a C++ compiler. Other sizes and
            vocabularies then run without compiling again, but once each for one word, three (torch takes them for the
            colours), and several pictures at once; ERR-Seg also for fewer than 16 words, and for 400 and more. Pays
            where many pictures follow. Memory grows with the vocabulary.

    Raises:
        ValueError: No such model, device or precision; weights that can't be fetched or don't fit.
    """
    chosen_device = choose_device(device)
    chosen_precision = choose_precision(precision, chosen_device)
    loaded = load_model(name)
    model = loaded.model.for_inference().to(chosen_device)
    folder = cache_folder() if cache == "auto" else cache and at_home(cache)
    details = {
        "precision": chosen_precision,
        "text_tower": loaded.text_tower,
        "cache": folder,
        "batch": batch,
        "compile": compile,
    }
    return Segmenter(model, name=loaded.name, **details)


class Asked(NamedTuple):
    """The words of a user, encoded with those of the background after them; and which of all these are things, (T,)
    bool."""

    vocabulary: Vocabulary
    words: Words
    things: torch.Tensor


class Request(NamedTuple):
    """What is asked of every picture: the words, and the settings as `Segmenter.check` gives them."""

    asked: Asked
    settings: dict[str, object]
    per_pixel: bool


class Prepared(NamedTuple):
    """A picture that is ready for the model."""

    source: str | None
    rgb: np.ndarray
    pixels: torch.Tensor | None
    frame: Frame | None
    grid: Grid | None = None  # of tiles that are yet to be prepared

    @classmethod
    def of(
        cls, picture: Picture | Callable[[], Picture], wanted: ImageInput, tile: int | str | None = None
    ) -> "Prepared":
        picture = picture() if callable(picture) else picture
        rgb = read_picture(picture)
        source = printable(picture) if isinstance(picture, str | Path) else None
        if tile is not None:
            side = tile_side(wanted) if tile == "auto" else tile
            if max(rgb.shape[:2]) > side:
                return cls(source, rgb, None, None, Grid.over(rgb.shape[:2], side))
        return cls(source, rgb, *prepare(rgb, wanted))


class Answered(NamedTuple):
    """A picture with the model's raw output for the batch it was in, and its number there."""

    ready: Prepared
    raw: tuple
    number: int


class Segmenter:
    """Segments pictures by words.

    Args:
        model: On the device it shall run on.
        name: For the results.
        precision: Of the image side; words are always encoded in float32.
        text_tower: Fingerprint of the text tower, computed if None.
        cache: Folder for text embeddings, or None.
        batch: How many pictures of equal input size go through the model together.
        compile: See `load`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "",
        precision: Precision = "float32",
        text_tower: str | None = None,
        cache: Path | None = None,
        batch: int = 1,
        compile: bool = False,
    ):
        self.model = model.eval()
        self.image_input = model.image_input  # what a benchmark may ask for otherwise
        self.name = name
        self.device = next(model.parameters()).device
        self.precision = choose_precision(precision, self.device)
        self.run = compiled(model, self.device) if compile else model
        if not (isinstance(batch, int) and batch >= 1):
            raise ValueError(f"batch came as {batch!r}; expected a number of pictures, at least 1.")
        self.batch = batch
        fingerprint = text_tower or text_tower_fingerprint(model.state_dict())
        self.text = TextCache(fingerprint, model.templates, cache)
        trained_on = Vocabulary.of(model.training_vocabulary, model.family) if model.training_vocabulary else ()
        self.training_names = frozenset(same_phrase(name) for entry in trained_on for name in entry.names)
        self._last_asked: tuple[object, Asked] | None = None

    def __repr__(self) -> str:
        return (
            f"Segmenter({self.name or self.model.family!r}, {', '.join(self.model.tasks)}, {self.device}, "
            f"{self.precision})"
        )

    def __call__(
        self,
        pictures: Picture | list[Picture],
        words: Vocabulary | str | Path | Iterable[str],
        *,
        task: Task | None = None,
        keep: int | None = None,
        threshold: float = 0.0,
        overlap: float | None = None,
        most: int | None = None,
        background: Literal["other"] | None = None,
        synonyms: Synonyms | None = None,
        tile: int | Literal["auto"] | None = None,
        per_pixel: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Find what the words name in a picture, or in each picture of a list.

        Args:
            pictures: See `wordmask.image.read_picture`.
            words: See `Vocabulary.of`.
            task: `semantic` labels every pixel with the word that fits best; `panoptic` gives every pixel to one
                segment at most, and tells things apart; `instance` finds things alone, and they may overlap. EOV-Seg
                does all three, panoptic if not told; ERR-Seg the first.
            keep: How many classes ERR-Seg refines; its own choice by default.
            threshold: In [0, 1]. Semantic: pixels whose best probability is below stay unlabelled. Panoptic: masks
                whose class probability is not above are left out. Instance: those whose score is below.
            overlap: In [0, 1]. Panoptic: a mask survives if it wins at least this share of the pixels that it covers;
                0.8 by default.
            most: Instance: how many pairs of mask and class are looked at, the most probable ones; 100 by default.
            background: `"other"` lets everyday things and stuff compete with the words; what they win stays unlabelled.
            synonyms: `first` encodes a class by its first name, `mean` by the mean over all its names; `each` takes the
                best of all its names. By default what the paper does: `first` for ERR-Seg, which has no `each`, and
                `each` for EOV-Seg.
            tile: Pixels. A picture with a longer side is seen in overlapping squares of this side, each as a picture of
                its own would be, and blended: for details that shrinking to the model's input would lose. `auto` is
                that input's side, so that nothing is shrunk. Semantic only: where tiles meet, segments and instances
                would have to be matched.
            per_pixel: Also return every pixel's confidence, runner-up and the runner-up's confidence; not of instances.

        Raises:
            ValueError: A picture that can't be read, words or settings that make no sense.
        """
        choices = {
            "keep": keep,
            "threshold": threshold,
            "overlap": overlap,
            "most": most,
            "background": background,
            "synonyms": synonyms,
        }
        steps = self._steps(self._request(words, per_pixel, task=task, tile=tile, **choices))
        if not isinstance(pictures, list | tuple):
            return steps.one(pictures)
        return [raised(result) for result in self._overlapping(pictures, steps, tile)]

    def stream(
        self,
        pictures: Iterable[Picture],
        words: Vocabulary | str | Path | Iterable[str],
        *,
        per_pixel: bool = False,
        **settings,
    ) -> Iterator[Segmentation | Exception]:
        """Find what the words name in one picture after the other, of which there may be no end: results in the order
        asked.

        The next pictures are read and resized, and the results of those before are read out, in threads while the model
        runs. The model runs in the caller's thread, when the next result is asked for: hand long work with a result,
        such as saving it, to another thread. A picture that can't be read, or that the model fails at, gives its error
        in its place and disturbs no other. Pictures of equal input size go through the model together, `batch` of them
        at most; one waits for at most `2 · batch` later ones.

        Args:
            pictures: Taken from it a few at a time, in the caller's thread. In place of a picture there may be a
                function that gives it: it is called in one of the threads.
            words: As `__call__` takes them.
            per_pixel: Likewise.
            settings: Likewise: task, keep, threshold, overlap, most, background, synonyms, tile.

        Raises:
            ValueError: Words or settings that make no sense; at once, before a picture is read.
        """
        steps = self._steps(self._request(words, per_pixel, **settings))
        return self._overlapping(pictures, steps, settings.get("tile"))

    def _overlapping(
        self, pictures: Iterable[Picture], steps: Steps, tile: int | str | None
    ) -> Iterator[Segmentation | Exception]:
        threads = thread_count() if tile is None else 1  # pictures that are worth tiles fill the memory
        return overlapping(pictures, steps, group=self.batch if tile is None else 1, threads=threads)

    def readings(
        self, picture: Picture, vocabulary: Vocabulary, tasks: Iterable[Task], **settings
    ) -> dict[Task, Segmentation]:
        """Look at a picture once, and read what the model says for each of several tasks.

        Args:
            settings: `keep`, `overlap`, `most`, `synonyms`, as `__call__` takes them; each goes to the tasks that it
                says something to.

        Raises:
            ValueError: As `__call__`.
        """
        own = {"overlap": "panoptic", "most": "instance"}
        requests = {
            task: self._request(
                vocabulary,
                False,
                task=task,
                **{name: value for name, value in settings.items() if own.get(name, task) == task},
            )
            for task in tasks
        }
        answered = self._segment([Prepared.of(picture, self.image_input)], next(iter(requests.values())))[0]
        return {task: self._finish(answered, request) for task, request in requests.items()}

    def check(self, vocabulary: Vocabulary, *, task: Task | None = None, **settings) -> dict[str, object]:
        """Check settings, as `__call__` takes them, and return those that matter in plain values, for the record.

        Raises:
            ValueError: One makes no sense, or the model can't do it.
        """
        model, name, task = self.model, self.name or self.model.family, task or self.model.tasks[0]
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
        settings = check_settings(**settings)
        settings["synonyms"] = settings["synonyms"] or model.synonyms
        if settings["synonyms"] == "each" and model.synonyms != "each":
            raise ValueError(f"synonyms came as 'each'; {name} takes one vector per class: expected 'first' or 'mean'.")
        used = {"keep": model.default_keep is not None, "overlap": task == "panoptic", "most": task == "instance"}
        for setting, is_used in used.items():
            if not is_used and settings.pop(setting) is not None:
                raise ValueError(f"{setting} says nothing to {name} for task {task!r}. Leave it out.")
        if settings["tile"] is None:
            del settings["tile"]
        elif task != "semantic":
            raise ValueError(
                f"tile works for the task 'semantic', and this is {task!r}: segments would end where tiles do. "
                "Leave one out."
            )
        defaults = {"overlap": OVERLAP, "most": MOST}
        settings = {setting: defaults.get(setting) if value is None else value for setting, value in settings.items()}
        return {"task": task, **settings, "precision": self.precision}

    def encode_words(
        self, vocabulary: Vocabulary, synonyms: Synonyms | None = None, background: Literal["other"] | None = None
    ) -> Words:
        """Encode words on the model's device, those of the background after them; the last ones asked for are at hand
        at once."""
        return self._ask(vocabulary, synonyms or self.model.synonyms, background).words

    @torch.inference_mode()
    def _ask(self, vocabulary: Vocabulary, synonyms: Synonyms, background: Literal["other"] | None) -> Asked:
        key = (vocabulary, synonyms, background)
        last = self._last_asked  # read once: another thread may ask for other words meanwhile
        if last is None or last[0] != key:
            competing = Vocabulary((*vocabulary, *distractors(vocabulary))) if background else vocabulary
            words = encode_vocabulary(
                competing,
                synonyms,
                lambda phrases: self.text.encode(phrases, self.model.encode_text),
                training_names=self.training_names,
            )
            things = torch.tensor([entry.thing for entry in competing], device=self.device)
            last = self._last_asked = (
                key,
                Asked(vocabulary, Words(*(tensor.to(self.device) for tensor in words)), things),
            )
        return last[1]

    def _request(self, words: Vocabulary | str | Path | Iterable[str], per_pixel: bool, **settings) -> Request:
        vocabulary = Vocabulary.of(words, self.model.family)
        settings = self.check(vocabulary, **settings)
        if per_pixel and settings["task"] == "instance":
            raise ValueError("per_pixel came as True; instances overlap and have no values per pixel. Leave it out.")
        asked = self._ask(vocabulary, settings["synonyms"], settings["background"])
        if "keep" in settings:
            competing = len(asked.things)
            settings["keep"] = min(settings["keep"] or self.model.default_keep(competing), competing)
        return Request(asked, settings, per_pixel)

    def _steps(self, request: Request) -> Steps[Picture, Prepared, Answered, Segmentation]:
        """Padding to a common size would change what a model sees, so that only pictures of equal input size go
        together."""
        tile = request.settings.get("tile")
        return Steps(
            prepare=lambda picture: Prepared.of(picture, self.image_input, tile),
            kind=lambda ready: ready.pixels.shape if ready.grid is None else "tiles",
            run=lambda group: (
                self._segment(group, request) if group[0].grid is None else [self._segment_tiles(*group, request)]
            ),
            finish=lambda answered: self._finish(answered, request),
        )

    @torch.inference_mode()
    def _segment(self, group: list[Prepared], request: Request) -> list[Answered]:
        pixels = stacked([ready.pixels for ready in group], self.device)
        settings, asked = request.settings, request.asked
        choice = {"keep": settings["keep"]} if "keep" in settings else {}
        with self.autocast():
            raw = self.run(pixels, asked.words, **choice)
        return [Answered(ready, raw, number) for number, ready in enumerate(group)]

    @torch.inference_mode()
    def _segment_tiles(self, large: Prepared, request: Request) -> Answered:
        """Segment a large picture row by row of its tiles; the next ones are prepared in threads."""
        of_queries = self.model.family == "eov-seg"

        def maps_of(answered: Answered) -> TileMaps:
            raw, number, frame = answered.raw, answered.number, answered.ready.frame
            if of_queries:
                return TileMaps(
                    raw.mask_logits[number].float(), raw.class_logits[number].float().softmax(dim=-1)[:, :-1], frame
                )
            return TileMaps(raw.logits[number].float().sigmoid(), raw.kept[number], frame)

        def look(row: int) -> list[TileMaps]:
            tiles = overlapping(
                large.grid.boxes(row),
                Steps(
                    prepare=lambda box: Prepared.of(large.rgb[box], self.image_input),
                    kind=lambda ready: ready.pixels.shape,
                    run=lambda group: self._segment(group, request),
                    finish=maps_of,
                ),
                group=self.batch,
                threads=thread_count(),
            )
            return [raised(maps) for maps in tiles]

        reading = read_tiles(large.grid, look, classes=len(request.asked.things), of_queries=of_queries)
        return Answered(large, reading, 0)

    @torch.inference_mode()
    def _finish(self, answered: Answered, request: Request) -> Segmentation:
        ready, asked, settings = answered.ready, request.asked, request.settings
        origin = {"picture": ready.rgb, "source": ready.source, "vocabulary": asked.vocabulary, "model": self.name}
        origin |= {
            "task": settings["task"],
            "settings": {name: value for name, value in settings.items() if name != "task"},
        }
        return self._read(
            answered.raw, answered.number, ready.frame, things=asked.things, origin=origin, per_pixel=request.per_pixel
        )

    def _read(
        self, raw: tuple, number: int, frame: Frame, *, things: torch.Tensor, origin: dict, per_pixel: bool
    ) -> Segmentation:
        """Turn the raw output for one picture of a batch into a result."""
        task, settings = origin["task"], origin["settings"]
        if isinstance(raw, PixelReading):
            return semantic_result(raw, origin, per_pixel=per_pixel)
        if self.model.family == "err-seg":
            return semantic_result(
                read_semantic(raw.logits[number], raw.kept[number], frame), origin, per_pixel=per_pixel
            )
        masks = raw.class_logits[number], raw.mask_logits[number]
        if task == "semantic":
            return semantic_result(read_query_semantic(*masks, frame), origin, per_pixel=per_pixel)
        if task == "instance":
            return instance_result(read_instances(*masks, things=things, frame=frame, most=settings["most"]), origin)
        limits = {name: settings[name] for name in ("threshold", "overlap")}
        return panoptic_result(read_panoptic(*masks, things=things, frame=frame, per_pixel=per_pixel, **limits), origin)

    def autocast(self) -> AbstractContextManager[None]:
        """What the image side runs in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))


def stacked(pixels: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Pictures of one size together, (B, 3, H, W).

    On a CPU channels lie last in memory: so the convolutions of a ResNet take three quarters of the time in bfloat16
    (docs/log.md). A graph chooses its own layouts.
    """
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    return torch.stack(pixels).to(device, memory_format=layout)


def compiled(model: nn.Module, device: torch.device) -> Callable[..., tuple]:
    """The model as one graph for any size and vocabulary; on CUDA its kernels are launched together.

    Sides are multiples of the coarsest stride. The graph is told so by the shape of what it gets: it would work for
    minutes on how the sizes of its maps follow from a side that could be anything.
    """

    @partial(torch.compile, dynamic=True, fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else None)
    def graph(cells: torch.Tensor, words: Words, **choice: int) -> tuple:
        return model(cells.flatten(4).flatten(2, 3), words, **choice)

    def run(pixels: torch.Tensor, words: Words, **choice: int) -> tuple:
        cells = (
            pixels.contiguous().unflatten(3, (-1, PADDING)).unflatten(2, (-1, PADDING))
        )  # (B, 3, H / 32, 32, W / 32, 32)
        for axis in (3, 5):
            torch._dynamo.mark_static(cells, axis)
        # sizes that happen to be equal the first time needn't stay so
        with torch.fx.experimental._config.patch(use_duck_shape=False):
            return graph(cells, words, **choice)

    return run


def distractors(vocabulary: Vocabulary) -> tuple[WordClass, ...]:
    """List everyday things and stuff but those that the words name: "red car" rules out "car", and "wall" rules out
    "brick wall"."""
    asked = [_stems(name) for entry in vocabulary for name in entry.names]

    def is_asked(entry: WordClass) -> bool:
        return any(stems <= other or other <= stems for stems in map(_stems, entry.names) for other in asked)

    return tuple(entry for entry in Vocabulary.builtin(DISTRACTORS) if not is_asked(entry))


def _stems(phrase: str) -> set[str]:
    return {word.removesuffix("s") for word in same_phrase(phrase).replace("-", " ").split()}


def printable(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 become escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
