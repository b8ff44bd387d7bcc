"""The tiny CLIP of recipes/shapeland_clip.py learns where things are: it names regions of whole scenes, at the size at
which both tiny models see them.

command   wordmask train recipes/shapeland_regions.py
hardware  two CPU cores with avx512_bf16 beside other work, one thread and one worker, 44 min for 5000 steps, 69 for
          the other 4000
expected  things 79 % named right among 150 names (seen ones 80 %, unseen ones 78 %), materials 100 %
reached   at 3113d6d, the second round at 72a2881
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from wordmask.data.augment import ScaleAugmentation
from wordmask.data.shapeland import World
from wordmask.data.shapeland.sets import SEEN
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import rounds
from wordmask.training.tiny_clip import pair
from wordmask.training.tiny_clip.regions import RegionLoss, RegionScenes, pad_regions, region_naming
from wordmask.vocabulary import Vocabulary

SIDE = 192  # what both tiny models see
CROWDED = World(256, 256, count=(6, 12))  # twice as many things to name in a scene


@dataclass(frozen=True)
class RegionSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        clip: What recipes/shapeland_clip.py wrote.
        most: Words that a region is compared with.
        first: Steps of the first round; the rest are a second one, in which the rate rises again.
        scenes: Of the validation.
    """

    folder: Path = Path("runs/shapeland_regions")
    clip: Path = Path("runs/shapeland_clip/last.safetensors")
    steps: int = 9000
    first: int = 5000
    batch: int = 16
    rate: float = 1e-3
    precision: str = "bfloat16"
    most: int = 128
    scenes: int = 100
    validate_every: int = 1000
    save_every: int = 200


def build(settings: RegionSettings) -> Recipe:
    model = pair.load(settings.clip).to(memory_format=torch.channels_last)
    return Recipe(
        model=model,
        # the transformer stays as it is
        groups=lambda model: pair.muon_groups(model.clip, rate=settings.rate, weight_decay=0.05),
        schedule=rounds(settings.first, settings.steps, warmup=50, start=0.01),
        examples=RegionScenes(ScaleAugmentation(side=SIDE, smallest=0.8, largest=1.3), settings.seed, CROWDED),
        collate=pad_regions,
        loss=RegionLoss(Vocabulary.builtin(SEEN).names, settings.most),
        validate=lambda model, folder: region_naming(model, SIDE, settings.scenes, folder),
        save=lambda path, model: pair.save(path, model, "recipes/shapeland_regions.py"),
        betas=(0.9, 0.98),
        divisible=False,
    )
