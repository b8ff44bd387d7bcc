"""Pickles: tensors, arrays and numbers are read, and nothing else is run."""

import argparse
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wordmask import weights
from wordmask.unpickling import read_pickled


class Call:
    """Would call something when it is read."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def zip_file(content, path):
    torch.save(content, path)


def old_file(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_file(content, path):
    path.write_bytes(pickle.dumps(content))


def oldest_file(content, path):
    path.write_bytes(pickle.dumps(content, protocol=0))


@pytest.mark.parametrize("save", [zip_file, old_file, plain_file, oldest_file])
@pytest.mark.parametrize(
    "call", [Call(os.system, "touch ran"), Call(eval, "open('ran', 'w')"), Call(getattr, "", "upper")]
)
def test_code_is_named_and_not_run(tmp_path, monkeypatch, save, call):
    monkeypatch.chdir(tmp_path)
    for content in ({"model": {"a": 1.0}, "more": call}, call):
        save(content, tmp_path / "a.pkl")
        with pytest.raises(ValueError, match=r"contains code.*(system|eval|getattr).*none of it was run") as caught:
            weights.read(tmp_path / "a.pkl")
        assert "damaged" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_functions_of_ours_can_not_be_changed(tmp_path):
    """A pickle may set attributes of what it can name."""
    changing = b"\x80\x02cnumpy.core.multiarray\nscalar\nN}X\x08\x00\x00\x00__code__NsN\x86\x86b."
    (tmp_path / "a.pkl").write_bytes(changing)
    with pytest.raises(ValueError, match="damaged"):
        read_pickled(tmp_path / "a.pkl")


@pytest.mark.parametrize("save", [zip_file, old_file, plain_file])
def test_numbers_of_numpy_beside_weights(tmp_path, save):
    beside = {"best": np.float64(0.3), "step": np.int32(7), "name": np.str_("run"), "ids": np.arange(3)}
    state = {"a": np.ones(2, np.float32)} if save is plain_file else {"a": torch.ones(2)}
    save({"model": state, **beside}, tmp_path / "a.pth")
    checkpoint = weights.read(tmp_path / "a.pth")
    assert checkpoint.inside == ("model",)
    assert torch.equal(checkpoint.state["a"], torch.ones(2))
    read = read_pickled(tmp_path / "a.pth")
    assert (read["best"], read["step"], read["name"]) == (0.3, 7, "run")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    kind=st.sampled_from(["f4", "f8", "f2", ">f4", "i8", ">i2", "u1", "?", "c8"]),
    order=st.sampled_from(["C", "F"]),
    protocol=st.integers(2, 5),
    torchs=st.booleans(),
)
def test_arrays_are_read_as_they_were(tmp_path, shape, kind, order, protocol, torchs):
    """The model zoo of detectron2: {"model": arrays, "__author__": …}."""
    count = int(np.prod(shape))
    array = np.asarray(np.arange(count).reshape(shape).astype(kind), order=order)
    content = {"model": OrderedDict(a=array), "__author__": "someone", "matching_heuristics": True}
    file = tmp_path / "a.pkl"
    if torchs:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=protocol))
    read = weights.read(file).state["a"].numpy()
    np.testing.assert_array_equal(read, array)
    assert read.shape == array.shape
    assert read.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "content",
    [
        np.array([print], object),
        np.zeros(3, [("x", "f4"), ("y", "O")]),
        argparse.Namespace(rate=1),
        torch.nn.Linear(2, 2),
    ],
)
def test_other_objects_are_refused(tmp_path, content):
    for save in (zip_file, plain_file):
        save({"model": {"a": content}}, tmp_path / "a.pkl")
        with pytest.raises(ValueError, match="contains code"):
            weights.read(tmp_path / "a.pkl")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pickles_are_errors(tmp_path, data):
    whole = pickle.dumps({"model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "__author__": "x"}, protocol=4)
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    after = {"cut": b"", "flip": byte + whole[place + 1 :], "insert": byte + whole[place:]}[change]
    (tmp_path / "a.pkl").write_bytes(whole[:place] + after)
    try:
        state = weights.read(tmp_path / "a.pkl").state
    except ValueError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
