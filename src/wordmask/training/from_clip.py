"""A model to begin a training with: CLIP's published weights in its towers, random ones elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wordmask import clip, weights
from wordmask.models import MODELS, Model, ModelKind, kind_of
from wordmask.models.fitting import check_finite, check_kinds
from wordmask.surroundings import as_if_alone, float32_by_default

FETCH, RANDOM = "auto", "random"


@as_if_alone()
@float32_by_default()
def from_clip(preset: str, clip_weights: str = FETCH, spatial_weights: str = FETCH) -> Model:
    """Build a preset with CLIP's own weights in its towers and random ones elsewhere.

    Args:
        clip_weights: `auto` fetches the published ones; `random` leaves random ones, for trying the road; or a file in
            open_clip's format.
        spatial_weights: The same for the whole vision transformer whose beginning sees where things are, in models that
            have one.

    Raises:
        ValueError: No such preset; weights that aren't known, can't be fetched or don't fit.
    """
    kind = kind_of(preset)
    model = kind.model(kind.presets[preset])
    if clip_weights != RANDOM:
        _load(model.clip, _clip_state(kind, preset, clip_weights), clip_weights)
    if spatial_weights != RANDOM:
        for tower in model.modules():
            if isinstance(tower, clip.VitBeginning):
                _load(tower, _beginning(_spatial_state(kind, spatial_weights), tower, spatial_weights), spatial_weights)
    model.start_from_clip()
    return model


def _clip_state(kind: ModelKind, preset: str, source: str) -> Mapping[str, Tensor]:
    if source != FETCH:
        return weights.read(Path(source)).state
    if preset not in kind.published_clip:
        known = [name for each in MODELS.values() for name in each.published_clip]
        raise ValueError(
            f"A published CLIP is not known for {preset}; it is for {', '.join(known)}. Name a file: clip=…, or begin "
            "with random weights: clip=random."
        )
    return clip.pretrained(*kind.published_clip[preset])


def _spatial_state(kind: ModelKind, source: str) -> Mapping[str, Tensor]:
    if source != FETCH:
        return weights.read(Path(source)).state
    if kind.published_spatial is None:
        raise ValueError(
            f"A published CLIP for the spatial tower is not known for {kind.family}. Name a file: spatial=…, or begin "
            "with random weights: spatial=random."
        )
    return clip.pretrained(*kind.published_spatial)


def _beginning(state: Mapping[str, Tensor], tower: clip.VitBeginning, source: str) -> Mapping[str, Tensor]:
    """The first blocks of a vision transformer, which may lie in a file beside its text tower."""
    visual = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    try:
        return clip.beginning_of(visual or state, tower.config)
    except KeyError as error:
        raise ValueError(f"The weights {source!r} are not of a vision transformer: {error} is missing.") from None


def _load(tower: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    expected = tower.state_dict()
    try:
        check_kinds({name: (state[name], expected[name].dtype) for name in expected.keys() & state.keys()})
        check_finite(state)
        with torch.no_grad():
            tower.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The weights {source!r} are not of this CLIP: {' '.join(str(error).split())[:300]}") from None
