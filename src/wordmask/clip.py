"""The only door to open_clip and timm: towers, feature maps, prompts, which weights train."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from wordmask import compiler_stand_in  # noqa: F401

# isort: split
import open_clip
import timm
import torch
from jaxtyping import Float, Int
from open_clip.loss import ClipLoss
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONTEXT_LENGTH = 77  # tokens, start and end included: how CLIP was trained
CONVNEXTS = {"convnext_mini": (1, 1, 3, 1)}  # blocks per stage; smaller than timm's, for training on a laptop
LAYER_SCALE = 0.1  # at the start of a ConvNeXt of `CONVNEXTS`; timm's 1e-6 is for hundreds of epochs
# stochastic depth of a ConvNeXt while it learns; open_clip's configurations convnext_base_w_320 and
# convnext_large_d_320
DROP_PATH = 0.1
# OpenAI's: blocks per stage, side of the training pictures
RESNETS = {"RN50": ((3, 4, 6, 3), 224), "RN50x4": ((4, 6, 10, 6), 288)}
Convolution = TypeVar("Convolution", nn.Conv2d, nn.ConvTranspose2d)

if TYPE_CHECKING:  # open_clip and timm don't say what their attributes are; these are the ones in use

    class Clip(nn.Module):
        """Both towers, as open_clip builds them."""

        visual: nn.Module
        transformer: nn.Module
        token_embedding: nn.Embedding
        positional_embedding: nn.Parameter
        attn_mask: Tensor
        ln_final: nn.LayerNorm
        text_projection: nn.Parameter
        logit_scale: nn.Parameter

    class ConvNextTower(TimmModel):
        """open_clip's tower around a ConvNeXt of timm's."""

        trunk: "ConvNext"

    class ConvNext(nn.Module):
        stem: nn.Sequential
        stages: "Sequence[ConvNextStage]"
        norm_pre: nn.Module
        head: "ConvNextHead"

    class ConvNextStage(nn.Module):
        downsample: nn.Sequential
        blocks: nn.Sequential

    class ConvNextHead(nn.Module):
        norm: nn.Module
else:
    Clip, ConvNextTower = open_clip.CLIP, TimmModel


@dataclass(frozen=True)
class ClipConfig:
    """A CLIP with a convolutional image tower.

    Args:
        trunk: timm's name of a ConvNeXt, a row of `CONVNEXTS`, or one of `RESNETS`: OpenAI's, with QuickGELU in the
            text tower.
        channels: Those of its four stages, at strides 4, 8, 16, 32.
        projection: From the trunk to the shared space: `linear` or `mlp`, for a ResNet `attention`.
        width: D, of the space that pictures and words share.
        text_width: That of the text transformer; its heads are 64 wide.
        text_layers: Those of the text transformer.
    """

    trunk: str
    channels: tuple[int, int, int, int]
    projection: str
    width: int
    text_width: int
    text_layers: int


# convnext_large_d_320
CONVNEXT_LARGE = ClipConfig("convnext_large", (192, 384, 768, 1536), "mlp", width=768, text_width=768, text_layers=16)


# trained on Shapeland's captions
CONVNEXT_MINI = ClipConfig("convnext_mini", (32, 64, 128, 256), "linear", width=128, text_width=128, text_layers=3)


@dataclass(frozen=True)
class VitConfig:
    """The beginning of a CLIP vision transformer, as OpenAI trained it.

    Args:
        width: C, channels of a token.
        heads: How many its attention has.
        patch: Side of a patch, in pixels: the stride of the map.
        grid: Patches along the side of a training picture.
        blocks: How many of its first residual blocks are there.
    """

    width: int
    heads: int
    patch: int
    grid: int
    blocks: int


VIT_MINI = VitConfig(width=96, heads=3, patch=16, grid=6, blocks=1)


def build(config: ClipConfig) -> Clip:
    """Build both towers with random weights, in evaluation mode."""
    text = CLIPTextCfg(
        CONTEXT_LENGTH, width=config.text_width, heads=config.text_width // 64, layers=config.text_layers
    )
    if config.trunk in RESNETS:
        blocks, side = RESNETS[config.trunk]
        vision = CLIPVisionCfg(layers=blocks, width=config.channels[0] // 4, image_size=side)
        return Clip(config.width, vision, text, quick_gelu=True).eval()
    trunk = timm_name(config.trunk)
    vision = CLIPVisionCfg(
        timm_model_name=trunk, timm_pool="", timm_proj=config.projection, timm_drop_path=DROP_PATH, image_size=320
    )
    clip = Clip(config.width, vision, text)
    if config.trunk in CONVNEXTS:
        tower, blocks = convnext_of(clip), CONVNEXTS[config.trunk]
        shape = {"depths": blocks, "dims": config.channels, "ls_init_value": LAYER_SCALE, "conv_mlp": False}
        smaller = timm.create_model(trunk, num_classes=0, global_pool="", **shape)
        tower.trunk = smaller  # pyright: ignore[reportAttributeAccessIssue]  # it is a ConvNext
        tower.head.proj = nn.Linear(config.channels[-1], config.width, bias=False)
    return clip.eval()


def timm_name(trunk: str) -> str:
    """The ConvNeXt of timm's that a trunk is, or is a smaller relative of."""
    return "convnext_atto" if trunk in CONVNEXTS else trunk


