"""A real photograph through the shell with a full-size checkpoint in the reference's format, filled by the parity cases' rule."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.mark.slow
def test_a_photograph_through_the_shell(parity, shared, tmp_path):
    keys = json.loads((parity.folder / "err_seg_b.keys.json").read_text())
    state = {name: torch.tensor(parity.fill(name, tuple(shape))) for name, shape in keys.items()}
    torch.save({"model": state, "iteration": 80_000, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "model_final.pth")
    photo = shared / "samples" / "ade20k" / "images" / "ADE_val_00000001.jpg"
    command = [sys.executable, "-m", "wordmask", "segment", str(photo), "--vocabulary", "ade20k-150", "--model", "model_final.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "masks" / "ADE_val_00000001.masks.json").read_text())
    with Image.open(photo) as image, Image.open(tmp_path / "masks" / "ADE_val_00000001.labels.png") as labels:
        assert labels.size == image.size == (content["size"]["width"], content["size"]["height"])
        values, areas = np.unique(labels, return_counts=True)
    assert {region["label"]: region["area"] for region in content["regions"]} == dict(zip(values.tolist(), areas.tolist(), strict=True))
    assert len(content["classes"]) == 150
    assert 2 <= len(content["regions"]) <= 32, "at most the classes kept"
    with Image.open(tmp_path / "masks" / "ADE_val_00000001.masks.png") as overlay:
        assert overlay.width >= image.width
        assert overlay.height > image.height
