"""The set loss of EOV-Seg: match queries with targets, then compare classes, and masks at sampled points.

Reference: nhw649/EOV-Seg @ 6f5e93e, modeling/loss.py, after Mask2Former (Cheng et al., CVPR 2022) and PointRend
(Kirillov et al., 2020).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from wordmask.processes import mean_over_processes
from wordmask.raw import QueryMasks

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0  # of the matching and of the losses alike; reference config.py
VOID_WEIGHT = 0.1  # of queries that match nothing, in the loss of classes
POINTS = 112 * 112  # at which masks are compared
OVERSAMPLING = 3  # points drawn for each that is looked for where a mask is uncertain
UNCERTAIN = 0.75  # share of the points that lie where the mask is most uncertain

Draw = Callable[[int, int, Tensor], Tensor]


class Target(NamedTuple):
    """What is to be found in a picture: N classes with their masks, on the padded input's grid."""

    labels: Int[Tensor, " N"]
    masks: Tensor  # (N, H, W), ones and zeros of any type


class LayerLoss(NamedTuple):
    """The three losses of one layer, weighted."""

    classes: Float[Tensor, ""]
    masks: Float[Tensor, ""]
    dice: Float[Tensor, ""]


def random_points(masks: int, points: int, like: Tensor) -> Float[Tensor, "N P 2"]:
    """Draw points uniformly in [0, 1)², x first."""
    return torch.rand(masks, points, 2, device=like.device)


def set_loss(
    raw: QueryMasks,
    targets: list[Target],
    draw: Draw = random_points,
    *,
    count: Float[Tensor, ""] | None = None,
    points: int = POINTS,
) -> Float[Tensor, ""]:
    """Sum the losses of all decoder layers, each matched for itself.

    Args:
        raw: Of a model in training mode.
        targets: One per picture.
        draw: How points are drawn.
        count: See `mean_count`; of these targets if None.
        points: At which masks are compared; fewer cost less, and say less.
    """
    layers = zip(raw.layer_class_logits, raw.layer_mask_logits, strict=True)
    # in half precision the costs of many points overflow
    with torch.autocast(raw.mask_logits.device.type, enabled=False):
        losses = []
        for class_logits, mask_logits in layers:
            losses += layer_loss(class_logits, mask_logits, targets, draw, count=count, points=points)
        return torch.stack(losses).sum()


def layer_loss(
    class_logits: Float[Tensor, "B Q T1"],
    mask_logits: Float[Tensor, "B Q h w"],
    targets: list[Target],
    draw: Draw = random_points,
    *,
    count: Float[Tensor, ""] | None = None,
    points: int = POINTS,
) -> LayerLoss:
    """Match the queries of one layer with the targets and compute its losses.

    Args:
        class_logits: Before the ensemble, void last.
        count: By which the losses of masks are divided; see `mean_count`.
        points: At which masks are compared.
    """
    count = mean_count(targets, class_logits) if count is None else count
    class_logits, mask_logits = class_logits.float(), mask_logits.float()
    matches = [
        match(classes, masks, target, draw, points)
        for classes, masks, target in zip(class_logits, mask_logits, targets, strict=True)
    ]
    of_picture = torch.cat([torch.full_like(queries, number) for number, (queries, _) in enumerate(matches)])
    queries = torch.cat([queries for queries, _ in matches])
    wanted = torch.full(class_logits.shape[:2], class_logits.shape[2] - 1, device=class_logits.device)
    wanted[of_picture, queries] = torch.cat(
        [target.labels[chosen].long() for target, (_, chosen) in zip(targets, matches, strict=True)]
    )
    weight = torch.ones_like(class_logits[0, 0])
    weight[-1] = VOID_WEIGHT
    classes = CLASS_WEIGHT * F.cross_entropy(class_logits.transpose(1, 2), wanted, weight)
    masks = torch.cat([target.masks[chosen] for target, (_, chosen) in zip(targets, matches, strict=True)])
    return LayerLoss(classes, *_mask_losses(mask_logits[of_picture, queries], masks, count, draw=draw, number=points))


