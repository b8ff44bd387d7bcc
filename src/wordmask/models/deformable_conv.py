"""Deformable convolution (Zhu et al., arXiv 1811.11168): every tap of a kernel looks where the map says."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from wordmask.clip import widened

KERNEL_TAPS = 9  # of a 3×3 kernel


def deformable_conv2d(
    x: Float[Tensor, "B C h w"],
    offsets: Float[Tensor, "B 18 h w"],
    strengths: Float[Tensor, "B 9 h w"],
    weight: Float[Tensor, "O C 3 3"],
) -> Float[Tensor, "B O h w"]:
    """Convolve with a 3×3 kernel whose taps move by `offsets` (y and x of each tap in turn) and count by `strengths`.

    The one place that chooses how: torchvision's operator on CUDA; elsewhere, and where a graph is recorded,
    `grid_sample`, which is 1.2–3.9 times faster on two CPU cores at the models' sizes, runs on every device and
    exports. They agree to 1e-4.
    """
    if x.is_cuda and not torch.compiler.is_compiling():
        return deform_conv2d(x, offsets, weight, padding=(1, 1), mask=strengths)
    return deformable_by_grid(x, offsets, strengths, weight)


def deformable_by_grid(
    x: Float[Tensor, "B C h w"],
    offsets: Float[Tensor, "B 18 h w"],
    strengths: Float[Tensor, "B 9 h w"],
    weight: Float[Tensor, "O C 3 3"],
) -> Float[Tensor, "B O h w"]:
    """Deformable convolution as one bilinear sampling of all taps and one matrix product.

    Positions are computed in full precision: half of it can't tell one column of a wide map from the next.
    """
    (height, width), offsets = x.shape[-2:], widened(offsets)
    steps = torch.arange(-1, 2, device=x.device, dtype=offsets.dtype)
    rows, columns = (torch.arange(side, device=x.device, dtype=offsets.dtype) for side in (height, width))
    rows = rows[:, None] + steps.repeat_interleave(3)[:, None, None]  # (9, h, 1)
    columns = columns + steps.repeat(3)[:, None, None]  # (9, 1, w)
    moved = offsets.unflatten(1, (KERNEL_TAPS, 2))  # (B, 9, 2, h, w)
    # Sampling has no scale along an axis of one pixel, and outside are zeros anyhow. Padded always: a condition would
    # become that of the size a graph is recorded with.
    padded = F.pad(x, (0, 1, 0, 1))
    y = (moved[:, :, 0] + rows) * (2 / height) - 1  # (B, 9, h, w)
    x_ = (moved[:, :, 1] + columns) * (2 / width) - 1
    with torch.autocast(x.device.type, enabled=False):
        grid = torch.stack([x_, y], dim=-1).flatten(1, 2)  # (B, 9·h, w, 2)
        taps = F.grid_sample(widened(padded), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    taps = taps.unflatten(2, (KERNEL_TAPS, height)) * strengths[:, None]  # (B, C, 9, h, w)
    return (weight.flatten(1) @ taps.flatten(1, 2).flatten(2)).unflatten(2, (height, width))
