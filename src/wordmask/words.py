"""Words without torch: what a user writes, in a list, a string or a file → classes in order, with synonyms and kinds.

Needs the standard library alone, and two files of wordmask: `wordmask export` copies them too beside the graphs.
"""

import difflib
import json
import re
import sys
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .file_names import looks_like_file
from .word_lines import LINE_BREAK, read_lines, read_text, spelled, without_numbers

MOST_CLASSES = 65535
WORD_FILES = (".txt", ".json")
# a comment of a file in which two classes may have a name in common, as those of some benchmarks have
NAMES_SHARED = "# some classes share a name"
STRAIGHT = str.maketrans("\u02bc\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "'" * 5 + '"' * 4)
# how other tools and scripts separate words: GroundingDINO's dots, bars, slashes; a \n that a shell left as it was
SEPARATES_ELSEWHERE = re.compile(r"\s\.\s|[^\W\d_]{3}\.\s.*\.$|\||\s/\s|\\n|[\u3001\u060c\u2022]")
# … and what may as well belong to a word, but where it is the only one
MAY_SEPARATE = re.compile(r"[^\W\d_]{2}/[^\W\d_]{2}|[^\W\d_]{3}\.\s")
KIND_MARK = re.compile(r"\s*\[(stuff|thing)\]\s*,?\s*$", re.IGNORECASE)
OTHER_MARK = re.compile(r"\[[^\[\]]*\]$")
MOST_LISTED = 8  # names in a sentence
BUILTIN_LIKE = re.compile(r"([a-z-]+/)?[a-z0-9-]+-\d+[a-z]?")


class WordsWarning(UserWarning):
    """Words were understood in one way, and may have been meant in another: `WordList.doubt`."""


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

    @property
    def doubt(self) -> str:
        """How the words were understood, where they look like several classes that became one; empty elsewhere.

        Of several classes the names are looked at; a single one is doubtful if it has synonyms.
        """
        first, also = self.classes[0].name, self.classes[0].names[1:]
        if len(self) == 1 and (also or MAY_SEPARATE.search(first)):
            called = f", also called {_listed(also)}" if also else ""
            return f"1 word: {first}{called} — write ; between classes"
        for entry in self.classes:
            if any(SEPARATES_ELSEWHERE.search(name) for name in entry.names):
                which = "1 word" if len(self) == 1 else f"1 of {len(self)} words"
                return f"{which}: {_listed(entry.names)} — write ; between classes"
        return ""


def warn_of_doubt(words: WordList, given: object, asker: object = None) -> None:
    """Warn where we were called from if words that were read of `given` may have been meant otherwise.

    Args:
        asker: Who remembers that it was told, and isn't told again of the same words.
    """
    told: set[str] = set() if asker is None else vars(asker).setdefault("doubts_told", set())
    if not words.doubt or words is given or words.doubt in told:
        return
    told.add(words.doubt)
    frame, level = sys._getframe(), 1
    while frame.f_back and Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent):
        frame, level = frame.f_back, level + 1
    warnings.warn(words.doubt, WordsWarning, stacklevel=level)


def print_doubt(words: WordList) -> None:
    """Print the doubt of words, if there is any, where errors are printed."""
    if words.doubt:
        print(f"note: {words.doubt}", file=sys.stderr)


def same_phrase(phrase: str) -> str:
    """Return what all spellings of a phrase share that CLIP's tokeniser can't tell apart, or a reader can't."""
    return " ".join(spelled(phrase).translate(STRAIGHT).split()).lower()


def means_builtin(words: str, builtin: Collection[str]) -> bool:
    """Tell whether a string is the name of a built-in vocabulary, or a misspelt one: "ade20k-151", not "covid-19"."""
    name = words.strip().lower()
    if words.strip() in builtin:
        return True
    return bool(BUILTIN_LIKE.fullmatch(name) and difflib.get_close_matches(name, builtin, n=1, cutoff=0.8))


def refuse_files(words: Iterable[str]) -> None:
    """Raise an error if a word looks like a file."""
    for word in words:
        if looks_like_file(word):
            raise ValueError(
                f"{word!r} looks like a file, not a word. One picture is looked at at a time; a file that lists the "
                f"words: give it as --words-file {word}."
            )


def read_words(words: WordList | str | Path | Iterable[str], stuff: Collection[str]) -> WordList:
    """Read words in any form a user may write them, but the names of built-in vocabularies.

    Args:
        words: A list with one class an entry; a string with `;` or line breaks between classes; or a file (`Path`, or a
            string that ends in .txt or .json). Commas separate synonyms, and `[stuff]` or `[thing]` after the last one
            says the kind: "snow drift, snow [stuff]".
        stuff: Words that are not counted if their kind is not said, as `same_phrase` writes them.

    Raises:
        ValueError: No words, a blank one, the same one twice, a collection without an order, or a file that does not
            exist.
    """
    if isinstance(words, WordList):
        return words
    if isinstance(words, Path):
        return read_file(words, stuff)
    if isinstance(words, str):
        if words.strip().lower().endswith(WORD_FILES) and not LINE_BREAK.search(words.strip()):
            return read_file(Path(words.strip()), stuff)
        if not spelled(words).strip():
            raise ValueError(
                f"No words were given ({words!r}). Name at least one thing to look for, such as: road, car, sky."
            )
        if ";" not in words and looks_like_file(words):
            raise ValueError(
                f"The words came as {words!r}, which looks like a file. Give the words; or their file, as a Path or "
                f"ending in .txt or .json. If it is a word, write {words.strip() + ';'!r}."
            )
        words = [words]
    return WordList(_parse(_in_order(words), stuff))


