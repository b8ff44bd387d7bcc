"""A model with the words it was asked for: pictures in, segmentations out."""

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, Unpack, overload

import torch
from jaxtyping import Bool
from torch import Tensor

from wordmask.background import Background, competing
from wordmask.compiling import compiled
from wordmask.hardware import ChosenPrecision, Precision, choose_device, choose_precision
from wordmask.image import Frame, Picture
from wordmask.models import Model
from wordmask.models.load import load_model
from wordmask.pipeline import Steps, overlapping, result_or_raise, thread_count
from wordmask.postprocess import PixelReading
from wordmask.preparing import Asked, Read, Taken, Tiled, Whole, prepared, prepared_or_tiled, stacked, take
from wordmask.raw import RawOutput, read, read_tile
from wordmask.results import result_of
from wordmask.segmentation import Origin, Segmentation
from wordmask.settings import ChosenSettings, Settings, SettingsByName, Task
from wordmask.surroundings import as_if_alone, precision_kept
from wordmask.text import TextCache, Words, encode_vocabulary
from wordmask.tiles import TileMaps, read_tiles
from wordmask.vocabulary import Synonyms, Vocabulary
from wordmask.weights import text_tower_fingerprint
from wordmask.words import same_phrase, warn_of_doubt
from wordmask.writing import cache_folder, expanded

AnyPicture = TypeVar("AnyPicture", bound=Picture)
Pictures = list[AnyPicture] | tuple[AnyPicture, ...]
AnyWords = Vocabulary | str | Path | Iterable[str]  # as `Vocabulary.of` reads them
Box = tuple[slice, slice]  # rows and columns of a picture
NO_SETTINGS = Settings()


@as_if_alone()
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
        precision: What the image side runs in: `float32`, `bfloat16`, `float16`; `auto` is bfloat16 where the hardware
            multiplies it natively (CUDA from 8.0 on, CPUs with AMX or avx512_bf16), else float32. Votes, cosines,
            embedded costs and probabilities are always float32.
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
    return Segmenter(
        loaded.model.for_inference().to(chosen_device),
        name=loaded.name,
        precision=chosen_precision,
        text_tower=loaded.text_tower,
        cache=cache_folder() if cache == "auto" else cache and expanded(cache),
        batch=batch,
        compile=compile,
    )


class EncodedWords(NamedTuple):
    """The words of a user, encoded with those of the background after them; and which of all these are things."""

    vocabulary: Vocabulary
    words: Words
    things: Bool[Tensor, " T"]


class Request(NamedTuple):
    """What is asked of every picture."""

    encoded: EncodedWords
    chosen: ChosenSettings
    per_pixel: bool = False


class Look(NamedTuple):
    """What a model emitted for a picture, and what it takes to read it.

    Args:
        raw: For the batch that the picture was in.
        number: The place of the picture there.
        frame: How maps get back to the picture.
        chosen: What was asked.
        picture: As the model saw it.
        encoded: The words, likewise.
    """

    raw: RawOutput
    number: int
    frame: Frame
    chosen: ChosenSettings
    picture: Whole
    encoded: EncodedWords


class TiledLook(NamedTuple):
    """What was read of a large picture's tiles."""

    reading: PixelReading
    picture: Tiled


