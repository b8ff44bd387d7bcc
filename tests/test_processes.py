"""Processes under torchrun: which one this is, and what it learns from the others; two that meet are tested with
training and evaluation, at length."""

import subprocess
import sys

import pytest
import torch

from wordmask.processes import Processes, mean_over_processes

TWO = """
import torch
from wordmask.processes import Processes, mean_over_processes
alone = mean_over_processes(torch.tensor([3.0]))
processes = Processes.join(torch.device("cpu"))
assert processes == Processes.started()
assert processes.count == 2
assert alone.item() == 3
assert processes.from_first(f"of {processes.rank}") == "of 0"
assert processes.gather(processes.rank) == ([0, 1] if processes.first else [])
own = torch.tensor([float(processes.rank), 4.0])
assert mean_over_processes(own).tolist() == [0.5, 4.0]
assert own.tolist() == [processes.rank, 4.0]
processes.leave()
assert Processes.started().first is (processes.rank == 0)
"""


def test_alone_without_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes = Processes.join()
    assert processes == Processes.started() == Processes(0, 1)
    assert processes.first
    assert processes.gather("a") == ["a"]
    assert processes.from_first("a") == "a"
    assert processes.device("auto") == "auto"
    values = torch.ones(2)
    assert mean_over_processes(values) is values
    processes.leave()


def test_torchrun_says_which_one_this_is(monkeypatch):
    """Before they meet, too: data are checked, and bars drawn, by one of them."""
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    processes = Processes.started()
    assert processes == Processes(5, 8)
    assert not processes.first
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes.device("auto") == processes.device("cuda") == "cuda:1"
    assert processes.device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes.device("auto") == "auto"


@pytest.mark.slow
def test_two_meet_and_part(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    done = subprocess.run([sys.executable, *torchrun, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
