"""The data sets that scores are measured on: one table, a row for each, read where users have them, as they are
published."""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wordmask.data.ade20k import Ade20k150, Ade20k847, Ade20kPanoptic
from wordmask.data.cityscapes import Cityscapes, CityscapesPanoptic
from wordmask.data.coco_panoptic import CocoPanoptic
from wordmask.data.files import SHOWN
from wordmask.data.label_maps import CocoStuff
from wordmask.data.labelled import DataSet
from wordmask.data.pascal import PascalContext59, PascalContext459, PascalVoc
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.writing import expanded

if TYPE_CHECKING:
    from wordmask.settings import Task

# environment variables that name the folder of data sets; the first that is set
ROOTS = ("WORDMASK_DATA", "DETECTRON2_DATASETS")
USUAL = "datasets"  # where they are if nobody says, as in detectron2
ALL_TASKS: "tuple[Task, ...]" = ("panoptic", "instance", "semantic")

ADE = "ADE20K's scene parsing challenge: http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
ADE_INSTANCES = "and http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar inside it"
ADE_FULL = "the full ADE20K, 2021_17_01, for which one registers: https://ade20k.csail.mit.edu"
VOC_2010 = "VOC 2010: http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar"
CONTEXT = "trainval_merged.json inside it: https://codalabuser.blob.core.windows.net/public/trainval_merged.json"
CONTEXT_FULL = (
    "the labels, unpacked to trainval inside it: https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz"
)
VOC_2012 = "VOC 2012: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
COCO_STUFF = (
    "COCO's pictures, http://images.cocodataset.org/zips/val2017.zip, and beside them "
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip"
)
COCO_PANOPTIC = (
    "COCO's pictures, http://images.cocodataset.org/zips/val2017.zip, and beside them "
    "http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip, whose panoptic_val2017.zip is "
    "unpacked too"
)
CITYSCAPES = (
    "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, for which one registers: "
    "https://www.cityscapes-dataset.com"
)

COCO_FOLDERS = ("coco", "coco-stuff", "coco_stuff164k", "cocostuff")
ADE_FOLDERS = ("ADEChallengeData2016", "ade/ADEChallengeData2016", "ade20k/ADEChallengeData2016")
VOC_2010_FOLDERS, VOC_2012_FOLDERS = ("VOCdevkit/VOC2010", "VOC2010"), ("VOCdevkit/VOC2012", "VOC2012")


@dataclass(frozen=True)
class Split:
    """A data set that scores are measured on.

    Args:
        title: What papers call it.
        pictures: How many it has.
        open: Reads it from its folder.
        folders: Where it is below the folder of data sets, the first that is there; empty if it is generated.
        get: How one comes by it.
        tasks: What its labels allow to score.
        named: The names of its pictures' files without their ending, where a rule says them.
        unseen: Which classes training never labels, (T,) bool, where that is known.
        folded: Labels from this on count as one class, this one: a background that has many names.
    """

    title: str
    pictures: int
    open: Callable[[Path], DataSet]
    folders: tuple[str, ...] = ()
    get: str = ""
    tasks: "tuple[Task, ...]" = ("semantic",)
    named: Callable[[], list[str]] | None = None
    unseen: Callable[[], np.ndarray] | None = None
    folded: int | None = None


def _ade_names() -> list[str]:
    return [f"ADE_val_{number:08}" for number in range(1, 2001)]


def _shapeland(vocabulary: str, count: int) -> Split:
    def generate(root: Path) -> Shapeland:
        return Shapeland(vocabulary, "test", count)

    title, unseen = vocabulary.capitalize().replace("-", " "), partial(unseen_classes, vocabulary)
    return Split(title, count, generate, get="generated", tasks=ALL_TASKS, unseen=unseen)


SPLITS: Mapping[str, Split] = {
    "a-150": Split("A-150", 2000, Ade20k150, ADE_FOLDERS, ADE, named=_ade_names),
    "a-847": Split(
        "A-847", 2000, Ade20k847, ("ADE20K_2021_17_01", "ade20k_full/ADE20K_2021_17_01"), ADE_FULL, named=_ade_names
    ),
    "pc-59": Split("PC-59", 5104, PascalContext59, VOC_2010_FOLDERS, f"{VOC_2010}, and {CONTEXT}"),
    "pc-459": Split("PC-459", 5104, PascalContext459, VOC_2010_FOLDERS, f"{VOC_2010}, and {CONTEXT_FULL}"),
    "pas-20": Split("PAS-20", 1449, PascalVoc, VOC_2012_FOLDERS, VOC_2012),
    "pas-20b": Split("PAS-20b", 1449, partial(PascalVoc, background=True), VOC_2012_FOLDERS, VOC_2012, folded=20),
    "coco-stuff-171": Split("COCO-Stuff-171", 5000, partial(CocoStuff, split="val2017"), COCO_FOLDERS, COCO_STUFF),
    "coco-panoptic-133": Split(
        "COCO Panoptic-133",
        5000,
        partial(CocoPanoptic, split="val2017"),
        COCO_FOLDERS,
        COCO_PANOPTIC,
        tasks=ALL_TASKS,
    ),
    "ade20k-panoptic": Split(
        "ADE20K panoptic",
        2000,
        Ade20kPanoptic,
        ADE_FOLDERS,
        f"{ADE}, {ADE_INSTANCES}",
        tasks=ALL_TASKS,
        named=_ade_names,
    ),
    "cityscapes-19": Split("Cityscapes", 500, Cityscapes, ("cityscapes", "Cityscapes"), CITYSCAPES),
    "cityscapes-panoptic": Split(
        "Cityscapes panoptic", 500, CityscapesPanoptic, ("cityscapes", "Cityscapes"), CITYSCAPES, tasks=ALL_TASKS
    ),
    "shapeland-150": _shapeland("shapeland-150", 200),
    "shapeland-847": _shapeland("shapeland-847", 100),
}


