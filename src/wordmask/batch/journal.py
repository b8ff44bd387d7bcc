"""What is finished of a job: one line a picture, appended when all its files are there; and what the job was asked."""

import json
import os
import secrets
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wordmask.folders import JOB_FOLDER
from wordmask.writing import JsonObject, atomic, named

FOLDER = JOB_FOLDER
SHOWN = 60  # characters of a value that differs
RECORDED = {"picture", "file_name", "source", "height", "width"}  # in every record

Record = JsonObject  # of one picture


class Stamp(NamedTuple):
    """What a result was made of: where anything differs, it is made again.

    Args:
        place: The file, by its own absolute name.
        file_name: The picture's name.
        size: Of the file, in bytes.
        modified: When the file was written last, in nanoseconds.
        start: Where the picture lies in the file, if it is not the whole: a byte, or a moment of a film.
    """

    place: str
    file_name: str
    size: int
    modified: int
    start: int = 0


class Noted(NamedTuple):
    """What a line of the journal says: the files of a picture, and what they were made of; earlier versions noted
    only the picture's name of that."""

    picture: str
    files: list[str]
    stamp: Stamp | None
    file_name: str


class BatchJournal:
    """A job's memory, in a hidden folder of its output.

    Every process writes a file of its own, so that what a killed one leaves half-written disturbs nobody: a line
    without an end doesn't count.

    Args:
        output: The folder of the results.
    """

    def __init__(self, output: Path):
        self.output = output
        self.folder = output / FOLDER
        self.lines = self.folder / "finished"
        self.unfinished = self.folder / "unfinished"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other jobs out of this output for the block; remove what killed ones left half-written.

        Raises:
            ValueError: Another job is at work.
        """
        self.lines.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            if not _lock(lock.fileno()):
                raise ValueError(
                    f"Another job is at work in {str(self.output)!r}. Wait for its end, or choose another output "
                    "folder."
                )
            shutil.rmtree(self.unfinished, ignore_errors=True)
            self.unfinished.mkdir()
            yield

    def check(self, asked: Record) -> None:
        """Note what the job is asked; or compare, where there is a note.

        Raises:
            ValueError: The folder is of another job; the message says what differs.
        """
        path = self.folder / "job.json"
        asked = json.loads(json.dumps(asked))  # as it will be read: lists for tuples
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(noted, dict):
                raise ValueError("it holds no json object")
        except FileNotFoundError:
            with atomic(path, self.unfinished) as temporary:
                temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False), encoding="utf-8")
            return
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is damaged: {error}. Choose another output folder.") from None
        differing = [name for name in noted | asked if noted.get(name) != asked.get(name)]
        if differing:
            listed = "; ".join(
                f"{name}: it was {_short(noted.get(name))}, now {_short(asked.get(name))}" for name in differing
            )
            raise ValueError(
                f"The folder {str(self.output)!r} has results of another job. {listed}. "
                "Ask the same, or choose another folder."
            )

    def mend(self) -> list[str]:
        """Take out what is damaged, such as a line that a killed job left half-written; say where it was."""
        damaged = []
        for path in sorted(self.lines.glob("*.jsonl")):
            with path.open("rb") as file:
                bad = {number for number, line in enumerate(file, 1) if _noted(line) is None}
            if not bad:
                continue
            damaged += [f"{path.name} line {number}" for number in sorted(bad)]
            written = path.stat()
            with atomic(path, self.unfinished) as temporary:
                with path.open("rb") as file, temporary.open("wb") as mended:
                    mended.writelines(line for number, line in enumerate(file, 1) if number not in bad)
                os.utime(temporary, ns=(written.st_atime_ns, written.st_mtime_ns))
        return damaged

    def read(self, stamps: Mapping[str, Stamp | None] | None = None, *, unstamped: bool = True) -> "Finished":
        """Find what is finished, and its files are there.

        Args:
            stamps: What every picture is now; what was made of something else isn't finished.
            unstamped: Whether lines count that don't say what a result was made of. They do if the picture has the same
                name, and is older than the result.
        """
        finished = Finished()
        for path in sorted(self.lines.glob("*.jsonl")):
            start = 0
            with path.open("rb") as file:
                for line in file:
                    noted = _noted(line)
                    if noted and all((self.output / name).is_file() for name in noted.files):
                        counts = stamps is None or self._is_of(noted, stamps.get(noted.picture), path, unstamped)
                        finished.add(noted, (path, start), counts=counts)
                    start += len(line)
        return finished

    def _is_of(self, noted: Noted, stamp: Stamp | None, path: Path, unstamped: bool) -> bool:
        """Whether a result was made of what the picture is now."""
        if stamp is None or noted.stamp is not None:
            return stamp is not None and noted.stamp == stamp
        written = [(self.output / name).stat().st_mtime_ns for name in noted.files] or [path.stat().st_mtime_ns]
        same_name = PurePosixPath(noted.file_name).name == PurePosixPath(stamp.file_name).name
        return unstamped and same_name and stamp.modified <= min(written)

    def remove(self, noted: Noted) -> None:
        """Remove the files of a result."""
        for name in noted.files:
            if not Path(name).is_absolute() and ".." not in Path(name).parts:
                (self.output / name).unlink(missing_ok=True)

    @contextmanager
    def writer(self) -> Iterator["Writer"]:
        """Open a file of one's own to note what is finished; threads may share it."""
        path = self.lines / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            yield Writer(file, path)
        finally:
            os.close(file)


