"""How each paper measures, one row a split; and the figures that it published, which ours are printed beside."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from wordmask import bundled
from wordmask.data.ade20k import Composed
from wordmask.data.labelled import LabelledPicture
from wordmask.text import Synonyms
from wordmask.vocabulary import Vocabulary
from wordmask.writing import JsonObject

ERR_SEG, EOV_SEG = "ERR-Seg, arXiv 2501.17642", "EOV-Seg, arXiv 2412.08628"
NOT_STATED = "the paper doesn't report this split"
Figures = dict[str, float]  # name of a metric → percent


@dataclass(frozen=True)
class Protocol:
    """What a paper does with a split. The size of the input is the preset's own.

    Args:
        vocabulary: Whose names.
        skipped: Classes that these have first, and the split doesn't.
        keep: ERR-Seg's K; None: as the model chooses, if it does.
        synonyms: None: as the model does.
        shrink: Pixels: a picture whose shorter side is longer is first resized to this, and its label too.
        note: Where the paper says nothing, what we do.
    """

    vocabulary: str
    skipped: int = 0
    keep: int | None = None
    synonyms: Synonyms | None = None
    shrink: int | None = None
    note: str = ""

    def read_vocabulary(self) -> Vocabulary:
        """The classes of the split, by the names that the paper gives them."""
        vocabulary = Vocabulary.of(self.vocabulary)
        return replace(vocabulary, classes=vocabulary.classes[self.skipped :])

    def changed(self, choices: Mapping[str, object]) -> "Protocol":
        """The same, with what was chosen otherwise; None is no choice."""
        chosen = {name: value for name, value in choices.items() if value is not None}
        return replace(self, **chosen, **({"skipped": 0} if "vocabulary" in chosen else {}))

    def to_dict(self) -> JsonObject:
        return {name: value for name, value in asdict(self).items() if value not in (None, "", 0)}


PROTOCOLS: Mapping[str, Mapping[str, Protocol]] = {
    "err-seg": {  # K: the paper's page; names and prompt: its reference
        "a-150": Protocol("err-seg/ade20k-150", keep=32),
        "a-847": Protocol("err-seg/ade20k-847", keep=48, shrink=512),
        "pc-59": Protocol("err-seg/pascal-context-59", keep=24),
        "pc-459": Protocol("err-seg/pascal-context-459", keep=48),
        "pas-20": Protocol("err-seg/pascal-voc-20", keep=16),
        "pas-20b": Protocol(
            "err-seg/pascal-voc-20b", keep=24, note=f"{NOT_STATED}; K as for PC-59, which has as many names"
        ),
        "coco-stuff-171": Protocol("err-seg/coco-stuff-171", keep=32, note=f"{NOT_STATED}; K as in training"),
        "coco-panoptic-133": Protocol(
            "eov-seg/coco-panoptic-133", keep=32, note=f"{NOT_STATED}; EOV-Seg's first names, K as for A-150"
        ),
        "ade20k-panoptic": Protocol("err-seg/ade20k-150", keep=32, note=f"{NOT_STATED}; as A-150"),
        "cityscapes-19": Protocol(
            "eov-seg/cityscapes-19", keep=16, note=f"{NOT_STATED}; EOV-Seg's first names, K as for PAS-20"
        ),
        "cityscapes-panoptic": Protocol("eov-seg/cityscapes-19", keep=16, note=f"{NOT_STATED}; as Cityscapes"),
        "shapeland-150": Protocol("shapeland/shapeland-150"),
        "shapeland-847": Protocol("shapeland/shapeland-847"),
    },
    "eov-seg": {
        "a-150": Protocol("eov-seg/ade20k-150"),
        "a-847": Protocol("eov-seg/ade20k-847", shrink=512),
        "pc-59": Protocol("eov-seg/pascal-context-59"),
        "pc-459": Protocol("eov-seg/pascal-context-459"),
        "pas-20": Protocol("eov-seg/pascal-voc-21", skipped=1),
        "pas-20b": Protocol("err-seg/pascal-voc-20b", note=f"{NOT_STATED}; ERR-Seg's names"),
        "coco-stuff-171": Protocol("eov-seg/coco-stuff-171", note=NOT_STATED),
        "coco-panoptic-133": Protocol("eov-seg/coco-panoptic-133", note=NOT_STATED),
        "ade20k-panoptic": Protocol("eov-seg/ade20k-150"),
        "cityscapes-19": Protocol("eov-seg/cityscapes-19", note=NOT_STATED),
        "cityscapes-panoptic": Protocol("eov-seg/cityscapes-19", note=NOT_STATED),
        "shapeland-150": Protocol("shapeland/shapeland-150"),
        "shapeland-847": Protocol("shapeland/shapeland-847"),
    },
}


def protocol_of(family: str, split: str) -> Protocol:
    """How a family's paper measures on a split.

    Raises:
        ValueError: There is no such row.
    """
    rows = PROTOCOLS.get(family, {})
    if split not in rows:
        raise ValueError(
            f"How to measure on {split} is not known for {family}: PROTOCOLS in wordmask.evaluation.protocols has no "
            "such row."
        )
    return rows[split]


SEMANTIC = ("a-847", "pc-459", "a-150", "pc-59", "pas-20")  # the order of both papers' tables


def _semantic(*values: float) -> dict[str, Figures]:
    return {split: {"mIoU": value} for split, value in zip(SEMANTIC, values, strict=True)}


def _panoptic(pq: float, sq: float, rq: float, *, ap: float, miou: float) -> dict[str, Figures]:
    return {"ade20k-panoptic": {"PQ": pq, "SQ": sq, "RQ": rq, "AP": ap, "mIoU": miou}}


PUBLISHED: Mapping[str, tuple[str, dict[str, Figures]]] = {
    "err-seg-base": (ERR_SEG, _semantic(13.9, 20.5, 35.8, 56.9, 95.4)),
    "err-seg-large": (ERR_SEG, _semantic(16.9, 23.9, 38.3, 60.7, 96.6)),
    "eov-seg-small": (EOV_SEG, _semantic(6.6, 11.5, 21.9, 46.0, 87.2) | _panoptic(15.1, 57.0, 18.9, ap=7.2, miou=21.9)),
    "eov-seg-medium": (
        EOV_SEG,
        _semantic(7.8, 12.2, 25.5, 51.8, 91.2) | _panoptic(18.7, 63.5, 23.2, ap=8.5, miou=25.5),
    ),
    "eov-seg-large": (
        EOV_SEG,
        _semantic(12.8, 16.8, 32.1, 56.9, 94.8) | _panoptic(24.5, 70.2, 30.1, ap=13.7, miou=32.1),
    ),
}


def published(model: str, split: str) -> tuple[str, Figures]:
    """What was published of a model on a split: where, and the figures; a bundled model has a card. No figures if
    nothing was published."""
    if model in PUBLISHED:
        source, rows = PUBLISHED[model]
        return source, rows.get(split, {})
    card = json.loads((bundled.FOLDER / "scores.json").read_text(encoding="utf-8"))
    return "the model card", card["scores"].get(split, {}).get(model, {})


def shrink(labelled: LabelledPicture, side: int) -> LabelledPicture:
    """Resize a picture whose shorter side is longer than `side` to it, keeping its shape; segments that lose all pixels
    stay listed.

    As the reference's preparation does (prepare_ade20k_full.py): bilinear without antialiasing, labels by the nearest;
    it then stores a JPEG, and we don't.
    """
    height, width = labelled.segments.shape
    if min(height, width) <= side:
        return labelled
    size = (side, round(width / height * side)) if width >= height else (round(height / width * side), side)
    rgb = torch.from_numpy(labelled.rgb).permute(2, 0, 1)[None].float()
    rgb = F.interpolate(rgb, size=size, mode="bilinear", align_corners=False).round().clamp(0, 255)
    small = replace(labelled, rgb=rgb[0].permute(1, 2, 0).byte().numpy(), segments=_nearest(labelled.segments, size))
    return replace(small, classes=_nearest(labelled.classes, size)) if isinstance(labelled, Composed) else small


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # interpolation takes no whole numbers; these are exact
    values = torch.from_numpy(labels.astype(np.float64))[None, None]
    return F.interpolate(values, size=size, mode="nearest")[0, 0].numpy().astype(labels.dtype)
