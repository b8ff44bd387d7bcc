"""A family that moves in from outside, as CONTRIBUTING tells it: nobody else has to move.

It is EOV-Seg under another name, small, with random weights. Its file, its row and its protocol stand here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import colourful, noise_for
from serving import running
from wordmask import clip
from wordmask.evaluation.evaluate import evaluate
from wordmask.evaluation.protocols import PROTOCOLS, Protocol
from wordmask.explain.answer import explain
from wordmask.explain.sheets import draw
from wordmask.models import MODELS, ModelKind
from wordmask.models.convert import from_reference
from wordmask.models.eov_seg import PRESETS, EovSeg, EovSegConfig
from wordmask.runtime import Runtime
from wordmask.segmenter import Segmenter, load
from wordmask.training.command import start
from wordmask.training.from_clip import from_clip
from wordmask.training.objectives import objective_of
from wordmask.weights import save, save_tensors

PRESET = "fc-clip-untrained"
WORDS = ["person", "sky", "car, automobile", "grass", "tree"]
SIZE = (40, 170)  # something is found in it


class FcClip(EovSeg):
    """Its file: configuration, parts, model and presets would stand in `models/fc_clip.py`."""

    family = "fc-clip"


def move_in(add: Callable[[str, ModelKind], None]) -> None:
    """Its row in the table of families."""
    small = replace(PRESETS["eov-seg-untrained"], shortest_edge=128)
    add("fc-clip", ModelKind("fc-clip", FcClip, EovSegConfig, {PRESET: small}, objective="masks"))


@pytest.fixture(autouse=True)
def moved_in(monkeypatch):
    """That row, and its row in the table of protocols."""
    move_in(partial(monkeypatch.setitem, MODELS))
    monkeypatch.setitem(PROTOCOLS, "fc-clip", {"shapeland-150": Protocol("shapeland/shapeland-150")})


@pytest.fixture
def checkpoint(tmp_path):
    """A file of it, whose weights matter."""
    kind = MODELS["fc-clip"]
    model = kind.random(kind.presets[PRESET])
    state = {name: noise_for(name, tensor) for name, tensor in model.state_dict().items()}
    path = tmp_path / "fc.safetensors"
    save(path, state, family=kind.family, configuration=kind.presets[PRESET], origin="a test")
    return path


@pytest.fixture
def segment(checkpoint) -> Segmenter:
    return load(checkpoint, cache=None)


def test_it_has_a_preset(segment):
    assert load(PRESET, cache=None).model.family == segment.model.family == "fc-clip"
    with pytest.raises(ValueError, match="Did you mean fc-clip-untrained"):
        load("fc-clip-untraind")


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_every_task(segment, task):
    result = segment(colourful(*SIZE), WORDS, task=task)
    assert result.task == task
    assert result.regions
    assert result.draw().width >= SIZE[1]


def test_large_pictures(segment):
    result = segment(colourful(150, 300), WORDS, task="semantic", tile="auto", per_pixel=True)
    assert result.settings.tile == 128
    assert result.confidence.shape == (150, 300)


def test_what_it_went_by(segment):
    found = explain(segment, colourful(*SIZE), WORDS)
    assert found.result.regions
    assert list(draw(found, most=2)) == ["selection", "queries", "gates"]
    assert json.dumps(found.to_dict())


def test_it_is_evaluated(segment, tmp_path):
    report = evaluate(segment, ["shapeland-150"], pictures=1, work=tmp_path)
    assert "PQ" in json.dumps(report.to_dict())
    with pytest.raises(ValueError, match="shapeland-847 is not known for fc-clip"):
        evaluate(segment, ["shapeland-847"], pictures=1, work=tmp_path)


def test_the_command_line(run, checkpoint, tmp_path):
    Image.fromarray(colourful(*SIZE)).save(tmp_path / "a.png")
    assert run("segment", "a.png", *WORDS, "--model", checkpoint)[0] == 0
    assert (tmp_path / "masks" / "a.panoptic.json").exists()
    status, _, err = run("segment", "a.png", *WORDS, "--model", checkpoint, "--keep", 3)
    assert (status, "keep says nothing" in err) == (2, True)


def test_a_collection(run, checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(colourful(*SIZE, number)).save(tmp_path / "photos" / f"{number}.png")
    formats = ["--format", "labels", "--format", "coco-panoptic"]
    status, _, err = run("batch", "photos", "out", *WORDS, "--model", checkpoint, "--processes", 1, *formats)
    assert status == 0, err
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 3


def test_a_server(segment):
    with running({"fc": segment}) as server:
        answer = server.segment(task="panoptic").json()
        assert answer["task"] == "panoptic"
        (model,) = server.client.get("/v1/models").json()["models"]
        assert model["family"] == "fc-clip"


def test_it_is_timed_by_its_own_stages(run, small_bench):
    status, out, err = run("bench", PRESET, "--runs", 1, "--precision", "float32")
    assert status == 0, err
    assert all(label in out for label in FcClip.stages.values())


EXPORT = """
import sys
from pathlib import Path
import test_third_family as third
from wordmask.export import export
from wordmask.segmenter import load

third.move_in(third.MODELS.__setitem__)
for path in export(load(sys.argv[1], device="cpu", precision="float32"), Path(sys.argv[2]), form="onnx"):
    print(path.name)
"""


@pytest.mark.slow
def test_it_is_exported(segment, checkpoint, tmp_path):
    """In a process of its own, where no shapes are checked: what checks them can't be recorded."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    place = {"PYTHONPATH": str(Path(__file__).parent), "WORDMASK_TEST_COMPILED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(checkpoint), str(tmp_path / "graphs")],
        env=os.environ | place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    picture = Image.fromarray(colourful(*SIZE))
    found = Runtime(tmp_path / "graphs")(picture, WORDS)
    result = segment(picture, WORDS)
    assert (np.where(result.labels == result.unlabelled, -1, result.labels.astype(int)) == found.labels).mean() > 0.999


def test_its_training_begins_with_clip(tmp_path):
    towers = clip.build(PRESETS["eov-seg-untrained"].clip)
    save_tensors(tmp_path / "clip.safetensors", towers.state_dict(), {})
    model = from_clip(PRESET, str(tmp_path / "clip.safetensors"), "random")
    assert model.family == "fc-clip"
    assert model.clip.text_projection.equal(towers.text_projection)


@pytest.mark.slow
def test_it_is_fine_tuned(garden, checkpoint, tmp_path):
    folder = tmp_path / "tuned"
    few = ["steps=2", "batch=2", "workers=0", "pictures=1", "precision=float32"]
    assert start("finetune", [f"data={garden}", f"start={checkpoint}", f"folder={folder}", *few]).finished
    assert "PQ" in json.loads((folder / "report.json").read_text())["scores"]["1.0"]["own"]
    tuned = load(folder / "finetuned.safetensors", cache=None)
    assert tuned.model.family == "fc-clip"
    assert "blue door" in tuned.model.training_vocabulary


def test_what_its_row_lacks_is_said(monkeypatch):
    with pytest.raises(ValueError, match="not known for fc-clip"):
        from_reference(PRESET, {"a": np.zeros(1)})
    with pytest.raises(ValueError, match=f"published CLIP is not known for {PRESET}"):
        from_clip(PRESET)
    with pytest.raises(ValueError, match="spatial tower is not known for fc-clip"):
        from_clip(PRESET, "random")
    monkeypatch.setitem(MODELS, "fc-clip", replace(MODELS["fc-clip"], objective=None))
    with pytest.raises(ValueError, match="objective is not known for fc-clip"):
        objective_of("fc-clip")
