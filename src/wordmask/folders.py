"""What lies in a folder and those inside it, links followed: files to read, what can't be opened, and what is left out.

Every file is one of the three. Needs nothing else of wordmask.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

EXPLAINED = ".explain.png"
# what we write is never read again as input: beside pictures, and what a batch writes below its output folder
OWN_FILES = (".masks.png", ".labels.png", ".panoptic.png", ".labels.tif", EXPLAINED)
JOB_FOLDER = ".wordmask"
RESULT_FOLDERS = ("labels", "overlays", "panoptic", "yolo")
# pictures that Pillow reads wrongly or not at all: of a raw photograph it takes the small preview
RAW_PHOTOGRAPHS = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw", ".x3f")
OTHER_PICTURES = (*RAW_PHOTOGRAPHS, ".dcm", ".eps", ".exr", ".hdr", ".jxl", ".pdf", ".psd", ".svg", ".xcf")
HIDDEN_FOLDERS = ("__MACOSX",)  # what macOS adds to archives
NAMED = 1000  # names that are kept of files that are no pictures: a shard may hold millions
TOLD = 4  # names of each reason in a line
SAME_FOLDER = 8  # times that one folder is read, through as many links

Identity = tuple[int, int]  # of a folder, whatever its name: device and number


class Reason(StrEnum):
    """Why a file is left out."""

    NO_PICTURE = "no picture"
    OTHER_PICTURE = "picture of a kind that isn't read (convert it to JPEG, PNG or TIFF)"
    HIDDEN = "hidden"
    OURS = "written by wordmask"
    NAMED_BEFORE = "named before"
    LOOP = "link to a folder that is open already"
    REPLACED = "replaced by a later member of the same name"
    SAMPLE = "not the picture of its sample"


@dataclass
class Skips:
    """What is left out: counted, and named.

    Args:
        counts: All of each reason.
        names: The same, in the order found; of what is no picture the first `NAMED` alone.
    """

    counts: Counter[Reason] = field(default_factory=Counter)
    names: dict[Reason, list[str]] = field(default_factory=dict)

    def add(self, reason: Reason, name: object) -> None:
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        if reason is not Reason.NO_PICTURE or len(names) < NAMED:
            names.append(str(name))

    def extend(self, other: "Skips") -> None:
        for reason, count in other.counts.items():
            self.counts[reason] += count
            names = self.names.setdefault(reason, [])
            names += other.names[reason]
            if reason is Reason.NO_PICTURE:
                del names[NAMED:]

    def __len__(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """Say it, a line for each reason."""
        lines = []
        for reason in Reason:
            if count := self.counts[reason]:
                names = self.names[reason][:TOLD]
                lines.append(f"{count} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}")
        return lines


@dataclass
class Contents:
    """What lies in a folder.

    Args:
        files: To be read, in order.
        problems: What looks like an input and can't be opened, and why.
        skips: What is left out.
    """

    files: list[Path] = field(default_factory=list)
    problems: dict[Path, str] = field(default_factory=dict)
    skips: Skips = field(default_factory=Skips)


def contents_of(folder: Path, endings: tuple[str, ...], skip: Path | None = None) -> Contents:
    """Look through a folder and those inside it. Links count as what they lead to, under their own names.

    Args:
        endings: Of the files that are read.
        skip: A folder inside not to look into: the output's.
    """
    found = Contents()
    for place, names in open_folders(folder, found, skip):
        for name in names:
            path = Path(place, name)
            wanted = name.lower().endswith(endings)
            problem = None if is_hidden(name) else problem_of(path)
            may_be_folder = not path.suffix and path.is_symlink()
            if is_hidden(name):
                found.skips.add(Reason.HIDDEN, path)
            elif name.endswith(OWN_FILES):
                found.skips.add(Reason.OURS, path)
            elif problem and (wanted or may_be_folder):
                found.problems[path] = problem
            elif problem or not wanted:
                found.skips.add(reason_for(name), path)
            else:
                found.files.append(path)
    found.files.sort()
    return found


def open_folders(folder: Path, found: Contents, skip: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those inside it, each with the names of what lies there and is no folder.

    A link to a folder is followed, unless it leads back to one that it lies in, be it above the first, or to one that
    was read often enough.

    Args:
        found: Where folders that are left out, or can't be opened, are noted.
        skip: A folder inside not to look into.
    """
    over = frozenset(_identity(parent) for parent in folder.resolve().parents)
    waiting: list[tuple[Path, frozenset[Identity]]] = [(folder, over)]
    times: Counter[Identity] = Counter()
    output = _identity(skip) if skip is not None and skip.exists() else None
    while waiting:
        place, above = waiting.pop()
        try:
            identity = _identity(place)
            folders, names = _listed(place)
        except OSError as error:
            found.problems[place] = f"The folder {str(place)!r} can't be opened: {error.strerror}."
            continue
        times[identity] += 1
        if identity in above or times[identity] > SAME_FOLDER:
            found.skips.add(Reason.LOOP, f"{place}/")
            continue
        if place != folder and identity == output:
            found.skips.add(Reason.OURS, f"{place}/")
            continue
        for name in folders:
            if name == JOB_FOLDER or (JOB_FOLDER in folders and name in RESULT_FOLDERS):
                found.skips.add(Reason.OURS, f"{place / name}/")
            elif is_hidden(name):
                found.skips.add(Reason.HIDDEN, f"{place / name}/")
            else:
                waiting.append((place / name, above | {identity}))
        yield place, names


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden: from people, or by macOS beside the real one."""
    return (name.startswith(".") and name not in (".", "..")) or name in HIDDEN_FOLDERS


def reason_for(name: str) -> Reason:
    """Why a file with another ending is left out."""
    return Reason.OTHER_PICTURE if name.lower().endswith(OTHER_PICTURES) else Reason.NO_PICTURE


def problem_of(path: Path) -> str | None:
    """Why there is nothing to read at a path where something lies; None if there is."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return f"{str(path)!r} is a link to {str(path.readlink())!r}, which can't be opened: {error.strerror}."
        return f"{str(path)!r} can't be opened: {error.strerror}."
    return None if stat.S_ISREG(mode) else f"{str(path)!r} is no file, but a pipe, a socket or a device."


def _identity(folder: Path) -> Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders in a folder, and of everything else, in order."""
    folders, others = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            (folders if _is_folder(entry) else others).append(entry.name)
    return folders, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
