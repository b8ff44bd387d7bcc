"""Every variant that the tables compare, by name: how it is built, and what the EOV-Seg paper says of it.

ERR-Seg's ablations have no published figures in our notes: there only the claims are known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from eov_seg_parts import (
    DINOV2,
    SAM,
    EarlyAggregation,
    MaskedCrossAttention,
    MultiScale,
    SeparableDynamicInteraction,
    clip_vit,
    timm_vit,
)
from err_seg_parts import VariedErrSeg
from wordmask.models.eov_seg import DynamicInteraction, EovSeg, Parts


@dataclass(frozen=True)
class Published:
    """What the paper says of a variant of EOV-Seg L on ADE20K: quality in percent, pictures per second, millions of
    parameters."""

    pq: float
    miou: float
    fps: float
    parameters: float


@dataclass(frozen=True)
class Variant:
    """A model with a part exchanged.

    Args:
        family: `err-seg` or `eov-seg`.
        build: Configuration → model, with random weights.
        published: Of the full-size model.
        full_size_only: It has no small relative.
    """

    family: str
    build: Callable[[object], nn.Module]
    published: Published | None = None
    full_size_only: bool = False


def _eov_seg(published: Published | None = None, *, full_size_only: bool = False, **parts) -> Variant:
    return Variant("eov-seg", lambda config: EovSeg(config, Parts(**parts)), published, full_size_only)


def _err_seg(**parts) -> Variant:
    return Variant("err-seg", partial(VariedErrSeg, **parts))


NOTHING = {"spatial": None, "fusion": None}
EARLY = {"fusion": None, "join": EarlyAggregation}
SDI = {"fusion": SeparableDynamicInteraction}

ERR_SEG = {
    "ERR-Seg": _err_seg(),
    "x16 alone": _err_seg(costs=("x16",)),
    "x32 alone": _err_seg(costs=("x32",)),
    "no spatial reduction": _err_seg(reduce_space=False),
    "no class reduction": _err_seg(reduce_classes=False),
    "no reduction": _err_seg(reduce_space=False, reduce_classes=False),
}
FUSIONS = {
    "EOV-Seg": _eov_seg(Published(24.5, 32.1, 11.6, 225)),
    "TDEE, no VAS": _eov_seg(Published(23.6, 31.1, 11.9, 225), selection=None),
    "EAF, VAS": _eov_seg(Published(22.3, 30.4, 11.8, 224), **EARLY),
    "EAF, no VAS": _eov_seg(Published(23.0, 30.8, 12.2, 223), **EARLY, selection=None),
    "SDI, VAS": _eov_seg(Published(22.9, 31.5, 11.0, 224), **SDI),
    "SDI, no VAS": _eov_seg(Published(22.5, 31.1, 11.4, 223), **SDI, selection=None),
    "no fusion, VAS": _eov_seg(Published(22.7, 31.4, 13.6, 219), **NOTHING),
    "no fusion, no VAS": _eov_seg(Published(22.1, 30.3, 13.8, 218), **NOTHING, selection=None),
}
INTERACTIONS = {
    "dynamic, multi-scale": _eov_seg(
        Published(22.7, 29.7, 9.1, 245), interaction=partial(MultiScale, interaction=DynamicInteraction)
    ),
    "cross-attention, single-scale": _eov_seg(Published(23.8, 30.4, 6.6, 282), interaction=MaskedCrossAttention),
    "cross-attention, multi-scale": _eov_seg(
        Published(24.7, 32.5, 3.4, 304), interaction=partial(MultiScale, interaction=MaskedCrossAttention)
    ),
}
EXTRACTORS = {  # beside "EOV-Seg", which is CLIP, block 0
    "CLIP, block 5": _eov_seg(Published(23.8, 32.0, 9.1, 247), spatial=clip_vit(6), full_size_only=True),
    "CLIP, block 11": _eov_seg(Published(23.7, 31.8, 5.9, 260), spatial=clip_vit(12), full_size_only=True),
    "DINOv2, block 0": _eov_seg(Published(21.9, 29.5, 11.7, 225), spatial=timm_vit(DINOV2, 1), full_size_only=True),
    "DINOv2, block 5": _eov_seg(Published(22.4, 30.1, 8.9, 247), spatial=timm_vit(DINOV2, 6), full_size_only=True),
    "DINOv2, block 11": _eov_seg(Published(23.1, 31.2, 5.8, 260), spatial=timm_vit(DINOV2, 12), full_size_only=True),
    "SAM, block 0": _eov_seg(Published(22.4, 30.8, 11.6, 225), spatial=timm_vit(SAM, 1), full_size_only=True),
    "SAM, block 5": _eov_seg(Published(23.7, 31.6, 8.7, 247), spatial=timm_vit(SAM, 6), full_size_only=True),
    "SAM, block 11": _eov_seg(Published(24.9, 32.5, 5.2, 260), spatial=timm_vit(SAM, 12), full_size_only=True),
}
SMALL_EXTRACTORS = {  # Shapeland's own ViT has three blocks in all
    "CLIP, block 1 of 3": _eov_seg(spatial=clip_vit(2)),
    "CLIP, last of 3 blocks": _eov_seg(spatial=clip_vit(3)),
}
EOV_SEG = FUSIONS | INTERACTIONS | EXTRACTORS | SMALL_EXTRACTORS
VARIANTS = ERR_SEG | EOV_SEG


def sized(family: str, *, small: bool) -> dict[str, Variant]:
    """The variants that exist at full size, or small; the first is the paper's model."""
    chosen = ERR_SEG if family == "err-seg" else EOV_SEG
    left_out = SMALL_EXTRACTORS if not small else {name for name, variant in chosen.items() if variant.full_size_only}
    return {name: variant for name, variant in chosen.items() if name not in left_out}
