"""ERR-Seg: open-vocabulary semantic segmentation from cost maps.

"Efficient Redundancy Reduction for Open-Vocabulary Semantic Segmentation", Chen et al., arXiv 2501.17642.
Reference: github.com/lchen1019/ERR-Seg @ 6e79c0d (MIT).

A *cost map* holds the cosine of every pixel with every class name, in CLIP's space. Read downwards:
    hierarchical cost maps (x16, x32) → class choice: K of T → embedding → 4 × (spatial block, class block) → decoder →
    K logit maps

Where we differ from the reference, with equal results:
* Guidance is shared by all classes (image) or all pixels (text). Wherever the reference concatenates it to every
  class's map, we split the projection, W[x; g] = Wx·x + Wg·g, and compute the second part once (`GuidedLinear`,
  `GuidedConv2d`).
* Embedding a cost map and fusing both are linear: their kernels are multiplied first (`CostEmbedding`).
* The cost of T classes is seen in chunks, and only K classes leave the model: nothing has T × pixels entries.
* What sees each class alone, or each pixel, gets some of them at a time (`in_parts`): they fit a CPU's cache, and
  memory is flat in K.
* K is min(K, T), where the reference crashes; ties in the vote go to the class with the highest cost, where the
  reference takes any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import stochastic_depth

from wordmask import clip
from wordmask.clip import CONVNEXT_LARGE, CONVNEXT_MINI, ClipConfig, widened
from wordmask.in_parts import in_parts
from wordmask.models.module_list import ModuleListOf
from wordmask.pixels import MEAN, STD, ImageInput
from wordmask.raw import ClassMaps, RawOutput
from wordmask.settings import KeepSteps, Task, kept_of
from wordmask.text import Words, encode_phrases
from wordmask.vocabulary import Synonyms

TEMPLATES = ("A photo of a {} in the scene",)
GUIDANCE_LIMIT = 16.0  # CLIP's feature maps are clamped to ± this before they guide; reference decoder.py:138
RANK_VOTES = (1.0, 0.1, 0.01)  # of a pixel for its three best classes; reference decoder.py:101
CLASSES_AT_ONCE = 1024  # of the cost map, when votes are counted: 10 MB at 640×640
ENTRIES_AT_ONCE = 8192  # pixels of class maps, through what sees each class or each pixel alone: 5 classes at 640×640
DROP_PATH = 0.025  # stochastic depth of layer i is i times this; reference decoder.py:66
# from so many classes on, K: the paper's for A-150, and for A-847 and PC-459 (it takes fewer for PC-59 and PAS-20)
KEEP_STEPS = ((1, 32), (400, 48))


@dataclass(frozen=True)
class ErrSegConfig:
    """What differs between the presets. Widths are channels.

    Args:
        resolution: Side of the square input, in pixels.
        shortest_edge: To which a picture is resized before it is stretched to the square.
        longest_edge: The limit of the other.
        cost_width: That of each embedded cost map before fusion.
        width: C, of the aggregator.
        guidance_width: That of each image guidance map before fusion.
        layers: How many the aggregator has.
        heads: How many its attention has.
        decoder_widths: After each of the three decoder steps.
        decoder_guidance_widths: Those of the image guidance that joins each step.
    """

    clip: ClipConfig
    resolution: int
    shortest_edge: int
    longest_edge: int
    cost_width: int
    width: int
    guidance_width: int
    layers: int
    heads: int
    decoder_widths: tuple[int, int, int]
    decoder_guidance_widths: tuple[int, int, int]


class Features(NamedTuple):
    """What CLIP's image tower sees: four stages, and two of them in the space shared with words."""

    x4: Float[Tensor, "B C4 h4 w4"]
    x8: Float[Tensor, "B C8 h8 w8"]
    x16: Float[Tensor, "B C16 h w"]
    x32: Float[Tensor, "B C32 h32 w32"]
    dense_x16: Float[Tensor, "B D h w"]
    dense_x32: Float[Tensor, "B D h32 w32"]


# Redundancy-reduced hierarchical cost maps ----------------------------------------------------------------------------


