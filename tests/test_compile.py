"""Compiled models: one graph, no break, the same results; other sizes and vocabularies need no other graph."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, numpy as np, torch
from torch._dynamo import config, utils
from wordmask.models import kind_of
from wordmask.segmenter import Segmenter

name, vocabularies, sizes = sys.argv[1], *map(eval, sys.argv[2:])
kind = kind_of(name)
models = [kind.random(kind.presets[name]).for_inference() for _ in range(2)]
eager, compiled = Segmenter(models[0]), Segmenter(models[1], compile=True)
for count in vocabularies:
    for size in sizes:
        picture = np.random.default_rng(count).integers(0, 256, (*size, 3), dtype=np.uint8)
        words = [f"thing {number}" for number in range(count)]
        one, other = (segment(picture, words, task="semantic", per_pixel=True) for segment in (eager, compiled))
        assert (one.labels == other.labels).mean() > 0.999, (count, size)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4)
        config.error_on_recompile = True  # from the second on
assert utils.counters["stats"]["unique_graphs"] == 1, utils.counters["stats"]
assert not utils.counters["graph_break"]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "vocabularies", "sizes"),
    [("err-seg-untrained", (20, 33, 150), ((60, 90),)), ("eov-seg-untrained", (8, 40, 5), ((60, 90), (90, 64)))],
)
def test_one_graph_does_for_all(name, vocabularies, sizes):
    """In a process of its own: what checks its shapes, as tests do, is no graph. EOV-Seg begins with as many words as
    there are cells."""
    command = [sys.executable, "-c", SCRIPT, name, repr(vocabularies), repr(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["test_parity.py", "test_parity_eov_seg.py"])
def test_compiled_models_equal_the_reference(shared, cases):
    """The parity cases again, the outputs compiled, with their tolerances; in a process of its own, in which nothing
    checks shapes."""
    file = Path(__file__).with_name(cases)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no", "-m", "slow", str(file)]
    environment = {**os.environ, "WORDMASK_TEST_COMPILED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout, done.stdout
    assert "skipped" not in done.stdout, done.stdout
