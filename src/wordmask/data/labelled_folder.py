"""One's own pictures, each with a PNG that says the class of every pixel."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from wordmask.data.colours import find_table, read_table
from wordmask.data.files import first_few, first_folder, folder_of, lines_of
from wordmask.data.label_maps import (
    NO_CLASS,
    UNKNOWN,
    UNLABELLED_8,
    UNLABELLED_16,
    UNUSABLE,
    Coding,
    LabelledPath,
    LabelMaps,
    in_order,
)
from wordmask.data.labelled import Fault
from wordmask.data.own_places import (
    CLASSES,
    LABEL_FOLDERS,
    PICTURE_FOLDERS,
    is_batch_output,
    parts_of,
    picture_folders,
)
from wordmask.data.picture_files import pictures_below
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.data.survey import ClassCounts
from wordmask.vocabulary import Vocabulary
from wordmask.words import WordClass

NAMES = "names.txt"
CLASS_NAMES = "class_names.txt"  # of labelme's own conversion
LISTS = Path("ImageSets", "Segmentation")  # VOC's lists of the pictures of each part
LIKE_VOC = "VOC's own 20 classes and background"
# how tools call a picture's label: a.png of a.jpg, a.jpg.png, a_mask.png
NAMED = ("{stem}.png", "{name}.png", "{stem}_mask.png")
OTHER_VALUES = (
    "Other values may be right: with unlabelled=VALUE this one is no class; with reduce_zero_label=true 0 is none, and "
    "1 is the first; values=0,255 says what those of the classes are."
)


class LabelledFolder(LabelMaps):
    """One's own pictures, each with a PNG that says the class of every pixel.

    root/images/*; root/labels/*.png under the same names, with one channel of 8 or 16 bits or a palette, whose values
    count the lines of root/names.txt from 0; 255 (of 16 bits: 65535) is unlabelled. names.txt has one class a line:
    "snow drift, snow [stuff]". Beside it colours.txt may say what colours mean. Also as VOC, and what `wordmask batch`
    writes as labels. Folders train and val inside images and labels, or VOC's lists, say what is for measuring.

    Raises:
        ValueError: A folder or names.txt is missing, or there is no picture.
    """

    hints: ClassVar[Mapping[str, str]] = {UNUSABLE: OTHER_VALUES}

    def __init__(self, root: str | Path, reading: FolderReading = AS_IT_SAYS):
        root = folder_of(root)
        self.label_folder = first_folder(root, _with_labels_first(root), "labels")
        table, names = find_table(root), _names_of(root)
        colours, vocabulary = (None, names) if table is None else read_table(table, names)
        if vocabulary is None:
            vocabulary = _voc_classes() if (root / LISTS).is_dir() else Vocabulary.from_file(root / NAMES, counted=True)
        where = LIKE_VOC if vocabulary.title == LIKE_VOC else NAMES
        codings = {bits: coding_of(len(vocabulary), bits, where, reading) for bits in (8, 16)}
        pairs, self.alone = _pairs(root, self.label_folder, reading)
        super().__init__(root, vocabulary=vocabulary, pairs=pairs, codings=codings, reading=reading, colours=colours)
        if where == LIKE_VOC:
            self.notes.append(f"there is no {NAMES}: the values are read as {LIKE_VOC}, which is 0")
        self.by_itself = _for_measuring(root, self.pairs, self.label_folder)

    def structure(self) -> list[Fault]:
        """Pictures that would share a label, and labels without a picture."""
        faults, seen = [], {}
        for picture, label in self.pairs:
            if seen.setdefault(label, picture) is not picture:
                faults.append(
                    Fault(
                        "Pictures that would share a label; rename one of each", f"{seen[label].name}, {picture.name}"
                    )
                )
        kind = f"Labels without a picture in {str(self._pictures_at())!r}; add it, or take them away"
        faults += [Fault(kind, path.name) for path in self.alone]
        return faults

    def doubts(self, counts: ClassCounts) -> list[Fault]:
        """Masks of 0 and 255, where 255 would be unlabelled."""
        chosen = self.reading
        said = chosen.unlabelled is not None or chosen.in_order is not None or chosen.reduce_zero_label
        if said or self.colours is not None or counts.pixels[1:].any() or not (counts.pixels[0] and counts.unlabelled):
            return super().doubts(counts)
        kind = f"Labels that hold nothing but 0, which is {self.vocabulary.names[0]!r}, and {UNLABELLED_8}, unlabelled"
        second = repr(self.vocabulary.names[1]) if len(self.vocabulary) > 1 else "a class, the second line of names.txt"
        return [
            Fault(
                kind,
                f"If {UNLABELLED_8} is {second}, add values=0,{UNLABELLED_8}; if it is unlabelled indeed, add "
                f"unlabelled={UNLABELLED_8}.",
            )
        ]

    def suspicions(self, counts: ClassCounts) -> list[str]:
        """Whether names seem to be shifted: the last never occurs, the first everywhere."""
        last = len(self.vocabulary) - 1 - (1 if self.reading.background else 0)
        chosen = self.reading
        if chosen.in_order is not None or chosen.reduce_zero_label or self.colours is not None or last < 2:
            return []
        if counts.pixels[last] or counts.pictures[0] < len(self.pairs) or not counts.pixels[last - 1]:
            return []
        first, final = repr(self.vocabulary.names[0]), repr(self.vocabulary.names[last])
        return [
            f"{final}, the last name, never occurs, and 0, {first}, is in every picture: if 0 is no class, and 1 is "
            f"{first}, add reduce_zero_label=true; if it is the background, put that first into {NAMES}"
        ]

    def _pictures_at(self) -> Path:
        return self.pairs[0].picture.parent if self.pairs else self.root / PICTURE_FOLDERS[0]


def coding_of(classes: int, bits: int, where: str, reading: FolderReading) -> Coding:
    """What the values of one's own label pictures mean.

    Raises:
        ValueError: Another number of values than of classes was given, or one that doesn't fit.
    """
    if reading.in_order is not None:
        coding = _as_listed(reading.in_order, classes, bits, where)
    else:
        coding = in_order(classes, bits, where, first=int(reading.reduce_zero_label))
    nothing = reading.no_class
    if nothing is not None and nothing < 2**bits:
        label_of = coding.label_of.copy()
        label_of[nothing] = NO_CLASS
        coding = Coding(label_of, f"{coding.expected}; and {nothing} is unlabelled, as was asked")
    return coding


def _as_listed(values: Sequence[int], classes: int, bits: int, where: str) -> Coding:
    if len(values) != classes or len(set(values)) != classes:
        raise ValueError(
            f"values came with {len(values)} numbers; expected {classes} different ones, one for each class of {where}."
        )
    label_of = np.full(2**bits, UNKNOWN, np.int64)
    unlabelled = UNLABELLED_8 if bits == 8 else UNLABELLED_16
    label_of[unlabelled] = NO_CLASS
    for label, value in enumerate(values):
        if value < 2**bits:
            label_of[value] = label
    nothing = "" if unlabelled in values else f", or {unlabelled} where there is none"
    return Coding(label_of, f"{first_few(values)}, as values= says{nothing}")


def _with_labels_first(root: Path) -> tuple[str, ...]:
    """Folders of labels, those with PNGs first: YOLO's lie in labels, too."""
    return tuple(sorted(LABEL_FOLDERS, key=lambda name: not has_pngs(root / name)))


def has_pngs(folder: Path) -> bool:
    """Whether there is a PNG in a folder, or in a part of it."""
    return folder.is_dir() and next(_pngs(folder), None) is not None


def _pngs(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() == ".png" and not path.name.startswith(".") and path.is_file():
            yield path


def _names_of(root: Path) -> Vocabulary | None:
    """The classes as a file of the folder lists them."""
    if (root / NAMES).is_file():
        return Vocabulary.from_file(root / NAMES, counted=True)
    if is_batch_output(root) and (root / CLASSES).is_file():
        return Vocabulary.from_file(root / CLASSES, counted=True)
    if (root / CLASS_NAMES).is_file():
        names = [line.strip("_") for line in lines_of(root / CLASS_NAMES) if line != "__ignore__"]
        return Vocabulary.of(names)
    return None


def _voc_classes() -> Vocabulary:
    background = WordClass(("background",), thing=False)
    return Vocabulary((background, *Vocabulary.builtin("err-seg/pascal-voc-20")), title=LIKE_VOC)


def _pairs(root: Path, labels: Path, reading: FolderReading) -> tuple[list[LabelledPath], list[Path]]:
    """Every picture with its label, in the order of their paths; and the labels without a picture.

    Of what `wordmask batch` labelled, and of VOC, only what has a label is read.
    """
    folders = [folder for folder in picture_folders(root, reading) if folder != root]
    if not folders:
        raise ValueError(
            f"{str(root)!r} has no folder of pictures; expected {PICTURE_FOLDERS[0]} in it, or say where they are: "
            "images=FOLDER."
        )
    folder = next((folder for folder in folders if pictures_below(folder)), folders[0])
    pictures = [path for path in pictures_below(folder) if not _is_for_testing(path.relative_to(folder))]
    if not pictures:
        raise ValueError(f"There is no picture in {str(folder)!r}; expected *.jpg or *.png there.")
    there = {path.relative_to(labels).as_posix() for path in _pngs(labels)}
    pairs = []
    for picture in pictures:
        place = picture.relative_to(folder)
        names = [place.with_name(name.format(stem=place.stem, name=place.name)).as_posix() for name in NAMED]
        pairs.append(LabelledPath(picture, labels / next((name for name in names if name in there), names[0])))
    if is_batch_output(root) or (root / LISTS).is_dir():
        pairs = [pair for pair in pairs if pair.label.is_file()]
    used = {pair.label.relative_to(labels).as_posix() for pair in pairs}
    alone = sorted(name for name in there - used if not _is_for_testing(Path(name)))
    if not pairs:
        raise ValueError(
            f"None of the {len(pictures)} pictures in {str(folder)!r} has a label in {str(labels)!r}. "
            "Say where the pictures are: images=FOLDER."
        )
    return pairs, [labels / name for name in alone]


def _is_for_testing(place: Path) -> bool:
    return len(place.parts) > 1 and place.parts[0].lower() in ("test", "testing")


def _for_measuring(root: Path, pairs: Sequence[LabelledPath], labels: Path) -> list[int] | None:
    """Places of the pictures that VOC's lists, or the folders that they lie in, keep for measuring."""
    lists = [root / LISTS / f"{name}.txt" for name in ("train", "val")]
    if all(path.is_file() for path in lists):
        listed = set(lines_of(lists[1]))
        return [place for place, pair in enumerate(pairs) if pair.label.stem in listed]
    parts = parts_of(labels)
    if parts is None:
        return None
    return [place for place, pair in enumerate(pairs) if pair.label.is_relative_to(parts[1])]