class MiddleDownsample(nn.Module):
    """Bring stage 3 to the channels that the blocks of stage 4 expect, on its own grid: `modify_downsample` there."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)  # ConvNeXt's
        self.conv = nn.Conv2d(channels, 2 * channels, kernel_size=2, padding=1)

    def forward(self, x16: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C2 h w"]:
        x = self.norm(x16.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.conv(x)  # (B, 2C, h + 1, w + 1)
        return F.interpolate(x, size=x16.shape[-2:], mode="bilinear", align_corners=False)


Votes = tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]  # of every class; its highest cosine with any pixel


def count_votes(pixels: Float[Tensor, "B D h w"], words: Float[Tensor, "T D"]) -> Votes:
    """Let every pixel vote for its three best classes with weights 1, 0.1 and 0.01.

    Classes are seen `CLASSES_AT_ONCE` at a time, except in a graph, which can't count parts.

    Args:
        pixels: Unit vectors.
        words: Unit vectors.
    """
    if torch.compiler.is_compiling():
        return count_votes_at_once(pixels, words)
    ranks = min(len(RANK_VOTES), len(words))
    best, best_class, peaks = None, None, []
    for start in range(0, len(words), CLASSES_AT_ONCE):
        cost = torch.einsum("bdhw,td->bthw", pixels, words[start : start + CLASSES_AT_ONCE])
        peaks.append(cost.amax(dim=(2, 3)))
        cost, place = cost.topk(min(ranks, cost.shape[1]), dim=1)
        if best is None or best_class is None:
            best, best_class = cost, place
            continue
        best, winners = torch.cat([best, cost], dim=1).topk(min(ranks, best.shape[1] + cost.shape[1]), dim=1)
        best_class = torch.cat([best_class, place + start], dim=1).gather(1, winners)  # (B, 3, h, w)
    assert best_class is not None  # there is a word
    return sum_votes(best_class, pixels.new_zeros(len(pixels), len(words))), torch.cat(peaks, dim=1)


def count_votes_at_once(pixels: Float[Tensor, "B D h w"], words: Float[Tensor, "T D"]) -> Votes:
    """`count_votes` for a graph, which is recorded once for any T: it doesn't know whether there are three classes."""
    cost = torch.einsum("bdhw,td->bthw", pixels, words)
    missing = len(RANK_VOTES) - 1  # at most: classes that lose everywhere stand for them
    best_class = F.pad(cost, (0, 0, 0, 0, 0, missing), value=-torch.inf).topk(len(RANK_VOTES), dim=1).indices
    votes = sum_votes(best_class, pixels.new_zeros(len(pixels), len(words) + missing))
    return votes[:, : len(words)], cost.amax(dim=(2, 3))


