"""Cityscapes as published: 19 classes, of which 8 are things."""

from pathlib import Path

import numpy as np

from wordmask.data.files import first_folder, folder_of
from wordmask.data.label_maps import NO_CLASS, UNKNOWN, UNLABELLED_8, Coding, read_classes, read_values
from wordmask.data.labelled import Segments
from wordmask.data.published import Published, stems_below
from wordmask.vocabulary import Vocabulary

PICTURE = "_leftImg8bit.png"
TRAIN_IDS, IDS, INSTANCES = (f"_gtFine_{kind}.png" for kind in ("labelTrainIds", "labelIds", "instanceIds"))
MOST_ID = 33  # of cityscapesScripts' labels; 34 ids, of which 19 are classes
# an instance is id · 1000 + number; below, a value is an id: stuff, or several things that nobody told apart
CROWDED = 1000


class Cityscapes(Published):
    """Cityscapes' fine labels: root/leftImg8bit/val/<city>/*_leftImg8bit.png, and in root/gtFine/val/<city>
    *_gtFine_labelTrainIds.png, or else *_gtFine_labelIds.png, which is what the published archive has.

    Raises:
        ValueError: A folder is missing, or there is no picture.
    """

    endings = (TRAIN_IDS, IDS)

    def __init__(self, root: str | Path, split: str = "val"):
        root = folder_of(root)
        pictures = first_folder(root, (f"leftImg8bit/{split}",), "pictures")
        labels = first_folder(root, (f"gtFine/{split}",), "labels")
        found = stems_below(pictures, {PICTURE: "picture"})
        truth = stems_below(labels, {ending: ending for ending in self.endings})
        rows = []
        for stem in sorted({*found, *truth}):
            city = stem.split("_")[0]
            there = [ending for ending in self.endings if ending in truth.get(stem, {})]
            rows.append((pictures / city / (stem + PICTURE), labels / city / (stem + (there or self.endings[-1:])[0])))
        vocabulary = Vocabulary.builtin("eov-seg/cityscapes-19")
        super().__init__(root, vocabulary, rows, f"leftImg8bit/{split}/<city>/*{PICTURE}")
        self.label_of = np.full(256, UNKNOWN)  # of an id
        self.label_of[[*range(MOST_ID + 1), UNLABELLED_8]] = NO_CLASS  # 255 is -1, the licence plate, in 8 bits
        for label, entry in enumerate(vocabulary):
            self.label_of[entry.dataset_id] = label

    def _segments(self, place: int) -> Segments:
        path = self.rows[place][1]
        if path.name.endswith(TRAIN_IDS):
            label_of = np.full(256, UNKNOWN)
            label_of[: len(self.vocabulary)] = np.arange(len(self.vocabulary))
            label_of[UNLABELLED_8] = NO_CLASS
            coding = Coding(label_of, "0 to 18, or 255")
        else:
            coding = Coding(self.label_of, f"Cityscapes' ids, 0 to {MOST_ID}")
        segments, labels = read_classes(path, {8: coding})
        return segments, labels, np.zeros(len(labels), bool)


class CityscapesPanoptic(Cityscapes):
    """Cityscapes with its things one by one: *_gtFine_instanceIds.png in the place of the others, as
    `createPanopticImgs` reads them.

    A value from 1000 is one thing, id · 1000 + its number; below it is an id: stuff, or a crowd.
    """

    endings = (INSTANCES,)

    def _segments(self, place: int) -> Segments:
        path = self.rows[place][1]
        values = read_values(path).astype(np.int64)
        found, numbers = np.unique(values, return_inverse=True)
        ids = np.where(found >= CROWDED, found // CROWDED, found)
        labels = np.array([self.label_of[one] if one < 256 else UNKNOWN for one in ids.tolist()])
        if UNKNOWN in labels:
            raise ValueError(
                f"The label {str(path)!r} holds {found[labels == UNKNOWN][:5].tolist()}; expected Cityscapes' ids. "
                "Fetch it again."
            )
        kept = labels != NO_CLASS
        things = np.array([entry.thing for entry in self.vocabulary] + [False])
        crowd = (found < CROWDED) & things[labels]
        return (np.cumsum(kept) * kept)[numbers].reshape(values.shape), labels[kept], crowd[kept]
