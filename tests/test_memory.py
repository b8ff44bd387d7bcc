"""What bounds memory: blocks applied in parts, and freed blocks kept or given back."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from wordmask import memory
from wordmask.in_parts import in_parts
from wordmask.models import err_seg
from wordmask.raw import ClassMaps
from wordmask.text import Words


@given(length=st.integers(1, 9), size=st.integers(0, 12), axis=st.sampled_from([1, 2]), again=st.booleans())
def test_in_parts_equals_at_once(length, size, axis, again):
    shape = [2, 3, 4]
    shape[axis] = length
    x, y = torch.randn(shape), torch.randn(shape)
    beside = x.numel() // length  # entries of one place
    seen = []

    def block(x, y):
        seen.append(x.shape[axis])
        return torch.stack([x * y, x + y], dim=-1) if not again else x * y

    whole = block(x, y)
    seen.clear()
    with torch.no_grad():
        parts = in_parts(block, x, y, entries=size * beside, axis=axis, into=x if again else None)
    assert torch.equal(parts, whole)
    assert sum(seen) == length
    assert max(seen) <= max(1, size)


def test_channels_do_not_count():
    x, sizes = torch.randn(1, 6, 4, 5, 7), []
    with torch.no_grad():
        in_parts(lambda x: sizes.append(x.shape[1]) or 2 * x, x, entries=2 * 4 * 5, channel_axis=-1)
        in_parts(lambda x: sizes.append(x.shape[2]) or 2 * x, x[..., 0], entries=2 * 5, axis=2, channel_axis=1)
    assert sizes == [2, 2, 2, 2, 2]


def test_nothing_is_cut_or_overwritten_where_gradients_are_recorded():
    x, sizes = torch.randn(1, 5, requires_grad=True), []
    before = x.detach().clone()
    in_parts(lambda x: sizes.append(x.shape[1]) or 2 * x, x, entries=2, into=x).sum().backward()
    assert sizes == [5]
    assert torch.equal(x.detach(), before)
    assert torch.equal(x.grad, torch.full_like(x, 2))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
@torch.inference_mode()
def test_classes_in_parts_are_classes_at_once(tiny, monkeypatch, precision, tolerance):
    """Also of a batch: class by class and row by row, ERR-Seg says what it says of all together."""
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    vectors = F.normalize(torch.randn(7, tiny.config.clip.width, generator=torch.Generator().manual_seed(1)), dim=-1)
    words = Words(vectors, torch.arange(7), torch.zeros(7, dtype=torch.bool))

    def logits(entries: int) -> ClassMaps:
        monkeypatch.setattr(err_seg, "ENTRIES_AT_ONCE", entries)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return tiny(pixels, words, keep=5)

    whole = logits(10**9)
    for entries in (1, 300):
        parts = logits(entries)
        assert torch.equal(parts.kept, whole.kept)
        torch.testing.assert_close(parts.logits, whole.logits, rtol=tolerance, atol=tolerance)


FAULTS = """
import resource, sys
import numpy as np
from wordmask.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def use():
    blocks = [np.ones(2**21) for _ in range(4)]

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(memory._gnu() is None, reason="only GNU's C library is told to")
def test_freed_blocks_are_used_again():
    """Asked of the system again, 640 MB would be cleared page by page."""
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True, timeout=60
            ).stdout
        )
        for way in ("keep", "default")
    }
    assert faults["keep"] < 1000
    assert faults["default"] > 10 * faults["keep"], faults


def test_the_peak_counts_what_was_kept_before():
    """A block that an earlier run left to the process is memory that the next one takes."""
    device = torch.device("cpu")
    sizes = []
    for _ in range(2):
        found = memory.peak_memory(lambda: torch.ones(2**24).sum(), device)
        if found is None:
            pytest.skip("memory is read as Linux tells it")
        sizes.append(found.added)
    assert all(size > 60 * 2**20 for size in sizes)


def test_elsewhere_nothing_happens(monkeypatch):
    memory._gnu.cache_clear()
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="darwin"))
    try:
        memory.keep_freed_memory()
        memory.give_back_freed_memory()
    finally:
        memory._gnu.cache_clear()
