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
* Class vectors of the layers before the last only matter to the loss: elsewhere they are not made.
* Only what is run of the spatial ViT exists. The ensemble is computed from logarithms, which can't underflow.
* ResNets run: the reference's attention pooling asks an int for its device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from wordmask import clip
from wordmask.clip import CONVNEXT_LARGE, CONVNEXT_MINI, VIT_MINI, ClipConfig, VitConfig, widened
from wordmask.in_parts import in_parts
from wordmask.models.deformable_conv import KERNEL_TAPS, deformable_conv2d
from wordmask.models.module_list import ModuleListOf
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
SEEN_WEIGHT, UNSEEN_WEIGHT = (0.4, 0.8)  # of CLIP's own opinion, by whether training saw a class; reference config.py
SMALLEST = 1e-8  # added to probabilities before their logarithm; reference segmentator.py
LARGEST_SCALE = 100.0  # limit of learned logit scales; reference head.py
TAPS = 3  # of a query's filter along its channels
PIXELS_AT_ONCE = 2048  # in vocabulary-aware selection: 8 MB of vectors
SIMILARITIES_AT_ONCE = 2**21  # of pixel and word, there: 8 MB


@dataclass(frozen=True)
class EovSegConfig:
    """What differs between the presets, and what the paper sets.

    Args:
        spatial: The beginning of a ViT that knows where things are.
        training_vocabulary: What `Vocabulary.of` reads: which classes training saw.
        shortest_edge: That of the input, in pixels.
        longest_edge: The limit of the other.
        aggregator_width: A, channels in which the scales are summed.
        width: C, of the aggregated map, of object kernels and embeddings.
        queries: Q, object kernels.
        layers: How many the decoder has.
        heads: How many its self-attention has.
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


class DeformableUpsample(nn.Module):
    """Take a scale to the next finer one: deformable 3×3 convolution, then a transposed convolution of stride 2."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.offsets = nn.Conv2d(width, 3 * KERNEL_TAPS, kernel_size=3, padding=1)
        nn.init.zeros_(self.offsets.bias)  # pyright: ignore[reportArgumentType]  # it has one
        self.deformable = nn.Conv2d(width, out_width, kernel_size=3, bias=False)  # applied by `deformable_conv2d`
        self.norm1 = nn.BatchNorm2d(out_width)
        self.up = nn.ConvTranspose2d(out_width, out_width, kernel_size=4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B O h2 w2"]:
        offsets, strengths = self.offsets(x).split([2 * KERNEL_TAPS, KERNEL_TAPS], dim=1)
        x = deformable_conv2d(x, offsets, strengths.sigmoid(), self.deformable.weight)
        if self.deformable.bias is not None:  # of a folded norm
            x = x + self.deformable.bias[:, None, None]
        return F.relu(self.norm2(self.up(F.relu(self.norm1(x)))))

    def fold(self) -> None:
        """Make the norms, which don't change any more, part of the kernels before them."""
        self.deformable, self.norm1 = clip.folded(self.deformable, self.norm1)
        self.up, self.norm2 = clip.folded(self.up, self.norm2)


class LiteAggregator(nn.Module):
    """Fuse the four stages at stride 4: top-down with half their channels, then one sum of all, with coordinates."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        halves, width = [channels // 2 for channels in config.clip.channels], config.aggregator_width
        self.laterals = ModuleListOf(nn.Conv2d(2 * half, half, kernel_size=1) for half in halves)
        self.ups = ModuleListOf(DeformableUpsample(halves[i + 1], halves[i]) for i in range(3))
        self.reduce = ModuleListOf(nn.Conv2d(half, width, kernel_size=1, bias=False) for half in halves)
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
    """The x and the y of every pixel, from -1 at the first to 1 at the last."""

    def along(side: int) -> Tensor:  # of at least two pixels; `linspace` would fix the size of a graph
        places = torch.arange(side, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        return (places * (2 / (side - 1)) - 1).to(x.dtype)

    y, x_ = torch.meshgrid(along(x.shape[-2]), along(x.shape[-1]), indexing="ij")
    return torch.stack([x_, y]).expand(len(x), -1, -1, -1)


# Vocabulary-aware selection -------------------------------------------------------------------------------------------


class VocabularyAwareSelection(nn.Module):
    """Weight every pixel by how clearly it is one of the words."""

    def __init__(self, config: EovSegConfig):
        super().__init__()
        width, clip_width = config.width, config.clip.width
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, clip_width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(clip_width)
        self.guide = nn.Linear(clip_width, clip_width)
        self.scale = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, 1, 1, 1))

    def forward(self, x: Float[Tensor, "B C h w"], *text: Float[Tensor, "_ D"]) -> Float[Tensor, "B C h w"]:
        return x * (self.clarity(x, *text)[:, None] * self.scale + self.offset)

    def fold(self) -> None:
        """Make the norms, which don't change any more, part of the kernels before them."""
        self.depthwise, self.norm1 = clip.folded(self.depthwise, self.norm1)
        self.pointwise, self.norm2 = clip.folded(self.pointwise, self.norm2)

    def clarity(self, x: Float[Tensor, "B C h w"], *text: Float[Tensor, "_ D"]) -> Float[Tensor, "B h w"]:
        """The largest probability in a softmax over the words, which come in one tensor or several, at each pixel."""
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

    All words at a time in a graph, which can't count parts.
    """
    top, total = None, None
    if not torch.compiler.is_compiling():
        at_once = max(1, SIMILARITIES_AT_ONCE // pixels[:, 0].numel())
        words = list(chain.from_iterable(part.split(at_once) for part in words))
    for part in words:
        logits = widened(part).expand(len(pixels), -1, -1).bmm(pixels)  # (B, _, N); `@` would turn pixels round twice
        highest = logits.amax(dim=1) if top is None else torch.maximum(top, logits.amax(dim=1))
        added = (logits - highest[:, None]).exp().sum(dim=1)
        total = added if top is None or total is None else total * (top - highest).exp() + added
        top = highest
    assert total is not None  # there is a word, or void
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
        # a sum of products: a matrix product would leave full precision
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
        covered = clip.sum_inside(features, (mask_logits.sigmoid() > 0.5).to(features.dtype))  # a sum, not a mean
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
        before = nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU()
        self.mask_kernel = nn.Sequential(*before, nn.Linear(width, width))
        self.semantic = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.spatial = None
        if spatial_channels:
            self.spatial = nn.Sequential(nn.LayerNorm(spatial_channels), nn.Linear(spatial_channels, width))
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
        if spatial is not None and self.fusion is not None:
            embedding = self.fusion(embedding, self.embed_spatial(mask_logits, spatial))
        return self.class_vector(embedding + kernels)

    def embed_semantic(self, masks: Float[Tensor, "B Q h w"], x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B Q C"]:
        """What the CNN's map knows of what each mask covers."""
        return self.semantic(clip.mean_inside(x, hard_masks(masks, x)))

    def embed_spatial(self, masks: Float[Tensor, "B Q h w"], x: Float[Tensor, "B S _ _"]) -> Float[Tensor, "B Q C"]:
        """What the spatial extractor's map knows of it."""
        assert self.spatial is not None
        return self.spatial(clip.mean_inside(x, hard_masks(masks, x)))


def hard_masks(mask_logits: Float[Tensor, "B Q _ _"], like: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B Q h w"]:
    """1 where a logit is positive, 0 elsewhere, on the grid of another map; without gradient."""
    mask_logits = mask_logits.detach()
    if mask_logits.shape[-2:] != like.shape[-2:]:
        mask_logits = F.interpolate(mask_logits, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return (mask_logits > 0).to(like.dtype)


def _start(module: nn.Module) -> None:
    """Initialise as the reference does: small normal weights; those of norms stay torch's own, 1 and 0."""
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
    weight = torch.full_like(seen, UNSEEN_WEIGHT, dtype=own.dtype).masked_fill(seen, SEEN_WEIGHT)
    weight = weight * has_region[..., None]
    classes = torch.lerp(own_logs, clip_logs, weight).softmax(dim=-1)
    void = own.softmax(dim=-1)[..., -1:]
    return (torch.cat([classes * (1 - void), void], dim=-1) + SMALLEST).log()


# The model ------------------------------------------------------------------------------------------------------------


def beginning_of_vit(config: EovSegConfig) -> clip.VitBeginning:
    """The spatial extractor of the paper."""
    return clip.VitBeginning(config.spatial)


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

    spatial: Callable[[EovSegConfig], nn.Module] | None = beginning_of_vit
    join: Callable[[EovSegConfig], nn.Module] | None = None
    selection: Callable[[EovSegConfig], nn.Module] | None = VocabularyAwareSelection
    interaction: Callable[[EovSegConfig], nn.Module] = DynamicInteraction
    fusion: Callable[[EovSegConfig], nn.Module] | None = TwoWayExperts
    ensemble: Callable[..., Tensor] = geometric_ensemble


class EovSeg(nn.Module):
    """EOV-Seg: `forward(pixels, words)` returns a mask and class probabilities for each of Q queries.

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
        fusion = parts.fusion if self.spatial else None
        channels = self.spatial.channels if self.spatial and fusion else None
        assert isinstance(channels, int | None)
        self.spatial_upscale = SpatialUpscale(channels) if channels else None
        self.layers = ModuleListOf(
            DecoderLayer(config, parts.interaction(config), fusion and fusion(config), channels)
            for _ in range(config.layers)
        )
        self.void = nn.Embedding(1, config.clip.width)
        self.ensemble = parts.ensemble

    def start_from_clip(self) -> None:
        """Nothing but the towers begins with CLIP's weights."""

    def train(self, mode: bool = True) -> "EovSeg":
        """Switch to training, except the frozen towers: their batch norms keep CLIP's statistics."""
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
        """Tell whether the recipe trains this parameter; the towers stay as they are."""
        return not name.startswith(("clip.", "spatial."))

    def for_inference(self) -> "EovSeg":
        """Fold batch norms, and leave out what makes class vectors in all layers but the last: losses read them."""
        clip.fold_batch_norms(self.clip)
        for module in self.modules():
            if isinstance(module, DeformableUpsample | VocabularyAwareSelection):
                module.fold()
        for layer in self.layers[:-1]:
            for part in ("semantic", "spatial", "fusion", "class_vector", "logit_scale"):
                setattr(layer, part, None)
        return self

    def encode_text(self, phrases: list[str]) -> Float[Tensor, "S D"]:
        """Encode phrases in EOV-Seg's 14 prompts; unit vectors."""
        return encode_phrases(self.clip, phrases, TEMPLATES)

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Features:
        """Run the frozen towers."""
        x4, x8, x16, x32 = clip.stage_maps(self.clip, pixels)
        return Features(x4, x8, x16, x32, self.spatial and self.spatial(pixels))

    def forward(self, pixels: Float[Tensor, "B 3 H W"], words: Words) -> QueryMasks:
        """Compute masks at stride 4 and class probabilities.

        Args:
            pixels: As `image_input` asks; sides are multiples of 32.
            words: At least one unit vector per class.
        """
        features = self.encode_image(pixels)
        x = self.select(self.aggregate(features), words)
        layer_classes, layer_masks = self.decode(x, features.spatial, words, every_layer=self.training)
        if self.training:
            return QueryMasks(layer_classes[-1], layer_masks[-1], layer_classes, layer_masks)
        class_logits, clips = self.opinion(layer_classes[-1], layer_masks[-1], features.x32, words)
        return QueryMasks(class_logits, layer_masks[-1], layer_classes, layer_masks, clips)

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
    # CLIP convnext_large_d_320, laion2b_s29b_b131k_ft_soup
    "eov-seg-large": replace(SMALL, clip=CONVNEXT_LARGE, aggregator_width=96),
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
