"""What is finished of a job: one line a picture, appended when all its files are there; and what the job was asked."""

import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from wordmask.writing import JsonObject, atomic, named

FOLDER = ".wordmask"
SHOWN = 60  # characters of a value that differs

Record = JsonObject  # of one picture


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
        except FileNotFoundError:
            with atomic(path) as temporary:
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

    def read(self) -> "Finished":
        """Find what is finished, and its files are there."""
        places: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.lines.glob("*.jsonl")):
            start = 0
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        picture, files = json.loads(line[: line.index(b"\t")])
                        if all((self.output / name).is_file() for name in files):
                            places.setdefault(picture, (path, start))
                    start += len(line)
        return Finished(places)

    @contextmanager
    def writer(self) -> Iterator["Writer"]:
        """Open a file of one's own to note what is finished; threads may share it."""
        file = os.open(
            self.lines / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666
        )
        try:
            yield Writer(file, self.lines)
        finally:
            os.close(file)


class Writer:
    """Notes what is finished."""

    def __init__(self, file: int, folder: Path):
        self._file, self._folder, self._lock = file, folder, threading.Lock()

    def add(self, picture: str, files: list[str], record: Record) -> None:
        line = f"{json.dumps([picture, files])}\t{json.dumps(record)}\n".encode()
        with self._lock, named(self._folder):
            while line:
                line = line[os.write(self._file, line) :]


class Finished:
    """Which pictures are finished, and the record of each, read when it is asked for."""

    def __init__(self, places: dict[str, tuple[Path, int]]):
        self._places = places

    def __contains__(self, picture: str) -> bool:
        return picture in self._places

    def records(self, pictures: Iterable[str]) -> "Records":
        """The records of those that are finished, in the order given."""
        return Records([self._places[picture] for picture in pictures if picture in self._places])


class Records:
    """Records that can be gone through several times, and never are in memory all at once."""

    def __init__(self, places: list[tuple[Path, int]]):
        self._places = places

    def __iter__(self) -> Iterator[Record]:
        for path, places in groupby(self._places, key=itemgetter(0)):
            with path.open("rb") as file:
                for _, start in places:
                    file.seek(start)
                    yield json.loads(file.readline().partition(b"\t")[2])


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
