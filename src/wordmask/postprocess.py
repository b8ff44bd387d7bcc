"""Raw tensors + Frame → what is seen: one label per pixel, panoptic segments, or instances; each with its confidence
and the runner-up."""

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from wordmask.image import Frame
from wordmask.settings import DEFAULT_MOST, DEFAULT_OVERLAP

CLASS_ENTRIES = 2**22  # of class maps, when they are summed over queries: 16 MB at a time
FINE = 2**24  # confidences are summed as whole numbers of this part: exact for any number of pixels, on every device
EMPTY = 1e-6  # added to the area of an instance before dividing; reference segmentator.py


class PixelReading(NamedTuple):
    """The best and second-best class of every pixel, and their probabilities; class -1 where there is none."""

    best: Int[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    runner_up: Int[Tensor, "H W"]
    runner_up_confidence: Float[Tensor, "H W"]


class Segments(NamedTuple):
    """Panoptic segments: every pixel belongs to one at most. Ids count from 1; 0 is nothing. N segments in the order of
    their ids.

    The confidence of a pixel, class probability × mask probability of the query that wins it, is there on request.
    The score of a segment is the mean, over its pixels, of class probability × mask probability. Its runner-up is its
    second-best class, -1 if there is no other; the share is its probability over that of the best. A segment of stuff
    may come from several queries.
    """

    ids: Int[Tensor, "H W"]
    confidence: Float[Tensor, "H W"] | None
    classes: list[int]
    scores: list[float]
    areas: list[int]
    runners_up: list[int]
    rival_shares: list[float]
    queries: list[list[int]]


class Instances(NamedTuple):
    """N instances, best first; they may overlap. Masks of equal queries are kept once, as bits."""

    classes: list[int]
    scores: list[float]
    runners_up: list[int]
    areas: list[int]
    boxes: list[tuple[int, int, int, int]]
    mask: list[int]
    bits: UInt8[np.ndarray, "M H W8"]


# Semantic -------------------------------------------------------------------------------------------------------------


def read_semantic(logits: Float[Tensor, "K h w"], kept: Int[Tensor, " K"], frame: Frame) -> PixelReading:
    """Bring the probabilities of the kept classes to the original picture and rank them at every pixel.

    Equal to the reference, which fills T maps with 0 for the classes not kept and takes the argmax. The picture is read
    in strips: memory grows with neither T nor K.

    Args:
        logits: Those of one picture; the sigmoid is the probability.
        kept: Their classes, ascending: of equal probabilities the first wins.
    """
    classes = kept.int()
    return PixelReading(
        *_join((rank_classes(maps, classes) for maps in frame.restore_strips(logits.float().sigmoid())), frame)
    )


def read_query_semantic(
    class_logits: Float[Tensor, "Q T1"], mask_logits: Float[Tensor, "Q h w"], frame: Frame
) -> PixelReading:
    """Sum class probability × mask probability over the queries, and rank the classes at every pixel.

    Equal to ranking T maps of the whole picture: some rows and some classes are seen at a time, and only the best two
    are remembered. The sum can exceed 1, the confidence cannot.

    Args:
        class_logits: Those of one picture, void last.
        mask_logits: The sigmoid is the probability.
    """
    class_probs = class_logits.float().softmax(dim=-1)[:, :-1].T  # (T, Q)
    return PixelReading(
        *_join((rank_queries(class_probs, maps.sigmoid()) for maps in frame.restore_strips(mask_logits.float())), frame)
    )


def rank_queries(class_probs: Float[Tensor, "T Q"], masks: Float[Tensor, "Q s W"]) -> PixelReading:
    """Rank the classes at the pixels of a strip by class probability × mask probability, summed over the queries."""
    many = max(1, CLASS_ENTRIES // (masks.shape[1] * masks.shape[2]))

    def rank_from(start: int) -> PixelReading:
        sums = torch.einsum("tq,qsw->tsw", class_probs[start : start + many], masks)
        return rank_classes(sums, torch.arange(start, start + len(sums), device=sums.device, dtype=torch.int32))

    best = reduce(_better_two, map(rank_from, range(0, len(class_probs), many)))
    confidence, runner_up_confidence = best.confidence.clamp(max=1), best.runner_up_confidence.clamp(max=1)
    return PixelReading(best.best, confidence, best.runner_up, runner_up_confidence)


def rank_classes(maps: Float[Tensor, "K s W"], classes: Int[Tensor, " K"]) -> PixelReading:
    """Rank the classes at the pixels of a strip; the first of equals comes first."""
    best, place = maps.max(dim=0)
    second, second_place = maps.scatter(0, place[None], -1.0).max(dim=0)
    runner_up = classes[second_place] if len(maps) > 1 else torch.full_like(classes[place], -1)
    return PixelReading(classes[place], best, runner_up, second.clamp(min=0))


def _better_two(first: PixelReading, second: PixelReading) -> PixelReading:
    """Rank two readings of the same pixels; of equals, a class of the first reading comes first."""
    ahead = first.confidence >= second.confidence
    best, confidence = (
        torch.where(ahead, first.best, second.best),
        torch.where(ahead, first.confidence, second.confidence),
    )
    left = torch.where(ahead, first.runner_up, first.best)  # what each reading still has for the second place
    right = torch.where(ahead, second.best, second.runner_up)
    left_confidence = torch.where(ahead, first.runner_up_confidence, first.confidence).masked_fill(left < 0, -1.0)
    right_confidence = torch.where(ahead, second.confidence, second.runner_up_confidence).masked_fill(right < 0, -1.0)
    runner_up = torch.where(left_confidence >= right_confidence, left, right)
    return PixelReading(best, confidence, runner_up, torch.maximum(left_confidence, right_confidence).clamp(min=0))


def _join(strips: Iterator[tuple[Tensor, ...]], frame: Frame) -> list[Tensor]:
    """Write what was read of strips, from top to bottom, into maps of the whole picture."""
    whole, row = [], 0
    for strip in strips:
        whole = whole or [part.new_empty(frame.original) for part in strip]
        for values, part in zip(whole, strip, strict=True):
            values[row : row + len(part)] = part
        row += len(strip[0])
    return whole


# Panoptic -------------------------------------------------------------------------------------------------------------


class _Claims(NamedTuple):
    """What K queries claim of a picture, or of some rows of it."""

    winner: Int[Tensor, "H W"]  # of every pixel
    inside: Bool[Tensor, "H W"]  # whether the winner's own mask has the pixel
    confidence: Float[Tensor, "H W"] | None  # the winner's class probability × mask probability
    covered: Int[Tensor, " K"]  # pixels in the mask of each query
    won: Int[Tensor, " K"]
    taken: Int[Tensor, " K"]  # won and inside
    evidence: Int[Tensor, " K"]  # sum of the confidence over what is taken, in units of 1 / FINE


class Candidate(NamedTuple):
    """A query that may be a segment, or a part of one.

    Args:
        covered: Pixels in its mask.
        won: Pixels that it is surest of.
        taken: Pixels that it wins and that its mask covers.
        label: Its class.
        thing: 1 if that is counted.
        rival: The second-best class, -1 for none.
        query: Its number among all.
    """

    covered: int
    won: int
    taken: int
    label: int
    thing: int
    rival: int
    query: int


def read_panoptic(
    class_logits: Float[Tensor, "Q T1"],
    mask_logits: Float[Tensor, "Q h w"],
    *,
    things: Bool[Tensor, " T"],
    frame: Frame,
    threshold: float = 0.0,
    overlap: float = DEFAULT_OVERLAP,
    per_pixel: bool = False,
) -> Segments:
    """Give every pixel to the query that is surest of it, and keep the queries that win most of their masks.

    Only queries whose best class is not void are brought to full resolution, some rows at a time. The device is asked
    once for all queries.

    Args:
        class_logits: Those of one picture, void last.
        things: Which classes are counted; segments of the others merge, class by class.
        threshold: Queries whose class probability is not above are dropped, as in the reference; the paper's is 0.
        overlap: A query survives if the pixels it won are at least this share of those its mask covers.
        per_pixel: Also return the confidence of every pixel.
    """
    probs = class_logits.float().softmax(dim=-1)
    scores, classes = probs.max(dim=-1)
    kept = ((classes != len(things)) & (scores > threshold)).nonzero()[:, 0]
    scores, classes = scores[kept], classes[kept]
    claims = _claim(mask_logits[kept].float(), scores, frame, per_pixel=per_pixel)
    rival_probs, rivals = second_best(probs[kept, :-1], classes)
    columns = (claims.covered, claims.won, claims.taken, classes, things[classes].long(), rivals, kept)
    candidates = [Candidate(*row) for row in torch.stack(columns).T.tolist()]
    table, members = number_segments(candidates, overlap)
    numbers = torch.tensor(
        [*table, 0], dtype=torch.int16, device=claims.winner.device
    )  # the 0 is for no queries at all
    rows = claims.winner.split(max(1, CLASS_ENTRIES // claims.winner.shape[1]))
    ids = torch.cat([numbers[part.int()] for part in rows]).mul_(claims.inside)
    found = Segments(ids, claims.confidence, [], [], [], [], [], [])
    evidence, shares = (claims.evidence.float() / FINE).tolist(), (rival_probs / scores).tolist()
    for places in members:
        area, total = sum(candidates[place].taken for place in places), sum(evidence[place] for place in places)
        largest = max(places, key=lambda place: candidates[place].taken)
        found.classes.append(candidates[largest].label)
        found.scores.append(min(total / area, 1.0))
        found.areas.append(area)
        found.runners_up.append(candidates[largest].rival)
        found.rival_shares.append(shares[largest])
        found.queries.append([candidates[place].query for place in places])
    return found


def _claim(
    mask_logits: Float[Tensor, "K h w"], scores: Float[Tensor, " K"], frame: Frame, *, per_pixel: bool
) -> _Claims:
    device = scores.device
    counts = [torch.zeros(len(scores), dtype=torch.long, device=device) for _ in range(4)]
    if len(mask_logits) == 0:
        winner = torch.zeros(frame.original, dtype=torch.int16, device=device)
        return _Claims(winner, winner.bool(), winner.float() if per_pixel else None, *counts)

    def claim(maps: Float[Tensor, "K s W"]) -> tuple[Tensor, ...]:
        winner, inside, confidence, *found = _claim_strip(maps.sigmoid(), scores)
        for total, part in zip(counts, found, strict=True):
            total += part
        return (winner, inside, confidence) if per_pixel and confidence is not None else (winner, inside)

    winner, inside, *confidence = _join((claim(maps) for maps in frame.restore_strips(mask_logits)), frame)
    return _Claims(winner, inside, confidence[0] if per_pixel else None, *counts)


def _claim_strip(masks: Float[Tensor, "K s W"], scores: Float[Tensor, " K"]) -> _Claims:
    covers = masks >= 0.5
    # argmax takes six times as long on a CPU (docs/log.md)
    confidence, winner = (masks * scores[:, None, None]).max(dim=0)
    inside = covers.gather(0, winner[None])[0]
    zeros = torch.zeros(len(scores), dtype=torch.long, device=winner.device)
    chosen = winner.flatten()
    won = zeros.scatter_add(0, chosen, torch.ones_like(chosen))
    taken = zeros.scatter_add(0, chosen, inside.flatten().long())
    covered = covers.flatten(1).sum(dim=1, dtype=torch.int32)  # a quarter of the time of 64 bits
    evidence = zeros.scatter_add(0, chosen, (confidence * inside).mul(FINE).round().long().flatten())
    return _Claims(winner.short(), inside, confidence, covered, won, taken, evidence)


def number_segments(candidates: list[Candidate], overlap: float) -> tuple[list[int], list[list[int]]]:
    """Decide which candidates survive; stuff of one class shares an id.

    Returns:
        The id of each candidate, 0 if it doesn't survive; and the places of the candidates of each id, from 1.
    """
    table, members, stuff = [], [], {}
    for place, candidate in enumerate(candidates):
        if not candidate.taken or candidate.won / candidate.covered < overlap:
            table.append(0)
        elif not candidate.thing and candidate.label in stuff:
            table.append(stuff[candidate.label])
            members[stuff[candidate.label] - 1].append(place)
        else:
            members.append([place])
            table.append(len(members))
            if not candidate.thing:
                stuff[candidate.label] = len(members)
    return table, members


def second_best(
    probs: Float[Tensor, "N T"], classes: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """The best class beside the one that is named, and its probability; -1 and 0 if there is no other."""
    if probs.shape[1] < 2:
        return torch.zeros_like(probs[:, 0]), torch.full_like(classes, -1)
    return probs.scatter(1, classes[:, None], -1.0).max(dim=1)


# Instances ------------------------------------------------------------------------------------------------------------


def read_instances(
    class_logits: Float[Tensor, "Q T1"],
    mask_logits: Float[Tensor, "Q h w"],
    *,
    things: Bool[Tensor, " T"],
    frame: Frame,
    most: int = DEFAULT_MOST,
) -> Instances:
    """Take the most probable pairs of query and class, things only; score = class probability × mean mask probability
    inside.

    Only the masks of those queries are brought to full resolution, each once, some rows at a time. An empty mask is no
    instance.

    Args:
        class_logits: Those of one picture, void last.
        things: Which classes are counted.
        most: Pairs taken of all, before those that are no things go.
    """
    probs = class_logits.float().softmax(dim=-1)[:, :-1]  # (Q, T)
    scores, pairs = probs.flatten().topk(min(most, probs.numel()))
    counted = things[pairs % len(things)]
    scores, pairs = scores[counted], pairs[counted]
    classes = pairs % len(things)
    queries, mask = (pairs // len(things)).unique(return_inverse=True)
    areas, sums, boxes, bits = _measure(mask_logits[queries].float(), frame)
    scores = scores * (sums / (areas.float() + EMPTY))[mask]
    rivals = second_best(probs[queries][mask], classes)[1]
    order = scores.argsort(descending=True, stable=True)
    order = order[areas[mask][order] > 0]
    columns = (tensor[order].tolist() for tensor in (classes, scores, rivals, areas[mask], boxes[mask], mask))
    classes, scores, rivals, areas, boxes, mask = columns
    return Instances(
        classes, [min(score, 1.0) for score in scores], rivals, areas, [tuple(box) for box in boxes], mask, bits
    )


def _measure(
    mask_logits: Float[Tensor, "M h w"], frame: Frame
) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"], Int[Tensor, "M 4"], UInt8[np.ndarray, "M H W8"]]:
    """Area, sum of probabilities inside, box (left, top, right, bottom; exclusive) and bits of every mask."""
    count, (height, width), device = len(mask_logits), frame.original, mask_logits.device
    areas, sums = (torch.zeros(count, dtype=kind, device=device) for kind in (torch.long, torch.float32))
    rows, columns = (torch.zeros(count, side, dtype=torch.bool, device=device) for side in (height, width))
    # whole at once: parts left between strips would fill the heap with gaps
    bits = np.empty((count, height, -(-width // 8)), np.uint8)
    row = 0
    for maps in frame.restore_strips(mask_logits):
        inside, here = maps > 0, slice(row, row + maps.shape[1])
        areas += inside.flatten(1).sum(dim=1, dtype=torch.int32)
        sums += (maps.sigmoid() * inside).flatten(1).sum(dim=1)
        rows[:, here] = inside.any(dim=2)
        columns |= inside.any(dim=1)
        bits[:, here] = np.packbits(inside.cpu().numpy(), axis=2)
        row += maps.shape[1]
    (top, bottom), (left, right) = _extent(rows), _extent(columns)
    return areas, sums, torch.stack([left, top, right, bottom], dim=1), bits


def _extent(present: Bool[Tensor, "M N"]) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Index of the first True, and the one after the last."""
    return present.int().argmax(dim=1), present.shape[1] - present.flip(1).int().argmax(dim=1)
