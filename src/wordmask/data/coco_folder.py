"""One's own pictures, labelled by a json in COCO's detection format."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from wordmask.data.coco_json import (
    COCO_SHAPE,
    Id,
    check_known,
    entries_of,
    fits,
    in_order_of_id,
    misfit,
    truth,
    vocabulary_of,
    with_plain_ids,
)
from wordmask.data.coco_places import chosen_jsons, folders_of
from wordmask.data.files import folder_of, read_json
from wordmask.data.labelled import Fault
from wordmask.data.outlined import UNUSABLE, Annotation, ListedPicture, OutlinedFolder
from wordmask.data.outlines import Box
from wordmask.data.own_places import picture_folders, with_synonyms
from wordmask.data.picture_files import PictureFinder
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.vocabulary import Vocabulary
from wordmask.writing import expanded

OF_AN_ANNOTATION = {"image_id": Id, "category_id": Id}
LEFT_OUT = "Annotations that cannot be used"


class CocoPart(NamedTuple):
    """What one json says."""

    vocabulary: Vocabulary
    pictures: list[ListedPicture]
    notes: list[str]
    faults: list[Fault]


class CocoFolder(OutlinedFolder):
    """One's own pictures with a json in COCO's detection format, as most labelling tools write it.

    root/images/*, and root/annotations.json or else the one json in root or root/annotations. Outlines are polygons or
    run lengths, compressed or not. Classes are the categories in the order of their id, synonyms by commas; `isthing`
    says the kind, otherwise the word does. Pictures the json does not name are not read; one that it names without
    annotations shows that there is nothing. Two files, or two folders with a file each, called train and val, say what
    is for measuring.

    Args:
        annotations: The json file, relative to root, where there are several; as in `reading`.

    Raises:
        ValueError: A file is missing; the json is empty or of another format, or its entries do not fit together.
    """

    def __init__(
        self,
        root: str | Path,
        reading: FolderReading = AS_IT_SAYS,
        *,
        annotations: str | Path | None = None,
    ):
        root = folder_of(root)
        if annotations is not None:
            reading = replace(reading, annotations=expanded(annotations))
        files = chosen_jsons(root, reading)
        parts = [_read(path, folders_of(root, path, reading), reading) for path in files]
        names = [part.vocabulary.names for part in parts]
        if any(others != names[0] for others in names):
            listed = " and ".join(repr(str(path)) for path in files)
            raise ValueError(f"{listed} have different categories; expected the same, in the same order.")
        pictures = [picture for part in parts for picture in part.pictures]
        missing = f"Pictures that the json names and {str(picture_folders(root, reading)[0])!r} does not have"
        vocabulary = with_synonyms(parts[0].vocabulary, root)
        super().__init__(root, vocabulary=vocabulary, pictures=pictures, reading=reading, missing=missing)
        self.notes += [note for part in parts for note in part.notes]
        self._faults = [fault for part in parts for fault in part.faults]
        self.nowhere = (
            f"the outlines in {str(files[0])!r} cover no pixel at all; expected coordinates in pixels, not in parts of "
            "the picture"
        )
        first = len(parts[0].pictures)
        self.by_itself = list(range(first, len(pictures))) if len(parts) > 1 else None

    def structure(self) -> list[Fault]:
        """Annotations that belong to no picture, or to no class; only where they may be left out."""
        return self._faults


def _read(path: Path, folders: list[Path], reading: FolderReading) -> CocoPart:
    content = with_plain_ids(read_json(path, COCO_SHAPE))
    images = sorted(entries_of(path, content, "images", {"id": Id, "file_name": str}), key=in_order_of_id)
    categories = sorted(entries_of(path, content, "categories", {"id": Id, "name": str}), key=in_order_of_id)
    entries, faults = _annotations(path, content, images, categories, partial=reading.partial)
    notes = []
    placeholder = _placeholder(categories, entries)
    if placeholder is not None:
        categories.remove(placeholder)
        notes.append(
            f"the category {placeholder['name']!r}, id {placeholder['id']}, is left out: it groups the others, and "
            "nothing is labelled with it"
        )
    vocabulary = vocabulary_of(categories, path)
    label_of = {entry["id"]: label for label, entry in enumerate(categories)}
    by_image: dict[object, list[Annotation | Fault]] = {entry["id"]: [] for entry in images}
    unlike = _without_copies(entries)
    if len(unlike) < len(entries):
        notes.append(f"{len(entries) - len(unlike)} annotations stand twice in {path.name}; each counts once")
    for entry in unlike:
        by_image[entry["image_id"]].append(_annotation(entry, label_of, path))
    finder = PictureFinder(folders)
    pictures = [_listed(entry, by_image[entry["id"]], finder, path) for entry in images]
    return CocoPart(vocabulary, _without_guesses_twice(pictures, finder), notes, faults)


def _annotations(
    path: Path, content: dict, images: list[dict], categories: list[dict], *, partial: bool
) -> tuple[list[dict], list[Fault]]:
    """The annotations that fit the rest; and, where they may be left out, those that don't."""
    known = {"image_id": {entry["id"] for entry in images}, "category_id": {entry["id"] for entry in categories}}
    if not partial:
        entries = entries_of(path, content, "annotations", OF_AN_ANNOTATION)
        check_known("images", (entry["image_id"] for entry in entries), known["image_id"], path)
        check_known("categories", (entry["category_id"] for entry in entries), known["category_id"], path)
        return entries, []
    kept, faults = [], []
    for number, entry in enumerate(content.get("annotations") or []):
        if not fits(entry, OF_AN_ANNOTATION):
            faults.append(Fault(LEFT_OUT, misfit("annotations", number, entry, OF_AN_ANNOTATION)))
        elif strange := [name for name, ids in known.items() if entry[name] not in ids]:
            faults.append(
                Fault(LEFT_OUT, f"Annotation {entry.get('id')} has the {strange[0]} {entry[strange[0]]}, not listed.")
            )
        else:
            kept.append(entry)
    return kept, faults


def _placeholder(categories: Sequence[dict], annotations: Iterable[dict]) -> dict | None:
    """The category that Roboflow puts before the others: the name of their group, with which nothing is labelled."""
    first, groups = categories[0], {entry.get("supercategory") for entry in categories[1:]}
    is_group = str(first.get("supercategory")).lower() == "none" and first["name"] in groups
    is_used = any(entry["category_id"] == first["id"] for entry in annotations)
    return first if first["id"] == 0 and is_group and not is_used else None


def _without_copies(entries: Sequence[dict]) -> list[dict]:
    """Annotations without those that are the same as an earlier one, whatever their id."""
    unlike: dict[str, dict] = {}
    for entry in entries:
        unlike.setdefault(json.dumps(entry | {"id": None}, sort_keys=True, default=str), entry)
    return list(unlike.values())


def _annotation(entry: dict, label_of: Mapping[object, int], path: Path) -> Annotation | Fault:
    try:
        crowd = truth(entry.get("iscrowd"))
    except ValueError as error:
        return Fault(UNUSABLE, f"Annotation {entry.get('id')} in {str(path)!r}: its iscrowd is wrong: {error}")
    outline, box = entry.get("segmentation"), entry.get("bbox")
    if not outline and isinstance(box, list) and len(box) == 4 and all(isinstance(one, int | float) for one in box):
        left, top, width, height = box
        outline = Box((left, top, left + width, top + height))
    return Annotation(entry.get("id"), label_of[entry["category_id"]], outline, crowd)


def _listed(
    entry: dict, annotations: Collection[Annotation | Fault], finder: PictureFinder, path: Path
) -> ListedPicture:
    name, faults = entry["file_name"], [one for one in annotations if isinstance(one, Fault)]
    try:
        found = finder.find(name)
    except ValueError as error:
        found = None
        faults.append(Fault("Pictures that may be several", str(error)))
    return ListedPicture(
        name,
        found or finder.folders[0] / name,
        path,
        [one for one in annotations if isinstance(one, Annotation)],
        height=_side(entry, "height", path),
        width=_side(entry, "width", path),
        faults=faults,
    )


def _side(entry: dict, name: str, path: Path) -> int | None:
    """A height or width; 0 and nothing say nothing."""
    value = entry.get(name)
    try:
        return int(value) or None if value is not None else None
    except (TypeError, ValueError):
        raise ValueError(
            f"The file {str(path)!r}: the {name} of {entry['file_name']!r} is {value!r}; expected pixels."
        ) from None


def _without_guesses_twice(pictures: Sequence[ListedPicture], finder: PictureFinder) -> list[ListedPicture]:
    """Where a name leads to a file that is another one's very own, its own is missing."""
    own = {picture.path for picture in pictures if finder.find_exactly(picture.name) == picture.path}
    kept = []
    for picture in pictures:
        guessed = picture.path in own and finder.find_exactly(picture.name) is None
        kept.append(replace(picture, path=finder.folders[0] / picture.name) if guessed else picture)
    return kept
