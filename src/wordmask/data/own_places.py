"""Where the parts of one's own folder are: pictures, labels, names of classes, and which part is for measuring."""

import json
from collections.abc import Iterable
from pathlib import Path

from wordmask.data.files import folder_of
from wordmask.data.reading import FolderReading
from wordmask.vocabulary import Vocabulary

PICTURE_FOLDERS = ("images", "JPEGImages", "img_dir", "imgs")
LABEL_FOLDERS = ("labels", "masks", "SegmentationClass", "annotations", "ann_dir")
LEARNT, MEASURED = ("train", "training"), ("val", "valid", "validation")  # what parts are called, in any capitals
CLASSES = "classes.json"  # of `wordmask batch`: what its labels mean
JOB = Path(".wordmask", "job.json")  # likewise: what it was asked


def picture_folders(root: Path, reading: FolderReading) -> list[Path]:
    """Where to look for pictures: where a person says, in the folder, or where `wordmask batch` had them from."""
    if reading.images is not None:
        return [folder_of(reading.images)]
    inside = [root / name for name in PICTURE_FOLDERS if (root / name).is_dir()]
    given = [folder for folder in (batch_input(root), batch_input(root.parent)) if folder is not None]
    return [*inside, root, *given]


def batch_input(output: Path) -> Path | None:
    """The folder of pictures that `wordmask batch` labelled into this one, if it is here."""
    try:
        job = json.loads((output / JOB).read_text(encoding="utf-8"))
        folder = Path(job["input"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() else None


def is_batch_output(root: Path) -> bool:
    return (root / JOB).is_file() or (root / CLASSES).is_file()


def parts_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders inside one that are for learning and for measuring, if it has both."""
    learnt, measured = _inside(folder, LEARNT), _inside(folder, MEASURED)
    return (learnt, measured) if learnt and measured else None


def part_of_name(name: str) -> str | None:
    """Which part a file's name speaks of: "train" or "val"; None if of neither."""
    words = name.lower().replace("-", "_").replace(".", "_").split("_")
    for part, spellings in (("train", LEARNT), ("val", MEASURED)):
        if any(word.rstrip("0123456789") in spellings for word in words):
            return part
    return None


def _inside(folder: Path, names: Iterable[str]) -> Path | None:
    if not folder.is_dir():
        return None
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def with_synonyms(vocabulary: Vocabulary, root: Path) -> Vocabulary:
    """The classes as `wordmask batch` was given them, with synonyms and kinds, if these are the same."""
    for folder in (root, root.parent):
        if (folder / CLASSES).is_file() and is_batch_output(folder):
            known = Vocabulary.from_file(folder / CLASSES, counted=True)
            return known if known.names == vocabulary.names else vocabulary
    return vocabulary
