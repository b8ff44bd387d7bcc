"""What the reference implementations call their weights, and which of them are dropped on purpose."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A reference implementation's checkpoints.

    Args:
        names: Patterns of our names and what the reference says instead; every rule is tried, in this order, and the
            rest of a name stays.
        dropped: What reference keys begin with, and why they are not needed.
    """

    names: Sequence[tuple[str, str]]
    dropped: dict[str, str]

    def name(self, ours: str) -> str:
        """Translate one of our parameter names: `head.weight` → `sem_seg_head.decoder.head.weight`."""
        for pattern, reference in self.names:
            ours = re.sub(pattern, reference, ours)
        return ours

    def dropped_names(self, keys: Iterable[str]) -> list[str]:
        """List the keys of a reference state dict that are dropped on purpose."""
        return [key for key in keys if key.startswith(tuple(self.dropped))]

    def drop_reasons(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Group dropped keys by the reason for it."""
        groups: dict[str, list[str]] = {}
        for key in keys:
            reason = next(reason for start, reason in self.dropped.items() if key.startswith(start))
            groups.setdefault(reason, []).append(key)
        return groups


ERR_SEG_NAMES = [
    (r"^middle_downsample\.norm\.", "sem_seg_head.clip_model.visual.modify_downsample.0."),
    (r"^middle_downsample\.conv\.", "sem_seg_head.clip_model.visual.modify_downsample.2."),
    (r"^clip\.", "sem_seg_head.clip_model."),
    (r"^cost_embedding\.x16\.", "sem_seg_head.decoder.corr_proj_convs.0.0."),
    (r"^cost_embedding\.x32\.", "sem_seg_head.decoder.corr_proj_convs.1.0."),
    (r"^cost_embedding\.fuse\.", "sem_seg_head.decoder.low_corr_fusion."),
    (r"^image_guidance\.x32\.", "sem_seg_head.decoder.img_guidance_projection_agg.0.0."),
    (r"^image_guidance\.x16\.", "sem_seg_head.decoder.img_guidance_projection_agg.1.0."),
    (r"^image_guidance\.fuse\.", "sem_seg_head.decoder.low_img_fusion."),
    (r"^text_guidance\.", "sem_seg_head.decoder.text_guidance_projection.0."),
    (r"^(spatial|class)_blocks\.(\d+)\.", r"sem_seg_head.decoder.aggregator_layers.\2.\1_fusion.sa."),
    (r"\.sa\.depthwise\.", ".sa.mlp.dwconv.dwconv."),
    (r"\.sa\.attention\.query\.", ".sa.attention.q."),
    (r"\.sa\.attention\.key\.", ".sa.attention.k."),
    (r"\.sa\.attention\.value\.", ".sa.attention.v."),
    (r"\.sa\.attention\.out\.", ".sa.attention.proj."),
    (r"\.sa\.attention\.reduce_key\.", ".sa.attention.sr_k."),
    (r"\.sa\.attention\.reduce_value\.", ".sa.attention.sr_v."),
    (r"\.sa\.attention\.norm_key\.", ".sa.attention.norm_k."),
    (r"\.sa\.attention\.norm_value\.", ".sa.attention.norm_v."),
    (r"^decoder\.(\d)\.guide\.", r"sem_seg_head.decoder.img_guidance_projection_dec.\1.0."),
    (r"^decoder\.0\.", "sem_seg_head.decoder.up_decoder1."),
    (r"^decoder\.1\.", "sem_seg_head.decoder.up_decoder2."),
    (r"^decoder\.2\.", "sem_seg_head.decoder.up_decoder3."),
    (r"(up_decoder\d)\.up\.", r"\1.up_conv."),
    (r"(up_decoder\d)\.conv1\.", r"\1.textual_fusion.0."),
    (r"(up_decoder\d)\.norm1\.", r"\1.textual_fusion.1."),
    (r"(up_decoder\d)\.conv2\.", r"\1.textual_fusion.3."),
    (r"(up_decoder\d)\.norm2\.", r"\1.textual_fusion.4."),
    (r"^head\.", "sem_seg_head.decoder.head."),
]
EOV_SEG_NAMES = [  # the same for nhw649/EOV-Seg @ 6f5e93e
    (r"^clip\.", "cnn_backbone.clip_model."),
    (r"^spatial\.blocks\.", "vit_backbone.clip_model.visual.transformer.resblocks."),
    (r"^spatial\.", "vit_backbone.clip_model.visual."),
    *((rf"^aggregator\.laterals\.{i}\.", f"lite_aggr.deconv.lateral_conv{3 - i}.") for i in range(4)),
    *((rf"^aggregator\.ups\.{i}\.", f"lite_aggr.deconv.deform_conv{3 - i}.") for i in range(3)),
    *((rf"^aggregator\.reduce\.{i}\.", f"lite_aggr.deconv.conv_a{i + 2}.") for i in range(4)),
    (r"(deform_conv\d)\.offsets\.", r"\1.dcn_offset."),
    (r"(deform_conv\d)\.deformable\.", r"\1.dcn."),
    (r"(deform_conv\d)\.norm1\.", r"\1.dcn_bn."),
    (r"(deform_conv\d)\.up\.", r"\1.up_sample."),
    (r"(deform_conv\d)\.norm2\.", r"\1.up_bn."),
    (r"^aggregator\.bias$", "lite_aggr.deconv.bias"),
    (r"^aggregator\.smooth\.", "lite_aggr.deconv.output_conv."),
    (r"^aggregator\.locate\.", "lite_aggr.loc_conv."),
    (r"^selection\.depthwise\.", "light_weight_decoder.vas.embed_conv.depthwise."),
    (r"^selection\.pointwise\.", "light_weight_decoder.vas.embed_conv.pointwise."),
    (r"^selection\.norm1\.", "light_weight_decoder.vas.embed_conv.depthwise.norm."),
    (r"^selection\.norm2\.", "light_weight_decoder.vas.embed_conv.pointwise.norm."),
    (r"^selection\.guide\.", "light_weight_decoder.vas.guide_fc."),
    (r"^selection\.", "light_weight_decoder.vas."),
    (r"^kernels\.", "light_weight_decoder.object_kernels."),
    (r"^spatial_upscale\.up1\.", "light_weight_decoder.output_upscaling.0."),
    (r"^spatial_upscale\.norm\.", "light_weight_decoder.output_upscaling.1."),
    (r"^spatial_upscale\.up2\.", "light_weight_decoder.output_upscaling.3."),
    (r"^void\.", "void_embedding."),
    (r"^layers\.", "light_weight_decoder.mask_heads."),
    (r"\.interaction\.feature_attention\.taps\.", ".f_atten.weight_linear."),
    (r"\.interaction\.feature_attention\.", ".f_atten."),
    (r"\.interaction\.feature_norm\.", ".f_atten_norm."),
    (r"\.interaction\.kernel_attention\.taps\.", ".k_atten.weight_linear."),
    (r"\.interaction\.kernel_attention\.", ".k_atten."),
    (r"\.interaction\.kernel_norm\.", ".k_atten_norm."),
    (r"(mask_heads\.\d)\.attention\.", r"\1.s_atten."),
    (r"(mask_heads\.\d)\.attention_norm\.", r"\1.s_atten_norm."),
    (r"\.feed_forward\.0\.", ".ffn.layers.0.0."),
    (r"\.feed_forward\.2\.", ".ffn.layers.1."),
    (r"\.feed_forward_norm\.", ".ffn_norm."),
    (r"\.mask_kernel\.3\.", ".fc_mask."),
    (r"\.mask_kernel\.", ".mask_fcs."),
    (r"(mask_heads\.\d)\.semantic\.", r"\1._mask_pooling_proj."),
    (r"(mask_heads\.\d)\.spatial\.", r"\1._spatial_mask_pooling_proj."),
    (r"\.fusion\.semantic\.", ".tdee.dynamic_layer."),
    (r"\.fusion\.spatial\.", ".tdee.input_layer."),
    (r"\.fusion\.semantic_gate\.", ".tdee.update_router."),
    (r"\.fusion\.spatial_gate\.", ".tdee.input_router."),
    (r"\.fusion\.semantic_gate_norm\.", ".tdee.norm_in."),
    (r"\.fusion\.spatial_gate_norm\.", ".tdee.input_norm_in."),
    (r"\.fusion\.semantic_norm\.", ".tdee.norm_out."),
    (r"\.fusion\.spatial_norm\.", ".tdee.input_norm_out."),
    (r"\.fusion\.out\.", ".tdee.fc_layer."),
    (r"\.fusion\.out_norm\.", ".tdee.fc_norm."),
    (r"\.class_vector\.0\.", ".class_embed.layers.0."),
    (r"\.class_vector\.2\.", ".class_embed.layers.1."),
    (r"\.class_vector\.4\.", ".class_embed.layers.2."),
]
# of wrappers: torch.optim.swa_utils.AveragedModel
WRAPPER_DROPPED = {"n_averaged": "how often weights were averaged, no weight"}
ERR_SEG_DROPPED = {  # what reference keys begin with → why they are not needed
    **WRAPPER_DROPPED,
    "clip_pixel_mean": "a constant, see ErrSeg.image_input",
    "clip_pixel_std": "a constant, see ErrSeg.image_input",
    "sem_seg_head.clip_model.attn_mask": "computed, see clip.causal_mask",
}
EOV_SEG_DROPPED = {
    **WRAPPER_DROPPED,
    "pixel_mean": "a constant, see EovSeg.image_input",
    "pixel_std": "a constant, see EovSeg.image_input",
    "cnn_backbone.clip_model.attn_mask": "computed, see clip.causal_mask",
    "light_weight_decoder.criterion.": "weights of the loss, see training.set_loss",
    **{
        f"vit_backbone.clip_model.visual.transformer.resblocks.{block}.": "only the first block runs"
        for block in range(1, 12)
    },
    "vit_backbone.clip_model.visual.ln_post.": "comes after the last block",
    "vit_backbone.clip_model.visual.proj": "comes after the last block",
    **{
        f"vit_backbone.clip_model.{name}": "the text tower of the ViT's CLIP, never run"
        for name in (
            "transformer.",
            "token_embedding.",
            "positional_embedding",
            "ln_final.",
            "text_projection",
            "attn_mask",
            "logit_scale",
        )
    },
}
ERR_SEG = Reference(ERR_SEG_NAMES, ERR_SEG_DROPPED)
EOV_SEG = Reference(EOV_SEG_NAMES, EOV_SEG_DROPPED)
