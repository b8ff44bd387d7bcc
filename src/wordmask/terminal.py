"""What a person at a terminal sees of the work: lines, and a sign of life while something is loaded."""

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer

from wordmask.words import WordList

NAMES_SHOWN = 8  # of what is looked for
FIRST = 4  # names of a longer list
# what a terminal obeys instead of showing it: control characters, and those that turn the direction of text
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def say(line: str, *, err: bool = False) -> None:
    """Print a line, to standard error if `err`; a reader who has left (`| head`) doesn't stop the work.

    Names of files may hold control characters: they are shown as escapes, and do nothing.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        typer.echo(harmless(line), file=stream)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def harmless(text: str) -> str:
    """Text with escapes instead of characters that a terminal would obey; lines stay lines."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(text: object) -> str:
    """A name, or what is said of one, on a line of its own: a name may hold ends of lines, too."""
    return harmless(str(text)).replace("\n", r"\n")


def listed(names: list[str]) -> str:
    """The first of some names; … stands for more."""
    return ", ".join(names[:FIRST]) + (", …" if len(names) > FIRST else "")


def take_over_notes() -> None:
    """Leave the warnings about pictures to `say_notes`, in this process."""
    from wordmask.decoded import PictureNote

    warnings.simplefilter("ignore", PictureNote)


def say_notes(notes: Mapping[str, list[str]]) -> None:
    """Say what was assumed or left out when pictures were read: text → the pictures it is said of."""
    for text, pictures in notes.items():
        more = f" and {counted(len(pictures) - 1, 'other')}" if len(pictures) > 1 else ""
        say(f"note: {on_one_line(pictures[0])}{more}: {on_one_line(text)}", err=True)


def counted(number: int, thing: str) -> str:
    """1, "word" → "1 word"; 3, "word" → "3 words"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@contextmanager
def busy(line: str) -> Iterator[None]:
    """Show a line that moves until the block ends, on a terminal; imports that take their time belong into the
    block."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(on_one_line(line))):  # a name may look like rich's markup
        yield


def announce(pictures: int, words: WordList) -> None:
    """Say what was understood, so that a word taken for a picture is seen at once, and classes that became one."""
    shown = [on_one_line(word) for word in words.names]
    names = shown if len(words) <= NAMES_SHOWN else [*shown[: NAMES_SHOWN - 1], "…"]
    say(f"{counted(pictures, 'picture')} · {counted(len(words), 'word')}: {', '.join(names)}", err=True)
    say_doubt(words)


def say_doubt(words: WordList) -> None:
    """Say how words were understood, where they may have been meant otherwise."""
    if words.doubt:
        say(f"note: {words.doubt}", err=True)
