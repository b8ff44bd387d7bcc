"""One's own pictures in COCO's panoptic format."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from wordmask.data.coco_json import (
    COCO_SHAPE,
    Id,
    check_known,
    entries_of,
    in_order_of_id,
    truth,
    vocabulary_of,
    with_plain_ids,
)
from wordmask.data.coco_panoptic import number_segments, read_segment_ids
from wordmask.data.coco_places import chosen_jsons, folders_of
from wordmask.data.files import folder_of, read_json, width_by_height
from wordmask.data.labelled import Examined, Fault
from wordmask.data.own_folder import OwnFolder, read_upright
from wordmask.data.own_places import picture_folders, with_synonyms
from wordmask.data.picture_files import PictureFinder
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.vocabulary import Vocabulary

OF_AN_ANNOTATION = {"image_id": Id, "file_name": str, "segments_info": list}
UNUSABLE = "PNGs that cannot be used"


@dataclass(frozen=True)
class PanopticPicture:
    """A picture, the PNG of its segments, and what these are: id in the PNG, class, crowd."""

    name: str
    path: Path
    png: Path
    source: Path
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    crowd: tuple[bool, ...]


class PanopticFolder(OwnFolder):
    """One's own pictures in COCO's panoptic format: a json, and a PNG of segments for each picture.

    The json is in root or root/annotations, the PNGs in a folder of its name beside it, or in root/panoptic. Classes
    are the categories in the order of their id. Two jsons called train and val say what is for measuring.

    Raises:
        ValueError: A file is missing; the json is of another format, or its entries do not fit together.
    """

    def __init__(self, root: str | Path, reading: FolderReading = AS_IT_SAYS):
        root = folder_of(root)
        files = chosen_jsons(root, reading, panoptic=True)
        parts = [_read(path, root, reading) for path in files]
        if any(vocabulary.names != parts[0][0].names for vocabulary, _ in parts):
            listed = " and ".join(repr(str(path)) for path in files)
            raise ValueError(f"{listed} have different categories; expected the same, in the same order.")
        super().__init__(root, with_synonyms(parts[0][0], root), reading)
        self.pictures = [picture for _, pictures in parts for picture in pictures]
        first = len(parts[0][1])
        self.by_itself = list(range(first, len(self.pictures))) if len(parts) > 1 else None

    def __len__(self) -> int:
        return len(self.pictures)

    def files(self, place: int) -> tuple[Path, ...]:
        """Where a picture and its segments should be."""
        return self.pictures[place].path, self.pictures[place].png

    def _examine(self, place: int) -> Examined:
        picture = self.pictures[place]
        blank, frames, faults = read_upright(picture.path, "Pictures that the json names and that are not there")
        try:
            segments = _segments(picture)
        except ValueError as error:
            return Examined(None, [*faults, Fault(UNUSABLE, str(error))])
        if blank is None or frames is None:
            return Examined(None, faults)
        if frames.labelled_in(segments.shape) is None:
            what = f"{picture.name} ({frames}), {picture.png.name} ({width_by_height(segments.shape)})"
            return Examined(None, [Fault("Pictures of another size than their segments", what)])
        labels, crowd = np.array(picture.labels, np.int64), np.array(picture.crowd, bool)
        return Examined(replace(blank, segments=frames.stand_up(segments), labels=labels, crowd=crowd), [])


def _read(path: Path, root: Path, reading: FolderReading) -> tuple[Vocabulary, list[PanopticPicture]]:
    content = with_plain_ids(read_json(path, COCO_SHAPE))
    categories = sorted(entries_of(path, content, "categories", {"id": Id, "name": str}), key=in_order_of_id)
    label_of = {entry["id"]: label for label, entry in enumerate(categories)}
    images = entries_of(path, content, "images", {"id": Id, "file_name": str})
    names = {entry["id"]: entry["file_name"] for entry in images}
    entries = entries_of(path, content, "annotations", OF_AN_ANNOTATION)
    check_known("images", (entry["image_id"] for entry in entries), names, path)
    pngs = _folder_of_segments(path, root, entries[0]["file_name"])
    finder = PictureFinder(folders_of(root, path, reading) or picture_folders(root, reading))
    pictures = []
    for entry in entries:
        name = names[entry["image_id"]]
        found = finder.find(name) or finder.folders[0] / name
        ids, labels, crowd = _parts(entry, label_of, path)
        pictures.append(PanopticPicture(name, found, pngs / entry["file_name"], path, ids, labels, crowd))
    return vocabulary_of(categories, path), sorted(pictures, key=lambda picture: picture.name)


def _parts(
    entry: dict, label_of: dict[object, int], path: Path
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
    ids, labels, crowd = [], [], []
    for part in entry["segments_info"]:
        plain = with_plain_ids({"annotations": [part]})["annotations"][0]
        if not isinstance(plain, dict) or type(plain.get("id")) is not int or not 0 < plain["id"] < 256**3:
            raise ValueError(
                f"The file {str(path)!r}: {entry['file_name']!r} has the segment {str(part)[:80]}; expected an id from "
                "1 to 16777215."
            )
        if plain.get("category_id") not in label_of:
            raise ValueError(
                f"The file {str(path)!r}: {entry['file_name']!r} has a segment of category {plain.get('category_id')}, "
                "which it does not list. Add it to 'categories'."
            )
        if plain["id"] in ids:
            raise ValueError(f"The file {str(path)!r}: {entry['file_name']!r} has two segments {plain['id']}.")
        ids.append(plain["id"])
        labels.append(label_of[plain["category_id"]])
        try:
            crowd.append(truth(plain.get("iscrowd")))
        except ValueError as error:
            raise ValueError(
                f"The file {str(path)!r}: the iscrowd of a segment of {entry['file_name']!r}: {error}"
            ) from None
    return tuple(ids), tuple(labels), tuple(crowd)


def _folder_of_segments(path: Path, root: Path, first: str) -> Path:
    """Where the PNGs of a json are."""
    candidates = [
        path.parent / path.stem,
        root / path.stem,
        root / "panoptic",
        path.parent / "panoptic",
        root / "annotations",
        path.parent,
    ]
    found = next((folder for folder in candidates if (folder / first).is_file()), None)
    if found is None:
        raise ValueError(
            f"The segments of {str(path)!r} are not there: {first!r} is not in {str(candidates[0])!r}. Put its PNGs "
            "into a folder of its name, beside it."
        )
    return found


def _segments(picture: PanopticPicture) -> Int[np.ndarray, "H W"]:
    ids = np.array(picture.ids, np.int32)
    return number_segments(read_segment_ids(picture.png), ids, picture.png, picture.source)
