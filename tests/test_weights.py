"""Checkpoints: the reference's formats, ours, and the hub (a stand-in: there is no network here)."""

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from wordmask import fetching, weights
from wordmask.models import MODELS, kind_of
from wordmask.models.convert import from_reference, guess_preset
from wordmask.models.load import convert, load_model
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary

PRESET = "err-seg-untrained"
WRAPPERS = ["module.", "model.", "net.", "_orig_mod.", "ema_model.", "model.net._orig_mod.", "x.y."]


@pytest.fixture(scope="module")
def reference(tiny):
    """The small model's weights under the reference's names."""
    return {MODELS["err-seg"].reference.name(name): tensor for name, tensor in tiny.state_dict().items()}


def same_weights(model, other) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 2e-4}]},
            "iteration": 9,
        },
        lambda state: {"state_dict": state},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {**state, "clip_pixel_mean": torch.zeros(3, 1, 1)}},
    ],
)
def test_reference_formats(tmp_path, reference, tiny, wrap):
    path = tmp_path / "model_final.pth"
    torch.save(wrap(reference), path)
    model = load_model(path).model
    assert not model.training
    assert same_weights(model, tiny)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_what_wrappers_put_before_names_is_taken_off(reference, tiny, prefix):
    wrapped = {prefix + name: tensor for name, tensor in reference.items()}
    if prefix == "module.":  # torch.optim.swa_utils.AveragedModel
        wrapped["n_averaged"] = torch.tensor(3)
    assert same_weights(from_reference(PRESET, wrapped), tiny)


def test_convert_says_what_was_taken_off(tmp_path, run, reference, tiny):
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in reference.items()}}, tmp_path / "a.pt")
    status, said, _ = run("convert", tmp_path / "a.pt", "out.safetensors")
    assert status == 0
    assert "under 'state_dict'" in said
    assert "'model.' before their names was taken off" in said
    assert same_weights(load_model(tmp_path / "out.safetensors").model, tiny)


def test_parts_that_were_compiled_alone(reference, tiny):
    compiled = {name.replace("decoder.", "decoder._orig_mod."): tensor for name, tensor in reference.items()}
    assert same_weights(from_reference(PRESET, compiled), tiny)


def test_errors_name_wrapped_weights_as_in_the_file(reference):
    wrapped = {f"model.{name}": tensor for name, tensor in reference.items()}
    del wrapped["model.sem_seg_head.decoder.head.weight"]
    with pytest.raises(ValueError, match=r"1 missing: model\.sem_seg_head\.decoder\.head\.weight"):
        from_reference(PRESET, wrapped)


def test_weights_that_are_there_twice_are_refused(reference):
    twice = {f"{start}.{name}": tensor for start in ("model", "ema_model") for name, tensor in reference.items()}
    with pytest.raises(ValueError, match=r"twice, as (model|ema_model)\.… and (model|ema_model)\.…"):
        from_reference(PRESET, twice)


@pytest.mark.parametrize("names", [("model_ema",), ("ema", "module"), ("state_dict_ema",), ("ema_model", "state_dict")])
def test_moving_averages_are_looked_into(tmp_path, reference, tiny, names):
    content = reference
    for name in reversed(names):
        content = {name: content, "decay": 0.999}
    torch.save(content, tmp_path / "a.pth")
    assert weights.read(tmp_path / "a.pth").inside == names
    assert same_weights(from_reference(PRESET, weights.read(tmp_path / "a.pth").state), tiny)
    torch.save({"model": reference, **content}, tmp_path / "b.pth")
    assert weights.read(tmp_path / "b.pth").inside == ("model",), "as trained, where there are both"


def test_arrays_of_a_model_zoo(tmp_path, reference, tiny):
    """As detectron2 publishes them."""
    arrays = {name: tensor.numpy() for name, tensor in reference.items()}
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    assert same_weights(from_reference(PRESET, weights.read(tmp_path / "zoo.pkl").state), tiny)