def find_split(name: str) -> str:
    """Return how the table spells a split's name.

    Raises:
        ValueError: It has none of this name; the message has the near ones.
    """
    spelled = name.strip().lower().replace("_", "-").replace(" ", "-")
    if spelled in SPLITS:
        return spelled
    near = difflib.get_close_matches(spelled, SPLITS, n=3, cutoff=0.5)
    raise ValueError(f"There is no split {name!r}. Did you mean {' or '.join(near)}?" if near else _all_splits(name))


def data_root(given: str | Path | None) -> Path:
    """The folder that data sets are in: the given one, or what the environment says, or `datasets`."""
    named = given or next((os.environ[name] for name in ROOTS if os.environ.get(name)), USUAL)
    return expanded(named)


def folders_of_split(name: str, root: Path) -> list[Path]:
    """Find where a split may be, below the folder of data sets; that folder may be the data set's own.

    Raises:
        ValueError: It is nowhere; the message says where it was looked for, and how to come by it.
    """
    split = SPLITS[name]
    if not split.folders:
        return [root]
    candidates = [root / folder for folder in split.folders]
    if root.resolve().name in {Path(folder).name for folder in split.folders}:
        candidates.insert(0, root)
    found = [candidate for candidate in candidates if candidate.is_dir()]
    if found:
        return found
    looked = " and ".join(repr(str(path)) for path in candidates)
    raise ValueError(
        f"{split.title} is not here: looked for {looked}. Get {split.get}. "
        "If it is elsewhere, name the folder of your data sets with "
        f"--data, or in {ROOTS[0]} or {ROOTS[1]}."
    )


def open_split(name: str, root: Path, *, partial: bool = False) -> tuple[DataSet, list[int]]:
    """Open a split, and see that all of its files are there.

    Args:
        partial: Take the pictures whose files are all there.

    Returns:
        The data set, and which of its pictures to take.

    Raises:
        ValueError: The split, or some of its files, are not there: how many, and which.
    """
    split = SPLITS[name]
    folder, data = _open_first(split, folders_of_split(name, root))
    if not split.folders:
        return data, list(range(len(data)))
    whole, missing = [], []
    for place in range(len(data)):
        absent = [path for path in data.files(place) if not _has_content(path)]
        missing += absent
        whole += [] if absent else [place]
    if partial and whole:
        return data, whole
    nowhere = split.pictures - len(data)
    if missing or nowhere > 0:
        raise ValueError(_describe_missing(split, folder, missing, data=data, nowhere=nowhere))
    return data, whole


def _open_first(split: Split, folders: list[Path]) -> tuple[Path, DataSet]:
    """Open a split in the first folder that has all of its parts; COCO's pictures may lie in one, its labels in
    another."""
    errors = []
    for folder in folders:
        try:
            return folder, split.open(folder)
        except ValueError as error:
            errors.append(error)
    raise ValueError(f"{split.title} cannot be read: {errors[0]} It is {split.get}.")


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _describe_missing(split: Split, folder: Path, missing: list[Path], *, data: DataSet, nowhere: int) -> str:
    lines = [f"{split.title} in {str(folder)!r} is not whole: it has {split.pictures} pictures."]
    if missing:
        lines.append(f"Files that are missing or empty ({len(missing)}):")
        lines += [f"  {path.relative_to(folder)}" for path in missing[:SHOWN]] + ["  …"] * (len(missing) > SHOWN)
    if nowhere > 0:
        lines.append(f"Pictures of which there is no file at all ({nowhere}){':' if split.named else '.'}")
        if split.named:
            known = {data.files(place)[0].stem for place in range(len(data))}
            names = [name for name in split.named() if name not in known]
            lines += [f"  {name}" for name in names[:SHOWN]] + ["  …"] * (len(names) > SHOWN)
    lines.append(
        f"It is {split.get}. Fetch what is missing; or add --partial, to measure what is there, which compares with "
        "no paper."
    )
    return "\n".join(lines)


def describe_splits(data: str | Path | None) -> list[str]:
    """A line for each split: its name, what papers call it, how many pictures, and where it is."""
    root, lines = data_root(data), []
    for name, split in SPLITS.items():
        try:
            where = str(folders_of_split(name, root)[0]) if split.folders else "generated"
        except ValueError:
            where = f"not in {root}: {split.folders[0]}"
        lines.append(f"{name:20} {split.title:20} {split.pictures:5} pictures  {', '.join(split.tasks):28} {where}")
    return lines


def _all_splits(name: str) -> str:
    listed = ", ".join(f"{short} ({split.title})" if split.folders else short for short, split in SPLITS.items())
    return f"There is no split {name!r}. There are {listed}."
