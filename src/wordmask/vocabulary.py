"""Words: what a user writes → classes in order, with synonyms and kinds."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from wordmask.writing import at_home

Synonyms = Literal["first", "mean", "each"]  # what becomes of a class with several names; see `text.encode_vocabulary`

# the papers evaluate with different names; a plain built-in name means the first that has it
VARIANTS = ("err-seg", "eov-seg")
HOMES = (*VARIANTS, "shapeland")
# the benchmarks that tell stuff from things
DECLARE_KINDS = ("ade20k-150", "coco-panoptic-133", "coco-stuff-171", "cityscapes-19")
MOST_CLASSES = 65535
OTHER_MARK = re.compile(r"\[[^\[\]]*\]$")
BUILTIN_LIKE = re.compile(r"([a-z-]+/)?[a-z0-9-]+-\d+[a-z]?")
WORD_FILES = (".txt", ".json")
COMMENT = re.compile(r"(?:^|\s)#.*$")
KIND_MARK = re.compile(r"\s*\[(stuff|thing)\]\s*,?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class WordClass:
    """One class: its name, further synonyms, and whether its instances are counted (a thing) or merged (stuff)."""

    names: tuple[str, ...]
    thing: bool
    dataset_id: int | None = None

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Vocabulary:
    """Classes in order; the index of a class is its label.

    Built-in vocabularies may name two classes alike (A-847 does); what a user writes may not, see `of`.
    """

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

    @classmethod
    def of(cls, words: "Vocabulary | str | Path | Iterable[str]", family: str | None = None) -> "Vocabulary":
        """Read words in any form a user may write them.

        Args:
            words: A `Vocabulary`; a list with one class an entry; a string with `;` between classes; the name of a
                built-in vocabulary, `ade20k-150`; or a file (`Path`, or a string that ends in .txt or .json). Commas
                separate synonyms, and `[stuff]` or `[thing]` after the last one says the kind: "snow drift, snow
                [stuff]".
            family: `err-seg` or `eov-seg`: whose names a plain built-in name means.

        Raises:
            ValueError: No words, a blank one, the same one twice, or a name or file that does not exist.
        """
        if isinstance(words, Vocabulary):
            return words
        if isinstance(words, Path):
            return cls.from_file(words)
        if isinstance(words, str):
            if words.strip() in builtin_names():
                return cls.builtin(words.strip(), family)
            if words.strip().lower().endswith(WORD_FILES):
                return cls.from_file(Path(words.strip()))
            name = words.strip().lower()
            if BUILTIN_LIKE.fullmatch(name) and difflib.get_close_matches(name, builtin_names(), n=1, cutoff=0.8):
                cls.builtin(words.strip())  # raises, with the near matches
            if not words.strip():
                raise ValueError(
                    f"No words were given ({words!r}). Name at least one thing to look for, such as: road, car, sky."
                )
            words = [words]
        if not isinstance(words, Iterable):
            raise ValueError(f"The words came as {words!r}; expected a list of strings, a string, or a file.")
        return cls(_parse(words))

    @classmethod
    def from_file(cls, path: Path) -> "Vocabulary":
        """Read a file: text with one class a line (`#` starts a comment line), or json as the built-in ones are
        written.

        Raises:
            ValueError: The file does not exist, is not text, or holds no words.
        """
        try:
            text = at_home(path).read_text(encoding="utf-8-sig")
            content = json.loads(text) if Path(path).suffix.lower() == ".json" else text.splitlines()
        except FileNotFoundError:
            raise ValueError(
                f"The words file {str(path)!r} does not exist. Write one class a line, synonyms separated by commas."
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"The words file {str(path)!r} cannot be read: {error}. Expected UTF-8 text or json."
            ) from None
        if isinstance(content, dict):
            vocabulary = _from_json(content, str(path))
            _check_distinct([entry.names for entry in vocabulary])
            return vocabulary
        if not isinstance(content, list):
            raise ValueError(
                f"The words file {str(path)!r} holds {type(content).__name__}; "
                f"expected a list of words or {{'classes': …}}."
            )
        lines = [COMMENT.sub("", line) if isinstance(line, str) else line for line in content]
        lines = [line for line in lines if not isinstance(line, str) or line.strip()]
        if not lines:
            raise ValueError(
                f"The words file {str(path)!r} holds no words. Write one class a line, synonyms separated by commas."
            )
        return cls(_parse(lines), title=Path(path).name)

    @classmethod
    def builtin(cls, name: str, family: str | None = None) -> "Vocabulary":
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
            homes = [family, *HOMES] if family else HOMES
            name = next(f"{home}/{name}" for home in homes if f"{home}/{name}" in builtin_names())
        text = _builtin_folder().joinpath(name.replace("/", ".") + ".json").read_text(encoding="utf-8")
        return _from_json(json.loads(text), name)


@cache
def builtin_names() -> tuple[str, ...]:
    """Every name that `Vocabulary.builtin` takes: plain ones first, then with their family."""
    stems = sorted(
        entry.name.removesuffix(".json") for entry in _builtin_folder().iterdir() if entry.name.endswith(".json")
    )
    plain = sorted({stem.split(".", 1)[1] for stem in stems})
    return (*plain, *(stem.replace(".", "/", 1) for stem in stems))


def same_phrase(phrase: str) -> str:
    """Return what two spellings of a phrase share: CLIP's tokeniser ignores case and spacing, so do we."""
    return " ".join(phrase.split()).lower()


