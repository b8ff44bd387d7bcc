"""Checkpoints: our safetensors with the configuration inside, and reference files. None is ever unpickled as code."""

import dataclasses
import hashlib
import json
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from wordmask.released import CHECKPOINT_ENDINGS
from wordmask.surroundings import as_if_alone
from wordmask.unpickling import is_state_dict, read_pickled
from wordmask.writing import expanded, unfinished_folder

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
# where trainers put the weights, those as trained before their moving average; detectron2 uses the first
STATE_NAMES = (
    *("model", "state_dict", "model_state_dict", "module"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict"),
)
MOST = 2**16  # of any number in a configuration; the largest of ours is 2048
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights with what is needed to build their model.

    Args:
        family: `err-seg` or `eov-seg`; empty for a reference file.
        configuration: As in the file; empty for a reference file.
        text_tower: Fingerprint of the text tower, for the cache of text embeddings; empty if not known.
        origin: Where it came from, for people.
        inside: Under which names of the file the weights lie, where it holds more.
    """

    state: dict[str, Tensor]
    family: str
    configuration: dict[str, Any]
    text_tower: str
    origin: str
    inside: tuple[str, ...] = ()


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
    path = Path(path)
    with unfinished_folder(path) as folder:  # the library makes files of its own, which a kill would leave
        temporary = folder / path.name
        temporary.touch()
        mode = temporary.stat().st_mode  # of its own file, which only its owner may read
        try:
            save_file(state, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{str(path)!r} could not be written: {error}") from None
        temporary.chmod(mode)
        temporary.replace(path)


@as_if_alone()
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
        state, inside = _weights_in(read_pickled(path), path)
        return Checkpoint(state, "", {}, "", str(path), inside)
    state, metadata = _read_safetensors(path)
    if not state:
        raise ValueError(f"The checkpoint {str(path)!r} holds no weights. Fetch or convert it again.")
    if metadata.get("format") != FORMAT:
        return Checkpoint(state, "", {}, "", str(path))
    try:
        configuration, text_tower = json.loads(metadata["configuration"]), metadata["text_tower"]
        if not FINGERPRINT.fullmatch(text_tower):  # it becomes the name of a file: no other text may
            text_tower = ""
        return Checkpoint(state, metadata["family"], configuration, text_tower, metadata["origin"])
    except (KeyError, ValueError, RecursionError) as error:
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
        if hints[name] is not str and not all(_is_plain_count(number) for number in numbers):
            shown = repr(value)[:60]
            raise ValueError(f"The checkpoint's configuration has {name} = {shown}; expected positive whole numbers.")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)


def _is_plain_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number <= MOST


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights_in(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the state dict in what a trainer saved; return it, and the names under which it lies."""
    if is_state_dict(content):
        return content, ()
    holds = content if isinstance(content, dict) else {}
    name = next((name for name in STATE_NAMES if isinstance(holds.get(name), dict)), None)
    if name is None:
        raise ValueError(
            f"The checkpoint {str(path)!r} holds no state dict: expected {{name: tensor}} or "
            f"{{'model': {{name: tensor}}}}."
        )
    state, deeper = _weights_in(holds[name], path)
    return state, (name, *deeper)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        _check_names(path)
        return load_file(path), metadata
    except OSError:
        raise
    except Exception as error:  # the library's own, and what torch and json raise
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not safetensors: {error}. Fetch or convert it again."
        ) from None


def _check_names(path: Path) -> None:
    """Raise a ValueError if a name stands twice in the header: the library would keep either of the two."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in its header")
        return found

    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=once)
