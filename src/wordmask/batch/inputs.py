"""What a collection holds: picture files, members of tar shards, moments of films; each with a name of its own."""

import math
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from wordmask.batch.film_packets import need_av
from wordmask.batch.films import FILM_FILES, Moment, is_film, moments, read_moment
from wordmask.image import Picture
from wordmask.sources import PICTURE_FILES, Source, find_pictures
from wordmask.word_lines import read_text
from wordmask.writing import expanded

SHARD, LIST = ".tar", ".txt"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")  # of WebDataset's shard names: shard-{000000..000042}.tar


@dataclass(frozen=True)
class Collection:
    """Where pictures come from, as a person says it.

    Args:
        source: A folder, a glob, a text file with one path a line, a tar shard or WebDataset's
            `shard-{000..042}.tar`, a film, a picture.
        every: Seconds between the moments of a film.
    """

    source: str
    every: float = 1.0

    def to_dict(self) -> dict[str, str | float]:
        """For the record of a job."""
        return {"input": str(Path(self.source).resolve()), "every": self.every}


@dataclass(frozen=True)
class Member:
    """Where a file lies in a tar, in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Item:
    """A picture of a collection.

    Args:
        stem: Names it, and what is written about it: relative, with `/`, without an ending.
        path: The file it is in.
        part: Where in the file, if it is not the whole.
        problem: Why it can't be read, if that is known already.
    """

    stem: str
    path: Path
    part: Member | Moment | None = None
    problem: str | None = None

    @property
    def file_name(self) -> str:
        """The picture's name as lists of pictures give it: with its ending."""
        if self.part is None:
            return PurePosixPath(self.stem).with_name(self.path.name).as_posix()
        return f"{PurePosixPath(self.stem).parent}/{self.part.name}"

    @property
    def source(self) -> str:
        """Where it came from, in words."""
        return str(self.path) if self.part is None else f"{self.path}:{self.part.name}"

    def read(self) -> Picture:
        """Return what `read_picture` takes.

        Raises:
            ValueError: It can't be read.
        """
        if self.problem:
            raise ValueError(self.problem)
        if isinstance(self.part, Moment):
            return read_moment(self.path, self.part)
        if isinstance(self.part, Member):
            with self.path.open("rb") as file:
                file.seek(self.part.offset)
                return file.read(self.part.size)
        return self.path


def find_items(collection: Collection, *, skip: Path) -> list[Item]:
    """List what a collection holds, in the same order each time.

    Args:
        skip: A folder not to look into: the output's.

    Raises:
        ValueError: There is nothing of the kind.
    """
    every, argument = collection.every, collection.source
    if not 0 < every < math.inf:
        raise ValueError(f"every came as {every!r}; expected seconds between two pictures of a film, above 0.")
    if argument.lower().endswith(PACKED):
        raise ValueError(
            f"{argument!r} is compressed, and its pictures can't be found without unpacking. "
            "Unpack it, or make it a plain .tar."
        )
    is_list = argument.lower().endswith(LIST) and expanded(argument).is_file()
    arguments = _listed(expanded(argument)) if is_list else _spread(argument)
    sources = find_pictures(arguments, skip=skip, endings=(*PICTURE_FILES, *FILM_FILES, SHARD))
    if len(sources) > 1:
        sources = [source for source in sources if is_film(source.path)] or sources
    for source in sources:
        if source.path.suffix.lower() in FILM_FILES:
            need_av(source.path)
            break
    return _distinct([item for source in sources for item in _items_of(source, every)])


def _listed(path: Path) -> list[str]:
    text = read_text(path, f"The list {str(path)!r}")
    lines = [line.strip() for line in text.splitlines()]
    paths = [str(path.parent / expanded(line)) for line in lines if line and not line.startswith("#")]
    if not paths:
        raise ValueError(f"The list {str(path)!r} names no file; expected one path a line, relative to the list.")
    return paths


def _spread(argument: str) -> list[str]:
    """shard-{00..02}.tar → shard-00.tar, shard-01.tar, shard-02.tar."""
    found = BRACES.search(argument)
    if not found:
        return [argument]
    numbers = (f"{number:0{len(found[1])}}" for number in range(int(found[1]), int(found[2]) + 1))
    spread = [argument[: found.start()] + number + argument[found.end() :] for number in numbers]
    return [whole for part in spread for whole in _spread(part)]


def _items_of(source: Source, every: float) -> Iterator[Item]:
    ending = source.path.suffix.lower()
    try:
        if ending == SHARD:
            members, problem = _members(source.path)
            yield from (Item(_below(source.stem, _key(member.name)), source.path, member) for member in members)
            if problem:
                yield Item(source.stem.as_posix(), source.path, problem=f"{source.path}: {problem}")
        elif ending in FILM_FILES:
            chosen, problem = moments(source.path, every)
            for moment in chosen:
                yield Item(_below(source.stem, PurePosixPath(moment.name).stem), source.path, moment)
            if problem:
                yield Item(source.stem.as_posix(), source.path, problem=f"{source.path}: {problem}")
        else:
            yield Item(source.stem.as_posix(), source.path)
    except (ValueError, OSError) as error:
        yield Item(source.stem.as_posix(), source.path, problem=f"{source.path}: {error}")


def _members(path: Path) -> tuple[list[Member], str | None]:
    """The pictures of a shard as WebDataset names them: a sample's key goes to the first dot, `1.jpg` is its picture,
    `1.seg.png` is not.

    Where a sample has no such picture, what ends like one is. Also says what is wrong with the shard, if something is.
    """
    samples: dict[str, list[Member]] = defaultdict(list)
    problem = None
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as shard:
                for member in shard:
                    if member.isfile() and member.name.lower().endswith(PICTURE_FILES):
                        folder, _, name = member.name.rpartition("/")
                        samples[f"{folder}/{name.partition('.')[0]}"].append(
                            Member(member.name, member.offset_data, member.size)
                        )
                file.seek(shard.offset)  # tarfile takes any block that it cannot read for the last one, which is empty
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    problem = "it is damaged or ends early; what comes after is lost."
        except tarfile.TarError as error:
            problem = f"it is damaged: {error}."
    found = []
    for members in samples.values():
        found += [member for member in members if member.name.rpartition("/")[2].count(".") == 1] or members
    return found, problem if problem or found else f"no picture in it ({', '.join(PICTURE_FILES)})."


def _key(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)]


def _below(folder: Path, name: str) -> str:
    """A name below a folder, and nowhere else whatever the shard says."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return "/".join([folder.as_posix(), *parts])


def _distinct(items: list[Item]) -> list[Item]:
    """Number names that clash, whatever their case."""
    seen: dict[str, int] = defaultdict(int)
    distinct = []
    for item in items:
        stem = item.stem
        while seen[stem.casefold()]:
            seen[item.stem.casefold()] += 1
            stem = f"{item.stem}~{seen[item.stem.casefold()]}"
        seen[stem.casefold()] += 1
        distinct.append(replace(item, stem=stem))
    return distinct
