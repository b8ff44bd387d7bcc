"""Panoptic, instance and semantic readings of queries against slow, obvious implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wordmask import postprocess
from wordmask.image import Frame
from wordmask.postprocess import read_instances, read_panoptic, read_query_semantic

FRAMES = [  # original, resized, padded: grids are a quarter of the padded size
    Frame((30, 41), (45, 61), (64, 64)),
    Frame((90, 70), (64, 50), (64, 64)),
    Frame((64, 96), (64, 96), (64, 96)),
    Frame((5, 300), (3, 180), (32, 192)),
]


def case(frame: Frame, *, queries: int = 9, classes: int = 5, seed: int = 0, warmth: float = 3.0):
    """Smooth masks and confident classes, some of them void."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (side // 4 for side in frame.padded)
    coarse = torch.randn(1, queries, 4, 5, generator=generator)
    masks = 4 * F.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return warmth * torch.randn(queries, classes + 1, generator=generator), masks, torch.arange(classes) % 2 == 0


def full_masks(mask_logits: torch.Tensor, frame: Frame) -> torch.Tensor:
    """To the padded input, crop, to the original: as the reference does, all at once."""
    whole = F.interpolate(mask_logits[None], size=frame.padded, mode="bilinear", align_corners=False)
    whole = whole[..., : frame.resized[0], : frame.resized[1]]
    return F.interpolate(whole, size=frame.original, mode="bilinear", align_corners=False)[0]


@pytest.fixture(autouse=True)
def short_strips(monkeypatch):
    """So that every case crosses several strips and several groups of classes."""
    monkeypatch.setattr("wordmask.pixels.STRIP_ENTRIES", 5000)
    monkeypatch.setattr(postprocess, "CLASS_ENTRIES", 3000)


@pytest.mark.parametrize("frame", FRAMES)
def test_masks_are_restored_as_at_once(frame):
    _, masks, _ = case(frame)
    strips = torch.cat(list(frame.restore_strips(masks)), dim=1)
    torch.testing.assert_close(strips, full_masks(masks, frame), rtol=1e-5, atol=1e-5)
    assert torch.cat(list(frame.restore_strips(masks[:0])), dim=1).shape == (0, *frame.original)


