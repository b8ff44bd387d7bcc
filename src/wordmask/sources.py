"""Which files a person means: pictures told from words, folders and globs opened, and names for what is written."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wordmask.file_names import looks_like_file
from wordmask.words import WORD_FILES
from wordmask.writing import expanded

PICTURE_FILES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".jp2",
    ".avif",
)
LIST_FILES = (*WORD_FILES, ".csv", ".tsv", ".yaml", ".yml")
HEIC_HINT = "Check the spelling; a HEIC picture can also be converted to JPEG, by pillow-heif for instance."
FILM_HINT = "Films are read by wordmask batch."
LIST_HINT = "If it lists the words, check its place and give it as --words-file."
HINTS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), HEIC_HINT),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"), FILM_HINT),
    **dict.fromkeys(LIST_FILES, LIST_HINT),
}
EXPLAINED = ".explain.png"
# what we write: never read again as input
OWN_FILES = (".masks.png", ".labels.png", ".panoptic.png", ".labels.tif", EXPLAINED)
PATH_STARTS = ("/", "./", "../", "~")
GLOB_SIGNS = "*?["


@dataclass(frozen=True)
class Source:
    """A picture file, and the name its results get below the output folder, without an ending."""

    path: Path
    stem: Path


def split_pictures_and_words(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tell pictures from words, as a person would.

    A picture is what ends like a picture file, a path that exists, or a glob that matches. A bare name that is also a
    folder here is a picture where nothing but such names stand before it. Everything else is a word.

    Raises:
        ValueError: A words file among them, a file that is not there, or a name that may be either: a folder with
            pictures, after files or words.
    """
    pictures, words = [], []
    for argument in arguments:
        if not argument.strip():
            words.append(argument)  # refused as a blank word, never taken for the current folder
            continue
        if argument.lower().endswith(LIST_FILES) and _is(argument, Path.is_file):
            raise ValueError(
                f"{argument!r} is not a picture. If it lists the words, give it as --words-file {argument}."
            )
        if _is(argument, Path.is_dir) and not _looks_like_path(argument):
            is_picture = not words and all(_is(picture, Path.is_dir) for picture in pictures)
            if not is_picture and any(_pictures_in(Path(argument), skip=None)):
                raise ValueError(
                    f"{argument!r} may be a word, or the folder here that holds pictures. "
                    f"Write ./{argument} for the folder, or give the words in one string: --words."
                )
        else:
            is_picture = (
                _looks_like_path(argument)
                or _is(argument, Path.is_file)
                or (_is_glob(argument) and bool(_matches(argument)))
            )
        (pictures if is_picture else words).append(argument)
    return pictures, without_files(words)


def without_files(words: list[str]) -> list[str]:
    """Return words as they are, if none looks like a file, a path or a glob.

    Raises:
        ValueError: One does.
    """
    for word in words:
        if looks_like_file(word) or "*" in word or _is_in_a_folder(word):
            ending = Path(word).suffix.lower()
            hint = HINTS.get(ending, "Check the spelling and the current folder.")
            state = "is a file" if _is(word, Path.is_file) else "looks like a file, and there is none of that name"
            raise ValueError(f"{word!r} {state}. {hint} If it is a word, write --words {word + ';'!r}.")
    return words


def find_pictures(
    arguments: Iterable[str], skip: Path | None = None, endings: tuple[str, ...] = PICTURE_FILES
) -> list[Source]:
    """Open folders (with those inside them) and globs; give every picture a name of its own.

    Results of a folder keep its structure; of several folders, below each one's name. Where two would still get the
    same name, the file's ending is added, and then its folders, as far as the pictures differ.

    Args:
        skip: A folder not to look into: the output's.
        endings: Of the files that a folder is opened for.

    Raises:
        ValueError: A folder or glob with no picture in it, or none of the files exists.
    """
    arguments = list(arguments)
    folders = sum(_is(argument, Path.is_dir) for argument in arguments)
    found: dict[Path, Source] = {}
    for argument in arguments:
        for source in _expand(argument, skip, endings):
            stem = (
                Path(expanded(argument).resolve().name) / source.stem
                if folders > 1 and _is(argument, Path.is_dir)
                else source.stem
            )
            found.setdefault(source.path.resolve(), Source(source.path, stem))
    sources = list(found.values())
    # a shell's *.png brings them too
    sources = [source for source in sources if not source.path.name.endswith(OWN_FILES)] or sources
    if not any(_is(str(source.path), Path.exists) for source in sources):
        names = " or ".join(repr(str(source.path)) for source in sources)
        raise ValueError(f"There is no picture {names}. Check the spelling and the current folder.")
    return _make_unique(sources)


