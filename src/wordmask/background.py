"""What competes with the user's words: everyday things and stuff, where a background is asked for."""

from functools import lru_cache
from typing import Literal

from wordmask.vocabulary import Vocabulary
from wordmask.words import WordClass, same_phrase

Background = Literal["none", "other"]

DISTRACTORS = "eov-seg/coco-panoptic-133"  # everyday things and stuff


def competing(vocabulary: Vocabulary, background: Background) -> tuple[WordClass, ...]:
    """All classes that a model chooses among: those of the words first, then those of the background."""
    return (*vocabulary, *distractors(vocabulary)) if background == "other" else tuple(vocabulary)


@lru_cache(maxsize=8)  # it is asked for with every call of a segmenter, and looks at every word
def distractors(vocabulary: Vocabulary) -> tuple[WordClass, ...]:
    """List everyday things and stuff except those that the words name.

    "red car" rules out "car", and "wall" rules out "brick wall".
    """
    asked = [_stems(name) for entry in vocabulary for name in entry.names]

    def is_asked(entry: WordClass) -> bool:
        return any(_overlaps(_stems(name), asked) for name in entry.names)

    return tuple(entry for entry in Vocabulary.builtin(DISTRACTORS) if not is_asked(entry))


def _overlaps(stems: set[str], asked: list[set[str]]) -> bool:
    return any(stems <= other or other <= stems for other in asked)


def _stems(phrase: str) -> set[str]:
    return {word.removesuffix("s") for word in same_phrase(phrase).replace("-", " ").split()}
