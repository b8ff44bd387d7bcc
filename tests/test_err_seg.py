"""The exact algebra of ERR-Seg against slow, obvious versions."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conftest import noise_for
from wordmask.models import err_seg
from wordmask.models.err_seg import (
    PRESETS,
    CostEmbedding,
    ErrSeg,
    Features,
    GuidedConv2d,
    GuidedLinear,
    choose_classes,
    count_votes,
    loss,
)
from wordmask.raw import ClassMaps
from wordmask.settings import kept_of
from wordmask.text import Words


def unit(*shape: int, seed: int = 0, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def test_guided_linear_equals_a_linear_on_the_concatenation():
    layer = GuidedLinear(8, 6, 5)
    x, guidance = torch.randn(2, 3, 4, 4, 8), torch.randn(2, 1, 4, 4, 6)
    expected = F.linear(torch.cat([x, guidance.expand(2, 3, 4, 4, 6)], dim=-1), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, layer.share(guidance)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "padding": 1, "bias": False}])
def test_guided_convolution_equals_a_convolution_on_the_concatenation(settings):
    layer = GuidedConv2d(8, 6, 5, **settings)
    x, guidance = torch.randn(2 * 3, 8, 6, 6), torch.randn(2, 6, 6, 6)
    expected = F.conv2d(
        torch.cat([x, guidance.repeat_interleave(3, dim=0)], dim=1),
        layer.weight,
        layer.bias,
        layer.stride,
        padding=layer.padding,
    )
    torch.testing.assert_close(layer(x, layer.share(guidance)), expected, rtol=1e-5, atol=1e-5)


def test_guidance_is_projected_once_for_all_parts(monkeypatch):
    """Classes or pixels one at a time take as many operations as all at once, also of two pictures."""
    model = ErrSeg(PRESETS["err-seg-tiny"]).eval().requires_grad_(False)
    words = Words(unit(7, model.config.clip.width, dim=1), torch.arange(7), torch.ones(7, dtype=torch.bool))
    pixels, operations = torch.randn(2, 3, 64, 64), []
    for entries in (1, 10**6):
        monkeypatch.setattr(err_seg, "ENTRIES_AT_ONCE", entries)
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(pixels, words)
        operations.append(counter.get_total_flops())
    assert operations[0] == operations[1] > 0


def test_a_fused_embedding_equals_embedding_and_then_fusing():
    layer = CostEmbedding(PRESETS["err-seg-tiny"])
    cost_x16, cost_x32 = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)
    fine, coarse = layer.x16(cost_x16.flatten(0, 1)[:, None]), layer.x32(cost_x32.flatten(0, 1)[:, None])
    coarse = F.interpolate(coarse, size=(8, 12), mode="bilinear", align_corners=False)
    expected = layer.fuse((fine + coarse) / 2).unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(layer(cost_x16, cost_x32), expected, rtol=1e-5, atol=1e-6)


def votes_slowly(pixels: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    votes = torch.zeros(len(pixels), len(words))
    for b, picture in enumerate(pixels):
        for y in range(picture.shape[1]):
            for x in range(picture.shape[2]):
                ranking = sorted(range(len(words)), key=lambda t: -float(picture[:, y, x] @ words[t]))
                for weight, t in zip((1, 0.1, 0.01), ranking, strict=False):
                    votes[b, t] += weight
    return votes


@given(classes=st.integers(1, 12), at_once=st.integers(1, 13), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_votes_equal_a_loop_over_pixels(classes, at_once, seed):
    pixels, words = unit(2, 8, 4, 3, seed=seed, dim=1), unit(classes, 8, seed=seed + 1, dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(err_seg, "CLASSES_AT_ONCE", at_once)
        votes, peaks = count_votes(pixels, words)
    torch.testing.assert_close(votes, votes_slowly(pixels, words))
    torch.testing.assert_close(peaks, torch.einsum("bdhw,td->bthw", pixels, words).amax(dim=(2, 3)))


def test_choice_is_by_votes_then_by_peak():
    votes = torch.tensor([[0.0, 5.0, 0.0, 2.0, 0.0]])
    peaks = torch.tensor([[0.3, 0.1, 0.9, 0.2, 0.4]])
    assert choose_classes(votes, peaks, keep=3).tolist() == [[1, 2, 3]]
    assert choose_classes(votes, peaks, keep=4).tolist() == [[1, 2, 3, 4]]
    assert choose_classes(votes, peaks, keep=99).tolist() == [[0, 1, 2, 3, 4]]


@given(seed=st.integers(0, 999), keep=st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_classes_in_the_target_come_first_when_training(seed, keep):
    """The reference's rule, step by step: target's classes, then the chosen ones in ascending index, cut to K."""
    generator = torch.Generator().manual_seed(seed)
    votes = torch.randperm(10, generator=generator)[None].float()
    present = torch.rand(1, 10, generator=generator) < 0.3
    chosen = sorted(votes[0].topk(min(keep, 10)).indices.tolist())
    in_target = present[0].nonzero().flatten().tolist()
    expected = (in_target + [label for label in chosen if label not in in_target])[:keep]
    kept = choose_classes(votes, torch.zeros(1, 10), keep=keep, present=present)[0].tolist()
    assert kept == sorted(expected)


def loss_slowly(logits: torch.Tensor, kept: torch.Tensor, classes: int, target: torch.Tensor) -> torch.Tensor:
    """The reference's way: a map of -100 for every class that was not kept, all T at full resolution."""
    full = torch.full((len(logits), classes, *logits.shape[2:]), -100.0).scatter(
        1, kept[..., None, None].expand_as(logits), logits
    )
    full = F.interpolate(full, size=target.shape[1:], mode="bilinear", align_corners=False)
    onehot = torch.stack([target == label for label in range(classes)], dim=1).float()
    return F.binary_cross_entropy_with_logits(full, onehot)


