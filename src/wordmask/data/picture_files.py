"""Pictures as labelling tools name them: with another machine's slashes, escapes, prefixes and capitals."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from wordmask.data.files import first_few
from wordmask.sources import PICTURE_FILES

UPLOADED = re.compile(r"^[0-9a-f]{6,8}-")  # what Label Studio puts before an uploaded file's name
LOCAL = "?d="  # and before the path of a local one


class PictureFinder:
    """Finds what a labelling tool calls a picture.

    Args:
        folders: Where pictures may be, and in folders inside; names are relative to one of them.
    """

    def __init__(self, folders: Sequence[Path]):
        self.folders = list(dict.fromkeys(folders))
        self._by_tail: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """Find a picture: as it is spelled; otherwise whatever ends in as much of its path as possible.

        Raises:
            ValueError: Several pictures could be meant.
        """
        exact = self.find_exactly(name)
        if exact is not None:
            return exact
        for spelled in _spellings(name):
            if hits := self._ending_in(spelled):
                if len(hits) > 1:
                    raise ValueError(
                        f"{name!r} may be {first_few([str(path) for path in hits])}. Name it with its folder."
                    )
                return hits[0]
        return None

    def find_exactly(self, name: str) -> Path | None:
        """Find a picture as it is spelled, but for another machine's slashes, escapes and prefixes."""
        for spelled in (name, *_spellings(name)):
            for folder in self.folders:
                if spelled and _is_file(folder / spelled):
                    return folder / spelled
        return None

    def _ending_in(self, name: str) -> list[Path]:
        """The pictures whose path shares the longest end with a name: at least the file's own."""
        if self._by_tail is None:
            self._by_tail = {}
            for folder in self.folders:
                for path in pictures_below(folder):
                    for tail in _tails(path.relative_to(folder).as_posix()):
                        hits = self._by_tail.setdefault(tail, [])
                        if path not in hits:
                            hits.append(path)
        for tail in _tails(name):
            if tail in self._by_tail:
                return self._by_tail[tail]
        return []


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and those inside it, by path, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_FILES)
    return sorted(path for path in found if not _is_hidden(path.relative_to(folder)) and path.is_file())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name of a file: a picture's own bytes as text, say
        return False


def _is_hidden(place: Path) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _spellings(name: str) -> Iterator[str]:
    """What else a name may be called."""
    name = name.strip()
    path = name.rpartition(LOCAL)[2]
    for spelled in dict.fromkeys((path.replace("\\", "/"), unquote(path).replace("\\", "/"))):
        yield spelled.lstrip("/").removeprefix("./")
        folder, _, file = spelled.rpartition("/")
        if UPLOADED.match(file):
            yield f"{folder}/{UPLOADED.sub('', file)}".lstrip("/")


def _tails(path: str) -> Iterator[str]:
    """a/b/c → a/b/c, b/c, c; alike for capitals and for letters composed of several."""
    parts = unicodedata.normalize("NFC", path).casefold().split("/")
    for start in range(len(parts)):
        yield "/".join(parts[start:])
