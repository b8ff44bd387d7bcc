"""The command line as a person uses it: what it writes, what it says, and how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from conftest import colourful
from wordmask.vocabulary import Vocabulary
from wordmask.vocabulary_lists import describe_classes

SMALL = ["--model", "err-seg-untrained"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(colourful(30, 40, number)).save(folder / f"{number}.jpg")
    return folder


def test_one_picture(run, picture, tmp_path):
    status, out, err = run("segment", picture, "road", "car, automobile", "sky", *SMALL)
    assert status == 0, err
    assert "1 picture · 3 words: road, car, sky" in err
    assert "labels mean nothing" in err, "random weights are said to be random"
    assert "garden.masks.png" in out
    names = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert names == ["garden.labels.png", "garden.masks.json", "garden.masks.png"]
    content = json.loads((tmp_path / "masks" / "garden.masks.json").read_text())
    assert [entry["names"] for entry in content["classes"]] == [["road"], ["car", "automobile"], ["sky"]]
    with Image.open(tmp_path / "masks" / "garden.labels.png") as labels:
        assert labels.size == (64, 48)
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_words_in_other_ways(run, picture, tmp_path):
    (tmp_path / "w.txt").write_text("road\ncar\n")
    for way in (["--words", "road; car"], ["--words-file", "w.txt"]):
        assert run("segment", picture, *way, *SMALL)[0] == 0
        assert len(json.loads((tmp_path / "masks" / "garden.masks.json").read_text())["classes"]) == 2
    assert run("segment", picture, "--vocabulary", "ade20k-847", *SMALL)[0] == 0
    with Image.open(tmp_path / "masks" / "garden.labels.png") as labels:
        assert labels.mode == "I;16"
    content = json.loads((tmp_path / "masks" / "garden.masks.json").read_text())
    assert content["settings"]["keep"] == 48
    assert content["unlabelled"] == 65535


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["water, hedge"], "note: 1 word: water, also called hedge — write ; between classes"),
        (["--words", "cat . dog . sofa"], "note: 1 word: cat . dog . sofa — write ; between classes"),
        (["road|car", "sky"], "note: 1 of 2 words: road|car — write ; between classes"),
        (["cup, mug", "spoon", "table"], None),
        (["--words", "cup, mug; spoon; table"], None),
        (["cup"], None),
        (["--vocabulary", "ade20k-150"], None),
    ],
)
def test_how_words_were_understood_is_said(run, picture, tmp_path, words, note):
    (tmp_path / "pictures").mkdir()
    picture.rename(tmp_path / "pictures" / "garden.png")
    for command in (["segment", "pictures"], ["explain", "pictures/garden.png"], ["batch", "pictures", "labels"]):
        status, out, err = run(*command, *words, *SMALL)
        assert status == 0, err
        assert [line for line in err.splitlines() if line.startswith("note: ") and "word" in line] == [note] * bool(
            note
        )
        assert "Warning" not in err + out


def test_what_a_command_prints_another_reads(run, picture, tmp_path):
    for name in ("eov-seg/ade20k-150", "err-seg/ade20k-847"):
        (tmp_path / "words.txt").write_text(run("vocabularies", name)[1])
        assert run("segment", picture, "--words-file", "words.txt", *SMALL)[0] == 0
        classes = json.loads((tmp_path / "masks" / "garden.masks.json").read_text())["classes"]
        wanted = Vocabulary.builtin(name)
        assert [(tuple(entry["names"]), entry["thing"]) for entry in classes] == [
            (entry.names, entry.thing) for entry in wanted
        ]


def test_a_words_file_may_be_a_pipe(run, picture, tmp_path):
    """Which is read once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["bash", "-c", f"printf 'road\\nsky\\n' > {pipe}"])
    assert run("segment", picture, "--words-file", pipe, *SMALL)[0] == 0
    assert writer.wait(10) == 0


def test_every_setting_is_recorded(run, picture, tmp_path):
    settings = [
        "--keep",
        2,
        "--threshold",
        0.1,
        "--background",
        "other",
        "--synonyms",
        "mean",
        "--precision",
        "bfloat16",
        "--device",
        "cpu",
    ]
    assert run("segment", picture, "road", "sky", *settings, "--output", "out", *SMALL)[0] == 0
    content = json.loads((tmp_path / "out" / "garden.masks.json").read_text())
    assert content["settings"] == {
        "keep": 2,
        "threshold": 0.1,
        "background": "other",
        "synonyms": "mean",
        "precision": "bfloat16",
    }
    assert content["model"] == "err-seg-untrained"


