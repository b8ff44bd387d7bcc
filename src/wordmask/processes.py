"""One or several processes that torchrun started, to train or to measure together: which one this is, on which device
it works, and what it learns from the others."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

RANK, COUNT, RANK_ON_MACHINE = "RANK", "WORLD_SIZE", "LOCAL_RANK"  # how torchrun tells a process which one it is
PATIENCE = timedelta(hours=12)  # how long a process waits for the slowest, or for the first, which validates alone

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process, and how many there are."""

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """What torchrun says, whether this process has met the others or not."""
        return cls(int(os.environ.get(RANK, "0")), int(os.environ.get(COUNT, "1")))

    @classmethod
    def join(cls, device: torch.device | None = None) -> "Processes":
        """Meet the others that torchrun started.

        Args:
            device: A GPU: tensors are exchanged between GPUs, over NCCL. Anything else: over gloo, which also
                exchanges plain objects.
        """
        processes = cls.started()
        if processes.count == 1:
            return cls()
        on_gpu = device is not None and device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
        return cls(distributed.get_rank(), processes.count)

    @property
    def first(self) -> bool:
        """Whether it is this one that writes, and tells the user how far it is."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """With several GPUs on a machine, each process takes its own."""
        if self.count > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{int(os.environ[RANK_ON_MACHINE]) % torch.cuda.device_count()}"
        return wanted

    def from_first(self, value: T) -> T:
        """What the first process has, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What every process has, in the first; in the others nothing."""
        if self.count == 1:
            return [value]
        boxes = [value] * self.count if self.first else None
        distributed.gather_object(value, boxes)
        return boxes or []

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of what every process has, in all of them; the values themselves where there is one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
