"""ERR-Seg without what its paper claims: one cost map instead of two, attention on whole sequences instead of reduced
ones.

`VariedErrSeg` is `ErrSeg` with some of its parts exchanged; with none it computes the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wordmask import clip
from wordmask.in_parts import in_parts
from wordmask.models.err_seg import (
    ENTRIES_AT_ONCE,
    ClassBlock,
    CostEmbedding,
    ErrSeg,
    ErrSegConfig,
    Features,
    Fused,
    GuidedLinear,
    SharedByPixels,
    attend,
)

BOTH = ("x16", "x32")


class OneCostEmbedding(CostEmbedding):
    """Embed one of the two cost maps of every kept class, on the x16 grid.

    Assumed: a map at x32 is embedded there and upsampled bilinearly, so that the aggregator's grid stays as it is.

    Args:
        which: `x16` or `x32`.
    """

    def __init__(self, config: ErrSegConfig, which: str):
        super().__init__(config)
        self.which = which
        delattr(self, "x32" if which == "x16" else "x16")

    def forward(
        self, cost_x16: Float[Tensor, "B K _ _"], cost_x32: Float[Tensor, "B K _ _"]
    ) -> Float[Tensor, "B K h w C"]:
        cost = {"x16": cost_x16, "x32": cost_x32}[self.which]
        scale = {"x16": 1, "x32": 2}[self.which]
        with torch.autocast(cost.device.type, enabled=False):
            fused = self.fused(getattr(self, self.which))
            return in_parts(lambda cost: self.embed_one(cost, fused, scale), cost, entries=ENTRIES_AT_ONCE // scale**2)

    def embed_one(self, cost: Float[Tensor, "B K _ _"], fused: Fused, scale: int) -> Float[Tensor, "B K h w C"]:
        """Embed the cost map of some classes."""
        x = self.convolve(cost, fused)  # (B·K, C, h, w), or half of that grid
        if scale != 1:
            x = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        return x.unflatten(0, cost.shape[:2]).permute(0, 1, 3, 4, 2)


WholeShared = tuple[Float[Tensor, "B 1 h w C"], Float[Tensor, "B 1 h w C"]]  # queries and keys


class WholeSpatialAttention(nn.Module):
    """Attention among pixels of one class, keys and values at full resolution, without the convolutions that reduce and
    their norms."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key = GuidedLinear(width, width, width), GuidedLinear(width, width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def share(self, guidance: Float[Tensor, "B h w C"]) -> WholeShared:
        """What guidance adds to the queries and keys of every class."""
        guidance = guidance[:, None]
        return self.query.share(guidance), self.key.share(guidance)

    def forward(self, x: Float[Tensor, "B K h w C"], shared: WholeShared) -> Float[Tensor, "B K h w C"]:
        shared_query, shared_key = shared
        query, key, value = self.query(x, shared_query), self.key(x, shared_key), self.value(x)
        attended = attend(*(y.flatten(0, 1).flatten(1, 2) for y in (query, key, value)), self.heads)  # (B·K, h·w, C)
        return self.out(attended).view(x.shape)


class WholeClassBlock(ClassBlock):
    """Let the classes see each other at every pixel, without pooling; the result is added, as it is after pooling."""

    def exchange(self, x: Float[Tensor, "B K h w C"], shared: SharedByPixels) -> Float[Tensor, "B K h w C"]:
        return self._attend(x.permute(0, 2, 3, 1, 4), shared).permute(0, 3, 1, 2, 4)

    def bring_back(self, x: Float[Tensor, "B K h w C"], y: Float[Tensor, "B K h w C"]) -> Float[Tensor, "B K h w C"]:
        return x + y


class VariedErrSeg(ErrSeg):
    """ERR-Seg with parts exchanged.

    Args:
        costs: Which cost maps there are. With x32 alone, classes are chosen by it, and CLIP's last blocks run once.
        reduce_space: Whether keys and values have half the resolution.
        reduce_classes: Whether classes attend to each other on a grid pooled 2×2.
    """

    def __init__(
        self,
        config: ErrSegConfig,
        *,
        costs: tuple[str, ...] = BOTH,
        reduce_space: bool = True,
        reduce_classes: bool = True,
    ):
        super().__init__(config)
        self.costs = costs
        self.cost_embedding = CostEmbedding(config) if costs == BOTH else OneCostEmbedding(config, *costs)
        if not reduce_space:
            for block in self.spatial_blocks:
                block.attention = WholeSpatialAttention(config.width, config.heads)
        if not reduce_classes:
            depths = [block.drop_path for block in self.class_blocks]
            self.class_blocks = nn.ModuleList(WholeClassBlock(config.width, config.heads, depth) for depth in depths)

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """Run CLIP's image tower; its last blocks a second time on the x16 grid, where that is looked at.

        With one cost map both dense maps are that one.
        """
        if self.costs == BOTH:
            return super().encode_image(pixels)
        x4, x8, x16, x32 = clip.stage_maps(self.clip, pixels)
        last = x32 if self.costs == ("x32",) else clip.last_stage_blocks(self.clip, self.middle_downsample(x16))
        dense = clip.project_pixels(self.clip, last)
        return Features(x4.detach(), x8.detach(), x16, x32, dense, dense)
