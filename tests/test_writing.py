"""Files that appear whole: what a kill leaves is removed, and a full disk says which file."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from wordmask import writing
from wordmask.writing import atomic, named, remove_left_over, unfinished_folder

WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from wordmask.writing import atomic, unfinished_folder
target = Path(sys.argv[1])
with atomic(target) as temporary, unfinished_folder(target) as folder:
    temporary.write_text("half")
    (folder / "part").write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""
RUN_FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from wordmask import weights
from wordmask.writing import atomic
def as_text(file):
    with atomic(file) as temporary:
        temporary.write_text("x" * 50_000)
def as_picture(file):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with atomic(file) as temporary:
        Image.fromarray(noise).save(temporary)
def as_arrays(file):
    with atomic(file) as temporary:
        np.savez(temporary, a=np.zeros(50_000))
def as_weights(file):
    weights.save_tensors(file, {"a": torch.zeros(50_000)}, {})
for write, ending in ((as_text, "txt"), (as_picture, "png"), (as_arrays, "npz"), (as_weights, "safetensors")):
    file = Path(sys.argv[1]) / f"a.{ending}"
    try:
        write(file)
    except OSError as error:
        assert str(file) in str(error), (ending, str(error))
        assert ".wordmask-" not in str(error), str(error)
        print(ending)
assert list(Path(sys.argv[1]).iterdir()) == []
"""


@pytest.fixture(autouse=True)
def first_look():
    """A folder is looked through once in a process; here every test is a process of its own."""
    remove_left_over.cache_clear()
    yield
    remove_left_over.cache_clear()


def killed(target) -> subprocess.Popen:
    """A process that is writing."""
    process = subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    return process


def test_what_a_killed_process_left_goes_at_the_next_write(tmp_path):
    process = killed(tmp_path / "last.pt")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    with atomic(tmp_path / "other.txt") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*left, "other.txt"]), "it still lives"
    process.send_signal(signal.SIGKILL)
    process.wait()
    remove_left_over.cache_clear()  # the next run
    with atomic(tmp_path / "other.txt") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_of_other_machines_only_what_is_old_goes(tmp_path, monkeypatch):
    process = killed(tmp_path / "last.pt")
    process.kill()
    process.wait()
    monkeypatch.setattr(writing, "_home", lambda: "01234567")
    remove_left_over(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "who knows whether it lives"
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    remove_left_over.cache_clear()
    remove_left_over(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_others_call_alike_stays(tmp_path):
    for name in (".wordmask", ".wordmask-notes.txt", ".0123abcd.pt", "photo.png"):
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    with atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_is_removed_with_what_is_in_it(tmp_path):
    with unfinished_folder(tmp_path / "graphs") as folder:
        (folder / "model.onnx").write_text("half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_without_a_path_get_it(tmp_path, number):
    with pytest.raises(OSError, match=r"a\.txt") as caught, atomic(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    with (
        pytest.raises(OSError, match=r"a\.txt' could not be written: 5 requested and 0 written"),
        named(tmp_path / "a.txt"),
    ):
        raise OSError("5 requested and 0 written")


def test_errors_of_other_files_stay(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), atomic(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files can't be limited here")
def test_a_full_disk_names_the_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN_FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["txt", "png", "npz", "safetensors"], done.stderr
