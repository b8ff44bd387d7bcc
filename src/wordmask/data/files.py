"""Files of data sets: where they are, how large, and what is wrong with them, said at once."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from PIL import Image, ImageFile

from wordmask.pixels import size_of_file
from wordmask.writing import expanded

SHOWN = 5  # files that an error names

Size = tuple[int, int]  # (height, width)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Findings:
    """What is wrong with a data set, gathered by kind and said at once."""

    def __init__(self, where: Path):
        self.where = where
        self.kinds: dict[str, list[str]] = {}

    def add(self, kind: str, what: object) -> None:
        self.kinds.setdefault(kind, []).append(str(what))

    def attempt(
        self, kind: str, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """Return what `work` returns, or None and note its `ValueError`."""
        try:
            return work(*args, **kwargs)
        except ValueError as error:
            self.add(kind, error)

    def lines(self) -> list[str]:
        """Each kind, how often it was found, and the first of it."""
        lines = []
        for kind, found in self.kinds.items():
            more = [f"… and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            lines += [f"{kind} ({len(found)}):", *(f"  {line}" for line in found[:SHOWN] + more)]
        return lines

    def report(self, *hints: str) -> None:
        """Raise `ValueError` if anything was found; it names the first files of each kind, and ends in hints."""
        if self.kinds:
            lines = [f"{str(self.where)!r} cannot be used:", *self.lines()]
            raise ValueError("\n".join([*lines, *hints]))


def folder_of(root: str | Path) -> Path:
    """The folder of a data set, with ~ expanded; `ValueError` if it is none."""
    path = expanded(root)
    if not path.is_dir():
        raise ValueError(
            f"{str(root)!r} is {'a file' if path.exists() else 'not there'}; expected the folder of a data set."
        )
    return path


def first_folder(root: Path, names: tuple[str | Path, ...], what: str) -> Path:
    """The first of some folders that is in `root`; `ValueError`, with `what` is in it, if none is."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise ValueError(
        f"{str(root)!r} has no folder of {what}; expected {' or '.join(str(name) for name in names)} in it."
    )


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder with these endings by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith("."))


def json_files(root: Path) -> list[Path]:
    return files_in(root, (".json",))


def read_json(path: Path, expected: str) -> dict:
    """Read a file that holds a json object, which isn't empty; `expected` says in words what.

    Raises:
        ValueError: It does not exist, cannot be read, or holds something else.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text) if text.strip() else {}
    except FileNotFoundError:
        raise ValueError(f"The file {str(path)!r} does not exist; expected {expected}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The file {str(path)!r} cannot be read: {error}. Expected json, in UTF-8. Fetch or export it again."
        ) from None
    if not isinstance(content, dict) or not content:
        came = f"a {type(content).__name__}" if content else "nothing"
        raise ValueError(f"The file {str(path)!r} holds {came}; expected {expected}. Fetch or export it again.")
    return content


def lines_of(path: Path) -> list[str]:
    """The lines of a list, without those that are blank, and without spaces around them.

    Raises:
        ValueError: It can't be read, or is no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: {error}. Expected text, in UTF-8.") from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def compare_sizes(findings: Findings, picture: Path, label: Path) -> None:
    size = findings.attempt("Pictures that cannot be read", size_of, picture)
    other = findings.attempt("Labels that cannot be read", size_of, label, upright=False)
    if size and other and size != other:
        what = f"{picture.name} ({width_by_height(size)}), {label.name} ({width_by_height(other)})"
        kind = (
            "Pictures of another size than their label; both must have the same, photographs upright as their EXIF says"
        )
        findings.add(kind, what)


def size_of(path: Path, upright: bool = True) -> Size:
    """(height, width) from the header alone; `upright` as `read_picture` returns it, which labels are not."""
    try:
        return size_of_file(path, upright=upright)
    except OSError:
        raise ValueError(f"The file {str(path)!r} does not exist, or may not be read.") from None


@contextmanager
def opened(path: Path, what: str) -> Iterator[ImageFile.ImageFile]:
    """Open a picture file; whatever its decoder raises becomes a `ValueError` that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except FileNotFoundError:
        raise ValueError(f"The {what} {str(path)!r} does not exist.") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files, see `wordmask.image`
        raise ValueError(
            f"The {what} {str(path)!r} is damaged or no picture: {error}. Fetch or export it again."
        ) from None


def first_few(values: Sequence[object]) -> str:
    """The first values of a list, and how many more there are, for an error's text."""
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more


def width_by_height(size: Sequence[object]) -> str:
    """A (height, width) as people write it."""
    return f"{size[1]}×{size[0]}"