@torch.no_grad()
def match(
    class_logits: Float[Tensor, "Q T1"],
    mask_logits: Float[Tensor, "Q h w"],
    target: Target,
    draw: Draw = random_points,
    number: int = POINTS,
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Assign targets to queries at the least total cost; return the queries, ascending, and the target of each.

    The cost of a pair is weighted: minus the class's probability, cross-entropy and dice of the masks at points that
    all pairs share.
    """
    points = draw(1, number, mask_logits)
    predicted = sample(mask_logits, points.expand(len(mask_logits), -1, -1))  # (Q, P)
    wanted = sample(target.masks.to(predicted), points.expand(len(target.masks), -1, -1))  # (N, P)
    inside, outside = F.softplus(-predicted), F.softplus(predicted)  # cross-entropy with one, with zero
    cross_entropy = (inside @ wanted.T + outside @ (1 - wanted).T) / number  # (Q, N)
    probs = predicted.sigmoid()
    dice = 1 - (2 * probs @ wanted.T + 1) / (probs.sum(dim=1)[:, None] + wanted.sum(dim=1) + 1)
    cost = (
        MASK_WEIGHT * cross_entropy - CLASS_WEIGHT * class_logits.softmax(dim=-1)[:, target.labels] + DICE_WEIGHT * dice
    )
    # where costs are not finite, any match will do: the loss will tell
    queries, chosen = linear_sum_assignment(cost.nan_to_num().cpu().numpy())
    return torch.as_tensor(queries).to(target.labels.device), torch.as_tensor(chosen).to(target.labels.device)


def _mask_losses(
    mask_logits: Float[Tensor, "N h w"], masks: Tensor, count: Float[Tensor, ""], *, draw: Draw, number: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy and dice of matched masks, at points most of which lie where the prediction is uncertain."""
    with torch.no_grad():
        points = uncertain_points(mask_logits, draw, number)
        wanted = sample(masks.to(mask_logits), points)  # (N, P)
    logits = sample(mask_logits, points)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1).sum() / count
    probs = logits.sigmoid()
    dice = 1 - (2 * (probs * wanted).sum(dim=1) + 1) / (probs.sum(dim=1) + wanted.sum(dim=1) + 1)
    return MASK_WEIGHT * cross_entropy, DICE_WEIGHT * dice.sum() / count


def uncertain_points(mask_logits: Float[Tensor, "N h w"], draw: Draw, number: int = POINTS) -> Float[Tensor, "N P 2"]:
    """Draw more points than needed and keep those where the logit is nearest to 0; the rest are drawn anew."""
    drawn = draw(len(mask_logits), OVERSAMPLING * number, mask_logits)
    certainty = sample(mask_logits, drawn).abs()
    nearest = certainty.topk(int(UNCERTAIN * number), dim=1, largest=False).indices
    kept = drawn.gather(1, nearest[..., None].expand(-1, -1, 2))
    return torch.cat([kept, draw(len(mask_logits), number - kept.shape[1], mask_logits)], dim=1)


def sample(maps: Float[Tensor, "N h w"], points: Float[Tensor, "N P 2"]) -> Float[Tensor, "N P"]:
    """Read maps bilinearly at points in [0, 1]², x first; outside of the pixels' centres they fade to zero."""
    if len(maps) == 0:
        return maps.new_zeros(0, points.shape[1]) + maps.sum()  # keeps the graph
    return F.grid_sample(maps[:, None], 2 * points[:, None] - 1, mode="bilinear", align_corners=False)[:, 0, 0]


def mean_count(targets: list[Target], like: Tensor, *, parts: int = 1) -> Float[Tensor, ""]:
    """Targets per process, at least 1, and part of a batch.

    Args:
        targets: Of all parts that this process takes, so that the loss doesn't depend on how a batch is divided.
        parts: Their number.
    """
    count = torch.tensor(float(sum(len(target.labels) for target in targets)), device=like.device)
    return mean_over_processes(count).clamp(min=1) / parts
