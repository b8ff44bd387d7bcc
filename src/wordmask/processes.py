"""One or several processes that share the pictures of an evaluation: who takes which, and what all of them counted."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(hours=12)  # how long a process waits for the slowest


@dataclass(frozen=True)
class Processes:
    """This process, and how many there are; torchrun says so."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> "Processes":
        """Meet the others that torchrun started. They exchange plain objects over gloo, on any device: figures don't
        depend on it."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        from torch import distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=PATIENCE)
        return cls(distributed.get_rank(), count)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """With several GPUs on a machine, each process takes its own."""
        import torch

        if self.count > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
        return wanted

    def from_first(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        if self.count == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the first; in the others nothing."""
        if self.count == 1:
            return [value]
        from torch import distributed

        boxes = [None] * self.count if self.first else None
        distributed.gather_object(value, boxes)
        return boxes or []

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()
            distributed.destroy_process_group()
