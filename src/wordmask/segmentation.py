"""What the user gets: a label map, scored regions, and the ways to keep them."""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wordmask.vocabulary import Vocabulary
from wordmask.writing import at_home, atomic

if TYPE_CHECKING:
    from PIL.Image import Image

EIGHT_BIT_CLASSES = 254  # more than these take 16 bits, as labels go up to 253 and 255 means unlabelled


@dataclass(frozen=True, eq=False)
class Region:
    """The pixels of one class.

    Args:
        name: Of its class.
        label: Of its class, an index into the vocabulary.
        thing: Whether the class is countable.
        score: Mean probability over its pixels, in [0, 1].
        area: Pixels.
        box: (left, top, right, bottom) in pixels, right and bottom exclusive.
        runner_up: The class that most of its pixels would have had otherwise, if any.
    """

    name: str
    label: int
    thing: bool
    score: float
    area: int
    box: tuple[int, int, int, int]
    runner_up: str | None
    _labels: np.ndarray = field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The pixels of this region, (H, W) bool."""
        return self._labels == self.label

    def to_rle(self) -> dict[str, object]:
        """Return the mask as COCO's compressed run lengths: {'size': [height, width], 'counts': str}."""
        from pycocotools import mask as coco_mask

        rle = coco_mask.encode(np.asfortranarray(self.mask, dtype=np.uint8))
        return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A labelled picture.

    Args:
        labels: (H, W), uint8 for up to 254 classes, else uint16; 0-based indices into `vocabulary`, `unlabelled` (255 or 65535) elsewhere.
        vocabulary: The words asked for.
        regions: One per class present, largest first.
        picture: (H, W, 3) uint8, as it was read: upright.
        model: Its name.
        settings: What it was asked with.
        source: The file it was read from, if any.
        confidence: Probability of every pixel's label, (H, W) float32; on request.
        runner_up: Second-best label of every pixel, coded as `labels`; on request.
        runner_up_confidence: Its probability, (H, W) float32; on request.
    """

    labels: np.ndarray
    vocabulary: Vocabulary
    regions: list[Region]
    picture: np.ndarray
    model: str
    settings: dict[str, object]
    source: str | None = None
    confidence: np.ndarray | None = None
    runner_up: np.ndarray | None = None
    runner_up_confidence: np.ndarray | None = None

    def __post_init__(self):
        assert self.labels.dtype == label_type(len(self.vocabulary)), self.labels.dtype
        assert self.labels.shape == self.picture.shape[:2], (self.labels.shape, self.picture.shape)

    def __repr__(self) -> str:
        height, width = self.size
        return f"Segmentation({height}×{width}, {len(self.regions)} of {len(self.vocabulary)} classes, model={self.model!r})"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.labels.shape

    @property
    def unlabelled(self) -> int:
        """The value of `labels` where no word fits."""
        return unlabelled_value(len(self.vocabulary))

    @cached_property
    def unlabelled_area(self) -> int:
        """Pixels that no word took."""
        return self.labels.size - sum(region.area for region in self.regions)

    def draw(self, legend: bool = True) -> "Image":
        """Draw the regions over the picture, outlined and named, with a legend below."""
        from wordmask.drawing import draw

        return draw(self, legend=legend)

    def save(self, stem: Path | str) -> list[Path]:
        """Write `stem`.masks.png (overlay), `stem`.labels.png (label map) and `stem`.masks.json; return the paths.

        The files appear whole, and only when all three are written; the json comes last.

        Raises:
            ValueError: `stem` names no file.
            OSError: The folder cannot be written to.
        """
        if not Path(stem).name or str(stem).endswith(("/", os.sep)):
            raise ValueError(f"{str(stem)!r} is a folder; give a name inside it, such as {str(Path(stem) / 'street')!r}.")
        stem = at_home(stem)
        overlay, labels, description = (stem.with_name(stem.name + ending) for ending in (".masks.png", ".labels.png", ".masks.json"))
        with atomic(description) as new_description, atomic(labels) as new_labels, atomic(overlay) as new_overlay:
            self.draw().save(new_overlay)
            self.label_image().save(new_labels)
            new_description.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        return [overlay, labels, description]

    def label_image(self) -> "Image":
        """Return the label map as a grey picture of 8 or 16 bits."""
        from PIL import Image

        return Image.fromarray(self.labels)

    def to_dict(self) -> dict[str, object]:
        """Describe the result in plain values, as in the json file."""
        regions = [_plain(region) | {"segmentation": region.to_rle()} for region in self.regions]
        return {
            "picture": self.source,
            "size": {"height": self.size[0], "width": self.size[1]},
            "model": self.model,
            "settings": self.settings,
            "unlabelled": self.unlabelled,
            "unlabelled_area": self.unlabelled_area,
            "classes": [{"label": label, "names": list(entry.names), "thing": entry.thing} for label, entry in enumerate(self.vocabulary)],
            "regions": regions,
        }

    def to_coco(self, image_id: int = 1, file_name: str | None = None) -> dict[str, list[dict]]:
        """Describe the result as a COCO detection data set of one image; its file's name is that of the picture if None.

        COCO counts categories from 1: `category_id` is the label plus 1. `bbox` is [left, top, width, height].
        """
        height, width = self.size
        annotations = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": region.label + 1,
                "segmentation": region.to_rle(),
                "area": region.area,
                "bbox": [region.box[0], region.box[1], region.box[2] - region.box[0], region.box[3] - region.box[1]],
                "iscrowd": 0,
                "score": region.score,
            }
            for number, region in enumerate(self.regions, 1)
        ]
        categories = [{"id": label + 1, "name": entry.name, "isthing": int(entry.thing)} for label, entry in enumerate(self.vocabulary)]
        file_name = file_name if file_name is not None else Path(self.source or "").name
        image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        return {"images": [image], "categories": categories, "annotations": annotations}


def label_type(classes: int) -> np.dtype:
    """The type of a label map: 8 bits for up to 254 classes, else 16."""
    return np.dtype(np.uint8 if classes <= EIGHT_BIT_CLASSES else np.uint16)


def unlabelled_value(classes: int) -> int:
    """The value of a pixel without a label: 255, or 65535 in 16 bits."""
    return int(np.iinfo(label_type(classes)).max)


def find_regions(labels: np.ndarray, vocabulary: Vocabulary, *, confidence: np.ndarray, runner_up: np.ndarray) -> list[Region]:
    """List the classes present, largest first, each with its score, box and most frequent runner-up.

    Args:
        labels: (H, W) with the unlabelled value where no word fits.
        confidence: (H, W) probability of each pixel's label.
        runner_up: (H, W) coded as `labels`.
    """
    flat = labels.ravel()
    areas = np.bincount(flat, minlength=len(vocabulary))[: len(vocabulary)]
    sums = np.bincount(flat, weights=confidence.ravel(), minlength=len(vocabulary))
    regions = []
    for label in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)].tolist():
        entry, mask = vocabulary.classes[label], labels == label
        rivals = np.bincount(runner_up[mask], minlength=len(vocabulary))[: len(vocabulary)]
        rival = vocabulary.classes[int(rivals.argmax())].name if rivals.any() else None
        score = min(1.0, float(sums[label] / areas[label]))
        regions.append(Region(entry.name, label, entry.thing, score, int(areas[label]), _box(mask), rival, labels))
    return regions


def _plain(region: Region) -> dict[str, object]:
    """The values of a region that json can hold."""
    names = ("name", "label", "thing", "score", "area", "box", "runner_up")
    return {name: getattr(region, name) for name in names} | {"box": list(region.box)}


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
