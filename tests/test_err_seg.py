"""The exact algebra of ERR-Seg against slow, obvious versions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wordmask.models import err_seg
from wordmask.models.err_seg import GuidedConv2d, GuidedLinear, SemanticLogits, choose_classes, count_votes, loss


def unit(*shape: int, seed: int = 0, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def test_guided_linear_equals_a_linear_on_the_concatenation():
    layer = GuidedLinear(8, 6, 5)
    x, guidance = torch.randn(2, 3, 4, 4, 8), torch.randn(2, 1, 4, 4, 6)
    expected = F.linear(torch.cat([x, guidance.expand(2, 3, 4, 4, 6)], dim=-1), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, guidance), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 3, "padding": 1, "bias": False}])
def test_guided_convolution_equals_a_convolution_on_the_concatenation(settings):
    layer = GuidedConv2d(8, 6, 5, **settings)
    x, guidance = torch.randn(2 * 3, 8, 6, 6), torch.randn(2, 6, 6, 6)
    expected = F.conv2d(
        torch.cat([x, guidance.repeat_interleave(3, dim=0)], dim=1), layer.weight, layer.bias, layer.stride, padding=layer.padding
    )
    torch.testing.assert_close(layer(x, guidance), expected, rtol=1e-5, atol=1e-5)


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
    assert choose_classes(votes, peaks, 3).tolist() == [[1, 2, 3]]
    assert choose_classes(votes, peaks, 4).tolist() == [[1, 2, 3, 4]]
    assert choose_classes(votes, peaks, 99).tolist() == [[0, 1, 2, 3, 4]]


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
    kept = choose_classes(votes, torch.zeros(1, 10), keep, present)[0].tolist()
    assert kept == sorted(expected)


def loss_slowly(logits: torch.Tensor, kept: torch.Tensor, classes: int, target: torch.Tensor) -> torch.Tensor:
    """The reference's way: a map of -100 for every class that was not kept, all T at full resolution."""
    full = torch.full((len(logits), classes, *logits.shape[2:]), -100.0).scatter(1, kept[..., None, None].expand_as(logits), logits)
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
    ours = loss(SemanticLogits(logits, kept, torch.zeros(2, classes)), target)
    torch.testing.assert_close(ours, loss_slowly(logits, kept, classes, target), rtol=1e-5, atol=1e-6)
