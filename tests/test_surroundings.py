"""What the precision setting promises, whatever surrounds a call: results are equal to the last bit."""

import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from conftest import colourful
from wordmask import load, weights
from wordmask.models import MODELS
from wordmask.models.convert import from_reference
from wordmask.models.load import load_model
from wordmask.segmenter import Segmenter
from wordmask.surroundings import float32_by_default
from wordmask.text import TextCache

WORDS = ["red circle", "sky", "grass, meadow"]


@contextmanager
def default_dtype(kind: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS = {
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "default device meta": lambda: default_device("meta"),
    "default device cpu": lambda: default_device("cpu"),
    "inside device meta": lambda: torch.device("meta"),
    "default device without a driver": lambda: default_device("cuda:7"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": lambda: torch.set_grad_enabled(True),
    "deterministic": deterministic,
}
surrounded = pytest.mark.parametrize("name", SURROUNDINGS)
TOGETHER = {
    "half, double, inference": ["autocast bfloat16", "default float64", "inference mode"],
    "meta, half, no gradients": ["default device meta", "default float16", "no gradients", "deterministic"],
}
together = pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)


@contextmanager
def inside(names: list[str]):
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(SURROUNDINGS[name]())
        yield


@pytest.fixture(scope="module")
def segmenters(tiny, tiny_eov):
    return [Segmenter(model, name=model.family) for model in (tiny, tiny_eov)]


def everything(segmenter: Segmenter) -> list[np.ndarray | list[float]]:
    """All that a segmenter says of a picture, by every task and road, as arrays and scores."""
    picture, found = colourful(48, 64), []
    look = segmenter.look(picture, WORDS)
    results = [segmenter.read(look), *segmenter.stream([picture], WORDS)]
    results += [segmenter(colourful(48, 90), WORDS, task="semantic", tile=64, per_pixel=True)]
    results += [
        segmenter.read(look._replace(chosen=segmenter.check(WORDS, task=task))) for task in segmenter.model.tasks
    ]
    for result in results:
        found += [result.labels, [region.score for region in result.regions]]
    return [*found, results[2].confidence, *(tensor.numpy() for tensor in look.raw if tensor is not None)]


def assert_same(found: list, expected: list) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))


@pytest.fixture(scope="module")
def expected(segmenters):
    return [everything(segmenter) for segmenter in segmenters]


def fresh(segmenter: Segmenter) -> Segmenter:
    """The same model, with no word encoded yet."""
    return Segmenter(segmenter.model, name=segmenter.name, precision=segmenter.precision)


@together
def test_results_are_the_same_inside_several(names, segmenters, expected):
    for segmenter, before in zip(segmenters, expected, strict=True):
        with inside(names):
            assert_same(everything(fresh(segmenter)), before)


@pytest.mark.slow
@surrounded
def test_results_are_the_same(name, segmenters, expected):
    for segmenter, before in zip(segmenters, expected, strict=True):
        with SURROUNDINGS[name]():
            assert_same(everything(fresh(segmenter)), before)


@pytest.mark.slow
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(sorted(SURROUNDINGS)), min_size=2, max_size=4, unique=True))
def test_several_at_once(names, segmenters):
    picture, segmenter = colourful(48, 64), segmenters[1]
    before = segmenter(picture, WORDS, per_pixel=True)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(SURROUNDINGS[name]())
        after = fresh(segmenter)(picture, WORDS, per_pixel=True)
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.confidence, before.confidence)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_what_was_asked_for(precision, segmenters):
    for segmenter in segmenters:
        half = Segmenter(segmenter.model, precision=precision)
        before = half(colourful(48, 64), WORDS, per_pixel=True).confidence
        for outer in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", outer), default_dtype(torch.float64):
                after = fresh(half)(colourful(48, 64), WORDS, per_pixel=True).confidence
            np.testing.assert_array_equal(after, before)


@surrounded
def test_words_on_the_disk_are_float32(name, tmp_path, tiny):
    plain = TextCache("tower", tiny.templates, None).encode(["red circle", "sky", "grass"], tiny.encode_text)
    with SURROUNDINGS[name]():
        Segmenter(tiny, text_tower="0" * 16, cache=tmp_path)(colourful(48, 64), WORDS)
    read = TextCache("0" * 16, tiny.templates, tmp_path).encode(
        ["red circle", "sky"], lambda _: pytest.fail("not there")
    )
    torch.testing.assert_close(read, plain[:2], rtol=0, atol=0)


def test_vectors_in_half_precision_stay_off_the_disk(tmp_path):
    cache = TextCache("tower", ("{}",), tmp_path)
    cache.encode(["sky"], lambda _: torch.eye(8, dtype=torch.bfloat16)[:1])
    again = TextCache("tower", ("{}",), tmp_path)
    torch.testing.assert_close(again.encode(["sky"], lambda _: torch.eye(8)[1:2]), torch.eye(8)[1:2])


@pytest.mark.slow
@surrounded
def test_a_model_is_loaded_the_same(name, tmp_path, tiny, tiny_eov):
    check_loading([name], tmp_path, tiny, tiny_eov)


@together
def test_a_model_is_loaded_the_same_inside_several(names, tmp_path, tiny, tiny_eov):
    check_loading(names, tmp_path, tiny, tiny_eov)


