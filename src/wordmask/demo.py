"""`wordmask demo`: both bundled models on generated scenes, full of things they were never shown a label of."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from numpy.random import RandomState
from PIL import Image

from wordmask.data.shapeland import COMPOSITIONS, MATERIALS, Composition, Scene, World, draw_scene
from wordmask.data.shapeland.sets import FIRST
from wordmask.drawing import lay_out
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter, load
from wordmask.writing import atomic

MODELS = ("err-seg-tiny", "eov-seg-tiny")
UNSEEN = [thing for thing in COMPOSITIONS if not thing.seen]
SCENES = World(320, 320, things=UNSEEN, count=(3, 5), size=(26, 42), spread=80)
OTHERS = 18  # unseen things that are asked for though they are not there
SAMPLE_OTHERS = 5  # about so many words of a sample are not there


class Shown(NamedTuple):
    """A scene, the words it was searched for, what is there, and what each model found."""

    words: list[str]
    there: set[str]
    results: dict[str, Segmentation]


def demo(output: Path, *, scenes: int, seed: int, device: str) -> tuple[Path, list[Shown]]:
    """Draw scenes, segment them, save the results, and lay them out in one picture, `demo.png`.

    Raises:
        ValueError: The folder can't be written to, or there is no such device.
    """
    segmenters = {name: load(name, device=device) for name in MODELS}
    shown = [show(segmenters, FIRST["demo"] + seed + number) for number in range(scenes)]
    for number, one in enumerate(shown, 1):
        for name, result in one.results.items():
            result.save(output / f"scene-{number}.{name}")
    path = output / "demo.png"
    with atomic(path) as temporary:
        sheet(shown).save(temporary)
    return path, shown


def show(segmenters: dict[str, Segmenter], number: int) -> Shown:
    """Segment one scene."""
    scene = draw_scene(number, SCENES)
    words, there = words_for(scene, number)
    return Shown(words, there, {name: segmenter(scene.rgb, words) for name, segmenter in segmenters.items()})


def lines_about(shown: list[Shown]) -> Iterator[str]:
    """Say what each model found of what is in each scene."""
    for number, one in enumerate(shown, 1):
        yield f"scene {number}, searched for {len(one.words)} words; there are {', '.join(sorted(one.there))}"
        for name, result in one.results.items():
            found = {region.name for region in result.regions}
            wrong = found - one.there
            also = f"; also, wrongly, {', '.join(sorted(wrong))}" if wrong else ""
            yield f"  {name:12} {result.task:9} {len(found & one.there)} of {len(one.there)} found{also}"


def draw_sample(number: int) -> tuple[Image.Image, list[str]]:
    """Draw a scene for people to try, and words to look for in it."""
    scene = draw_scene(FIRST["demo"] + number, SCENES)
    words, there = words_for(scene, FIRST["demo"] + number)
    absent = [word for word in words if word.removesuffix(" [stuff]") not in there]
    asked = [word for word in words if word not in absent] + absent[:: len(absent) // SAMPLE_OTHERS]
    return Image.fromarray(scene.rgb), asked


def words_for(scene: Scene, number: int) -> tuple[list[str], set[str]]:
    """What to look for in a scene: its own words, all materials, and some things that are not there; and the names that
    are there."""
    there = {name.name if isinstance(name, Composition) else name for name in scene.names}
    order = RandomState(number % 2**32).permutation(len(UNSEEN))
    others = [UNSEEN[place].name for place in order if UNSEEN[place].name not in there][:OTHERS]
    return [*(f"{material} [stuff]" for material in MATERIALS), *sorted({*(there - set(MATERIALS)), *others})], there


def sheet(shown: list[Shown]) -> Image.Image:
    """One row per scene: the picture, then what each model found."""
    first = shown[0].results
    titles = ["the picture", *(f"{name}, {result.task}" for name, result in first.items())]
    return lay_out([_row(one.results) for one in shown], titles)


def _row(results: dict[str, Segmentation]) -> list[Image.Image]:
    picture = Image.fromarray(results[MODELS[0]].picture)
    return [picture, *(result.draw(legend=False) for result in results.values())]
