"""EOV-Seg: open-vocabulary semantic, instance and panoptic segmentation from one light query decoder.

"EOV-Seg: Efficient Open-Vocabulary Panoptic Segmentation", Niu et al., AAAI 2025, arXiv 2412.08628.
Reference: github.com/nhw649/EOV-Seg @ 6f5e93e (Apache-2.0).

A hundred *object kernels* become masks and class vectors, on one map that a frozen CNN CLIP fills. Read downwards:
    CNN stages → lite aggregator → vocabulary-aware selection ─┐
    first block of a ViT → upscaled spatial map ───────────────┴→ 3 × (interaction, mask, class vector) → ensemble with
    CLIP's own opinion

Where we differ from the reference, with equal results:
* The largest probability of a softmax over S words is 1 / Σ exp(logit − max): `select` never holds the map of all words
  and pixels.
* Class vectors of all but the last layer only matter to the loss: elsewhere they are not made.
* Of the spatial ViT only what is run exists. The ensemble is computed from logarithms, which can't underflow.
* ResNets run: the reference's attention pooling asks an int for its device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from wordmask import clip
from wordmask.clip import (
    CONVNEXT_LARGE,
    CONVNEXT_MINI,
    VIT_MINI,
    ClipConfig,
    VitConfig,
    folded,
    mean_inside,
    sum_inside,
    widened,
)
from wordmask.in_parts import in_parts
from wordmask.pixels import MEAN, STD, ImageInput
from wordmask.raw import QueryMasks, RawOutput
from wordmask.settings import KeepSteps, Task
from wordmask.text import Words, encode_phrases
from wordmask.vocabulary import Synonyms

TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
COCO_PANOPTIC = "eov-seg/coco-panoptic-133"  # what the released weights were trained on
# of CLIP's own opinion of a region, by whether training saw the class; reference config.py
SEEN_WEIGHT, UNSEEN_WEIGHT = (0.4, 0.8)
SMALLEST = 1e-8  # added to probabilities before their logarithm; reference segmentator.py
LARGEST_SCALE = 100.0  # limit of learned logit scales; reference head.py
DEFORMED = 9  # taps of a 3×3 kernel
TAPS = 3  # of a query's filter along its channels
PIXELS_AT_ONCE = 2048  # in vocabulary-aware selection: 8 MB of vectors
SIMILARITIES_AT_ONCE = 2**21  # of pixel and word, there: 8 MB


@dataclass(frozen=True)
class EovSegConfig:
    """What differs between the presets, and what the paper sets.

    Args:
        spatial: The beginning of a ViT that knows where things are.
        training_vocabulary: What `Vocabulary.of` reads: which classes training saw.
        shortest_edge: Of the input, in pixels.
        longest_edge: The limit of the other.
        aggregator_width: A, channels in which the scales are summed.
        width: C, of the aggregated map, of object kernels and embeddings.
        queries: Q, object kernels.
        layers: Of the decoder.
        heads: Of its self-attention.
        hidden: Width inside its feed-forward network.
    """

    clip: ClipConfig
    spatial: VitConfig
    training_vocabulary: str
    shortest_edge: int
    longest_edge: int
    aggregator_width: int
    width: int
    queries: int
    layers: int
    heads: int
    hidden: int


class Features(NamedTuple):
    """What the frozen towers see: four stages of the CNN, and the map of the spatial extractor at stride 16."""

    x4: Float[Tensor, "B C4 h4 w4"]
    x8: Float[Tensor, "B C8 h8 w8"]
    x16: Float[Tensor, "B C16 h w"]
    x32: Float[Tensor, "B C32 h32 w32"]
    spatial: Float[Tensor, "B S h w"] | None


# Lite aggregator ------------------------------------------------------------------------------------------------------


def deformable_conv2d(
    x: Float[Tensor, "B C h w"],
    offsets: Float[Tensor, "B 18 h w"],
    strengths: Float[Tensor, "B 9 h w"],
    weight: Float[Tensor, "O C 3 3"],
) -> Float[Tensor, "B O h w"]:
    """Convolve with a 3×3 kernel whose taps move by `offsets` (y and x of each tap in turn) and count by `strengths`.

    The one place that chooses how: torchvision's operator on CUDA; elsewhere, and where a graph is recorded,
    `grid_sample`, which is 1.2–3.9 times faster on two CPU cores at the models' sizes, runs on every device and
    exports. They agree to 1e-4.
    """
    if x.is_cuda and not torch.compiler.is_compiling():
        return deform_conv2d(x, offsets, weight, padding=1, mask=strengths)
    return deformable_by_grid(x, offsets, strengths, weight)


def deformable_by_grid(
    x: Float[Tensor, "B C h w"],
    offsets: Float[Tensor, "B 18 h w"],
    strengths: Float[Tensor, "B 9 h w"],
    weight: Float[Tensor, "O C 3 3"],
) -> Float[Tensor, "B O h w"]:
    """Deformable convolution as one bilinear sampling of all taps and one matrix product.

    Positions are computed in full precision: half of it can't tell one column of a wide map from the next.
    """
    (height, width), offsets = x.shape[-2:], widened(offsets)
    steps = torch.arange(-1, 2, device=x.device, dtype=offsets.dtype)
    rows = (
        torch.arange(height, device=x.device, dtype=offsets.dtype)[:, None] + steps.repeat_interleave(3)[:, None, None]
    )  # (9, h, 1)
    columns = torch.arange(width, device=x.device, dtype=offsets.dtype) + steps.repeat(3)[:, None, None]  # (9, 1, w)
    moved = offsets.unflatten(1, (DEFORMED, 2))  # (B, 9, 2, h, w)
    padded = F.pad(x, (0, int(width == 1), 0, int(height == 1)))  # sampling has no scale along an axis of one pixel
    y = (moved[:, :, 0] + rows) * (2 / (padded.shape[-2] - 1)) - 1  # (B, 9, h, w)
    x_ = (moved[:, :, 1] + columns) * (2 / (padded.shape[-1] - 1)) - 1
    with torch.autocast(x.device.type, enabled=False):
        grid = torch.stack([x_, y], dim=-1).flatten(1, 2)  # (B, 9·h, w, 2)
        taps = F.grid_sample(widened(padded), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    taps = taps.unflatten(2, (DEFORMED, height)) * strengths[:, None]  # (B, C, 9, h, w)
    return (weight.flatten(1) @ taps.flatten(1, 2).flatten(2)).unflatten(2, (height, width))


class DeformableUpsample(nn.Module):
    """Take a scale to the next finer one: deformable 3×3 convolution, then a transposed convolution of stride 2."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.offsets = nn.Conv2d(width, 3 * DEFORMED, kernel_size=3, padding=1)
        nn.init.zeros_(self.offsets.bias)
        # holds the kernel; `deformable_conv2d` applies it
        self.deformable = nn.Conv2d(width, out_width, kernel_size=3, bias=False)
        self.norm1 = nn.BatchNorm2d(out_width)
        self.up = nn.ConvTranspose2d(out_width, out_width, kernel_size=4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B O h2 w2"]:
        offsets, strengths = self.offsets(x).split([2 * DEFORMED, DEFORMED], dim=1)
        x = deformable_conv2d(x, offsets, strengths.sigmoid(), self.deformable.weight)
        if self.deformable.bias is not None:  # of a folded norm
            x = x + self.deformable.bias[:, None, None]
        return F.relu(self.norm2(self.up(F.relu(self.norm1(x)))))

    def fold(self) -> None:
        """Make the norms, which don't change any more, part of the kernels before them."""
        self.deformable, self.norm1 = folded(self.deformable, self.norm1)
        self.up, self.norm2 = folded(self.up, self.norm2)


class LiteAggregator(nn.Module):
    """Fuse the four stages at stride 4: top-down with half their channels, then one sum of all scales, with
    coordinates."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        halves, width = [channels // 2 for channels in config.clip.channels], config.aggregator_width
        self.laterals = nn.ModuleList(nn.Conv2d(2 * half, half, kernel_size=1) for half in halves)
        self.ups = nn.ModuleList(DeformableUpsample(halves[i + 1], halves[i]) for i in range(3))
        self.reduce = nn.ModuleList(nn.Conv2d(half, width, kernel_size=1, bias=False) for half in halves)
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.locate = nn.Conv2d(width + 2, config.width, kernel_size=1)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, stages: list[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B C h4 w4"]:
        scale = self.laterals[3](stages[3])
        x = self._at_stride_4(scale, 3)
        for i in (2, 1, 0):
            scale = self.laterals[i](stages[i]) + self.ups[i](scale)
            x = x + self._at_stride_4(scale, i)
        x = self.smooth(x + self.bias)
        return self.locate(torch.cat([x, coordinates(x)], dim=1))

    def _at_stride_4(self, scale: Float[Tensor, "B C h w"], i: int) -> Float[Tensor, "B A h4 w4"]:
        reduced = self.reduce[i](scale)
        return F.interpolate(reduced, scale_factor=2**i, mode="bilinear", align_corners=False) if i else reduced


def coordinates(x: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B 2 h w"]:
    """The x and the y of every pixel, from -1 at the first to 1 at the last, of at least two. `linspace` would fix the
    size of a graph."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    places = (torch.arange(side, device=x.device, dtype=dtype) for side in x.shape[-2:])
    rows, columns = (
        (place * (2 / (side - 1)) - 1).to(x.dtype) for place, side in zip(places, x.shape[-2:], strict=True)
    )
    y, x_ = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x_, y]).expand(len(x), -1, -1, -1)


