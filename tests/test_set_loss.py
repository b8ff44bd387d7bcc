"""The set loss: matching against trying every assignment, points, empty targets, and that it can be learned from."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wordmask.models import kind_of
from wordmask.raw import QueryMasks
from wordmask.text import Words
from wordmask.training import set_loss as module
from wordmask.training.objectives import MaskLoss
from wordmask.training.set_loss import (
    DICE_WEIGHT,
    MASK_WEIGHT,
    Target,
    layer_loss,
    match,
    random_points,
    sample,
    set_loss,
    uncertain_points,
)
from wordmask.vocabulary import Vocabulary


def case(queries: int, targets: int, classes: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    class_logits, mask_logits = (
        2 * torch.randn(queries, classes + 1, generator=generator),
        torch.randn(queries, 8, 9, generator=generator),
    )
    masks = torch.rand(targets, 16, 18, generator=generator) > 0.6
    return class_logits, 3 * mask_logits, Target(torch.randint(0, classes, (targets,), generator=generator), masks)


def fixed_points(masks: int, points: int, like: torch.Tensor) -> torch.Tensor:
    return torch.rand(1, points, 2, generator=torch.Generator().manual_seed(points)).expand(masks, -1, -1)


@settings(max_examples=25, deadline=None)
@given(queries=st.integers(1, 5), targets=st.integers(0, 5), seed=st.integers(0, 999))
def test_the_match_is_the_cheapest_of_all(queries, targets, seed):
    class_logits, mask_logits, target = case(queries, targets, seed=seed)
    chosen_queries, chosen = match(class_logits, mask_logits, target, fixed_points)
    assert len(chosen_queries) == min(queries, targets)
    points = fixed_points(1, module.POINTS, mask_logits)
    probs, wanted = (sample(maps.float(), points.expand(len(maps), -1, -1)) for maps in (mask_logits, target.masks))
    cost = np.zeros((queries, targets))
    for q, n in itertools.product(range(queries), range(targets)):
        entropy = F.binary_cross_entropy_with_logits(probs[q], wanted[n])
        sure = probs[q].sigmoid()
        dice = 1 - (2 * (sure * wanted[n]).sum() + 1) / (sure.sum() + wanted[n].sum() + 1)
        cost[q, n] = 5 * entropy + 5 * dice - 2 * class_logits[q].softmax(-1)[target.labels[n]]
    few = min(queries, targets)
    every = (
        cost[list(rows), list(columns)].sum()
        for rows in itertools.combinations(range(queries), few)
        for columns in itertools.permutations(range(targets), few)
    )
    assert cost[chosen_queries, chosen].sum() == pytest.approx(min(every), rel=1e-4, abs=1e-5)


def test_points_lie_where_the_mask_is_uncertain():
    # uncertain in the middle, from left to right
    mask_logits = torch.linspace(-20, 20, 64).expand(1, 64, 64).contiguous()
    torch.manual_seed(0)
    points = uncertain_points(mask_logits, random_points)
    assert points.shape == (1, module.POINTS, 2)
    share = (points[0, :, 0].sub(0.5).abs() < 0.15).float().mean()
    assert share > 0.75, "uniform points would be 0.3 of all"


def test_pictures_without_anything_teach_void():
    class_logits, mask_logits, _ = case(5, 0)
    class_logits, mask_logits = class_logits[None].requires_grad_(), mask_logits[None].requires_grad_()
    nothing = Target(torch.zeros(0, dtype=torch.long), torch.zeros(0, 16, 18))
    losses = layer_loss(class_logits, mask_logits, [nothing])
    assert losses.masks == losses.dice == 0
    void = F.cross_entropy(class_logits[0], torch.full((5,), 4))
    assert losses.classes.item() == pytest.approx(2 * void.item())
    sum(losses).backward()
    assert mask_logits.grad is not None


def test_perfect_masks_cost_next_to_nothing():
    masks = torch.zeros(2, 32, 32)
    masks[0, :16], masks[1, 16:] = 1, 1
    mask_logits = F.avg_pool2d(masks[None], kernel_size=2) * 12 - 6
    class_logits = torch.full((1, 2, 4), -10.0)
    class_logits[0, 0, 1] = class_logits[0, 1, 2] = 10
    torch.manual_seed(0)
    losses = layer_loss(class_logits, mask_logits, [Target(torch.tensor([1, 2]), masks)])
    assert losses.classes < 1e-3
    assert losses.masks < 0.2 * MASK_WEIGHT, "but for the row of pixels where both meet, at which most points lie"
    assert losses.dice < 0.1 * DICE_WEIGHT
    torch.manual_seed(0)
    wrong = layer_loss(class_logits, -mask_logits.flip(1), [Target(torch.tensor([1, 2]), masks.roll(8, dims=1))])
    assert wrong.masks > 3 * losses.masks


@pytest.mark.slow
def test_a_picture_can_be_learned():
    """Thirty steps on one picture bring the loss well down, and the masks to the targets."""
    kind = kind_of("eov-seg-untrained")
    model = kind.random(kind.presets["eov-seg-untrained"]).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(model.is_trained(name))
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=2e-3)
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 64, 64)
    pixels[..., :32] += 2
    masks = torch.zeros(2, 64, 64)
    masks[0, :, :32], masks[1, :, 32:] = 1, 1
    words = Words(F.normalize(torch.randn(3, 64), dim=-1), torch.arange(3), torch.ones(3, dtype=torch.bool))
    losses = []
    for _ in range(30):
        loss = set_loss(model(pixels, words), [Target(torch.tensor([0, 2]), masks)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses[:: len(losses) - 1]
    raw = model(pixels, words)
    queries, _ = match(raw.class_logits[0], raw.mask_logits[0], Target(torch.tensor([0, 2]), masks))
    found = F.interpolate(raw.mask_logits[:, queries], size=(64, 64), mode="bilinear")[0] > 0
    assert (found == masks.bool()).float().mean() > 0.9 or (found == masks.flip(0).bool()).float().mean() > 0.9


def test_fewer_points_estimate_the_same_loss():
    asked = []

    def draw(masks: int, points: int, like: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return random_points(masks, points, like)

    class_logits, mask_logits, target = case(6, 3)
    torch.manual_seed(0)
    many = layer_loss(class_logits[None], mask_logits[None], [target], draw)
    assert set(asked) == {module.POINTS, 3 * module.POINTS, module.POINTS // 4}
    asked.clear()
    few = layer_loss(class_logits[None], mask_logits[None], [target], draw, points=1000)
    assert set(asked) == {1000, 3000, 250}
    assert torch.stack(few).tolist() == pytest.approx(torch.stack(many).tolist(), rel=0.1)


def test_a_loss_that_is_no_number_is_no_error():
    """The loop names the step and its pictures; an error of the matching would not."""
    class_logits, mask_logits, target = case(4, 2)
    losses = layer_loss(class_logits[None], mask_logits[None] * torch.nan, [target])
    assert torch.stack(losses).sum().isnan()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_the_loss_does_not_follow_autocast(precision):
    """Sums over 12 544 points overflow in half precision: a mask that is surely empty costs 12 at each of them."""
    class_logits, _, target = case(4, 2)
    mask_logits = torch.full((1, 1, 4, 8, 9), -12.0)
    raw = QueryMasks(class_logits[None], mask_logits[0], class_logits[None, None], mask_logits)
    torch.manual_seed(0)
    expected = set_loss(raw, [target])
    torch.manual_seed(0)
    with torch.autocast("cpu", precision):
        assert torch.equal(set_loss(raw, [target]), expected)


def test_some_classes_take_part():
    """Those of the pictures do, with all their names; the targets count among them."""
    vocabulary = Vocabulary.of("sky; car, automobile; grass; dog, hound; sea; road", "eov-seg")
    loss = MaskLoss(vocabulary, encode_apart, most=4)
    words = loss.words._replace(seen=torch.tensor([True, False, True, True, False, True]))
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    targets = [Target(torch.tensor([3, 1, 3]), masks), Target(torch.tensor([5]), masks[:1])]
    torch.manual_seed(0)
    fewer, renumbered = loss.choose(words, targets)
    assert len(fewer.seen) == 4
    assert fewer.owner.max() == 3
    for target, before in zip(renumbered, targets, strict=True):
        for label, old in zip(target.labels.tolist(), before.labels.tolist(), strict=True):
            assert torch.equal(fewer.embeddings[fewer.owner == label], words.embeddings[words.owner == old])
            assert fewer.seen[label] == words.seen[old]
    assert MaskLoss(vocabulary, encode_apart).choose(words, targets) == (words, targets)


def encode_apart(phrases: list[str]) -> torch.Tensor:
    """Encode any phrase as a vector of its own."""
    return torch.eye(12)[: len(phrases)]
