"""COCO Panoptic as published."""

from collections.abc import Collection
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Int

from wordmask.data.coco_json import COCO_SHAPE, check_known, entries_of
from wordmask.data.files import (
    Findings,
    compare_sizes,
    first_few,
    first_folder,
    folder_of,
    opened,
    read_json,
)
from wordmask.data.labelled import LabelledPicture
from wordmask.image import read_picture
from wordmask.vocabulary import Vocabulary
from wordmask.writing import expanded


class CocoPanoptic:
    """COCO Panoptic with the 133 classes that EOV-Seg trains on, as published.

    root/annotations/panoptic_train2017.json; PNGs in root/annotations/panoptic_train2017 or root/panoptic_train2017;
    pictures in root/train2017 or root/images/train2017. Other places can be given, relative to root.

    Args:
        annotations: The json file.
        segments: The folder of PNGs, in which a segment's id is red + 256 · green + 65536 · blue, and 0 is no segment.
        pictures: The folder of pictures.

    Raises:
        ValueError: A file or folder is missing; the json is empty or of another format, or its categories are not COCO
            Panoptic's.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train2017",
        *,
        annotations: str | Path | None = None,
        segments: str | Path | None = None,
        pictures: str | Path | None = None,
    ):
        self.root = root = folder_of(root)
        self.vocabulary = Vocabulary.builtin("eov-seg/coco-panoptic-133")
        self.json = root / expanded(annotations or f"annotations/panoptic_{split}.json")
        png_folders = (f"annotations/panoptic_{split}", f"panoptic_{split}")
        self.segment_folder = first_folder(root, (expanded(segments),) if segments else png_folders, "panoptic PNGs")
        self.picture_folder = first_folder(
            root, (expanded(pictures),) if pictures else (split, f"images/{split}"), "pictures"
        )
        self._load(read_json(self.json, COCO_SHAPE))

    def _load(self, content: dict) -> None:
        """Keep, of a json of several gigabytes in memory, the numbers: one row a segment, those of a picture side by
        side."""
        numbered = enumerate(self.vocabulary)
        labels = {entry.dataset_id: label for label, entry in numbered if entry.dataset_id is not None}
        _check_categories(entries_of(self.json, content, "categories", {"id": int}), labels, self.json)
        names = {
            entry["id"]: entry["file_name"]
            for entry in entries_of(self.json, content, "images", {"id": int, "file_name": str})
        }
        wanted = {"image_id": int, "file_name": str, "segments_info": list}
        entries = sorted(entries_of(self.json, content, "annotations", wanted), key=lambda entry: entry["image_id"])
        check_known("images", (entry["image_id"] for entry in entries), names, self.json)
        _check_segments(entries, labels, self.json)
        parts = list(chain.from_iterable(entry["segments_info"] for entry in entries))
        self._files = [(names[entry["image_id"]], entry["file_name"]) for entry in entries]
        self._starts = np.cumsum([0, *(len(entry["segments_info"]) for entry in entries)])
        self._ids = np.array([part["id"] for part in parts], np.int32)
        self._labels = np.array([labels[part["category_id"]] for part in parts], np.int16)
        self._crowd = np.array([bool(part.get("iscrowd", 0)) for part in parts], bool)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> LabelledPicture:
        picture = self.picture_folder / self._files[place][0]
        segments = self._read_segments(place)
        rows = self._rows(place)
        return LabelledPicture(
            read_picture(picture), segments, self._labels[rows].astype(np.int64), self._crowd[rows], str(picture)
        )

    def files(self, place: int) -> tuple[Path, Path]:
        """Where a picture and its segments should be."""
        name, segments = self._files[place]
        return self.picture_folder / name, self.segment_folder / segments

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; only `thorough` decodes every picture and PNG, and looks at its ids."""
        findings = Findings(self.json)
        for place, (name, segments_name) in enumerate(self._files):
            picture, label = self.picture_folder / name, self.segment_folder / segments_name
            absent = [path for path in (picture, label) if not path.is_file()]
            for path in absent:
                findings.add(
                    f"Files that the json names and {str(path.parent)!r} does not have; fetch them again", path.name
                )
            if absent:
                continue
            if thorough:
                findings.attempt("Pictures that cannot be read", read_picture, picture)
            if not thorough or findings.attempt("PNGs that cannot be used", self._read_segments, place) is not None:
                compare_sizes(findings, picture, label)
        findings.report()

    def _rows(self, place: int) -> slice:
        place = range(len(self))[place]
        return slice(self._starts[place], self._starts[place + 1])

    def _read_segments(self, place: int) -> Int[np.ndarray, "H W"]:
        path = self.segment_folder / self._files[place][1]
        return number_segments(read_segment_ids(path), self._ids[self._rows(place)], path, self.json)


def read_segment_ids(path: Path) -> Int[np.ndarray, "H W"]:
    """The ids that a PNG codes in colours: red + 256 · green + 65536 · blue.

    Raises:
        ValueError: It is damaged, or no PNG with red, green and blue.
    """
    with opened(path, "label") as image:
        kind, colours = (image.format, image.mode), np.array(image)
    if kind != ("PNG", "RGB"):
        raise ValueError(
            f"The label {str(path)!r} is a {' of mode '.join(map(str, kind))}; expected a PNG with red, green and blue."
        )
    return colours.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def number_segments(
    values: Int[np.ndarray, "H W"], listed: Int[np.ndarray, " N"], path: Path, json: Path
) -> Int[np.ndarray, "H W"]:
    """Number the segments of a PNG from 1 in the order in which its json lists their ids.

    Raises:
        ValueError: There are others.
    """
    ids = np.concatenate([np.zeros(1, np.int32), listed])
    order = np.argsort(ids).astype(np.int32)
    found = np.searchsorted(ids, values, sorter=order).clip(max=len(ids) - 1)
    strangers = np.unique(values[ids[order][found] != values])
    if len(strangers):
        raise ValueError(
            f"The label {str(path)!r} has segments {first_few(strangers.tolist())}, which {str(json)!r} does not list."
        )
    return order[found]


def _check_categories(categories: list[dict], known: Collection[int], path: Path) -> None:
    found = {entry["id"] for entry in categories}
    if found != set(known):
        raise ValueError(
            f"The file {str(path)!r} has {len(found)} categories; expected the {len(known)} of COCO Panoptic, by their "
            f"ids (differing: {first_few(sorted(found.symmetric_difference(known)))}). For classes of your own, see "
            "CocoFolder."
        )


def _check_segments(entries: list[dict], known: Collection[int], path: Path) -> None:
    findings = Findings(path)
    for entry in entries:
        name, seen = entry["file_name"], set()
        for part in entry["segments_info"]:
            if not isinstance(part, dict) or type(part.get("id")) is not int or not 0 < part["id"] < 256**3:
                findings.add("Segments without an id from 1 to 16777215", f"{name}: {str(part)[:80]}")
            elif type(part.get("category_id")) is not int or part["category_id"] not in known:
                findings.add(
                    "Segments of a category that COCO Panoptic does not have", f"{name}: {part.get('category_id')}"
                )
            elif part["id"] in seen:
                findings.add("Segments of a picture with the same id", f"{name}: {part['id']}")
            else:
                seen.add(part["id"])
    findings.report()
