"""What the EOV-Seg paper compares its parts with, as parts to hand in: `EovSeg(configuration, Parts(…))`.

The paper names these variants and gives their scores, speed and parameters; it hardly describes them. What is assumed
stands in each docstring. Every part has the signature that `wordmask.models.eov_seg.Parts` states.
"""

from collections.abc import Callable
from dataclasses import replace

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wordmask import clip
from wordmask.models.eov_seg import TAPS, EovSegConfig, SpatialUpscale

SCALES = 3  # that a multi-scale decoder layer looks at: strides 32, 16 and 8, as in Mask2Former
STRIDE = 16  # of the spatial map
DINOV2, SAM = "vit_base_patch14_dinov2.lvd142m", "samvit_base_patch16.sa1b"  # timm's names of ViT-B

Extractor = Callable[[EovSegConfig], nn.Module]


# Fusion ---------------------------------------------------------------------------------------------------------------


class EarlyAggregation(nn.Module):
    """EAF: the spatial map joins the aggregated map before anything is selected or decoded.

    Assumed: the same upscaling as TDEE's, a 1×1 projection, and a residual 1×1 convolution on both maps. That adds as
    many parameters as the paper's table says (218 → 223 M), if that leaves out the spatial tower itself.
    """

    def __init__(self, config: EovSegConfig):
        super().__init__()
        self.upscale = SpatialUpscale(config.spatial.width)
        self.project = nn.Conv2d(config.spatial.width, config.width, kernel_size=1)
        self.fuse = nn.Conv2d(2 * config.width, config.width, kernel_size=1)

    def forward(self, x: Float[Tensor, "B C h4 w4"], spatial: Float[Tensor, "B S h w"]) -> Float[Tensor, "B C h4 w4"]:
        return x + self.fuse(torch.cat([x, self.project(self.upscale(spatial))], dim=1))


class SeparableDynamicInteraction(nn.Module):
    """SDI: the semantic embeddings of regions filter the spatial ones by kernels of their own.

    Assumed: YOSO's separable dynamic convolution, which the paper's decoder comes from. Every query has a three-tap
    filter along the channels (depthwise), then weights of all queries (pointwise); the result is added to the semantic
    embedding.
    """

    def __init__(self, config: EovSegConfig):
        super().__init__()
        self.taps = nn.Linear(config.width, TAPS)
        self.mixture = nn.Linear(config.width, config.queries)
        self.inner_norm, self.norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)

    def forward(self, semantic: Float[Tensor, "B Q C"], spatial: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        windows = F.pad(spatial, (1, 1)).unfold(-1, TAPS, 1)  # (B, Q, C, 3)
        filtered = F.relu((windows * self.taps(semantic)[:, :, None]).sum(dim=-1))
        return self.norm(semantic + self.inner_norm(self.mixture(semantic) @ filtered))


# Interaction of kernels and map ---------------------------------------------------------------------------------------


class MaskedCrossAttention(nn.Module):
    """Cross-attention of the kernels to the pixels that their masks cover, single-scale.

    Assumed: Mask2Former's masked attention on the aggregated map, which has coordinates already; an empty mask looks
    everywhere.
    """

    def __init__(self, config: EovSegConfig):
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, kernels: Float[Tensor, "B Q C"], features: Float[Tensor, "B C h w"], mask_logits: Float[Tensor, "B Q h w"]
    ) -> Float[Tensor, "B Q C"]:
        pixels = features.flatten(2).mT  # (B, h·w, C)
        outside = mask_logits.detach().flatten(2) <= 0  # (B, Q, h·w)
        outside = outside & ~outside.all(dim=-1, keepdim=True)
        outside = outside.repeat_interleave(self.attention.num_heads, dim=0)  # (B·heads, Q, h·w)
        return self.norm(kernels + self.attention(kernels, pixels, pixels, attn_mask=outside, need_weights=False)[0])


class MultiScale(nn.Module):
    """Several scales of the map, coarse to fine, each with an interaction of its own.

    Assumed: the scales are made from the aggregated map by 3×3 convolutions of stride 2, anew in every layer.

    Args:
        interaction: What happens at each scale; built from the configuration.
    """

    def __init__(self, config: EovSegConfig, interaction: Callable[[EovSegConfig], nn.Module]):
        super().__init__()
        width = config.width
        self.downs = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1) for _ in range(SCALES))
        self.interactions = nn.ModuleList(interaction(config) for _ in range(SCALES))

    def forward(
        self, kernels: Float[Tensor, "B Q C"], features: Float[Tensor, "B C h w"], mask_logits: Float[Tensor, "B Q h w"]
    ) -> Float[Tensor, "B Q C"]:
        scales = []
        for down in self.downs:
            features = down(features)
            scales.append(features)
        for scale, interaction in zip(reversed(scales), self.interactions, strict=True):
            masks = F.interpolate(mask_logits, size=scale.shape[-2:], mode="bilinear", align_corners=False)
            kernels = interaction(kernels, scale, masks)
        return kernels


# Spatial extractors ---------------------------------------------------------------------------------------------------


class TimmBeginning(nn.Module):
    """The first blocks of one of timm's vision transformers.

    Assumed: pixels are normalised as for the other towers; for patches of other than 16 pixels they are resized, so
    that the map has stride 16 all the same.

    Args:
        name: timm's.
        blocks: How many of its blocks are there, and run.
        pretrained: Whether timm fetches its weights; random ones otherwise.
    """

    def __init__(self, name: str, *, blocks: int, pretrained: bool = False):
        super().__init__()
        sizes = {"dynamic_img_size": True} if name == DINOV2 else {}  # SAM's takes any size as it is
        self.vit = timm.create_model(name, pretrained=pretrained, num_classes=0, **sizes)
        self.vit.prune_intermediate_layers([blocks - 1], prune_norm=True, prune_head=True)
        self.patch = self.vit.patch_embed.patch_size[0]
        self.channels = self.vit.embed_dim
        if hasattr(self.vit, "neck"):
            self.vit.neck = nn.Identity()  # comes after the last block

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        if self.patch != STRIDE:
            size = [side // STRIDE * self.patch for side in pixels.shape[-2:]]
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        last = [len(self.vit.blocks) - 1]
        return self.vit.forward_intermediates(
            pixels, indices=last, norm=False, output_fmt="NCHW", intermediates_only=True
        )[0]


def clip_vit(blocks: int, *, pretrained: bool = False) -> Extractor:
    """The first blocks of the CLIP ViT that the configuration names: the paper's block 0, 5, 11 are 1, 6, 12 blocks.

    Args:
        pretrained: Whether OpenAI's weights of ViT-B/16 are fetched; random ones otherwise.
    """

    def build(config: EovSegConfig) -> nn.Module:
        beginning = replace(config.spatial, blocks=blocks)
        tower = clip.VitBeginning(beginning)
        if pretrained:
            state = clip.pretrained("ViT-B-16-quickgelu", "openai")
            visual = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
            tower.load_state_dict(clip.beginning_of(visual, beginning))
        return tower

    return build


def timm_vit(name: str, blocks: int, *, pretrained: bool = False) -> Extractor:
    """The first blocks of `DINOV2` or `SAM`; see `TimmBeginning`."""
    return lambda config: TimmBeginning(name, blocks=blocks, pretrained=pretrained)
