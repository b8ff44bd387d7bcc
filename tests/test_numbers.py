"""What is no number is never told as a score: in checkpoints it is named, in what a model emits it is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import colourful
from wordmask import weights
from wordmask.array_readings import checked
from wordmask.models import MODELS
from wordmask.models.convert import from_reference
from wordmask.models.fitting import check_finite
from wordmask.models.load import load_model
from wordmask.raw import ClassMaps, QueryMasks, check_numbers
from wordmask.segmenter import Segmenter

PRESETS = {"err-seg": "err-seg-untrained", "eov-seg": "eov-seg-untrained"}
NO_NUMBERS = [float("nan"), float("inf"), float("-inf")]


def save_ours(path, model, state):
    weights.save(path, state, family=model.family, configuration=model.config, origin="test")


def with_value(state, name, value):
    changed = {key: tensor.clone() for key, tensor in state.items()}
    changed[name].view(-1)[-1] = value
    return changed


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=st.sampled_from(NO_NUMBERS))
def test_any_weight_that_is_no_number_is_named(data, value, tiny, tiny_eov):
    model = data.draw(st.sampled_from([tiny, tiny_eov]))
    state = model.state_dict()
    name = data.draw(st.sampled_from(sorted(name for name in state if state[name].is_floating_point())))
    kind = MODELS[model.family]
    reference = {kind.reference.name(key): tensor for key, tensor in with_value(state, name, value).items()}
    with pytest.raises(ValueError, match="not finite") as caught:
        from_reference(PRESETS[model.family], reference)
    assert kind.reference.name(name) in str(caught.value)
    assert ("nan" if value != value else "infinite") in str(caught.value)


def test_ours_and_convert_too(tmp_path, run, tiny):
    state = with_value(tiny.state_dict(), "head.weight", float("nan"))
    save_ours(tmp_path / "a.safetensors", tiny, state)
    with pytest.raises(ValueError, match=r"head\.weight \(1 of 8 values: nan\)"):
        load_model(tmp_path / "a.safetensors")
    torch.save({MODELS["err-seg"].reference.name(name): tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    status, _, errors = run("convert", tmp_path / "a.pth", "b.safetensors")
    assert status == 2
    assert "sem_seg_head.decoder.head.weight (1 of 8 values: nan)" in " ".join(errors.split())
    assert not (tmp_path / "b.safetensors").exists()


def test_half_precision_that_overflowed_is_named(tiny):
    reference = {MODELS["err-seg"].reference.name(name): tensor for name, tensor in tiny.state_dict().items()}
    name = "sem_seg_head.decoder.head.weight"
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in reference.items()}
    from_reference("err-seg-untrained", half)
    half[name] = (reference[name] * 1e6).half()
    with pytest.raises(ValueError, match=r"head\.weight .*infinite.*half precision"):
        from_reference("err-seg-untrained", half)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_other_kinds_of_weights_are_named(tmp_path, dtype, tiny):
    state = tiny.state_dict() | {"head.weight": torch.ones(tiny.state_dict()["head.weight"].shape).to(dtype)}
    save_ours(tmp_path / "a.safetensors", tiny, state)
    torch.save({MODELS["err-seg"].reference.name(name): tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    for file in ("a.safetensors", "a.pth"):
        with pytest.raises(ValueError, match=rf"head\.weight is {str(dtype).removeprefix('torch.')}"):
            load_model(tmp_path / file)


@pytest.mark.parametrize("change", [lambda x: x.to_sparse(), lambda x: x.to("meta")])
def test_weights_without_plain_values_are_named(change, tiny):
    state = {MODELS["err-seg"].reference.name(name): tensor for name, tensor in tiny.state_dict().items()}
    state["sem_seg_head.decoder.head.weight"] = change(state["sem_seg_head.decoder.head.weight"])
    with pytest.raises(ValueError, match=r"head\.weight is (float32, sparse_coo|without values)"):
        from_reference("err-seg-untrained", state)


def test_double_precision_becomes_float32(tmp_path, tiny):
    double = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tiny.state_dict().items()
    }
    save_ours(tmp_path / "a.safetensors", tiny, double)
    loaded = load_model(tmp_path / "a.safetensors").model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_large_weights_are_numbers():
    """Their sum overflows, which alone proves nothing."""
    check_finite({"a": torch.full((100,), 3e38), "count": torch.tensor(3)})


def class_maps():
    return ClassMaps(torch.zeros(1, 2, 5, 6), torch.tensor([[0, 1]]), torch.zeros(1, 2))


def query_masks():
    return QueryMasks(
        torch.zeros(1, 4, 3), torch.zeros(1, 4, 5, 6), torch.zeros(1, 1, 4, 3), torch.zeros(1, 1, 4, 5, 6)
    )


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    value=st.sampled_from(NO_NUMBERS),
    case=st.sampled_from([(class_maps, "logits"), (query_masks, "mask_logits"), (query_masks, "class_logits")]),
)
def test_one_value_that_is_no_number_refuses_the_picture(data, value, case):
    make, field = case
    raw = make()
    tensor = getattr(raw, field)
    tensor.view(-1)[data.draw(st.integers(0, tensor.numel() - 1))] = value
    if field == "class_logits" and value == float("-inf"):
        check_numbers(raw, 0)  # a probability of 0
        return
    with pytest.raises(ValueError, match="no numbers"):
        check_numbers(raw, 0)
    with pytest.raises(ValueError, match="no numbers"):
        checked([tensor.numpy()])


def spoiled(segmenter: Segmenter, value: float) -> None:
    model = segmenter.model

    def run(*inputs, **choices):
        raw = model(*inputs, **choices)
        name = "logits" if isinstance(raw, ClassMaps) else "mask_logits"
        maps = getattr(raw, name).clone()
        maps.view(-1)[7] = value
        return raw._replace(**{name: maps})

    segmenter.run = run


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_no_road_to_a_result_passes_it_on(value, tiny, tiny_eov):
    for model in (tiny, tiny_eov):
        segmenter = Segmenter(model)
        spoiled(segmenter, value)
        for task in model.tasks:
            with pytest.raises(ValueError, match="no numbers"):
                segmenter(colourful(48, 64), "cup; water", task=task)
        with pytest.raises(ValueError, match="no numbers"):
            segmenter(colourful(48, 90), "cup; water", task="semantic", tile=64)
        (failure,) = segmenter.stream([colourful(48, 64)], "cup; water")
        assert isinstance(failure, ValueError), "of this picture alone"


def test_a_result_made_by_hand_keeps_what_is_no_number():
    from conftest import asked_for
    from wordmask.postprocess import PixelReading
    from wordmask.results import semantic_result
    from wordmask.vocabulary import Vocabulary

    best, nothing = torch.zeros(4, 5, dtype=torch.int32), torch.full((4, 5), float("nan"))
    origin = asked_for(np.zeros((4, 5, 3), np.uint8), Vocabulary.of("cup; water"))
    reading = PixelReading(best, nothing, best - 1, nothing)
    assert semantic_result(reading, origin, per_pixel=False).regions == [], "it passes no threshold, not even 0"
    sure = dataclasses.replace(origin, settings=dataclasses.replace(origin.settings, threshold=0.9))
    assert semantic_result(reading, sure, per_pixel=False).regions == []


def test_a_fine_tuning_does_not_start_with_it(tmp_path, run, garden, tiny):
    save_ours(tmp_path / "a.safetensors", tiny, with_value(tiny.state_dict(), "head.weight", float("nan")))
    status, _, errors = run("train", "finetune", f"data={garden}", f"start={tmp_path / 'a.safetensors'}", "folder=runs")
    assert status == 2
    assert "head.weight (1 of 8 values: nan)" in " ".join(errors.split())
