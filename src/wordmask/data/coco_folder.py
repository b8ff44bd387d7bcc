"""One's own pictures, labelled by a json in COCO's detection format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Int

from wordmask.data.coco_json import COCO_SHAPE, check_known, entries_of
from wordmask.data.files import Findings, Size, first_few, folder_of, json_files, read_json, size_of, width_by_height
from wordmask.data.labelled import LabelledPicture, Segments
from wordmask.data.outlines import read_runs
from wordmask.image import read_picture
from wordmask.vocabulary import Vocabulary
from wordmask.writing import expanded


@dataclass(frozen=True)
class ListedPicture:
    """A picture as the json lists it. Height and width, in pixels, need not be said."""

    id: int
    file_name: str
    height: int | None
    width: int | None


@dataclass(frozen=True)
class Annotation:
    """A thing, or a piece of stuff, as the json describes it.

    Args:
        id: For errors only.
        label: An index into the vocabulary.
        outline: The json's `segmentation`; see `read_runs`.
    """

    id: object
    label: int
    crowd: bool
    outline: object


class CocoFolder:
    """One's own pictures with a json in COCO's detection format, as most labelling tools write it.

    root/images/*, and root/annotations.json or else the one root/*.json. Outlines are polygons or run lengths,
    compressed or not; smaller ones are painted over larger ones, of equal ones the later. Classes are the categories in
    the order of their id, synonyms by commas; `isthing` says the kind, otherwise the word does. Stuff of one class is
    one segment. Pictures the json does not name are not read; one that it names without annotations shows that there is
    nothing.

    Args:
        annotations: The json file, relative to root, where there are several.

    Raises:
        ValueError: A file is missing; the json is empty or of another format, or its entries do not fit together.
    """

    def __init__(self, root: str | Path, *, annotations: str | Path | None = None):
        self.root = folder_of(root)
        self.json = self.root / expanded(annotations) if annotations else _only_json(self.root)
        content = read_json(self.json, COCO_SHAPE)
        by_id = itemgetter("id")
        categories = sorted(entries_of(self.json, content, "categories", {"id": int, "name": str}), key=by_id)
        self.vocabulary = _vocabulary_of(categories, self.json)
        images = sorted(entries_of(self.json, content, "images", {"id": int, "file_name": str}), key=by_id)
        self.pictures = [
            ListedPicture(entry["id"], entry["file_name"], entry.get("height"), entry.get("width")) for entry in images
        ]
        self._annotations: dict[int, list[Annotation]] = {picture.id: [] for picture in self.pictures}
        self._keep_annotations(content, {entry["id"]: label for label, entry in enumerate(categories)})

    def _keep_annotations(self, content: dict, label_of: Mapping[int, int]) -> None:
        entries = entries_of(self.json, content, "annotations", {"image_id": int, "category_id": int})
        check_known("images", (entry["image_id"] for entry in entries), self._annotations, self.json)
        check_known("categories", (entry["category_id"] for entry in entries), label_of, self.json)
        for entry in entries:
            label, crowd = label_of[entry["category_id"]], bool(entry.get("iscrowd", 0))
            annotation = Annotation(entry.get("id"), label, crowd, entry.get("segmentation"))
            self._annotations[entry["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> LabelledPicture:
        picture = self.pictures[place]
        path = self._path(picture)
        rgb = read_picture(path)
        height, width = self._expected(picture, rgb.shape[:2])
        segments, labels, crowd = self._paint(picture, (height, width))
        return LabelledPicture(rgb, segments, labels, crowd, str(path))

    def files(self, place: int) -> tuple[Path, ...]:
        """Where a picture should be, and the json."""
        return self._path(self.pictures[place]), self.json

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; `thorough` or not, every outline is drawn, and of a picture the size is read."""
        findings, covered = Findings(self.json), 0
        for picture in self.pictures:
            size = self._measure(picture, findings)
            if size is None:
                continue
            for annotation in self._annotations[picture.id]:
                runs = findings.attempt("Outlines that cannot be used", self._runs, annotation, picture, size)
                covered += 0 if runs is None else int(runs[1::2].sum())
        if not covered and not findings.kinds:
            findings.add(
                "Outlines cover no pixel at all; expected coordinates in pixels, not in parts of the picture",
                "every annotation",
            )
        findings.report()

    def _path(self, picture: ListedPicture) -> Path:
        """Tools write file names relative to the pictures' folder or to the json's."""
        beside = self.root / picture.file_name
        inside = self.root / "images" / picture.file_name
        return beside if beside.is_file() and not inside.is_file() else inside

    def _measure(self, picture: ListedPicture, findings: Findings) -> Size | None:
        """Read a picture's size, and note what is wrong with it."""
        path = self._path(picture)
        if not path.is_file():
            kind = f"Pictures that the json names and {str(self.root / 'images')!r} does not have"
            findings.add(kind, picture.file_name)
            return None
        size = findings.attempt("Pictures that cannot be read", size_of, path)
        return size and findings.attempt("Pictures of another size", self._expected, picture, size)

    def _expected(self, picture: ListedPicture, size: tuple[int, ...]) -> Size:
        """Return the size of a picture, if the json doesn't say another."""
        height, width = size
        said_height = height if picture.height is None else picture.height
        said_width = width if picture.width is None else picture.width
        if (said_height, said_width) != (height, width):
            raise ValueError(
                f"The picture {picture.file_name!r} is {width_by_height(size)} pixels, but {str(self.json)!r} says "
                f"{width_by_height((said_height, said_width))}. Export it again."
            )
        return height, width

    def _runs(self, annotation: Annotation, picture: ListedPicture, size: Size) -> Int[np.ndarray, " R"]:
        try:
            return read_runs(annotation.outline, size)
        except ValueError as error:
            raise ValueError(
                f"Annotation {annotation.id} of {picture.file_name!r} in {str(self.json)!r}: {error}"
            ) from None

    def _paint(self, picture: ListedPicture, size: Size) -> Segments:
        numbers: dict[tuple[int, bool, int | None], int] = {}
        outlines = []
        for place, annotation in enumerate(self._annotations[picture.id]):
            which = place if self.vocabulary.classes[annotation.label].thing else None
            number = numbers.setdefault((annotation.label, annotation.crowd, which), len(numbers) + 1)
            outlines.append((number, self._runs(annotation, picture, size)))
        segments = np.zeros(size[0] * size[1], np.int32)  # column by column, as COCO's run lengths go
        for number, runs in sorted(outlines, key=lambda outline: -int(outline[1][1::2].sum())):
            segments[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = number
        labels, crowd = np.array([key[0] for key in numbers], np.int64), np.array([key[1] for key in numbers], bool)
        return np.ascontiguousarray(segments.reshape(size[::-1]).T), labels, crowd


def _only_json(root: Path) -> Path:
    found = json_files(root)
    chosen = [path for path in found if path.name == "annotations.json"] or found
    if len(chosen) != 1:
        names = first_few([path.name for path in found]) if found else "none"
        raise ValueError(f"{str(root)!r} has these json files: {names}. Expected one, or one called annotations.json.")
    return chosen[0]


def _vocabulary_of(categories: list[dict], path: Path) -> Vocabulary:
    try:
        words = Vocabulary.of([entry["name"] for entry in categories])
    except ValueError as error:
        raise ValueError(f"The categories of {str(path)!r}: {error}") from None
    if len(words) != len(categories):
        raise ValueError(
            f"A category of {str(path)!r} has a ';' in its name, which separates classes. "
            "Write a comma between synonyms."
        )
    classes = [
        replace(word, thing=bool(entry.get("isthing", word.thing)), dataset_id=entry["id"])
        for word, entry in zip(words, categories, strict=True)
    ]
    return Vocabulary(tuple(classes), title=path.name)
