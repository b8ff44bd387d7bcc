"""One's own pictures as labelme has them: a json for each."""

import base64
import binascii
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from wordmask.data.files import files_in, folder_of, lines_of, read_json
from wordmask.data.labelled import Fault
from wordmask.data.outlined import UNUSABLE, Annotation, ListedPicture, OutlinedFolder
from wordmask.data.outlines import Box, MaskAt
from wordmask.data.own_places import picture_folders
from wordmask.data.picture_files import PictureFinder
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.vocabulary import Vocabulary

KEYS = (b'"shapes"', b'"imagePath"')
LABELME_SHAPE = "{'shapes': [{'label', 'points', 'shape_type'}, …], 'imagePath'}"
FOLDERS = (".", "annotations", "labels", "images", "json")
LISTS = ("names.txt", "labels.txt")
IGNORED, GROUND = "__ignore__", "_background_"  # labelme's own names
CORNERS = 64  # of a circle
MISSING = "Pictures that a json names and that are not there"


class LabelmeFolder(OutlinedFolder):
    """One's own pictures as labelme has them: a json for each, which names it, and outlines things.

    The jsons are in root, or in root/annotations, labels, images or json; pictures beside them, or in root/images.
    Classes are in the order of names.txt or labels.txt, otherwise in that of the alphabet.

    Raises:
        ValueError: There is no such json, or nothing is labelled.
    """

    def __init__(self, root: str | Path, reading: FolderReading = AS_IT_SAYS):
        root = folder_of(root)
        files = labelme_files(root)
        contents = [read_json(path, LABELME_SHAPE) for path in files]
        vocabulary, listed = _vocabulary_of(root, contents)
        finder_of = {folder: PictureFinder([folder, *picture_folders(root, reading)]) for folder in _folders(files)}
        pictures = [
            _listed(path, content, vocabulary, finder_of[path.parent])
            for path, content in zip(files, contents, strict=True)
        ]
        super().__init__(root, vocabulary=vocabulary, pictures=pictures, reading=reading, missing=MISSING)
        if not listed:
            self.notes.append("there is no names.txt or labels.txt: classes are in the order of the alphabet")


def labelme_files(root: Path) -> list[Path]:
    """The files of a folder that look like labelme's."""
    found = []
    for name in FOLDERS:
        if (root / name).is_dir():
            found += [path for path in files_in(root / name, (".json",)) if _is_labelme(path)]
    return found


def _is_labelme(path: Path) -> bool:
    text = path.read_bytes()
    return all(key in text for key in KEYS)


def _folders(files: list[Path]) -> list[Path]:
    return list(dict.fromkeys(path.parent for path in files))


def _vocabulary_of(root: Path, contents: list[dict]) -> tuple[Vocabulary, bool]:
    """The classes, and whether a file lists them."""
    for name in LISTS:
        if (root / name).is_file():
            return Vocabulary.of([_plain(line) for line in lines_of(root / name) if line != IGNORED]), True
    found = {_plain(shape["label"]) for content in contents for shape in _shapes(content)}
    if not found - {IGNORED}:
        raise ValueError(f"Nothing is labelled in the files of {str(root)!r}. Expected {LABELME_SHAPE}.")
    return Vocabulary.of(sorted(found - {IGNORED})), False


def _plain(label: str) -> str:
    return "background" if label.strip() == GROUND else label.strip()


def _shapes(content: dict) -> list[dict]:
    shapes = content.get("shapes")
    entries = shapes if isinstance(shapes, list) else []
    return [shape for shape in entries if isinstance(shape, dict) and isinstance(shape.get("label"), str)]


def _listed(path: Path, content: dict, vocabulary: Vocabulary, finder: PictureFinder) -> ListedPicture:
    name, faults = str(content.get("imagePath") or f"{path.stem}.jpg"), []
    try:
        found = finder.find(name)
    except ValueError as error:
        found = None
        faults.append(Fault("Pictures that may be several", str(error)))
    annotations = []
    for number, shape in enumerate(_shapes(content), 1):
        if _plain(shape["label"]) != IGNORED:
            one = _annotation(number, shape, vocabulary, path)
            (faults if isinstance(one, Fault) else annotations).append(one)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return ListedPicture(
        name, found or path.parent / name, path, annotations, height=height, width=width, faults=faults
    )


def _annotation(number: int, shape: dict, vocabulary: Vocabulary, path: Path) -> Annotation | Fault:
    name = _plain(shape["label"])
    if name not in vocabulary.names:
        return Fault(UNUSABLE, f"Shape {number} in {str(path)!r} is called {name!r}, which the list of names lacks.")
    try:
        outline = _outline(shape)
    except (ValueError, TypeError, binascii.Error) as error:
        return Fault(UNUSABLE, f"Shape {number} in {str(path)!r}: {error}")
    return Annotation(number, vocabulary.names.index(name), outline, group=shape.get("group_id"))


def _outline(shape: dict) -> object:
    kind = shape.get("shape_type") or "polygon"
    points = np.array(shape.get("points"), float).reshape(-1, 2)
    if kind == "polygon":
        return [points.ravel().tolist()]
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return Box((left, top, right, bottom))
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points.tolist())
        angles = np.arange(CORNERS) * 2 * math.pi / CORNERS
        return [(points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().tolist()]
    if kind == "mask" and len(points) == 2:
        return _mask(shape.get("mask"), points[0])
    raise ValueError(f"it is a {kind} of {len(points)} points; expected a polygon, a circle or a mask.")


def _mask(text: object, corner: np.ndarray) -> MaskAt:
    """A mask that labelme's models drew."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text)))) as image:
            mask = np.array(image.convert("L")) > 0
    except OSError:
        raise ValueError("its mask is no picture. Export it again.") from None
    left, top = np.floor(corner).astype(int).tolist()
    return MaskAt(mask, left, top)
