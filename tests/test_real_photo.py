"""Real photographs: through the shell with a full-size checkpoint, and their true segments through our readings and
back."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from conftest import asked_for
from wordmask.image import prepare, read_picture
from wordmask.models.eov_seg import PRESETS, EovSeg
from wordmask.postprocess import read_panoptic
from wordmask.results import panoptic_result
from wordmask.vocabulary import Vocabulary


@pytest.mark.slow
def test_a_photograph_through_the_shell(parity, shared, tmp_path):
    keys = json.loads((parity.folder / "err_seg_b.keys.json").read_text())
    state = {name: torch.tensor(parity.fill(name, tuple(shape))) for name, shape in keys.items()}
    torch.save(
        {"model": state, "iteration": 80_000, "optimizer": {"state": {}, "param_groups": []}},
        tmp_path / "model_final.pth",
    )
    photo = shared / "samples" / "ade20k" / "images" / "ADE_val_00000001.jpg"
    command = [
        sys.executable,
        "-m",
        "wordmask",
        "segment",
        str(photo),
        "--vocabulary",
        "ade20k-150",
        "--model",
        "model_final.pth",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "masks" / "ADE_val_00000001.masks.json").read_text())
    with Image.open(photo) as image, Image.open(tmp_path / "masks" / "ADE_val_00000001.labels.png") as labels:
        assert labels.size == image.size == (content["size"]["width"], content["size"]["height"])
        values, areas = np.unique(labels, return_counts=True)
    assert {region["label"]: region["area"] for region in content["regions"]} == dict(
        zip(values.tolist(), areas.tolist(), strict=True)
    )
    assert len(content["classes"]) == 150
    assert 2 <= len(content["regions"]) <= 32, "at most the classes kept"
    with Image.open(tmp_path / "masks" / "ADE_val_00000001.masks.png") as overlay:
        assert overlay.width >= image.width
        assert overlay.height > image.height


@pytest.mark.parametrize("number", [0, 1])
def test_true_segments_survive_the_reading(shared, tmp_path, number):
    """Masks as a perfect model would draw them, at stride 4 of the padded input, give back the segments that people
    drew."""
    folder = shared / "samples" / "coco"
    truth = json.loads((folder / "panoptic.json").read_text())
    annotation = truth["annotations"][number]
    vocabulary = Vocabulary.builtin("eov-seg/coco-panoptic-133")
    label_of = {entry.dataset_id: label for label, entry in enumerate(vocabulary)}
    (name,) = (image["file_name"] for image in truth["images"] if image["id"] == annotation["image_id"])
    picture = read_picture(folder / "images" / name)
    with Image.open(folder / "panoptic" / annotation["file_name"]) as image:
        ids = np.array(image, dtype=int) @ [1, 256, 65536]
    segments = annotation["segments_info"]
    _, frame = prepare(picture, EovSeg.image_input.fget(SimpleNamespace(config=PRESETS["eov-seg-large"])))
    masks = torch.stack([torch.from_numpy(ids == segment["id"]).float() for segment in segments])
    masks = F.interpolate(masks[None], size=frame.resized, mode="bilinear", align_corners=False)
    masks = F.pad(masks, (0, frame.padded[1] - frame.resized[1], 0, frame.padded[0] - frame.resized[0]))
    mask_logits = 12 * F.avg_pool2d(masks, kernel_size=4)[0] - 6
    class_logits = torch.zeros(len(segments), len(vocabulary) + 1)
    class_logits[range(len(segments)), [label_of[segment["category_id"]] for segment in segments]] = 8
    things = torch.tensor([entry.thing for entry in vocabulary])
    origin = asked_for(picture, vocabulary, "panoptic", source=name)
    result = panoptic_result(read_panoptic(class_logits, mask_logits, things=things, frame=frame), origin)
    assert sorted(region.label for region in result.regions) == sorted(
        label_of[segment["category_id"]] for segment in segments
    )
    overlaps = []
    for segment in segments:
        mask = ids == segment["id"]
        best = max(result.regions, key=lambda region: (region.mask & mask).sum())
        overlaps.append((best.mask & mask).sum() / (best.mask | mask).sum())
        assert best.label == label_of[segment["category_id"]]
    assert np.mean(overlaps) > 0.9
    assert len(result.save(tmp_path / "truth")) == 5