def header(content: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    return (len(content) if length is None else length).to_bytes(8, "little") + content + body


ONE = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HOSTILE = {
    "nothing": b"",
    "no weights": header(b"{}"),
    "a huge header": header(b"{}", length=2**63 - 1),
    "nested": header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a name twice": header(b"{" + ONE + b"," + ONE + b"}", bytes(4)),
    "overlapping": header(b"{" + ONE + b',"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "a hole": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
    "another type": header(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "six bits": header(b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}', bytes(3)),
    "a huge shape": header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}', bytes(4)),
    "a list": header(b"[]"),
    "no text": header(b'{"\xff":3}'),
    "numbers as metadata": header(b'{"__metadata__":{"format":3}}'),
    "half": header(b"{" + ONE + b"}", bytes(2)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_safetensors_are_errors(tmp_path, name):
    (tmp_path / "a.safetensors").write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"a\.safetensors' (is damaged|holds no weights)"):
        load_model(tmp_path / "a.safetensors")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 300), byte=st.integers(0, 255))
def test_a_changed_byte_of_a_header_is_harmless(tmp_path, place, byte):
    content = bytearray(header(b'{"__metadata__":{"format":"wordmask-1","family":"err-seg"},' + ONE + b"}", bytes(4)))
    content[min(place, len(content) - 1)] = byte
    (tmp_path / "a.safetensors").write_bytes(content)
    try:
        state = weights.read(tmp_path / "a.safetensors").state
    except ValueError:
        return
    assert len(state) == 1


def test_configurations_that_make_no_model(tmp_path, tiny):
    metadata = {"format": weights.FORMAT, "family": "err-seg", "text_tower": "", "origin": ""}
    good = dataclasses.asdict(tiny.config)
    hostile = [
        "[" * 100_000 + "]" * 100_000,
        json.dumps(good | {"clip": good["clip"] | {"trunk": "no such trunk"}}),
        json.dumps(good | {"clip": good["clip"] | {"text_layers": 10**9}}),
        json.dumps(good | {"width": 10**15}),
        json.dumps(good | {"width": 7, "heads": 3}),
        json.dumps(good | {"heads": True}),
    ]
    for configuration in hostile:
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata | {"configuration": configuration})
        with pytest.raises(ValueError, match=r"configuration|metadata|do not fit"):
            load_model(tmp_path / "a.safetensors")


def test_old_pickles_without_a_zip_are_read(tmp_path, reference, tiny):
    torch.save({"model": reference}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same_weights(load_model(tmp_path / "old.pth").model, tiny)


def test_half_precision_becomes_float32(reference):
    model = from_reference(PRESET, {name: tensor.half() for name, tensor in reference.items()})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_arrays_do_too(reference, tiny):
    assert same_weights(from_reference(PRESET, {name: tensor.numpy() for name, tensor in reference.items()}), tiny)


def test_the_causal_mask_is_rebuilt(reference, tiny):
    """It is no weight: a model built without values would read it as garbage, and text would be silently wrong."""
    model = from_reference(PRESET, reference)
    torch.testing.assert_close(model.clip.attn_mask, tiny.clip.attn_mask)
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_text(["sky", "car"]), tiny.encode_text(["sky", "car"]))


def test_convert_and_load_again(tmp_path, reference, tiny):
    source, target = tmp_path / "in.pth", tmp_path / "out.safetensors"
    torch.save({"model": {**reference, "clip_pixel_std": torch.ones(3)}}, source)
    assert convert(weights.read(source), target) == (PRESET, ["clip_pixel_std"])
    loaded = load_model(target)
    assert same_weights(loaded.model, tiny)
    assert loaded.model.config == tiny.config
    assert loaded.text_tower == weights.text_tower_fingerprint(tiny.state_dict())
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["configuration"])["resolution"] == tiny.config.resolution
    assert metadata["origin"] == "in.pth"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(ValueError, match="in our format already"):
        convert(weights.read(target), tmp_path / "again.safetensors")


def test_a_state_dict_as_safetensors_is_read(tmp_path, reference, tiny):
    save_file(reference, tmp_path / "plain.safetensors")
    assert same_weights(load_model(tmp_path / "plain.safetensors").model, tiny)


def test_the_fingerprint_follows_the_text_tower_alone(tiny):
    state = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    before = weights.text_tower_fingerprint(state)
    state["head.weight"] += 1
    assert weights.text_tower_fingerprint(state) == before
    state["clip.ln_final.bias"][0] += 1e-3
    assert weights.text_tower_fingerprint(state) != before


