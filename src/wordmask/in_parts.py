"""A block applied to a part of an axis at a time: for CPUs, whose caches are small, and for memory that stays flat."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(
    block: Callable[..., Tensor], *maps: Tensor, size: int, dim: int = 1, into: Tensor | None = None
) -> Tensor:
    """Apply a block that sees every place along an axis alone to `size` of them at a time, one at least.

    All go at once where gradients are recorded, which keep everything; through a graph, which can't count parts; and on
    CUDA, where wide products are faster.

    Args:
        block: Gives one tensor with as many places along the axis.
        maps: Cut along it together.
        dim: The axis; the same in the result.
        into: Where the result may be written; a new tensor if None.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or maps[0].is_cuda:
        return block(*maps)
    size, whole = max(1, size), maps[0].shape[dim]
    if whole <= size:
        return block(*maps)
    for start in range(0, whole, size):
        length = min(size, whole - start)
        done = block(*(x.narrow(dim, start, length) for x in maps))
        if into is None:
            into = done.new_empty((*done.shape[:dim], whole, *done.shape[dim + 1 :]))
        into.narrow(dim, start, length).copy_(done)
    return into
