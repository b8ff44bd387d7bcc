"""What people might write below a scene of Shapeland: how a CLIP comes to know its words."""

from numpy.random import RandomState

from wordmask.data.shapeland.names import Composition
from wordmask.data.shapeland.scene import Scene

FRAMES = (
    "{}",
    "a photo of {}",
    "a photo of {}.",
    "This is a photo of {}",
    "A photo of {} in the scene",
    "a photo of {} in the scene",
    "There is {} in the scene",
    "There is {} in the scene.",
    "a picture of {}",
    "This is a photo of {}.",
)
MOST_NAMED = 3  # things in one caption
MOST_MATERIALS = 2
SMALL, LARGE = 30, 60  # percent of the shorter side: below and above, a thing may be called so


def caption(scene: Scene, random: RandomState) -> str:
    """Describe a scene in one sentence: up to three of its things, and perhaps what they are on; without things, its
    materials."""
    things = [
        (name, size) for name, size in zip(scene.names, scene.sizes, strict=True) if isinstance(name, Composition)
    ]
    materials = [name for name in scene.names if isinstance(name, str)]
    materials = [materials[place] for place in random.permutation(len(materials))[:MOST_MATERIALS]]
    chosen = [things[place] for place in random.permutation(len(things))[:MOST_NAMED]]
    named = [_with_article(_sized(thing, size, random), random) for thing, size in chosen]
    if not named:
        article = random.randint(0, 2) == 0
        named = [_with_article(name, random) if article else name for name in materials]
        materials = []
    place = (
        f" {('on', 'with', 'and')[random.randint(0, 3)]} {_listed(materials)}"
        if materials and random.randint(0, 4) == 0
        else ""
    )
    return FRAMES[random.randint(0, len(FRAMES))].format(_listed(list(dict.fromkeys(named))) + place)


def _sized(thing: Composition, size: int, random: RandomState) -> str:
    word = "medium"
    if size < SMALL:
        word = "small"
    elif size > LARGE:
        word = "large"
    return f"{word} {thing.name}" if random.randint(0, 4) == 0 else thing.name


def _with_article(name: str, random: RandomState) -> str:
    if random.randint(0, 8) == 0:
        return f"the {name}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)
