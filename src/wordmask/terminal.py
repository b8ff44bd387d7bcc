"""What a person at a terminal sees of the work: lines, and a sign of life while something is loaded."""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer

NAMES_SHOWN = 8  # of what is looked for


def say(line: str, *, err: bool = False) -> None:
    """Print a line, to standard error if `err`; a reader who has left (`| head`) doesn't stop the work."""
    stream = sys.stderr if err else sys.stdout
    try:
        typer.echo(line, file=stream)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def take_over_notes() -> None:
    """Leave the warnings about pictures to `say_notes`, in this process."""
    from wordmask.decoded import PictureNote

    warnings.simplefilter("ignore", PictureNote)


def say_notes(notes: Mapping[str, list[str]]) -> None:
    """Say what was assumed or left out when pictures were read: text → the pictures it is said of."""
    for text, pictures in notes.items():
        more = f" and {counted(len(pictures) - 1, 'other')}" if len(pictures) > 1 else ""
        say(f"note: {pictures[0]}{more}: {text}", err=True)


def counted(number: int, thing: str) -> str:
    """1, "word" → "1 word"; 3, "word" → "3 words"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@contextmanager
def busy(line: str) -> Iterator[None]:
    """Show a line that moves until the block ends, on a terminal; imports that take their time belong into the
    block."""
    from rich.console import Console

    with Console(stderr=True).status(line):
        yield


def announce(pictures: int, words: list[str]) -> None:
    """Say what was understood, so that a word taken for a picture is seen at once."""
    names = words if len(words) <= NAMES_SHOWN else [*words[: NAMES_SHOWN - 1], "…"]
    say(f"{counted(pictures, 'picture')} · {counted(len(words), 'word')}: {', '.join(names)}", err=True)
