"""Where the files of a data set in one of COCO's formats are."""

from pathlib import Path

from wordmask.data.files import first_few, json_files
from wordmask.data.own_places import LEARNT, MEASURED, part_of_name, parts_of, picture_folders
from wordmask.data.reading import FolderReading
from wordmask.writing import expanded

USUAL = "annotations.json"
ANNOTATION_FOLDERS = (".", "annotations")
KEYS = (b'"images"', b'"annotations"')  # of COCO's formats
SEGMENTS = b'"segments_info"'  # of the panoptic one


def coco_jsons(root: Path, *, panoptic: bool = False) -> list[Path]:
    """The files of a folder that look like COCO's detection format, or like its panoptic one."""
    found = []
    for folder in ANNOTATION_FOLDERS:
        if (root / folder).is_dir():
            found += [path for path in json_files(root / folder) if _is_coco(path, panoptic=panoptic)]
    return found


def _is_coco(path: Path, *, panoptic: bool) -> bool:
    text = path.read_bytes()
    return all(key in text for key in KEYS) and (SEGMENTS in text) == panoptic


def chosen_jsons(root: Path, reading: FolderReading, *, panoptic: bool = False) -> list[Path]:
    """The json to read; or two, the second of which is for measuring."""
    if reading.annotations is not None:
        return [root / expanded(reading.annotations)]
    found = coco_jsons(root, panoptic=panoptic) or json_files(root)
    parts = parts_of(root)
    if not found and parts is not None:
        return [chosen_jsons(part, reading, panoptic=panoptic)[0] for part in parts]
    instances = [path for path in found if path.name.startswith("instances")]
    chosen = [path for path in found if path.name == USUAL] or (instances if len(instances) > 1 else found)
    learnt, measured = _of_part(chosen, "train"), _of_part(chosen, "val")
    if len(learnt) == len(measured) == 1:
        return [learnt[0], measured[0]]
    if len(chosen) != 1:
        names = first_few([path.relative_to(root).as_posix() for path in found]) if found else "none"
        raise ValueError(
            f"{str(root)!r} has these json files: {names}. Expected one, or one called {USUAL}; or say which: "
            "annotations=FILE."
        )
    return chosen


def _of_part(files: list[Path], part: str) -> list[Path]:
    return [path for path in files if part_of_name(path.stem) == part]


def folders_of(root: Path, file: Path, reading: FolderReading) -> list[Path]:
    """Where to look for the pictures of a json, and of its part first."""
    folders = picture_folders(root, reading)
    if reading.images is not None:
        return folders
    if file.parent.name.lower() in (*LEARNT, *MEASURED):
        folders = [file.parent / "images", file.parent, *folders]
    part = part_of_name(file.stem)
    inside = parts_of(folders[0])
    if part is not None and inside is not None:
        folders.insert(0, inside[0] if part == "train" else inside[1])
    return [folder for folder in folders if folder.is_dir()]
