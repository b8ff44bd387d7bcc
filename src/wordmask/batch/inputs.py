"""What a collection holds: picture files, members of tar shards, moments of films; each with a name of its own."""

import hashlib
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from wordmask.batch.film_packets import need_av
from wordmask.batch.films import FILM_FILES, Moment, is_film, moments, read_moment
from wordmask.batch.journal import Stamp
from wordmask.batch.tars import Member, members_of
from wordmask.folders import JOB_FOLDER, RESULT_FOLDERS, Reason, Skips
from wordmask.image import Picture
from wordmask.sources import PICTURE_FILES, Source, find_inputs
from wordmask.word_lines import read_text
from wordmask.writing import expanded

SHARD, LIST = ".tar", ".txt"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
UNPACK = "it is compressed, and its pictures can't be found without unpacking. Unpack it, or make it a plain .tar."
LONGEST_NAME = 240  # bytes of a file's or folder's name, without our endings; systems take 255
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
class Item:
    """A picture of a collection.

    Args:
        stem: Names it, and what is written about it: relative, with `/`, without an ending.
        path: The file it is in.
        part: Where in the file, if it is not the whole.
        problem: Why it can't be read, if that is known already.
        stamp: What it was when it was found; None if it isn't there.
    """

    stem: str
    path: Path
    part: Member | Moment | None = None
    problem: str | None = None
    stamp: Stamp | None = None

    @property
    def file_name(self) -> str:
        """The picture's name as lists of pictures give it: with its ending."""
        if self.part is None:
            return PurePosixPath(self.stem).with_name(self.path.name).as_posix()
        return PurePosixPath(self.stem).with_name(re.split(r"[/\\]", self.part.name)[-1]).as_posix()

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
            return self.part.read(self.path)
        return self.path


@dataclass(frozen=True)
class Holdings:
    """What a collection holds: what is to be labelled, and what is left out."""

    items: list[Item] = field(default_factory=list)
    skips: Skips = field(default_factory=Skips)


def find_items(collection: Collection, *, skip: Path) -> list[Item]:
    """The items of `look_through`."""
    return look_through(collection, skip=skip).items


def look_through(collection: Collection, *, skip: Path) -> Holdings:
    """List what a collection holds, in the same order each time.

    Args:
        skip: A folder not to look into: the output's.

    Raises:
        ValueError: There is nothing of the kind, or it lies where results would be written.
    """
    every, argument = collection.every, collection.source
    if not 0 < every < math.inf:
        raise ValueError(f"every came as {every!r}; expected seconds between two pictures of a film, above 0.")
    if argument.lower().endswith(PACKED):
        raise ValueError(f"{argument!r} can't be read: {UNPACK}")
    is_list = argument.lower().endswith(LIST) and expanded(argument).is_file()
    arguments = _listed(expanded(argument)) if is_list else _spread(argument)
    inputs = find_inputs(arguments, skip, (*PICTURE_FILES, *FILM_FILES, SHARD, *PACKED), patient=is_list)
    sources = _without_results(inputs.sources, skip, inputs.skips)
    if len(sources) > 1:
        sources = _without_texts(sources, inputs.skips)
    for source in sources:
        if source.path.suffix.lower() in FILM_FILES:
            need_av(source.path)
            break
    items = [item for source in sources for item in _items_of(source, every, inputs.skips)]
    if not items:
        raise ValueError(f"{argument!r} holds nothing to label. Left out: {'; '.join(inputs.skips.lines())}.")
    return Holdings(_distinct(items), inputs.skips)


def _without_results(sources: list[Source], output: Path, skips: Skips) -> list[Source]:
    """Leave out what lies where the job writes: its own results, if it has written there before.

    Raises:
        ValueError: It hasn't; then they are somebody's, and would be mixed with results.
    """
    taken = [output.resolve() / name for name in (*RESULT_FOLDERS, JOB_FOLDER)]
    ours: dict[Path, bool] = {}  # a folder of pictures → whether results are written there
    kept = []
    for source in sources:
        folder = source.path.parent
        if folder not in ours:
            ours[folder] = any(folder.resolve().is_relative_to(place) for place in taken)
        if not ours[folder]:
            kept.append(source)
        elif (output / JOB_FOLDER).is_dir():
            skips.add(Reason.OURS, source.path)
        else:
            raise ValueError(
                f"{str(source.path)!r} lies where results are to be written. Choose another output folder than "
                f"{str(output)!r}."
            )
    return kept


