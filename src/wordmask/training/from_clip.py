"""What a training begins with: CLIP's published weights, or a model that is there already."""

import os
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from wordmask import clip, weights
from wordmask.data.labelled import DataSet
from wordmask.models import kind_of

PUBLISHED = {  # open_clip's names of what the papers start from
    "err-seg-base": ("convnext_base_w_320", "laion_aesthetic_s13b_b82k"),
    "err-seg-large": ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup"),
    "eov-seg-small": ("RN50-quickgelu", "openai"),
    "eov-seg-medium": ("RN50x4-quickgelu", "openai"),
    "eov-seg-large": ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup"),
}
SPATIAL = ("ViT-B-16-quickgelu", "openai")  # EOV-Seg's spatial extractor is its beginning
FETCH, RANDOM = "auto", "random"


def from_clip(preset: str, clip_weights: str = FETCH, spatial_weights: str = FETCH) -> nn.Module:
    """Build a preset with CLIP's own weights in its towers and random ones elsewhere.

    Args:
        clip_weights: `auto` fetches the published ones; `random` leaves random ones, for trying the road; or a file in
            open_clip's format.
        spatial_weights: The same for the whole vision transformer that EOV-Seg takes the beginning of.

    Raises:
        ValueError: No such preset, or weights that can't be fetched or don't fit.
    """
    kind = kind_of(preset)
    model = kind.model(kind.presets[preset])
    if clip_weights != RANDOM:
        _load(model.clip, _state(clip_weights, PUBLISHED.get(preset)), clip_weights)
    if kind.family == "eov-seg":
        if spatial_weights != RANDOM:
            state = _state(spatial_weights, SPATIAL)
            visual = {
                name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")
            }
            try:
                beginning = clip.beginning_of(visual or state, model.config.spatial)
            except KeyError as error:
                raise ValueError(
                    f"The weights {spatial_weights!r} are not of a vision transformer: {error} is missing."
                ) from None
            _load(model.spatial, beginning, spatial_weights)
    else:
        model.start_from_clip()
    return model


def check(*sets: DataSet, thorough: bool = False) -> None:
    """Check data sets before anything is trained; of several processes the first does it for all.

    Args:
        thorough: Decode every label, of a set that else looks at names and sizes alone.

    Raises:
        ValueError: See `DataSet.check`.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        Console(stderr=True).print(f"Checking {sum(map(len, sets))} pictures and their labels …", highlight=False)
        for data in sets:
            data.check(thorough=True) if thorough else data.check()


def _state(source: str, published: tuple[str, str] | None) -> dict[str, Tensor]:
    if source != FETCH:
        return weights.read(Path(source)).state
    if published is None:
        raise ValueError(
            f"There is no published CLIP for this preset; those with one are {', '.join(PUBLISHED)}. Name a file."
        )
    return clip.pretrained(*published)


def _load(tower: nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        with torch.no_grad():
            tower.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"The weights {source!r} are not of this CLIP: {' '.join(str(error).split())[:300]}") from None