def test_problems_are_named_as_in_the_file(reference):
    missing = {name: tensor for name, tensor in reference.items() if name != "sem_seg_head.decoder.head.weight"}
    with pytest.raises(ValueError, match=r"1 missing: sem_seg_head\.decoder\.head\.weight \(1, 8, 1, 1\)"):
        from_reference(PRESET, missing)
    misshapen = reference | {"sem_seg_head.decoder.head.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"sem_seg_head\.decoder\.head\.bias is \(2,\), expected \(1,\)"):
        from_reference(PRESET, misshapen)
    with pytest.raises(ValueError, match=r"1 unknown: sem_seg_head\.extra"):
        from_reference(PRESET, reference | {"sem_seg_head.extra": torch.zeros(2)})
    many = {name: tensor for name, tensor in reference.items() if "resblocks" not in name}
    with pytest.raises(ValueError, match=r"24 missing: .* …"):
        from_reference(PRESET, many)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, reference):
    with pytest.raises(ValueError, match="checkpoint of another model"):
        guess_preset({"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(ValueError, match="checkpoint of another model"):
        guess_preset({name.replace("sem_seg_head", "head"): tensor for name, tensor in reference.items()})
    with pytest.raises(ValueError, match="do not fit the model"):
        from_reference("err-seg-base", reference)


@pytest.mark.parametrize("preset", ["err-seg-base", pytest.param("err-seg-large", marks=pytest.mark.slow)])
def test_presets_are_told_apart_by_shapes(preset):
    state = MODELS["err-seg"].skeleton(kind_of(preset).presets[preset]).state_dict()
    assert guess_preset({MODELS["err-seg"].reference.name(name): tensor for name, tensor in state.items()}) == preset
    assert MODELS["err-seg"].reference.dropped_names(state) == []


class Code:
    """Would run at unpickling."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_code_is_never_unpickled(tmp_path, capsys):
    torch.save({"model": Code()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_model(tmp_path / "evil.pth")
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "empty.pth", "empty.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"0123456789" * 100)
    with pytest.raises(ValueError, match=r"damaged|not a PyTorch file|more than tensors"):
        load_model(tmp_path / name)


def test_a_text_file_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("cup, mug\nspoon\n")
    with pytest.raises(ValueError, match="not a PyTorch file"):
        load_model(tmp_path / "notes.txt")


def test_a_truncated_file_is_refused(tmp_path, reference):
    for name, save in (("a.pth", torch.save), ("a.safetensors", save_file)):
        save(reference, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100_000])
        with pytest.raises(ValueError, match="damaged"):
            load_model(tmp_path / name)


def test_a_file_without_weights_is_refused(tmp_path):
    for content in ({"epoch": 3}, {0: torch.zeros(1)}, [torch.zeros(1)], {}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="holds no state dict"):
            load_model(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("err-seg-bse", "Did you mean err-seg-base"),
        ("missing.pth", "does not exist"),
        (Path("nowhere"), "does not exist"),
        ("", "no model"),
        ("./runs/a.pth", "does not exist"),
        ("runs/a.pth", "does not exist"),
        ("~nosuchuser/a.pth", "does not exist"),
    ],
)
def test_an_unknown_model(name, message):
    with pytest.raises(ValueError, match=message):
        load_model(name)


def test_without_network_the_error_says_what_to_do():
    for name in ("err-seg-base", "someone/their-model", "someone/their-model/file.pth"):
        with pytest.raises(ValueError, match=r"could not be reached.*nothing is cached.*give its path as the model"):
            load_model(name)


class Hub:
    """A hub with one repository, counting what is asked of it."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.asked = folder, []
        self.checksums = {}
        monkeypatch.setattr(fetching, "HfApi", lambda: self)
        monkeypatch.setattr(fetching, "hf_hub_download", self.download)

    def model_info(self, repository, files_metadata, timeout):
        self.asked.append(repository)
        files = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        lfs = {
            name: SimpleNamespace(sha256=self.checksums.get(name) or weights.file_checksum(self.folder / name))
            for name in files
        }
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, lfs=lfs[name]) for name in files])

    def download(self, repository, file, etag_timeout):
        return str(self.folder / file)


def test_a_hub_checkpoint_is_fetched_and_converted_once(tmp_path, monkeypatch, reference, tiny, own_cache):
    hub = Hub(tmp_path, monkeypatch)
    (tmp_path / "README.md").write_text("weights")
    torch.save({"model": reference}, tmp_path / "model.pth")
    assert same_weights(load_model("someone/their-model").model, tiny)
    assert [path.suffix for path in (own_cache / "weights").iterdir() if not path.name.endswith(".json")] == [
        ".safetensors"
    ]
    (tmp_path / "model.pth").unlink()
    assert same_weights(load_model("someone/their-model").model, tiny)
    assert hub.asked == ["someone/their-model"], "the second time needs no network"


