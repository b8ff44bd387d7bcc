"""ERR-Seg against what its reference computed, at every recorded stage."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import COMPILED, relative_error
from wordmask.image import prepare
from wordmask.models import MODELS
from wordmask.models.convert import from_reference
from wordmask.models.err_seg import loss
from wordmask.postprocess import read_semantic
from wordmask.raw import ClassMaps
from wordmask.segmenter import Segmenter
from wordmask.text import Words
from wordmask.training.optimiser import parameter_groups
from wordmask.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def reference_state(parity):
    keys = json.loads((parity.folder / "err_seg_b.keys.json").read_text())
    return {name: torch.tensor(parity.fill(name, tuple(shape))) for name, shape in keys.items()}


@pytest.fixture(scope="module")
def model(reference_state):
    return from_reference("err-seg-base", reference_state)


@pytest.fixture(scope="module")
def case(parity):
    path = parity.folder / "err_seg_b.safetensors"
    with safe_open(path, "pt") as file:
        settings = file.metadata()
    return load_file(path) | {"names": json.loads(settings["class_names"]), "keep": int(settings["kept_classes"])}


@pytest.fixture(scope="module")
def segment(model):
    return Segmenter(model, compile=COMPILED)


@pytest.fixture(scope="module")
def computed(model, case, segment):
    """Every stage, computed once through the public methods; what the whole model gives, as one graph where it is
    compiled."""
    with torch.inference_mode():
        pixels, frame = prepare(case["image"].numpy(), model.image_input)
        text = model.encode_text(case["names"])
        features = model.encode_image(pixels[None])
        words = Words(text, torch.arange(len(text)), torch.zeros(len(text), dtype=torch.bool))
        raw = segment.run(pixels[None], words, keep=case["keep"])
        return {
            "pixels": pixels[:, ::8, ::8],
            "text": text,
            "dense_x16": features.dense_x16[0, :, ::4, ::4],
            "dense_x32": features.dense_x32[0, :, ::2, ::2],
            "class_score": raw.votes[0],
            "kept": raw.kept[0],
            "kept_logits": raw.logits[0, :, ::4, ::4],
            "reading": read_semantic(raw.logits[0], raw.kept[0], frame),
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "tolerance"),
    [
        ("pixels", 1e-6),
        ("text", 1e-4),
        ("dense_x16", 1e-4),
        ("dense_x32", 1e-4),
        ("class_score", 1e-4),
        ("kept_logits", 1e-3),
    ],
)
def test_every_stage_equals_the_reference(computed, case, stage, tolerance):
    assert relative_error(computed[stage], case[stage]) <= tolerance


@pytest.mark.slow
def test_kept_classes_and_labels_equal_the_reference(computed, case):
    assert torch.equal(computed["kept"], case["kept"])
    assert relative_error(computed["reading"].confidence[::4, ::4], case["prob_max"]) <= 1e-4
    assert (computed["reading"].best[::4, ::4] == case["prob_argmax"]).float().mean() >= 0.999


@pytest.mark.slow
def test_the_whole_road_gives_the_reference_labels(segment, case):
    """Picture and built-in vocabulary in, label map out: the same through the public surface."""
    result = segment(case["image"].numpy(), "err-seg/ade20k-150", keep=case["keep"])
    assert (torch.from_numpy(result.labels[::4, ::4].astype("int16")) == case["prob_argmax"]).float().mean() >= 0.999


def test_built_in_names_are_the_ones_the_case_used(case):
    assert Vocabulary.builtin("err-seg/ade20k-150").names == [name.strip() for name in case["names"]]


@pytest.mark.parametrize(
    ("preset", "keys"), [("err-seg-base", "err_seg_b.keys.json"), ("err-seg-large", "err_seg_l.keys.json")]
)
def test_every_reference_key_is_used(parity, preset, keys):
    theirs = {name: tuple(shape) for name, shape in json.loads((parity.folder / keys).read_text()).items()}
    kind = MODELS["err-seg"]
    weights = kind.skeleton(kind.presets[preset]).state_dict()
    ours = {MODELS["err-seg"].reference.name(name): tuple(tensor.shape) for name, tensor in weights.items()}
    assert ours == theirs
    assert not MODELS["err-seg"].reference.dropped_names(theirs)


def test_loss_equals_the_reference(parity):
    case = load_file(parity.folder / "err_seg.loss.safetensors")
    classes = torch.arange(case["logits"].shape[1]).expand(len(case["logits"]), -1)
    raw = ClassMaps(case["logits"], classes, torch.zeros(case["logits"].shape[:2]))
    assert loss(raw, case["target"].long()).item() == pytest.approx(case["loss"].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "file"), [("err-seg-base", "err_seg_b.optimizer.json"), ("err-seg-large", "err_seg_l.optimizer.json")]
)
def test_trained_parameters_equal_the_reference(parity, preset, file):
    theirs = json.loads((parity.folder / file).read_text())["parameters"]
    kind = MODELS["err-seg"]
    groups = parameter_groups(kind.skeleton(kind.presets[preset]), rate=2e-4, clip_factor=0.01, weight_decay=1e-4)
    ours = {
        MODELS["err-seg"].reference.name(name): [group.rate, group.weight_decay]
        for group in groups
        for name in group.parameters
    }
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == pytest.approx(theirs[name]) for name in theirs)
