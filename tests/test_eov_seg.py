"""The parts of EOV-Seg against slow, obvious implementations, and parts handed in."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from conftest import noise_for, relative_error
from wordmask import clip
from wordmask.models import kind_of
from wordmask.models.deformable_conv import deformable_by_grid, deformable_conv2d
from wordmask.models.eov_seg import (
    PRESETS,
    DynamicDepthwiseAttention,
    EovSeg,
    Parts,
    VocabularyAwareSelection,
    class_logits,
    geometric_ensemble,
    largest_probability,
)
from wordmask.text import Words
from wordmask.training.optimiser import parameter_groups

CONFIG = PRESETS["eov-seg-untrained"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shake(module: nn.Module) -> nn.Module:
    """Give a part weights that matter."""
    module.load_state_dict({name: noise_for(name, tensor) for name, tensor in module.state_dict().items()})
    return module.eval()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    reach=st.sampled_from([0.0, 0.7, 4.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_both_forms_of_deformable_convolution_are_equal(height, width, reach, seed):
    """Also where taps fall outside, and along axes of one pixel."""
    x, weight = noise(2, 5, height, width, seed=seed), noise(4, 5, 3, 3, seed=seed + 1)
    offsets, strengths = (
        reach * noise(2, 18, height, width, seed=seed + 2),
        noise(2, 9, height, width, seed=seed + 3).sigmoid(),
    )
    ours, theirs = (
        deformable_by_grid(x, offsets, strengths, weight),
        deform_conv2d(x, offsets, weight, padding=1, mask=strengths),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_deformable_convolution_without_offsets_is_a_convolution():
    x, weight = noise(1, 3, 6, 7), noise(2, 3, 3, 3, seed=1)
    plain = deformable_conv2d(x, torch.zeros(1, 18, 6, 7), torch.ones(1, 9, 6, 7), weight)
    torch.testing.assert_close(plain, F.conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(pixels=st.integers(1, 50), words=st.integers(2, 300), warmth=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_largest_probability_never_needs_the_map(pixels, words, warmth):
    x, text = warmth * noise(2, 8, pixels), noise(words, 8, seed=1)
    naive = (text.double() @ x.double()).softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(largest_probability(x, [text[:1], text[1:]]).double(), naive, rtol=1e-4, atol=1e-6)


def test_selection_in_parts_is_selection_at_once(monkeypatch):
    part, x, text = shake(VocabularyAwareSelection(CONFIG)), noise(2, 32, 9, 11), F.normalize(noise(70, 64), dim=-1)
    whole = part(x, text)
    monkeypatch.setattr("wordmask.models.eov_seg.SIMILARITIES_AT_ONCE", 500)
    monkeypatch.setattr("wordmask.models.eov_seg.PIXELS_AT_ONCE", 50)
    with torch.no_grad():
        torch.testing.assert_close(part(x, text), whole, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part(x, text[:3], text[3:]), whole, rtol=1e-5, atol=1e-5)
    assert (part.clarity(x, text) <= 1).all()
    assert torch.equal(part.clarity(x, text[:1]), torch.ones(2, 9, 11)), "a single word is always certain"


def test_every_query_filters_its_own_channels():
    part, kernels, values = shake(DynamicDepthwiseAttention(32)), noise(2, 7, 32), noise(2, 7, 32, seed=1)
    filters = part.taps(kernels)
    rows = [
        F.conv1d(values[b, q][None, None], filters[b, q][None, None], padding=1)[0, 0]
        for b in range(2)
        for q in range(7)
    ]
    naive = part.norm(torch.stack(rows).view(2, 7, 32))
    torch.testing.assert_close(part(kernels, values), naive, rtol=1e-5, atol=1e-5)


def test_a_class_takes_its_best_phrase():
    vectors, text = noise(1, 3, 8), F.normalize(noise(6, 8, seed=1), dim=-1)
    words = Words(text[:5], torch.tensor([0, 0, 1, 2, 2]), torch.zeros(3, dtype=torch.bool))
    logits = class_logits(vectors, words, text[5:], torch.tensor(2.0))
    cosine = F.cosine_similarity(vectors[0][:, None], text[None], dim=-1) * torch.tensor(2.0).exp()
    naive = torch.stack([cosine[:, :2].amax(1), cosine[:, 2], cosine[:, 3:5].amax(1), cosine[:, 5]], dim=1)
    torch.testing.assert_close(logits[0], naive)
    hot = class_logits(vectors, words, text[5:], torch.tensor(50.0))
    assert hot.abs().max() <= 100, "the temperature is limited"


def test_the_ensemble_is_a_geometric_mean():
    own, clips, seen = 3 * noise(2, 4, 6), 3 * noise(2, 4, 6, seed=1), torch.tensor([True, False, True, False, False])
    has_region = torch.tensor([[True, True, True, True], [True, False, True, True]])
    probs, clip_probs = own[..., :-1].softmax(-1), clips[..., :-1].softmax(-1)
    weight = torch.where(seen, 0.4, 0.8) * has_region[..., None]
    blended = (probs ** (1 - weight) * clip_probs**weight).log().softmax(-1)
    void = own.softmax(-1)[..., -1:]
    naive = (torch.cat([blended * (1 - void), void], dim=-1) + 1e-8).log()
    torch.testing.assert_close(geometric_ensemble(own, clips, seen, has_region), naive)
    assert geometric_ensemble(own, clips, seen, has_region).exp().sum(-1).allclose(torch.ones(2, 4), atol=1e-6)


def test_the_ensemble_survives_certainty():
    """Where the reference's powers underflow to 0 · ∞, ours stay finite."""
    own, clips = torch.tensor([[[100.0, -100.0, -90.0]]]), torch.tensor([[[-100.0, 100.0, 0.0]]])
    seen = torch.tensor([True, False])
    assert geometric_ensemble(own, clips, seen, torch.ones(1, 1, dtype=torch.bool)).isfinite().all()


