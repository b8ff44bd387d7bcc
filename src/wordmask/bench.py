"""How fast a model is, part by part, beside what the machine could do at best.

Released presets are built with random weights: speed doesn't depend on them. Every time is the median of several runs
after a warm-up, with the fastest and the slowest; only words that are encoded for the first time have one run. So that
figures from two machines can be compared, pictures are also given in units of one *yardstick*: the image tower of
ERR-Seg B with both dense maps, 640×640 pixels, in eager float32.

The *floor* of a part is the longer of two times: its floating-point operations, each in its own precision, at the rate
that the machine reaches in that precision, in a matrix product or a convolution; and the bytes it can't avoid (weights
and inputs read once, outputs written once) at its bandwidth.
"""

import io
import json
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wordmask.hardware import choose_device, choose_precision
from wordmask.image import prepare, read_picture
from wordmask.memory import keep_freed_memory, peak_memory
from wordmask.models import InPackage, kind_of
from wordmask.models.load import load_model
from wordmask.preparing import stacked
from wordmask.segmenter import Segmenter
from wordmask.text import TextCache
from wordmask.vocabulary import Vocabulary
from wordmask.watching import Watch, watched
from wordmask.writing import atomic, check_writable

YARDSTICK = "err-seg-base"
MATRIX = 2048  # side of the matrices whose product is timed
MAPS = (256, 64, 64)  # (C, H, W) of those that a 3×3 convolution is timed with
COPIED = 2**28  # bytes
SIZE = (480, 640)  # of the picture
TEXT_CLASSES = 150  # at most, of those that are encoded to time the text tower
RUNS = 5
RATE_SECONDS = 0.5  # that each of them is repeated for: its fastest run counts, and a shared machine has slow moments


@dataclass(frozen=True)
class Timing:
    """Seconds: the median of several runs, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float
    runs: int


@dataclass(frozen=True)
class Machine:
    """What the machine can do.

    Args:
        rates: Floating-point operations per second of a matrix product or a convolution, whichever is faster, by
            precision.
        bandwidth: Bytes per second, read and written, of a copy in memory.
        yardstick: Of the image tower of ERR-Seg B in float32.
        conditions: Hardware, versions, threads, time.
    """

    rates: dict[str, float]
    bandwidth: float
    yardstick: Timing
    conditions: dict[str, object]


@dataclass
class ModelPart:
    """What one part of a model took.

    Args:
        seconds: Of each run.
        operations: Floating-point operations of one run, by the precision they are done in.
        bytes: Weights and inputs read once and outputs written once.
    """

    label: str
    seconds: list[float] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def floor(self, machine: Machine) -> float:
        """The least number of seconds that this machine could need."""
        computing = sum(count / machine.rates[precision] for precision, count in self.operations.items())
        return max(computing, self.bytes / machine.bandwidth)


class BenchCase(NamedTuple):
    """What is timed.

    Args:
        model: A preset.
        vocabulary: A built-in list.
        precision: float32, bfloat16 or float16.
        batch: Pictures that go through together.
        compile: Whether the model is compiled; its parts can't be told apart then.
    """

    model: str
    vocabulary: str
    precision: str
    batch: int = 1
    compile: bool = False


# The machine ----------------------------------------------------------------------------------------------------------


def timed(action: Callable[[], object], device: torch.device, *, runs: int = RUNS, warm_up: int = 1) -> Timing:
    """Time an action, until the device is done with it."""
    return summary(seconds_of(action, device, runs=runs, warm_up=warm_up))


def seconds_of(
    action: Callable[[], object], device: torch.device, *, runs: int = RUNS, warm_up: int = 1
) -> list[float]:
    """What each run of an action took."""
    for _ in range(warm_up):
        action()
    seconds = []
    for _ in range(runs):
        finish(device)
        started = time.perf_counter()
        action()
        finish(device)
        seconds.append(time.perf_counter() - started)
    return seconds


def summary(seconds: list[float]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def finish(device: torch.device) -> None:
    """Wait for what a device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def measure_machine(device: torch.device, precisions: set[str]) -> Machine:
    """Measure what the machine can do; its rates twice, before the yardstick and after it."""
    wanted = sorted(precisions | {"float32"})
    before = measure_rates(device, wanted)
    bandwidth, yardstick = measure_bandwidth(device), measure_yardstick(device)
    after = measure_rates(device, wanted)
    return Machine(
        {precision: max(before[precision], after[precision]) for precision in wanted},
        bandwidth,
        yardstick,
        conditions(device),
    )


