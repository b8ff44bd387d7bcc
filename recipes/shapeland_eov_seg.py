"""EOV-Seg, tiny, on Shapeland: the recipe of the paper in small. CLIP's towers come from recipes/shapeland_regions.py.

command   wordmask train recipes/shapeland_eov_seg.py
hardware  two CPU cores with avx512_bf16, one of them used, 66 min
expected  shapeland-150, validation: PQ 11.9 (seen 18.9, unseen 3.4), mIoU 26.5
reached   at 7d36788, changed on the way: see src/wordmask/bundled/CARD.md
"""

from dataclasses import dataclass
from pathlib import Path

from wordmask.data.augment import ScaleAugmentation
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.data.shapeland.sets import SEEN
from wordmask.models import kind_of
from wordmask.training import contrastive
from wordmask.training.recipe import Recipe, Settings, drops
from wordmask.training.segmentation import eov_seg_recipe
from wordmask.training.validation import validate

PRESET = "eov-seg-tiny"


@dataclass(frozen=True)
class TinyEovSegSettings(Settings):
    """Args:
    clip: What recipes/shapeland_regions.py wrote.
    points: At which masks are compared, at every third pixel of 192 × 192 in the paper's 12 544.
    scenes: Of the validation.
    """

    folder: Path = Path("runs/shapeland_eov_seg")
    clip: Path = Path("runs/shapeland_regions/last.safetensors")
    steps: int = 5200
    batch: int = 8
    rate: float = 1e-3
    precision: str = "bfloat16"
    points: int = 2048
    scenes: int = 100
    validate_every: int = 1500
    save_every: int = 250


def build(settings: TinyEovSegSettings) -> Recipe:
    kind = kind_of(PRESET)
    model = kind.model(kind.presets[PRESET])
    pair = contrastive.load(settings.clip)
    model.clip.load_state_dict(pair.clip.state_dict())
    model.spatial.load_state_dict(pair.spatial_state())
    side = kind.presets[PRESET].shortest_edge
    data = Shapeland(SEEN, "training", settings.steps * settings.batch)
    held_out = Shapeland("shapeland-150", "validation", settings.scenes)
    return eov_seg_recipe(
        settings,
        model.train(),
        data,
        augment=ScaleAugmentation(side=side, smallest=0.7, largest=1.4),
        points=settings.points,
        shuffle=False,
        schedule=drops((settings.steps * 71 // 100, settings.steps * 94 // 100)),  # the paper: 82 and 94
        validate=lambda model, folder: validate(model, held_out, folder, unseen=unseen_classes("shapeland-150")),
        origin="recipes/shapeland_eov_seg.py",
    )