@cache
def stuff_words() -> frozenset[str]:
    """Every name that a benchmark with things and stuff calls stuff, as `same_phrase` writes it."""
    words = set()
    for benchmark in DECLARE_KINDS:
        entries = json.loads(_builtin_folder().joinpath(f"eov-seg.{benchmark}.json").read_text(encoding="utf-8"))[
            "classes"
        ]
        words.update(same_phrase(name) for entry in entries if not entry["thing"] for name in entry["names"])
    return frozenset(words)


def is_thing(name: str) -> bool:
    """Tell whether a word is counted (a thing): every word that no benchmark calls stuff."""
    return same_phrase(name) not in stuff_words()


def _builtin_folder():
    return resources.files("wordmask") / "data" / "vocabularies"


def _from_json(content: dict, origin: str) -> Vocabulary:
    entries = content.get("classes")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("names"), list) and entry["names"] for entry in entries
    ):
        raise ValueError(
            f"{origin!r} is not a vocabulary: expected {{'classes': [{{'names': ['car', 'automobile']}}, …]}}."
        )
    if not all(isinstance(entry.get("thing", True), bool) for entry in entries):
        raise ValueError(f"{origin!r} has a class whose 'thing' is neither true nor false.")
    classes = []
    for entry in entries:
        names = tuple(_clean(name, f"class {len(classes) + 1} of {origin!r}") for name in entry["names"])
        classes.append(WordClass(names, bool(entry.get("thing", is_thing(names[0]))), entry.get("dataset_id")))
    return Vocabulary(
        tuple(classes), content.get("name", origin), content.get("source", ""), content.get("licence", "")
    )


def _parse(words: Iterable[str]) -> tuple[WordClass, ...]:
    entries = []
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"Word {len(entries) + 1} is {word!r} ({type(word).__name__}); expected a string.")
        entries.extend(_split(word, ";"))
    classes = []
    for number, entry in enumerate(entries, 1):
        kind = KIND_MARK.search(entry)
        names = tuple(
            _clean(name, f"word {number} of {len(entries)}") for name in _split(KIND_MARK.sub("", entry), ",")
        )
        if any(KIND_MARK.search(name) for name in names):
            raise ValueError(
                f"{entry.strip()!r} says its kind in the middle. Write [stuff] or [thing] after the last name."
            )
        if any(OTHER_MARK.search(name) for name in names):
            raise ValueError(
                f"{entry.strip()!r} has an unknown mark. Expected [stuff] or [thing], once, after the last name."
            )
        classes.append(WordClass(names, kind.group(1).lower() == "thing" if kind else is_thing(names[0])))
    _check_distinct([entry.names for entry in classes])
    return tuple(classes)


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