def measure_rates(device: torch.device, precisions: list[str]) -> dict[str, float]:
    """Floating-point operations per second: the higher rate of a matrix product and a convolution, which torch leaves
    to two libraries.

    On a CPU of AMD, convolutions can be more than twice as fast in float32.
    """
    rates = {}
    for precision in precisions:
        dtype, (channels, height, width) = getattr(torch, precision), MAPS
        a, b = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
        x = torch.randn(1, *MAPS, device=device).to(dtype, memory_format=torch.channels_last)
        kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
        product = 2 * MATRIX**3 / fastest(lambda a=a, b=b: a @ b, device)
        convolution = (
            2
            * kernel.numel()
            * height
            * width
            / fastest(lambda x=x, k=kernel: nn.functional.conv2d(x, k, padding=1), device)
        )
        rates[precision] = max(product, convolution)
    return rates


def fastest(action: Callable[[], object], device: torch.device) -> float:
    """The fastest of the runs that `RATE_SECONDS` have room for, two at least."""
    started, seconds = time.perf_counter(), []
    while len(seconds) < 2 or time.perf_counter() - started < RATE_SECONDS:
        seconds += seconds_of(action, device, runs=1, warm_up=0)
    return min(seconds)


def measure_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second of a copy."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / timed(lambda: target.copy_(source), device).fastest


@torch.inference_mode()
def measure_yardstick(device: torch.device) -> Timing:
    """Time the image tower of ERR-Seg B with both dense maps, 640×640, eager float32."""
    kind = kind_of(YARDSTICK)
    model = kind.random(kind.presets[YARDSTICK]).to(device)
    pixels = torch.randn(1, 3, 640, 640, device=device)
    return timed(lambda: model.encode_image(pixels), device)


def conditions(device: torch.device) -> dict[str, object]:
    """What a figure depends on."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    flags = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if found.get(name)]
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": found.get("cpu_name") or platform.processor() or platform.machine(),
        "instructions": flags,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


# One model ------------------------------------------------------------------------------------------------------------


def bench(case: BenchCase, machine: Machine, device: torch.device, *, runs: int = RUNS) -> dict[str, object]:
    """Time one picture through a model, by part, and a batch; count operations, bytes, parameters and memory.

    Raises:
        ValueError: No such preset or vocabulary, or a batch that is none.
    """
    model, name = build(case.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model.requires_grad_(False)  # the counter looks for the gradients of what has some
    segmenter = Segmenter(
        model.for_inference().to(device), name=name, precision=case.precision, batch=case.batch, compile=case.compile
    )
    vocabulary = Vocabulary.builtin(case.vocabulary, model.vocabularies)
    report = {
        "asked": case._asdict(),
        "classes": len(vocabulary),
        "parameters": parameters,
        "text": time_text(segmenter, vocabulary),
    }
    segmenter.text.vectors = UnitVectors(model.config.clip.width)  # what the words are doesn't matter from here on
    rgb = some_picture(*SIZE)
    words = segmenter.encode_words(vocabulary)
    pixels, frame = prepare(rgb, model.image_input)
    segmenter(rgb, vocabulary)
    report["whole"] = asdict(timed(lambda: segmenter(rgb, vocabulary), device, runs=runs, warm_up=0))
    if case.batch > 1:
        batch = timed(lambda: segmenter([rgb] * case.batch, vocabulary), device, runs=max(2, runs // 2))
        each = batch.median / case.batch
        report["batch"] = asdict(batch) | {"per picture": each, "yardsticks": each / machine.yardstick.median}
    memory = peak_memory(lambda: segmenter(rgb, vocabulary), device)
    report["memory"] = memory and memory._asdict()
    parts = list(time_around(segmenter, rgb, vocabulary, device, runs))
    if not case.compile:
        parts[1:1] = time_parts(segmenter, stacked([pixels], device), words, runs)
    report["parts"] = [describe(part, machine) for part in parts]
    report["floor"] = sum(part["floor"] for part in report["parts"])
    report["yardsticks"] = report["whole"]["median"] / machine.yardstick.median
    report["input"] = {"picture": list(SIZE), "pixels": list(pixels.shape[1:]), "original": list(frame.original)}
    return report


def build(name: str) -> tuple[nn.Module, str]:
    """A preset with weights: bundled ones have their own, others random ones."""
    kind = kind_of(name)
    if isinstance(kind.released.get(name), InPackage):
        return load_model(name).model, name
    return kind.random(kind.presets[name]), f"{name} (random weights)"


class UnitVectors(dict):
    """A vector for any phrase, without a text tower: its place decides."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.random = width, torch.Generator().manual_seed(0)

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, phrase: str) -> Tensor:
        self[phrase] = vector = nn.functional.normalize(torch.randn(self.width, generator=self.random), dim=0)
        return vector


