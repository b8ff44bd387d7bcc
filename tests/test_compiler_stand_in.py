"""torchvision and timm come without torch's compiler; who wants it gets it later."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wordmask import compiler_stand_in

SEGMENT = """
import sys, wordmask
from conftest import colourful
segment = wordmask.load("err-seg-untrained", cache=None)
segment(colourful(40, 60), ["cup", "spoon"])
assert "torch._dynamo" not in sys.modules
assert "open_clip" in sys.modules
"""
COMPILE = """
import torch
found = torch.compile(lambda x: 2 * x + 1, fullgraph=True)(torch.ones(3))
assert found.tolist() == [3, 3, 3]
assert torch._dynamo.__file__
"""


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_segmenting_does_without_the_compiler():
    run(SEGMENT)


@pytest.mark.slow
def test_compiling_afterwards():
    run(SEGMENT + COMPILE)


def test_a_new_version_that_asks_for_more(monkeypatch):
    """Then the compiler comes too, and nothing of the stand-in stays."""
    monkeypatch.delitem(sys.modules, compiler_stand_in.COMPILER, raising=False)
    seen = []

    def needs_more() -> None:
        seen.append(compiler_stand_in.COMPILER in sys.modules)
        if seen[-1]:
            sys.modules[compiler_stand_in.COMPILER].something_new  # noqa: B018  it has no such thing

    monkeypatch.setattr(compiler_stand_in, "_import_all", needs_more)
    compiler_stand_in.import_all()
    assert seen == [True, False]


def test_the_real_one_stays(monkeypatch):
    real = ModuleType(compiler_stand_in.COMPILER)
    monkeypatch.setitem(sys.modules, compiler_stand_in.COMPILER, real)
    with compiler_stand_in.without_compiler():
        assert sys.modules[compiler_stand_in.COMPILER] is real
    assert sys.modules[compiler_stand_in.COMPILER] is real


def test_functions_stay_as_they_are():
    disable = compiler_stand_in.stand_in()[compiler_stand_in.COMPILER].disable

    @disable(recursive=False)
    def double(x: int) -> int:
        return 2 * x

    assert disable(double)(3) == 6
