"""Vocabularies: the user's words, read as `words` does, or a benchmark's that come with the package."""

import difflib
import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from wordmask.words import WordList, from_json, means_builtin, read_file, read_words, same_phrase, warn_of_doubt
from wordmask.writing import JsonObject

Synonyms = Literal["first", "mean", "each"]  # what becomes of a class with several names; see `text.encode_vocabulary`

# the papers evaluate with different names; a plain built-in name means the first that has it
VARIANTS = ("err-seg", "eov-seg")
HOMES = (*VARIANTS, "shapeland")
# the benchmarks that tell stuff from things
DECLARE_KINDS = ("ade20k-150", "coco-panoptic-133", "coco-stuff-171", "cityscapes-19")


class Vocabulary(WordList):
    """Classes in order; the index of a class is its label.

    Built-in vocabularies may name two classes alike (A-847 does); what a user writes may not, see `of`.
    """

    def to_list(self) -> list[JsonObject]:
        """Describe the classes in plain values, in the order of their labels, as in the json of a result."""
        return [
            {"label": label, "names": list(entry.names), "thing": entry.thing}
            for label, entry in enumerate(self.classes)
        ]

    @classmethod
    def of(cls, words: "WordList | str | Path | Iterable[str]", variant: str | None = None) -> "Vocabulary":
        """Read words in any form a user may write them.

        Warns (`words.WordsWarning`) where they look like several classes and are one.

        Args:
            words: A `Vocabulary`; a list with one class an entry; a string with `;` or line breaks between classes; the
                name of a built-in vocabulary, `ade20k-150`; or a file (`Path`, or a string that ends in .txt or .json).
                Commas separate synonyms, and `[stuff]` or `[thing]` after the last one says the kind: "snow drift, snow
                [stuff]".
            variant: `err-seg` or `eov-seg`: whose names a plain built-in name means.

        Raises:
            ValueError: No words, a blank one, the same one twice, a set or a dict, or a name or file that does not
                exist.
        """
        found = cls.read(words, variant)
        warn_of_doubt(found, words)
        return found

    @classmethod
    def read(cls, words: "WordList | str | Path | Iterable[str]", variant: str | None = None) -> "Vocabulary":
        """Read words as `of` does, without a warning: for who says `doubt` in another way."""
        if isinstance(words, Vocabulary):
            return words
        if isinstance(words, str) and means_builtin(words, builtin_names()):
            return cls.builtin(words.strip(), variant)
        return cls._from_list(read_words(words, stuff_words()))

    @classmethod
    def from_file(cls, path: Path, *, counted: bool = False) -> "Vocabulary":
        """Read a file: text with one class a line, or json as the built-in ones are written.

        A line that starts with `#`, or what follows `#` after two spaces, is a comment.

        Args:
            counted: The place of a line is the value of its class in label maps: blank lines are refused.

        Raises:
            ValueError: The file does not exist, is not text, or holds no words, or numbers that are not 0, 1, 2 ….
        """
        return cls._from_list(read_file(Path(path), stuff_words(), counted=counted))

    def with_names_for(self, asked: "WordList | str | Path | Iterable[str]", variant: str | None) -> "Vocabulary":
        """The same words, as a model knows them whose paper has names of its own: if `asked`, of which they were read,
        is a built-in name."""
        if isinstance(asked, str) and asked.strip() in builtin_names():
            return Vocabulary.builtin(asked.strip(), variant)
        return self

    @classmethod
    def builtin(cls, name: str, variant: str | None = None) -> "Vocabulary":
        """Load a benchmark's class names: `ade20k-150`, or with its family `eov-seg/ade20k-150`.

        Raises:
            ValueError: No such vocabulary; the message has the near matches.
        """
        if name not in builtin_names():
            near = difflib.get_close_matches(name.lower(), builtin_names(), n=3, cutoff=0.4)
            raise ValueError(
                f"There is no vocabulary {name!r}. Did you mean "
                f"{' or '.join(near) or 'one of ' + ', '.join(builtin_names())}?"
            )
        if "/" not in name:
            homes = [variant, *HOMES] if variant else HOMES
            name = next(f"{home}/{name}" for home in homes if f"{home}/{name}" in builtin_names())
        return cls._from_list(from_json(_builtin_content(name.replace("/", ".")), name, stuff_words()))

    @classmethod
    def _from_list(cls, words: WordList) -> "Vocabulary":
        return cls(words.classes, words.title, words.source, words.licence)


@cache
def builtin_names() -> tuple[str, ...]:
    """Every name that `Vocabulary.builtin` takes: plain ones first, then with their family."""
    stems = sorted(
        entry.name.removesuffix(".json") for entry in _builtin_folder().iterdir() if entry.name.endswith(".json")
    )
    plain = sorted({stem.split(".", 1)[1] for stem in stems})
    return (*plain, *(stem.replace(".", "/", 1) for stem in stems))


@cache
def stuff_words() -> frozenset[str]:
    """Every name that a benchmark with things and stuff calls stuff, as `same_phrase` writes it; others are things."""
    stuff: set[str] = set()
    for benchmark in DECLARE_KINDS:
        for entry in _builtin_content(f"eov-seg.{benchmark}")["classes"]:
            if not entry["thing"]:
                stuff.update(same_phrase(name) for name in entry["names"])
    return frozenset(stuff)


def _builtin_content(stem: str) -> dict:
    return json.loads(_builtin_folder().joinpath(f"{stem}.json").read_text(encoding="utf-8"))


def _builtin_folder() -> Traversable:
    return resources.files("wordmask") / "data" / "vocabularies"
