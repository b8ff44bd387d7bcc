"""Which files a person means: pictures told from words, folders and globs opened, and names for what is written."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wordmask.file_names import looks_like_file
from wordmask.folders import OWN_FILES, Contents, Reason, Skips, contents_of, open_folders, problem_of, reason_for
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
    ".heic",
    ".heif",
    ".hif",
)
LIST_FILES = (*WORD_FILES, ".csv", ".tsv", ".yaml", ".yml")
FILM_HINT = "Films are read by wordmask batch."
LIST_HINT = "If it lists the words, check its place and give it as --words-file."
HINTS = {
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"), FILM_HINT),
    **dict.fromkeys(LIST_FILES, LIST_HINT),
}
PATH_STARTS = ("/", "./", "../", "~")
GLOB_SIGNS = "*?["


@dataclass(frozen=True)
class Source:
    """A picture file, and the name its results get below the output folder, without an ending; and why it can't be
    read, if that is known already."""

    path: Path
    stem: Path
    problem: str | None = None


@dataclass(frozen=True)
class Inputs:
    """What people's arguments stand for: files to read, and what is left out."""

    sources: list[Source] = field(default_factory=list)
    skips: Skips = field(default_factory=Skips)


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
            if not is_picture and bool(_pictures_in(Path(argument))):
                raise ValueError(
                    f"{argument!r} may be a word, or the folder here that holds pictures. "
                    f"Write ./{argument} for the folder, or give the words in one string: --words."
                )
        else:
            is_picture = (
                _looks_like_path(argument)
                or _is(argument, Path.is_file)
                or (_is_glob(argument) and bool(_matches(str(expanded(argument)), Contents())))
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
    """The files of `find_inputs`."""
    return find_inputs(arguments, skip, endings).sources


def find_inputs(
    arguments: Iterable[str],
    skip: Path | None = None,
    endings: tuple[str, ...] = PICTURE_FILES,
    *,
    patient: bool = False,
) -> Inputs:
    """Open folders (with those inside them) and globs; give every picture a name of its own.

    Results of a folder keep its structure; of several folders, below each one's name. Where two would still get the
    same name, the file's ending is added, and then its folders, as far as the pictures differ. Links count as what they
    lead to, under their own names.

    Args:
        skip: A folder not to look into: the output's.
        endings: Of the files that a folder is opened for.
        patient: Whether an argument that stands for nothing is a source with a problem.

    Raises:
        ValueError: A folder or glob with no picture in it, or none of the files exists.
    """
    arguments = list(arguments)
    folders = sum(_is(argument, Path.is_dir) for argument in arguments)
    found: dict[Path, Source] = {}
    skips = Skips()
    for argument in arguments:
        inputs = _expand(argument, skip, endings, patient=patient and len(arguments) > 1)
        skips.extend(inputs.skips)
        below = Path(expanded(argument).resolve().name) if folders > 1 and _is(argument, Path.is_dir) else Path()
        for source in inputs.sources:
            place = _place(source.path)
            if place in found:
                skips.add(Reason.NAMED_BEFORE, source.path)
            found.setdefault(place, Source(source.path, below / source.stem, source.problem))
    sources = list(found.values())
    if not any(source.problem or _is(str(source.path), Path.exists) for source in sources):
        names = " or ".join(repr(str(source.path)) for source in sources)
        raise ValueError(f"There is no picture {names}. Check the spelling and the current folder.")
    ours = {source.path for source in sources if source.path.name.endswith(OWN_FILES)}
    if len(ours) < len(sources):  # a shell's *.png brings them too
        sources = [source for source in sources if source.path not in ours]
        for path in sorted(ours):
            skips.add(Reason.OURS, path)
    return Inputs(_make_unique(sources), skips)


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


def _matches(pattern: str, found: Contents) -> list[Path]:
    """What a glob matches, in order; `**` follows links as a folder that is opened does.

    Args:
        found: Where folders that `**` leaves out, or that can't be opened, are noted.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return [Path(name) for name in sorted(glob.glob(pattern))]
    place = parts.index("**")
    if place == len(parts) - 1:
        return _matches(str(Path(*parts[:place])), found)  # a folder that is opened
    before, after = Path(*parts[:place]), Path(*parts[place + 1 :])
    matches: set[Path] = set()
    for folder in [before] if before.is_dir() else _matches(str(before), found):
        for inside, _ in open_folders(folder, found):
            matches.update(_matches(str(Path(glob.escape(str(inside)), after)), found))
    return sorted(matches)


def _is(argument: str, test: Callable[[Path], bool]) -> bool:
    try:
        return test(expanded(argument))
    except OSError:  # too long for a file's name: a word
        return False


def _expand(argument: str, skip: Path | None, endings: tuple[str, ...], *, patient: bool) -> Inputs:
    path = expanded(argument)
    if _is(argument, Path.is_dir):
        inputs = _opened(path, skip, endings)
        nothing = f"The folder {argument!r} holds no pictures ({', '.join(endings)})."
    elif _is(argument, Path.exists) or not _is_glob(argument):
        # a missing file is reported when it is read, like a bad picture; but who reads a pipe waits for ever
        problem = problem_of(path) if _is(argument, Path.exists) else None
        return Inputs([Source(path, Path(path.stem), problem)])
    else:
        inputs = _matching(path, skip, endings)
        nothing = f"No picture matches {argument!r}."
    if not inputs.sources:
        problem = " ".join([nothing, *(f"Left out: {line}." for line in inputs.skips.lines())])
        if not patient:
            raise ValueError(problem)
        inputs.sources.append(Source(path, Path(path.name), problem))
    return inputs


def _matching(pattern: Path, skip: Path | None, endings: tuple[str, ...]) -> Inputs:
    """What a glob matches; folders among it are opened. One that names an ending is believed, `*` takes what a folder
    does."""
    looked, inputs = Contents(), Inputs()
    matches = _matches(str(pattern), looked)
    folders = {match for match in matches if match.is_dir()}
    any_ending = not pattern.suffix or _is_glob(pattern.suffix)
    for match in matches:
        if not folders.isdisjoint(match.parents):
            continue  # found in the folder
        if match in folders and match.resolve() in {parent.resolve() for parent in match.parents}:
            inputs.skips.add(Reason.LOOP, f"{match}/")
        elif match in folders:
            inside = _opened(match, skip, endings)
            inputs.sources.extend(Source(each.path, Path(each.path.stem), each.problem) for each in inside.sources)
            inputs.skips.extend(inside.skips)
        elif match.name.endswith(OWN_FILES):
            inputs.skips.add(Reason.OURS, match)
        elif any_ending and not match.name.lower().endswith(endings):
            inputs.skips.add(reason_for(match.name), match)
        else:
            inputs.sources.append(Source(match, Path(match.stem), problem_of(match)))
    inputs.sources.extend(Source(path, Path(path.name), problem) for path, problem in looked.problems.items())
    for name in looked.skips.names.get(Reason.OURS, []):  # the pattern would match there, too
        inputs.skips.add(Reason.OURS, name)
    return inputs


def _opened(folder: Path, skip: Path | None, endings: tuple[str, ...]) -> Inputs:
    contents = contents_of(folder, endings, skip)
    sources = [Source(file, file.relative_to(folder).with_suffix("")) for file in contents.files]
    for path, problem in contents.problems.items():
        if path == folder:
            raise ValueError(problem)
        sources.append(Source(path, path.relative_to(folder).with_suffix(""), problem))
    return Inputs(sorted(sources, key=lambda source: source.path), contents.skips)


def _pictures_in(folder: Path) -> list[Path]:
    return contents_of(folder, PICTURE_FILES).files


def _make_unique(sources: list[Source]) -> list[Source]:
    """Give longer names to those that clash, with each other or with a longer name, until none does.

    Ends, as the longest are whole paths below the folder that all share. Case does not tell names apart: some file
    systems ignore it.
    """
    places = [_place(source.path) for source in sources]
    common = _common_folder(places)
    choices = [  # a, then a.jpg beside a.png, then x/a.jpg beside y/a.jpg
        (
            source.stem,
            source.stem.with_name(source.path.name),
            place.relative_to(common or place.anchor),
        )
        for source, place in zip(sources, places, strict=True)
    ]
    level = [0] * len(sources)
    while True:
        stems = [names[number] for names, number in zip(choices, level, strict=True)]
        count = Counter(str(stem).casefold() for stem in stems)
        clashing = [place for place, stem in enumerate(stems) if count[str(stem).casefold()] > 1 and level[place] < 2]
        if not clashing:
            return [replace(source, stem=stem) for source, stem in zip(sources, stems, strict=True)]
        for place in clashing:
            level[place] += 1


def _place(path: Path) -> Path:
    """Where a file lies, by its own name: where a link leads to is another's."""
    return Path(os.path.normpath(path.absolute()))


def _common_folder(paths: list[Path]) -> str | None:
    try:
        return os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on several drives
        return None