def check_loading(names: list[str], tmp_path, tiny, tiny_eov) -> None:
    """Also for training afterwards: tensors of inference mode can't be trained."""
    torch.save(
        {MODELS["err-seg"].reference.name(key): tensor for key, tensor in tiny.state_dict().items()}, tmp_path / "a.pth"
    )
    weights.save(
        tmp_path / "b.safetensors", tiny_eov.state_dict(), family="eov-seg", configuration=tiny_eov.config, origin=""
    )
    roads = {
        "reference": lambda: from_reference("err-seg-untrained", weights.read(tmp_path / "a.pth").state),
        "ours": lambda: load_model(tmp_path / "b.safetensors").model,
        "bundled": lambda: load_model("err-seg-tiny").model,
        "random": lambda: load_model("err-seg-untrained").model,
    }
    for load_it in roads.values():
        before = load_it()
        with inside(names):
            after = load_it()
        for key, tensor in [*before.state_dict().items(), ("clip.attn_mask", before.clip.attn_mask)]:
            other = after.clip.attn_mask if key == "clip.attn_mask" else after.state_dict()[key]
            assert torch.equal(tensor, other), key
            assert (tensor.dtype, tensor.device) == (other.dtype, other.device), key
        assert not any(tensor.is_inference() for tensor in [*after.parameters(), *after.buffers()])
        assert all(parameter.requires_grad for parameter in after.parameters())


@pytest.mark.slow
@surrounded
def test_load_and_segment_inside(name):
    before = load("eov-seg-tiny", device="cpu", precision="float32", cache=None)(colourful(48, 64), WORDS)
    with SURROUNDINGS[name]():
        after = load("eov-seg-tiny", device="cpu", precision="float32", cache=None)(colourful(48, 64), WORDS)
    np.testing.assert_array_equal(after.labels, before.labels)
    assert [region.score for region in after.regions] == [region.score for region in before.regions]


def test_surroundings_stay_as_they_were(segmenters):
    with torch.autocast("cpu", torch.float16), default_dtype(torch.float64), default_device("meta"):
        for _ in segmenters[1].stream([colourful(48, 64)] * 6, WORDS):
            assert torch.get_default_dtype() == torch.float64
            assert torch.is_autocast_enabled("cpu")
            assert torch.empty(0).is_meta
        load_model("err-seg-tiny")
        assert torch.get_default_dtype() == torch.float64


def test_the_default_type_comes_back_when_threads_overlap():
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with float32_by_default():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(10)
        with float32_by_default():
            leave.set()
            thread.join()
            assert torch.get_default_dtype() == torch.float32, "someone still needs it"
        assert torch.get_default_dtype() == torch.float64


def test_nothing_that_runs_depends_on_the_default_type(segmenters):
    """Every tensor of the default type that comes about where none went in would be a place that does."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Doubles(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.made: list[str] = []

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                    self.made.append(str(operation))
            return result

    for segmenter in segmenters:
        with default_dtype(torch.float64), Doubles() as doubles:
            for task in segmenter.model.tasks:
                fresh(segmenter)(colourful(90, 70), WORDS, task=task)
            fresh(segmenter)(colourful(90, 70), WORDS, task="semantic", tile=64)
        assert doubles.made == []


@pytest.mark.slow
@pytest.mark.parametrize("start", ["err-seg-untrained", "eov-seg-untrained"])
def test_a_training_is_the_same(start, tmp_path, garden):
    from wordmask.training.finetune import FineTuneSettings, finetune

    def weights_after(folder: str, names: list[str]) -> dict[str, torch.Tensor]:
        chosen = FineTuneSettings(
            data=garden, start=start, folder=tmp_path / folder, steps=2, batch=1, pictures=1, device="cpu", workers=0
        )
        with inside(names):
            finetune(chosen)
        return load_file(tmp_path / folder / "finetuned.safetensors")

    plain = weights_after("plain", [])
    for number, names in enumerate(TOGETHER.values()):
        for name, tensor in weights_after(str(number), names).items():
            assert torch.equal(tensor, plain[name]), name


@pytest.mark.slow
@together
def test_an_evaluation_is_the_same(names):
    from wordmask.evaluation.evaluate import evaluate

    def figures() -> list:
        report = evaluate("eov-seg-tiny", ["shapeland-150"], pictures=2, device="cpu", precision="float32")
        return [split.figures for split in report.splits]

    plain = figures()
    with inside(names):
        assert repr(figures()) == repr(plain)


EXPORT = """
import sys
from contextlib import ExitStack
from pathlib import Path
import torch
from wordmask import load
from wordmask.export import export
with ExitStack() as stack:
    if sys.argv[2] == "surrounded":
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        stack.enter_context(torch.inference_mode())
    segmenter = load("eov-seg-tiny", device="cpu", precision="float32", cache=None)
    export(segmenter, Path(sys.argv[1]), form="torch", say=lambda line: print(line.partition("; ")[2]))
"""


@pytest.mark.slow
def test_an_export_is_the_same(tmp_path):
    """In processes without checks of shapes, which can't be recorded."""

    def said(how: str) -> str:
        command = [sys.executable, "-c", EXPORT, str(tmp_path / how), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("surrounded") == said("plain")


def test_shapeland_is_the_same():
    from wordmask.data.shapeland import Shapeland

    plain = Shapeland("shapeland-150", "test", 1)[0]
    for names in TOGETHER.values():
        with inside(names):
            scene = Shapeland("shapeland-150", "test", 1)[0]
        np.testing.assert_array_equal(scene.rgb, plain.rgb)
        np.testing.assert_array_equal(scene.semantic, plain.semantic)
