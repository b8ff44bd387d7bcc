"""EOV-Seg, tiny, on Shapeland: the recipe of the paper in small. CLIP's towers come from recipes/shapeland_regions.py.

command   wordmask train recipes/shapeland_eov_seg.py
hardware  one core with avx512_bf16, beside the other model's training, 55 min
expected  shapeland-150, validation: PQ 45.5 (seen 51.8, unseen 37.7), mIoU 56.8
reached   at dd5dcd5
"""

from dataclasses import dataclass
from pathlib import Path

from wordmask.data.augment import ScaleAugmentation
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.data.shapeland.sets import SEEN
from wordmask.models.eov_seg import PRESETS, EovSeg
from wordmask.training.from_labels import Views, labelled_recipe
from wordmask.training.objectives import masks
from wordmask.training.optimiser import MUON_RATE
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import warmup_cosine
from wordmask.training.tiny_clip import pair
from wordmask.training.validation import validate

PRESET = "eov-seg-tiny"
MUON = MUON_RATE / 3  # after 1300 of 2600 steps PQ 23.9, by AdamW alone 13.2; at the full rate the loss stays high


@dataclass(frozen=True)
class TinyEovSegSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        clip: What recipes/shapeland_regions.py wrote.
        points: At which masks are compared; the paper's 12 544 would be every third pixel of 192 × 192.
        most: Classes that take part in a step, about as many as will be asked for: the clarity of a pixel depends on
            how many words there are.
        scenes: Of the validation.
    """

    folder: Path = Path("runs/shapeland_eov_seg")
    clip: Path = Path("runs/shapeland_regions/last.safetensors")
    steps: int = 5000
    batch: int = 8
    rate: float = 1e-3
    precision: str = "bfloat16"
    points: int = 2048
    most: int = 171
    scenes: int = 100
    validate_every: int = 1250
    save_every: int = 250


def build(settings: TinyEovSegSettings) -> Recipe:
    model = EovSeg(PRESETS[PRESET])
    towers = pair.load(settings.clip)
    model.clip.load_state_dict(towers.clip.state_dict())
    assert model.spatial is not None
    model.spatial.load_state_dict(towers.spatial_state())
    side = model.config.shortest_edge
    data = Shapeland(SEEN, "training", settings.steps * settings.batch)
    held_out = Shapeland("shapeland-150", "validation", settings.scenes)
    return labelled_recipe(
        settings,
        model.train(),
        Views(data, ScaleAugmentation(side=side, smallest=0.7, largest=1.4), seed=settings.seed, shuffle=False),
        objective=masks(points=settings.points, most=settings.most, muon=MUON),
        # so few steps have no time for two drops
        schedule=warmup_cosine(settings.steps, warmup=settings.steps // 80, start=0.001),
        validate=lambda model, folder: validate(model, held_out, folder, unseen=unseen_classes("shapeland-150")),
        origin="recipes/shapeland_eov_seg.py",
    )