# Vocabulary-aware selection -------------------------------------------------------------------------------------------


class VocabularyAwareSelection(nn.Module):
    """Weight every pixel by how clearly it is one of the words."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        width = config.clip.width
        self.depthwise = nn.Conv2d(
            config.width, config.width, kernel_size=3, padding=1, groups=config.width, bias=False
        )
        self.norm1 = nn.BatchNorm2d(config.width)
        self.pointwise = nn.Conv2d(config.width, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.guide = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, 1, 1, 1))

    def forward(self, x: Float[Tensor, "B C h w"], *text: Float[Tensor, "_ D"]) -> Float[Tensor, "B C h w"]:
        return x * (self.clarity(x, *text)[:, None] * self.scale + self.offset)

    def fold(self) -> None:
        """Make the norms, which don't change any more, part of the kernels before them."""
        self.depthwise, self.norm1 = folded(self.depthwise, self.norm1)
        self.pointwise, self.norm2 = folded(self.pointwise, self.norm2)

    def clarity(self, x: Float[Tensor, "B C h w"], *text: Float[Tensor, "_ D"]) -> Float[Tensor, "B h w"]:
        """The largest probability that a softmax over the words, in one tensor or several, gives at each pixel, in (0,
        1]."""
        seen = F.gelu(self.norm1(self.depthwise(x)))
        guides = [self.guide(part) for part in text]

        def of_rows(seen: Tensor) -> Tensor:
            pixels = F.gelu(self.norm2(self.pointwise(seen))).flatten(2)  # (B, D, N)
            with torch.autocast(x.device.type, enabled=False):
                clarity = largest_probability(widened(pixels) / pixels.shape[1] ** 0.5, guides)
            return clarity.unflatten(1, seen.shape[-2:])[:, None]  # (B, 1, rows, w)

        pixels = seen.numel() if self.training else PIXELS_AT_ONCE  # in training the norms see all of them
        return in_parts(of_rows, seen, entries=pixels, axis=2, channel_axis=1)[:, 0]


