"""The models that come with the package: weights in half precision, of which what several share is stored once."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from wordmask.weights import FORMAT, Checkpoint, file_checksum, save_tensors, text_tower_fingerprint

FOLDER = Path(__file__).parent
SHARED = "shared.safetensors"


def pack(models: Mapping[str, Checkpoint], folder: Path = FOLDER) -> int:
    """Write models in half precision; return the size of all files in bytes.

    A tensor that two models have alike, by name and value, goes to the shared file.

    Raises:
        ValueError: A weight is too large for half precision.
    """
    halves = {name: halved_state(name, model.state) for name, model in models.items()}
    shared: dict[str, Tensor] = {}
    for name, state in halves.items():
        others = [other for other_name, other in halves.items() if other_name != name]
        for key, tensor in state.items():
            if key not in shared and is_in(others, key, tensor):
                shared[key] = tensor
    save_tensors(folder / SHARED, shared, {"format": FORMAT})
    checksum = file_checksum(folder / SHARED)
    for name, model in models.items():
        is_shared = {key: key in shared and torch.equal(tensor, shared[key]) for key, tensor in halves[name].items()}
        metadata = {
            "format": FORMAT,
            "family": model.family,
            "configuration": json.dumps(model.configuration),
            "text_tower": text_tower_fingerprint({key: tensor.float() for key, tensor in halves[name].items()}),
            "origin": model.origin,
            "shared_sha256": checksum,
            "shared": json.dumps([key for key, elsewhere in is_shared.items() if elsewhere]),
        }
        own = {key: tensor for key, tensor in halves[name].items() if not is_shared[key]}
        save_tensors(folder / f"{name}.safetensors", own, metadata)
    files = [SHARED, *(f"{name}.safetensors" for name in models)]
    return sum((folder / file).stat().st_size for file in files)


def halved_state(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights in half precision; errors call it `name`."""
    return {key: halved(f"{name}: {key}", tensor) for key, tensor in state.items()}


def is_in(states: list[dict[str, Tensor]], key: str, tensor: Tensor) -> bool:
    """Tell whether one of several models has a tensor, by name and value."""
    return any(key in state and torch.equal(tensor, state[key]) for state in states)


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


def halved(name: str, tensor: Tensor) -> Tensor:
    """A weight in half precision; whole numbers stay as they are."""
    if not tensor.is_floating_point():
        return tensor.detach().cpu().contiguous()
    half = tensor.detach().half().cpu().contiguous()
    if not half.isfinite().all():
        raise ValueError(f"{name} holds {tensor.abs().max():.4g}, which half precision can't; its limit is 65504.")
    return half
