"""Fingerprints: whether what goes on, or what a cache holds, is made of the same as before.

Of plain values, of files, and of the code that computes: wordmask's own sources, those that it is given beside them,
and the versions of the libraries underneath.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

HOME = Path(__file__).parent
DIGITS = 16
TEXT = (".csv", ".json", ".py", ".txt", ".yaml", ".yml", ".xml")  # line ends say nothing there
SOURCES = (".json", ".py", ".txt")  # of what computes: also lists of words, and what the values of labels mean
ONLY_SHOW = {  # rooms and files of ours that no label, figure or weight depends on
    *("batch", "bench", "bundled", "doctor", "explain", "serve"),
    *("__init__.py", "__main__.py", "adapters.py", "bars.py", "cli.py", "demo.py", "drawing.py", "export.py"),
    *("fetching.py", "georeference.py", "options.py", "runtime.py", "segmenting.py", "terminal.py"),
}
LIBRARIES = ("numpy", "open_clip_torch", "pillow", "pycocotools", "scipy", "timm", "torch", "torchvision")
INSTALLED = ("site-packages", "dist-packages")  # where other people's code lies, whose versions count
WHOLE = 2**20  # bytes of a picture that are read as they are; of a larger one, as many in blocks
BLOCKS = 16


def of_values(*values: object) -> str:
    """Of plain values, and of what `str` says of others."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def of_file(path: Path) -> str:
    """Of all that a file holds; of text, however its lines end.

    Raises:
        OSError: It can't be read.
    """
    if path.suffix.lower() in TEXT:
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:DIGITS]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def of_picture(path: Path) -> str:
    """Of a picture's size in bytes and its contents: all up to a megabyte, else sixteen blocks from the first to the
    last byte.

    So a hundred thousand photographs take minutes, and not the time it takes to read them all. Formats for photographs
    are compressed, and whoever changes one anywhere changes its size, or what follows.

    Raises:
        OSError: It can't be read.
    """
    size = path.stat().st_size
    if size <= WHOLE:
        return of_file(path)
    digest, block = hashlib.sha256(f"{size}\n".encode()), WHOLE // BLOCKS
    with path.open("rb") as file:
        for number in range(BLOCKS):
            file.seek((size - block) * number // (BLOCKS - 1))
            digest.update(file.read(block))
    return digest.hexdigest()[:DIGITS]


def of_code(more: Iterable[Path] = ()) -> str:
    """Of everything that labels, figures and weights are computed by.

    Args:
        more: Sources beside wordmask's own, known by their names: a recipe, a model of somebody's.
    """
    ours = [path for path in sorted(HOME.rglob("*")) if path.suffix in SOURCES and _computes(path.relative_to(HOME))]
    files = [(path.relative_to(HOME).as_posix(), of_file(path)) for path in ours]
    files += sorted((path.name, of_file(path)) for path in set(more) if not path.is_relative_to(HOME))
    return of_values(files, versions())


def versions() -> dict[str, str]:
    """The versions of the libraries that are computed with, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def files_that_define(things: Iterable[object]) -> set[Path]:
    """The sources of the classes of things, and of what these inherit from; without those of installed libraries."""
    modules = {kind.__module__ for thing in things for kind in type(thing).__mro__}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    paths = {Path(file) for file in files if file is not None}
    return {path for path in paths if path.suffix == ".py" and path.is_file() and not _is_installed(path)}


def _computes(path: Path) -> bool:
    return path.parts[0] not in ONLY_SHOW


def _is_installed(path: Path) -> bool:
    return any(part in INSTALLED for part in path.parts) or path.is_relative_to(Path(sys.base_prefix) / "lib")
