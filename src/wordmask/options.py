"""The options that several commands share: each is declared once, and a command gets them as objects."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer

from wordmask.model_choice import ModelChoice
from wordmask.settings import DEFAULT_MOST, DEFAULT_OVERLAP, Settings, Task
from wordmask.sources import split_pictures_and_words
from wordmask.vocabulary import Synonyms, Vocabulary, builtin_names

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]  # `hardware.Precision`, which needs torch
Precision = Annotated[PrecisionName, typer.Option(help="Of the image side; auto: bfloat16 where the hardware has it.")]
Overlap = Annotated[
    float | None,
    typer.Option(min=0, max=1, help=f"Panoptic: the share of its pixels a mask must win; {DEFAULT_OVERLAP}."),
]
Most = Annotated[
    int | None, typer.Option(min=1, help=f"Instance: how many pairs of mask and class are looked at; {DEFAULT_MOST}.")
]
FolderKeys = Annotated[
    list[str] | None,
    typer.Option("--reading", help="How your own folder is read: KEY=VALUE, such as unlabelled=background."),
]


@dataclass(frozen=True)
class WordOptions:
    """Words that are not listed as arguments."""

    words: Annotated[
        str | None, typer.Option(help='Words in one string, instead of WORD...: "road; car, automobile; sky".')
    ] = None
    words_file: Annotated[
        Path | None, typer.Option(help="A file with one class a line, synonyms separated by commas.")
    ] = None
    vocabulary: Annotated[
        str | None, typer.Option(help="A built-in list, such as ade20k-150; see `wordmask vocabularies`.")
    ] = None

    def chosen(self, listed: list[str], *, after: list[str]) -> list[str] | Path | str:
        """Take the words, whichever way they came, as `Vocabulary.of` reads them.

        Args:
            listed: The words among the arguments.
            after: The arguments before them.

        Raises:
            ValueError: No words, words in two ways, or no such built-in list.
        """
        ways = {"--words": self.words, "--words-file": self.words_file, "--vocabulary": self.vocabulary}
        given = {name: value for name, value in ways.items() if value is not None}
        if len(given) + bool(listed) > 1:
            named = [*(["WORD... " + ", ".join(map(repr, listed))] if listed else []), *given]
            raise ValueError(
                f"The words came in {len(named)} ways: {' and '.join(named)}. Give them in one. "
                "(What is no picture is read as a word.)"
            )
        if not given and not listed and after:
            raise ValueError(
                f"No words were given after {', '.join(map(repr, after))}. Add what to look for: wordmask segment "
                "street.jpg road sky. A word that is also a folder here goes into --words."
            )
        if self.vocabulary is not None and self.vocabulary not in builtin_names():
            Vocabulary.builtin(self.vocabulary)  # raises, with the near matches
        return next(iter(given.values()), listed)

    def told_apart(self, arguments: list[str]) -> tuple[list[str], list[str] | Path | str]:
        """Tell pictures from words among arguments, and take the words, whichever way they came.

        Raises:
            ValueError: As `chosen`; or no pictures.
        """
        pictures, listed = split_pictures_and_words(arguments)
        words = self.chosen(listed, after=pictures)
        if not pictures:
            raise ValueError(
                f"No picture was given: no existing file, folder or glob among {', '.join(map(repr, arguments))}, "
                "which were read as words."
            )
        return pictures, words


@dataclass(frozen=True)
class ModelOptions:
    """Which model looks, on what, and what is asked of it."""

    model: Annotated[str, typer.Option("--model", "-m", help="A preset, a checkpoint file, or a hub id.")] = (
        "err-seg-base"
    )
    task: Annotated[
        Task | None,
        typer.Option(help="EOV-Seg does all (panoptic if left out), ERR-Seg is semantic."),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    keep: Annotated[int | None, typer.Option(min=1, help="ERR-Seg: how many classes are refined for each picture.")] = (
        None
    )
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out what is less probable: pixels, segments or instances.")
    ] = Settings.threshold
    overlap: Overlap = None
    most: Most = None
    background: Annotated[
        Literal["other"] | None,
        typer.Option(help="other: let everyday things compete; what they win is unlabelled."),
    ] = None
    synonyms: Annotated[
        Synonyms | None, typer.Option(help="A class is its first name, the mean of all, or the best of each.")
    ] = None
    tile: Annotated[
        str | None,
        typer.Option(help="Semantic: see large pictures in tiles of so many pixels; auto: nothing is shrunk."),
    ] = None

    @property
    def choice(self) -> ModelChoice:
        return ModelChoice(self.model, self.device, self.precision)

    @property
    def settings(self) -> Settings:
        """What is asked of the model.

        Raises:
            ValueError: It makes no sense.
        """
        tile = int(self.tile) if self.tile and self.tile.isdecimal() else self.tile
        return Settings(
            task=self.task,
            keep=self.keep,
            threshold=self.threshold,
            overlap=self.overlap,
            most=self.most,
            background=self.background,
            synonyms=self.synonyms,
            tile=tile,  # pyright: ignore[reportArgumentType]  # `Settings` checks it
        )


def with_shared_options(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take dataclasses of options, such as `WordOptions`.

    Typer makes a command from a function's signature, in which every parameter is one option: it knows no dataclasses.
    So it gets another function, in whose signature the fields of the dataclass stand in place of the parameter; their
    annotations say which options they are. Called with the values of all options, that function makes the dataclass
    from those of its fields, and calls the command.

    Args:
        without: Fields that the command has no option for: they keep their default.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = signature(command).parameters.values()
        options = {parameter.name: _options_of(parameter, without) for parameter in own}

        @wraps(command)
        def called(**values: object) -> None:
            for parameter in own:
                if _is_group(parameter):
                    fields = {option.name: values.pop(option.name) for option in options[parameter.name]}
                    values[parameter.name] = parameter.annotation(**fields)
            command(**values)

        shown = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in chain(*options.values())]
        # `inspect.signature` reads it
        called.__signature__ = Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
        called.__annotations__ = {option.name: option.annotation for option in shown}
        return called

    return wrap


def _is_group(parameter: Parameter) -> bool:
    return isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)


def _options_of(parameter: Parameter, without: tuple[str, ...]) -> list[Parameter]:
    if not _is_group(parameter):
        return [parameter]
    return [field for field in signature(parameter.annotation).parameters.values() if field.name not in without]
