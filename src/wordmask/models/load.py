"""A name, a file or a hub id → a model with its weights."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from wordmask import weights
from wordmask.models import MODELS, kind_of, preset_names
from wordmask.models.convert import dropped_names, from_reference, guess_preset

HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:/([\w./-]+))?")  # owner/name, and perhaps a file there


@dataclass(frozen=True)
class LoadedModel:
    """A model, the name it was asked by, and the fingerprint of its text tower where a file states it."""

    model: nn.Module
    name: str
    text_tower: str | None = None


def load_model(name: str | Path) -> LoadedModel:
    """Load a model by preset name, checkpoint file or hub id.

    Released weights are fetched and converted once; afterwards no network is needed.

    Raises:
        ValueError: Unknown name, unreachable hub, or a file that is no checkpoint of ours.
    """
    hub_id = HUB_ID.fullmatch(str(name))
    if Path(name).expanduser().is_file():
        return from_checkpoint(weights.read(Path(name)), str(name))
    if name in preset_names():
        kind = kind_of(name)
        if name not in kind.released:
            return LoadedModel(kind.random(kind.presets[name]), name)
        repository, size = kind.released[name]
        return _from_hub(name, repository, None, size)
    if isinstance(name, Path) or (name.endswith(weights.CHECKPOINT_FILES) and not (hub_id and hub_id[2])):
        raise ValueError(f"The checkpoint {str(name)!r} does not exist. Check the spelling, or give the name of a model or a hub id.")
    if hub_id:
        return _from_hub(name, hub_id[1], hub_id[2], None)
    kind_of(name)  # raises, with the near matches
    raise AssertionError(name)


def convert_file(source: Path, target: Path, preset: str | None = None) -> tuple[str, list[str]]:
    """Convert a reference checkpoint to our format, at `target`; return the preset it belongs to and the keys dropped on purpose.

    Raises:
        ValueError: Not a reference checkpoint, or its keys don't fit.
    """
    checkpoint = weights.read(source)
    if checkpoint.family:
        raise ValueError(f"{str(source)!r} is in our format already (family {checkpoint.family}): there is nothing to convert.")
    preset = preset or guess_preset(checkpoint.state)
    kind = kind_of(preset)
    state = from_reference(preset, checkpoint.state).state_dict()
    weights.save(target, state, family=kind.family, configuration=kind.presets[preset], origin=Path(source).name)
    return preset, dropped_names(kind.family, checkpoint.state)


def from_checkpoint(checkpoint: weights.Checkpoint, name: str) -> LoadedModel:
    """Build the model that a checkpoint, ours or a reference's, holds."""
    if not checkpoint.family:
        return LoadedModel(from_reference(guess_preset(checkpoint.state), checkpoint.state), name)
    if checkpoint.family not in MODELS:
        raise ValueError(f"{name!r} is of the family {checkpoint.family!r}; this version knows {', '.join(MODELS)}. Update wordmask.")
    kind = MODELS[checkpoint.family]
    model = kind.skeleton(weights.configure(kind.configuration, checkpoint.configuration))
    return LoadedModel(kind.fill(model, checkpoint.state), name, checkpoint.text_tower)


def _from_hub(name: str, repository: str, file: str | None, size: str | None) -> LoadedModel:
    ready = weights.converted_file(name)
    if ready is None:
        source = weights.fetch(repository, file, size)
        checksum = weights.file_checksum(source)
        ready = source
        if not weights.read(source).family:
            ready = weights.weights_folder() / f"{checksum[:16]}.safetensors"
            convert_file(source, ready, name if name in preset_names() else None)
        weights.remember(name, ready, {"repository": repository, "source": source.name, "sha256": checksum})
    return from_checkpoint(weights.read(ready), name)
