"""How well a CLIP names what it sees: one thing in each picture, among all of Shapeland's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from wordmask.clip import encode_picture
from wordmask.data.shapeland import COMPOSITIONS, Composition, Scene, World, draw_scene
from wordmask.data.shapeland.sets import FIRST
from wordmask.text import encode_phrases
from wordmask.training.tiny_clip.pair import ClipPair, pixels_of_scene
from wordmask.writing import atomic

PROMPTS = ("a photo of a {}.", "A photo of a {} in the scene")
NAMED = 512  # pictures whose thing is to be named
AT_ONCE = 128
SHEET = (4, 8)  # rows and columns of pictures that are drawn with their names


@torch.no_grad()
def naming(
    model: ClipPair, world: World, folder: Path | None = None, encode: Callable[[Tensor], Tensor] | None = None
) -> dict[str, float]:
    """Name the one thing of each picture among all 960 kinds; percent right, also of seen and unseen kinds, and by what
    is wrong.

    Args:
        folder: Where some pictures are drawn with the names they got.
        encode: Pictures → vectors; None: by the ConvNeXt.
    """
    encode = encode or partial(encode_picture, model.clip)
    device = model.clip.logit_scale.device
    text = encode_phrases(model.clip, [thing.name for thing in COMPOSITIONS], PROMPTS)
    scenes, true = scenes_of_things(world)
    named: list[Composition] = []
    for start in range(0, len(scenes), AT_ONCE):
        pixels = torch.stack([pixels_of_scene(scene.rgb) for scene in scenes[start : start + AT_ONCE]]).to(device)
        best = (F.normalize(encode(pixels), dim=-1) @ text.T).argmax(dim=1)
        named += [COMPOSITIONS[place] for place in best.tolist()]
    if folder is not None:
        draw_sheet(scenes, named, folder / "names.png")
    return percent_right(named, true)


def scenes_of_things(world: World) -> tuple[list[Scene], list[Composition]]:
    """Draw the scenes of the validation; return those that show a thing, and what it is."""
    scenes, things = [], []
    for number in range(NAMED):
        scene = draw_scene(FIRST["validation"] + number, world)
        thing = scene.names[0]
        if isinstance(thing, Composition):
            scenes.append(scene)
            things.append(thing)
    return scenes, things


def percent_right(named: list[Composition], true: list[Composition]) -> dict[str, float]:
    """How often the whole name is right, also of seen and unseen kinds, and how often each part of it is."""
    pairs = list(zip(named, true, strict=True))
    right, seen = np.array([found == thing for found, thing in pairs]), np.array([thing.seen for thing in true])
    scores = {"named": right.mean(), "named seen": right[seen].mean(), "named unseen": right[~seen].mean()}
    for part in Composition._fields:
        scores[part] = np.mean([getattr(found, part) == getattr(thing, part) for found, thing in pairs])
    return {name: 100 * float(share) for name, share in scores.items()}


def draw_sheet(scenes: list[Scene], named: list[Composition], path: Path) -> None:
    """Draw pictures with the names they got, in red where they are wrong."""
    rows, columns = SHEET
    height, width = scenes[0].rgb.shape[:2]
    cell = max(width, 130), height + 14
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (scene, name) in enumerate(zip(scenes[: rows * columns], named, strict=False)):
        corner = place % columns * cell[0], place // columns * cell[1]
        sheet.paste(Image.fromarray(scene.rgb), corner)
        pen.text((corner[0], corner[1] + height), name.name, fill="black" if name == scene.names[0] else "red")
    with atomic(path) as temporary:
        sheet.save(temporary)
