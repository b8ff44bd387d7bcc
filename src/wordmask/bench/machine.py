"""What the machine can do, and the yardstick that makes figures of two machines comparable.

The *yardstick* is the image tower of ERR-Seg B with both dense maps, 640×640 pixels, in eager float32.
"""

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from torch.nn import functional as F

from wordmask.bench.timing import Timing, seconds_of, timed
from wordmask.models import kind_of
from wordmask.models.err_seg import ErrSeg

YARDSTICK = "err-seg-base"
YARDSTICK_SIDE = 640  # pixels
MATRIX = 2048  # side of the matrices whose product is timed
MAPS = (256, 64, 64)  # (C, H, W) of those that a 3×3 convolution is timed with
COPIED = 2**28  # bytes
RATE_SECONDS = 0.5  # that each of them is repeated for: its fastest run counts, and a shared machine has slow moments
FLAGS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")  # of a CPU's capabilities, as torch names them


@dataclass(frozen=True)
class MachineConditions:
    """What a figure depends on.

    Args:
        date: With the time, in UTC.
        device: The name of a GPU, else the kind of device.
        instructions: Which of `FLAGS` the processor has.
        threads: Those that torch uses.
    """

    date: str
    device: str
    cpu: str
    instructions: list[str]
    threads: int
    torch: str
    python: str
    system: str


@dataclass(frozen=True)
class Machine:
    """What the machine can do.

    Args:
        rates: Floating-point operations per second of a matrix product or a convolution, whichever is faster, by
            precision.
        bandwidth: Bytes per second, read and written, when memory is copied.
        yardstick: What the image tower of ERR-Seg B takes in float32.
    """

    rates: dict[str, float]
    bandwidth: float
    yardstick: Timing
    conditions: MachineConditions

    def yardsticks(self, seconds: float) -> float:
        """How many yardsticks that is."""
        return seconds / self.yardstick.median


@torch.inference_mode()
def measure_machine(device: torch.device, precisions: set[str]) -> Machine:
    """Measure what the machine can do; its rates twice, before the yardstick and after it."""
    wanted = sorted(precisions | {"float32"})
    before = measure_rates(device, wanted)
    bandwidth, yardstick = measure_bandwidth(device), measure_yardstick(device)
    after = measure_rates(device, wanted)
    rates = {precision: max(before[precision], after[precision]) for precision in wanted}
    return Machine(rates, bandwidth, yardstick, conditions(device))


def measure_rates(device: torch.device, precisions: Iterable[str]) -> dict[str, float]:
    """Floating-point operations per second: the higher rate of a matrix product and a convolution, which torch leaves
    to two libraries.

    On a CPU of AMD, convolutions can be more than twice as fast in float32.
    """
    rates = {}
    for precision in precisions:
        dtype = getattr(torch, precision)
        rates[precision] = max(measure_product(device, dtype), measure_convolution(device, dtype))
    return rates


def measure_product(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a matrix product."""
    first, second = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / fastest(lambda: first @ second, device)


def measure_convolution(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a 3×3 convolution."""
    channels, height, width = MAPS
    maps = torch.randn(1, *MAPS, device=device).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    seconds = fastest(lambda: F.conv2d(maps, kernel, padding=1), device)
    return 2 * kernel.numel() * height * width / seconds


def fastest(action: Callable[[], object], device: torch.device) -> float:
    """The fastest of the runs that `RATE_SECONDS` have room for, two at least."""
    started, seconds = time.perf_counter(), []
    while len(seconds) < 2 or time.perf_counter() - started < RATE_SECONDS:
        seconds += seconds_of(action, device, runs=1, warm_up=0)
    return min(seconds)


def measure_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second when memory is copied."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / timed(lambda: target.copy_(source), device).fastest


@torch.inference_mode()
def measure_yardstick(device: torch.device) -> Timing:
    """Time the yardstick."""
    kind = kind_of(YARDSTICK)
    model = kind.random(kind.presets[YARDSTICK]).to(device)
    assert isinstance(model, ErrSeg)
    pixels = torch.randn(1, 3, YARDSTICK_SIDE, YARDSTICK_SIDE, device=device)
    return timed(lambda: model.encode_image(pixels), device)


def conditions(device: torch.device) -> MachineConditions:
    """What figures that are taken now depend on."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return MachineConditions(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        cpu=str(found.get("cpu_name") or platform.processor() or platform.machine()),
        instructions=[name for name in FLAGS if found.get(name)],
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        system=platform.system(),
    )
