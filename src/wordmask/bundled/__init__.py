"""The models that come with the package: weights in half precision; what several share is stored once."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from wordmask.surroundings import as_if_alone
from wordmask.weights import FORMAT, Checkpoint, file_checksum, save_tensors, text_tower_fingerprint

FOLDER = Path(__file__).parent
SHARED = "shared.safetensors"


def pack(models: Mapping[str, Checkpoint], folder: Path = FOLDER) -> int:
    """Write models in half precision; return the size of all files in bytes.

    A tensor that two models have alike, by name and value, goes to the shared file.

    Raises:
        ValueError: A weight is too large for half precision.
    """
    halves = {name: halved_weights(name, model.state) for name, model in models.items()}
    shared = shared_weights(list(halves.values()))
    save_tensors(folder / SHARED, shared, {"format": FORMAT})
    checksum = file_checksum(folder / SHARED)
    files = [folder / SHARED]
    for name, model in models.items():
        elsewhere = [key for key, tensor in halves[name].items() if has(shared, key, tensor)]
        metadata = {
            "format": FORMAT,
            "family": model.family,
            "configuration": json.dumps(model.configuration),
            "text_tower": text_tower_fingerprint({key: tensor.float() for key, tensor in halves[name].items()}),
            "origin": model.origin,
            "shared_sha256": checksum,
            "shared": json.dumps(elsewhere),
        }
        own = {key: tensor for key, tensor in halves[name].items() if key not in elsewhere}
        files.append(folder / f"{name}.safetensors")
        save_tensors(files[-1], own, metadata)
    return sum(file.stat().st_size for file in files)


@as_if_alone()
def unpack(name: str, folder: Path = FOLDER) -> Checkpoint:
    """Read a bundled model, in single precision.

    Raises:
        ValueError: A file is missing or damaged: the installation is not whole.
    """
    try:
        with (
            safetensors.safe_open(folder / f"{name}.safetensors", "pt") as own,
            safetensors.safe_open(folder / SHARED, "pt") as shared,
        ):
            metadata = own.metadata() or {}
            if metadata.get("shared_sha256") != file_checksum(folder / SHARED):
                raise OSError(f"{SHARED} belongs to another version")
            state = {key: own.get_tensor(key) for key in own.offset_keys()}
            state |= {key: shared.get_tensor(key) for key in json.loads(metadata["shared"])}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"The bundled model {name!r} is missing or damaged in {str(folder)!r}: {error}. Install wordmask again."
        ) from None
    state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    configuration = json.loads(metadata["configuration"])
    return Checkpoint(state, metadata["family"], configuration, metadata["text_tower"], metadata["origin"])


def shared_weights(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights that two models have alike, by name and value."""
    shared: dict[str, Tensor] = {}
    for number, state in enumerate(states):
        others = states[:number] + states[number + 1 :]
        for key, tensor in state.items():
            if key not in shared and any(has(other, key, tensor) for other in others):
                shared[key] = tensor
    return shared


def has(state: dict[str, Tensor], key: str, tensor: Tensor) -> bool:
    """Tell whether weights have a tensor of this name and value."""
    return key in state and torch.equal(state[key], tensor)


def halved_weights(model: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All weights of a model in half precision; its name stands in errors."""
    return {key: halved(f"{model}: {key}", tensor) for key, tensor in state.items()}


def halved(name: str, tensor: Tensor) -> Tensor:
    """A weight in half precision; whole numbers stay as they are."""
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous()
    half = tensor.detach().half().cpu().contiguous()
    if not half.isfinite().all():
        raise ValueError(f"{name} holds {tensor.abs().max():.4g}, which half precision can't; its limit is 65504.")
    return half
