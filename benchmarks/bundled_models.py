"""What the bundled models score on Shapeland's fixed test scenes, beside a chance and a frozen-CLIP answer.

    uv run python benchmarks/bundled_models.py

Writes src/wordmask/bundled/scores.json, and the table in src/wordmask/bundled/CARD.md.
"""

import json
import re
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from wordmask import bundled
from wordmask.data.augment import resize
from wordmask.data.labelled import LabelledPicture
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.evaluation.metrics import PanopticScore, SemanticScore
from wordmask.models import kind_of
from wordmask.models.err_seg import PRESETS, ErrSeg
from wordmask.models.load import load_model
from wordmask.training.from_labels import pixels_of
from wordmask.training.validation import pictures_of, summary, validate

SETS = {"shapeland-150": 200, "shapeland-847": 100}  # scenes of the test split
SMALL = ("shapeland-150", 16)  # what the tests measure again
Answer = Callable[[LabelledPicture], np.ndarray]  # a picture → labels (H, W)


def frozen_clip(data: Shapeland) -> Answer:
    """Every pixel takes the word nearest to it in CLIP's space, on the mean of both cost maps: no aggregation, nothing
    trained."""
    model = kind_of("err-seg-tiny").random(PRESETS["err-seg-tiny"])
    assert isinstance(model, ErrSeg)
    model.clip.load_state_dict(load_model("eov-seg-tiny").model.clip.state_dict())
    model.start_from_clip()
    words, side = model.encode_text(data.vocabulary.names), model.config.resolution

    def answer(labelled: LabelledPicture) -> np.ndarray:
        features = model.encode_image(pixels_of(resize(labelled, (side, side)).rgb, model.image_input)[None])

        def cost(x: Tensor) -> Tensor:
            cosines = torch.einsum("bdhw,td->bthw", F.normalize(x, dim=1), words)
            return F.interpolate(cosines, size=labelled.rgb.shape[:2], mode="bilinear")

        return (cost(features.dense_x16) + cost(features.dense_x32))[0].argmax(dim=0).numpy()

    return answer


def chance(data: Shapeland) -> Answer:
    """Every pixel takes any word."""
    random = np.random.default_rng(0)

    def answer(labelled: LabelledPicture) -> np.ndarray:
        return random.integers(0, len(data.vocabulary), labelled.segments.shape)

    return answer


@torch.inference_mode()
def measure_labels(answer: Answer, data: Shapeland, unseen: np.ndarray) -> dict[str, float]:
    """Score label maps; for PQ, connected pixels of one class are one thing."""
    semantic = SemanticScore(len(data.vocabulary))
    panoptic = PanopticScore(np.array([entry.thing for entry in data.vocabulary]))
    for labelled in pictures_of(data):
        labels = answer(labelled)
        semantic.update(labels, labelled.semantic)
        target = {
            "target_segments": labelled.segments,
            "target_labels": labelled.labels,
            "target_crowd": labelled.crowd,
        }
        panoptic.update(*split_things(labels, panoptic.is_thing), **target)
    return summary({"PQ": panoptic.compute().pq, "mIoU": semantic.compute().iou}, unseen)


def split_things(labels: np.ndarray, is_thing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments of a label map, and the class of each."""
    segments, classes = np.zeros(labels.shape, np.int64), []
    for label in np.unique(labels):
        pieces = (labels == label).astype(int)
        if is_thing[label]:
            ndimage.label(pieces, output=pieces)
        count = int(pieces.max())
        segments += np.where(pieces > 0, pieces + len(classes), 0)
        classes += [label] * count
    return segments, np.array(classes)


def measure(vocabulary: str, scenes: int) -> dict[str, dict[str, float]]:
    data, unseen = Shapeland(vocabulary, "test", scenes), unseen_classes(vocabulary)
    scores = {
        name: validate(load_model(name).model.for_inference(), data, unseen=unseen)
        for name in ("err-seg-tiny", "eov-seg-tiny")
    }
    scores["frozen CLIP"] = measure_labels(frozen_clip(data), data, unseen)
    scores["chance"] = measure_labels(chance(data), data, unseen)
    return scores


def table(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    columns = [f"{score}{part}" for score in ("mIoU", "PQ") for part in ("", " seen", " unseen")]
    lines = [f"| words, scenes | model | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, rows in scores.items():
        for model, row in rows.items():
            values = " | ".join(f"{row[column]:.1f}" if column in row else "–" for column in columns)
            lines.append(f"| {name}, {SETS[name]} | {model} | {values} |")
    return "\n".join(lines)


def main() -> None:
    scores = {vocabulary: measure(vocabulary, scenes) for vocabulary, scenes in SETS.items()}
    small = {name: row for name, row in measure(*SMALL).items() if name.endswith("tiny")}
    content = {"sets": SETS, "scores": scores, "small": {"vocabulary": SMALL[0], "scenes": SMALL[1], "scores": small}}
    (bundled.FOLDER / "scores.json").write_text(json.dumps(content, indent=1) + "\n")
    card = bundled.FOLDER / "CARD.md"
    marked = r"(<!-- scores -->\n).*?(<!-- /scores -->)"
    card.write_text(
        re.sub(marked, lambda found: found[1] + table(scores) + "\n" + found[2], card.read_text(), flags=re.DOTALL)
    )
    print(table(scores))


if __name__ == "__main__":
    main()
