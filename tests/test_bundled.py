"""The models in the package: packed small, shared once, loaded without network, as good as their card says, and shown
by the demo."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import wordmask
from wordmask import bundled
from wordmask.cli import app
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.demo import UNSEEN, demo
from wordmask.models import InPackage, kind_of, preset_names
from wordmask.models.load import load_model
from wordmask.segmenter import Segmenter
from wordmask.training.validation import ValidationScores, pictures_of, validate
from wordmask.weights import Checkpoint

ROOT = Path(__file__).parents[1]
MODELS = [name for name in preset_names() if isinstance(kind_of(name).released.get(name), InPackage)]
FOUND = {"err-seg-tiny": 0.75, "eov-seg-tiny": 0.3}  # of what is in the demo's scenes, at least
LARGEST_CHANGE = 0.2  # of mIoU or PQ, by bfloat16
LARGEST = 40 * 10**6  # bytes, of all bundled files


def checkpoint(**state: torch.Tensor) -> Checkpoint:
    return Checkpoint(state, "err-seg", {"resolution": 64}, "", "a test")


def test_what_models_share_is_stored_once(tmp_path):
    torch.manual_seed(0)
    tower, other = torch.randn(300, 300), torch.randn(300, 300)
    ours = {"clip.a": tower, "clip.b": other, "head": torch.randn(4), "count": torch.tensor(3)}
    theirs = {"clip.a": tower.clone(), "clip.b": other + 1, "tail": torch.randn(4), "count": torch.tensor(4)}
    size = bundled.pack({"one": checkpoint(**ours), "two": checkpoint(**theirs)}, tmp_path)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 2 * 3 * tower.numel() + 5000, "three matrices of half precision, not four"
    for name, state in (("one", ours), ("two", theirs)):
        read = bundled.unpack(name, tmp_path)
        assert (read.family, read.configuration, read.origin) == ("err-seg", {"resolution": 64}, "a test")
        assert read.state.keys() == state.keys()
        for key, tensor in state.items():
            assert read.state[key].dtype == tensor.dtype
            assert torch.equal(read.state[key], tensor.half().float() if tensor.is_floating_point() else tensor)


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one: head holds 7e\\+04"):
        bundled.pack({"one": checkpoint(head=torch.tensor([70000.0]))}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="bundled model 'one' is missing or damaged"):
        bundled.unpack("one", tmp_path)
    bundled.pack({"one": checkpoint(head=torch.ones(2))}, tmp_path)
    (tmp_path / "one.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="Install wordmask again"):
        bundled.unpack("one", tmp_path)


# The models themselves ------------------------------------------------------------------------------------------------


def test_they_are_small():
    files = list(bundled.FOLDER.glob("*.safetensors"))
    assert {path.stem for path in files} == {*MODELS, "shared"}
    assert sum(path.stat().st_size for path in files) <= LARGEST


@pytest.mark.parametrize("name", MODELS)
def test_they_load_without_network_and_take_any_word(name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("network"))
    segment = wordmask.load(name, device="cpu")
    picture = Shapeland("shapeland-150", "test", 1)[0].rgb
    result = segment(picture, ["zebra crossing", "Löwenzahn", "grass"])
    assert result.labels.shape == picture.shape[:2]


@pytest.mark.parametrize("name", MODELS)
def test_they_are_as_good_as_their_card_says(name):
    """On a few scenes, measured again; the card's figures over many are of the same run."""
    said = json.loads((bundled.FOLDER / "scores.json").read_text())["small"]
    data = Shapeland(said["vocabulary"], "test", said["scenes"])
    scores = validate(load_model(name).model.for_inference(), data, unseen=unseen_classes(said["vocabulary"]))
    assert scores == pytest.approx(said["scores"][name], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_hardly_changes_them(name):
    """On a few scenes, measured again: 99 pixels in 100 keep their class."""
    data, model = Shapeland("shapeland-150", "test", 4), load_model(name).model.for_inference()
    full, half = (
        ValidationScores(Segmenter(model, precision=precision), data.vocabulary)
        for precision in ("float32", "bfloat16")
    )
    found = [[score.add(labelled)["semantic"].labels for score in (full, half)] for labelled in pictures_of(data)]
    same = np.mean([np.mean(one == other) for one, other in found])
    assert same >= 0.99
    assert same < 1, "it is another precision"


def test_bfloat16_was_measured_on_many_scenes():
    found = json.loads((ROOT / "docs" / "results" / "precision.json").read_text())["found"]
    assert {one["model"] for one in found} == set(MODELS)
    for one in found:
        full, half = one["scores"]["float32"], one["scores"]["bfloat16"]
        assert all(abs(half[name] - full[name]) <= LARGEST_CHANGE for name in full), one
        assert one["same labels"]["mean"] >= 0.995, "as the guide has it"


def test_the_card_holds_the_scores():
    said = json.loads((bundled.FOLDER / "scores.json").read_text())
    card = (bundled.FOLDER / "CARD.md").read_text()
    for rows in said["scores"].values():
        for row in rows.values():
            assert all(f" {value:.1f} " in card for value in row.values())


def test_the_towers_are_shared():
    one, two = (load_model(name).model.clip.state_dict() for name in MODELS)
    same = [name for name in one if torch.equal(one[name], two[name])]
    assert "token_embedding.weight" in same
    assert sum(one[name].numel() for name in same) > 0.8 * sum(tensor.numel() for tensor in one.values())


def test_the_demo_shows_what_it_never_saw_a_label_of(tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("network"))
    path, shown = demo(tmp_path, scenes=2, seed=3, device="cpu")
    page = np.array(Image.open(path))
    assert page.std() > 20
    unseen = {thing.name for thing in UNSEEN}
    assert all(one.there & unseen for one in shown)
    for name, share in FOUND.items():
        found = sum(len({region.name for region in one.results[name].regions} & one.there) for one in shown)
        assert found >= share * sum(len(one.there) for one in shown), name
    assert {"scene-1.err-seg-tiny.masks.png", "scene-2.eov-seg-tiny.panoptic.json"} <= {
        file.name for file in tmp_path.iterdir()
    }


def test_the_demo_in_the_shell(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["demo", "--scenes", "1"])
    assert done.exit_code == 0, done.output
    assert "scene 1" in done.output
    assert (tmp_path / "demo" / "demo.png").exists()
    shutil.rmtree(tmp_path / "demo")
