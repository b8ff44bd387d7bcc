"""A tiny CLIP from nothing, on Shapeland's captions: the frozen towers of both tiny models.

command   wordmask train recipes/shapeland_clip.py
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from wordmask.clip import CONVNEXT_MINI, VIT_MINI
from wordmask.data.shapeland import COMPOSITIONS, World
from wordmask.training import contrastive
from wordmask.training.recipe import Recipe, Settings, warmup_cosine
from wordmask.training.shapeland import Captioned, naming

PATTERNED = [thing for thing in COMPOSITIONS if thing.pattern != "plain"]
PLAIN = [thing for thing in COMPOSITIONS if thing.pattern == "plain"]
WIDENINGS = 10  # worlds between the easiest and the full one
SEVERAL = World(96, 96, count=(0, 4), size=(28, 80), spread=90)
NAMED = World(96, 96, count=(1, 1), size=(35, 80), spread=60)  # one thing, to be named at validation


@dataclass(frozen=True)
class ClipSettings(Settings):
    """Args:
    plain: Steps with one large plain thing in the middle: shapes and colours are learned much faster so.
    widening: Steps in which things get smaller and leave the middle, and patterns appear, little by little.
    singles: Steps after those with one thing anywhere, of any pattern; from then on there are several, in a larger picture.
    """

    folder: Path = Path("runs/shapeland_clip")
    steps: int = 5800
    batch: int = 256
    rate: float = 2e-3
    precision: str = "bfloat16"
    plain: int = 1000
    widening: int = 2000
    singles: int = 800
    validate_every: int = 500
    save_every: int = 250


def build(settings: ClipSettings) -> Recipe:
    stages = [(0, world_of_one(0)), *((settings.plain + settings.widening * k // WIDENINGS, world_of_one(k)) for k in range(1, WIDENINGS))]
    stages += [(settings.plain + settings.widening, world_of_one(WIDENINGS))]
    stages += [(settings.plain + settings.widening + settings.singles, SEVERAL)]
    model = contrastive.ClipPair(contrastive.PairConfig(CONVNEXT_MINI, VIT_MINI, vit_layers=3))
    return Recipe(
        model=model.to(memory_format=torch.channels_last),
        groups=lambda model: contrastive.decay_groups(model, rate=settings.rate, weight_decay=0.05),
        schedule=warmup_cosine(settings.steps, warmup=min(100, settings.steps // 10), start=0.01),
        examples=Captioned([(step * settings.batch, world) for step, world in stages]),
        collate=contrastive.pad_captions,
        loss=contrastive.contrastive_loss,
        validate=lambda model, folder: naming(model, NAMED, folder),
        save=lambda path, model: contrastive.save(path, model, "recipes/shapeland_clip.py"),
        betas=(0.9, 0.98),
        divisible=False,
    )


def world_of_one(stage: int) -> World:
    """One thing per picture, at stage 0 large, in the middle and plain; at the last one anywhere, of any size and pattern."""
    plain = PLAIN * (3 * (WIDENINGS - stage) // max(1, stage) + 1)  # three of four things have a pattern at the end
    things = PLAIN if stage == 0 else plain + PATTERNED
    size, spread = 60 - 25 * stage // WIDENINGS, 15 + 45 * stage // WIDENINGS
    return World(64, 64, things=things, count=(int(stage < WIDENINGS), 1), size=(size, 95), spread=spread)