@settings(max_examples=40, deadline=None)
@given(frame=st.sampled_from(FRAMES), classes=st.integers(1, 40), queries=st.integers(1, 12), seed=st.integers(0, 999))
def test_semantic_equals_all_maps_at_once(frame, classes, queries, seed):
    class_logits, masks, _ = case(frame, queries=queries, classes=classes, seed=seed)
    reading = read_query_semantic(class_logits, masks, frame)
    sums = torch.einsum("qt,qhw->thw", class_logits.softmax(-1)[:, :-1], full_masks(masks, frame).sigmoid())
    best, second = sums.topk(min(2, classes), dim=0).values[[0, -1]]
    torch.testing.assert_close(reading.confidence, best.clamp(max=1), rtol=1e-4, atol=1e-5)
    own = sums.gather(0, reading.best[None].long())[0]
    torch.testing.assert_close(own, best, rtol=1e-4, atol=1e-5)
    if classes == 1:
        assert (reading.runner_up == -1).all()
        assert (reading.runner_up_confidence == 0).all()
    else:
        torch.testing.assert_close(reading.runner_up_confidence, second.clamp(max=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sums.gather(0, reading.runner_up[None].long())[0], second, rtol=1e-4, atol=1e-5)
        assert (reading.runner_up != reading.best).all()


def test_of_equal_classes_the_first_wins():
    frame = FRAMES[2]
    class_logits, masks, _ = case(frame, classes=4)
    class_logits[:, 1:4] = class_logits[:, :1]
    reading = read_query_semantic(class_logits, masks, frame)
    assert (reading.best == 0).all()
    assert (reading.runner_up == 1).all()


def panoptic_slowly(class_logits, masks, things, *, threshold, overlap):
    """One query after the other, as the reference does; ids and what is known of each segment."""
    scores, labels = class_logits.softmax(-1).max(-1)
    kept = (labels != len(things)) & (scores > threshold)
    scores, labels, probs = scores[kept], labels[kept], masks[kept].sigmoid()
    ids, segments, stuff = torch.zeros(masks.shape[1:], dtype=torch.int32), [], {}
    if not len(scores):
        return ids, segments
    winner = (scores[:, None, None] * probs).argmax(0)
    for query, label in enumerate(labels.tolist()):
        won, covered = winner == query, probs[query] >= 0.5
        taken = won & covered
        if not taken.any() or won.sum().item() / covered.sum().item() < overlap:
            continue
        evidence = (scores[query] * probs[query])[taken].sum().item()
        if not things[label] and label in stuff:
            number = stuff[label]
            segments[number - 1][1] += evidence
        else:
            segments.append([label, evidence])
            number = len(segments)
            if not things[label]:
                stuff[label] = number
        ids[taken] = number
    return ids, segments


@settings(max_examples=80, deadline=None)
@given(
    frame=st.sampled_from(FRAMES),
    classes=st.integers(1, 6),
    queries=st.integers(1, 14),
    seed=st.integers(0, 9999),
    threshold=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    overlap=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_panoptic_equals_one_query_after_the_other(frame, classes, queries, seed, threshold, overlap):
    class_logits, masks, things = case(frame, queries=queries, classes=classes, seed=seed)
    found = read_panoptic(class_logits, masks, things=things, frame=frame, threshold=threshold, overlap=overlap)
    whole = torch.cat(list(frame.restore_strips(masks)), dim=1)
    ids, segments = panoptic_slowly(class_logits, whole, things, threshold=threshold, overlap=overlap)
    assert torch.equal(found.ids, ids)
    assert found.classes == [label for label, _ in segments]
    areas = torch.bincount(ids.flatten(), minlength=len(segments) + 1)[1:].tolist()
    np.testing.assert_allclose(
        found.scores, [evidence / area for (_, evidence), area in zip(segments, areas, strict=True)], rtol=1e-4
    )
    assert all(0 < score <= 1 for score in found.scores)
    assert all(rival != label for rival, label in zip(found.runners_up, found.classes, strict=True))
    assert all((rival == -1) == (classes == 1) for rival in found.runners_up)
    assert all(0 <= share <= 1 for share in found.rival_shares)


@settings(max_examples=60, deadline=None)
@given(
    frame=st.sampled_from(FRAMES),
    classes=st.integers(1, 6),
    queries=st.integers(1, 14),
    seed=st.integers(0, 9999),
    most=st.integers(1, 100),
)
def test_instances_equal_one_pair_after_the_other(frame, classes, queries, seed, most):
    class_logits, masks, things = case(frame, queries=queries, classes=classes, seed=seed)
    found = read_instances(class_logits, masks, things=things, frame=frame, most=most)
    whole = torch.cat(list(frame.restore_strips(masks)), dim=1)
    probs = class_logits.softmax(-1)[:, :-1]
    naive = []
    for pair in probs.flatten().argsort(descending=True)[:most].tolist():
        query, label = divmod(pair, classes)
        inside = whole[query] > 0
        if things[label] and inside.any():
            mean = whole[query].sigmoid()[inside].sum() / (inside.sum() + 1e-6)
            naive.append(((probs[query, label] * mean).item(), label, int(inside.sum()), inside))
    naive.sort(key=lambda entry: -entry[0])
    np.testing.assert_allclose(found.scores, [entry[0] for entry in naive], rtol=1e-4)
    assert found.classes == [entry[1] for entry in naive]
    assert found.areas == [entry[2] for entry in naive]
    for number, box, (*_, inside) in zip(found.mask, found.boxes, naive, strict=True):
        mask = np.unpackbits(found.bits[number], axis=1, count=frame.original[1]).astype(bool)
        assert (mask == inside.numpy()).all()
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        assert box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_only_queries_that_matter_come_to_full_resolution(monkeypatch):
    """Void queries never do for segments; for instances, those of no pair that is looked at."""
    class_logits, masks, things = case(FRAMES[2], queries=12)
    class_logits[4:, -1] = 50
    restored = []
    ordinary = Frame.restore_strips
    monkeypatch.setattr(
        Frame, "restore_strips", lambda frame, maps: restored.append(len(maps)) or ordinary(frame, maps)
    )
    read_panoptic(class_logits, masks, things=things, frame=FRAMES[2])
    assert restored.pop() <= 4
    read_instances(class_logits, masks, things=things, frame=FRAMES[2], most=2)
    assert restored.pop() <= 2


def test_nothing_but_void():
    class_logits, masks, things = case(FRAMES[0])
    class_logits[:, -1] = 50
    found = read_panoptic(class_logits, masks, things=things, frame=FRAMES[0])
    assert not found.ids.any()
    assert found.classes == found.scores == []
    assert read_instances(class_logits, torch.full_like(masks, -1.0), things=things, frame=FRAMES[0]).classes == []
    assert read_instances(class_logits, masks, things=~(things | True), frame=FRAMES[0]).classes == []


def test_scores_of_large_segments_are_exact(monkeypatch):
    """Adding a million confidences in float32, one by one, loses percents."""
    monkeypatch.setattr("wordmask.pixels.STRIP_ENTRIES", 2**22)
    frame, score = Frame((1500, 1500), (64, 64), (64, 64)), 0.6
    class_logits = torch.tensor([[score, 1 - score]]).log()
    found = read_panoptic(class_logits, torch.full((1, 16, 16), 30.0), things=torch.tensor([True]), frame=frame)
    assert found.scores == [pytest.approx(score, abs=1e-6)]
    assert found.areas == [1500 * 1500]
