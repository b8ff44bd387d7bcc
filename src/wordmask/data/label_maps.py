"""Pictures labelled by PNGs whose values are classes: COCO-Stuff, and one's own folder."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt, UInt8

from wordmask.data.colours import ColourTable
from wordmask.data.files import (
    Findings,
    compare_sizes,
    files_in,
    first_few,
    first_folder,
    folder_of,
    opened,
    width_by_height,
)
from wordmask.data.labelled import Examined, Fault, one_segment_a_class
from wordmask.data.own_folder import OwnFolder, read_upright
from wordmask.data.reading import FolderReading
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
WITHOUT_LABEL = "Pictures without a label; expected {!r}/<the same name>.png for each"
UNUSABLE = "Labels that cannot be used"
OTHER_SIZE = (
    "Pictures of another size than their label; both must have the same, photographs upright as their EXIF says"
)
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


class LabelledPath(NamedTuple):
    """A picture, and the PNG that labels it, or where that is expected."""

    picture: Path
    label: Path


class LabelMaps(OwnFolder):
    """Pictures, each with a PNG whose values are classes. A class of a picture is one segment.

    Args:
        pairs: The pictures, and their labels, which need not be there.
        codings: What values mean in PNGs of 8 bits, of 16.
        colours: What colours mean in PNGs of several channels, or with a palette.
    """

    tells_things_apart = False

    def __init__(
        self,
        root: Path,
        *,
        vocabulary: Vocabulary,
        pairs: Sequence[LabelledPath],
        codings: Mapping[int, Coding],
        reading: FolderReading,
        colours: ColourTable | None = None,
    ):
        super().__init__(root, vocabulary, reading)
        self.pairs, self.codings, self.colours = list(pairs), codings, colours

    def __len__(self) -> int:
        return len(self.pairs)

    def files(self, place: int) -> tuple[Path, Path]:
        """Where a picture and its label should be."""
        return self.pairs[place]

    def _examine(self, place: int) -> Examined:
        picture, label = self.pairs[place]
        if not label.is_file():
            return Examined(None, [Fault(WITHOUT_LABEL.format(str(label.parent)), picture.name)])
        blank, frames, faults = read_upright(picture, "Pictures that are missing")
        try:
            segments, labels = self._read_label(label)
        except ValueError as error:
            return Examined(None, [*faults, Fault(UNUSABLE, str(error))])
        if blank is None or frames is None:
            return Examined(None, faults)
        if frames.labelled_in(segments.shape) is None:
            what = f"{picture.name} ({frames}), {label.name} ({width_by_height(segments.shape)})"
            return Examined(None, [Fault(OTHER_SIZE, what)])
        crowd = np.zeros(len(labels), bool)
        return Examined(replace(blank, segments=frames.stand_up(segments), labels=labels, crowd=crowd), [])

    def _read_label(self, path: Path) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, " N"]]:
        colours = self.colours and read_colours(path, self.colours.label_of)
        if self.colours is None or colours is None:
            return read_classes(path, self.codings)
        segments, labels, _ = one_segment_a_class(self.colours.classes_of(colours, path))
        return segments, labels


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
        coding = in_order(len(vocabulary), 8, "COCO-Stuff-171") if is_mapped else _raw_coco_stuff()
        pairs = [LabelledPath(path, labels / f"{path.stem}.png") for path in files_in(pictures, PICTURE_FILES)]
        if not pairs:
            raise ValueError(_no_picture(pictures))
        super().__init__(root, vocabulary=vocabulary, pairs=pairs, codings={8: coding}, reading=FolderReading())

    def check(self, *, thorough: bool = False) -> None:
        """See `DataSet.check`; only `thorough` decodes every picture and label."""
        if thorough:
            return super().check(thorough=True)
        findings = Findings(self.root)
        for picture, label in self.pairs:
            if label.is_file():
                compare_sizes(findings, picture, label)
            else:
                findings.add(WITHOUT_LABEL.format(str(label.parent)), picture.name)
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
        table = (
            " If its colours are classes, list them in colours.txt beside names.txt: 128 64 128 road."
            if mode in ("RGB", "RGBA")
            else ""
        )
        raise ValueError(
            f"The label {str(path)!r} is a {format} of mode {mode}; expected a PNG with one channel: grey, or a "
            f"palette.{table}"
        )
    if mode.startswith("I"):
        return values.astype(np.uint16)
    return values.astype(np.uint8) // np.uint8(GREY_STEPS.get(packing, 1))


def read_colours(path: Path, known: Collection[int]) -> UInt8[np.ndarray, "H W 3"] | None:
    """Read a label as colours, if it has some: several channels, or a palette; or grey, all of whose values are known
    as colours.

    Raises:
        ValueError: It can't be read, or is transparent somewhere.
    """
    with opened(path, "label") as image:
        if image.format != "PNG":
            return None
        if image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() != (255, 255):
            raise ValueError(f"The label {str(path)!r} is transparent somewhere; expected red, green and blue alone.")
        if image.mode in ("RGB", "RGBA", "P"):
            return np.array(image.convert("RGB"))
        grey = image.convert("L").convert("RGB") if image.mode in ("L", "1", "LA") else None
    if grey is None:
        return None
    values = np.array(grey)
    is_colour = [value * 0x10101 in known for value in np.unique(values[..., 0]).tolist()]
    return values if all(is_colour) else None


def label_rule(name: str) -> dict[int, int]:
    """Read what the values of a published label map mean: value → class, as `data/labels` has it with its source."""
    rule = json.loads(read_published(f"{name}.json"))
    return {int(value): label for value, label in rule["label_of"].items()}


def read_published(name: str) -> str:
    """Read a file of `data/labels`."""
    return (resources.files("wordmask") / "data" / "labels" / name).read_text(encoding="utf-8")


def in_order(classes: int, bits: int, where: str, *, first: int = 0) -> Coding:
    """Values are classes in their order, the first of which has the value `first`; the largest one of these bits, and
    those below the first, are no class."""
    unlabelled = UNLABELLED_8 if bits == 8 else UNLABELLED_16
    usable = min(classes, unlabelled - first)
    label_of = np.full(2**bits, UNKNOWN, np.int64)
    label_of[:first] = NO_CLASS
    label_of[first : first + usable] = np.arange(usable)
    label_of[unlabelled] = NO_CLASS
    nothing = f"{first - 1} or {unlabelled}" if first else str(unlabelled)
    return Coding(
        label_of,
        f"{first} to {first + usable - 1}, the {classes} classes of {where}, or {nothing} where there is none",
    )


def _no_picture(folder: Path) -> str:
    return f"There is no picture in {str(folder)!r}; expected *.jpg or *.png there (folders inside are not read)."


def _raw_coco_stuff() -> Coding:
    label_of = np.full(256, UNKNOWN, np.int64)
    label_of[[*range(RAW_COCO_STUFF), UNLABELLED_8]] = NO_CLASS
    for value, label in label_rule("coco-stuff-171").items():
        label_of[value] = label
    return Coding(label_of, f"0 to {RAW_COCO_STUFF - 1}, COCO-Stuff's ids, or {UNLABELLED_8} where there is none")
