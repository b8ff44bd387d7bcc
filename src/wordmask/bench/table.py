"""What was measured, for people."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from wordmask.bench.counting import ModelPart
from wordmask.bench.machine import Machine
from wordmask.bench.model import BenchReport
from wordmask.bench.timing import Timing

COLUMNS = ("part", "ms", "from – to", "yard-\nsticks", "GFLOP", "floor,\nms", "× floor")


def machine_line(machine: Machine) -> str:
    """What the machine can do, in a line."""
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine.rates.items())
    where = machine.conditions
    return (
        f"{where.cpu if where.device == 'cpu' else where.device}, {where.threads} threads, torch {where.torch}: "
        f"{rates}, {machine.bandwidth / 1e9:.1f} GB/s; yardstick {machine.yardstick.median:.2f} s"
    )


def table_of(report: BenchReport) -> Table:
    """The parts of a model, what they took, and their floors."""
    case = report.case
    compiled = ", compiled" if case.compile else ""
    title = f"{case.model}, {report.classes} classes, {case.precision}{compiled}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns are enough
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)
    for part in report.parts:
        table.add_row(part.label, *cells_of(part.timing, report.machine), *floor_cells(part, report.machine))
    table.add_section()
    table.add_row("whole call, words known", *cells_of(report.whole, report.machine))
    if report.batch is not None:
        pictures = case.batch
        table.add_row(f"per picture of {pictures}", *cells_of(report.batch, report.machine, pictures))
    table.caption = " · ".join(caption_parts(report))
    return table


def cells_of(timing: Timing, machine: Machine, pictures: int = 1) -> tuple[str, str, str]:
    """What a picture took: milliseconds, from the fastest to the slowest run, and yardsticks."""
    each, digits = timing.median / pictures, 1 if timing.slowest < 0.1 else 0
    spread = f"{1e3 * timing.fastest / pictures:.{digits}f} – {1e3 * timing.slowest / pictures:.{digits}f}"
    return f"{1e3 * each:.1f}", spread, f"{machine.yardsticks(each):.3f}"


def floor_cells(part: ModelPart, machine: Machine) -> tuple[str, str, str]:
    """What a part computes, its floor, and how far it is above; empty where nothing was counted."""
    floor = part.floor(machine)
    if not floor:
        return "", "", ""
    return f"{part.operations.total() / 1e9:.2f}", f"{1e3 * floor:.1f}", f"{part.timing.median / floor:.1f}"


def caption_parts(report: BenchReport) -> Iterator[str]:
    """What is said below the table."""
    yield f"{report.parameters / 1e6:.1f} M parameters"
    if report.memory is not None:
        yield f"{report.memory.added / 2**20:.0f} MB beyond weights"
    text = report.text
    disk, memory = 1e3 * text.on_disk.median, 1e3 * text.in_memory.median
    remembered = f"from the disk in {disk:.1f} ms, from memory in {memory:.1f} ms"
    yield f"{text.phrases} names encoded in {text.cold.median:.2f} s, {remembered}"