def test_tasks(run, picture, tmp_path):
    words, model = ["person", "sky", "car", "grass"], ["--model", "eov-seg-untrained"]
    endings = {"panoptic": ["panoptic.json", "panoptic.png"], "instance": ["instances.json"], "semantic": []}
    for task, own in endings.items():
        status, out, err = run("segment", picture, *words, *model, "--task", task, "--output", task)
        assert status == 0, err
        names = sorted(path.name.removeprefix("garden.") for path in (tmp_path / task).iterdir())
        assert names == sorted(["labels.png", "masks.json", "masks.png", *own])
        assert all(f"garden.{name}" in out for name in names)
        assert json.loads((tmp_path / task / "garden.masks.json").read_text())["task"] == task
    assert run("segment", picture, *words, *model, "--output", "default")[0] == 0
    assert (tmp_path / "default" / "garden.panoptic.png").read_bytes() == (
        tmp_path / "panoptic" / "garden.panoptic.png"
    ).read_bytes()
    for bad, message in (
        (["sky", *model, "--task", "instance"], "no word is one"),
        (["sky", *SMALL, "--task", "panoptic"], "does semantic"),
    ):
        status, _, err = run("segment", picture, *bad, "--output", "bad")
        assert status == 2
        assert message in err
    assert (
        run(
            "segment", picture, *words, *model, "--task", "instance", "--threshold", 1, "--most", 7, "--output", "none"
        )[0]
        == 0
    )
    content = json.loads((tmp_path / "none" / "garden.masks.json").read_text())
    assert content["regions"] == []
    assert content["settings"]["most"] == 7


def test_a_folder_with_a_bad_picture(run, photos, tmp_path):
    (photos / "1.jpg").write_bytes((photos / "0.jpg").read_bytes()[:300])
    (photos / "notes.png").write_text("no picture")
    status, _, err = run("segment", photos, "sky", *SMALL)
    assert status == 1
    assert "2 of 4 pictures failed" in err
    assert "1.jpg" in err
    assert "notes.png" in err
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert written == [
        f"{number}.{ending}" for number in (0, 2) for ending in ("labels.png", "masks.json", "masks.png")
    ]


def test_what_is_left_out_and_what_is_no_file_is_told(run, photos):
    (photos / "notes.txt").write_text("x")
    (photos / ".DS_Store").write_text("x")
    (photos / "gone.jpg").symlink_to("nothing")
    os.mkfifo(photos / "pipe.png")
    (photos / "linked.jpg").symlink_to("0.jpg")
    for _ in range(2):  # the second time with results there
        status, out, err = run("segment", "photos", "sky", *SMALL, "--output", "photos/masks")
        assert status == 1
        assert "4 of 6 pictures → photos/masks/" in out
        assert "2 of 6 pictures failed:" in err
        assert "'photos/gone.jpg' is a link to 'nothing', which can't be opened" in err
        assert "'photos/pipe.png' is no file, but a pipe" in err
        assert "left out: 1 no picture: photos/notes.txt\nleft out: 1 hidden: photos/.DS_Store\n" in err
    assert "left out: 1 written by wordmask: photos/masks/" in err


def test_names_are_shown_and_not_obeyed(run, picture, tmp_path):
    """Neither by the terminal nor by rich, whose markup [/b] would be."""
    picture.rename(tmp_path / "\x1b[31m\x07\n[b]\x9b.png")
    (tmp_path / "[").mkdir()
    (tmp_path / "[" / "b].safetensors").write_text("x")
    status, out, err = run("segment", ".", "sky", *SMALL)
    assert status == 0
    assert out.startswith(r"\x1b[31m\x07\n[b]\x9b.png: sky")
    status, _, more = run("segment", ".", "sky", "--model", "[/b].safetensors")
    assert status == 2
    assert "[/b].safetensors" in more
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err + more)


def test_many_pictures_are_counted(run, photos, picture, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    Image.fromarray(colourful(30, 40, 9)).save(photos / "deep.png")
    status, out, err = run("segment", photos, picture, "sky", *SMALL)
    assert status == 0
    assert "Segmenting" in err
    assert "5/5" in err
    assert "5 of 5 pictures → masks/" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["garden.png"], "No words were given"),
        (["garden.png", " "], "blank"),
        (["garden.png", "car", "Car"], "given twice"),
        (["garden.png", "word " * 80], "tokens; CLIP reads 77"),
        (["sky", "road"], "No picture was given"),
        (["missing.jpg", "sky"], "no picture 'missing.jpg'"),
        (["garden.png", "sky", "--words", "road"], "came in 2 ways"),
        (["garden.png", "--vocabulary", "ade150"], "Did you mean ade20k-150"),
        (["garden.png", "--words-file", "missing.txt"], "does not exist"),
        (["garden.png", "sky", "--model", "err-seg-bse"], "Did you mean err-seg-base"),
        (["garden.png", "sky", "--model", "garden.png"], "not a PyTorch file"),
        (["garden.png", "sky", "--device", "gpu"], "cannot be used here"),
        (["garden.png", "sky", "--precision", "float64"], "float64"),
        (["garden.png", "sky", "--keep", "0"], "keep"),
        (["garden.png", "sky", "--threshold", "2"], "threshold"),
        (["garden.png", "sky", "--background", "sky"], "background"),
        (["garden.png", "sky", "--output", "garden.png"], "cannot be written to"),
        (["garden.png", "sky", "--output", "/proc/nowhere"], "cannot be written to"),
    ],
)
def test_errors_are_messages(run, picture, tmp_path, arguments, message):
    if "--model" not in arguments:
        arguments = [*arguments, *SMALL]
    status, _, err = run("segment", *arguments)
    assert status == 2
    assert message in err
    assert not list(tmp_path.glob("masks/*"))


