"""A small CLIP from nothing: pictures and captions are brought together, all others apart.

"Learning Transferable Visual Models From Natural Language Supervision", Radford et al., ICML 2021. The towers are
open_clip's own. Two image towers learn beside one text tower: a ConvNeXt, and a vision transformer whose first blocks
are EOV-Seg's spatial extractor.

Captions are also compared with other captions of the same pictures: words whose pictures can't be told apart yet come
to mean the same otherwise (docs/log.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wordmask import clip, weights
from wordmask.clip import ClipConfig, VitConfig
from wordmask.training.optimiser import matrices_by_muon
from wordmask.training.recipe import Batch, Example

FAMILY = "clip-pair"


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


class Captions(NamedTuple):
    """Tokens of two captions of each picture, zero-padded."""

    tokens: Int[Tensor, "B L"]
    again: Int[Tensor, "B L2"]


class ClipPair(nn.Module):
    """Both image towers and the text tower."""

    def __init__(self, config: PairConfig):
        super().__init__()
        self.config = config
        self.clip = clip.build(config.clip)
        self.vit = clip.build_vit(config.vit, layers=config.vit_layers, width=config.clip.width)

    @staticmethod
    def is_trained(name: str) -> bool:
        return True

    def forward(self, pixels: Float[Tensor, "B 3 H W"], captions: Captions) -> list[Float[Tensor, "B D"]]:
        """Unit vectors of pictures, by the ConvNeXt and by the transformer, and of their captions, one and another."""
        vectors = [clip.encode_picture(self.clip, pixels), clip.encode_by_vit(self.vit, pixels)]
        vectors += [clip.encode_tokens(self.clip, tokens) for tokens in captions]
        return [F.normalize(vector.float(), dim=-1) for vector in vectors]

    def spatial_state(self) -> dict[str, Tensor]:
        """The weights of the transformer's beginning, as `VitBeginning` names them."""
        return clip.beginning_of(self.vit.state_dict(), self.config.vit)


def contrastive_loss(model: ClipPair, part: Batch, whole: list[Batch]) -> Float[Tensor, ""]:
    """Both image towers against captions, and captions against captions, over the pictures of all processes: the sum of
    the losses."""
    assert len(whole) == 1
    by_convnext, by_vit, captions, again = model(
        part.pixels.contiguous(memory_format=torch.channels_last), part.targets
    )
    scale = model.clip.logit_scale.exp().clamp(max=100)
    return sum(clip.contrastive_loss(vectors, captions, scale) for vectors in (by_convnext, by_vit, again))


def pad_captions(examples: list[Example]) -> Batch:
    """Stack pictures; captions are padded to the longest."""
    columns = zip(*(example.target for example in examples), strict=True)
    captions = Captions(
        *(nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in column], batch_first=True) for column in columns)
    )
    return Batch(
        torch.stack([example.pixels for example in examples]), captions, [example.source for example in examples]
    )


def muon_groups(model: nn.Module, *, rate: float, weight_decay: float) -> list[dict[str, object]]:
    """Matrices follow Muon and decay; so do kernels, by AdamW; vectors, scales and embeddings don't decay; what is
    frozen is left out."""
    embeddings = ("token_embedding.weight", "positional_embedding", "class_embedding")
    groups = [{"params": [], "names": [], "lr": rate, "weight_decay": decay} for decay in (weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = groups[parameter.ndim < 2 or name.endswith(embeddings)]
        group["params"].append(parameter)
        group["names"].append(name)
    return matrices_by_muon(groups)


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
    if checkpoint.family != FAMILY:
        raise ValueError(f"{str(path)!r} is no pair of CLIP towers; expected what recipes/shapeland_clip.py wrote.")
    model = ClipPair(weights.configure(PairConfig, checkpoint.configuration))
    model.load_state_dict(checkpoint.state)
    return model.eval()