@pytest.mark.parametrize(("preset", "file"), [("err-seg-base", "ERR-Seg_B.pth"), ("err-seg-large", "ERR-Seg_L.pth")])
def test_a_preset_picks_its_file_from_the_released_repository(tmp_path, monkeypatch, reference, preset, file):
    """The stand-in is a small model, so that converting it fails: by then it was picked."""
    hub = Hub(tmp_path, monkeypatch)
    for name in ("README.md", "ERR-Seg_B.pth", "ERR-Seg_L.pth"):
        torch.save(reference, tmp_path / name)
    picked, read = [], weights.read
    monkeypatch.setattr(weights, "read", lambda path: picked.append(path.name) or read(path))
    with pytest.raises(ValueError, match="do not fit the model"):
        load_model(preset)
    assert hub.asked == ["lchen1019/ERR-Seg"]
    assert picked == [file]


def test_a_checkpoint_in_our_format_is_used_as_it_is(tmp_path, monkeypatch, reference, tiny, own_cache):
    torch.save(reference, tmp_path / "in.pth")
    (tmp_path / "hub").mkdir()
    convert(weights.read(tmp_path / "in.pth"), tmp_path / "hub" / "model.safetensors")
    Hub(tmp_path / "hub", monkeypatch)
    assert same_weights(load_model("someone/ours").model, tiny)
    assert same_weights(load_model("someone/ours/model.safetensors").model, tiny)


def test_a_damaged_conversion_is_made_again(tmp_path, monkeypatch, reference, tiny, own_cache):
    hub = Hub(tmp_path, monkeypatch)
    torch.save({"model": reference}, tmp_path / "model.pth")
    load_model("someone/their-model")
    converted = next((own_cache / "weights").glob("*.safetensors"))
    converted.write_bytes(converted.read_bytes()[:1000])
    assert same_weights(load_model("someone/their-model").model, tiny)
    assert len(hub.asked) == 2


def test_a_checkpoint_of_another_version_is_refused(tmp_path, tiny):
    metadata = {"format": weights.FORMAT, "family": "err-seg", "text_tower": "", "origin": ""}
    good = dataclasses.asdict(tiny.config)
    damaged = {
        '{"new": 1}': "another version",
        "[]": "another version",
        "3": "another version",
        json.dumps(good | {"clip": "abc"}): "another version",
        json.dumps(good | {"resolution": "abc"}): "positive whole numbers",
        json.dumps(good | {"heads": -1}): "positive whole numbers",
        json.dumps(good | {"width": None}): "positive whole numbers",
        "{": "unusable metadata",
        None: "unusable metadata",
    }
    for configuration, message in damaged.items():
        save_file(
            {"a": torch.zeros(1)},
            tmp_path / "a.safetensors",
            metadata | ({"configuration": configuration} if configuration else {}),
        )
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path / "a.safetensors")


def test_a_fingerprint_from_a_file_is_not_trusted_with_paths(tmp_path, tiny):
    """It names a file of the cache: a checkpoint must not choose which."""
    weights.save(
        tmp_path / "good.safetensors", tiny.state_dict(), family="err-seg", configuration=tiny.config, origin=""
    )
    with safe_open(tmp_path / "good.safetensors", "pt") as file:
        metadata = file.metadata()
    for evil in ("/tmp/victim", "../victim", ""):
        save_file(tiny.state_dict(), tmp_path / "evil.safetensors", metadata | {"text_tower": evil})
        assert load_model(tmp_path / "evil.safetensors").text_tower is None


def test_a_full_disk_is_an_os_error(tmp_path, tiny, monkeypatch):
    def fail(*_):
        raise safetensors.SafetensorError("I/O error: File too large (os error 27)")

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(OSError, match=r"a\.safetensors' could not be written"):
        weights.save(
            tmp_path / "a.safetensors", tiny.state_dict(), family="err-seg", configuration=tiny.config, origin=""
        )
    assert list(tmp_path.iterdir()) == []


def test_a_connection_lost_on_the_way(tmp_path, monkeypatch, reference):
    torch.save(reference, tmp_path / "model.pth")
    hub = Hub(tmp_path, monkeypatch)

    def lose(*_, **__):
        raise LocalEntryNotFoundError("connection lost")

    monkeypatch.setattr(fetching, "hf_hub_download", lose)
    with pytest.raises(ValueError, match="could not be reached"):
        load_model("someone/their-model")
    assert hub.asked


