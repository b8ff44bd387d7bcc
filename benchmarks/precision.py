"""What bfloat16 changes: scores of the bundled models on Shapeland's fixed test scenes, and the pixels that get another
label.

    uv run python benchmarks/precision.py

Writes docs/results/precision.json and precision.md, in five minutes on two cores with bfloat16. With `--report` the
page is made anew from the json.
"""

from dataclasses import asdict

import numpy as np
import torch
from pages import arguments, write

from wordmask.bench.machine import conditions
from wordmask.data.shapeland import Shapeland
from wordmask.models.load import load_model
from wordmask.segmenter import Segmenter
from wordmask.training.validation import ValidationScores, pictures_of

MODELS = ("err-seg-tiny", "eov-seg-tiny")
SETS = {"shapeland-150": 400, "shapeland-847": 400}  # scenes of the test split
PRECISIONS = ("float32", "bfloat16")


def compare(model: str, vocabulary: str, scenes: int) -> dict[str, object]:
    """Segment scenes in both precisions; score each, and count equal labels."""
    data = Shapeland(vocabulary, "test", scenes)
    network = load_model(model).model.for_inference()
    scores = [ValidationScores(Segmenter(network, precision=precision), data.vocabulary) for precision in PRECISIONS]
    same = []
    for labelled in pictures_of(data):
        one, other = (score.add(labelled)["semantic"].labels for score in scores)
        same.append(np.mean(one == other))
    by_precision = {precision: score.compute() for precision, score in zip(PRECISIONS, scores, strict=True)}
    agreement = {"mean": float(np.mean(same)), "least": float(np.min(same))}
    return {
        "model": model,
        "vocabulary": vocabulary,
        "scenes": scenes,
        "scores": by_precision,
        "same labels": agreement,
    }


def measure() -> dict[str, object]:
    """Everything, in plain values."""
    found = [compare(model, vocabulary, scenes) for vocabulary, scenes in SETS.items() for model in MODELS]
    return {"conditions": asdict(conditions(torch.device("cpu"))), "found": found}


def page(found: dict) -> str:
    """What was measured, as Markdown."""
    where = found["conditions"]
    lines = [
        "# bfloat16 beside float32",
        "",
        f"Made by `benchmarks/precision.py`. {where['cpu']} "
        f"({', '.join(where['instructions']) or 'none of the instructions asked for'}),"
        f" torch {where['torch']}, {where['date'][:10]}.",
        "The bundled models on Shapeland's test scenes, in percent. "
        "Last: pixels whose class is the same, and in the worst scene.",
        "",
        "| model | words, scenes | score | float32 | bfloat16 | difference | same class | worst scene |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["found"]:
        same = [f"{100 * one['same labels'][which]:.2f}" for which in ("mean", "least")]
        for name in one["scores"]["float32"]:
            full, half = (one["scores"][precision][name] for precision in PRECISIONS)
            cells = [
                one["model"],
                f"{one['vocabulary']}, {one['scenes']}",
                name,
                f"{full:.2f}",
                f"{half:.2f}",
                f"{half - full:+.2f}",
            ]
            lines.append(f"| {' | '.join(cells + same)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    write("precision", arguments(__doc__).parse_args(), measure, page)


if __name__ == "__main__":
    main()
