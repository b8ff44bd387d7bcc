"""From counts to a report: every figure of a split, and the conditions that it was measured under."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float

from wordmask.evaluation.metrics import SemanticScore, mean_of
from wordmask.evaluation.protocols import Figures, published
from wordmask.evaluation.report import (
    ClassScores,
    Conditions,
    ConfusedClass,
    PeakMemory,
    PictureTimes,
    SplitReport,
    TakenFor,
)
from wordmask.evaluation.scoring import Scores
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary
from wordmask.weights import fingerprint

if TYPE_CHECKING:
    from wordmask.evaluation.evaluate import EvaluationJob

WORST, TAKEN_FOR = 10, 3  # classes whose confusion is shown, and how many others for each
BACKGROUND = "background"  # the name of the class that others are folded into

ByClass = Mapping[str, Float[np.ndarray, " T"]]  # figure → its value for every class, in percent


def outcome_of(
    segmenter: Segmenter, job: "EvaluationJob", scores: Scores, changed: Mapping[str, object]
) -> SplitReport:
    """Everything that is to be said of one split."""
    split, by_class = job.split, class_scores(scores)
    figures = figures_of(scores, by_class, split.unseen() if split.unseen else None)
    source, theirs = published(segmenter.name, job.name)
    comparable = {name: value for name, value in theirs.items() if name in figures}
    is_whole = len(scores.pictures) == split.pictures
    names = [entry.name for entry in job.vocabulary][: split.folded] + ([] if split.folded is None else [BACKGROUND])
    return SplitReport(
        split=job.name,
        title=split.title,
        pictures=len(scores.pictures),
        whole=split.pictures,
        tasks=job.tasks,
        protocol=job.protocol,
        input=input_of(segmenter, job),
        changed=changed,
        figures=figures,
        published=comparable,
        published_by=source if theirs else None,
        difference={name: figures[name] - value for name, value in comparable.items() if is_whole},
        classes=_class_rows(names, job.vocabulary, by_class, scores.semantic),
        confusion=confusion_of(scores.semantic, names),
        speed=speed_of(scores),
        memory=memory_of(segmenter),
    )


def input_of(segmenter: Segmenter, job: "EvaluationJob") -> str:
    """What a model sees of a picture, in words."""
    wanted = job.settings.seen_by(segmenter.model)
    if wanted.square:
        return f"square of {wanted.square}"
    return f"shortest edge {wanted.shortest_edge}, longest {wanted.longest_edge}"


def class_scores(scores: Scores) -> ByClass:
    """PQ, SQ, RQ, AP, IoU, accuracy and boundary IoU of every class, in percent, as far as they were measured."""
    by_class = {}
    if scores.panoptic is not None:
        panoptic = scores.panoptic.compute()
        by_class |= {"PQ": panoptic.pq, "SQ": panoptic.sq, "RQ": panoptic.rq}
    if scores.instance is not None:
        by_class["AP"] = scores.instance.compute().ap
    semantic = scores.semantic.compute()
    by_class |= {"IoU": semantic.iou, "accuracy": semantic.accuracy}
    return by_class | {"boundary IoU": scores.boundary.compute().iou}


def figures_of(scores: Scores, by_class: ByClass, unseen: Bool[np.ndarray, " T"] | None) -> Figures:
    """The figures of a split, in percent; also over classes that training labelled (seen), and the others."""
    figures: Figures = {}
    if scores.panoptic is not None:
        panoptic = scores.panoptic.compute()
        for suffix, quality in (("", panoptic.overall), (" things", panoptic.things), (" stuff", panoptic.stuff)):
            figures |= {f"PQ{suffix}": quality.pq, f"SQ{suffix}": quality.sq, f"RQ{suffix}": quality.rq}
    if scores.instance is not None:
        instance = scores.instance.compute()
        figures |= {"AP": instance.mean_ap, "AP50": instance.ap50, "AP75": instance.ap75}
        figures |= {"AP small": instance.small, "AP medium": instance.medium, "AP large": instance.large}
    semantic = scores.semantic.compute()
    figures |= {"mIoU": semantic.mean_iou, "frequency-weighted IoU": semantic.frequency_weighted_iou}
    figures |= {"mean accuracy": semantic.mean_accuracy, "pixel accuracy": semantic.pixel_accuracy}
    figures["boundary IoU"] = scores.boundary.compute().mean_iou
    for name, mean in (("PQ", "PQ"), ("IoU", "mIoU")):
        if unseen is not None and name in by_class:
            figures[f"{mean} seen"] = mean_of(by_class[name][~unseen])
            figures[f"{mean} unseen"] = mean_of(by_class[name][unseen])
    return figures


def _class_rows(
    names: list[str], vocabulary: Vocabulary, by_class: ByClass, score: SemanticScore
) -> tuple[ClassScores, ...]:
    share = score.confusion.sum(axis=1) / max(1, score.confusion.sum())
    rows = []
    for label, name in enumerate(names):
        is_thing = name != BACKGROUND and vocabulary.classes[label].thing
        figures = {figure: float(values[label]) for figure, values in by_class.items()}
        rows.append(ClassScores(label, name, "thing" if is_thing else "stuff", float(share[label]), figures))
    return tuple(rows)


def confusion_of(score: SemanticScore, names: list[str]) -> tuple[ConfusedClass, ...]:
    """The classes that are found worst, and what their pixels are taken for: those of equal IoU with most pixels
    first."""
    iou, pixels, taken_names = score.compute().iou, score.confusion.sum(axis=1), [*names, "nothing"]
    labels = [label for label in np.lexsort([-pixels, iou]).tolist() if pixels[label]][:WORST]
    rows = []
    for label in labels:
        others = score.confusion[label].copy()
        others[label] = 0
        taken = [place for place in np.argsort(-others, kind="stable").tolist()[:TAKEN_FOR] if others[place]]
        shares = [TakenFor(taken_names[place], float(others[place] / pixels[label])) for place in taken]
        rows.append(ConfusedClass(label, names[label], float(iou[label]), int(pixels[label]), tuple(shares)))
    return tuple(rows)


def speed_of(scores: Scores) -> PictureTimes | None:
    """How long a picture took."""
    times = 1000 * np.array(scores.seconds)
    if not len(times):
        return None
    return PictureTimes(float(np.median(times)), p95_ms=float(np.quantile(times, 0.95)), mean_ms=float(times.mean()))


def memory_of(segmenter: Segmenter) -> PeakMemory:
    """The most that this process had until now."""
    machine, gpu = None, None
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        machine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    if segmenter.device.type == "cuda":
        gpu = torch.cuda.max_memory_allocated(segmenter.device) / 2**20
    return PeakMemory(machine_mib=machine, gpu_mib=gpu)


def conditions_of(segmenter: Segmenter, processes: int) -> Conditions:
    """Under which conditions this is measured."""
    from wordmask import __version__

    device = segmenter.device
    on_gpu = device.type == "cuda"
    return Conditions(
        model=segmenter.name or segmenter.model.family,
        weights=fingerprint(segmenter.model.state_dict()),
        device=torch.cuda.get_device_name(device) if on_gpu else f"{device.type}, {platform.machine()}",
        precision=segmenter.precision,
        threads=torch.get_num_threads(),
        processes=processes,
        versions={
            "wordmask": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        commit=commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


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