def read_file(path: Path, stuff: Collection[str], *, counted: bool = False) -> WordList:
    """Read a file: text with one class a line, as `word_lines.read_lines` takes it, or json as the built-in ones are
    written.

    Args:
        counted: The place of a line is the value of its class in label maps.

    Raises:
        ValueError: The file does not exist, is not text, holds no words, or lines that can't be told.
    """
    name = f"The words file {str(path)!r}"
    text = _content(path, name)
    content: object = _json(text, name) if path.suffix.lower() == ".json" else read_lines(text, name, counted=counted)
    if isinstance(content, dict):
        found = from_json(content, str(path), stuff)
        _check_distinct([entry.names for entry in found])
        return found
    if not isinstance(content, list):
        raise ValueError(f"{name} holds {type(content).__name__}; expected a list of words or {{'classes': …}}.")
    if not content:
        raise ValueError(f"{name} holds no words. Write one class a line, synonyms separated by commas.")
    return WordList(_parse(content, stuff, shared=NAMES_SHARED in text), title=path.name)


def write_lines(words: WordList) -> Iterator[str]:
    """Write words as `read_file` reads them."""
    names = [same_phrase(name) for entry in words for name in entry.names]
    if len(set(names)) < len(names):
        yield NAMES_SHARED
    for entry in words:
        yield f"{', '.join(entry.names)} [{'thing' if entry.thing else 'stuff'}]"


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


def _content(path: Path, name: str) -> str:
    try:
        return read_text(path, name)
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist. Write one class a line, synonyms separated by commas.") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error}. Expected UTF-8 text or json.") from None


def _json(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the former also of a number with thousands of digits
        raise ValueError(f"{name} cannot be read: {error}. Expected UTF-8 text or json.") from None


def _in_order(words: object) -> Iterable[object]:
    """What may hold words, if it holds them in an order: the place of a word is its label."""
    if isinstance(words, set | frozenset):
        raise ValueError(
            "The words came as a set, which has no order, and the place of a word is its label. Give a list, such as "
            "sorted(words)."
        )
    if isinstance(words, Mapping):
        raise ValueError(
            "The words came as a dict, whose keys or values may be labels. Give a list: list(words), or "
            "list(words.values()), in the order of the labels."
        )
    if not isinstance(words, Iterable) or isinstance(words, bytes | bytearray):
        raise ValueError(f"The words came as {words!r}; expected a list of strings, a string, or a file.")
    return words


def _has_names(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("names"), list) and bool(entry["names"])


def _parse(words: Iterable[object], stuff: Collection[str], *, shared: bool = False) -> tuple[WordClass, ...]:
    """Read classes from entries; `shared`: they may have names in common."""
    entries: list[str] = []
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"Word {len(entries) + 1} is {word!r} ({type(word).__name__}); expected a string.")
        for line in _lines_of(spelled(word)):
            entries.extend(_split(line, ";"))
    entries = without_numbers(entries, "The list of words")
    classes = [_read_class(entry, f"word {n} of {len(entries)}", stuff) for n, entry in enumerate(entries, 1)]
    if not shared:
        _check_distinct([entry.names for entry in classes])
    return tuple(classes)


def _lines_of(word: str) -> list[str]:
    """Several lines are read like those of a file."""
    return (LINE_BREAK.search(word.strip()) and read_lines(word, "The text of several lines")) or [word]


def _read_class(entry: str, where: str, stuff: Collection[str]) -> WordClass:
    entry = " ".join(entry.split())
    if entry.startswith(("[", "{")):
        raise ValueError(
            f"{entry!r} begins like a list in json or Python. Write the words alone, with ; between classes."
        )
    kind = KIND_MARK.search(entry)
    names = tuple(_clean(name, where) for name in _split(KIND_MARK.sub("", entry), ","))
    if any(KIND_MARK.search(name) for name in names):
        raise ValueError(f"{entry!r} says its kind in the middle. Write [stuff] or [thing] after the last name.")
    if any(OTHER_MARK.search(name) for name in names):
        raise ValueError(f"{entry!r} has an unknown mark. Expected [stuff] or [thing], once, after the last name.")
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
    cleaned = " ".join(spelled(name).split()) if isinstance(name, str) else ""
    if not cleaned:
        raise ValueError(f"A name in {where} is blank ({name!r}). Leave it out, or write a word there.")
    if not cleaned.isprintable():
        kinds = {unicodedata.category(character) for character in cleaned}
        if kinds & {"Cc", "Cs"}:  # control characters, and halves of characters that UTF-8 can't write
            raise ValueError(f"A name in {where} is no text that can be read ({name!r}). Write it in UTF-8.")
    return cleaned


def _listed(names: Collection[str]) -> str:
    """("a", "b", "c") → "a, b and c", with an end to it."""
    shown = list(names)
    if len(shown) > MOST_LISTED:
        shown[MOST_LISTED - 1 :] = [f"{len(shown) - MOST_LISTED + 1} more"]
    *most, last = shown
    return f"{', '.join(most)} and {last}" if most else last