def _without_texts(sources: list[Source], skips: Skips) -> list[Source]:
    """Leave out programs and translations whose names end like those of films."""
    kept = []
    for source in sources:
        if is_film(source.path):
            kept.append(source)
        else:
            skips.add(Reason.NO_PICTURE, source.path)
    return kept


def _listed(path: Path) -> list[str]:
    text = read_text(path, f"The list {str(path)!r}")
    paths = []
    for line in text.split("\n"):  # other ends of lines may stand in names
        name = line if (path.parent / expanded(line)).is_file() else line.strip()
        if name and not name.startswith("#"):
            paths.append(str(path.parent / expanded(name)))
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


def _items_of(source: Source, every: float, skips: Skips) -> Iterator[Item]:
    path, whole = source.path, source.stem.as_posix()
    if source.problem:
        yield Item(whole, path, problem=source.problem)
        return
    status = None
    with suppress(OSError):  # told when it is read
        status = path.stat()  # before that: if it changes meanwhile, it is another at the next run
    try:
        for item in _items_within(source, every, skips):
            yield item if item.problem or status is None else replace(item, stamp=_stamp_of(item, status))
    except (ValueError, OSError) as error:
        yield Item(whole, path, problem=f"{path}: {error}")


def _items_within(source: Source, every: float, skips: Skips) -> Iterator[Item]:
    path, name, whole = source.path, source.path.name.lower(), source.stem.as_posix()
    if name.endswith(SHARD):
        shard = members_of(path)
        skips.extend(shard.skips)
        for member in shard.members:
            yield Item(_below(source.stem, _key(member.name)), path, member)
        for member_name, problem in shard.problems.items():
            yield Item(_below(source.stem, _key(member_name)), path, problem=problem)
        if shard.damage:
            yield Item(whole, path, problem=f"{path}: {shard.damage}")
    elif name.endswith(PACKED):
        yield Item(whole, path, problem=f"{path}: {UNPACK}")
    elif name.endswith(FILM_FILES):
        chosen, problem = moments(path, every)
        for moment in chosen:
            yield Item(_below(source.stem, PurePosixPath(moment.name).stem), path, moment)
        if problem:
            yield Item(whole, path, problem=f"{path}: {problem}")
    else:
        yield Item(whole, path)


def _stamp_of(item: Item, status: os.stat_result) -> Stamp:
    start = 0
    if isinstance(item.part, Member):
        start = item.part.offset
    elif isinstance(item.part, Moment):
        start = item.part.packet
    place = os.path.normpath(item.path.absolute())
    return Stamp(place, item.file_name, status.st_size, status.st_mtime_ns, start)


def _key(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)]


def _below(folder: Path, name: str) -> str:
    """A name below a folder, and nowhere else whatever the shard says."""
    parts = [part for part in re.split(r"[/\\\0]", name) if part not in ("", ".", "..")]
    return "/".join([folder.as_posix(), *parts])


def _distinct(items: list[Item]) -> list[Item]:
    """Shorten names that no system takes; number those that clash, whatever their case."""
    seen: dict[str, int] = defaultdict(int)
    distinct = []
    for item in items:
        wanted = "/".join(_shortened(part) for part in item.stem.split("/"))
        stem = wanted
        while seen[_same_file(stem)]:
            seen[_same_file(wanted)] += 1
            stem = f"{wanted}~{seen[_same_file(wanted)]}"
        seen[_same_file(stem)] += 1
        distinct.append(replace(item, stem=stem))
    return distinct


def _same_file(name: str) -> str:
    """What is equal for names that are one on some file system: case, and letters with accents in one piece or two."""
    return unicodedata.normalize("NFC", name.casefold())


def _shortened(name: str) -> str:
    """The beginning of a name that is too long, and a checksum of the whole."""
    content = os.fsencode(name)
    if len(content) <= LONGEST_NAME:
        return name
    checksum = hashlib.sha256(content).hexdigest()[:8]
    return f"{content[: LONGEST_NAME - 9].decode('utf-8', 'ignore')}~{checksum}"
