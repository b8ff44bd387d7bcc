"""Pictures labelled by PNGs whose values are classes: COCO-Stuff, and one's own folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt

from wordmask.data.files import Findings, compare_sizes, files_in, first_few, first_folder, folder_of, opened
from wordmask.data.labelled import LabelledPicture
from wordmask.image import read_picture
from wordmask.regions import look_up
from wordmask.sources import PICTURE_FILES
from wordmask.vocabulary import Vocabulary

UNLABELLED_8, UNLABELLED_16 = 255, 65535  # in label maps of 8 and 16 bits: no class
# where COCO-Stuff's label maps are unpacked
PUBLISHED = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")
RAW_COCO_STUFF = 182  # ids of COCO-Stuff's PNGs are below this; 171 of them are classes of the benchmark
NO_CLASS, UNKNOWN = -1, -2  # what a value in a label map may mean, besides a class
# Pillow's names of pictures with one channel; "I" is its older one for 16 bits
LABEL_MODES = ("1", "L", "P", "I;16", "I")
GREY_STEPS = {"L;2": 85, "L;4": 17}  # Pillow stretches grey of 2 and 4 bits to 0–255


@dataclass(frozen=True)
class Coding:
    """What the values of a label map mean.

    Args:
        label_of: The class of each value, or `NO_CLASS`, or `UNKNOWN`.
        expected: The same in words, for errors.
    """

    label_of: Int[np.ndarray, " V"]
    expected: str


class LabelMaps:
    """Pictures in one folder; in another, under the same names, PNGs whose values are classes. A class of a picture is
    one segment.

    Args:
        codings: What values mean in PNGs of 8 bits, of 16.
    """

    def __init__(
        self, root: Path, *, vocabulary: Vocabulary, pictures: Path, labels: Path, codings: Mapping[int, Coding]
    ):
        self.root, self.vocabulary, self.codings = root, vocabulary, codings
        self.pictures = files_in(pictures, PICTURE_FILES)
        self.labels = {path.stem: path for path in files_in(labels, (".png",))}
        self.label_folder = labels
        if not self.pictures:
            raise ValueError(
                f"There is no picture in {str(pictures)!r}; expected *.jpg or *.png there (folders inside are not "
                "read)."
            )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> LabelledPicture:
        picture = self.pictures[place]
        if picture.stem not in self.labels:
            raise ValueError(
                f"The picture {str(picture)!r} has no label; expected "
                f"{str(self.label_folder / picture.stem) + '.png'!r}."
            )
        segments, labels = read_classes(self.labels[picture.stem], self.codings)
        return LabelledPicture(read_picture(picture), segments, labels, np.zeros(len(labels), bool), str(picture))

    def files(self, place: int) -> tuple[Path, Path]:
        """Where a picture and its label should be."""
        picture = self.pictures[place]
        return picture, self.label_folder / f"{picture.stem}.png"

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; only `thorough` decodes every label and looks at its values."""
        self._find(thorough=thorough).report()

    def _find(self, *, thorough: bool) -> Findings:
        findings = Findings(self.root)
        for picture in self.pictures:
            label = self.labels.get(picture.stem)
            if label is None:
                findings.add(
                    f"Pictures without a label; expected {str(self.label_folder)!r}/<the same name>.png for each",
                    picture.name,
                )
                continue
            if not thorough or findings.attempt("Labels that cannot be used", read_classes, label, self.codings):
                compare_sizes(findings, picture, label)
        return findings


class CocoStuff(LabelMaps):
    """COCO-Stuff-164k with the 171 classes that ERR-Seg trains on, as the field lays it out.

    Pictures: root/images/train2017 or root/train2017. Labels, the first there is of:
    root/stuffthingmaps_detectron2/train2017 and root/annotations_detectron2/train2017, values 0 to 170, and 255 for
    none; and, as published, root/stuffthingmaps/train2017, root/stuffthingmaps_trainval2017/train2017 and
    root/annotations/train2017: values 0 to 181, and 255 for none, of which 171 are classes and the others are
    unlabelled.

    Raises:
        ValueError: A folder is missing, or there is no picture.
    """

    def __init__(self, root: str | Path, split: str = "train2017"):
        root = folder_of(root)
        pictures = first_folder(root, (f"images/{split}", split), "pictures")
        mapped = (f"stuffthingmaps_detectron2/{split}", f"annotations_detectron2/{split}")
        labels = first_folder(root, (*mapped, *(f"{name}/{split}" for name in PUBLISHED)), "labels")
        vocabulary = Vocabulary.builtin("err-seg/coco-stuff-171")
        is_mapped = labels.relative_to(root).as_posix() in mapped
        coding = _in_order(len(vocabulary), 8, "COCO-Stuff-171") if is_mapped else _raw_coco_stuff()
        super().__init__(root, vocabulary=vocabulary, pictures=pictures, labels=labels, codings={8: coding})


