"""What a folder of one's own may look like: one table. What lies in it says which it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wordmask.data.coco_folder import CocoFolder
from wordmask.data.coco_places import coco_jsons
from wordmask.data.colours import find_table
from wordmask.data.files import files_in, folder_of, json_files
from wordmask.data.labelled_folder import CLASS_NAMES, LISTS, NAMES, LabelledFolder, has_pngs
from wordmask.data.labelme_folder import LabelmeFolder, labelme_files
from wordmask.data.own_folder import OwnFolder
from wordmask.data.own_places import CLASSES, LABEL_FOLDERS, is_batch_output, parts_of
from wordmask.data.panoptic_folder import PanopticFolder
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.data.yolo_folder import YoloFolder, find_list, find_yaml, has_lines

YOLO_OUTPUT = "yolo"  # where `wordmask batch` writes this format


@dataclass(frozen=True)
class Layout:
    """A way to label pictures.

    Args:
        description: What it looks like.
        is_here: Whether a folder looks so.
        open: Reads it.
    """

    description: str
    is_here: Callable[[Path], bool]
    open: Callable[[Path, FolderReading], OwnFolder]


def _has_label_pictures(root: Path) -> bool:
    named = (root / NAMES).is_file() or (root / CLASS_NAMES).is_file() or find_table(root) is not None
    if not named and not (is_batch_output(root) and (root / CLASSES).is_file()) and not (root / LISTS).is_dir():
        return False
    return any(has_pngs(root / folder) for folder in LABEL_FOLDERS)


def _is_coco(root: Path) -> bool:
    parts = parts_of(root)
    return bool(coco_jsons(root)) or (parts is not None and all(coco_jsons(part) for part in parts))


def _is_panoptic(root: Path) -> bool:
    return bool(coco_jsons(root, panoptic=True))


def _is_yolo(root: Path) -> bool:
    if find_yaml(root) is not None or _is_yolo_of_batch(root):
        return True
    return has_lines(root) and find_list(root) is not None


def _is_yolo_of_batch(root: Path) -> bool:
    return is_batch_output(root) and find_yaml(root / YOLO_OUTPUT) is not None


def _open_yolo(root: Path, reading: FolderReading) -> OwnFolder:
    return YoloFolder(root / YOLO_OUTPUT if _is_yolo_of_batch(root) else root, reading)


LAYOUTS: Mapping[str, Layout] = {
    "labels": Layout(
        "images/* with labels/*.png under the same names, and names.txt with one class a line",
        _has_label_pictures,
        LabelledFolder,
    ),
    "coco": Layout(
        "images/* and one *.json in COCO's detection format, with polygons or run lengths", _is_coco, CocoFolder
    ),
    "coco-panoptic": Layout(
        "images/*, a json in COCO's panoptic format, and its PNGs in a folder of its name",
        _is_panoptic,
        PanopticFolder,
    ),
    "yolo": Layout("data.yaml, images/* and labels/*.txt, as Ultralytics has them", _is_yolo, _open_yolo),
    "labelme": Layout(
        "a json for each picture, as labelme writes it", lambda root: bool(labelme_files(root)), LabelmeFolder
    ),
}


def open_folder(root: str | Path, reading: FolderReading = AS_IT_SAYS) -> OwnFolder:
    """Open one's own data: what lies in the folder says in which format it is.

    Raises:
        ValueError: It is in none, or may be in several; or what the format asks for is missing.
    """
    folder = folder_of(root)
    if reading.format is not None:
        if reading.format not in LAYOUTS:
            raise ValueError(f"format came as {reading.format!r}; expected {', '.join(LAYOUTS)}.")
        return LAYOUTS[reading.format].open(folder, reading)
    if reading.annotations is not None:
        here = [name for name in ("coco", "coco-panoptic") if LAYOUTS[name].is_here(folder)]
        return LAYOUTS["coco-panoptic" if here == ["coco-panoptic"] else "coco"].open(folder, reading)
    fitting = [name for name, layout in LAYOUTS.items() if layout.is_here(folder)]
    if len(fitting) == 1:
        return LAYOUTS[fitting[0]].open(folder, reading)
    if fitting:
        listed = "\n".join(f"  format={name}: {LAYOUTS[name].description}" for name in fitting)
        raise ValueError(
            f"The folder {str(root)!r} holds labels in {len(fitting)} formats. Say which are right:\n{listed}"
        )
    return _nearest(folder, root, reading)


def _nearest(folder: Path, root: str | Path, reading: FolderReading) -> OwnFolder:
    """Open what a folder that fits nothing was probably meant for, to say what is missing there; or say what there
    is."""
    known = _of_other_tools(folder)
    if known is not None:
        raise ValueError(f"The folder {str(root)!r} {known}")
    if (folder / NAMES).is_file() or has_pngs(folder / "labels"):
        return LabelledFolder(folder, reading)
    if json_files(folder):
        return CocoFolder(folder, reading)
    if has_lines(folder):
        return _open_yolo(folder, reading)
    layouts = "; or ".join(layout.description for layout in LAYOUTS.values())
    raise ValueError(f"The folder {str(root)!r} holds no data set. Expected either {layouts}.")


def _of_other_tools(folder: Path) -> str | None:
    """What a folder is that can't be read, and what makes of it what can."""
    if (folder / "masks.parquet").is_file() and is_batch_output(folder):
        return "has masks.parquet alone. Run the same wordmask batch into another folder with --format coco."
    if is_batch_output(folder):
        return (
            "holds no labels that can be learnt from. Run the same wordmask batch into another folder with --format "
            "labels or --format coco."
        )
    if (folder / "Annotations").is_dir() and files_in(folder / "Annotations", (".xml",)):
        return (
            "has VOC's boxes (Annotations/*.xml) and no SegmentationClass/*.png: boxes are no outlines. "
            "supervision converts them, sv.DetectionDataset.from_pascal_voc(…).as_coco(…); then add boxes=filled."
        )
    if files_in(folder, (".xml",)):
        return "has CVAT's own annotations.xml. Export it from CVAT as COCO 1.0, or as Segmentation mask 1.1."
    return None
