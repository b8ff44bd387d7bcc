"""Pictures labelled by a json in one of COCO's formats: COCO Panoptic, and one's own folder."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from wordmask.data.files import (
    Findings,
    Size,
    compare_sizes,
    first_folder,
    folder_of,
    json_files,
    opened,
    read_json,
    size_of,
    some,
    written,
)
from wordmask.data.labelled import LabelledPicture
from wordmask.data.outlines import read_runs
from wordmask.image import read_picture
from wordmask.vocabulary import Vocabulary
from wordmask.writing import at_home

COCO_SHAPE = "{'images': [{'id', 'file_name'}, …], 'annotations': […], 'categories': [{'id', 'name'}, …]}"


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
        self.json = root / at_home(annotations or f"annotations/panoptic_{split}.json")
        png_folders = (f"annotations/panoptic_{split}", f"panoptic_{split}")
        self.segment_folder = first_folder(root, (at_home(segments),) if segments else png_folders, "panoptic PNGs")
        self.picture_folder = first_folder(
            root, (at_home(pictures),) if pictures else (split, f"images/{split}"), "pictures"
        )
        self._load(read_json(self.json, COCO_SHAPE))

    def _load(self, content: dict) -> None:
        """Keep, of a json of several gigabytes in memory, the numbers: one row a segment, those of a picture side by
        side."""
        labels = {entry.dataset_id: label for label, entry in enumerate(self.vocabulary)}
        _check_categories(_entries(self.json, content, "categories", {"id": int}), set(labels), self.json)
        names = {
            entry["id"]: entry["file_name"]
            for entry in _entries(self.json, content, "images", {"id": int, "file_name": str})
        }
        wanted = {"image_id": int, "file_name": str, "segments_info": list}
        entries = sorted(_entries(self.json, content, "annotations", wanted), key=lambda entry: entry["image_id"])
        _check_known("images", (entry["image_id"] for entry in entries), names, self.json)
        _check_segments(entries, labels, self.json)
        parts = [part for entry in entries for part in entry["segments_info"]]
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
        """See `DataSet.check`; only `thorough` decodes every PNG and looks at its ids."""
        findings = Findings(self.json)
        for place, (name, segments_name) in enumerate(self._files):
            picture, label = self.picture_folder / name, self.segment_folder / segments_name
            absent = [path for path in (picture, label) if not path.is_file()]
            for path in absent:
                findings.add(
                    f"Files that the json names and {str(path.parent)!r} does not have; fetch them again", path.name
                )
            if absent or (
                thorough
                and findings.attempt("PNGs that cannot be used", lambda place=place: self._read_segments(place)) is None
            ):
                continue
            compare_sizes(findings, picture, label)
        findings.report()

    def _rows(self, place: int) -> slice:
        place = range(len(self))[place]
        return slice(self._starts[place], self._starts[place + 1])

    def _read_segments(self, place: int) -> Int[np.ndarray, "H W"]:
        path = self.segment_folder / self._files[place][1]
        with opened(path, "label") as image:
            kind, colours = (image.format, image.mode), np.array(image)
        if kind != ("PNG", "RGB"):
            raise ValueError(
                f"The label {str(path)!r} is a {' of mode '.join(map(str, kind))}; "
                "expected a PNG with red, green and blue."
            )
        values = colours.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        ids = np.concatenate([np.zeros(1, np.int32), self._ids[self._rows(place)]])
        order = np.argsort(ids).astype(np.int32)
        found = np.searchsorted(ids, values, sorter=order).clip(max=len(ids) - 1)
        strangers = np.unique(values[ids[order][found] != values])
        if len(strangers):
            raise ValueError(
                f"The label {str(path)!r} has segments {some(strangers.tolist())}, which {str(self.json)!r} does not "
                "list."
            )
        return order[found]


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
        self.json = self.root / at_home(annotations) if annotations else _only_json(self.root)
        content = read_json(self.json, COCO_SHAPE)
        categories = sorted(
            _entries(self.json, content, "categories", {"id": int, "name": str}), key=lambda entry: entry["id"]
        )
        self.vocabulary = _vocabulary_of(categories, self.json)
        self._label_of = {entry["id"]: label for label, entry in enumerate(categories)}
        self.images = sorted(
            _entries(self.json, content, "images", {"id": int, "file_name": str}), key=lambda entry: entry["id"]
        )
        self.annotations: dict[int, list[dict]] = {entry["id"]: [] for entry in self.images}
        annotations = _entries(self.json, content, "annotations", {"image_id": int, "category_id": int})
        _check_known("images", (entry["image_id"] for entry in annotations), self.annotations, self.json)
        _check_known("categories", (entry["category_id"] for entry in annotations), self._label_of, self.json)
        for entry in annotations:
            self.annotations[entry["image_id"]].append(entry)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> LabelledPicture:
        image = self.images[place]
        path = self._path(image)
        rgb = read_picture(path)
        self._check_size(image, rgb.shape[:2])
        segments, labels, crowd = self._paint(image, rgb.shape[:2])
        return LabelledPicture(rgb, segments, labels, crowd, str(path))

    def check(self) -> None:
        """See `DataSet.check`; every outline is drawn, of pictures only the size is read."""
        findings, covered = Findings(self.json), 0
        for image in self.images:
            path = self._path(image)
            if not path.is_file():
                findings.add(
                    f"Pictures that the json names and {str(self.root / 'images')!r} does not have", image["file_name"]
                )
                continue
            size = findings.attempt("Pictures that cannot be read", lambda path=path: size_of(path))
            if (
                size is None
                or findings.attempt("Pictures of another size", lambda i=image, s=size: self._check_size(i, s) or True)
                is None
            ):
                continue
            for entry in self.annotations[image["id"]]:
                runs = findings.attempt(
                    "Outlines that cannot be used", lambda e=entry, i=image, s=size: self._runs(e, i, s)
                )
                covered += 0 if runs is None else int(runs[1::2].sum())
        if not covered and not findings.kinds:
            findings.add(
                "Outlines cover no pixel at all; expected coordinates in pixels, not in parts of the picture",
                "every annotation",
            )
        findings.report()

    def _path(self, image: dict) -> Path:
        """Tools write file names relative to the pictures' folder or to the json's."""
        beside = self.root / image["file_name"]
        inside = self.root / "images" / image["file_name"]
        return beside if beside.is_file() and not inside.is_file() else inside

    def _check_size(self, image: dict, size: Size) -> None:
        said = image.get("height", size[0]), image.get("width", size[1])
        if said != tuple(size):
            name, expected = image["file_name"], written(said)
            raise ValueError(
                f"The picture {name!r} is {written(size)} pixels, but {str(self.json)!r} says {expected}. "
                "Export it again."
            )

    def _runs(self, entry: dict, image: dict, size: Size) -> Int[np.ndarray, " R"]:
        try:
            return read_runs(entry.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(
                f"Annotation {entry.get('id')} of {image['file_name']!r} in {str(self.json)!r}: {error}"
            ) from None

    def _paint(
        self, image: dict, size: Size
    ) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        numbers: dict[tuple, int] = {}
        outlines = []
        for place, entry in enumerate(self.annotations[image["id"]]):
            label, crowd = self._label_of[entry["category_id"]], bool(entry.get("iscrowd", 0))
            which = place if self.vocabulary.classes[label].thing else None
            number = numbers.setdefault((label, crowd, which), len(numbers) + 1)
            outlines.append((number, self._runs(entry, image, size)))
        segments = np.zeros(size[0] * size[1], np.int32)  # column by column, as COCO's run lengths go
        for number, runs in sorted(outlines, key=lambda outline: -int(outline[1][1::2].sum())):
            segments[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = number
        labels, crowd = np.array([key[0] for key in numbers], np.int64), np.array([key[1] for key in numbers], bool)
        return np.ascontiguousarray(segments.reshape(size[::-1]).T), labels, crowd


def _only_json(root: Path) -> Path:
    found = json_files(root)
    chosen = [path for path in found if path.name == "annotations.json"] or found
    if len(chosen) != 1:
        names = some([path.name for path in found]) if found else "none"
        raise ValueError(f"{str(root)!r} has these json files: {names}. Expected one, or one called annotations.json.")
    return chosen[0]


def _entries(path: Path, content: dict, key: str, wanted: dict[str, type]) -> list[dict]:
    """The list under a key, each entry of which has what is wanted."""
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"The file {str(path)!r} has no {key}; expected {COCO_SHAPE}. Export it again, with its {key}."
        )
    seen = set()
    for number, entry in enumerate(entries):
        bad = not isinstance(entry, dict) or [
            name for name, kind in wanted.items() if type(entry.get(name)) is not kind
        ]
        if bad:
            expected = ", ".join(f"{name!r}: {kind.__name__}" for name, kind in wanted.items())
            raise ValueError(f"The file {str(path)!r}: {key}[{number}] is {str(entry)[:80]}; expected {{{expected}}}.")
        if "id" in wanted and entry["id"] in seen:
            raise ValueError(f"The file {str(path)!r} has two {key} with the id {entry['id']}. Give each its own.")
        if "id" in wanted:
            seen.add(entry["id"])
    return entries


def _check_known(key: str, ids: Iterator[int], known: Mapping, path: Path) -> None:
    strangers = list(dict.fromkeys(one for one in ids if one not in known))
    if strangers:
        raise ValueError(
            f"The file {str(path)!r} has annotations of {key} it does not list: {some(strangers)}. Add them to {key!r}."
        )


def _check_categories(categories: list[dict], known: set[int], path: Path) -> None:
    found = {entry["id"] for entry in categories}
    if found != known:
        raise ValueError(
            f"The file {str(path)!r} has {len(found)} categories; expected the {len(known)} of COCO Panoptic, by "
            "their ids (differing: "
            f"{some(sorted(found ^ known))}). For classes of your own, see CocoFolder."
        )


def _check_segments(entries: list[dict], known: Mapping, path: Path) -> None:
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