class LabelledFolder(LabelMaps):
    """One's own pictures, each with a PNG that says the class of every pixel.

    root/images/*; root/labels/*.png under the same names, with one channel of 8 or 16 bits or a palette, whose values
    count the lines of root/names.txt from 0; 255 (of 16 bits: 65535) is unlabelled. names.txt has one class a line:
    "snow drift, snow [stuff]"; lines of comments (`# …`) don't count, and blank ones are refused.

    Raises:
        ValueError: A folder or names.txt is missing, or there is no picture.
    """

    def __init__(self, root: str | Path):
        root = folder_of(root)
        pictures, labels = (first_folder(root, (name,), name) for name in ("images", "labels"))
        vocabulary = Vocabulary.from_file(root / "names.txt", counted=True)
        codings = {bits: _in_order(len(vocabulary), bits, "names.txt") for bits in (8, 16)}
        super().__init__(root, vocabulary=vocabulary, pictures=pictures, labels=labels, codings=codings)

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; every label is decoded, whether `thorough` or not."""
        findings, seen = self._find(thorough=True), {}
        for picture in self.pictures:
            if seen.setdefault(picture.stem, picture) is not picture:
                findings.add(
                    "Pictures that would share a label; rename one of each",
                    f"{seen[picture.stem].name}, {picture.name}",
                )
        for stem in sorted(self.labels.keys() - seen):
            findings.add(
                f"Labels without a picture in {str(self.root / 'images')!r}; add it, or take them away",
                self.labels[stem].name,
            )
        findings.report()


def read_classes(path: Path, codings: Mapping[int, Coding]) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " N"]]:
    """Read a label map: its segments, one a class, and the class of each, ascending.

    Args:
        codings: What values mean in files of 8 bits, of 16.

    Raises:
        ValueError: Not one channel, a number of bits without a coding, a value that is no class, or a damaged file.
    """
    values = read_values(path)
    bits = 8 * values.itemsize
    if bits not in codings:
        raise ValueError(f"The label {str(path)!r} has {bits} bits a pixel; expected {' or '.join(map(str, codings))}.")
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=2**bits))
    meanings = codings[bits].label_of[found]
    if UNKNOWN in meanings:
        raise ValueError(
            f"The label {str(path)!r} holds {first_few(found[meanings == UNKNOWN].tolist())}; "
            f"expected {codings[bits].expected}. Correct it."
        )
    labels = np.unique(meanings[meanings != NO_CLASS])
    numbers = np.zeros(2**bits, np.int32)
    numbers[found] = np.where(meanings == NO_CLASS, 0, np.searchsorted(labels, meanings) + 1)
    return look_up(numbers, values), labels


def read_values(path: Path) -> UInt[np.ndarray, "H W"]:
    """Read the values of a PNG with one channel, uint8 or uint16, as they are in the file: indices of a palette, not
    colours."""
    with opened(path, "label") as image:
        format, mode, packing = image.format, image.mode, str(image.tile[0][3]) if image.tile else ""
        values = np.array(image)
    if format != "PNG" or mode not in LABEL_MODES:
        raise ValueError(
            f"The label {str(path)!r} is a {format} of mode {mode}; expected a PNG with one channel: grey, or a "
            "palette."
        )
    if mode.startswith("I"):
        return values.astype(np.uint16)
    return values.astype(np.uint8) // np.uint8(GREY_STEPS.get(packing, 1))


def label_rule(name: str) -> dict[int, int]:
    """Read what the values of a published label map mean: value → class, as `data/labels` has it with its source."""
    rule = json.loads(read_published(f"{name}.json"))
    return {int(value): label for value, label in rule["label_of"].items()}


def read_published(name: str) -> str:
    """Read a file of `data/labels`."""
    return (resources.files("wordmask") / "data" / "labels" / name).read_text(encoding="utf-8")


def _in_order(classes: int, bits: int, where: str) -> Coding:
    """Values are classes; the largest one of these bits is no class."""
    unlabelled = UNLABELLED_8 if bits == 8 else UNLABELLED_16
    usable = min(classes, unlabelled)
    label_of = np.full(2**bits, UNKNOWN, np.int64)
    label_of[:usable] = np.arange(usable)
    label_of[unlabelled] = NO_CLASS
    return Coding(label_of, f"0 to {usable - 1}, the {classes} classes of {where}, or {unlabelled} where there is none")


def _raw_coco_stuff() -> Coding:
    label_of = np.full(256, UNKNOWN, np.int64)
    label_of[[*range(RAW_COCO_STUFF), UNLABELLED_8]] = NO_CLASS
    for value, label in label_rule("coco-stuff-171").items():
        label_of[value] = label
    return Coding(label_of, f"0 to {RAW_COCO_STUFF - 1}, COCO-Stuff's ids, or {UNLABELLED_8} where there is none")
