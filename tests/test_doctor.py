"""What the doctor says, and that nothing makes it fail."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from wordmask import released
from wordmask.doctor import examine as doctor
from wordmask.doctor.examine import examine
from wordmask.doctor.findings import (
    Availability,
    CacheContent,
    CachedText,
    CachedWeights,
    Examination,
    Extra,
    Processor,
    TorchChoices,
    Undetermined,
    report_lines,
)
from wordmask.hardware import choose_device, choose_precision


@pytest.fixture
def torch_at_once(monkeypatch):
    """Torch need not be imported once more: its answer is as on this machine."""
    answer = {
        "device": str(choose_device("auto")),
        "precision": choose_precision("auto", choose_device("auto")),
        "threads": 1,
    }
    answer |= {"cuda": [], "cuda_version": None, "mps": False}
    monkeypatch.setattr(doctor, "ASK_TORCH", f"print({json.dumps(answer)!r})")
    return answer


@pytest.mark.slow
def test_torch_is_asked():
    """What a run would use, from the settings that a run reads; in a process of its own."""
    uses = examine(120).uses
    assert uses.device == str(choose_device("auto"))
    assert uses.precision == choose_precision("auto", choose_device("auto"))
    assert uses.threads >= 1


def test_it_is_quick_even_if_torch_is_not(monkeypatch):
    monkeypatch.setattr(doctor, "ASK_TORCH", "import time; time.sleep(60)")
    begin = time.monotonic()
    found = examine(0.5)
    assert time.monotonic() - begin < 3
    assert "--wait" in found.uses.problem
    assert any("--wait" in line for line in report_lines(found))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os; os.abort()", "exit status"),
        ("raise OSError('libcuda.so is broken')", "libcuda.so is broken"),
        ("print('x')", "could not"),
    ],
)
def test_a_broken_torch_is_said(monkeypatch, script, message):
    monkeypatch.setattr(doctor, "ASK_TORCH", script)
    found = examine(30)
    assert message in found.uses.problem
    assert report_lines(found)


def test_models(torch_at_once, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    fetched = tmp_path / "hub" / "hub" / "models--lchen1019--ERR-Seg" / "snapshots" / "0" / "L" / "model.pth"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    file = tmp_path / "converted.safetensors"
    file.touch()
    released.remember("err-seg-base", file, {})
    models = {model.name: model for model in examine(30).models}
    assert models["err-seg-tiny"] == Availability("err-seg-tiny", offline=True, where="in the package", get=None)
    assert models["err-seg-base"] == Availability("err-seg-base", offline=True, where=str(file), get=None)
    assert not models["err-seg-large"].offline
    assert "model.pth" in models["err-seg-large"].where
    assert "--model err-seg-large" in models["err-seg-large"].get
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert "wordmask[drive]" in {model.name: model for model in doctor._models()}["eov-seg-small"].get


def test_cache(torch_at_once, own_cache, tiny):
    from wordmask.segmenter import Segmenter
    from wordmask.vocabulary import Vocabulary

    assert examine(30).cache == CacheContent(str(own_cache), weights=[], text=[])
    words = Vocabulary.of("sky; car")
    Segmenter(tiny, cache=own_cache).encode_words(words)
    (own_cache / "weights").mkdir()
    (own_cache / "weights" / "0.safetensors").write_bytes(bytes(1000))
    (own_cache / "text" / "damaged.sqlite").write_bytes(b"no database")
    cache = examine(30).cache
    assert cache.weights == [CachedWeights("0.safetensors", 1000)]
    assert sorted(file.phrases or 0 for file in cache.text) == [0, len(words)]


def test_extras(torch_at_once, monkeypatch):
    requires = [
        "torch>=2",
        "fastapi>=0.1; extra == 'serve'",
        'ray[data]>=2; extra == "ray"',
        "nowhere-to-be-found; extra == 'ray'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: requires)
    extras = {extra.name: extra for extra in examine(30).extras}
    assert extras["serve"] == Extra("serve", missing=[], get=None)
    assert "nowhere-to-be-found" in extras["ray"].missing
    assert extras["ray"].get == "pip install 'wordmask[ray]'"


@pytest.mark.parametrize("part", ["_cpu", "_cache", "_models", "_extras", "_begin_asking"])
def test_nothing_makes_it_fail(torch_at_once, monkeypatch, part):
    def broken():
        raise PermissionError("not for you")

    monkeypatch.setattr(doctor, part, broken)
    lines = report_lines(examine(30))
    assert sum("not for you" in line for line in lines) == 1


def test_what_macs_say(torch_at_once, monkeypatch):
    said = "machdep.cpu.brand_string: Apple M4\nhw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 1\n"
    monkeypatch.setattr(doctor.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    cpu = doctor._cpu()
    assert cpu.name == "Apple M4"
    assert cpu.flags == {"bfloat16": True, "AMX": False, "AVX-512": False}


FOUND = Examination(
    wordmask="1.2",
    python="3.4",
    system="Linux x86",
    cpu=Processor("a chip", cores=4, usable=2, memory=2**33, flags={"bfloat16": True, "AMX": False}),
    versions={"torch": "2", "timm": None},
    cache=CacheContent("/cache", [CachedWeights("a", 1000000)], [CachedText("b", 10, 3), CachedText("c", 20, None)]),
    models=[Availability("one", True, "here", None), Availability("two", False, "there", "fetch two")],
    extras=[Extra("full", [], None), Extra("thin", ["x", "y"], "install it")],
    uses=TorchChoices("cuda", "bfloat16", 8, ["card"], "13", False),
)


def test_what_programs_read():
    """Keys and their order are a promise."""
    assert json.dumps(FOUND.to_dict()) == (
        '{"wordmask": "1.2", "python": "3.4", "system": "Linux x86", "cpu": {"name": "a chip", "cores": 4, '
        '"usable": 2, "memory": 8589934592, "flags": {"bfloat16": true, "AMX": false}}, '
        '"versions": {"torch": "2", "timm": null}, '
        '"cache": {"folder": "/cache", "weights": [{"file": "a", "bytes": 1000000}], "text": [{"file": "b", '
        '"bytes": 10, "phrases": 3}, {"file": "c", "bytes": 20, "phrases": null}]}, '
        '"models": [{"name": "one", "offline": true, '
        '"where": "here", "get": null}, {"name": "two", "offline": false, "where": "there", "get": "fetch two"}], '
        '"extras": [{"name": "full", "missing": [], "get": null}, {"name": "thin", "missing": ["x", "y"], "get": '
        '"install it"}], "uses": {"device": "cuda", "precision": "bfloat16", "threads": 8, "cuda": ["card"], '
        '"cuda_version": "13", "mps": false}}'
    )
    sick = replace(FOUND, uses=Undetermined("torch is ill"))
    assert list(sick.to_dict()) == list(FOUND.to_dict())
    assert sick.to_dict()["uses"] == {"problem": "torch is ill"}


def test_what_people_read():
    assert report_lines(FOUND) == [
        "wordmask 1.2 · Python 3.4 · Linux x86",
        "hardware  a chip: 4 cores, 2 of them for us, 8 GiB; bfloat16 yes, AMX no",
        "uses      cuda in bfloat16, 8 threads; CUDA 13: card; no MPS",
        "versions  torch 2, timm MISSING",
        "cache     /cache",
        "          weights: 1.0 MB in 1 file; text: 0.0 MB in 2 files, 3 phrases",
        "models    one             ready: here",
        "          two             not here (there): fetch two",
        "extras    full       ready",
        "          thin       lacks x, y: install it",
    ]
    without = replace(FOUND, uses=TorchChoices("cpu", "float32", 1, [], None, True))
    assert "uses      cpu in float32, 1 threads; no CUDA device (torch is built for none); MPS" in report_lines(without)


def test_the_command(tmp_path):
    """As a person runs it; for programs with --json."""
    environment = {**os.environ, "WORDMASK_CACHE": str(tmp_path / "none")}
    for options in ([], ["--json"]):
        command = [sys.executable, "-m", "wordmask", "doctor", "--wait", "0", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert "err-seg-tiny" in done.stdout
    found = json.loads(done.stdout)
    assert found.keys() == {"wordmask", "python", "system", "cpu", "versions", "cache", "models", "extras", "uses"}
    assert not (tmp_path / "none").exists(), "it only looks"


def test_it_imports_nothing_heavy():
    script = (
        "import sys, wordmask.doctor.examine; print([name for name in ('torch', 'numpy', 'PIL', 'huggingface_hub') if "
        "name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