class Writer:
    """Notes what is finished."""

    def __init__(self, file: int, path: Path):
        self._file, self._path, self._lock, self._torn = file, path, threading.Lock(), False

    def add(self, noted: Noted, record: Record) -> None:
        content = f"{json.dumps([noted.picture, noted.files, noted.stamp])}\t{json.dumps(record)}".encode()
        line = b"%08x\t%b\n" % (zlib.crc32(content), content)
        with self._lock, named(self._path):
            if self._torn:  # a full disk took half of the last one
                line = b"\n" + line
            self._torn = True
            while line:
                line = line[os.write(self._file, line) :]
            self._torn = False


@dataclass
class Finished:
    """Which pictures are finished, and the record of each, read when it is asked for.

    Args:
        places: Where the line of each is.
        others: What was made of something else than the pictures are now, or of pictures that are none of them.
        old: How many lines of `places` don't say what a result was made of.
    """

    places: dict[str, tuple[Path, int]] = field(default_factory=dict)
    others: list[Noted] = field(default_factory=list)
    old: int = 0

    def add(self, noted: Noted, place: tuple[Path, int], *, counts: bool) -> None:
        if not counts:
            self.others.append(noted)
        elif noted.picture not in self.places:
            self.places[noted.picture] = place
            self.old += noted.stamp is None

    def __contains__(self, picture: str) -> bool:
        return picture in self.places

    def records(self, pictures: Iterable[str]) -> "Records":
        """The records of those that are finished, in the order given."""
        return Records([self.places[picture] for picture in pictures if picture in self.places])


class Records:
    """Records that can be gone through several times, and never are in memory all at once."""

    def __init__(self, places: list[tuple[Path, int]]):
        self._places = places

    def __iter__(self) -> Iterator[Record]:
        for path, places in groupby(self._places, key=itemgetter(0)):
            with path.open("rb") as file:
                for _, start in places:
                    file.seek(start)
                    yield json.loads(file.readline().rpartition(b"\t")[2])


def _noted(line: bytes) -> Noted | None:
    """What a line says; None if it is damaged."""
    if not line.endswith(b"\n"):
        return None
    if line.startswith(b"["):
        return _noted_without_checksum(line)
    checksum, _, content = line.rstrip(b"\n").partition(b"\t")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    picture, files, stamp = json.loads(content.partition(b"\t")[0])
    return Noted(picture, files, stamp and Stamp(*stamp), "")


def _noted_without_checksum(line: bytes) -> Noted | None:
    """The same of a line that an earlier version wrote."""
    head, _, content = line.partition(b"\t")
    try:
        picture, files = json.loads(head)
        record = json.loads(content)
        texts = [picture, record["file_name"], *files]
        sound = record.keys() >= RECORDED and isinstance(files, list) and all(isinstance(text, str) for text in texts)
        return Noted(picture, files, None, record["file_name"]) if sound else None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def _lock(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: two jobs there are not told from one
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 2] + " …"
