"""What an evaluation comes to: figures beside the published ones, every class, what the worst are taken for, and the
conditions."""

import math
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wordmask.data.splits import SPLITS
from wordmask.evaluation.metrics import mean_of
from wordmask.evaluation.protocols import published
from wordmask.evaluation.scoring import Scores
from wordmask.segmenter import Segmenter
from wordmask.weights import fingerprint

if TYPE_CHECKING:
    from wordmask.evaluation.evaluate import Job

WORST, TAKEN_FOR = 10, 3  # classes whose confusion is shown, and how many others for each


@dataclass(frozen=True)
class Report:
    """An evaluation in plain values: the conditions, and of each split what `outcome_of` gives."""

    conditions: dict[str, object]
    splits: list[dict[str, object]]

    def to_dict(self) -> dict[str, object]:
        """The same for json: what is not a number becomes None."""
        return _plain({"conditions": self.conditions, "splits": self.splits})


def outcome_of(segmenter: Segmenter, job: "Job", scores: Scores, changed: Mapping[str, object]) -> dict[str, object]:
    """Everything that is to be said of one split."""
    split = SPLITS[job.name]
    by_class = class_scores(scores)
    figures = figures_of(scores, by_class, split.unseen() if split.unseen else None)
    source, theirs = published(segmenter.name, job.name)
    is_whole = len(scores.pictures) == split.pictures
    wanted = job.settings.seen_by(segmenter.model)
    size = (
        f"square of {wanted.square}"
        if wanted.square
        else f"shortest edge {wanted.shortest_edge}, longest {wanted.longest_edge}"
    )
    names = [entry.name for entry in job.vocabulary][: split.folded] + ([] if split.folded is None else ["background"])
    return {
        "split": job.name,
        "title": split.title,
        "pictures": len(scores.pictures),
        "of": split.pictures,
        "tasks": list(job.tasks),
        "protocol": {**job.protocol.to_dict(), "input": size},
        "changed": dict(changed),
        "figures": figures,
        "published": {name: value for name, value in theirs.items() if name in figures},
        "published_by": source if theirs else None,
        "difference": {name: figures[name] - value for name, value in theirs.items() if name in figures and is_whole},
        "classes": _class_rows(names, job, by_class, scores),
        "confusion": confusion_of(scores, names),
        "speed": speed_of(scores),
        "memory": memory_of(segmenter),
    }


def class_scores(scores: Scores) -> dict[str, np.ndarray]:
    """Of every class, in percent: IoU, boundary IoU, PQ, SQ, RQ and AP, as far as they were measured."""
    by_class = {}
    for part, names in {
        "panoptic": {"PQ": "pq", "SQ": "sq", "RQ": "rq"},
        "instance": {"AP": "ap"},
        "semantic": {"IoU": "iou", "accuracy": "accuracy"},
        "boundary": {"boundary IoU": "iou"},
    }.items():
        if part in scores.parts:
            result = scores.parts[part].compute()
            by_class |= {name: getattr(result, attribute) for name, attribute in names.items()}
    return by_class


def figures_of(scores: Scores, by_class: Mapping[str, np.ndarray], unseen: np.ndarray | None) -> dict[str, float]:
    """The figures of a split, in percent; also over classes that training labelled (seen), and the others."""
    figures = {}
    if "panoptic" in scores.parts:
        result = scores.parts["panoptic"].compute()
        for suffix, quality in (("", result.overall), (" things", result.things), (" stuff", result.stuff)):
            figures |= {f"PQ{suffix}": quality.pq, f"SQ{suffix}": quality.sq, f"RQ{suffix}": quality.rq}
    if "instance" in scores.parts:
        result = scores.parts["instance"].compute()
        figures |= {"AP": result.mean_ap, "AP50": result.ap50, "AP75": result.ap75}
        figures |= {"AP small": result.small, "AP medium": result.medium, "AP large": result.large}
    if "semantic" in scores.parts:
        result = scores.parts["semantic"].compute()
        figures |= {"mIoU": result.mean_iou, "frequency-weighted IoU": result.frequency_weighted_iou}
        figures |= {"mean accuracy": result.mean_accuracy, "pixel accuracy": result.pixel_accuracy}
        figures["boundary IoU"] = scores.parts["boundary"].compute().mean_iou
    if unseen is not None:
        for name, part in {"PQ": "PQ", "mIoU": "IoU"}.items():
            if part in by_class:
                figures |= {
                    f"{name} seen": mean_of(by_class[part][~unseen]),
                    f"{name} unseen": mean_of(by_class[part][unseen]),
                }
    return figures


