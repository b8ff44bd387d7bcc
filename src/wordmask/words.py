"""Words without torch: what a user writes, in a list, a string or a file → classes in order, with synonyms and kinds.

Needs the standard library alone, and nothing else of wordmask: `wordmask export` copies this file beside the graphs.
"""

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_CLASSES = 65535
WORD_FILES = (".txt", ".json")
COMMENT = re.compile(r"(?:^|\s)#.*$")
KIND_MARK = re.compile(r"\s*\[(stuff|thing)\]\s*,?\s*$", re.IGNORECASE)
OTHER_MARK = re.compile(r"\[[^\[\]]*\]$")
BUILTIN_LIKE = re.compile(r"([a-z-]+/)?[a-z0-9-]+-\d+[a-z]?")


@dataclass(frozen=True)
class WordClass:
    """One class: its name, further synonyms, and whether its instances are counted (a thing) or merged (stuff)."""

    names: tuple[str, ...]
    thing: bool
    dataset_id: int | None = None

    @property
    def name(self) -> str:
        return self.names[0]

    def is_among(self, phrases: Collection[str]) -> bool:
        """Tell whether one of its names is among phrases, which are as `same_phrase` writes them."""
        return any(same_phrase(name) in phrases for name in self.names)


@dataclass(frozen=True)
class WordList:
    """Classes in order; the index of a class is its label."""

    classes: tuple[WordClass, ...]
    title: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("No words were given. Name at least one thing to look for, such as: road, car, sky.")
        if len(self.classes) > MOST_CLASSES:
            raise ValueError(
                f"{len(self.classes)} words were given; a label map of 16 bits holds {MOST_CLASSES}. Split them."
            )

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[WordClass]:
        return iter(self.classes)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]


def same_phrase(phrase: str) -> str:
    """Return what two spellings of a phrase share: CLIP's tokeniser ignores case and spacing, so do we."""
    return " ".join(phrase.split()).lower()


def means_builtin(words: str, builtin: Collection[str]) -> bool:
    """Tell whether a string is the name of a built-in vocabulary, or a misspelt one: "ade20k-151", not "covid-19"."""
    name = words.strip().lower()
    if words.strip() in builtin:
        return True
    return bool(BUILTIN_LIKE.fullmatch(name) and difflib.get_close_matches(name, builtin, n=1, cutoff=0.8))


def read_words(words: str | Path | Iterable[str], stuff: Collection[str]) -> WordList:
    """Read words in any form a user may write them, but the names of built-in vocabularies.

    Args:
        words: A list with one class an entry; a string with `;` between classes; or a file (`Path`, or a string that
            ends in .txt or .json). Commas separate synonyms, and `[stuff]` or `[thing]` after the last one says the
            kind: "snow drift, snow [stuff]".
        stuff: Words that are not counted if their kind is not said, as `same_phrase` writes them.

    Raises:
        ValueError: No words, a blank one, the same one twice, or a file that does not exist.
    """
    if isinstance(words, Path):
        return read_file(words, stuff)
    if isinstance(words, str):
        if words.strip().lower().endswith(WORD_FILES):
            return read_file(Path(words.strip()), stuff)
        if not words.strip():
            raise ValueError(
                f"No words were given ({words!r}). Name at least one thing to look for, such as: road, car, sky."
            )
        words = [words]
    if not isinstance(words, Iterable):
        raise ValueError(f"The words came as {words!r}; expected a list of strings, a string, or a file.")
    return WordList(_parse(words, stuff))


def read_file(path: Path, stuff: Collection[str]) -> WordList:
    """Read a file: text with one class a line (`#` starts a comment), or json as the built-in ones are written.

    Raises:
        ValueError: The file does not exist, is not text, or holds no words.
    """
    content = _content(path)
    if isinstance(content, dict):
        found = from_json(content, str(path), stuff)
        _check_distinct([entry.names for entry in found])
        return found
    if not isinstance(content, list):
        raise ValueError(
            f"The words file {str(path)!r} holds {type(content).__name__}; expected a list of words or "
            "{'classes': …}."
        )
    lines = [COMMENT.sub("", line) if isinstance(line, str) else line for line in content]
    lines = [line for line in lines if not isinstance(line, str) or line.strip()]
    if not lines:
        raise ValueError(
            f"The words file {str(path)!r} holds no words. Write one class a line, synonyms separated by commas."
        )
    return WordList(_parse(lines, stuff), title=path.name)


