"""Files that torch or pickle wrote → their tensors, arrays and plain values. Nothing that is in them is run.

A pickle is a program. torch has a reader that follows it only as far as tensors need; here it also reads numpy's arrays
and numbers, by stand-ins: numpy's own would believe what a file says of its types, down to pointers.
"""

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch
from torch import Tensor

PICKLE_START = b"\x80"
TORCH_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch's files begin with that are no zip, pickled
PLAIN_TYPES = re.compile(r"[fiubc]\d{1,2}|[SU]\d+")  # codes of numpy: numbers, and texts; no objects, no structures
REFUSED = re.compile(
    r"GLOBAL (\S+)|reduce for unrecognized function (.+)|but got (<class .+?>)|unsupported class (\S+)"
)
BIG_ENDIAN = (">", "B", "big")
NAME = re.compile(r"[\w.]+")  # of a function, as Python writes it


class HoldsCode(ValueError):
    """A file asks for a function or class that has nothing to do with tensors."""


def read_pickled(path: Path) -> Any:
    """Read what torch or pickle wrote: arrays become tensors, numpy's numbers Python's.

    Raises:
        ValueError: The file is damaged, or no such file, or holds code, which is not run.
    """
    try:
        return _as_tensors(_read(path))
    except HoldsCode as error:
        raise ValueError(
            f"The checkpoint {str(path)!r} holds more than tensors: it contains code. Reading it would run {error}, "
            "which may do anything, so that it is refused; none of it was run. If you trust who made it, save its "
            "state dict alone there, with torch.save or as safetensors."
        ) from None
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise almost anything
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not a PyTorch file ({type(error).__name__}). Fetch it again."
        ) from None


def may_be_pickled(path: Path) -> bool:
    """Tell whether a file begins as torch's do: a zip archive, or a pickle as it is."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == PICKLE_START


def _read(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not is_zip and TORCH_START not in file.read(len(TORCH_START) + 2):
            file.seek(0)
            return _PlainUnpickler(file).load()
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:
        if "TorchScript" in str(error):
            raise HoldsCode("a TorchScript program") from None
        refused = REFUSED.search(str(error))
        if refused:
            raise HoldsCode(next(name for name in refused.groups() if name)) from None
        raise


def _as_tensors(content: Any, depth: int = 3) -> Any:
    """The same with arrays as tensors, as deep as weights may lie."""
    if isinstance(content, PlainArray):
        return torch.from_numpy(content.values)
    if isinstance(content, dict) and depth:
        return {name: _as_tensors(value, depth - 1) for name, value in content.items()}
    return content


class PlainType:
    """Stands in for `numpy.dtype`."""

    def __init__(self, code: str | bytes, *_: object):
        self.code = code if isinstance(code, str) else code.decode("ascii")
        if not PLAIN_TYPES.fullmatch(self.code):
            raise HoldsCode(f"numpy.dtype({self.code[:20]!r})")
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1], "ascii") if isinstance(state[1], bytes) else str(state[1])

    def read(self, content: bytes | str) -> np.ndarray:
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)  # a text: from Python 2
        kind = np.dtype(self.code).newbyteorder(">" if self.order in BIG_ENDIAN else "<")
        return np.frombuffer(raw, kind).astype(kind.newbyteorder("="))


class PlainArray:
    """Stands in for `numpy.ndarray`, and for the functions that make one."""

    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        self._fill(content, kind, shape, "F" if by_columns else "C")

    def _fill(self, content: bytes | str, kind: PlainType, shape: tuple[int, ...], order: Any) -> None:
        values = kind.read(content)
        if math.prod(shape) != values.size:
            raise ValueError(f"an array of {shape} with {values.size} values")
        self.values = np.array(values.reshape(shape, order=order), order="C")

    @classmethod
    def empty(cls, *_: object) -> "PlainArray":
        """`numpy.core.multiarray._reconstruct`; the content follows."""
        return cls()

    @classmethod
    def of_bytes(cls, content: bytes, kind: PlainType, shape: tuple[int, ...], order: str) -> "PlainArray":
        """`numpy.core.numeric._frombuffer`."""
        array = cls()
        array._fill(content, kind, shape, order)
        return array

    @classmethod
    def number(cls, kind: PlainType, content: bytes | str) -> object:
        """`numpy.core.multiarray.scalar`."""
        return kind.read(content)[0].item()

    @classmethod
    def no_bytes(cls) -> bytes:
        """`bytes`, called with nothing: how older protocols write what is empty."""
        return b""

    @classmethod
    def encoded(cls, text: str, encoding: str = "latin1") -> bytes:
        """`_codecs.encode`: how older protocols write bytes."""
        return text.encode("latin1" if encoding in ("latin1", "latin-1") else "ascii")


# methods and classes with __setstate__, which a pickle can't change: it could set attributes of functions
STAND_INS: dict[str, Any] = {
    "numpy.dtype": PlainType,
    "numpy.ndarray": PlainArray,
    "builtins.bytes": PlainArray.no_bytes,
    "__builtin__.bytes": PlainArray.no_bytes,
    "numpy.core.multiarray._reconstruct": PlainArray.empty,
    "numpy._core.multiarray._reconstruct": PlainArray.empty,
    "numpy.core.multiarray.scalar": PlainArray.number,
    "numpy._core.multiarray.scalar": PlainArray.number,
    "numpy.core.numeric._frombuffer": PlainArray.of_bytes,
    "numpy._core.numeric._frombuffer": PlainArray.of_bytes,
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values and numpy's arrays: what detectron2's model zoo holds."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return OrderedDict
        if full == "_codecs.encode":
            return PlainArray.encoded
        if full in STAND_INS:
            return STAND_INS[full]
        if NAME.fullmatch(full):
            raise HoldsCode(full)
        raise pickle.UnpicklingError("no pickle")  # a text, such as "cup, mug", begins like one


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Tell whether something is {name: tensor}."""
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
