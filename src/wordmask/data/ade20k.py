"""ADE20K as published: 150 classes, the full data set's 847, and panoptic."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from wordmask.data.files import first_folder, folder_of, opened
from wordmask.data.label_maps import NO_CLASS, label_rule, read_classes
from wordmask.data.labelled import UNLABELLED, LabelledPicture, Segments, one_segment_a_class
from wordmask.data.published import Published, shifted, stems_below
from wordmask.regions import look_up
from wordmask.vocabulary import Vocabulary

OBJECTS = 26 * 256  # indices of objects that the colours of a label can say


class Ade20k150(Published):
    """The scene parsing challenge, 150 classes: root/images/validation/*.jpg, root/annotations/validation/*.png.

    A value is the class plus 1; 0 is no class.

    Raises:
        ValueError: A folder is missing, or there is no picture.
    """

    def __init__(self, root: str | Path, split: str = "validation"):
        root = folder_of(root)
        pictures = first_folder(root, (f"images/{split}",), "pictures")
        labels = first_folder(root, (f"annotations/{split}",), "labels")
        stems = sorted(stems_below(pictures, {".jpg": ""}).keys() | stems_below(labels, {".png": ""}).keys())
        rows = [(pictures / f"{stem}.jpg", labels / f"{stem}.png") for stem in stems]
        super().__init__(root, Vocabulary.builtin("eov-seg/ade20k-150"), rows, f"images/{split}/*.jpg")
        self.codings = {8: shifted(len(self.vocabulary))}

    def _segments(self, place: int) -> Segments:
        segments, labels = read_classes(self.rows[place][1], self.codings)
        return segments, labels, np.zeros(len(labels), bool)


class Ade20k847(Published):
    """The full data set (2021_17_01), 847 classes: root/images/ADE/validation/**/*.jpg, and *_seg.png beside them.

    A pixel's object is (red // 10) · 256 + green; those of no class are unlabelled. index_ade20k.pkl is not needed, and
    not read.

    Raises:
        ValueError: The folder is missing, or there is no picture.
    """

    def __init__(self, root: str | Path, split: str = "validation"):
        root = folder_of(root)
        folder = first_folder(root, (f"images/ADE/{split}",), "pictures")
        # those folders hold one mask per object
        found = stems_below(folder, {".jpg": "picture", "_seg.png": "label"}, skip="ADE_")
        rows = []
        for stem, kinds in found.items():
            home = next(iter(kinds.values())).parent
            rows.append((home / f"{stem}.jpg", home / f"{stem}_seg.png"))
        super().__init__(root, Vocabulary.builtin("eov-seg/ade20k-847"), rows, f"images/ADE/{split}/**/*.jpg")
        self.label_of = np.full(OBJECTS, NO_CLASS)
        for index, label in label_rule("ade20k-847").items():
            self.label_of[index] = label

    def _segments(self, place: int) -> Segments:
        colours = read_colours(self.rows[place][1])
        return one_segment_a_class(look_up(self.label_of, colours[..., 0] // 10 * np.int64(256) + colours[..., 1]))


@dataclass(frozen=True)
class Composed(LabelledPicture):
    """A picture whose segments were composed of two labels: pixels of a class need not be in one of its segments.

    Args:
        classes: The class of each pixel, -1 where there is none.
    """

    classes: Int[np.ndarray, "H W"]

    @property
    def semantic(self) -> Int[np.ndarray, "H W"]:
        return self.classes


class Ade20kPanoptic(Ade20k150):
    """ADE20K with 100 things and 50 kinds of stuff: the files of `Ade20k150`, and for things
    root/annotations_instance/validation/*.png.

    Stuff comes from the former; things are pasted over it: red is the class of an instance, from 1, and green its
    number. `semantic` is that of the former alone, as the benchmark has it.

    Raises:
        ValueError: A folder is missing, or there is no picture.
    """

    def __init__(self, root: str | Path, split: str = "validation"):
        super().__init__(root, split)
        instances = first_folder(self.root, (f"annotations_instance/{split}",), "instances")
        self.rows = [(*row, instances / row[1].name) for row in self.rows]
        self.label_of = np.full(256, NO_CLASS)
        for value, label in label_rule("ade20k-100-instances").items():
            self.label_of[value] = label
        self.is_stuff = np.array([not entry.thing for entry in self.vocabulary] + [False])  # the last, -1, is no class

    def __getitem__(self, place: int) -> Composed:
        plain = super().__getitem__(place)
        classes = plain.semantic
        stuff, stuff_labels, _ = one_segment_a_class(np.where(self.is_stuff[classes], classes, UNLABELLED))
        colours = read_colours(self.rows[place][2])
        self._check(colours, plain)
        things, numbers = np.unique(colours[..., 0] * np.int64(256) + colours[..., 1], return_inverse=True)
        numbers = numbers.reshape(stuff.shape)
        is_thing = (things // 256 > 0) & (things % 256 > 0)
        places = np.cumsum(is_thing) * is_thing + len(stuff_labels) * is_thing
        segments = np.where(is_thing[numbers], places[numbers], stuff)
        labels = np.concatenate([stuff_labels, self.label_of[things[is_thing] // 256]])
        return Composed(plain.rgb, segments, labels, np.zeros(len(labels), bool), plain.source, classes=classes)

    def _check(self, colours: UInt8[np.ndarray, "H W 3"], plain: LabelledPicture) -> None:
        strangers = np.setdiff1d(np.unique(colours[..., 0]), [0, *np.flatnonzero(self.label_of != NO_CLASS).tolist()])
        if len(strangers) or colours.shape != plain.rgb.shape:
            came = f"red values {strangers[:5].tolist()}" if len(strangers) else f"the shape {colours.shape[:2]}"
            raise ValueError(
                f"The instances of {plain.source!r} have {came}; expected 0 to 100, and {plain.rgb.shape[:2]}. "
                "Fetch them again."
            )


def read_colours(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a PNG that codes numbers in colours.

    Raises:
        ValueError: It is of another kind, or damaged.
    """
    with opened(path, "label") as image:
        kind, colours = (image.format, image.mode), np.array(image)
    if kind[0] != "PNG" or kind[1] not in ("RGB", "RGBA"):
        raise ValueError(
            f"The label {str(path)!r} is a {' of mode '.join(map(str, kind))}; expected a PNG with red, green and blue."
        )
    return colours[..., :3]