def _looks_like_path(argument: str) -> bool:
    if argument.lower().endswith(PICTURE_FILES) or argument.startswith(PATH_STARTS) or argument in (".", ".."):
        return True
    return ("/" in argument or os.sep in argument) and _is(argument, Path.exists)


def _is_in_a_folder(word: str) -> bool:
    """Tell whether it is a path into a folder that is here: photos/2024, but not tv/monitor."""
    first, slash, _ = word.partition("/")
    return bool(slash and first.strip()) and _is(first, Path.is_dir)


def _is_glob(argument: str) -> bool:
    return any(sign in argument for sign in GLOB_SIGNS)


def _matches(argument: str) -> list[Path]:
    return [Path(name) for name in sorted(glob.glob(str(expanded(argument)), recursive=True))]


def _is(argument: str, test: Callable[[Path], bool]) -> bool:
    try:
        return test(expanded(argument))
    except OSError:  # too long for a file's name: a word
        return False


def _expand(argument: str, skip: Path | None, endings: tuple[str, ...]) -> list[Source]:
    path = expanded(argument)
    if _is(argument, Path.is_dir):
        inside = sorted(_pictures_in(path, skip, endings))
        if not inside:
            raise ValueError(f"The folder {argument!r} holds no pictures ({', '.join(endings)}).")
        return [Source(file, file.relative_to(path).with_suffix("")) for file in inside]
    if _is(argument, Path.exists) or not _is_glob(argument):
        return [Source(path, Path(path.stem))]  # a missing file is reported when it is read, like any bad picture
    files = []
    for match in _matches(argument):
        files += sorted(_pictures_in(match, skip, endings)) if match.is_dir() else [match]
    files = [file for file in files if not file.name.endswith(OWN_FILES)]
    if not files:
        raise ValueError(f"No picture matches {argument!r}.")
    return [Source(file, Path(file.stem)) for file in files]


def _pictures_in(folder: Path, skip: Path | None, endings: tuple[str, ...] = PICTURE_FILES) -> Iterable[Path]:
    whole, left_out = folder.resolve(), None if skip is None else skip.resolve()
    if left_out is not None and (left_out == whole or not left_out.is_relative_to(whole)):
        left_out = None  # all pictures are there, or none
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        ours = path.name.endswith(OWN_FILES) or (left_out is not None and path.resolve().is_relative_to(left_out))
        if path.suffix.lower() in endings and path.is_file() and not hidden and not ours:
            yield path


def _make_unique(sources: list[Source]) -> list[Source]:
    """Give longer names to those that clash, with each other or with a longer name, until none does.

    Ends, as the longest are whole paths below the folder that all share. Case does not tell names apart: some file
    systems ignore it.
    """
    common = _common_folder([source.path.resolve() for source in sources])
    choices = [  # a, then a.jpg beside a.png, then x/a.jpg beside y/a.jpg
        (
            source.stem,
            source.stem.with_name(source.path.name),
            source.path.resolve().relative_to(common or source.path.resolve().anchor),
        )
        for source in sources
    ]
    level = [0] * len(sources)
    while True:
        stems = [names[number] for names, number in zip(choices, level, strict=True)]
        count = Counter(str(stem).casefold() for stem in stems)
        clashing = [place for place, stem in enumerate(stems) if count[str(stem).casefold()] > 1 and level[place] < 2]
        if not clashing:
            return [Source(source.path, stem) for source, stem in zip(sources, stems, strict=True)]
        for place in clashing:
            level[place] += 1


def _common_folder(paths: list[Path]) -> str | None:
    try:
        return os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on several drives
        return None
