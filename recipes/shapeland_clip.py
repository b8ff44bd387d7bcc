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

PLAIN = World(64, 64, things=[thing for thing in COMPOSITIONS if thing.pattern == "plain"], count=(1, 1), size=(60, 95), spread=15)
SINGLE = World(64, 64, count=(0, 1), size=(50, 95), spread=25)
ANYWHERE = World(64, 64, count=(0, 1), size=(35, 95), spread=60)
SEVERAL = World(96, 96, count=(0, 4), size=(28, 80), spread=90)
NAMED = World(96, 96, count=(1, 1), size=(35, 80), spread=60)  # one thing, to be named at validation


@dataclass(frozen=True)
class ClipSettings(Settings):
    """Args:
    plain: Steps with one plain thing per picture: shapes and colours are learned much faster without patterns.
    singles: Steps after those with one thing of any pattern, or none.
    anywhere: Steps after those with one thing anywhere, of any size; from then on there are several, in a larger picture.
    """

    folder: Path = Path("runs/shapeland_clip")
    steps: int = 5800
    batch: int = 256
    rate: float = 2e-3
    precision: str = "bfloat16"
    plain: int = 900
    singles: int = 1000
    anywhere: int = 2300
    validate_every: int = 500
    save_every: int = 250


def build(settings: ClipSettings) -> Recipe:
    lengths = (settings.plain, settings.singles, settings.anywhere)
    starts = [sum(lengths[:stage]) for stage in range(4)]
    stages = zip(starts, (PLAIN, SINGLE, ANYWHERE, SEVERAL), strict=True)
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
