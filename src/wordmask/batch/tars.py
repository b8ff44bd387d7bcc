"""What lies in a tar shard: pictures, found once and then read from their place; links in it count as what they lead
to."""

import posixpath
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wordmask.folders import Reason, Skips, is_hidden, reason_for
from wordmask.sources import PICTURE_FILES

# how compressed files begin
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}
MOST_LINKS = 40  # from one to the next, as Linux has it
MOST_SPARSE = 2**29  # bytes of a file with holes, which may be small in the shard
DAMAGED = (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, RecursionError)  # all that tarfile raises


@dataclass(frozen=True)
class Member:
    """Where a file lies in a tar, in bytes.

    Args:
        parts: (place in the file, length) of what is stored of a file with holes; None if all is.
    """

    name: str
    offset: int
    size: int
    parts: tuple[tuple[int, int], ...] | None = None

    def read(self, path: Path) -> bytes:
        """Return what is in it."""
        with path.open("rb") as file:
            file.seek(self.offset)
            if self.parts is None:
                return file.read(self.size)
            content = bytearray(self.size)
            for start, length in self.parts:
                content[start : start + length] = file.read(length)
            return bytes(content)


@dataclass
class Shard:
    """What lies in a tar.

    Args:
        members: The pictures.
        problems: Members that look like pictures and can't be read, and why.
        skips: What is left out.
        damage: What is wrong with the shard itself, if something is.
    """

    members: list[Member] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    skips: Skips = field(default_factory=Skips)
    damage: str | None = None


@dataclass
class Entries:
    """All that a tar lists but folders.

    Args:
        all: In order.
        last: By name, without `./`: the last of each.
        linked: What a hard link led to when it was stored, by the link's place in the tar.
        damage: What is wrong with the shard, if something is.
    """

    all: list[tarfile.TarInfo] = field(default_factory=list)
    last: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    linked: dict[int, tarfile.TarInfo | None] = field(default_factory=dict)
    damage: str | None = None

    def add(self, entry: tarfile.TarInfo) -> None:
        if entry.isdir():
            return
        if entry.islnk():
            self.linked[entry.offset] = self.last.get(posixpath.normpath(entry.linkname))
        self.all.append(entry)
        self.last[posixpath.normpath(entry.name)] = entry

    def is_replaced(self, entry: tarfile.TarInfo) -> bool:
        return self.last[posixpath.normpath(entry.name)] is not entry

    def content_of(self, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Follow links to the file that has the content; None if they lead to none in the shard."""
        found: tarfile.TarInfo | None = entry
        for _ in range(MOST_LINKS):
            if found is None or found.isfile():
                return found
            if found.islnk():
                found = self.linked[found.offset]
            elif found.issym():
                folder = posixpath.dirname(found.name)
                found = self.last.get(posixpath.normpath(posixpath.join(folder, found.linkname)))
            else:
                return None
        return None


def members_of(path: Path) -> Shard:
    """Find the pictures of a shard as WebDataset names them: a sample's key goes to the first dot, `1.jpg` is its
    picture, `1.seg.png` is not. Where a sample has no such picture, what ends like one is.

    Raises:
        OSError: It can't be opened.
    """
    entries = _entries_of(path)
    shard = Shard(damage=entries.damage)
    samples: dict[str, list[Member]] = defaultdict(list)
    for entry in entries.all:
        folder, _, name = entry.name.rpartition("/")
        told = f"{path}:{entry.name}"
        if any(is_hidden(part) for part in re.split(r"[/\\]", entry.name)):
            shard.skips.add(Reason.HIDDEN, told)
        elif not name.lower().endswith(PICTURE_FILES):
            shard.skips.add(reason_for(name), told)
        elif entries.is_replaced(entry):
            shard.skips.add(Reason.REPLACED, told)
        elif (content := entries.content_of(entry)) is None:
            shard.problems[entry.name] = f"{told}: {_what_it_is(entry)}."
        elif content.sparse and content.size > MOST_SPARSE:
            shard.problems[entry.name] = f"{told}: it has holes, and claims {content.size} bytes; too many."
        else:
            samples[f"{folder}/{name.partition('.')[0]}"].append(_member(entry.name, content))
    for members in samples.values():
        pictures = [member for member in members if PurePosixPath(member.name).name.count(".") == 1] or members
        shard.members += pictures
        for member in members:
            if member not in pictures:
                shard.skips.add(Reason.SAMPLE, f"{path}:{member.name}")
    if not (shard.members or shard.problems or shard.damage):
        left_out = "".join(f" Left out: {line}." for line in shard.skips.lines())
        shard.damage = f"no picture in it ({', '.join(PICTURE_FILES)}).{left_out}"
    return shard


def _entries_of(path: Path) -> Entries:
    entries = Entries()
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:
                    entries.add(entry)
                file.seek(tar.offset)  # tarfile takes any block that it cannot read for the last one, which is empty
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    entries.damage = "it is damaged or ends early; what comes after is lost."
        except DAMAGED as error:
            file.seek(0)
            kind = _compression(file.read(8))
            if kind and not entries.all:
                entries.damage = f"it is no plain tar, but compressed ({kind}). Unpack it, or make it a plain .tar."
            else:
                entries.damage = f"it is damaged: {error}."
    return entries


def _compression(start: bytes) -> str | None:
    for magic, name in COMPRESSIONS.items():
        if start.startswith(magic):
            return name
    return None


def _what_it_is(entry: tarfile.TarInfo) -> str:
    if entry.islnk() or entry.issym():
        return f"it is a link to {entry.linkname!r}, which is no file in the shard"
    return "it is no file, but a pipe or a device"


def _member(name: str, content: tarfile.TarInfo) -> Member:
    holes: Any = content.sparse  # typeshed says that these are numbers; they are pairs
    parts = None if holes is None else tuple((start, length) for start, length in holes)
    return Member(name, content.offset_data, content.size, parts)
