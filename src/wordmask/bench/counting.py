"""What one part of a model takes: seconds, operations and bytes, noted while it runs."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wordmask.bench.machine import Machine
from wordmask.bench.timing import Timing, finish, summary
from wordmask.watching import Watch


@dataclass
class ModelPart:
    """What one part of a model took.

    Args:
        label: What a person calls it.
        seconds: What each run took.
        operations: Floating-point operations of one run, by the precision they are done in.
        bytes: Weights and inputs read once and outputs written once.
    """

    label: str
    seconds: list[float] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    @property
    def timing(self) -> Timing:
        """What is told of its runs."""
        return summary(self.seconds)

    def floor(self, machine: Machine) -> float:
        """The least number of seconds that a machine could need.

        It is the longer of two times: the operations, each in its own precision, at the rate that the machine reaches
        in that precision; and the bytes that can't be avoided at its bandwidth.
        """
        computing = sum(count / machine.rates[precision] for precision, count in self.operations.items())
        return max(computing, self.bytes / machine.bandwidth)


def timing(device: torch.device) -> Watch[ModelPart]:
    """Note how long a method takes."""

    def watch(part: ModelPart, run: Callable[[], object]) -> object:
        finish(device)
        started = time.perf_counter()
        result = run()
        finish(device)
        part.seconds.append(time.perf_counter() - started)
        return result

    return watch


def counting(part: ModelPart, run: Callable[[], object]) -> object:
    """Count the operations and bytes of a method."""
    operations, read = Operations(), BytesRead()
    with sdpa_kernel(SDPBackend.MATH), read, operations:  # not every kernel of attention can be counted
        result = run()
    part.operations += operations.by_precision
    part.bytes += read.total + sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
    return result


class Operations(TorchDispatchMode):
    """Counts floating-point operations by precision, with torch's own formulas."""

    def __init__(self):
        super().__init__()
        self.by_precision: Counter[str] = Counter()

    def __torch_dispatch__(self, operator, types, arguments=(), settings=None):
        result = operator(*arguments, **(settings or {}))
        if (count := flop_registry.get(operator._overloadpacket)) is not None:
            precision = str(tree_leaves(result)[0].dtype).removeprefix("torch.")
            self.by_precision[precision] += count(*arguments, **(settings or {}), out_val=result)
        return result


class BytesRead(TorchDispatchMode):
    """Counts the bytes of tensors that were there before, each once: weights and inputs."""

    def __init__(self):
        super().__init__()
        self.made: set[int] = set()
        self.seen: set[int] = set()
        self.kept: list[Tensor] = []  # so that no address is used twice
        self.total = 0

    def __torch_dispatch__(self, operator, types, arguments=(), settings=None):
        result = operator(*arguments, **(settings or {}))
        for leaf in tree_leaves((arguments, settings)):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self.made | self.seen:
                self.seen.add(leaf.untyped_storage().data_ptr())
                self.total += leaf.nbytes
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.made.add(leaf.untyped_storage().data_ptr())
                self.kept.append(leaf)
        return result
