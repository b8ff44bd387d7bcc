"""Whether what goes on is made of the same: data by their contents, code by its sources."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from torch import nn

from conftest import colourful
from wordmask import fingerprints
from wordmask.data.datasets import open_folder
from wordmask.data.labelled import data_fingerprint
from wordmask.data.shapeland import Shapeland
from wordmask.text import TextCache


@pytest.fixture
def own(tmp_path):
    """Four pictures with labels, as people keep them."""
    root = tmp_path / "own"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(colourful(24, 32, number)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.full((24, 32), number % 2, np.uint8)).save(root / "labels" / f"{number}.png")
    (root / "names.txt").write_text("car\nroad [stuff]\n")
    return root


@pytest.fixture
def own_json(tmp_path):
    root = tmp_path / "json"
    (root / "images").mkdir(parents=True)
    Image.fromarray(colourful(24, 32)).save(root / "images" / "a.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 20, 2, 20, 15]], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "car"}],
    }
    (root / "annotations.json").write_text(json.dumps(content, indent=1))
    return root


def of(root) -> str:
    return data_fingerprint(open_folder(root))


def test_what_matters_changes_it(own):
    seen = {of(own)}
    Image.fromarray(np.ones((24, 32), np.uint8)).save(own / "labels" / "0.png")
    seen.add(of(own))
    Image.fromarray(255 - colourful(24, 32)).save(own / "images" / "0.png")
    seen.add(of(own))
    (own / "names.txt").write_text("car\nstreet [stuff]\n")
    seen.add(of(own))
    (own / "names.txt").write_text("car\nstreet [thing]\n")
    seen.add(of(own))
    for folder in ("images", "labels"):
        (own / folder / "3.png").unlink()
    seen.add(of(own))
    for folder in ("images", "labels"):
        (own / folder / "0.png").rename(own / folder / "z.png")
    seen.add(of(own))
    assert len(seen) == 7


def test_what_does_not_matter_does_not(own, own_json, tmp_path):
    before, before_json = of(own), of(own_json)
    for name in ("Thumbs.db", "images/Thumbs.db", "labels/desktop.ini", "images/.DS_Store", "notes.md"):
        (own / name).write_bytes(b"written by a file manager")
    (own / "names.txt").write_bytes(b"car\r\nroad [stuff]\r\n")
    assert of(own) == before
    shutil.move(own, tmp_path / "elsewhere")
    assert of(tmp_path / "elsewhere") == before
    text = (own_json / "annotations.json").read_bytes()
    (own_json / "annotations.json").write_bytes(text.replace(b"\n", b"\r\n"))
    (own_json / "images" / "another.png").write_bytes(b"not in the json")
    assert of(own_json) == before_json


def test_it_sees_through_linked_folders(own, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("images", "labels"):
        (linked / name).symlink_to(own / name)
    shutil.copy(own / "names.txt", linked)
    assert of(linked) == of(own)
    before = of(linked)
    for path in (own / "labels").iterdir():
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    without_labels = of(linked)
    (own / "images" / "3.png").unlink()
    (own / "labels" / "3.png").unlink()
    assert len({before, without_labels, of(linked)}) == 3


def test_a_large_picture_is_looked_at_in_blocks(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 5 * fingerprints.WHOLE, np.uint8)
    seen = set()
    for place in (None, 0, len(content) // 2, len(content) - 1):
        changed = content.copy()
        if place is not None:
            changed[place : place + fingerprints.WHOLE // 2] ^= 255
        (tmp_path / "a.tif").write_bytes(changed.tobytes())
        seen.add(fingerprints.of_picture(tmp_path / "a.tif"))
    (tmp_path / "a.tif").write_bytes(content[:-1].tobytes())
    assert len({*seen, fingerprints.of_picture(tmp_path / "a.tif")}) == 5


def test_some_pictures_of_generated_data():
    data = Shapeland("shapeland-150", "test", 5)
    assert data_fingerprint(data) == data_fingerprint(data, range(5)) != data_fingerprint(data, range(4))


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of our sources, which may be edited."""
    home = tmp_path / "wordmask"
    shutil.copytree(fingerprints.HOME, home, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    monkeypatch.setattr(fingerprints, "HOME", home)
    return home


@pytest.mark.parametrize(
    "name",
    ["models/err_seg.py", "postprocess.py", "text.py", "evaluation/metrics.py", "data/labels/coco-stuff-171.json"],
)
def test_the_code_that_computes_changes_it(copied, name):
    before = fingerprints.of_code()
    (copied / name).write_text((copied / name).read_text() + "\n")
    assert fingerprints.of_code() != before


def test_code_that_only_shows_does_not(copied):
    before = fingerprints.of_code()
    for name in ("serve/server.py", "cli.py", "drawing.py"):
        (copied / name).write_text("# another\n")
    (copied / "postprocess.py").write_bytes((copied / "postprocess.py").read_bytes().replace(b"\n", b"\r\n"))
    (copied / "models" / "__pycache__").mkdir()
    (copied / "models" / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert fingerprints.of_code() == before


def test_a_model_of_ones_own_counts_and_libraries_by_version(tmp_path, monkeypatch):
    class Mine(nn.Linear):
        pass

    files = fingerprints.files_that_define(Mine(1, 1).modules())
    assert [path.name for path in files] == ["test_fingerprints.py"]
    assert fingerprints.of_code(files) != fingerprints.of_code()
    before = fingerprints.of_code()
    monkeypatch.setattr(fingerprints, "versions", lambda: {"torch": "0"})
    assert fingerprints.of_code() != before


def test_words_that_other_code_encoded_are_encoded_again(copied, tmp_path):
    import torch

    asked = []

    def encode(phrases):
        asked.extend(phrases)
        return torch.nn.functional.normalize(torch.randn(len(phrases), 8), dim=-1)

    for _ in range(2):
        TextCache("0" * 16, ("a {}.",), tmp_path).encode(["sky"], encode)
    assert asked == ["sky"]
    (copied / "clip.py").write_text("# another\n")
    TextCache("0" * 16, ("a {}.",), tmp_path).encode(["sky"], encode)
    assert asked == ["sky", "sky"]
