"""Real data where its users have it, without a conversion step: the published COCO sets, and a person's own folder.

`CocoStuff` and `CocoPanoptic` read what the two papers train on; `open_folder` reads one's own pictures, labelled by
PNGs (`LabelledFolder`) or by a json in COCO's format (`CocoFolder`). What file names and the json alone tell is checked
when a set is opened; `check()` looks into the files. Pictures and labels are decoded when they are asked for.
"""

from pathlib import Path

from wordmask.data.coco_folder import CocoFolder
from wordmask.data.coco_panoptic import CocoPanoptic
from wordmask.data.files import folder_of, json_files
from wordmask.data.label_maps import CocoStuff, LabelledFolder

__all__ = ["CocoFolder", "CocoPanoptic", "CocoStuff", "LabelledFolder", "open_folder"]

LABELLED_LAYOUT = "images/* with labels/*.png under the same names, and names.txt with one class a line"
COCO_LAYOUT = "images/* and one *.json in COCO's detection format, with polygons or run lengths"


def open_folder(root: str | Path) -> LabelledFolder | CocoFolder:
    """Open one's own data: what lies in the folder says in which of the two formats it is.

    Raises:
        ValueError: It is in neither, or what the format asks for is missing.
    """
    folder = folder_of(root)
    has_names, has_labels = (folder / "names.txt").is_file(), (folder / "labels").is_dir()
    if (has_names and has_labels) or ((has_names or has_labels) and not json_files(folder)):
        return LabelledFolder(folder)
    if json_files(folder):
        return CocoFolder(folder)
    raise ValueError(
        f"The folder {str(root)!r} holds no data set. Expected either {LABELLED_LAYOUT}; or {COCO_LAYOUT}."
    )
