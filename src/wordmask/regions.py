"""What is found in a picture: scored regions, each with its pixels."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from wordmask.vocabulary import Vocabulary
from wordmask.writing import JsonObject

LEAST_SHOWN = 0.1  # instances with a lower score are listed, for those who rank them, but neither painted nor drawn
EIGHT_BIT_CLASSES = 254  # more than these take 16 bits, as labels go up to 253 and 255 means unlabelled
ROWS_AT_ONCE = 256  # of a map that is looked up or counted

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Painted:
    """Pixels that have one value in a map shared by all regions of a picture."""

    values: np.ndarray
    value: int

    def to_mask(self) -> np.ndarray:
        return self.values == self.value


@dataclass(frozen=True, eq=False)
class Packed:
    """Pixels as bits, (H, W / 8) uint8: for masks that may overlap."""

    bits: np.ndarray
    width: int

    def to_mask(self) -> np.ndarray:
        return np.unpackbits(self.bits, axis=1, count=self.width).view(bool)


@dataclass(frozen=True, eq=False)
class Region:
    """The pixels of one class, or of one of its instances.

    Args:
        id: Counts from 1; the value in `Segmentation.segments`.
        name: That of its class.
        label: That of its class, an index into the vocabulary.
        thing: Whether the class is countable.
        score: In [0, 1]: the mean over its pixels of their probability, or of a segment's class probability × mask
            probability; of an instance class probability × mean mask probability.
        area: Pixels.
        box: (left, top, right, bottom) in pixels, right and bottom exclusive.
        runner_up: The class that it, or most of its pixels, would have had otherwise, if any.
    """

    id: int
    name: str
    label: int
    thing: bool
    score: float
    area: int
    box: Box
    runner_up: str | None
    _pixels: Painted | Packed = field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The pixels of this region, (H, W) bool."""
        return self._pixels.to_mask()

    def to_rle(self) -> JsonObject:
        """Return the mask as COCO's compressed run lengths: {'size': [height, width], 'counts': str}."""
        size, counts = self._run_lengths
        return {"size": list(size), "counts": counts}

    @cached_property
    def _run_lengths(self) -> tuple[list[int], str]:
        """Encoded once: two of the files that are saved of instances hold them."""
        from pycocotools import mask as coco_mask

        encoded = coco_mask.encode(np.asfortranarray(self.mask, dtype=np.uint8))
        counts = encoded["counts"]
        return encoded["size"], counts if isinstance(counts, str) else counts.decode("ascii")

    def to_dict(self) -> JsonObject:
        """The values that json can hold, without the pixels."""
        names = ("id", "name", "label", "thing", "score", "area", "box", "runner_up")
        values: JsonObject = {name: getattr(self, name) for name in names}
        return values | {"box": list(self.box)}


def find_regions(
    labels: np.ndarray, vocabulary: Vocabulary, *, confidence: np.ndarray, runner_up: np.ndarray
) -> list[Region]:
    """List the classes present, largest first, each with its score, box and most frequent runner-up.

    Args:
        labels: (H, W) with the unlabelled value where no word fits.
        confidence: (H, W) probability of each pixel's label.
        runner_up: (H, W) coded as `labels`.
    """
    areas, sums = np.zeros(len(vocabulary), np.int64), np.zeros(len(vocabulary))
    for start in range(0, len(labels), ROWS_AT_ONCE):  # numpy turns all values that it counts into 64 bits first
        rows = slice(start, start + ROWS_AT_ONCE)
        areas += np.bincount(labels[rows].ravel(), minlength=len(vocabulary))[: len(vocabulary)]
        sums += np.bincount(labels[rows].ravel(), weights=confidence[rows].ravel(), minlength=len(vocabulary))[
            : len(vocabulary)
        ]
    regions = []
    for label in np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)].tolist():
        entry, mask = vocabulary.classes[label], labels == label
        box = left, top, right, bottom = _box(mask)
        rivals = np.zeros(len(vocabulary), np.int64)
        for start in range(top, bottom, ROWS_AT_ONCE):
            here = slice(start, min(start + ROWS_AT_ONCE, bottom)), slice(left, right)
            rivals += np.bincount(runner_up[here][mask[here]], minlength=len(vocabulary))[: len(vocabulary)]
        rival = vocabulary.classes[int(rivals.argmax())].name if rivals.any() else None
        score = min(float(sums[label] / areas[label]), 1.0)  # in this order, what is no number stays none
        pixels = Painted(labels, label)
        regions.append(
            Region(len(regions) + 1, entry.name, label, entry.thing, score, int(areas[label]), box, rival, pixels)
        )
    return regions


