"""PASCAL VOC and PASCAL-Context as published."""

from pathlib import Path

import numpy as np

from wordmask.data.files import first_folder, folder_of, read_json
from wordmask.data.label_maps import NO_CLASS, UNLABELLED_8, label_rule, read_classes, read_published
from wordmask.data.labelled import Segments, one_segment_a_class
from wordmask.data.outlines import read_runs
from wordmask.data.published import Published, shifted
from wordmask.regions import look_up
from wordmask.vocabulary import Vocabulary
from wordmask.words import WordClass

CONTEXT_SHAPE = (
    "{'images': [{'image_id', 'file_name', 'phase', …}, …], 'annos_segmentation': [{'image_id', 'category_id', …}, …]}"
)
# VOC's labels: the augmented ones, which most people have, and the original
NAMES_OF_CLASSES = ("SegmentationClassAug", "SegmentationClass")


class PascalContext59(Published):
    """PASCAL-Context with its 59 most frequent classes: root/trainval_merged.json, root/JPEGImages/*.jpg.

    The pictures are those whose `phase` is "val"; segments are run lengths, later ones over earlier ones.
    All other categories are unlabelled.

    Raises:
        ValueError: The json or the folder is missing, or the former is of another format.
    """

    def __init__(self, root: str | Path, phase: str = "val"):
        root = folder_of(root)
        self.json = root / "trainval_merged.json"
        content = read_json(self.json, CONTEXT_SHAPE)
        pictures = first_folder(root, ("JPEGImages",), "pictures")
        try:
            images = sorted(
                (entry["file_name"], entry["image_id"]) for entry in content["images"] if entry["phase"] == phase
            )
            self.ids = [number for _, number in images]
            self.segments: dict[int, list[tuple[int, dict]]] = {number: [] for number in self.ids}
            for entry in content["annos_segmentation"]:
                if entry["image_id"] in self.segments:
                    self.segments[entry["image_id"]].append((entry["category_id"], entry["segmentation"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"The file {str(self.json)!r} lacks {error}; expected {CONTEXT_SHAPE}. Fetch it again."
            ) from None
        vocabulary = Vocabulary.builtin("eov-seg/pascal-context-59")
        super().__init__(
            root, vocabulary, [(pictures / name,) for name, _ in images], f"pictures of the phase {phase!r} in its json"
        )
        self.label_of = label_rule("pascal-context-59")

    def _segments(self, place: int) -> Segments:
        outlines = self.segments[self.ids[place]]
        if not outlines:
            raise ValueError(
                f"The file {str(self.json)!r} has no segments of {self.rows[place][0].name!r}. Fetch it again."
            )
        size = _size(outlines[0][1])
        classes = np.full(size[0] * size[1], NO_CLASS)  # column by column, as run lengths go
        for category, outline in outlines:
            try:
                runs = read_runs(outline, size)
            except ValueError as error:
                raise ValueError(
                    f"A segment of {self.rows[place][0].name!r} in {str(self.json)!r}: {error} Fetch it again."
                ) from None
            classes[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = self.label_of.get(category, NO_CLASS)
        return one_segment_a_class(classes.reshape(size[::-1]).T)


def _size(outline: object) -> tuple[int, int]:
    """(height, width) as run lengths state it; (0, 0), which fits no picture, if they don't."""
    size = outline.get("size") if isinstance(outline, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        return 0, 0
    return size[0], size[1]


class PascalContext459(Published):
    """PASCAL-Context with 459 classes: root/trainval/<name>.mat, whose `LabelMap` has the class plus 1, and
    root/JPEGImages/<name>.jpg.

    The pictures are the validation part that `PascalContext59` has; its names come with wordmask.

    Raises:
        ValueError: A folder is missing.
    """

    def __init__(self, root: str | Path):
        root = folder_of(root)
        pictures = first_folder(root, ("JPEGImages",), "pictures")
        labels = first_folder(root, ("trainval",), "labels")
        names = read_published("pascal-context.val.txt").split()
        rows = [(pictures / f"{name}.jpg", labels / f"{name}.mat") for name in names]
        super().__init__(root, Vocabulary.builtin("eov-seg/pascal-context-459"), rows, "JPEGImages/*.jpg")
        self.label_of = np.full(2**16, NO_CLASS)
        self.label_of[1 : len(self.vocabulary) + 1] = np.arange(len(self.vocabulary))

    def _segments(self, place: int) -> Segments:
        from scipy.io import loadmat

        path = self.rows[place][1]
        try:
            values = np.asarray(loadmat(path)["LabelMap"])
        except FileNotFoundError:
            raise ValueError(f"The label {str(path)!r} does not exist.") from None
        except Exception as error:  # scipy raises almost anything on damaged files
            raise ValueError(
                f"The label {str(path)!r} is damaged: {error!r}; expected a matrix called LabelMap. Fetch it again."
            ) from None
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() >= 2**16:
            raise ValueError(
                f"The label {str(path)!r} holds {values.dtype} of shape {values.shape}; "
                "expected (height, width), 0 to 65535."
            )
        return one_segment_a_class(look_up(self.label_of, values.astype(np.int64)))


class PascalVoc(Published):
    """PASCAL VOC 2012, 20 classes: root/ImageSets/Segmentation/val.txt names the pictures, root/JPEGImages/*.jpg.

    Labels: root/SegmentationClassAug/*.png, or else root/SegmentationClass/*.png. A value is the class plus 1; 255 is
    no class.

    Args:
        background: Whether 0, the background, is a class, the 21st; otherwise its pixels are unlabelled.

    Raises:
        ValueError: A folder or the list is missing.
    """

    def __init__(self, root: str | Path, split: str = "val", *, background: bool = False):
        root = folder_of(root)
        pictures = first_folder(root, ("JPEGImages",), "pictures")
        labels = first_folder(root, NAMES_OF_CLASSES, "labels")
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            raise ValueError(
                f"{str(listed)!r} does not exist; expected the list of pictures that VOC 2012 has there. "
                "Unpack it again."
            )
        rows = [
            (pictures / f"{name}.jpg", labels / f"{name}.png") for name in listed.read_text(encoding="utf-8").split()
        ]
        vocabulary = Vocabulary.builtin("err-seg/pascal-voc-20")
        classes = len(vocabulary)
        if background:
            vocabulary = Vocabulary((*vocabulary, WordClass(("background",), thing=False)), title="pascal-voc-20b")
        super().__init__(root, vocabulary, rows, f"names in {listed.name}")
        self.codings = {8: shifted(classes, zero=classes if background else NO_CLASS, void=[UNLABELLED_8])}

    def _segments(self, place: int) -> Segments:
        segments, labels = read_classes(self.rows[place][1], self.codings)
        return segments, labels, np.zeros(len(labels), bool)