def sum_votes(best_class: Int[Tensor, "B R h w"], zeros: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Add the votes of all pixels to zeros, in the reference's order: its rounding decides some near ties."""
    votes = zeros
    for rank, weight in enumerate(RANK_VOTES[: best_class.shape[1]]):
        voted = best_class[:, rank].flatten(1)
        ones = torch.ones_like(voted, dtype=votes.dtype)
        votes = votes + weight * torch.zeros_like(votes).scatter_add(1, voted, ones)
    return votes


def choose_classes(
    votes: Float[Tensor, "B T"], peaks: Float[Tensor, "B T"], *, keep: int, present: Bool[Tensor, "B T"] | None = None
) -> Int[Tensor, "B K"]:
    """Choose the classes worth refining: those with the most votes; equal votes go to the higher peak.

    Args:
        keep: K; all classes stay where there are fewer.
        present: Classes in the target, when training. They come first, then the chosen ones in ascending index until K.

    Returns:
        Indices, ascending.
    """
    by_peak = peaks.argsort(dim=1, descending=True, stable=True)
    by_votes = votes.gather(1, by_peak).argsort(dim=1, descending=True, stable=True)
    kept = by_peak.gather(1, by_votes)[:, :keep].sort(dim=1).values
    if present is not None:
        chosen = torch.zeros_like(present).scatter(1, kept, True)
        rank = torch.where(present, 0, torch.where(chosen, 1, 2))
        kept = rank.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values
    return kept


Fused = tuple[Float[Tensor, "C 1 7 7"], Float[Tensor, " C"]]  # kernel and bias


class CostEmbedding(nn.Module):
    """Embed the two cost maps of every kept class and fuse them on the x16 grid, in full precision: every block adds to
    the result. Nothing bends the values in between: for each map, embedding and fusion are one convolution.
    """

    def __init__(self, config: ErrSegConfig):
        super().__init__()
        self.x16 = nn.Conv2d(1, config.cost_width, kernel_size=7, padding=3)
        self.x32 = nn.Conv2d(1, config.cost_width, kernel_size=7, padding=3)
        self.fuse = nn.Conv2d(config.cost_width, config.width, kernel_size=1)

    def forward(
        self, cost_x16: Float[Tensor, "B K h w"], cost_x32: Float[Tensor, "B K h32 w32"]
    ) -> Float[Tensor, "B K h w C"]:
        with torch.autocast(cost_x16.device.type, enabled=False):
            embed = partial(self.embed, fused_x16=self.fused(self.x16), fused_x32=self.fused(self.x32))
            return in_parts(embed, cost_x16, cost_x32, entries=ENTRIES_AT_ONCE)

    def fused(self, embed: nn.Conv2d) -> Fused:
        """What `fuse` makes of an embedded cost map, as one convolution; half of both is their fusion."""
        assert embed.bias is not None
        assert self.fuse.bias is not None
        fuse = self.fuse.weight.flatten(1)  # (C, 256)
        kernel, bias = fuse @ embed.weight.flatten(1), fuse @ embed.bias + self.fuse.bias
        return kernel.view(-1, 1, *embed.kernel_size), bias

    def embed(
        self,
        cost_x16: Float[Tensor, "B K h w"],
        cost_x32: Float[Tensor, "B K h32 w32"],
        fused_x16: Fused,
        fused_x32: Fused,
    ) -> Float[Tensor, "B K h w C"]:
        """Embed the cost maps of some classes."""
        fine, coarse = self.convolve(cost_x16, fused_x16), self.convolve(cost_x32, fused_x32)
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        x = (fine + coarse) / 2  # (B·K, C, h, w)
        return x.unflatten(0, cost_x16.shape[:2]).permute(0, 1, 3, 4, 2)

    @staticmethod
    def convolve(cost: Float[Tensor, "B K h w"], fused: Fused) -> Float[Tensor, "BK C h w"]:
        """Every class's map by itself."""
        kernel, bias = fused
        return F.conv2d(cost.flatten(0, 1)[:, None], kernel, bias, padding=kernel.shape[-1] // 2)


class ImageGuidance(nn.Module):
    """Project stages 4 and 3 and fuse them on the x16 grid: what tells the aggregator where things are."""

    def __init__(self, config: ErrSegConfig):
        super().__init__()
        *_, x16, x32 = config.clip.channels
        self.x16 = nn.Conv2d(x16, config.guidance_width, kernel_size=3, padding=1)
        self.x32 = nn.Conv2d(x32, config.guidance_width, kernel_size=3, padding=1)
        self.fuse = nn.Conv2d(config.guidance_width, config.width, kernel_size=1)

    def forward(self, x16: Float[Tensor, "B C16 h w"], x32: Float[Tensor, "B C32 h32 w32"]) -> Float[Tensor, "B h w C"]:
        fine = F.relu6(self.x16(x16))
        coarse = F.interpolate(F.relu6(self.x32(x32)), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.fuse((fine + coarse) / 2).permute(0, 2, 3, 1)


# Redundancy-reduced cost aggregation ----------------------------------------------------------------------------------


class GuidedLinear(nn.Linear):
    """A linear layer on [x; guidance] that never concatenates: `share` projects guidance once for all that are guided
    by it."""

    def __init__(self, width: int, guidance_width: int, out_width: int):
        super().__init__(width + guidance_width, out_width)
        self.split = width

    def share(self, guidance: Float[Tensor, "... G"]) -> Float[Tensor, "... O"]:
        """What guidance adds to the result."""
        return F.linear(guidance, self.weight[:, self.split :])

    def forward(self, x: Float[Tensor, "*S C"], shared: Float[Tensor, "#*S O"]) -> Float[Tensor, "*S O"]:
        return F.linear(x, self.weight[:, : self.split], self.bias) + shared


class GuidedConv2d(nn.Conv2d):
    """A convolution on [x; guidance] that never concatenates: `share` convolves guidance once for the K class maps of
    its picture."""

    def __init__(self, width: int, guidance_width: int, out_width: int, **settings):
        super().__init__(width + guidance_width, out_width, **settings)
        self.split = width

    def share(self, guidance: Float[Tensor, "B G h w"]) -> Float[Tensor, "B O h2 w2"]:
        """What guidance adds to the result."""
        return self._conv_forward(guidance, self.weight[:, self.split :], None)

    def forward(self, x: Float[Tensor, "BK C h w"], shared: Float[Tensor, "B O h2 w2"]) -> Float[Tensor, "BK O h2 w2"]:
        own = self._conv_forward(x, self.weight[:, : self.split], self.bias)  # (B·K, O, h2, w2)
        return (own.unflatten(0, (len(shared), -1)) + shared[:, None]).flatten(0, 1)


class GatedMlp(nn.Module):
    """fc3(relu6(fc1 x) · fc2 x), three times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        self.fc3 = nn.Linear(3 * width, width)

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        return self.fc3(F.relu6(self.fc1(x)) * self.fc2(x))


def attend(
    query: Float[Tensor, "... N C"], key: Float[Tensor, "... M C"], value: Float[Tensor, "... M C"], heads: int
) -> Float[Tensor, "... N C"]:
    """Scaled dot-product attention with `heads` heads, over the last axis but one."""
    # (…, heads, N, C / heads)
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(-2, -3).flatten(-2)


class SharedByClasses(NamedTuple):
    """What guidance by the image adds to queries and keys, once for all classes."""

    query: Float[Tensor, "B 1 h w C"]
    key: Float[Tensor, "B C2 h2 w2"]


class SharedByPixels(NamedTuple):
    """What guidance by the words adds to queries and keys, once for all pixels."""

    query: Float[Tensor, "B 1 1 K C"]
    key: Float[Tensor, "B 1 1 K C"]


class SpatialAttention(nn.Module):
    """Attention among the pixels of one class. Keys and values are reduced to half the resolution by a 2×2 convolution
    each."""

    def __init__(self, width: int, heads: int, reduction: int = 2):
        super().__init__()
        self.heads = heads
        self.query = GuidedLinear(width, width, width)
        self.reduce_key = GuidedConv2d(width, width, 2 * width, kernel_size=reduction, stride=reduction)
        self.norm_key, self.key = nn.LayerNorm(2 * width), nn.Linear(2 * width, width)
        self.reduce_value = nn.Conv2d(width, width, kernel_size=reduction, stride=reduction)
        self.norm_value, self.value = nn.LayerNorm(width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def share(self, guidance: Float[Tensor, "B h w C"]) -> SharedByClasses:
        """What guidance adds to the queries and the reduced keys of every class."""
        return SharedByClasses(self.query.share(guidance)[:, None], self.reduce_key.share(guidance.permute(0, 3, 1, 2)))

    def forward(self, x: Float[Tensor, "B K h w C"], shared: SharedByClasses) -> Float[Tensor, "B K h w C"]:
        maps = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B·K, C, h, w)
        key = self.reduce_key(maps, shared.key).flatten(2).mT  # (B·K, h·w / 4, 2C)
        value = self.reduce_value(maps).flatten(2).mT
        query = self.query(x, shared.query).flatten(0, 1).flatten(1, 2)  # (B·K, h·w, C)
        attended = attend(query, self.key(self.norm_key(key)), self.value(self.norm_value(value)), self.heads)
        return self.out(attended).view(x.shape)


class SpatialBlock(nn.Module):
    """Let the pixels of every class see each other."""

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.attention = nn.LayerNorm(width), SpatialAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), GatedMlp(width)
        self.depthwise = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)

    def forward(self, x: Float[Tensor, "B K h w C"], shared: tuple[Tensor, Tensor]) -> Float[Tensor, "B K h w C"]:
        """`shared` is what `attention.share` returned."""
        x = x + self._drop(self.attention(self.norm1(x), shared))
        y = self.mlp(self.norm2(x)).flatten(0, 1).permute(0, 3, 1, 2)  # (B·K, C, h, w)
        y = self.depthwise(y).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
        return x + self._drop(y)

    def _drop(self, x: Tensor) -> Tensor:
        return stochastic_depth(x.flatten(0, 1), self.drop_path, "row", self.training).view_as(x)


class ClassAttention(nn.Module):
    """Attention among the classes at one pixel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key = GuidedLinear(width, width, width), GuidedLinear(width, width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def share(self, guidance: Float[Tensor, "B K C"]) -> SharedByPixels:
        """What guidance adds to the queries and keys of every pixel."""
        guidance = guidance[:, None, None]
        return SharedByPixels(self.query.share(guidance), self.key.share(guidance))

    def forward(self, x: Float[Tensor, "B h w K C"], shared: SharedByPixels) -> Float[Tensor, "B h w K C"]:
        return self.out(attend(self.query(x, shared.query), self.key(x, shared.key), self.value(x), self.heads))


class ClassBlock(nn.Module):
    """Let the classes see each other, on a grid pooled 2×2; the result is brought back and added."""

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.attention = nn.LayerNorm(width), ClassAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), GatedMlp(width)

    def exchange(self, x: Float[Tensor, "B K h w C"], shared: SharedByPixels) -> Float[Tensor, "B K h2 w2 C"]:
        """What the classes have to say to each other, on the pooled grid."""
        pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), kernel_size=2)  # (B·K, C, h / 2, w / 2)
        y = pooled.unflatten(0, x.shape[:2]).permute(0, 3, 4, 1, 2)  # (B, h / 2, w / 2, K, C)
        y = in_parts(lambda y: self._attend(y, shared), y, entries=ENTRIES_AT_ONCE, channel_axis=-1, into=y)
        return y.permute(0, 3, 1, 2, 4)

    def bring_back(self, x: Float[Tensor, "B K h w C"], y: Float[Tensor, "B K h2 w2 C"]) -> Float[Tensor, "B K h w C"]:
        """Add that to the maps, on their own grid."""
        y = F.interpolate(y.flatten(0, 1).permute(0, 3, 1, 2), size=x.shape[2:4], mode="bilinear", align_corners=True)
        return x + y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])

    def _attend(self, y: Float[Tensor, "B h2 w2 K C"], shared: SharedByPixels) -> Float[Tensor, "B h2 w2 K C"]:
        y = y + self._drop(self.attention(self.norm1(y), shared))
        return y + self._drop(F.relu6(self.mlp(self.norm2(y))))

    def _drop(self, x: Tensor) -> Tensor:
        return stochastic_depth(x.flatten(0, 2), self.drop_path, "row", self.training).view_as(x)


