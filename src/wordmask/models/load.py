"""A name, a file or a hub id → a model with its weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wordmask import bundled, weights
from wordmask.fetching import fetch, fetch_from_drive
from wordmask.models import MODELS, InPackage, Model, OnDrive, kind_of, preset_names
from wordmask.models.convert import from_reference, guess_preset, reference_names, unwrapped
from wordmask.released import CHECKPOINT_ENDINGS, converted_file, forget, remember, weights_folder
from wordmask.surroundings import as_if_alone
from wordmask.writing import expanded

HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w./-]+))?")  # owner/name, and perhaps a file there


@dataclass(frozen=True)
class LoadedModel:
    """A model, the name it was asked by, and the fingerprint of its text tower where a file states it."""

    model: Model
    name: str
    text_tower: str | None = None


@as_if_alone()
def load_model(name: str | Path) -> LoadedModel:
    """Load a model by preset name, checkpoint file or hub id.

    Released weights are fetched and converted once; afterwards no network is needed.

    Raises:
        ValueError: Unknown name, unreachable hub, or a file that is no checkpoint of ours.
    """
    if expanded(name).is_file():
        return from_checkpoint(weights.read(name), str(name))
    if isinstance(name, Path):
        raise _no_such_checkpoint(name)
    if name in preset_names():
        return _preset(name)
    hub_id = HUB_ID.fullmatch(name)
    if hub_id and (hub_id[2] or not name.endswith(CHECKPOINT_ENDINGS)):
        try:
            return _from_hub(name, hub_id[1], file=hub_id[2])
        except ValueError as error:
            raise ValueError(f"There is no file {name!r} here. {error}") from None
    if name.endswith(CHECKPOINT_ENDINGS) or "/" in name:
        raise _no_such_checkpoint(name)
    kind_of(name)  # raises, with the near matches
    raise AssertionError(name)


def _preset(name: str) -> LoadedModel:
    kind = kind_of(name)
    place = kind.released.get(name)
    if place is None:
        return LoadedModel(kind.random(kind.presets[name]), name)
    if isinstance(place, InPackage):
        return from_checkpoint(bundled.unpack(name), name)
    if isinstance(place, OnDrive):
        return _fetched_once(name, lambda: fetch_from_drive(place.file_id, name), {"drive": place.file_id})
    return _from_hub(name, place.repository, size=place.size)


def _no_such_checkpoint(name: str | Path) -> ValueError:
    return ValueError(
        f"The checkpoint {str(name)!r} does not exist. Check the spelling, or give the name of a model or a hub id."
    )


def convert(checkpoint: weights.Checkpoint, target: Path, preset: str | None = None) -> tuple[str, list[str]]:
    """Write a reference checkpoint in our format, at `target`; return the preset it belongs to and the keys dropped on
    purpose.

    Args:
        preset: Found by the shapes of the weights if None.

    Raises:
        ValueError: Not a reference checkpoint, or its keys don't fit.
    """
    if checkpoint.family:
        raise ValueError(
            f"The checkpoint is in our format already (family {checkpoint.family}): there is nothing to convert."
        )
    preset = preset or guess_preset(checkpoint.state)
    kind = kind_of(preset)
    plain = unwrapped(checkpoint.state, reference_names(preset)).state
    state = from_reference(preset, checkpoint.state).state_dict()
    origin = Path(checkpoint.origin).name
    weights.save(target, state, family=kind.family, configuration=kind.presets[preset], origin=origin)
    return preset, kind.known(kind.reference, "reference").dropped_names(plain)


def from_checkpoint(checkpoint: weights.Checkpoint, name: str) -> LoadedModel:
    """Build the model that a checkpoint, ours or a reference's, holds."""
    if not checkpoint.family:
        return LoadedModel(from_reference(guess_preset(checkpoint.state), checkpoint.state), name)
    if checkpoint.family not in MODELS:
        raise ValueError(
            f"{name!r} is of the family {checkpoint.family!r}; this version knows {', '.join(MODELS)}. Update wordmask."
        )
    kind = MODELS[checkpoint.family]
    configuration = weights.configure(kind.configuration, checkpoint.configuration)
    try:
        model = kind.skeleton(configuration)
    except Exception as error:  # numbers that don't fit each other make torch, timm and open_clip raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"The configuration in {name!r} makes no model: {reason}. Fetch or convert the checkpoint again."
        ) from None
    return LoadedModel(kind.fill(model, checkpoint.state), name, checkpoint.text_tower or None)


def _from_hub(name: str, repository: str, *, file: str | None = None, size: str | None = None) -> LoadedModel:
    return _fetched_once(name, lambda: fetch(repository, file, size), {"repository": repository})


def _fetched_once(name: str, fetch: Callable[[], tuple[Path, str]], origin: dict[str, str]) -> LoadedModel:
    """Load what a name was converted to before; or fetch a checkpoint, convert it if it is a reference's, and note it
    for the next time.

    Args:
        fetch: Returns the file and its SHA-256.
    """
    ready = converted_file(name)
    if ready is not None:
        try:
            return from_checkpoint(weights.read(ready), name)
        except ValueError:  # damaged since: fetch and convert it again
            forget(name)
    source, checksum = fetch()
    try:
        ready = _converted(name, source, checksum)
    finally:
        if source.parent == weights_folder():  # fetched for this alone; the hub keeps its own
            source.unlink(missing_ok=True)
    remember(name, ready, {**origin, "source": source.name, "sha256": checksum})
    return from_checkpoint(weights.read(ready), name)


def _converted(name: str, source: Path, checksum: str) -> Path:
    """Convert a reference checkpoint; one of ours is used as it is."""
    checkpoint = weights.read(source)
    if checkpoint.family:
        return source
    ready = weights_folder() / f"{checksum[:16]}.safetensors"
    convert(checkpoint, ready, name if name in preset_names() else None)
    return ready