def test_a_damaged_download_is_refused_and_removed(tmp_path, monkeypatch, reference):
    (tmp_path / "snapshot").mkdir()
    hub = Hub(tmp_path / "snapshot", monkeypatch)
    torch.save(reference, tmp_path / "blob")
    (tmp_path / "snapshot" / "model.pth").symlink_to(tmp_path / "blob")
    hub.checksums["model.pth"] = "0" * 64
    with pytest.raises(ValueError, match="arrived damaged"):
        load_model("someone/their-model")
    assert not (tmp_path / "blob").exists(), "or the hub would link to it again"
    assert not (tmp_path / "snapshot" / "model.pth").is_symlink()


def test_what_the_hub_does_not_have(monkeypatch):
    class Missing(RepositoryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    class Nothing:
        def model_info(self, repository, **_):
            raise Missing

    monkeypatch.setattr(fetching, "HfApi", Nothing)
    with pytest.raises(ValueError, match=r"no file 'runs/model/a\.pth' here.*does not exist, or is private"):
        load_model("runs/model/a.pth")


@pytest.mark.parametrize(
    ("files", "size", "picked"),
    [
        (["README.md", "ERR-Seg_B.pth", "ERR-Seg_L.pth"], "base", "ERR-Seg_B.pth"),
        (["README.md", "ERR-Seg_B.pth", "ERR-Seg_L.pth"], "large", "ERR-Seg_L.pth"),
        (["convnextB_640/model_final.pth", "convnextL_640/model_final.pth"], "large", "convnextL_640/model_final.pth"),
        (["err-seg-base.pth", "err-seg-large.pth"], "base", "err-seg-base.pth"),
        (["model_base.safetensors", "model_base.pth"], "base", "model_base.safetensors"),
        (["weights.pth", "config.yaml"], None, "weights.pth"),
    ],
)
def test_the_file_is_picked_by_its_name(files, size, picked):
    assert fetching.pick_file(files, size, "hub") == picked


@pytest.mark.parametrize(
    ("files", "size"),
    [(["a.pth", "b2.pth"], None), ([], None), (["one.pth", "two.pth"], "base"), (["ERR-Seg_L.pth"], "base")],
)
def test_no_file_is_picked_by_chance(files, size):
    with pytest.raises(ValueError, match="Name the file"):
        fetching.pick_file(files, size, "hub")


def test_an_interrupted_save_leaves_nothing(tmp_path, tiny, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        weights.save(
            tmp_path / "a.safetensors", tiny.state_dict(), family="err-seg", configuration=tiny.config, origin=""
        )
    assert list(tmp_path.iterdir()) == []


# EOV-Seg: Google Drive, and towers that are carried whole -------------------------------------------------------------


@pytest.fixture(scope="module")
def eov_reference(tiny_eov):
    """The small EOV-Seg's weights under the reference's names, with what a reference file carries beyond them."""
    state = {MODELS["eov-seg"].reference.name(name): tensor for name, tensor in tiny_eov.state_dict().items()}
    return state | {
        "vit_backbone.clip_model.visual.transformer.resblocks.1.ln_1.weight": torch.zeros(64),
        "vit_backbone.clip_model.visual.transformer.resblocks.11.ln_1.weight": torch.zeros(64),
        "vit_backbone.clip_model.visual.ln_post.bias": torch.zeros(64),
        "vit_backbone.clip_model.visual.proj": torch.zeros(64, 64),
        "vit_backbone.clip_model.transformer.resblocks.0.ln_1.weight": torch.zeros(64),
        "vit_backbone.clip_model.positional_embedding": torch.zeros(77, 64),
        "vit_backbone.clip_model.logit_scale": torch.zeros(()),
        "light_weight_decoder.criterion.empty_weight": torch.ones(134),
    }


def test_towers_are_cut_and_the_cut_keys_listed(tmp_path, eov_reference, tiny_eov):
    torch.save({"model": eov_reference}, tmp_path / "model_final.pth")
    preset, dropped = convert(weights.read(tmp_path / "model_final.pth"), tmp_path / "eov.safetensors")
    assert preset == "eov-seg-untrained"
    assert set(dropped) == eov_reference.keys() - {
        MODELS["eov-seg"].reference.name(name) for name in tiny_eov.state_dict()
    }
    assert len(dropped) == 8
    assert {reason: len(names) for reason, names in MODELS["eov-seg"].reference.drop_reasons(dropped).items()} == {
        "only the first block runs": 2,
        "comes after the last block": 2,
        "the text tower of the ViT's CLIP, never run": 3,
        "weights of the loss, see training.set_loss": 1,
    }
    loaded = load_model(tmp_path / "eov.safetensors").model
    assert same_weights(loaded, tiny_eov)
    assert {tensor.dtype for name, tensor in loaded.state_dict().items() if name.endswith("num_batches_tracked")} == {
        torch.int64
    }
    with safe_open(tmp_path / "eov.safetensors", "pt") as file:
        assert json.loads(file.metadata()["configuration"])["training_vocabulary"] == "eov-seg/coco-panoptic-133"
        names = file.keys()
    assert not any(name.startswith("spatial.blocks.1") for name in names)


def test_a_training_vocabulary_of_ones_own_is_kept(tmp_path, tiny_eov):
    configuration = dataclasses.replace(tiny_eov.config, training_vocabulary="oak, oaks; birch; beech")
    weights.save(
        tmp_path / "trees.safetensors",
        tiny_eov.state_dict(),
        family="eov-seg",
        configuration=configuration,
        origin="test",
    )
    segment = Segmenter(load_model(tmp_path / "trees.safetensors").model)
    assert segment.encode_words(Vocabulary.of("tree; Oaks; elm, birch; sky")).seen.tolist() == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "size", ["small", *(pytest.param(size, marks=pytest.mark.slow) for size in ("medium", "large"))]
)
def test_eov_presets_are_told_apart_by_shapes(size):
    kind = MODELS["eov-seg"]
    state = kind.skeleton(kind.presets[f"eov-seg-{size}"]).state_dict()
    assert (
        guess_preset({MODELS["eov-seg"].reference.name(name): tensor for name, tensor in state.items()})
        == f"eov-seg-{size}"
    )


class Drive:
    """A stand-in for gdown: gives a file for each id, or fails."""

    def __init__(self, files: dict[str, bytes | Exception | None]):
        self.files, self.asked = files, []

    def download(self, *, id, output, quiet):
        self.asked.append(id)
        content = self.files[id]
        if isinstance(content, Exception):
            raise content
        if content is None:
            return None
        Path(output).write_bytes(content)
        return output


@pytest.fixture
def drive(monkeypatch):
    def install(content) -> Drive:
        stand_in = Drive({"1dVfHpzmCOlV6hLfUpd3nHXz62wdB7RY2": content})
        monkeypatch.setitem(sys.modules, "gdown", stand_in)
        return stand_in

    return install


def test_released_weights_come_from_drive_once(tmp_path, drive, eov_reference, tiny_eov, own_cache, monkeypatch):
    monkeypatch.setitem(MODELS["eov-seg"].presets, "eov-seg-large", MODELS["eov-seg"].presets["eov-seg-untrained"])
    torch.save({"model": eov_reference}, tmp_path / "model_final.pth")
    stand_in = drive((tmp_path / "model_final.pth").read_bytes())
    for _ in range(2):
        assert same_weights(load_model("eov-seg-large").model, tiny_eov)
    assert stand_in.asked == ["1dVfHpzmCOlV6hLfUpd3nHXz62wdB7RY2"]
    note = json.loads((own_cache / "weights" / "eov-seg-large.json").read_text())
    assert note["drive"] == "1dVfHpzmCOlV6hLfUpd3nHXz62wdB7RY2"
    assert sorted(path.suffix for path in (own_cache / "weights").iterdir()) == [".json", ".safetensors"], (
        "the original is not kept"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OSError("no such host"), "OSError: no such host"),
        (RuntimeError("Too many users have viewed this file\nmore"), "RuntimeError: Too many users"),
        (None, "Drive gave no file"),
        (b"<html>Google Drive - Virus scan warning</html>", "no checkpoint: Drive may ask for a confirmation"),
    ],
)
def test_what_drive_may_do(drive, own_cache, content, message):
    drive(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_model("eov-seg-large")
    assert "drive.google.com/file/d/1dVfHpzmCOlV6hLfUpd3nHXz62wdB7RY2" in str(caught.value)
    assert list((own_cache / "weights").iterdir()) == []


def test_without_gdown_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ValueError, match=r"pip install 'wordmask\[drive\]'.*in a browser"):
        load_model("eov-seg-small")


def test_a_drive_file_that_does_not_fit_is_not_kept(tmp_path, drive, reference, own_cache):
    """Weights of another model, or damaged ones: the error is told, and the next try fetches again."""
    torch.save({"model": reference}, tmp_path / "model_final.pth")
    stand_in = drive((tmp_path / "model_final.pth").read_bytes())
    for _ in range(2):
        with pytest.raises(ValueError, match="do not fit"):
            load_model("eov-seg-large")
    assert len(stand_in.asked) == 2
    assert list((own_cache / "weights").iterdir()) == []
