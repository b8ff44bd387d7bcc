"""What can be named in Shapeland: sixteen materials, and things by shape, colour and pattern. Which of them training
may see."""

import json
from functools import cache
from itertools import chain, product, starmap
from typing import NamedTuple

from numpy.random import RandomState

from wordmask.data.shapeland.materials import MATERIALS
from wordmask.data.shapeland.shapes import SHAPES

COLOURS = {
    "red": (214, 38, 38),
    "orange": (242, 132, 20),
    "yellow": (246, 222, 48),
    "green": (40, 160, 60),
    "blue": (36, 76, 200),
    "purple": (128, 50, 160),
    "pink": (246, 140, 186),
    "brown": (122, 74, 38),
    "black": (30, 30, 34),
    "white": (244, 244, 244),
}
PATTERNS = ("plain", "striped", "dotted", "checked")
UNSEEN_EVERY = 3  # of the pairs of shape and colour, one in so many is never labelled
VOCABULARY_SIZES = (150, 847)
SHUFFLE_SEED = 150


class Composition(NamedTuple):
    """A kind of thing."""

    shape: str
    colour: str
    pattern: str

    @property
    def name(self) -> str:
        """What people say: "red star", "red striped star". Nobody says plain."""
        return " ".join(word for word in (self.colour, self.pattern, self.shape) if word != "plain")

    @property
    def seen(self) -> bool:
        """Whether it may be labelled in training: a third of the pairs of shape and colour never is, whatever the
        pattern."""
        return (list(SHAPES).index(self.shape) + list(COLOURS).index(self.colour)) % UNSEEN_EVERY != 0


COMPOSITIONS = tuple(starmap(Composition, product(SHAPES, COLOURS, PATTERNS)))


@cache
def things_of(vocabulary: str) -> tuple[Composition, ...]:
    """The things of `shapeland-150`, `shapeland-847` or `shapeland-seen-656`, in the order of its classes.

    The first two begin alike: seen and unseen ones in turn, as long as there are any.
    """
    if vocabulary == "shapeland-seen-656":
        return tuple(thing for thing in COMPOSITIONS if thing.seen)
    order = RandomState(SHUFFLE_SEED).permutation(len(COMPOSITIONS))
    shuffled = [COMPOSITIONS[place] for place in order]
    seen = [thing for thing in shuffled if thing.seen]
    unseen = [thing for thing in shuffled if not thing.seen]
    mixed = [*chain.from_iterable(zip(seen, unseen, strict=False)), *seen[len(unseen) :]]
    return tuple(mixed[: int(vocabulary.rsplit("-", 1)[1]) - len(MATERIALS)])


def vocabulary_json(vocabulary: str) -> str:
    """Write a vocabulary of Shapeland as the built-in ones are written: materials first."""
    classes = [{"names": [name], "thing": False} for name in MATERIALS]
    classes += [{"names": [thing.name], "thing": True} for thing in things_of(vocabulary)]
    lines = ",\n".join("  " + json.dumps(entry) for entry in classes)
    origin = ' "source": "wordmask.data.shapeland",\n "licence": "Apache-2.0",\n'
    return f'{{\n "title": "{vocabulary}",\n{origin} "classes": [\n{lines}\n ]\n}}\n'
