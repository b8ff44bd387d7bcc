"""EOV-Seg against what its reference computed, at every recorded stage."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import COMPILED, relative_error
from wordmask.image import Frame, prepare
from wordmask.models import MODELS
from wordmask.models.convert import from_reference
from wordmask.postprocess import read_instances, read_panoptic, read_query_semantic
from wordmask.segmenter import Segmenter
from wordmask.training.set_loss import Target, layer_loss, match
from wordmask.vocabulary import Vocabulary
from wordmask.weights import TEXT_TOWER

MASKS_AND_CLASSES = [
    (f"{kind}_logits_{layer}", 1e-4 if kind == "mask" else 1e-3) for layer in range(3) for kind in ("mask", "class")
]


def read_case(path) -> dict:
    """The tensors of a case, and its settings under their names."""
    with safe_open(path, "pt") as file:
        settings = file.metadata()
    return load_file(path) | {name: json.loads(value) for name, value in settings.items() if value[:1] in "[0123456789"}


@pytest.fixture(scope="module")
def model(parity):
    keys = json.loads((parity.folder / "eov_seg_s.keys.json").read_text())
    unused = set(MODELS["eov-seg"].reference.dropped_names(keys))
    state = {name: torch.tensor(parity.fill(name, tuple(shape))) for name, shape in keys.items() if name not in unused}
    return from_reference("eov-seg-small", state)


@pytest.fixture(scope="module")
def case(parity):
    return read_case(parity.folder / "eov_seg_s.safetensors")


@pytest.fixture(scope="module")
def segment(model):
    return Segmenter(model, name="S", compile=COMPILED)


@pytest.fixture(scope="module")
def things(case):
    flags = torch.zeros(len(case["class_names"]), dtype=torch.bool)
    flags[case["thing_classes"]] = True
    return flags


@pytest.fixture(scope="module")
def computed(model, case, segment):
    """Every stage, computed once through the public methods; what the whole model gives, as one graph where it is
    compiled."""
    words = segment.encode_words(Vocabulary.builtin("eov-seg/ade20k-150"))
    with torch.inference_mode():
        pixels, frame = prepare(case["image"].numpy(), model.image_input)
        text = torch.cat([words.embeddings, model.void_vector])
        features = model.encode_image(pixels[None])
        aggregated = model.aggregate(features)
        selected = model.select(aggregated, words)
        classes, masks = model.decode(selected, features.spatial, words, every_layer=True)
        raw = segment.run(pixels[None], words)
    stages = {
        "pixels": pixels[:, ::8, ::8],
        "text": text,
        "res5": features.x32[0, :, ::4, ::4],
        "spatial": features.spatial[0, :, ::4, ::4],
        "aggregated": aggregated[0, :, ::8, ::8],
        "selected": selected[0, :, ::8, ::8],
        "final_class_logits": raw.class_logits[0],
        "final_mask_logits": raw.mask_logits[0, :, ::8, ::8],
        "raw": raw,
        "frame": frame,
        "words": words,
    }
    for layer in range(3):
        stages |= {f"mask_logits_{layer}": masks[layer, 0, :, ::8, ::8], f"class_logits_{layer}": classes[layer, 0]}
    return stages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "tolerance"),
    [
        ("pixels", 1e-6),
        *((stage, 1e-4) for stage in ("text", "res5", "spatial", "aggregated", "selected")),
        *MASKS_AND_CLASSES,  # one pixel that changes sides moves the class logits of a small mask
        ("final_class_logits", 1e-4),
        ("final_mask_logits", 1e-4),
    ],
)
def test_every_stage_equals_the_reference(computed, case, stage, tolerance):
    assert relative_error(computed[stage], case[stage.replace("final_mask_logits", "mask_logits_2")]) <= tolerance


@pytest.mark.slow
def test_readings_equal_the_reference(computed, case, things):
    masks, frame = (computed["raw"].class_logits[0], computed["raw"].mask_logits[0]), computed["frame"]
    semantic = read_query_semantic(*masks, frame)
    assert (semantic.best[::4, ::4] == case["semantic_argmax"]).float().mean() >= 0.999
    assert relative_error(semantic.confidence[::4, ::4], case["semantic_max"]) <= 1e-4
    assert torch.equal(read_panoptic(*masks, things=things, frame=frame).ids[::2, ::2], case["panoptic"].int())
    check_instances(read_instances(*masks, things=things, frame=frame), case, tolerance=1e-4)


@pytest.mark.slow
def test_seen_classes_equal_the_reference(computed, case):
    assert computed["words"].seen.int().tolist() == case["category_overlap"]


def test_built_in_names_are_the_ones_the_case_used(case):
    assert [",".join(entry.names) for entry in Vocabulary.builtin("eov-seg/ade20k-150")] == case["class_names"]
    assert [number for number, entry in enumerate(Vocabulary.builtin("eov-seg/ade20k-150")) if entry.thing] == case[
        "thing_classes"
    ]


@pytest.mark.slow
def test_the_whole_road_gives_the_reference_labels(segment, case):
    """Picture and built-in vocabulary in, label map out: the same through the public surface."""
    result = segment(case["image"].numpy(), "ade20k-150", task="semantic")
    assert (
        torch.from_numpy(result.labels[::4, ::4].astype("int16")) == case["semantic_argmax"]
    ).float().mean() >= 0.999
    found = segment(case["image"].numpy(), "ade20k-150", task="instance")
    assert sorted(region.label for region in found.regions) == sorted(case["instance_classes"].tolist())


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_every_reference_key_is_used_or_listed(parity, size):
    theirs = {
        name: tuple(shape)
        for name, shape in json.loads((parity.folder / f"eov_seg_{size[0]}.keys.json").read_text()).items()
    }
    kind = MODELS["eov-seg"]
    weights = kind.skeleton(kind.presets[f"eov-seg-{size}"]).state_dict()
    ours = {MODELS["eov-seg"].reference.name(name): tuple(tensor.shape) for name, tensor in weights.items()}
    dropped = MODELS["eov-seg"].reference.dropped_names(theirs)
    assert ours == {name: shape for name, shape in theirs.items() if name not in set(dropped)}
    assert not any(
        name.startswith(("lite_aggr.", "void_embedding.", "light_weight_decoder.mask_heads")) for name in dropped
    )


@pytest.mark.parametrize(("size", "limit"), [("small", 75e6), ("medium", 130e6), ("large", 230e6)])
def test_parameters_at_inference(size, limit):
    kind = MODELS["eov-seg"]
    model = kind.skeleton(kind.presets[f"eov-seg-{size}"]).for_inference()
    parameters = sum(
        parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(TEXT_TOWER)
    )
    assert 0.95 * limit < parameters <= limit


@pytest.fixture(scope="module")
def postprocess(parity):
    return read_case(parity.folder / "eov_seg.postprocess.safetensors")


def test_postprocessing_equals_the_reference(postprocess):
    masks, frame = (postprocess["class_logits"], postprocess["mask_logits"]), Frame((96, 128))
    flags = torch.zeros(150, dtype=torch.bool)
    flags[postprocess["thing_classes"]] = True
    semantic = read_query_semantic(*masks, frame)
    assert torch.equal(semantic.best, postprocess["semantic_argmax"].int())
    limits = {"threshold": postprocess["object_mask_threshold"], "overlap": postprocess["overlap_threshold"]}
    panoptic = read_panoptic(*masks, things=flags, frame=frame, **limits)
    assert torch.equal(panoptic.ids, postprocess["panoptic"].int())
    assert panoptic.classes == [segment["category_id"] for segment in postprocess["segments"]]
    assert [bool(flags[label]) for label in panoptic.classes] == [
        segment["isthing"] for segment in postprocess["segments"]
    ]
    check_instances(
        read_instances(*masks, things=flags, frame=frame, most=postprocess["top_instances"]),
        postprocess,
        tolerance=1e-6,
    )


def check_instances(found, case, tolerance):
    """Scores within the tolerance, the same classes, and areas to the same share of the picture."""
    theirs = sorted(
        zip(*(case[f"instance_{name}"].tolist() for name in ("scores", "classes", "areas")), strict=True), reverse=True
    )
    np.testing.assert_allclose(found.scores, [score for score, *_ in theirs], atol=tolerance)
    ours, theirs = (
        sorted(zip(found.classes, found.areas, strict=True)),
        sorted((label, area) for _, label, area in theirs),
    )
    assert [label for label, _ in ours] == [label for label, _ in theirs]
    np.testing.assert_allclose(
        [area for _, area in ours], [area for _, area in theirs], atol=tolerance * found.bits[0].size * 8
    )


def test_the_set_loss_equals_the_reference(parity):
    case = load_file(parity.folder / "eov_seg.loss.safetensors")

    def draw(masks, points, like):
        return torch.from_numpy(parity.evenly_spread_points(masks, points, 2))

    class_logits, mask_logits = case["class_logits"].requires_grad_(), case["mask_logits"].requires_grad_()
    targets = [Target(case[f"labels_{number}"], case[f"masks_{number}"]) for number in range(2)]
    for number, target in enumerate(targets):
        queries, chosen = match(class_logits[number], mask_logits[number], target, draw)
        assert torch.equal(queries, case[f"matched_query_{number}"])
        assert torch.equal(chosen, case[f"matched_target_{number}"])
    losses = layer_loss(class_logits, mask_logits, targets, draw)
    assert [loss.item() for loss in losses] == pytest.approx(
        [case[f"loss_{name}"].item() for name in ("ce", "mask", "dice")], rel=1e-6
    )
    sum(losses).backward()
    assert relative_error(class_logits.grad, case["grad_class_logits"]) <= 1e-5
    assert relative_error(mask_logits.grad.sum(dim=(2, 3)), case["grad_mask_logits_sum"]) <= 1e-5
