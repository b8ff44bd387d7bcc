"""Checkpoints: our safetensors with the configuration inside, and reference files. None is ever unpickled as code."""

import dataclasses
import hashlib
import json
import re
import typing
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wordmask.released import CHECKPOINT_ENDINGS
from wordmask.writing import atomic, expanded

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config")

FORMAT = "wordmask-1"
TEXT_TOWER = (
    "clip.transformer.",
    "clip.token_embedding.",
    "clip.positional_embedding",
    "clip.ln_final.",
    "clip.text_projection",
)
STATE_NAMES = ("model", "state_dict", "model_state_dict")  # where trainers put the weights; detectron2 uses the first
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
PICKLE_START = b"\x80"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights with what is needed to build their model.

    Args:
        family: `err-seg` or `eov-seg`; empty for a reference file.
        configuration: As in the file; empty for a reference file.
        text_tower: Fingerprint of the text tower, for the cache of text embeddings; empty if not known.
        origin: Where it came from, for people.
    """

    state: dict[str, Tensor]
    family: str
    configuration: dict[str, Any]
    text_tower: str
    origin: str


def save(path: Path, state: dict[str, Tensor], *, family: str, configuration: "DataclassInstance", origin: str) -> None:
    """Write a checkpoint as safetensors with its configuration in the metadata; it appears whole or not at all.

    Raises:
        OSError: There is no space, or no permission.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {
        "format": FORMAT,
        "family": family,
        "configuration": json.dumps(dataclasses.asdict(configuration)),
        "text_tower": text_tower_fingerprint(state),
        "origin": origin,
    }
    save_tensors(path, state, metadata)


def save_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors, whole or not at all, readable by whom the system's default lets read.

    Raises:
        OSError: There is no space, or no permission.
    """
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library makes its own file, which only its owner may read
        try:
            save_file(state, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{str(path)!r} could not be written: {error}") from None
        temporary.chmod(mode)


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours or a reference's.

    Raises:
        ValueError: The file does not exist, is damaged, or is not a checkpoint.
    """
    path = expanded(path)
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder; expected a checkpoint file, one of those that end in "
            f"{', '.join(CHECKPOINT_ENDINGS)}."
        )
    if not path.is_file():
        raise ValueError(f"The checkpoint {str(path)!r} does not exist. Check the spelling.")
    if path.suffix != ".safetensors":
        return Checkpoint(_read_pickled(path), "", {}, "", str(path))
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not safetensors: {error}. Fetch or convert it again."
        ) from None
    if metadata.get("format") != FORMAT:
        return Checkpoint(state, "", {}, "", str(path))
    try:
        configuration, text_tower = json.loads(metadata["configuration"]), metadata["text_tower"]
        if not FINGERPRINT.fullmatch(text_tower):  # it becomes the name of a file: no other text may
            text_tower = ""
        return Checkpoint(state, metadata["family"], configuration, text_tower, metadata["origin"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The checkpoint {str(path)!r} has unusable metadata ({error!r}). Fetch or convert it again."
        ) from None


def text_tower_fingerprint(state: dict[str, Tensor]) -> str:
    """Identify a text tower by its weights: 16 hexadecimal digits that change with any of them."""
    return fingerprint({name: tensor for name, tensor in state.items() if name.startswith(TEXT_TOWER)})


def fingerprint(state: dict[str, Tensor]) -> str:
    """Identify weights by their names and values: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def configure(kind: type[Config], values: Any) -> Config:
    """Build a configuration dataclass from json values: nested ones too, lists back to tuples.

    Raises:
        ValueError: A field is missing or unknown.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict) or hints.keys() != values.keys():
        odd = ", ".join(sorted(hints.keys() ^ values.keys())) if isinstance(values, dict) else repr(values)
        raise ValueError(
            f"The checkpoint's configuration does not fit {kind.__name__}: {odd}. "
            "Was it written by another version of wordmask?"
        )
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            fields[name] = configure(hints[name], value)
            continue
        numbers = value if isinstance(value, list) else [value]
        if hints[name] is not str and not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"The checkpoint's configuration has {name} = {value!r}; expected positive whole numbers.")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def may_be_pickled(path: Path) -> bool:
    """Tell whether a file begins as torch's do: a zip archive, or a pickle as it is."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == PICKLE_START


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise almost anything
        code = re.search(r"nsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if code and may_be_pickled(path):
            raise ValueError(
                f"The checkpoint {str(path)!r} holds more than tensors: loading it would run {code[1]}, which may do "
                "anything. Save its state dict alone with torch.save, or as safetensors."
            ) from None
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not a PyTorch file ({type(error).__name__}). Fetch it again."
        ) from None
    for name in STATE_NAMES:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not _is_state_dict(content):
        raise ValueError(
            f"The checkpoint {str(path)!r} holds no state dict: expected {{name: tensor}} or "
            f"{{'model': {{name: tensor}}}}."
        )
    return content


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
