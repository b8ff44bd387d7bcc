"""What a person at a terminal sees of the work: lines, and a sign of life while something is loaded."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from wordmask.words import WordList

NAMES_SHOWN = 8  # of what is looked for


def say(line: str, *, err: bool = False) -> None:
    """Print a line, to standard error if `err`; a reader who has left (`| head`) doesn't stop the work."""
    stream = sys.stderr if err else sys.stdout
    try:
        typer.echo(line, file=stream)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def announce(pictures: int, words: WordList) -> None:
    """Say what was understood, so that a word taken for a picture is seen at once, and classes that became one."""
    names = words.names if len(words) <= NAMES_SHOWN else [*words.names[: NAMES_SHOWN - 1], "…"]
    say(f"{counted(pictures, 'picture')} · {counted(len(words), 'word')}: {', '.join(names)}", err=True)
    say_doubt(words)


def say_doubt(words: WordList) -> None:
    """Say how words were understood, where they may have been meant otherwise."""
    if words.doubt:
        say(f"note: {words.doubt}", err=True)
