"""The memory of this process: keep what is freed, give it back, measure it."""

import ctypes
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**29  # bytes free at the end of the heap that stay with the process
OWN_PAGES = 2**28  # a block from this size on comes from the system, and goes back to it at once


def keep_freed_memory() -> None:
    """Have blocks that were freed used again; by default every large one comes from the system anew, cleared page by
    page.

    That takes a fifth to a third of a model's time on a CPU. It changes the whole process, so that it is for those who
    own it: the command line and its workers do it, the library doesn't. Without GNU's C library it does nothing.
    """
    if (library := _gnu()) is not None:
        library.mallopt(MMAP_THRESHOLD, OWN_PAGES)
        library.mallopt(TRIM_THRESHOLD, KEPT)


def give_back_freed_memory() -> None:
    """Return to the system what was freed; without GNU's C library nothing is known to be kept."""
    if (library := _gnu()) is not None:
        library.malloc_trim(0)


@cache
def _gnu() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


class MemoryUse(NamedTuple):
    """Bytes in use before something was done, and at the highest while it was."""

    before: int
    peak: int

    @property
    def added(self) -> int:
        return self.peak - self.before


def peak_memory(action: Callable[[], object], device: "torch.device") -> MemoryUse | None:
    """Measure what an action takes: of a GPU's memory; on a Linux CPU of the whole process; elsewhere it is unknown."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return MemoryUse(before, torch.cuda.max_memory_allocated(device))
    if not Path("/proc/self/clear_refs").exists():
        return None
    give_back_freed_memory()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begin the high-water mark anew
    action()
    return MemoryUse(before, resident("VmHWM"))


def resident(entry: str) -> int:
    """An entry of what Linux says of this process, such as `VmRSS`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(entry + ":"))) * 1024
