"""A tiny CLIP from nothing, on Shapeland's captions. Then recipes/shapeland_regions.py teaches it where things are.

command   wordmask train recipes/shapeland_clip.py
hardware  two CPU cores with avx512_bf16 beside other work, one thread and one worker, 35 min
expected  24 % of single things named right among 960 names, of any size and pattern and anywhere (colour 93,
          pattern 56, shape 39 %)
reached   at 3113d6d
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from wordmask.clip import CONVNEXT_MINI, VIT_MINI
from wordmask.data.shapeland import COMPOSITIONS, World
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import warmup_cosine
from wordmask.training.tiny_clip import pair
from wordmask.training.tiny_clip.captions import Captioned, contrastive_loss, pad_captions
from wordmask.training.tiny_clip.naming import naming

PATTERNED = [thing for thing in COMPOSITIONS if thing.pattern != "plain"]
PLAIN = [thing for thing in COMPOSITIONS if thing.pattern == "plain"]
WIDENINGS = 10  # worlds in all, the easiest included


@dataclass(frozen=True)
class ClipSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        plain: Steps with one large plain thing in the middle: shapes and colours are learned much faster so.
        widening: Steps in which things get smaller and leave the middle, and patterns appear, little by little.
    """

    folder: Path = Path("runs/shapeland_clip")
    steps: int = 1200
    batch: int = 256
    rate: float = 1e-3
    precision: str = "bfloat16"
    plain: int = 600
    widening: int = 600
    validate_every: int = 300
    save_every: int = 250


def build(settings: ClipSettings) -> Recipe:
    begins = [0, *(settings.plain + settings.widening * stage // WIDENINGS for stage in range(1, WIDENINGS))]
    model = pair.ClipPair(pair.PairConfig(CONVNEXT_MINI, VIT_MINI, vit_layers=3))
    return Recipe(
        model=model.to(memory_format=torch.channels_last),
        groups=lambda model: pair.muon_groups(model, rate=settings.rate, weight_decay=0.05),
        schedule=warmup_cosine(settings.steps, warmup=min(50, settings.steps // 10), start=0.01),
        examples=Captioned([(step * settings.batch, world_of_one(stage)) for stage, step in enumerate(begins)]),
        collate=pad_captions,
        loss=contrastive_loss,
        validate=lambda model, folder: naming(model, world_of_one(WIDENINGS - 1), folder),
        save=lambda path, model: pair.save(path, model, "recipes/shapeland_clip.py"),
        betas=(0.9, 0.98),
        divisible=False,
    )


def world_of_one(stage: int) -> World:
    """One thing per picture, at stage 0 large, in the middle and plain; at the last one anywhere, of any size and
    pattern."""
    plain = PLAIN * (3 * (WIDENINGS - stage) // max(1, stage) + 1)  # three of four things have a pattern at the end
    things = PLAIN if stage == 0 else plain + PATTERNED
    size, spread = 60 - 25 * stage // WIDENINGS, 15 + 45 * stage // WIDENINGS
    return World(64, 64, things=things, count=(1, 1), size=(size, 95), spread=spread)