class Segmenter:
    """Segments pictures by words.

    Args:
        model: On the device it shall run on.
        name: For the results.
        precision: What the image side runs in; words are always encoded in float32.
        text_tower: Fingerprint of the text tower, computed if None.
        cache: Folder for text embeddings, or None.
        batch: How many pictures of equal input size go through the model together.
        compile: See `load`.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str = "",
        precision: Precision = "float32",
        text_tower: str | None = None,
        cache: Path | None = None,
        batch: int = 1,
        compile: bool = False,
    ):
        self.model: Model = model.eval()
        self.name = name
        self.device: torch.device = next(model.parameters()).device
        self.precision: ChosenPrecision = choose_precision(precision, self.device)
        self.run: Callable[..., RawOutput] = compiled(model, self.device) if compile else model
        if not (isinstance(batch, int) and batch >= 1):
            raise ValueError(f"batch came as {batch!r}; expected a number of pictures, at least 1.")
        self.batch = batch
        fingerprint = text_tower or text_tower_fingerprint(model.state_dict())
        configuration = getattr(model, "config", None)  # a stand-in for a model may have none
        width = configuration.clip.width if configuration else None
        self.text: TextCache = TextCache(fingerprint, model.templates, cache, width=width)
        self.training_names: frozenset[str] = training_names(model)
        self._last_encoded: tuple[object, EncodedWords] | None = None

    def __repr__(self) -> str:
        about = ", ".join([*self.model.tasks, str(self.device), self.precision])
        return f"Segmenter({self.name or self.model.family!r}, {about})"

    @overload
    def __call__(
        self,
        pictures: Picture,
        words: AnyWords,
        settings: Settings = NO_SETTINGS,
        *,
        per_pixel: bool = False,
        **changed: Unpack[SettingsByName],
    ) -> Segmentation: ...

    @overload
    def __call__(
        self,
        pictures: Pictures[AnyPicture],
        words: AnyWords,
        settings: Settings = NO_SETTINGS,
        *,
        per_pixel: bool = False,
        **changed: Unpack[SettingsByName],
    ) -> list[Segmentation]: ...

    def __call__(
        self,
        pictures: Picture | Pictures[AnyPicture],
        words: AnyWords,
        settings: Settings = NO_SETTINGS,
        *,
        per_pixel: bool = False,
        **changed: Unpack[SettingsByName],
    ) -> Segmentation | list[Segmentation]:
        """Find what the words name in a picture, or in each picture of a list.

        Args:
            pictures: See `wordmask.image.read_picture`.
            words: See `Vocabulary.of`.
            settings: What is asked for, as one object …
            changed: … or by the names of its fields, which are described at `wordmask.settings.Settings`: task, keep,
                threshold, overlap, most, background, synonyms, tile, size.
            per_pixel: Also return every pixel's confidence, runner-up and the runner-up's confidence; not of instances.

        Raises:
            ValueError: A picture that can't be read, words or settings that make no sense.
        """
        request = self._request(words, replace(settings, **changed), per_pixel=per_pixel)
        if not isinstance(pictures, list | tuple):
            return self._steps(request).one(pictures)
        return [result_or_raise(result) for result in self._overlapping(pictures, request)]

    def stream(
        self,
        pictures: Iterable[Asked],
        words: AnyWords,
        settings: Settings = NO_SETTINGS,
        *,
        per_pixel: bool = False,
        **changed: Unpack[SettingsByName],
    ) -> Generator[Segmentation | Exception]:
        """Find what the words name in one picture after the other, of which there may be no end: results in the order
        asked.

        The next pictures are read and resized, and the results of those before are read out, in threads while the model
        runs. The model runs in the caller's thread, when the next result is asked for: hand long work with a result,
        such as saving it, to another thread. A picture that can't be read, or that the model fails at, gives its error
        in its place and disturbs no other. Pictures of equal input size go through the model together, `batch` of them
        at most; one waits for at most `2 · batch` later ones.

        Args:
            pictures: Taken from it a few at a time, in the caller's thread, and copied there, so that a buffer may be
                used again for the next. In place of a picture there may be a function that returns it: it is called in
                one of the threads.
            words: As `__call__` takes them.
            settings: Likewise.
            per_pixel: Likewise.
            changed: Likewise.

        Raises:
            ValueError: Words or settings that make no sense; at once, before a picture is read.
        """
        return self._overlapping(pictures, self._request(words, replace(settings, **changed), per_pixel=per_pixel))

    def look(
        self,
        picture: Picture,
        words: AnyWords,
        settings: Settings = NO_SETTINGS,
        **changed: Unpack[SettingsByName],
    ) -> Look:
        """Run the model on a picture; `read` makes a result of what it emitted.

        Args:
            picture: As `__call__` takes it.
            words: Likewise.
            settings: Likewise, but without tiles: it is one look at the whole picture.
            changed: Likewise.

        Raises:
            ValueError: As `__call__`.
        """
        request = self._request(words, replace(settings, **changed))
        if request.chosen.tile:
            raise ValueError(
                f"tile came as {request.chosen.asked.tile!r}; a look is one at the whole picture. Leave it out."
            )
        return self._run([prepared(picture, request.chosen.image_input)], request)[0]

    @precision_kept()
    @torch.inference_mode()
    def read(self, look: Look, *, per_pixel: bool = False) -> Segmentation:
        """Read what a model emitted for a picture.

        Args:
            per_pixel: As `__call__` takes it.

        Raises:
            ValueError: `per_pixel` of instances, which overlap.
        """
        check_per_pixel(look.chosen.task, asked=per_pixel)
        encoded = look.encoded
        reading = read(look.raw, look.number, look.frame, look.chosen, things=encoded.things, per_pixel=per_pixel)
        origin = self._origin(look.picture.read, encoded.vocabulary, look.chosen)
        return result_of(reading, origin, per_pixel=per_pixel)

    def _origin(self, read: Read, vocabulary: Vocabulary, chosen: ChosenSettings) -> Origin:
        return Origin(read.rgb, vocabulary, chosen, self.name, read.source, read.notes)

    def readings(
        self,
        picture: Picture,
        vocabulary: Vocabulary,
        tasks: Iterable[Task],
        settings: Settings = NO_SETTINGS,
        **changed: Unpack[SettingsByName],
    ) -> dict[Task, Segmentation]:
        """Look at a picture once, and read what the model says for each of several tasks.

        Args:
            settings: As `__call__` takes them; each goes to the tasks that it says something to.
            changed: Likewise.

        Raises:
            ValueError: As `__call__`.
        """
        settings = replace(settings, **changed)
        chosen: dict[Task, ChosenSettings] = {}
        for task in tasks:
            chosen[task] = self.check(vocabulary, settings.for_task(task))
        look = self.look(picture, vocabulary, next(iter(chosen.values())).asked)
        found: dict[Task, Segmentation] = {}
        for task, one in chosen.items():
            found[task] = self.read(look._replace(chosen=one))
        return found

    def check(
        self, words: AnyWords, settings: Settings = NO_SETTINGS, **changed: Unpack[SettingsByName]
    ) -> ChosenSettings:
        """Check settings, as `__call__` takes them, and choose what they leave open.

        Raises:
            ValueError: One makes no sense, or the model can't do it.
        """
        vocabulary = self._read_words(words)
        return replace(settings, **changed).chosen_for(self.model, vocabulary, name=self.name, precision=self.precision)

    def encode_words(
        self, vocabulary: Vocabulary, synonyms: Synonyms | None = None, background: Literal["other"] | None = None
    ) -> Words:
        """Encode words on the model's device, those of the background after them; the last ones asked for are at hand
        at once."""
        return self._encode(vocabulary, synonyms or self.model.synonyms, background or "none").words

    @precision_kept()
    @torch.inference_mode()
    def _encode(self, vocabulary: Vocabulary, synonyms: Synonyms, background: Background) -> EncodedWords:
        key = (vocabulary, synonyms, background)
        last = self._last_encoded  # read once: another thread may ask for other words meanwhile
        if last is None or last[0] != key:
            classes = Vocabulary(competing(vocabulary, background))
            words = encode_vocabulary(classes, synonyms, self._vectors, training_names=self.training_names)
            things = torch.tensor([entry.thing for entry in classes], device=self.device)
            words = Words(*(tensor.to(self.device) for tensor in words))
            last = self._last_encoded = (key, EncodedWords(vocabulary, words, things))
        return last[1]

    def _vectors(self, phrases: list[str]) -> Tensor:
        return self.text.encode(phrases, self.model.encode_text)

    def _read_words(self, words: AnyWords) -> Vocabulary:
        vocabulary = Vocabulary.read(words, self.model.vocabularies)
        warn_of_doubt(vocabulary, words, self)
        return vocabulary

    def _request(self, words: AnyWords, settings: Settings, *, per_pixel: bool = False) -> Request:
        vocabulary = self._read_words(words)
        chosen = self.check(vocabulary, settings)
        check_per_pixel(chosen.task, asked=per_pixel)
        return Request(self._encode(vocabulary, chosen.synonyms, chosen.background), chosen, per_pixel)

    def _overlapping(self, pictures: Iterable[Asked], request: Request) -> Generator[Segmentation | Exception]:
        taken = map(take, pictures)  # in the caller's thread, before the next one is asked for
        if request.chosen.tile:  # pictures that are worth tiles fill the memory
            return overlapping(taken, self._steps(request), group=1, threads=1)
        return overlapping(taken, self._steps(request), group=self.batch, threads=thread_count())

    def _steps(self, request: Request) -> Steps[Asked | Taken, Whole | Tiled, Look | TiledLook, Segmentation]:
        """Padding to a common size would change what a model sees, so that only pictures of equal input size go
        together."""
        chosen = request.chosen

        def run(group: list[Whole | Tiled]) -> list[Look | TiledLook]:
            whole = [ready for ready in group if isinstance(ready, Whole)]
            tiled = [ready for ready in group if isinstance(ready, Tiled)]
            return [*(self._run(whole, request) if whole else []), *(self._run_tiles(one, request) for one in tiled)]

        def finish(look: Look | TiledLook) -> Segmentation:
            if isinstance(look, Look):
                return self.read(look, per_pixel=request.per_pixel)
            origin = self._origin(look.picture.read, request.encoded.vocabulary, chosen)
            return result_of(look.reading, origin, per_pixel=request.per_pixel)

        return Steps(
            prepare=lambda picture: prepared_or_tiled(picture, chosen.image_input, chosen.tile),
            kind=lambda ready: ready.pixels.shape if isinstance(ready, Whole) else "tiles",
            run=run,
            finish=finish,
        )

    @precision_kept()
    @torch.inference_mode()
    def _run(self, group: list[Whole], request: Request) -> list[Look]:
        pixels = stacked([ready.pixels for ready in group], self.device)
        encoded, chosen = request.encoded, request.chosen
        with self.autocast():
            raw = self.run(pixels, encoded.words, **chosen.choice)
        return [Look(raw, number, ready.frame, chosen, ready, encoded) for number, ready in enumerate(group)]

    @precision_kept()
    @torch.inference_mode()
    def _run_tiles(self, large: Tiled, request: Request) -> TiledLook:
        """Run a large picture row by row of its tiles; the next ones are prepared in threads."""
        steps: Steps[Box, Whole, Look, TileMaps] = Steps(
            prepare=lambda box: prepared(Taken(large.read.rgb[box], None), request.chosen.image_input),
            kind=lambda ready: ready.pixels.shape,
            run=lambda group: self._run(group, request),
            finish=lambda look: read_tile(look.raw, look.number, look.frame),
        )

        def look(row: int) -> list[TileMaps]:
            tiles = overlapping(large.grid.boxes(row), steps, group=self.batch, threads=thread_count())
            return [result_or_raise(maps) for maps in tiles]

        return TiledLook(read_tiles(large.grid, look, classes=len(request.encoded.things)), large)

    def autocast(self) -> AbstractContextManager[object]:
        """What the image side runs in."""
        half = self.precision != "float32"
        return torch.autocast(self.device.type, getattr(torch, self.precision) if half else None, enabled=half)


def check_per_pixel(task: Task, *, asked: bool) -> None:
    """Raise a ValueError if values per pixel are asked for where there are none."""
    if asked and task == "instance":
        raise ValueError("per_pixel came as True; instances overlap and have no values per pixel. Leave it out.")


def training_names(model: Model) -> frozenset[str]:
    """What a model was trained to segment, as `same_phrase` writes it; empty where that makes no difference to it."""
    if not model.training_vocabulary:
        return frozenset()
    trained_on = Vocabulary.of(model.training_vocabulary, model.vocabularies)
    return frozenset(same_phrase(name) for entry in trained_on for name in entry.names)
