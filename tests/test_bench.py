"""What is timed and counted, on what can be counted by hand; and the command on a small model."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wordmask.bench import machine as machine_room
from wordmask.bench.counting import BytesRead, ModelPart, counting, timing
from wordmask.bench.machine import Machine, MachineConditions, measure_machine
from wordmask.bench.model import build, textured_picture, time_text
from wordmask.bench.timing import Timing, summary
from wordmask.cli import main
from wordmask.models import kind_of
from wordmask.segmenter import Segmenter
from wordmask.text import Words
from wordmask.vocabulary import Vocabulary
from wordmask.watching import watched

CPU = torch.device("cpu")
WRITTEN = ("asked", "classes", "parameters", "text", "whole", "batch", "memory", "parts")
WRITTEN_OF_A_PART = ("part", "yardsticks", "operations", "by precision", "bytes", "floor")


def vectors(count: int, preset: str) -> Words:
    """Words that mean nothing."""
    width = kind_of(preset).presets[preset].clip.width
    return Words(
        nn.functional.normalize(torch.randn(count, width), dim=1),
        torch.arange(count),
        torch.ones(count, dtype=torch.bool),
    )


class Product:
    """A product of a matrix that is there before, with what comes."""

    def __init__(self):
        self.weight = torch.ones(5, 7)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight @ x) * 2 + self.weight.sum()


def test_operations_and_bytes_by_hand():
    owner, part = Product(), ModelPart("product")
    with watched(owner, {"multiply": part}, counting):
        owner.multiply(torch.ones(7, 3))
    assert part.operations == {"float32": 2 * 5 * 7 * 3}
    assert part.bytes == 4 * (5 * 7 + 7 * 3 + 5 * 3), (
        "weight and input once, however often they are read, and the output"
    )
    assert "multiply" not in vars(owner), "as it was"


def test_what_is_made_on_the_way_is_not_read():
    with BytesRead() as read:
        made = torch.ones(100)
        _ = made + made
    assert read.total == 0


def test_times_are_noted_and_summed_up():
    owner, part = Product(), ModelPart("product")
    with watched(owner, {"multiply": part}, timing(CPU)):
        for _ in range(3):
            owner.multiply(torch.ones(7, 3))
    assert len(part.seconds) == 3
    assert min(part.seconds) > 0
    assert summary([3.0, 1.0, 2.0]) == Timing(2.0, 1.0, 3.0, 3)


def test_a_floor_is_the_longer_of_two():
    where = MachineConditions("", "cpu", "", [], 1, "", "", "")
    machine = Machine({"float32": 100.0, "bfloat16": 400.0}, 10.0, Timing(1, 1, 1, 1), where)
    assert ModelPart("much to compute", operations=Counter(float32=1000), bytes=10).floor(machine) == 10
    assert (
        ModelPart("in two precisions", operations=Counter(float32=1000, bfloat16=1000), bytes=10).floor(machine) == 12.5
    )
    assert ModelPart("much to read", operations=Counter(float32=10), bytes=1000).floor(machine) == 100


@pytest.mark.parametrize("preset", ["err-seg-tiny", "eov-seg-tiny"])
def test_operations_are_those_of_torchs_counter(preset):
    model, words = build(preset)[0].for_inference().requires_grad_(False), vectors(3, preset)
    part, pixels = ModelPart("all"), torch.randn(1, 3, 64, 96)
    with torch.no_grad(), watched(model, {"encode_image": part}, counting):
        model(pixels, words)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.encode_image(pixels)
    assert part.operations == {"float32": counter.get_total_flops()}


def test_operations_are_counted_in_their_own_precision():
    """Votes are float32, whatever the precision of the rest."""
    model, parts = (
        build("err-seg-tiny")[0].requires_grad_(False),
        {"encode_image": ModelPart("CLIP"), "choose": ModelPart("choice")},
    )
    with torch.no_grad(), watched(model, parts, counting), torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(1, 3, 64, 64), vectors(3, "err-seg-tiny"))
    assert parts["encode_image"].operations.keys() == {"bfloat16"}
    assert parts["choose"].operations == {"float32": 2 * 4 * 4 * 3 * model.config.clip.width}


def test_rates_are_the_higher_ones(small_bench, monkeypatch):
    found = iter([{"float32": 2.0}, {"float32": 3.0}])
    monkeypatch.setattr(machine_room, "measure_rates", lambda *_: next(found))
    assert measure_machine(CPU, {"float32"}).rates == {"float32": 3.0}


def test_words_from_the_disk_are_not_encoded_again(monkeypatch):
    segmenter = Segmenter(build("err-seg-tiny")[0])
    encoded, encode = [], segmenter.model.encode_text
    monkeypatch.setattr(segmenter.model, "encode_text", lambda phrases: encoded.append(phrases) or encode(phrases))
    time_text(segmenter, Vocabulary.of(["cup", "spoon"]))
    assert sorted(phrase for phrases in encoded for phrase in phrases) == ["cup", "spoon"]


@pytest.mark.parametrize("preset", ["err-seg-untrained", "eov-seg-untrained"])
def test_every_part_is_a_method(preset):
    kind = kind_of(preset)
    assert all(callable(getattr(kind.model, method)) for method in kind.model.stages)


def test_the_picture_is_always_the_same():
    assert textured_picture(40, 60).shape == (40, 60, 3)
    np.testing.assert_array_equal(textured_picture(40, 60), textured_picture(40, 60))
    assert textured_picture(40, 60).std() > 20


def test_the_machine(small_bench):
    machine = measure_machine(CPU, {"bfloat16"})
    assert machine.rates.keys() == {"bfloat16", "float32"}
    assert all(rate > 0 for rate in (*machine.rates.values(), machine.bandwidth))
    assert machine.conditions.torch == torch.__version__


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("err-seg-untrained", "float32"),
        pytest.param("eov-seg-untrained", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_the_command(small_bench, monkeypatch, capsys, model, precision):
    arguments = ["wordmask", "bench", model, "--runs", "2", "--batch", "2", "--precision", precision]
    monkeypatch.setattr("sys.argv", [*arguments, "--vocabulary", "pascal-voc-20", "--json", "out/speed.json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, capsys.readouterr().err
    out = capsys.readouterr().out
    content = json.loads((small_bench / "out" / "speed.json").read_text())
    (report,) = content["models"]
    assert list(content["machine"]) == ["rates", "bandwidth", "yardstick", "conditions"]
    assert tuple(report) == (*WRITTEN, "floor", "yardsticks", "input")
    assert all(tuple(part) == (*report["whole"], *WRITTEN_OF_A_PART) for part in report["parts"])
    assert report["asked"] == {
        "model": model,
        "vocabulary": "pascal-voc-20",
        "precision": precision,
        "batch": 2,
        "compile": False,
    }
    assert report["input"]["picture"] == report["input"]["original"] == [64, 80]
    labels = [part["part"] for part in report["parts"]]
    assert labels[1:-2] == list(kind_of(model).model.stages.values())
    inside = {part["part"]: part for part in report["parts"]}
    assert all(inside[label]["floor"] > 0 and inside[label]["median"] > 0 for label in labels[1:-2])
    assert all(part["runs"] == 2 for part in report["parts"])
    assert report["whole"]["median"] > 0
    assert report["yardsticks"] == pytest.approx(report["whole"]["median"] / 2)
    assert inside["reading out"]["yardsticks"] == pytest.approx(inside["reading out"]["median"] / 2)
    assert report["batch"]["yardsticks"] == pytest.approx(report["batch"]["per picture"] / 2)
    assert all(report["text"][way]["median"] > 0 for way in ("cold", "on disk", "in memory"))
    assert model in out
    assert all(label in out for label in labels), "none is cut short"
    assert "yardstick 2.00 s" in " ".join(out.split())


@pytest.mark.parametrize(
    ("asked", "hint"), [(["err-seg-huge"], "err-seg-large"), (["err-seg-tiny", "--vocabulary", "cups"], "'cups'")]
)
def test_nothing_is_measured_for_what_is_none(small_bench, monkeypatch, capsys, asked, hint):
    monkeypatch.setattr("sys.argv", ["wordmask", "bench", *asked])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert hint in captured.err
    assert "GFLOP" not in captured.out


def test_modules_keep_their_own_methods():
    layer = nn.Linear(2, 2)
    with watched(layer, {"forward": ModelPart("it")}, timing(CPU)):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
