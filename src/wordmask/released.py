"""Released weights: where they are, and which file on this machine holds them."""

import json
from dataclasses import dataclass
from pathlib import Path

from wordmask.writing import atomic, cache_folder

CHECKPOINT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".pkl")  # of files: ours, and those that torch writes


@dataclass(frozen=True)
class OnHub:
    """Released weights in a hub repository: the file whose name says the size."""

    repository: str
    size: str


@dataclass(frozen=True)
class OnDrive:
    """Released weights on Google Drive."""

    file_id: str


@dataclass(frozen=True)
class InPackage:
    """Weights that this project trained, and that come with the package."""


RELEASED: dict[str, dict[str, OnHub | OnDrive | InPackage]] = {  # family → preset → place
    "err-seg": {
        "err-seg-base": OnHub("lchen1019/ERR-Seg", "base"),
        "err-seg-large": OnHub("lchen1019/ERR-Seg", "large"),
        "err-seg-tiny": InPackage(),
    },
    "eov-seg": {  # linked from the reference's README
        "eov-seg-small": OnDrive("1UgLrRxpi4l30F8zTqhEv7cEW23TCGv3h"),
        "eov-seg-medium": OnDrive("1--SYgaWs8_Ry2ouXBJO8FfSWH7D-Pejk"),
        "eov-seg-large": OnDrive("1dVfHpzmCOlV6hLfUpd3nHXz62wdB7RY2"),
        "eov-seg-tiny": InPackage(),
    },
}


def converted_file(name: str) -> Path | None:
    """Find the checkpoint that `remember` noted for a preset or hub id."""
    try:
        path = Path(json.loads(_note(name).read_text())["file"])
    except (OSError, ValueError, KeyError):
        return None
    return path if path.is_file() else None


def forget(name: str) -> None:
    """Undo `remember`."""
    _note(name).unlink(missing_ok=True)


def remember(name: str, file: Path, details: dict[str, str]) -> None:
    """Note which checkpoint serves a preset or hub id from now on, without asking the hub."""
    with atomic(_note(name)) as temporary:
        temporary.write_text(json.dumps({"file": str(file), **details}, indent=1))


def weights_folder() -> Path:
    """Where converted checkpoints lie."""
    return cache_folder() / "weights"


def _note(name: str) -> Path:
    return weights_folder() / f"{name.replace('/', '--')}.json"
