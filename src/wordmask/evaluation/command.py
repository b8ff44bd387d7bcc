"""`wordmask evaluate`: a progress bar, the report on the terminal, and in files."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from wordmask.bars import bar
from wordmask.data.class_table import tell_own_folder
from wordmask.evaluation.rendering import in_terminal, markdown
from wordmask.evaluation.report import EvaluationReport
from wordmask.processes import Processes
from wordmask.writing import atomic, check_writable, expanded

WIDEST = 120  # columns of the report where the terminal doesn't say


def run(
    measure: Callable[..., EvaluationReport | None], *, json_file: Path | None, markdown_file: Path | None
) -> EvaluationReport | None:
    """Measure, show the report, and write it where it was asked for.

    Args:
        measure: `evaluate`, with all that is asked; it takes `watch`, which shows how far it is, and
            `tell`, which tells what is in a folder of one's own.
    """
    files = [expanded(path) for path in (json_file, markdown_file) if path is not None]
    for path in files:
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder; expected a file to write the report to.")
        check_writable(path.parent)
    report = measure(watch=progress, tell=tell_own_folder)
    if report is None:
        return None
    if json_file is not None:
        _write(json_file, json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    if markdown_file is not None:
        _write(markdown_file, markdown(report) + "\n")
    console = Console()
    console = console if console.is_terminal else Console(width=WIDEST)
    for part in in_terminal(report):
        console.print(part)
    return report


def _write(path: Path, text: str) -> None:
    with atomic(expanded(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def progress(title: str, done: int, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show how far it is, in the first process alone."""
    first, console = Processes.started().first, Console(stderr=True)
    if done and first and console.is_terminal:
        console.print(f"{title}: {done} of {total} pictures were counted before.")
    return bar(title, done, total, shown=first)