def _class_rows(
    names: list[str], job: "Job", by_class: Mapping[str, np.ndarray], scores: Scores
) -> list[dict[str, object]]:
    """One row a class, in the order of labels; those that are nowhere in the truth have no number."""
    confusion = scores.parts["semantic"].confusion
    share = confusion.sum(axis=1) / max(1, confusion.sum())
    rows = []
    for label, name in enumerate(names):
        kind = "stuff" if name == "background" else "thing" if job.vocabulary.classes[label].thing else "stuff"
        own = {figure: float(values[label]) for figure, values in by_class.items()}
        rows.append({"label": label, "name": name, "kind": kind, "share": float(share[label]), **own})
    return rows


def confusion_of(scores: Scores, names: list[str]) -> list[dict[str, object]]:
    """The classes that are found worst, and what their pixels are taken for: of equal IoU, those with most pixels
    first."""
    score = scores.parts["semantic"]
    iou, pixels = score.compute().iou, score.confusion.sum(axis=1)
    labels = [label for label in np.lexsort([-pixels, iou]).tolist() if pixels[label]][:WORST]
    rows = []
    for label in labels:
        others = score.confusion[label].copy()
        others[label] = 0
        taken = [place for place in np.argsort(-others, kind="stable").tolist()[:TAKEN_FOR] if others[place]]
        shares = [
            {"name": [*names, "nothing"][place], "share": float(others[place] / pixels[label])} for place in taken
        ]
        rows.append(
            {
                "label": label,
                "name": names[label],
                "IoU": float(iou[label]),
                "pixels": int(pixels[label]),
                "taken_for": shares,
            }
        )
    return rows


def speed_of(scores: Scores) -> dict[str, float]:
    """How long a picture took, from RGB in memory to the results of all tasks; words, reading files and scoring don't
    count."""
    times = 1000 * np.array(scores.seconds)
    if not len(times):
        return {}
    return {
        "median_ms": float(np.median(times)),
        "p95_ms": float(np.quantile(times, 0.95)),
        "mean_ms": float(times.mean()),
    }


def memory_of(segmenter: Segmenter) -> dict[str, float]:
    """The most that the first process had, in MiB: of the machine's memory, and of the GPU's."""
    used = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        used["machine_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if segmenter.device.type == "cuda":
        used["gpu_mib"] = torch.cuda.max_memory_allocated(segmenter.device) / 2**20
    return used


def conditions_of(segmenter: Segmenter, processes: int) -> dict[str, object]:
    """Under which conditions this is measured."""
    from wordmask import __version__

    device = segmenter.device
    on_gpu = device.type == "cuda"
    return {
        "model": segmenter.name or segmenter.model.family,
        "weights": fingerprint(segmenter.model.state_dict()),
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{device.type}, {platform.machine()}",
        "precision": segmenter.precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "versions": {
            "wordmask": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def commit() -> str | None:
    """The commit of the checkout that this runs from, with a + if it was changed since; None if it is no checkout."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if not (Path(ask("rev-parse", "--show-toplevel")) / "src" / "wordmask").is_dir():
            return None  # installed into somebody else's repository
        changed = ask("status", "--porcelain", "--untracked-files=no", "--", str(here.parent))
        return ask("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
