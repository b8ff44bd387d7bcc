"""A family that emits maps of all classes and inherits nothing of ours: the least that `Model` asks for is enough."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import colourful, noise_for
from serving import running
from wordmask import clip
from wordmask.clip import ClipConfig
from wordmask.evaluation.evaluate import evaluate
from wordmask.evaluation.protocols import PROTOCOLS, Protocol
from wordmask.explain.answer import explain
from wordmask.models import MODELS, ModelKind, err_seg
from wordmask.pixels import MEAN, STD, ImageInput
from wordmask.raw import ClassMaps
from wordmask.runtime import Runtime
from wordmask.segmenter import Segmenter, load
from wordmask.text import Words, encode_phrases
from wordmask.training.command import start
from wordmask.weights import save

PRESET = "cost-alone-untrained"
WORDS = ["person", "sky", "car, automobile", "grass", "tree"]
SIZE = (60, 90)


@dataclass(frozen=True)
class CostAloneConfig:
    clip: ClipConfig


class CostAlone(nn.Module):
    """The cosine of every pixel and word, sharpened by a factor and a convolution: every class, and no choice."""

    family = "cost-alone"
    vocabularies = "err-seg"
    templates = ("a photo of a {}.",)
    tasks = ("semantic",)
    synonyms = "first"
    keep_steps = ()
    training_vocabulary = ""
    emits = ClassMaps
    stages: Mapping[str, str] = MappingProxyType({"encode_image": "CLIP", "compare": "comparison"})

    def __init__(self, config: CostAloneConfig):
        super().__init__()
        self.config = config
        self.clip = clip.build(config.clip)
        self.sharpen = nn.Conv2d(1, 1, kernel_size=3, padding=1)

    @property
    def image_input(self) -> ImageInput:
        return ImageInput(128, 1000, square=128, mean=MEAN, std=STD)

    @staticmethod
    def is_trained(name: str) -> bool:
        return name.startswith("sharpen.")

    def start_from_clip(self) -> None:
        pass

    def for_inference(self) -> "CostAlone":
        return self

    def encode_text(self, phrases: list[str]) -> Tensor:
        return encode_phrases(self.clip, phrases, self.templates)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(clip.project_pixels(self.clip, clip.stage_maps(self.clip, pixels)[-1]), dim=1)

    def compare(self, x: Tensor, text: Tensor) -> Tensor:
        cost = torch.einsum("bdhw,td->bthw", x, text.to(x.dtype))
        return self.sharpen(10 * cost.flatten(0, 1)[:, None]).unflatten(0, (len(x), len(text)))[:, :, 0]

    def forward(self, pixels: Tensor, words: Words) -> ClassMaps:
        logits = self.compare(self.encode_image(pixels), words.embeddings)
        pictures, classes = logits.shape[:2]
        kept = torch.arange(classes, device=logits.device).expand(pictures, -1)
        return ClassMaps(logits, kept, logits.new_zeros(pictures, classes))


def move_in(add: Callable[[str, ModelKind], None]) -> None:
    """Its row in the table of families."""
    presets = {PRESET: CostAloneConfig(err_seg.PRESETS["err-seg-untrained"].clip)}
    add("cost-alone", ModelKind("cost-alone", CostAlone, CostAloneConfig, presets, objective="semantic"))


@pytest.fixture(autouse=True)
def moved_in(monkeypatch):
    move_in(partial(monkeypatch.setitem, MODELS))
    monkeypatch.setitem(PROTOCOLS, "cost-alone", {"shapeland-150": Protocol("shapeland/shapeland-150")})


@pytest.fixture
def checkpoint(tmp_path):
    kind = MODELS["cost-alone"]
    model = kind.random(kind.presets[PRESET])
    state = {name: noise_for(name, tensor) for name, tensor in model.state_dict().items()}
    path = tmp_path / "plain.safetensors"
    save(path, state, family=kind.family, configuration=kind.presets[PRESET], origin="a test")
    return path


@pytest.fixture
def segment(checkpoint) -> Segmenter:
    return load(checkpoint, cache=None)


def test_it_segments_whole_pictures_and_large_ones(segment):
    assert segment(colourful(*SIZE), WORDS, per_pixel=True).confidence.shape == SIZE
    assert segment(colourful(150, 300), WORDS, tile="auto").regions
    with pytest.raises(ValueError, match="keep says nothing to"):
        segment(colourful(*SIZE), WORDS, keep=3)


def test_it_is_evaluated_served_and_timed(segment, run, small_bench):
    report = evaluate(segment, ["shapeland-150"], pictures=1, work=small_bench)
    assert "mIoU" in json.dumps(report.to_dict())
    with running({"plain": segment}) as server:
        assert server.segment().json()["task"] == "semantic"
    status, out, err = run("bench", PRESET, "--runs", 1, "--precision", "float32")
    assert status == 0, err
    assert all(label in out for label in CostAlone.stages.values())


def test_what_is_not_known_of_it_is_said(segment):
    with pytest.raises(ValueError, match="not known for cost-alone"):
        explain(segment, colourful(*SIZE), WORDS)


def test_a_collection(run, checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.fromarray(colourful(*SIZE, number)).save(tmp_path / "photos" / f"{number}.png")
    status, _, err = run("batch", "photos", "out", *WORDS, "--model", checkpoint, "--processes", 1)
    assert status == 0, err
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 2


@pytest.mark.slow
def test_it_is_fine_tuned(garden, checkpoint, tmp_path):
    few = ["steps=2", "batch=2", "workers=0", "pictures=1", "precision=float32"]
    assert start("finetune", [f"data={garden}", f"start={checkpoint}", f"folder={tmp_path / 'tuned'}", *few]).finished
    assert load(tmp_path / "tuned" / "finetuned.safetensors", cache=None).model.family == "cost-alone"


EXPORT = """
import sys
from pathlib import Path
import test_plain_family as plain
from wordmask.export import export
from wordmask.segmenter import load

plain.move_in(plain.MODELS.__setitem__)
export(load(sys.argv[1], device="cpu", precision="float32"), Path(sys.argv[2]), form="onnx")
"""


@pytest.mark.slow
def test_it_is_exported(segment, checkpoint, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    place = {"PYTHONPATH": str(Path(__file__).parent), "WORDMASK_TEST_COMPILED": "1"}
    command = [sys.executable, "-c", EXPORT, str(checkpoint), str(tmp_path / "graphs")]
    done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runtime, picture = Runtime(tmp_path / "graphs"), Image.fromarray(colourful(*SIZE))
    found, result = runtime(picture, WORDS), segment(picture, WORDS)
    assert (np.where(result.labels == result.unlabelled, -1, result.labels.astype(int)) == found.labels).mean() > 0.999
    with pytest.raises(ValueError, match="a model that chooses classes"):
        runtime(picture, WORDS, keep=2)
