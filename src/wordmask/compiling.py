"""A model as one graph."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from wordmask.pixels import PADDING
from wordmask.raw import RawOutput
from wordmask.text import Words


def compiled(model: Callable[..., RawOutput], device: torch.device) -> Callable[..., RawOutput]:
    """The model as one graph for any size and vocabulary; on CUDA its kernels are launched together.

    Sides are multiples of the coarsest stride. The graph is told so by the shape of what it gets: it would work for
    minutes on how the sizes of its maps follow from a side that could be anything.
    """
    from torch.fx.experimental import _config as graph_settings

    @partial(torch.compile, dynamic=True, fullgraph=True, mode="reduce-overhead" if device.type == "cuda" else None)
    def graph(cells: Tensor, words: Words, **choice: int) -> RawOutput:
        return model(cells.flatten(4).flatten(2, 3), words, **choice)

    def run(pixels: Tensor, words: Words, **choice: int) -> RawOutput:
        # (B, 3, H / 32, 32, W / 32, 32)
        cells = pixels.contiguous().unflatten(3, (-1, PADDING)).unflatten(2, (-1, PADDING))
        for axis in (3, 5):
            torch._dynamo.mark_static(cells, axis)
        # sizes that happen to be equal the first time needn't stay so
        with graph_settings.patch(use_duck_shape=False):  # pyright: ignore[reportAttributeAccessIssue]  # made later
            return graph(cells, words, **choice)

    return run