@pytest.mark.parametrize("classes", [3, 9])
def test_loss_equals_all_maps_at_full_resolution(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, 3, 5, 6, generator=generator)
    kept = torch.stack([torch.randperm(classes, generator=generator)[:3].sort().values for _ in range(2)])
    target = torch.randint(0, classes, (2, 20, 24), generator=generator)
    target[:, :4] = 255
    ours = loss(ClassMaps(logits, kept, torch.zeros(2, classes)), target)
    torch.testing.assert_close(ours, loss_slowly(logits, kept, classes, target), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_guidance_is_clamped(tiny):
    """CLIP's maps beyond ±16 guide like ±16."""
    features, extreme = stages(tiny, scale=1.0), stages(tiny, scale=1e4)
    clamped = extreme._replace(**{name: getattr(extreme, name).clamp(-16, 16) for name in ("x4", "x8", "x16", "x32")})
    text = unit(1, 3, tiny.config.clip.width, dim=2)
    run = [tiny.aggregate(maps, text) for maps in (features, extreme, clamped)]
    torch.testing.assert_close(run[1], run[2])
    assert not torch.allclose(run[0], run[1])
    run = [tiny.decode(run[0], maps) for maps in (features, extreme, clamped)]
    torch.testing.assert_close(run[1], run[2])
    assert not torch.allclose(run[0], run[1])


def stages(model, scale: float, **settings) -> Features:
    generator = torch.Generator().manual_seed(0)
    sizes = zip(model.config.clip.channels, (32, 16, 8, 4), strict=True)
    maps = [
        (scale * torch.randn(1, channels, size, size, generator=generator)).requires_grad_(**settings)
        for channels, size in sizes
    ]
    dense = [torch.randn(1, model.config.clip.width, size, size, generator=generator) for size in (8, 4)]
    return Features(*maps, *dense)


def test_the_decoder_trains_nothing_behind_its_guidance(tiny):
    """Strides 4 and 8 are detached, and stride 16 where it guides the decoder; the aggregator's guidance is not."""
    features = stages(tiny, scale=1.0, requires_grad=True)
    x = torch.randn(1, 2, 8, 8, tiny.config.width)
    tiny.decode(x, features._replace(x4=features.x4.detach(), x8=features.x8.detach())).sum().backward()
    assert features.x16.grad is None
    text = unit(1, 2, tiny.config.clip.width, dim=2)
    tiny.aggregate(features, text).sum().backward()
    assert features.x16.grad is not None
    assert features.x32.grad is not None
    tiny.zero_grad()
    seen = tiny.encode_image(torch.randn(1, 3, 64, 64))
    assert not seen.x4.requires_grad
    assert not seen.x8.requires_grad
    assert seen.x16.requires_grad
    assert seen.dense_x16.requires_grad


def test_stochastic_depth_grows_with_the_layer():
    model = ErrSeg(replace(PRESETS["err-seg-untrained"], layers=4))
    depths = [pytest.approx(depth) for depth in (0, 0.025, 0.05, 0.075)]
    assert [block.drop_path for block in model.spatial_blocks] == depths
    assert [block.drop_path for block in model.class_blocks] == depths


def test_the_middle_downsampling_starts_as_clips_own():
    model = ErrSeg(PRESETS["err-seg-untrained"])
    norm, conv = model.clip.visual.trunk.stages[3].downsample
    for own, theirs in ((model.middle_downsample.norm, norm), (model.middle_downsample.conv, conv)):
        assert torch.equal(own.weight, theirs.weight)
        assert torch.equal(own.bias, theirs.bias)


@pytest.mark.parametrize(
    ("classes", "keep"), [(1, 1), (20, 20), (150, 32), (399, 32), (459, 48), (847, 48), (20_000, 48)]
)
def test_how_many_classes_are_kept(classes, keep):
    assert kept_of(ErrSeg.keep_steps, classes) == keep


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@torch.inference_mode()
def test_a_picture_of_one_pixel_is_what_clip_says(projection):
    """At stride 32 a 32×32 picture is one pixel: our dense map is then open_clip's own embedding of the picture."""
    config = PRESETS["err-seg-untrained"]
    model = ErrSeg(replace(config, clip=replace(config.clip, projection=projection))).eval()
    model.load_state_dict({name: noise_for(name, tensor) for name, tensor in model.state_dict().items()})
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        model.encode_image(pixels).dense_x32[:, :, 0, 0], model.clip.visual(pixels), rtol=1e-4, atol=1e-4
    )