def from_json(content: dict[str, Any], origin: str, stuff: Collection[str]) -> WordList:
    """Read {'classes': [{'names': ['car', 'automobile'], 'thing': true}, …]}; two classes may have the same name.

    Raises:
        ValueError: It is written otherwise.
    """
    entries = content.get("classes")
    if not isinstance(entries, list) or not all(_has_names(entry) for entry in entries):
        raise ValueError(
            f"{origin!r} is not a vocabulary: expected {{'classes': [{{'names': ['car', 'automobile']}}, …]}}."
        )
    if not all(isinstance(entry.get("thing", True), bool) for entry in entries):
        raise ValueError(f"{origin!r} has a class whose 'thing' is neither true nor false.")
    classes = []
    for entry in entries:
        names = tuple(_clean(name, f"class {len(classes) + 1} of {origin!r}") for name in entry["names"])
        thing = entry.get("thing", same_phrase(names[0]) not in stuff)
        classes.append(WordClass(names, thing, entry.get("dataset_id")))
    return WordList(tuple(classes), content.get("name", origin), content.get("source", ""), content.get("licence", ""))


def _content(path: Path) -> object:
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except FileNotFoundError:
        raise ValueError(
            f"The words file {str(path)!r} does not exist. Write one class a line, synonyms separated by commas."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The words file {str(path)!r} cannot be read: {error}. Expected UTF-8 text or json."
        ) from None


def _has_names(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("names"), list) and bool(entry["names"])


def _parse(words: Iterable[str], stuff: Collection[str]) -> tuple[WordClass, ...]:
    entries = []
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"Word {len(entries) + 1} is {word!r} ({type(word).__name__}); expected a string.")
        entries.extend(_split(word, ";"))
    classes = [_read_class(entry, f"word {n} of {len(entries)}", stuff) for n, entry in enumerate(entries, 1)]
    _check_distinct([entry.names for entry in classes])
    return tuple(classes)


def _read_class(entry: str, where: str, stuff: Collection[str]) -> WordClass:
    kind = KIND_MARK.search(entry)
    names = tuple(_clean(name, where) for name in _split(KIND_MARK.sub("", entry), ","))
    if any(KIND_MARK.search(name) for name in names):
        raise ValueError(
            f"{entry.strip()!r} says its kind in the middle. Write [stuff] or [thing] after the last name."
        )
    if any(OTHER_MARK.search(name) for name in names):
        raise ValueError(
            f"{entry.strip()!r} has an unknown mark. Expected [stuff] or [thing], once, after the last name."
        )
    return WordClass(names, kind[1].lower() == "thing" if kind else same_phrase(names[0]) not in stuff)


def _split(text: str, separator: str) -> list[str]:
    """Split, forgiving one separator at the end."""
    parts = text.split(separator)
    return parts[:-1] if len(parts) > 1 and not parts[-1].strip() else parts


def _check_distinct(classes: list[tuple[str, ...]]) -> None:
    seen: dict[str, int] = {}
    for number, names in enumerate(classes, 1):
        for name in names:
            first = seen.setdefault(same_phrase(name), number)
            if first != number or sum(same_phrase(other) == same_phrase(name) for other in names) > 1:
                places = f"as word {first} and as word {number}" if first != number else f"in word {number}"
                raise ValueError(
                    f"The word {name!r} is given twice: {places}. Leave one out; commas separate synonyms of one class."
                )


def _clean(name: str, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"A name in {where} is blank ({name!r}). Leave it out, or write a word there.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"A name in {where} is no text that can be read ({name!r}). Write it in UTF-8.") from None
    return " ".join(name.split())