def build_vit(config: VitConfig, *, layers: int, width: int) -> VisionTransformer:
    """Build a whole vision transformer with random weights, as `VitBeginning` begins; `width` is D, of the shared
    space."""
    side = config.patch * config.grid
    shape = {"width": config.width, "layers": layers, "heads": config.heads, "mlp_ratio": 4.0, "output_dim": width}
    return VisionTransformer(image_size=side, patch_size=config.patch, act_layer=QuickGELU, **shape)


def pretrained(name: str, tag: str) -> dict[str, Tensor]:
    """Fetch the weights of a published CLIP, by open_clip's names, or find them in the hub's cache.

    Raises:
        ValueError: No network, and nothing cached.
    """
    try:
        return open_clip.create_model(name, pretrained=tag).state_dict()
    except Exception as error:  # the hub's, the HTTP library's and open_clip's own errors share no base
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The CLIP {name!r} ({tag}) could not be fetched: {type(error).__name__}: {reason}. Connect once, "
            "or name a file with its weights."
        ) from None


def restore_buffers(clip: Clip) -> None:
    """Compute what checkpoints don't hold: after building on the meta device, the causal mask has no values yet."""
    clip.register_buffer("attn_mask", causal_mask(CONTEXT_LENGTH, clip.positional_embedding), persistent=False)


def causal_mask(length: int, like: Tensor) -> Float[Tensor, "L L"]:
    """-inf above the diagonal: a token sees those before it."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def stage_maps(clip: Clip, pixels: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
    """Run the trunk: its four stages, at strides 4, 8, 16 and 32."""
    if has_attention_pool(clip):
        resnet = resnet_of(clip)
        x, stages = resnet.stem(pixels), (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    else:
        trunk = convnext_of(clip).trunk
        x, stages = trunk.stem(pixels), trunk.stages
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def last_stage_blocks(clip: Clip, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Run the blocks of the last stage alone, without its downsampling."""
    return convnext_of(clip).trunk.stages[-1].blocks(x)


def last_downsampling(clip: Clip) -> tuple[nn.Module, nn.Module]:
    """The norm and the 2×2 convolution of stride 2 between the third stage and the last."""
    norm, conv = convnext_of(clip).trunk.stages[-1].downsample
    return norm, conv


def project_pixels(clip: Clip, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
    """Bring every pixel of a last-stage map to the space shared with words, through CLIP's own norm and projection."""
    tower = convnext_of(clip)
    x = tower.trunk.head.norm(tower.trunk.norm_pre(x))
    return tower.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, D, h, w)


def folded(conv: Convolution, norm: nn.BatchNorm2d | nn.Identity) -> tuple[Convolution, nn.Identity]:
    """A convolution that does what it and the batch norm after it did with fixed statistics, and nothing in the norm's
    place."""
    if isinstance(norm, nn.Identity):  # it was folded before
        return conv, norm
    return fuse_conv_bn_eval(conv.eval(), norm.eval(), transpose=isinstance(conv, nn.ConvTranspose2d)), nn.Identity()


def fold_batch_norms(clip: Clip) -> None:
    """Fold the batch norms of OpenAI's ResNets; a ConvNeXt has none."""
    if not has_attention_pool(clip):
        return
    blocks = [block for stage in ("layer1", "layer2", "layer3", "layer4") for block in getattr(clip.visual, stage)]
    for module in (clip.visual, *blocks):
        for number in (1, 2, 3):
            names = f"conv{number}", f"bn{number}"
            conv, norm = (getattr(module, name) for name in names)
            for name, part in zip(names, folded(conv, norm), strict=True):
                setattr(module, name, part)
    for block in blocks:
        if block.downsample is not None:
            *before, conv, norm = block.downsample
            block.downsample = nn.Sequential(*before, *folded(conv, norm))


