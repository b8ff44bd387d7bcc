"""`wordmask bench`: measure the machine, then one model after the other."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wordmask.bench.machine import Machine, measure_machine
from wordmask.bench.model import BenchCase, BenchReport, bench
from wordmask.bench.table import machine_line, table_of
from wordmask.hardware import choose_device, choose_precision
from wordmask.memory import keep_freed_memory
from wordmask.models import kind_of
from wordmask.terminal import busy
from wordmask.vocabulary import Vocabulary
from wordmask.writing import atomic, check_writable


def bench_all(
    models: Sequence[str],
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
    chosen_precision = choose_precision(precision, chosen)
    for model in models:
        Vocabulary.builtin(vocabulary, kind_of(model).vocabularies)  # errors come before anything is measured
    if file is not None:
        check_writable(file.parent)
    console = Console()
    with console.status("Measuring the machine …"):
        machine = measure_machine(chosen, {chosen_precision})
    keep_freed_memory()  # as every other command does; the yardstick was taken without
    console.print(machine_line(machine))
    reports: list[BenchReport] = []
    for model in models:
        with busy(f"Timing {model} …"):
            case = BenchCase(model, vocabulary, chosen_precision, batch, compile)
            reports.append(bench(case, machine, chosen, runs=runs))
        console.print(table_of(reports[-1]))
        if file is not None:
            write_reports(file, machine, reports)


def write_reports(file: Path, machine: Machine, reports: list[BenchReport]) -> None:
    """Write everything as json; the file appears whole."""
    content = {"machine": asdict(machine), "models": [report.to_dict() for report in reports]}
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
