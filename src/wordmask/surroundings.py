"""What a caller has set up around a call of ours, and that is set aside for as long as we compute: a precision then
means what it says, wherever it is asked for.

An outer `torch.autocast`, a default device, inference mode and disabled gradients belong to a thread. The default type
of numbers belongs to the whole process: what runs a model never depends on it, and only what builds or trains one
changes it, as other threads would see that.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext

DEVICES = ("cpu", "cuda", "mps", "xpu")  # that have an autocast of their own


@contextmanager
def precision_kept() -> Iterator[None]:
    """Set aside, in this thread, an outer autocast and a default device: operations run in the types of their
    tensors."""
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_default_device_aside())
        yield


@contextmanager
def as_if_alone() -> Iterator[None]:
    """Set aside also inference mode and disabled gradients, for tensors that outlive the call: weights, above all."""
    with precision_kept(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Make tensors float32 where no type is named, in the whole process; of several threads, the last one to leave puts
    back what was there."""
    _DEFAULT_TYPE.enter()
    try:
        yield
    finally:
        _DEFAULT_TYPE.leave()


@contextmanager
def _default_device_aside() -> Iterator[None]:
    """Take `torch.device` and `torch.set_default_device` from what torch looks through at every operation, and put them
    back: while one is there, also if it names the device in use, attention takes another road, with other roundings."""
    before = _get_current_function_mode_stack()
    others = [mode for mode in before if not isinstance(mode, DeviceContext)]
    if len(others) == len(before):
        yield
        return
    _replace_modes(others)
    try:
        yield
    finally:
        _replace_modes(before)


def _replace_modes(modes: list[TorchFunctionMode]) -> None:
    for _ in _get_current_function_mode_stack():
        _pop_mode()
    for mode in modes:
        _push_mode(mode)


class _DefaultType:
    """Who needs float32 as the default at the moment: torch has one default for all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = torch.float32

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before = torch.get_default_dtype()
            self.users += 1
            torch.set_default_dtype(torch.float32)

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                torch.set_default_dtype(self.before)


_DEFAULT_TYPE = _DefaultType()