def has_attention_pool(clip: Clip) -> bool:
    """Tell whether the image tower is a ResNet, which reaches the shared space by attention."""
    return hasattr(clip.visual, "attnpool")


def resnet_of(clip: Clip) -> ModifiedResNet:
    """The image tower of a CLIP that `has_attention_pool`."""
    assert isinstance(clip.visual, ModifiedResNet)
    return clip.visual


def convnext_of(clip: Clip) -> ConvNextTower:
    """The image tower of any other."""
    assert isinstance(clip.visual, ConvNextTower)
    return clip.visual


def pool_regions(clip: Clip, x32: Float[Tensor, "B C h w"], masks: Float[Tensor, "B Q h w"]) -> Float[Tensor, "B Q D"]:
    """Bring each region of a last-stage map to the space shared with words, as CLIP's own head sees it.

    A ConvNeXt averages the region; a ResNet attends to it.

    Args:
        masks: 1 inside, 0 outside. The result of an empty one has no meaning.
    """
    if has_attention_pool(clip):
        return attend_regions(resnet_of(clip).attnpool, x32, masks)
    tower = convnext_of(clip)
    pooled = mean_inside(tower.trunk.norm_pre(x32), masks)  # (B, Q, C)
    pooled = tower.trunk.head.norm(pooled.transpose(1, 2)[..., None])  # (B, C, Q, 1)
    return tower.head(pooled[..., 0].transpose(1, 2))


def mean_inside(x: Float[Tensor, "B C h w"], masks: Float[Tensor, "B Q h w"]) -> Float[Tensor, "B Q C"]:
    """Average a map over each mask of zeros and ones; zero for an empty mask."""
    masks = widened(masks)
    return sum_inside(x, masks) / (masks.sum(dim=(2, 3))[..., None] + 1e-8)


