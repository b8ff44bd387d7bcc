"""The papers' tables in small, by one command: measures, and writes pages, plots and json to docs/results.

    uv run --group research python research/tables.py                          # everything; trainings go on where they
    were stopped uv run --group research python research/tables.py --only keep ensembles    # some tables
    uv run --group research python research/tables.py --render                 # pages and plots anew, from the json
    that is there

What takes how long, on one core: `keep`, `ensembles` and `layers`, minutes; on two cores `cost_err_seg` five minutes
with three runs and `cost_eov_seg`, which has more variants, as long with seven and `--full-size-side 320`, as in
docs/results; every other table eight minutes per variant, three hours in all. On a GPU give `--steps`: longer trainings
tell more. They begin with the bundled models' CLIP.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

import counted_tables
import report
from bundled_tables import KEPT, ensembles_table, keep_table, layers_table
from retrain import Budget
from retrained_tables import blocks_table, fusion_table, interaction_table, reductions_table
from wordmask.bench.machine import conditions
from wordmask.data.shapeland import Shapeland
from wordmask.hardware import choose_device
from wordmask.writing import atomic

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Settings:
    """What all tables are measured with.

    Args:
        scenes: Of the test split.
        runs: Rounds in which the small models are timed.
        full_size_runs: Likewise the full-size ones; 0: they are counted only.
        full_size_side: Pixels, of the square picture that those are timed with; None: their own.
        kept: ERR-Seg's Ks.
        budget: Of the trainings.
    """

    device: torch.device
    scenes: int
    runs: int
    full_size_runs: int
    full_size_side: int | None
    kept: tuple[int, ...]
    budget: Budget

    def conditions(self, data: Shapeland | None, more: dict[str, object]) -> dict[str, object]:
        """What the figures of a table depend on, in plain values."""
        own = (
            {} if data is None else {"scenes": f"{len(data)} of the test split, {len(data.vocabulary)} words, float32"}
        )
        return more | own | asdict(conditions(self.device))


TABLES: dict[str, Callable[[Settings], dict[str, object]]] = {
    "keep": keep_table,
    "ensembles": ensembles_table,
    "layers": layers_table,
    "reductions": reductions_table,
    "fusion": fusion_table,
    "interaction": interaction_table,
    "blocks": blocks_table,
    "cost_err_seg": counted_tables.err_seg_table,
    "cost_eov_seg": counted_tables.eov_seg_table,
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, metavar="NAME", default=list(TABLES), help=f"tables: {', '.join(TABLES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two scenes, two steps: whether it runs, not what comes out"
    )
    parser.add_argument(
        "--render", action="store_true", help="measure nothing: write pages and plots from the json that is there"
    )
    parser.add_argument("--scenes", type=int, default=100, help="scenes that are scored (100)")
    parser.add_argument("--steps", type=int, help="steps of each training (ERR-Seg 600, EOV-Seg 700)")
    parser.add_argument("--runs", type=int, default=7, help="rounds of timing (7)")
    parser.add_argument(
        "--full-size-runs", type=int, default=2, help="rounds of timing full-size models; 0 counts them only (2)"
    )
    parser.add_argument(
        "--full-size-side", type=int, help="time them with a smaller picture, of so many pixels: a multiple of 32"
    )
    parser.add_argument("--clip", type=Path, help="what shapeland_regions wrote (the bundled models' CLIP)")
    parser.add_argument("--runs-folder", type=Path, default=Path("runs/research"), help="where trainings go on")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(given)


def settings_of(asked: argparse.Namespace) -> Settings:
    """Turn what was asked into settings."""
    device = choose_device(asked.device)
    numbers = {
        "scenes": asked.scenes,
        "runs": asked.runs,
        "full_size_runs": asked.full_size_runs,
        "full_size_side": asked.full_size_side,
    }
    steps, more, kept = asked.steps, (), KEPT
    if asked.quick:
        numbers |= {"scenes": 2, "runs": 1, "full_size_runs": 0}
        kept = (16, 48, 847)
        steps, more = 2, ("batch=2", "workers=0")
    return Settings(
        device=device, kept=kept, budget=Budget(asked.runs_folder, asked.clip, steps, asked.device, more), **numbers
    )


def measure(name: str, settings: Settings, out: Path) -> None:
    """Measure a table and keep it as json."""
    started = datetime.now(UTC)
    table = TABLES[name](settings)
    table["conditions"]["minutes"] = round((datetime.now(UTC) - started).total_seconds() / 60, 1)
    with atomic(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def render(out: Path, only: list[str]) -> None:
    """Write the pages and plots of some tables, and the summary of all that were measured, from their json."""
    saved = {name: json.loads((out / f"{name}.json").read_text()) for name in TABLES if (out / f"{name}.json").exists()}
    for name in only:
        if name in saved:
            report.write(name, saved[name], out)
    report.write_summary(saved, [name for name in TABLES if name not in saved], out)


def main(given: list[str] | None = None) -> int:
    """Measure the tables that were asked for, one by one; what can't be measured is said, and the others follow."""
    asked = arguments(given)
    failed = []
    for name in () if asked.render else asked.only:
        print(f"{name} …", flush=True)
        try:
            measure(name, settings_of(asked), asked.out)
        except (ValueError, InterruptedError) as error:
            failed.append(name)
            print(f"{name} was left out: {error}", file=sys.stderr)
            if isinstance(error, InterruptedError):
                break
    render(asked.out, asked.only)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
