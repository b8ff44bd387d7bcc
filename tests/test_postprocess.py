"""Reading the raw output against the reference's way: T maps at full resolution."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wordmask.image import Frame
from wordmask.postprocess import read_panoptic, read_semantic

ROUNDING = 1e-6  # probabilities nearer to each other may change places


@given(kept=st.integers(1, 20), extra=st.integers(0, 5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_labels_equal_the_argmax_over_all_maps(kept, extra, seed):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(kept + extra, generator=generator)[:kept].sort().values
    logits = 4 * torch.randn(kept, 5, 6, generator=generator)
    full = torch.full((kept + extra, 5, 6), -100.0).index_copy(0, classes, logits).sigmoid()
    full = F.interpolate(full[None], size=(17, 13), mode="bilinear", align_corners=False)[0]
    reading = read_semantic(logits, classes, Frame((17, 13)))
    order, places = full.sort(dim=0, descending=True)
    # rank n from rank n + 1: rows and columns are resized one after the other here
    clear = order[:-1] - order[1:] > ROUNDING
    torch.testing.assert_close(reading.confidence, order[0])
    if len(full) > 1:
        assert torch.equal(reading.best[clear[0]], places[0][clear[0]].int())
        assert clear[0].float().mean() > 0.9
    if kept > 1:
        torch.testing.assert_close(reading.runner_up_confidence, order[1])
    if kept > 2:
        known = clear[:2].all(dim=0)
        assert torch.equal(reading.runner_up[known], places[1][known].int())


def test_a_single_class_has_no_runner_up():
    reading = read_semantic(torch.zeros(1, 4, 4), torch.tensor([7]), Frame((8, 8)))
    assert (reading.best == 7).all()
    assert (reading.runner_up == -1).all()
    assert (reading.runner_up_confidence == 0).all()


def test_of_equal_probabilities_the_first_class_wins():
    reading = read_semantic(torch.zeros(12, 4, 4), torch.arange(12), Frame((8, 8)))
    assert (reading.best == 0).all()
    assert (reading.runner_up == 1).all()


def test_of_equally_sure_queries_the_first_wins():
    """Two stuff classes, three queries, each of them certain everywhere."""
    class_logits, mask_logits = torch.tensor([[0.0, 9, 0], [9, 0, 0], [9, 0, 0]]), torch.full((3, 4, 5), 99.0)
    found = read_panoptic(class_logits, mask_logits, things=torch.tensor([False, False]), frame=Frame((8, 10)))
    assert (found.ids == 1).all()
    assert (found.classes, found.queries, found.areas) == ([1], [[0]], [80])
