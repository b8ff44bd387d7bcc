"""Shapeland as data sets: scenes by number, labelled by one of its vocabularies. Training, captions and scores use
numbers of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from wordmask.data.labelled import LabelledPicture
from wordmask.data.shapeland.materials import MATERIALS
from wordmask.data.shapeland.names import things_of
from wordmask.data.shapeland.scene import Scene, World, draw_scene
from wordmask.vocabulary import Vocabulary

FIRST = {  # numbers of scenes, below 2³²
    "training": 0,
    "regions": 5 * 10**8,
    "captions": 10**9,
    "validation": 2 * 10**9,
    "test": 3 * 10**9,
    "demo": 4 * 10**9,
}
SEEN = "shapeland-seen-656"
SQUARE = World(256, 256)  # of the pictures that scores are measured on


class Shapeland:
    """A data set of generated scenes.

    Args:
        vocabulary: `shapeland-150`, `shapeland-847` or `shapeland-seen-656`; only its things appear.
        split: Which numbers; see `FIRST`.
        count: How many scenes.
        world: What they look like, apart from the things.
    """

    def __init__(self, vocabulary: str, split: str, count: int, world: World = SQUARE):
        things = things_of(vocabulary)
        self.vocabulary = Vocabulary.builtin(vocabulary)
        self.first, self.count, self.world = FIRST[split], count, replace(world, things=things)
        self.label = {name: label for label, name in enumerate([*MATERIALS, *things])}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> LabelledPicture:
        if not 0 <= place < self.count:
            raise IndexError(place)
        return self.labelled(draw_scene(self.first + place, self.world), f"Shapeland scene {self.first + place}")

    def labelled(self, scene: Scene, source: str) -> LabelledPicture:
        """A scene with its labels."""
        labels = np.array([self.label[name] for name in scene.names], dtype=np.int64)
        return LabelledPicture(scene.rgb, scene.segments, labels, np.zeros(len(labels), dtype=bool), source)

    def files(self, place: int) -> tuple[Path, ...]:
        """None: scenes are generated."""
        return ()

    def check(self, *, thorough: bool = False) -> None:
        """Nothing can be missing."""


def unseen_classes(vocabulary: str) -> np.ndarray:
    """Which classes of a vocabulary are never labelled in training, (T,) bool."""
    return np.array([False] * len(MATERIALS) + [not thing.seen for thing in things_of(vocabulary)])