def test_running_out_of_memory_stops_one_picture(run, photos, tmp_path, monkeypatch):
    import torch

    from wordmask.segmenter import Segmenter

    ordinary = Segmenter._run

    def hungry(self, group, *arguments, **settings):
        if group[0].source.endswith("1.jpg"):
            raise torch.OutOfMemoryError("no memory for this")
        return ordinary(self, group, *arguments, **settings)

    monkeypatch.setattr(Segmenter, "_run", hungry)
    status, _, err = run("segment", photos, "sky", *SMALL)
    assert status == 1
    assert "1.jpg: OutOfMemoryError: no memory for this" in err
    assert len(list((tmp_path / "masks").iterdir())) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_whole_files(tmp_path, stop, status):
    """Stopped in the middle of a folder: what is written is whole, what was begun is gone, and the count is told."""
    (tmp_path / "photos").mkdir()
    for number in range(200):
        Image.fromarray(colourful(30, 40, number)).save(tmp_path / "photos" / f"{number:03}.png")
    command = [sys.executable, "-m", "wordmask", "segment", "photos", "sky", "car", *SMALL]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "masks").glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    written = sorted(path.name for path in (tmp_path / "masks").iterdir())
    stems = {name.split(".")[0] for name in written}
    assert written == sorted(
        f"{stem}.{ending}" for stem in stems for ending in ("labels.png", "masks.json", "masks.png")
    )
    assert f"{len(stems)} of 200 pictures" in out


@pytest.mark.slow
def test_a_reader_who_leaves_stops_nothing(tmp_path, photos):
    for number, pipe in enumerate(("|", "2>&1 |")):
        command = (
            f"{sys.executable} -m wordmask segment photos sky --model err-seg-untrained -o out{number} {pipe} true"
        )
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "failed" not in done.stderr
        assert "Traceback" not in done.stderr
        assert len(list((tmp_path / f"out{number}").iterdir())) == 9


def test_version(run):
    import wordmask

    assert run("--version")[1] == f"wordmask {wordmask.__version__}\n"


def test_a_terminal_of_another_encoding(tmp_path, picture):
    command = [sys.executable, "-m", "wordmask", "segment", str(picture), "猫", *SMALL]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="latin-1", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_a_bad_picture_alone(run, tmp_path, content):
    Image.fromarray(colourful(64, 64)).save(tmp_path / "bad.jpg")
    whole = (tmp_path / "bad.jpg").read_bytes()
    (tmp_path / "bad.jpg").write_bytes(
        {"truncated": whole[: len(whole) // 2], "text": b"milk, bread", "empty": b""}[content]
    )
    status, _, err = run("segment", "bad.jpg", "sky", *SMALL)
    assert status == 1
    assert "The picture failed" in err
    assert not list((tmp_path / "masks").iterdir())


def test_convert(run, tmp_path, tiny):
    import torch

    from wordmask.models import MODELS

    torch.save(
        {"model": {MODELS["err-seg"].reference.name(name): tensor for name, tensor in tiny.state_dict().items()}},
        tmp_path / "in.pth",
    )
    status, out, err = run("convert", "in.pth", "out.safetensors")
    assert status == 0, err
    assert "err-seg-untrained, every weight used" in out
    assert run("convert", "in.pth", "out.safetensors")[2].startswith("error: 'out.safetensors' exists")
    assert run("convert", "in.pth", "out.safetensors", "--overwrite")[0] == 0
    assert "ends in .safetensors" in run("convert", "in.pth", "out.pth")[2]
    assert "do not fit the model" in run("convert", "in.pth", "new.safetensors", "--model", "err-seg-base")[2]
    assert "does not exist" in run("convert", "missing.pth", "new.safetensors")[2]
    assert not (tmp_path / "new.safetensors").exists()
    Image.fromarray(colourful(30, 40)).save(tmp_path / "a.png")
    assert run("segment", "a.png", "sky", "--model", "out.safetensors")[0] == 0


def test_vocabularies(run):
    _, out, _ = run("vocabularies")
    assert "err-seg/ade20k-150" in out
    assert "MIT" in out
    _, out, _ = run("vocabularies", "eov-seg/ade20k-150")
    assert "sky, clouds [stuff]\n" in out, "a words file"
    assert "    2  stuff  sky, clouds" in list(describe_classes("eov-seg/ade20k-150", plainly=False))
    assert "Did you mean" in run("vocabularies", "ade")[2]


def test_help_imports_nothing_heavy():
    """So that it answers in a fraction of a second."""
    script = (
        "import sys; sys.argv = ['wordmask', '--help']\n"
        "try:\n  from wordmask.cli import main; main()\n"
        "finally:\n  print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "segment" in out
    assert out.strip().endswith("[]")