def largest_probability(pixels: Float[Tensor, "B D N"], words: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B N"]:
    """max softmax(words · pixels) = 1 / Σ exp(logit − max), for some words at a time: memory does not grow with S · N.

    In a graph all at a time: it can't count parts.
    """
    top, total = None, None
    if not torch.compiler.is_compiling():
        at_once = max(1, SIMILARITIES_AT_ONCE // pixels[:, 0].numel())
        words = [part for some in words for part in some.split(at_once)]
    for part in words:
        logits = (
            widened(part).expand(len(pixels), -1, -1).bmm(pixels)
        )  # (B, some of S, N); `@` would turn the pixels round, and back
        highest = logits.amax(dim=1) if top is None else torch.maximum(top, logits.amax(dim=1))
        added = (logits - highest[:, None]).exp().sum(dim=1)
        total = added if total is None else total * (top - highest).exp() + added
        top = highest
    return total.reciprocal()


# Decoder --------------------------------------------------------------------------------------------------------------


class DynamicDepthwiseAttention(nn.Module):
    """Every query filters its own channels with three taps that its kernel chose."""

    def __init__(self, width: int):
        super().__init__()
        self.taps = nn.Linear(width, TAPS)
        self.norm = nn.LayerNorm(width)

    def forward(self, kernels: Float[Tensor, "B Q C"], values: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        windows = F.pad(values, (1, 1)).unfold(-1, TAPS, 1)  # (B, Q, C, 3)
        # no matrix product: it would leave full precision
        return self.norm((windows * self.taps(kernels)[:, :, None]).sum(dim=-1))


class DynamicInteraction(nn.Module):
    """Let the kernels look at what their masks cover."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        self.feature_attention = DynamicDepthwiseAttention(config.width)
        self.feature_norm = nn.LayerNorm(config.width)
        self.kernel_attention = DynamicDepthwiseAttention(config.width)
        self.kernel_norm = nn.LayerNorm(config.width)

    def forward(
        self, kernels: Float[Tensor, "B Q C"], features: Float[Tensor, "B C h w"], mask_logits: Float[Tensor, "B Q h w"]
    ) -> Float[Tensor, "B Q C"]:
        covered = sum_inside(features, (mask_logits.sigmoid() > 0.5).to(features.dtype))  # a sum, not a mean
        covered = self.feature_norm(covered + self.feature_attention(kernels, covered))
        return self.kernel_norm(covered + self.kernel_attention(kernels, covered))


class Gated(NamedTuple):
    """What the CNN and the spatial extractor know of each region, and gates in (0, 1), by which that is multiplied."""

    semantic_gate: Float[Tensor, "B Q C"]
    semantic: Float[Tensor, "B Q C"]
    spatial_gate: Float[Tensor, "B Q C"]
    spatial: Float[Tensor, "B Q C"]


class TwoWayExperts(nn.Module):
    """TDEE: mix what the CNN knows of a region with what the spatial extractor knows, by gates that both agree on."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        width = config.width
        self.semantic, self.spatial = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.semantic_gate, self.spatial_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.semantic_gate_norm, self.spatial_gate_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.semantic_norm, self.spatial_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out, self.out_norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, semantic: Float[Tensor, "B Q C"], spatial: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        gated = self.gate(semantic, spatial)
        mixed = gated.semantic_gate * gated.semantic + gated.spatial_gate * gated.spatial
        return F.gelu(self.out_norm(self.out(mixed)))

    def gate(self, semantic: Float[Tensor, "B Q C"], spatial: Float[Tensor, "B Q C"]) -> Gated:
        """What both know of each region, and by how much it counts."""
        semantic_router, semantic = self.semantic(semantic).chunk(2, dim=-1)
        spatial_router, spatial = self.spatial(spatial).chunk(2, dim=-1)
        routed = semantic_router * spatial_router
        semantic_gate = self.semantic_gate_norm(self.semantic_gate(routed)).sigmoid()
        spatial_gate = self.spatial_gate_norm(self.spatial_gate(routed)).sigmoid()
        return Gated(semantic_gate, self.semantic_norm(semantic), spatial_gate, self.spatial_norm(spatial))


class SpatialUpscale(nn.Module):
    """Bring the spatial map from stride 16 to stride 4."""

    def __init__(self, channels: int):
        super().__init__()
        self.up1 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up2 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

    def forward(self, x: Float[Tensor, "B S h w"]) -> Float[Tensor, "B S h4 w4"]:
        x = self.norm(self.up1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(self.up2(F.gelu(x)))


class DecoderLayer(nn.Module):
    """Kernels in, better kernels and masks out; and, where asked for, one class vector per query."""

    def __init__(
        self, config: EovSegConfig, interaction: nn.Module, fusion: nn.Module | None, spatial_channels: int | None
    ):
        super().__init__()
        width = config.width
        self.interaction = interaction
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self.mask_kernel = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.semantic = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.spatial = spatial_channels and nn.Sequential(
            nn.LayerNorm(spatial_channels), nn.Linear(spatial_channels, width)
        )
        self.fusion = fusion
        hidden = (nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.class_vector = nn.Sequential(*hidden, nn.Linear(width, config.clip.width))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.apply(_start)

    def refine(
        self, kernels: Float[Tensor, "B Q C"], features: Float[Tensor, "B C h w"], mask_logits: Float[Tensor, "B Q h w"]
    ) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B Q h w"]]:
        """Return the new kernels, and the masks that they draw."""
        kernels = self.interaction(kernels, features, mask_logits)
        kernels = self.attention_norm(kernels + self.attention(kernels, kernels, kernels, need_weights=False)[0])
        kernels = self.feed_forward_norm(kernels + self.feed_forward(kernels))
        return kernels, torch.einsum("bqc,bchw->bqhw", self.mask_kernel(kernels), features)

    def classify(
        self,
        kernels: Float[Tensor, "B Q C"],
        mask_logits: Float[Tensor, "B Q h w"],
        features: Float[Tensor, "B C h w"],
        spatial: Float[Tensor, "B S _ _"] | None,
    ) -> Float[Tensor, "B Q D"]:
        """Return a vector in CLIP's space for what each mask covers."""
        embedding = self.embed_semantic(mask_logits, features)
        if spatial is not None:
            embedding = self.fusion(embedding, self.embed_spatial(mask_logits, spatial))
        return self.class_vector(embedding + kernels)

    def embed_semantic(
        self, mask_logits: Float[Tensor, "B Q h w"], features: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B Q C"]:
        """What the CNN knows of what each mask covers."""
        return self.semantic(mean_inside(features, hard_masks(mask_logits, features)))

    def embed_spatial(
        self, mask_logits: Float[Tensor, "B Q h w"], spatial: Float[Tensor, "B S _ _"]
    ) -> Float[Tensor, "B Q C"]:
        """What the spatial extractor knows of it."""
        return self.spatial(mean_inside(spatial, hard_masks(mask_logits, spatial)))


def hard_masks(mask_logits: Float[Tensor, "B Q _ _"], like: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B Q h w"]:
    """1 where a logit is positive, 0 elsewhere, on the grid of another map; without gradient."""
    mask_logits = mask_logits.detach()
    if mask_logits.shape[-2:] != like.shape[-2:]:
        mask_logits = F.interpolate(mask_logits, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return (mask_logits > 0).to(like.dtype)


def _start(module: nn.Module) -> None:
    """Initialise as the reference does: small normal weights (torch's own for norms, 1 and 0, stay)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# From vectors to probabilities ----------------------------------------------------------------------------------------


def class_logits(
    vectors: Float[Tensor, "B Q D"], words: Words, void: Float[Tensor, "1 D"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, "B Q T1"]:
    """Cosine of vectors and words, warmed; a class takes the maximum over its phrases, and void comes last.

    Args:
        void: Its unit vector.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = F.normalize(widened(vectors), dim=-1)
        phrases, empty = vectors @ words.embeddings.T, vectors @ void.T  # (B, Q, S) and (B, Q, 1)
    classes = phrases.new_full((*phrases.shape[:2], len(words.seen)), -torch.inf)
    classes = classes.scatter_reduce(2, words.owner.expand(*phrases.shape[:2], -1), phrases, "amax")
    return logit_scale.exp().clamp(max=LARGEST_SCALE) * torch.cat([classes, empty], dim=-1)


def geometric_ensemble(
    own: Float[Tensor, "B Q T1"],
    clips: Float[Tensor, "B Q T1"],
    seen: Bool[Tensor, " T"],
    has_region: Bool[Tensor, "B Q"],
) -> Float[Tensor, "B Q T1"]:
    """Blend the decoder's class logits with CLIP's own opinion of each region; return the logarithms of the
    probabilities.

    log p = (1 − a) log p_own + a log p_clip, with a larger for classes that training never saw, and 0 where there is no
    region. The probability of void is the decoder's alone.
    """
    own_logs, clip_logs = own[..., :-1].log_softmax(dim=-1), clips[..., :-1].log_softmax(dim=-1)
    weight = torch.where(seen, SEEN_WEIGHT, UNSEEN_WEIGHT).to(own) * has_region[..., None]
    classes = torch.lerp(own_logs, clip_logs, weight).softmax(dim=-1)
    void = own.softmax(dim=-1)[..., -1:]
    return (torch.cat([classes * (1 - void), void], dim=-1) + SMALLEST).log()


# The model ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What the paper varies: hand in another part to try it; each is built from the configuration.

    Args:
        spatial: Pixels → a map at stride 16, with its `channels`; frozen. None: the CNN alone.
        join: (aggregated map at stride 4, spatial map) → aggregated map. None: nothing is joined early.
        selection: (aggregated map, vectors of phrases, that of void) → map of the same shape. None: none is made.
        interaction: (kernels, features, mask logits) → kernels; one is built per layer.
        fusion: (semantic, spatial) embeddings of regions → one embedding; one is built per layer. None: the semantic
            one alone.
        ensemble: See `geometric_ensemble`.
    """

    spatial: Callable[[EovSegConfig], nn.Module] | None = lambda config: clip.VitBeginning(config.spatial)
    join: Callable[[EovSegConfig], nn.Module] | None = None
    selection: Callable[[EovSegConfig], nn.Module] | None = VocabularyAwareSelection
    interaction: Callable[[EovSegConfig], nn.Module] = DynamicInteraction
    fusion: Callable[[EovSegConfig], nn.Module] | None = TwoWayExperts
    ensemble: Callable[..., Tensor] = geometric_ensemble


class EovSeg(nn.Module):
    """EOV-Seg: `forward(pixels, words)` gives a mask and class probabilities for each of Q queries.

    Build it through `wordmask.load`, `wordmask.models.convert.from_reference`, or `EovSeg(PRESETS["eov-seg-small"])`
    for random weights.
    """

    family = "eov-seg"
    vocabularies: ClassVar[str] = "eov-seg"
    templates: tuple[str, ...] = TEMPLATES
    tasks: tuple[Task, ...] = ("panoptic", "instance", "semantic")
    synonyms: Synonyms = "each"
    keep_steps: KeepSteps = ()  # it looks at all classes
    emits: type[RawOutput] = QueryMasks
    stages: Mapping[str, str] = MappingProxyType(
        {
            "encode_image": "CLIP and spatial extractor",
            "aggregate": "aggregation",
            "select": "vocabulary-aware selection",
            "decode": "decoder",
            "opinion": "ensemble",
        }
    )

    def __init__(self, config: EovSegConfig, parts: Parts = Parts()):
        super().__init__()
        self.config = config
        self.clip = clip.build(config.clip)
        self.spatial = parts.spatial(config) if parts.spatial and (parts.fusion or parts.join) else None
        self.aggregator = LiteAggregator(config)
        self.join = parts.join and parts.join(config)
        self.selection = parts.selection and parts.selection(config)
        self.kernels = nn.Embedding(config.queries, config.width)
        channels = self.spatial.channels if self.spatial and parts.fusion else None
        self.spatial_upscale = channels and SpatialUpscale(channels)
        self.layers = nn.ModuleList(
            DecoderLayer(config, parts.interaction(config), channels and parts.fusion(config), channels)
            for _ in range(config.layers)
        )
        self.void = nn.Embedding(1, config.clip.width)
        self.ensemble = parts.ensemble

    def start_from_clip(self) -> None:
        """Nothing but the towers begins with CLIP's weights."""

    def train(self, mode: bool = True) -> "EovSeg":
        """Switch to training, but for the frozen towers: their batch norms keep CLIP's statistics."""
        super().train(mode)
        for tower in filter(None, (self.clip, self.spatial)):
            tower.eval()
        return self

    @property
    def training_vocabulary(self) -> str:
        return self.config.training_vocabulary

    @property
    def image_input(self) -> ImageInput:
        edges = self.config.shortest_edge, self.config.longest_edge
        return ImageInput(*edges, square=None, mean=MEAN, std=STD)

    @staticmethod
    def is_trained(name: str) -> bool:
        """Tell whether the recipe trains this parameter: all but the towers."""
        return not name.startswith(("clip.", "spatial."))

    def for_inference(self) -> "EovSeg":
        """Fold batch norms, and leave out the class vectors of all layers but the last, which nothing but their losses
        reads."""
        clip.fold_batch_norms(self.clip)
        for module in self.modules():
            if isinstance(module, DeformableUpsample | VocabularyAwareSelection):
                module.fold()
        for layer in self.layers[:-1]:
            layer.semantic = layer.spatial = layer.fusion = layer.class_vector = layer.logit_scale = None
        return self

    def encode_text(self, phrases: list[str]) -> Float[Tensor, "S D"]:
        """Encode phrases in EOV-Seg's 14 prompts; unit vectors."""
        return encode_phrases(self.clip, phrases, TEMPLATES)

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """Run the frozen towers."""
        return Features(*clip.stage_maps(self.clip, pixels), self.spatial and self.spatial(pixels))

    def forward(self, pixels: Float[Tensor, "B 3 H W"], words: Words) -> QueryMasks:
        """Compute masks at stride 4 and class probabilities.

        Args:
            pixels: As `image_input` asks; sides are multiples of 32.
            words: At least one unit vector per class.
        """
        features = self.encode_image(pixels)
        selected = self.select(self.aggregate(features), words)
        layer_class_logits, layer_mask_logits = self.decode(
            selected, features.spatial, words, every_layer=self.training
        )
        class_logits, mask_logits = layer_class_logits[-1], layer_mask_logits[-1]
        if self.training:
            return QueryMasks(class_logits, mask_logits, layer_class_logits, layer_mask_logits)
        class_logits, clips = self.opinion(class_logits, mask_logits, features.x32, words)
        return QueryMasks(class_logits, mask_logits, layer_class_logits, layer_mask_logits, clips)

    def aggregate(self, features: Features) -> Float[Tensor, "B C h4 w4"]:
        """Bring the stages of the CNN to one map."""
        x = self.aggregator(list(features[:4]))
        return x if self.join is None else self.join(x, features.spatial)

    def select(self, x: Float[Tensor, "B C h4 w4"], words: Words) -> Float[Tensor, "B C h4 w4"]:
        """Weight the pixels of the map by the words, and by void."""
        return x if self.selection is None else self.selection(x, words.embeddings, self.void_vector)

    @property
    def void_vector(self) -> Float[Tensor, "1 D"]:
        """What stands for no class beside the words."""
        return F.normalize(self.void.weight, dim=-1)

    def decode(
        self,
        x: Float[Tensor, "B C h4 w4"],
        spatial: Float[Tensor, "B S h w"] | None,
        words: Words,
        *,
        every_layer: bool,
    ) -> tuple[Float[Tensor, "L B Q T1"], Float[Tensor, "L B Q h4 w4"]]:
        """Refine the object kernels layer by layer; return class and mask logits of every layer, or of the last."""
        spatial = self.spatial_upscale and self.spatial_upscale(spatial)
        kernels = self.kernels.weight.expand(len(x), -1, -1)
        masks = torch.einsum("bqc,bchw->bqhw", kernels, x)
        classes, drawn = [], []
        for number, layer in enumerate(self.layers, 1):
            kernels, masks = layer.refine(kernels, x, masks)
            if every_layer or number == len(self.layers):
                vectors = layer.classify(kernels, masks, x, spatial)
                classes.append(class_logits(vectors, words, self.void_vector, layer.logit_scale))
                drawn.append(masks)
        return torch.stack(classes), torch.stack(drawn)

    @torch.no_grad()
    def opinion(
        self,
        own: Float[Tensor, "B Q T1"],
        mask_logits: Float[Tensor, "B Q h4 w4"],
        x32: Float[Tensor, "B C32 h32 w32"],
        words: Words,
    ) -> tuple[Float[Tensor, "B Q T1"], Float[Tensor, "B Q T1"]]:
        """Ask CLIP what it sees in each region; return that blended with the decoder's class logits, and alone."""
        clips, has_region = self.ask_clip(mask_logits, x32, words)
        return self.ensemble(own, clips, words.seen, has_region), clips

    def ask_clip(
        self, mask_logits: Float[Tensor, "B Q h4 w4"], x32: Float[Tensor, "B C32 h32 w32"], words: Words
    ) -> tuple[Float[Tensor, "B Q T1"], Bool[Tensor, "B Q"]]:
        """Return CLIP's own class logits of each region, and whether there is a region to ask about."""
        regions = hard_masks(mask_logits, x32)
        clips = class_logits(clip.pool_regions(self.clip, x32, regions), words, self.void_vector, self.clip.logit_scale)
        if clip.has_attention_pool(self.clip):  # the reference asks this of ResNets only
            return clips, regions.flatten(2).any(dim=-1)
        return clips, torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)


RESNET_50 = ClipConfig("RN50", (256, 512, 1024, 2048), "attention", width=1024, text_width=512, text_layers=12)
RESNET_50X4 = ClipConfig("RN50x4", (320, 640, 1280, 2560), "attention", width=640, text_width=640, text_layers=12)
SMALL = EovSegConfig(
    clip=RESNET_50,
    spatial=VitConfig(width=768, heads=12, patch=16, grid=14, blocks=1),  # CLIP ViT-B-16
    training_vocabulary=COCO_PANOPTIC,
    shortest_edge=640,
    longest_edge=2560,
    aggregator_width=128,
    width=256,
    queries=100,
    layers=3,
    heads=8,
    hidden=2048,
)
PRESETS = {
    "eov-seg-small": SMALL,  # CLIP RN50, openai
    "eov-seg-medium": replace(SMALL, clip=RESNET_50X4),  # CLIP RN50x4, openai
    "eov-seg-large": replace(
        SMALL, clip=CONVNEXT_LARGE, aggregator_width=96
    ),  # CLIP convnext_large_d_320, laion2b_s29b_b131k_ft_soup
    "eov-seg-tiny": EovSegConfig(  # trained on Shapeland by recipes/, bundled
        clip=CONVNEXT_MINI,
        spatial=VIT_MINI,
        training_vocabulary="shapeland/shapeland-seen-656",
        shortest_edge=192,
        longest_edge=768,
        aggregator_width=48,
        width=96,
        queries=30,
        layers=3,
        heads=4,
        hidden=384,
    ),
    "eov-seg-untrained": EovSegConfig(  # random weights, for trying the road without a download
        clip=ClipConfig("convnext_atto", (40, 80, 160, 320), "linear", width=64, text_width=64, text_layers=2),
        spatial=VitConfig(width=64, heads=1, patch=16, grid=14, blocks=1),
        training_vocabulary=COCO_PANOPTIC,
        shortest_edge=256,
        longest_edge=1024,
        aggregator_width=16,
        width=32,
        queries=40,
        layers=3,
        heads=4,
        hidden=64,
    ),
}