def some_picture(height: int, width: int) -> np.ndarray:
    """A picture with edges and texture, the same everywhere; (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (7 + 9 * i) + y / (23 - 5 * i)) + 37 * ((x // 40 + y // 40) % 2) for i in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def time_text(segmenter: Segmenter, vocabulary: Vocabulary) -> dict[str, object]:
    """Time the text tower on the names of the first classes, seconds for all; and the same words again, from the disk
    and from memory."""
    names, model, device = [entry.names[0] for entry in vocabulary][:TEXT_CLASSES], segmenter.model, segmenter.device

    def encode(cache: TextCache) -> None:
        cache.encode(names, model.encode_text)

    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        cache = TextCache("bench", model.templates, Path(folder))
        cold = timed(lambda: encode(cache), device, runs=1, warm_up=0)
        memory = timed(lambda: encode(cache), device)
        # one that remembers nothing
        disk = timed(lambda: encode(TextCache("bench", model.templates, Path(folder))), device)
    return {"phrases": len(names), "cold": asdict(cold), "on disk": asdict(disk), "in memory": asdict(memory)}


def time_around(
    segmenter: Segmenter, rgb: np.ndarray, vocabulary: Vocabulary, device: torch.device, runs: int
) -> Iterator[ModelPart]:
    """Time what is done before the model and after it."""
    result = segmenter(rgb, vocabulary)
    wanted = segmenter.model.image_input
    encoded = png_of(rgb)
    decoding = seconds_of(lambda: prepare(read_picture(encoded), wanted), device, runs=runs)
    yield ModelPart("decoding and resizing", decoding)
    look = segmenter.look(rgb, vocabulary)
    yield ModelPart("reading out", seconds_of(lambda: segmenter.read(look), device, runs=runs))
    yield ModelPart("drawing (not in the whole)", seconds_of(lambda: result.draw(), device, runs=runs))


def png_of(rgb: np.ndarray) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def time_parts(segmenter: Segmenter, pixels: Tensor, words: tuple, runs: int) -> list[ModelPart]:
    """Time every part of a model, and count its operations and bytes."""
    model, device = segmenter.model, segmenter.device
    parts = {method: ModelPart(label) for method, label in model.stages.items()}
    with torch.inference_mode(), watched(model, parts, timing(device)), segmenter.autocast():
        for _ in range(runs):
            model(pixels, words)
    # in inference mode operators come whole, uncountable
    with torch.no_grad(), watched(model, parts, counting), segmenter.autocast():
        model(pixels, words)
    return list(parts.values())


def timing(device: torch.device) -> Watch:
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


def describe(part: ModelPart, machine: Machine) -> dict[str, object]:
    """A part in plain values."""
    timing = summary(part.seconds)
    return asdict(timing) | {
        "part": part.label,
        "yardsticks": timing.median / machine.yardstick.median,
        "operations": part.operations.total(),
        "by precision": dict(part.operations),
        "bytes": part.bytes,
        "floor": part.floor(machine),
    }


# The report -----------------------------------------------------------------------------------------------------------


def bench_all(
    models: list[str],
    vocabulary: str,
    *,
    precision: str,
    batch: int,
    compile: bool,
    runs: int,
    device: str,
    file: Path | None,
) -> None:
    """Measure the machine and then models, one by one; print tables, and write everything to a json file.

    Raises:
        ValueError: No such preset, vocabulary, precision or device.
    """
    chosen = choose_device(device)
    precision = choose_precision(precision, chosen)
    for model in models:
        Vocabulary.builtin(vocabulary, kind_of(model).vocabularies)  # errors come before anything is measured
    if file is not None:
        check_writable(file.parent)
    console = Console()
    with console.status("Measuring the machine …"):
        machine = measure_machine(chosen, {precision})
    keep_freed_memory()  # as every other command does; the yardstick was taken without
    console.print(machine_line(machine))
    reports = []
    for model in models:
        with console.status(f"Timing {model} …"):
            reports.append(bench(BenchCase(model, vocabulary, precision, batch, compile), machine, chosen, runs=runs))
        console.print(table_of(reports[-1]))
        if file is not None:
            content = {"machine": asdict(machine), "models": reports}
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")


def machine_line(machine: Machine) -> str:
    """What the machine can do, in a line."""
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine.rates.items())
    where = machine.conditions
    return (
        f"{where['cpu'] if where['device'] == 'cpu' else where['device']}, {where['threads']} threads, torch "
        f"{where['torch']}: {rates}, "
        f"{machine.bandwidth / 1e9:.1f} GB/s; yardstick {machine.yardstick.median:.2f} s"
    )


def spread_of(timing: dict, pictures: int = 1) -> str:
    """The fastest and the slowest run, in ms per picture."""
    digits = 1 if timing["slowest"] < 0.1 else 0
    return f"{1e3 * timing['fastest'] / pictures:.{digits}f} – {1e3 * timing['slowest'] / pictures:.{digits}f}"


def table_of(report: dict) -> Table:
    """The parts of a model, what they took, and their floors."""
    asked, whole = report["asked"], report["whole"]
    title = (
        f"{asked['model']}, {report['classes']} classes, {asked['precision']}{', compiled' if asked['compile'] else ''}"
    )
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns are enough
    for column in ("part", "ms", "from – to", "yard-\nsticks", "GFLOP", "floor,\nms", "× floor"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    for part in report["parts"]:
        floor = part["floor"]
        ratio = f"{part['median'] / floor:.1f}" if floor else ""
        spread = spread_of(part)
        floors = (f"{part['operations'] / 1e9:.2f}", f"{1e3 * floor:.1f}", ratio) if floor else ("", "", "")
        table.add_row(part["part"], f"{1e3 * part['median']:.1f}", spread, f"{part['yardsticks']:.3f}", *floors)
    table.add_section()
    table.add_row(
        "whole call, words known", f"{1e3 * whole['median']:.1f}", spread_of(whole), f"{report['yardsticks']:.3f}"
    )
    if "batch" in report:
        batch = report["batch"]
        cells = (f"{1e3 * batch['per picture']:.1f}", spread_of(batch, asked["batch"]), f"{batch['yardsticks']:.3f}")
        table.add_row(f"per picture of {asked['batch']}", *cells)
    caption = f"{report['parameters'] / 1e6:.1f} M parameters"
    if report["memory"]:
        caption += f" · {(report['memory']['peak'] - report['memory']['before']) / 2**20:.0f} MB beyond weights"
    text = report["text"]
    cold, disk, memory = (text[way]["median"] for way in ("cold", "on disk", "in memory"))
    remembered = f"from the disk in {1e3 * disk:.1f} ms, from memory in {1e3 * memory:.1f} ms"
    table.caption = f"{caption} · {text['phrases']} names encoded in {cold:.2f} s, {remembered}"
    return table