# Towers ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    """A CLIP with a small ResNet tower."""
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64)
    tower = clip.Clip(32, vision, clip.CLIPTextCfg(77, width=64, heads=1, layers=1), quick_gelu=True)
    return shake(tower)


def test_the_stages_of_a_resnet_are_those_that_clip_pools(resnet):
    pixels = noise(2, 3, 64, 64)
    maps = clip.stage_maps(resnet, pixels)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    whole = clip.pool_regions(resnet, maps[-1], torch.ones(2, 1, 2, 2))
    pooled = resnet.visual.attnpool
    x = maps[-1].flatten(2).permute(2, 0, 1)
    query = (x.mean(0, keepdim=True) + pooled.positional_embedding[0])[0]
    assert whole.shape == (2, 1, 32)
    naive = attend_slowly(pooled, query, (x + pooled.positional_embedding[1:, None]).transpose(0, 1))
    torch.testing.assert_close(whole[:, 0], naive, rtol=1e-4, atol=1e-5)


def attend_slowly(pool, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Multi-head attention of one query per picture, head by head."""
    heads, width = pool.num_heads, query.shape[-1] // pool.num_heads
    q, k, v = pool.q_proj(query), pool.k_proj(keys), pool.v_proj(keys)
    found = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        weights = (k[..., own] @ q[..., own, None])[..., 0].div(width**0.5).softmax(-1)
        found.append((weights[..., None] * v[..., own]).sum(1))
    return pool.c_proj(torch.cat(found, dim=-1))


def test_regions_attend_to_themselves_alone(resnet):
    """What lies outside a mask is not looked at, but for the query, which is the mean of the picture."""
    x = noise(1, 512, 3, 4)
    masks = (noise(1, 5, 3, 4, seed=1) > 0).float()
    masks[0, 4] = 0
    regions = clip.pool_regions(resnet, x, masks)
    assert regions.isfinite().all(), "an empty mask too"
    pool = resnet.visual.attnpool
    positions = clip.resize_positions(pool.positional_embedding, (3, 4))
    pixels = x[0].flatten(1).T
    query = pixels.mean(0) + positions[0]
    for number in range(4):
        inside = masks[0, number].flatten() > 0
        naive = attend_slowly(pool, query[None], (pixels + positions[1:])[inside][None])
        torch.testing.assert_close(regions[0, number], naive[0], rtol=1e-4, atol=1e-5)


def test_a_convnext_averages_regions(tiny_eov):
    x, masks = noise(2, 320, 4, 5), (noise(2, 3, 4, 5, seed=1) > 0).float()
    dense = clip.pool_regions(tiny_eov.clip, x, masks)
    for b in range(2):
        for q in range(3):
            mean = x[b][:, masks[b, q] > 0].mean(dim=1)
            one = clip.project_pixels(tiny_eov.clip, mean[None, :, None, None])[0, :, 0, 0]
            torch.testing.assert_close(dense[b, q], one, rtol=1e-4, atol=1e-5)


def test_the_beginning_of_a_vit_is_that_of_open_clip(tiny_eov):
    """At the size that it was trained at, where positions need no resizing."""
    beginning = tiny_eov.spatial
    config = CONFIG.spatial
    whole = VisionTransformer(
        image_size=config.grid * config.patch,
        patch_size=config.patch,
        width=config.width,
        layers=1,
        heads=config.heads,
        mlp_ratio=4.0,
        act_layer=clip.QuickGELU,
    )
    state = {
        name.replace("blocks.", "transformer.resblocks."): tensor for name, tensor in beginning.state_dict().items()
    }
    assert not whole.load_state_dict(state, strict=False).unexpected_keys
    pixels = noise(1, 3, 224, 224)
    tokens = whole.eval().forward_intermediates(pixels, normalize_intermediates=False)["image_intermediates"][0]
    torch.testing.assert_close(beginning(pixels), tokens, rtol=1e-4, atol=1e-4)


def test_positions_keep_their_own_grid():
    positions = noise(1 + 49, 6)
    torch.testing.assert_close(clip.resize_positions(positions, (7, 7)), positions)
    assert clip.resize_positions(positions, (3, 11)).shape == (34, 6)


def test_frozen_towers_stay_frozen_in_training(tiny_eov):
    kind = kind_of("eov-seg-untrained")
    model = kind.random(kind.presets["eov-seg-untrained"]).train()
    assert model.aggregator.training
    assert not any(module.training for tower in (model.clip, model.spatial) for module in tower.modules())


# Parts ----------------------------------------------------------------------------------------------------------------


class FirstOnly(nn.Module):
    def __init__(self, config):
        super().__init__()

    def forward(self, first, *others):
        return first


class CrossAttention(nn.Module):
    """The interaction that the paper compares with."""

    def __init__(self, config):
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)

    def forward(self, kernels, features, mask_logits):
        pixels = features.flatten(2).transpose(1, 2)
        return kernels + self.attention(kernels, pixels, pixels, need_weights=False)[0]


class Sum(nn.Module):
    """An early fusion: the spatial map joins the aggregated one."""

    def __init__(self, config):
        super().__init__()
        self.project = nn.Conv2d(config.spatial.width, config.width, kernel_size=1)

    def forward(self, x, spatial):
        return x + F.interpolate(self.project(spatial), size=x.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    "parts",
    [
        Parts(),
        Parts(spatial=None),
        Parts(selection=None),
        Parts(fusion=None),
        Parts(fusion=FirstOnly),
        Parts(interaction=CrossAttention),
        Parts(fusion=None, join=Sum),
        Parts(spatial=lambda config: clip.VitBeginning(dataclasses.replace(config.spatial, blocks=3))),
        Parts(ensemble=lambda own, clips, seen, has_region: own.log_softmax(dim=-1)),
    ],
)
def test_parts_can_be_handed_in(parts):
    model = EovSeg(CONFIG, parts).eval()
    words = Words(F.normalize(noise(5, 64), dim=-1), torch.arange(5), torch.zeros(5, dtype=torch.bool))
    with torch.inference_mode():
        raw = model(noise(1, 3, 64, 96), words)
    assert raw.class_logits.shape == (1, 40, 6)
    assert raw.mask_logits.shape == (1, 40, 16, 24)
    assert all(tensor.isfinite().all() for tensor in raw)
    assert (model.spatial is not None) == (parts.spatial is not None and (parts.fusion or parts.join) is not None)
    assert (model.spatial_upscale is not None) == (parts.spatial is not None and parts.fusion is not None)


@pytest.mark.slow
def test_small_and_medium_run():
    """The reference asks an int for its device and crashes; at full size, on a small picture, both ResNets give finite
    numbers."""
    for preset in ("eov-seg-small", "eov-seg-medium"):
        kind = kind_of(preset)
        model = kind.skeleton(kind.presets[preset]).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for name, tensor in model.state_dict().items():
            tensor.copy_(1.0 if name.endswith("running_var") else torch.randn(tensor.shape, generator=generator) * 0.02)
        words = Words(
            F.normalize(noise(3, model.config.clip.width), dim=-1), torch.arange(3), torch.ones(3, dtype=torch.bool)
        )
        with torch.inference_mode():
            raw = model.eval()(noise(1, 3, 64, 96), words)
        assert all(tensor.isfinite().all() for tensor in raw)


def test_word_logits_agree_in_any_number_of_phrases(tiny_eov):
    """A phrase given twice changes nothing in the classes: the maximum is the same."""
    text = F.normalize(noise(4, 64), dim=-1)
    seen = torch.zeros(3, dtype=torch.bool)
    once = class_logits(noise(1, 2, 64), Words(text[:3], torch.tensor([0, 1, 2]), seen), text[3:], torch.tensor(1.0))
    doubled = text[[0, 0, 1, 2]]
    twice = class_logits(noise(1, 2, 64), Words(doubled, torch.tensor([0, 0, 1, 2]), seen), text[3:], torch.tensor(1.0))
    assert relative_error(twice, once) < 1e-6


def test_double_precision_runs():
    model = EovSeg(CONFIG).double().eval()
    words = Words(F.normalize(noise(3, 64), dim=-1).double(), torch.arange(3), torch.ones(3, dtype=torch.bool))
    with torch.inference_mode():
        raw = model(noise(1, 3, 64, 64).double(), words)
    assert raw.class_logits.dtype == raw.mask_logits.dtype == torch.float64


def test_weight_decay_spares_norms_and_embeddings():
    model = EovSeg(CONFIG)
    groups = parameter_groups(model, rate=1e-4, clip_factor=1.0, weight_decay=0.05)
    spared = {name for group in groups if group.weight_decay == 0 for name in group.parameters}
    assert {"kernels.weight", "void.weight", "aggregator.ups.0.norm1.weight", "layers.0.attention_norm.bias"} <= spared
    assert {"aggregator.smooth.weight", "aggregator.bias", "selection.scale"}.isdisjoint(spared)
    assert all(model.is_trained(name) for group in groups for name in group.parameters)
    assert (model.aggregator.ups[0].offsets.bias == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_exact_in_half_precision(dtype):
    """bfloat16 can't tell column 301 from 302: only what is sampled may be rounded."""
    x, weight = noise(1, 4, 3, 320), noise(2, 4, 3, 3, seed=1) / 6
    offsets, strengths = 2 * noise(1, 18, 3, 320, seed=2), noise(1, 9, 3, 320, seed=3).sigmoid()
    rounded = [tensor.to(dtype) for tensor in (x, offsets, strengths)]
    with torch.autocast("cpu", dtype):
        half = deformable_by_grid(*rounded, weight)
    assert relative_error(half.float(), deformable_by_grid(*(tensor.float() for tensor in rounded), weight)) < 0.01


def test_folding_changes_nothing_in_a_resnet():
    """As released, but narrow: statistics and scales that matter."""
    tower = clip.build(
        dataclasses.replace(
            PRESETS["eov-seg-small"].clip, channels=(64, 128, 256, 512), width=32, text_width=64, text_layers=1
        )
    )
    generator = torch.Generator().manual_seed(0)
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    pixels = torch.randn(1, 3, 64, 96, generator=generator)
    with torch.no_grad():
        before = clip.stage_maps(tower, pixels)
        clip.fold_batch_norms(tower)
        after = clip.stage_maps(tower, pixels)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules())
    for ours, theirs in zip(after, before, strict=True):
        assert relative_error(ours, theirs) < 1e-5