class DecoderStep(nn.Module):
    """Upscale (or only project) the map of every class and refine it beside a map of the image."""

    def __init__(self, width: int, out_width: int, *, stage_channels: int, guidance_width: int, upscale: bool):
        super().__init__()
        self.guide = nn.Conv2d(stage_channels, guidance_width, kernel_size=3, padding=1)
        self.up = nn.ConvTranspose2d(width, out_width, 2, stride=2) if upscale else nn.Conv2d(width, out_width, 1)
        self.conv1 = GuidedConv2d(out_width, guidance_width, out_width, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(out_width // 8, out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out_width // 8, out_width)

    def share(self, stage: Float[Tensor, "B S h2 w2"]) -> Float[Tensor, "B O h2 w2"]:
        """What all classes are refined beside, as `conv1` adds it."""
        return self.conv1.share(F.relu6(self.guide(stage.clamp(-GUIDANCE_LIMIT, GUIDANCE_LIMIT))))

    def forward(self, x: Float[Tensor, "BK C h w"], shared: Float[Tensor, "B O h2 w2"]) -> Float[Tensor, "BK O h2 w2"]:
        x = F.relu(self.norm1(self.conv1(self.up(x), shared)))
        return F.relu(self.norm2(self.conv2(x)))


# The model ------------------------------------------------------------------------------------------------------------


class ErrSeg(nn.Module):
    """ERR-Seg: `forward(pixels, words)` returns logit maps of the classes worth looking at.

    Build it through `wordmask.load`, `wordmask.models.convert.from_reference`, or `ErrSeg(PRESETS["err-seg-base"])` for
    random weights.
    """

    family = "err-seg"
    vocabularies: ClassVar[str] = "err-seg"
    templates: tuple[str, ...] = TEMPLATES
    tasks: tuple[Task, ...] = ("semantic",)
    synonyms: Synonyms = "first"
    keep_steps: KeepSteps = KEEP_STEPS
    training_vocabulary = ""  # it makes no difference between classes
    emits: type[RawOutput] = ClassMaps
    stages: Mapping[str, str] = MappingProxyType(
        {"encode_image": "CLIP", "choose": "class choice", "aggregate": "aggregation", "decode": "decoder"}
    )

    def __init__(self, config: ErrSegConfig):
        super().__init__()
        self.config = config
        x4, x8, x16, _ = config.clip.channels
        self.clip = clip.build(config.clip)
        self.middle_downsample = MiddleDownsample(x16)
        self.cost_embedding = CostEmbedding(config)
        self.image_guidance = ImageGuidance(config)
        self.text_guidance = nn.Linear(config.clip.width, config.width)
        depths = [DROP_PATH * layer for layer in range(config.layers)]
        self.spatial_blocks = ModuleListOf(SpatialBlock(config.width, config.heads, depth) for depth in depths)
        self.class_blocks = ModuleListOf(ClassBlock(config.width, config.heads, depth) for depth in depths)
        widths, guidance = (config.width, *config.decoder_widths), config.decoder_guidance_widths
        self.decoder = ModuleListOf(
            DecoderStep(widths[i], widths[i + 1], stage_channels=stage, guidance_width=guidance[i], upscale=i > 0)
            for i, stage in enumerate((x16, x8, x4))
        )
        self.head = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.start_from_clip()

    def start_from_clip(self) -> None:
        """Start `middle_downsample`, which is never trained, as CLIP's own last downsampling. Call again once CLIP has
        its weights."""
        norm, conv = clip.last_downsampling(self.clip)
        self.middle_downsample.norm.load_state_dict(norm.state_dict())
        self.middle_downsample.conv.load_state_dict(conv.state_dict())

    @property
    def image_input(self) -> ImageInput:
        edges = self.config.shortest_edge, self.config.longest_edge
        return ImageInput(*edges, square=self.config.resolution, mean=MEAN, std=STD)

    @staticmethod
    def is_trained(name: str) -> bool:
        """Tell whether the recipe trains this parameter; most of CLIP, and what is copied of it, stay as they are."""
        if name.startswith("clip."):
            return clip.is_finetuned(name.removeprefix("clip."))
        return not name.startswith("middle_downsample.")

    def for_inference(self) -> "ErrSeg":
        """Leave out what only training needs: nothing."""
        return self

    def encode_text(self, phrases: list[str]) -> Float[Tensor, "S D"]:
        """Encode phrases in ERR-Seg's one prompt; unit vectors."""
        return encode_phrases(self.clip, phrases, TEMPLATES)

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """Run CLIP's image tower once, and its last blocks a second time on the x16 grid."""
        x4, x8, x16, x32 = clip.stage_maps(self.clip, pixels)
        dense_x16 = clip.project_pixels(self.clip, clip.last_stage_blocks(self.clip, self.middle_downsample(x16)))
        return Features(x4.detach(), x8.detach(), x16, x32, dense_x16, clip.project_pixels(self.clip, x32))

    def forward(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        words: Words,
        *,
        keep: int | None = None,
        present: Bool[Tensor, "B T"] | None = None,
    ) -> ClassMaps:
        """Compute logit maps at stride 4 for the K classes that each picture needs.

        Args:
            pixels: As `image_input` asks.
            words: One unit vector per class.
            keep: K; the paper's choice for this vocabulary by default, at most T.
            present: Classes in the target, when training; see `choose_classes`.
        """
        features = self.encode_image(pixels)
        keep = keep or kept_of(self.keep_steps, len(words.embeddings))
        kept, votes = self.choose(features, words, keep=keep, present=present)
        x = self.aggregate(features, words.embeddings[kept])
        return ClassMaps(self.decode(x, features), kept, votes)

    @torch.no_grad()
    def choose(
        self, features: Features, words: Words, *, keep: int, present: Bool[Tensor, "B T"] | None = None
    ) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B T"]]:
        """Choose the classes worth refining; return them, ascending, and every class's votes."""
        votes, peaks = self.vote(features.dense_x16, words.embeddings)
        return choose_classes(votes, peaks, keep=keep, present=present), votes

    @staticmethod
    def vote(dense_x16: Float[Tensor, "B D h w"], text: Float[Tensor, "T D"]) -> Votes:
        """Count every class's votes, in full precision: a vote counts or doesn't."""
        with torch.autocast(dense_x16.device.type, enabled=False):
            return count_votes(F.normalize(widened(dense_x16), dim=1), widened(text))

    def aggregate(self, features: Features, text: Float[Tensor, "B K D"]) -> Float[Tensor, "B K h w C"]:
        """Refine the cost maps of the kept classes, each beside its picture and its word."""
        cost_x16, cost_x32 = (self.cost(x, text) for x in (features.dense_x16, features.dense_x32))
        limited = (x.clamp(-GUIDANCE_LIMIT, GUIDANCE_LIMIT) for x in (features.x16, features.x32))
        image_guidance = self.image_guidance(*limited)
        text_guidance = F.gelu(self.text_guidance(text))
        x = self.cost_embedding(cost_x16, cost_x32)
        few = partial(in_parts, entries=ENTRIES_AT_ONCE, channel_axis=-1)
        for spatial_block, class_block in zip(self.spatial_blocks, self.class_blocks, strict=True):
            x = few(partial(spatial_block, shared=spatial_block.attention.share(image_guidance)), x, into=x)
            y = class_block.exchange(x, class_block.attention.share(text_guidance))
            x = few(class_block.bring_back, x, y, into=x)
        return x

    @staticmethod
    def cost(pixels: Float[Tensor, "B D h w"], text: Float[Tensor, "B K D"]) -> Float[Tensor, "B K h w"]:
        """The cosine of every pixel with every word, in full precision: it is small differences that count."""
        with torch.autocast(pixels.device.type, enabled=False):
            return torch.einsum("bdhw,bkd->bkhw", F.normalize(widened(pixels), dim=1), widened(text))

    def decode(self, x: Float[Tensor, "B K h w C"], features: Features) -> Float[Tensor, "B K h4 w4"]:
        """Bring the map of every kept class to stride 4, guided by the earlier stages of the image tower."""
        stages = features.x16.detach(), features.x8, features.x4
        shared = [step.share(stage) for step, stage in zip(self.decoder, stages, strict=True)]

        def draw(x: Tensor) -> Tensor:
            maps = x.flatten(0, 1).permute(0, 3, 1, 2)  # (B·K, C, h, w)
            for step, beside in zip(self.decoder, shared, strict=True):
                maps = step(maps, beside)
            return self.head(maps)[:, 0].unflatten(0, x.shape[:2])

        return in_parts(draw, x, entries=ENTRIES_AT_ONCE, channel_axis=-1)


def loss(raw: ClassMaps, target: Int[Tensor, "B H W"], ignore: int = 255) -> Float[Tensor, ""]:
    """Binary cross-entropy of all T logit maps against one-hot targets at full resolution: the mean over all pixels and
    classes.

    Ignored pixels have all-zero targets and still count. A class not kept has the constant logit -100 in the reference:
    it costs 100 where it is the target and nothing elsewhere, so its map is never made.

    Args:
        target: Labels in [0, T), or `ignore`.
    """
    logits = F.interpolate(raw.logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    is_target = raw.kept[:, :, None, None] == target[:, None]  # (B, K, H, W)
    kept_loss = F.binary_cross_entropy_with_logits(logits, is_target.float(), reduction="sum")
    lost = ((target != ignore) & ~is_target.any(dim=1)).sum()
    return (kept_loss + 100 * lost) / (target.numel() * raw.votes.shape[1])


BASE = ErrSegConfig(
    clip=ClipConfig("convnext_base", (128, 256, 512, 1024), "linear", width=640, text_width=640, text_layers=12),
    resolution=640,
    shortest_edge=800,
    longest_edge=1333,
    cost_width=256,
    width=128,
    guidance_width=256,
    layers=4,
    heads=4,
    decoder_widths=(64, 32, 16),
    decoder_guidance_widths=(32, 16, 8),
)
PRESETS = {
    "err-seg-base": BASE,  # CLIP convnext_base_w_320, laion_aesthetic_s13b_b82k
    # CLIP convnext_large_d_320, laion2b_s29b_b131k_ft_soup
    "err-seg-large": replace(BASE, clip=CONVNEXT_LARGE, resolution=768),
    "err-seg-tiny": ErrSegConfig(  # trained on Shapeland by recipes/, bundled
        clip=CONVNEXT_MINI,
        resolution=192,
        shortest_edge=192,
        longest_edge=768,
        cost_width=48,
        width=48,
        guidance_width=48,
        layers=2,
        heads=4,
        decoder_widths=(32, 16, 16),
        decoder_guidance_widths=(16, 16, 16),
    ),
    "err-seg-untrained": ErrSegConfig(  # random weights, for trying the road without a download
        clip=ClipConfig("convnext_atto", (40, 80, 160, 320), "linear", width=64, text_width=64, text_layers=2),
        resolution=256,
        shortest_edge=800,
        longest_edge=1333,
        cost_width=32,
        width=32,
        guidance_width=32,
        layers=2,
        heads=4,
        decoder_widths=(32, 16, 8),
        decoder_guidance_widths=(16, 8, 8),
    ),
}
