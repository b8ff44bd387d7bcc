"""A block applied to a part of an axis at a time: for CPUs, whose caches are small, and for memory that stays flat."""

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(
    block: Callable[..., Tensor],
    *maps: Tensor,
    entries: int,
    axis: int = 1,
    channel_axis: int | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """Apply a block that sees every place along an axis alone to some of them at a time, one at least.

    All go at once where gradients are recorded, which keep everything; through a graph, which can't count parts; and on
    CUDA, where wide products are faster.

    Args:
        block: Returns one tensor with as many places along the axis.
        maps: Cut along it together.
        entries: How many entries of the first map go through at a time; those along its channels count as one.
        axis: The same in the result.
        channel_axis: That of the first map's channels; None: it has none.
        into: Where the result may be written; a new tensor if None.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or maps[0].is_cuda:
        return block(*maps)
    whole = maps[0].shape[axis]
    channels = 1 if channel_axis is None else maps[0].shape[channel_axis]
    size = max(1, entries * whole * channels // max(1, maps[0].numel()))
    if whole <= size:
        return block(*maps)
    for start in range(0, whole, size):
        length = min(size, whole - start)
        done = block(*(x.narrow(axis, start, length) for x in maps))
        if into is None:
            into = done.new_empty((*done.shape[:axis], whole, *done.shape[axis + 1 :]))
        into.narrow(axis, start, length).copy_(done)
    assert into is not None  # there was at least one part
    return into
