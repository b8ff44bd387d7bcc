"""The only door to open_clip and timm: towers, feature maps, prompts, which weights train."""

from dataclasses import dataclass
from functools import cache

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

Clip = open_clip.CLIP  # both towers, as open_clip builds them
CONTEXT_LENGTH = 77  # tokens, start and end included: how CLIP was trained


@dataclass(frozen=True)
class ClipConfig:
    """A CLIP with a ConvNeXt image tower.

    Args:
        trunk: timm's name of the image tower.
        channels: Of its four stages, at strides 4, 8, 16, 32.
        projection: From the trunk to the shared space: `linear` or `mlp`.
        width: D, of the space that pictures and words share.
        text_width: Of the text transformer; its heads are 64 wide.
        text_layers: Of the text transformer.
    """

    trunk: str
    channels: tuple[int, int, int, int]
    projection: str
    width: int
    text_width: int
    text_layers: int


def build(config: ClipConfig) -> Clip:
    """Build both towers with random weights, in evaluation mode."""
    vision = CLIPVisionCfg(timm_model_name=config.trunk, timm_pool="", timm_proj=config.projection, image_size=320)
    text = CLIPTextCfg(CONTEXT_LENGTH, width=config.text_width, heads=config.text_width // 64, layers=config.text_layers)
    return Clip(config.width, vision, text).eval()


def restore_buffers(clip: Clip) -> None:
    """Compute what checkpoints don't hold: after building on the meta device, the causal mask has no values yet."""
    clip.register_buffer("attn_mask", causal_mask(CONTEXT_LENGTH, clip.positional_embedding), persistent=False)


def causal_mask(length: int, like: Tensor) -> Float[Tensor, "L L"]:
    """-inf above the diagonal: a token sees those before it."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def stage_maps(clip: Clip, pixels: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
    """Run the ConvNeXt trunk: its four stages, at strides 4, 8, 16 and 32."""
    trunk = clip.visual.trunk
    x, maps = trunk.stem(pixels), []
    for stage in trunk.stages:
        x = stage(x)
        maps.append(x)
    return maps


def last_stage_blocks(clip: Clip, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Run the blocks of the last stage alone, without its downsampling."""
    return clip.visual.trunk.stages[-1].blocks(x)


def last_downsampling(clip: Clip) -> tuple[nn.Module, nn.Module]:
    """The norm and the 2×2 convolution of stride 2 between the third stage and the last."""
    norm, conv = clip.visual.trunk.stages[-1].downsample
    return norm, conv


def project_pixels(clip: Clip, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
    """Bring every pixel of a last-stage map to the space shared with words, through CLIP's own norm and projection."""
    x = clip.visual.trunk.head.norm(clip.visual.trunk.norm_pre(x))
    return clip.visual.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, D, h, w)


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
                f"The prompt {prompt[:60] + '…' if len(prompt) > 60 else prompt!r} has {len(ids)} tokens; CLIP reads {CONTEXT_LENGTH}. "
                "Use a shorter word or phrase."
            )
    return tokens


def encode_tokens(clip: Clip, tokens: Int[Tensor, "S L"]) -> Float[Tensor, "S D"]:
    """Encode prompts of L ≤ 77 tokens, zero-padded after their end token.

    Attention is causal and the end token is the last that counts, so cutting a batch to its longest prompt changes nothing.
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
