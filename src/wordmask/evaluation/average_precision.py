"""Average precision of instances, through pycocotools: pictures one by one, figures over all of them."""

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from wordmask.evaluation.metrics import mean_of

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# pycocotools' IoU 0.5 to 0.95; all, small, medium, large; instances per class and picture
THRESHOLDS, AREAS, MOST = (10, 4, 100)
TARGETS = -1  # as the order of a detection: the row counts targets instead
ROW = np.dtype(
    [
        ("picture", "i8"),
        ("label", "i4"),
        ("order", "i4"),
        ("score", "f8"),
        ("matched", "u8"),
        ("ignored", "u8"),
        ("targets", "i4", AREAS),
    ]
)
BITS = np.uint64(1) << np.arange(AREAS * THRESHOLDS, dtype=np.uint64)


class Instance(NamedTuple):
    """An instance that was found: its class, its score, and its pixels as COCO's compressed run lengths."""

    label: int
    score: float
    rle: Mapping[str, object]


class Matches(NamedTuple):
    """What pycocotools matched of one class in one picture, where targets of some size count.

    Args:
        scores: Best first.
        matched: Whether an instance matches a target, at each IoU.
        ignored: Whether it says nothing, at each IoU: it matches a target that doesn't count, or is of another size.
        targets: How many count.
    """

    scores: list[float]
    matched: Bool[np.ndarray, "10 F"]
    ignored: Bool[np.ndarray, "10 F"]
    targets: int


@dataclass(frozen=True, eq=False)
class InstanceResult:
    """What an `InstanceScore` comes to, in percent; NaN where there is no target.

    Args:
        ap: For each class, the mean over IoU 0.5 to 0.95.
        mean_ap: COCO's AP; `ap50`, `ap75` at one IoU; `small`, `medium`, `large` by the area of targets, below 32² and
            96² pixels.
    """

    ap: Float[np.ndarray, " T"]
    mean_ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float


class InstanceScore:
    """COCO's AP of masks over T classes. What pycocotools matched in a picture is kept, 64 bytes an instance; not the
    masks."""

    def __init__(self, classes: int):
        self.classes = classes
        self._chunks: list[np.ndarray] = [np.zeros(0, ROW)]
        self._pictures: set[int] = set()

    @property
    def plain(self) -> np.ndarray:
        """All that was counted, a row of type `ROW` for each instance, and for the targets of each class and picture;
        it can be set."""
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0]

    @plain.setter
    def plain(self, rows: np.ndarray) -> None:
        self._chunks, self._pictures = [rows], set(rows["picture"].tolist())

    def update(
        self,
        picture: int,
        found: list[Instance],
        *,
        target_segments: Integer[np.ndarray, "H W"],
        target_labels: Integer[np.ndarray, " N"],
        target_crowd: Bool[np.ndarray, " N"],
    ) -> None:
        """Count a picture.

        Args:
            picture: Its number, different from all others'; scores that are equal rank by it.
            found: In the order in which equal scores rank.
            target_segments: Segment n of the map has entry n − 1 of the labels; 0 is nothing. Only things belong here.

        Raises:
            ValueError: The picture was counted before, or a label is no class.
        """
        if picture in self._pictures:
            raise ValueError(f"Picture {picture} was counted before. Give each a number of its own.")
        labels = target_labels.tolist()
        named = [*labels, *(instance.label for instance in found)]
        if not all(0 <= label < self.classes for label in named):
            raise ValueError(f"A label is no class; expected 0 to {self.classes - 1}.")
        numbered = zip(itertools.count(1), labels, target_crowd.tolist(), strict=False)
        truth = [
            {"category_id": label, "segmentation": _encode(target_segments == number), "iscrowd": int(crowd)}
            for number, label, crowd in numbered
        ]
        guesses = [{"category_id": one.label, "segmentation": one.rle, "score": one.score} for one in found]
        rows = []
        for label, by_area in _match(truth, guesses, target_segments.shape):
            rows += _rows(picture, label, by_area)
        self._chunks.append(np.array(rows, ROW))
        self._pictures.add(picture)

    def merge(self, other: "InstanceScore") -> None:
        """Add what another score, of other pictures of the same data set, has counted.

        Raises:
            ValueError: It has another number of classes, or counted a picture that this one has too.
        """
        if other.classes != self.classes:
            raise ValueError(f"A score of {other.classes} classes came; expected {self.classes}, of the same data set.")
        if self._pictures & other._pictures:
            raise ValueError("A score came that counted some of the same pictures. Count each picture once.")
        self._chunks.append(other.plain)
        self._pictures |= other._pictures

    def compute(self) -> InstanceResult:
        """Read the counts so far; they stay."""
        precision = self._precision()  # (IoU, recall, T, area); -1 where there is no target
        by_class = np.array([_mean(precision[:, :, label, 0]) for label in range(self.classes)])
        mean_ap, small, medium, large = (_mean(precision[..., area]) for area in range(AREAS))
        ap50, ap75 = (_mean(precision[threshold, ..., 0]) for threshold in (0, 5))
        return InstanceResult(by_class, mean_ap, ap50=ap50, ap75=ap75, small=small, medium=medium, large=large)

    def _precision(self) -> Float[np.ndarray, "10 101 T 4"]:
        """Let pycocotools accumulate what it matched, in the order of the pictures."""
        from pycocotools.cocoeval import COCOeval

        rows = self.plain[np.lexsort([self.plain[name] for name in ("order", "picture", "label")])]
        pictures = np.unique(rows["picture"])
        if not len(pictures):
            return np.full((THRESHOLDS, 101, self.classes, AREAS), -1.0)
        found: list[dict | None] = [None] * (self.classes * AREAS * len(pictures))
        starts = np.flatnonzero(
            np.diff(rows["label"] * (len(pictures) + 1) + np.searchsorted(pictures, rows["picture"]), prepend=-1)
        )
        for group in np.split(rows, starts[1:]):
            place = np.searchsorted(pictures, group["picture"][0])
            for area in range(AREAS):
                found[(group["label"][0] * AREAS + area) * len(pictures) + place] = _entry(group, area)
        evaluation = COCOeval(iouType="segm")
        evaluation.params.imgIds, evaluation.params.catIds = list(range(len(pictures))), list(range(self.classes))
        evaluation.evalImgs = found  # pyright: ignore[reportAttributeAccessIssue]  # as `evaluate` would have left it,
        evaluation._paramsEval = evaluation.params  # pyright: ignore[reportAttributeAccessIssue]  # with this
        with silence():
            evaluation.accumulate()
        return evaluation.eval["precision"][..., -1]