def find_segments(
    ids: np.ndarray,
    vocabulary: Vocabulary,
    *,
    classes: list[int],
    scores: list[float],
    areas: list[int],
    runners_up: list[int],
) -> tuple[np.ndarray, list[Region]]:
    """List panoptic segments, largest first; return the map of their ids, and them.

    Args:
        ids: (H, W), 0 is nothing, n the nth entry of the lists.
        classes: Those beyond the vocabulary (distractors) are dropped, and the ids after them move up.
        runners_up: A class, or beyond the vocabulary or negative: none.
    """
    wanted = [number for number, label in enumerate(classes) if label < len(vocabulary)]
    table = np.zeros(len(classes) + 1, np.uint16)
    table[np.array(wanted, int) + 1] = np.arange(1, len(wanted) + 1)
    segments, regions = look_up(table, ids), []
    for new, old in enumerate(wanted, 1):
        label, pixels = classes[old], Painted(segments, new)
        entry, rival = vocabulary.classes[label], _name(vocabulary, runners_up[old])
        regions.append(
            Region(new, entry.name, label, entry.thing, scores[old], areas[old], _box(pixels.to_mask()), rival, pixels)
        )
    return segments, sorted(regions, key=lambda region: -region.area)


def find_instances(
    vocabulary: Vocabulary,
    *,
    classes: list[int],
    scores: list[float],
    runners_up: list[int],
    areas: list[int],
    boxes: list[Box],
    pixels: list[Packed],
) -> list[Region]:
    """List instances in their order, except those of classes beyond the vocabulary (distractors)."""
    regions = []
    for label, score, rival, area, box, mask in zip(classes, scores, runners_up, areas, boxes, pixels, strict=True):
        if label < len(vocabulary):
            entry, rival = vocabulary.classes[label], _name(vocabulary, rival)
            regions.append(Region(len(regions) + 1, entry.name, label, entry.thing, score, area, box, rival, mask))
    return regions


def paint_instances(regions: list[Region], size: tuple[int, int]) -> np.ndarray:
    """Lay instances over each other, the best on top: (H, W) uint16 of ids, 0 where there is none."""
    segments = np.zeros(size, np.uint16)
    for region in reversed(regions):
        left, top, right, bottom = region.box
        segments[top:bottom, left:right][region.mask[top:bottom, left:right]] = region.id
    return segments


def label_type(classes: int) -> np.dtype:
    """The type of a label map: 8 bits for up to 254 classes, else 16."""
    return np.dtype(np.uint8 if classes <= EIGHT_BIT_CLASSES else np.uint16)


def unlabelled_value(classes: int) -> int:
    """The value of a pixel without a label: 255, or 65535 in 16 bits."""
    return int(np.iinfo(label_type(classes)).max)


def look_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """table[values], some rows at a time: numpy would turn all values into 64 bits first."""
    found = np.empty(values.shape, table.dtype)
    for start in range(0, len(values), ROWS_AT_ONCE):
        found[start : start + ROWS_AT_ONCE] = table[values[start : start + ROWS_AT_ONCE]]
    return found


def _name(vocabulary: Vocabulary, label: int) -> str | None:
    return vocabulary.classes[label].name if 0 <= label < len(vocabulary) else None


def _box(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