def sum_inside(x: Float[Tensor, "B C h w"], masks: Float[Tensor, "B Q h w"]) -> Float[Tensor, "B Q C"]:
    """Sum a map over each mask of zeros and ones, in full precision: half of it overflows over many pixels."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("bchw,bqhw->bqc", widened(x), widened(masks))


def widened(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half precision as float32; what is wider stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def attend_regions(
    pool: AttentionPool2d, x: Float[Tensor, "B C h w"], masks: Float[Tensor, "B Q h w"]
) -> Float[Tensor, "B Q D"]:
    """Pool by CLIP's attention with the mean of the picture as the one query, its keys limited to each mask.

    The query is the same for every mask, so that it meets the keys once.
    """
    positions = resize_positions(pool.positional_embedding, x.shape[-2:])
    pixels = x.flatten(2).transpose(1, 2)  # (B, h·w, C)
    query = pool.q_proj(pixels.mean(dim=1) + positions[0]).unflatten(-1, (pool.num_heads, -1))  # (B, heads, C / heads)
    placed = pixels + positions[1:]
    key, value = (projection(placed).unflatten(-1, (pool.num_heads, -1)) for projection in (pool.k_proj, pool.v_proj))
    logits = torch.einsum("bmc,bnmc->bmn", query, key) / query.shape[-1] ** 0.5
    outside = masks.flatten(2)[:, None] < 0.5  # (B, 1, Q, h·w)
    logits = logits[:, :, None].masked_fill(outside, torch.finfo(logits.dtype).min)
    weights = logits.softmax(dim=-1)  # (B, heads, Q, h·w)
    return pool.c_proj(torch.einsum("bmqn,bnmc->bqmc", weights, value).flatten(2))


def resize_positions(positions: Float[Tensor, "G C"], size: Sequence[int]) -> Float[Tensor, "N C"]:
    """Resize the position embeddings of a square grid bilinearly to another grid; the first, that of the whole picture,
    stays."""
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].T.unflatten(1, (side, side))[None]  # (1, C, side, side)
    resized = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])


class VitBeginning(nn.Module):
    """The first blocks of a CLIP vision transformer: they know where things are, not yet what they mean."""

    def __init__(self, config: VitConfig):
        super().__init__()
        self.config = config
        self.channels = config.width
        self.conv1 = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(config.width) / config.width**0.5)
        self.positional_embedding = nn.Parameter(torch.randn(config.grid**2 + 1, config.width) / config.width**0.5)
        self.ln_pre = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(config.width, config.heads, act_layer=QuickGELU) for _ in range(config.blocks)
        )

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        tokens, grid = vit_tokens(self, pixels)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def beginning_of(vit: Mapping[str, Tensor], config: VitConfig) -> dict[str, Tensor]:
    """Take, of the weights of a whole vision transformer, those of its beginning, as `VitBeginning` names them."""
    with torch.device("meta"):
        wanted = VitBeginning(config).state_dict().keys()
    renamed = {name.replace("transformer.resblocks.", "blocks."): tensor for name, tensor in vit.items()}
    return {name: renamed[name] for name in wanted}


def vit_tokens(
    vit: VitBeginning | VisionTransformer, pixels: Float[Tensor, "B 3 H W"]
) -> tuple[Float[Tensor, "B N C"], torch.Size]:
    """Cut a picture into patches, and give each its place; return the tokens, that of the whole picture first, and the
    patches' grid."""
    patches = vit.conv1(pixels)  # (B, C, h, w)
    tokens = torch.cat([vit.class_embedding.expand(len(pixels), 1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    grid = patches.shape[-2:]
    return vit.ln_pre(tokens + resize_positions(vit.positional_embedding, grid)), grid  # (B, 1 + h·w, C)


def tokenize(prompts: list[str]) -> list[list[int]]:
    """Turn prompts into token lists, start and end included.

    Raises:
        ValueError: A prompt has more than CLIP's 77 tokens.
    """
    tokenizer = _tokenizer()
    tokens = [[tokenizer.sot_token_id, *tokenizer.encode(prompt), tokenizer.eot_token_id] for prompt in prompts]
    for prompt, ids in zip(prompts, tokens, strict=True):
        if len(ids) > CONTEXT_LENGTH:
            raise ValueError(
                f"The prompt {prompt[:60] + '…' if len(prompt) > 60 else prompt!r} has {len(ids)} tokens; "
                f"CLIP reads {CONTEXT_LENGTH}. Use a shorter word or phrase."
            )
    return tokens


def token_tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's tokens with their numbers, and the pairs that the tokeniser joins, first ones first."""
    tokenizer = _tokenizer()
    return dict(tokenizer.encoder), [(first, second) for first, second in tokenizer.bpe_ranks]


def encode_picture(clip: Clip, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Bring a whole picture of any size to the space shared with words, by a ConvNeXt: the mean over the picture,
    through CLIP's head."""
    x32 = stage_maps(clip, pixels)[-1]
    return pool_regions(clip, x32, torch.ones_like(x32[:, :1]))[:, 0]


def encode_by_vit(vit: VisionTransformer, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Bring a whole picture of any size to the space shared with words, by a vision transformer."""
    tokens, _ = vit_tokens(vit, pixels)
    return vit.ln_post(vit.transformer(tokens)[:, 0]) @ vit.proj


def contrastive_loss(
    pictures: Float[Tensor, "B D"], captions: Float[Tensor, "B D"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """CLIP's loss of unit vectors, compared across all processes, in full precision: half of it can't tell large logits
    apart."""
    rank, count = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    with torch.autocast(pictures.device.type, enabled=False):
        return ClipLoss(gather_with_grad=True, rank=rank, world_size=count)(pictures, captions, scale)


def encode_tokens(clip: Clip, tokens: Int[Tensor, "S L"]) -> Float[Tensor, "S D"]:
    """Encode prompts of L ≤ 77 tokens, zero-padded after their end token.

    Attention is causal and the end token is the last that counts, so cutting a batch to its longest prompt changes
    nothing.
    """
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]  # (S, L, W)
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    end = x[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]  # the end token has the highest id
    return end @ clip.text_projection  # (S, D)


def is_finetuned(name: str) -> bool:
    """Tell whether ERR-Seg's "weight" strategy trains this CLIP parameter (reference err_seg_model.py:69)."""
    if name.startswith("visual."):
        return "gamma" in name or (("mlp" in name or "conv_dw" in name) and "weight" in name)
    return name.startswith("transformer.") and ("in_proj_weight" in name or "c_fc.weight" in name)


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()