def _match(truth: list[dict], guesses: list[dict], size: tuple[int, ...]) -> Iterator[tuple[int, list[Matches]]]:
    """Let pycocotools match what was found in one picture: the label of each class that is there, and its matches by
    area."""
    from pycocotools.cocoeval import COCOeval

    if not truth and not guesses:
        return
    with silence():
        evaluation = COCOeval(_dataset(truth, size), _dataset(guesses, size), "segm")
        # left alone it sees the truth's
        labels = evaluation.params.catIds = sorted({entry["category_id"] for entry in (*truth, *guesses)})
        evaluation.params.imgIds = [1]
        evaluation.evaluate()
    for place, label in enumerate(labels):
        entries = evaluation.evalImgs[place * AREAS : (place + 1) * AREAS]
        if entries[0] is not None:
            yield int(label), [_matches(entry) for entry in entries]


def _dataset(entries: list[dict], size: tuple[int, ...]) -> "COCO":
    """One picture as pycocotools takes it."""
    from pycocotools import mask
    from pycocotools.coco import COCO

    for number, entry in enumerate(entries, 1):
        entry.setdefault("iscrowd", 0)
        entry |= {"id": number, "image_id": 1, "area": int(mask.area(entry["segmentation"]))}
    dataset = COCO()
    categories = [{"id": one["category_id"]} for one in entries]
    image = {"id": 1, "height": size[0], "width": size[1]}
    content = {"images": [image], "annotations": entries, "categories": categories}
    dataset.dataset = content  # pyright: ignore[reportAttributeAccessIssue]  # it needs no more of COCO's format
    dataset.createIndex()
    return dataset


def _matches(entry: Mapping) -> Matches:
    """Take what we keep from an entry of `COCOeval.evalImgs`."""
    targets = int(np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0))
    return Matches(entry["dtScores"], entry["dtMatches"] > 0, entry["dtIgnore"].astype(bool), targets)


def _rows(picture: int, label: int, by_area: list[Matches]) -> Iterator[tuple]:
    """What is kept of a class in a picture: one row per instance, and one that counts targets."""
    matched = np.concatenate([matches.matched for matches in by_area])  # (4·10, F)
    ignored = np.concatenate([matches.ignored for matches in by_area])
    yield picture, label, TARGETS, 0.0, 0, 0, [matches.targets for matches in by_area]
    for order, score in enumerate(by_area[0].scores):
        packed = [int((BITS * bits[:, order]).sum()) for bits in (matched, ignored)]
        yield picture, label, order, score, *packed, [0] * AREAS


def _entry(rows: np.ndarray, area: int) -> dict:
    """Undo `_rows` and `_matches` for one area: what `COCOeval.accumulate` reads."""
    found = rows[rows["order"] != TARGETS]
    bits = BITS[area * THRESHOLDS : (area + 1) * THRESHOLDS, None]
    return {
        "dtScores": found["score"].tolist(),
        "dtMatches": (found["matched"] & bits) > 0,
        "dtIgnore": (found["ignored"] & bits) > 0,
        "gtIgnore": np.zeros(rows["targets"][:, area].sum()),
    }


def _encode(mask_of_segment: Bool[np.ndarray, "H W"]) -> Mapping[str, object]:
    from pycocotools import mask

    return mask.encode(np.asfortranarray(mask_of_segment, dtype=np.uint8))


def _mean(precision: np.ndarray) -> float:
    counted = precision[precision > -1]
    return 100 * float(np.mean(counted)) if counted.size else mean_of(np.array([]))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep pycocotools, which prints what it does, from the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
