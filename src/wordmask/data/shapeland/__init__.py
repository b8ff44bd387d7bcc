"""Shapeland: a generated world with an open vocabulary, to learn in and to be measured in.

Materials are stuff; things are compositions of 24 shapes, 10 colours and 4 patterns: 976 names. A third of the pairs of
shape and colour is *unseen*: never labelled in training, met in captions only. Everything is drawn from a number, in
whole numbers.
"""

from wordmask.data.shapeland.captions import caption
from wordmask.data.shapeland.materials import MATERIALS
from wordmask.data.shapeland.names import COMPOSITIONS, Composition, things_of
from wordmask.data.shapeland.scene import Scene, World, draw_scene
from wordmask.data.shapeland.sets import Shapeland, unseen_classes

__all__ = [
    "COMPOSITIONS",
    "MATERIALS",
    "Composition",
    "Scene",
    "Shapeland",
    "World",
    "caption",
    "draw_scene",
    "things_of",
    "unseen_classes",
]
