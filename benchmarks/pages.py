"""What the benchmarks of a page share: measurements go to docs/results as json, and the page is made of that, now or
anew."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wordmask.writing import atomic

FOLDER = Path(__file__).parents[1] / "docs" / "results"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What each of them can be asked; others add theirs."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--report", action="store_true", help="measure nothing: make the page anew, from the json")
    return parser


def write(
    name: str, asked: argparse.Namespace, measure: Callable[[], dict[str, Any]], page: Callable[[dict], str]
) -> dict:
    """Measure, unless only the page is asked for, and write both; return what was found."""
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / f"{name}.json"
    if not asked.report:
        found = measure()
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(file.read_text())
    (asked.out / f"{name}.md").write_text(page(found))
    return found
