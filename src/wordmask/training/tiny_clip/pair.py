"""A small CLIP: two image towers beside one text tower, all open_clip's own.

A ConvNeXt, and a vision transformer whose first blocks are EOV-Seg's spatial extractor.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wordmask import clip, weights
from wordmask.clip import ClipConfig, VitConfig
from wordmask.pixels import MEAN, STD, ImageInput
from wordmask.training.from_labels import pixels_of
from wordmask.training.optimiser import ParameterGroup, matrices_by_muon

FAMILY = "clip-pair"
EMBEDDINGS = ("token_embedding.weight", "positional_embedding", "class_embedding")  # how their names end


@dataclass(frozen=True)
class PairConfig:
    """Two image towers and a text tower.

    Args:
        clip: The ConvNeXt and the text tower.
        vit: The vision transformer; `blocks` is how many EOV-Seg takes.
        vit_layers: How many blocks it has in all.
    """

    clip: ClipConfig
    vit: VitConfig
    vit_layers: int


class ClipPair(nn.Module):
    """Both image towers and the text tower."""

    def __init__(self, config: PairConfig):
        super().__init__()
        self.config = config
        self.clip = clip.build(config.clip)
        self.vit = clip.build_vit(config.vit, layers=config.vit_layers, width=config.clip.width)

    def spatial_state(self) -> dict[str, Tensor]:
        """The weights of the transformer's beginning, as `VitBeginning` names them."""
        return clip.beginning_of(self.vit.state_dict(), self.config.vit)


def pixels_of_scene(rgb: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "3 H W"]:
    """Normalise a scene as both tiny models do, at the size at which it was drawn."""
    side = min(rgb.shape[:2])
    return pixels_of(rgb, ImageInput(side, max(rgb.shape[:2]), square=None, mean=MEAN, std=STD))


def muon_groups(model: nn.Module, *, rate: float, weight_decay: float) -> list[ParameterGroup]:
    """Matrices follow Muon and decay; so do kernels, by AdamW; vectors, scales and embeddings don't decay; what is
    frozen is left out."""
    decayed, undecayed = {}, {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = undecayed if parameter.ndim < 2 or name.endswith(EMBEDDINGS) else decayed
            group[name] = parameter
    return matrices_by_muon([ParameterGroup(decayed, rate, weight_decay), ParameterGroup(undecayed, rate, 0.0)])


def save(path: Path, model: ClipPair, origin: str) -> None:
    """Write a checkpoint with the configuration inside."""
    weights.save(path, model.state_dict(), family=FAMILY, configuration=model.config, origin=origin)


def load(path: Path) -> ClipPair:
    """Read what `save` wrote.

    Raises:
        ValueError: It is something else.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no CLIP at {str(path)!r}. Train it first: wordmask train shapeland_clip; "
            "or name another with clip=…."
        )
    checkpoint = weights.read(path)
    holds = checkpoint.family
    if holds != FAMILY:
        raise ValueError(f"{str(path)!r} is no pair of CLIP towers; expected what recipes/shapeland_clip.py wrote.")
    config = weights.configure(PairConfig, checkpoint.configuration)
    assert isinstance(config, PairConfig)
    model = ClipPair(config)
    model.load_state_dict(checkpoint.state)
    return model.eval()
