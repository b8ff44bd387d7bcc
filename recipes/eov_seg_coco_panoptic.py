"""EOV-Seg on COCO Panoptic, as the paper trains it.

command   torchrun --nproc-per-node 4 -m wordmask train recipes/eov_seg_coco_panoptic.py data=/data/coco
          model=eov-seg-small
data      train2017, annotations/panoptic_train2017.json and annotations/panoptic_train2017/*.png, as published;
          val2017 likewise
hardware  the paper's; this project has never run it to its end
expected  on ADE20K, S / M / L: PQ 15.1 / 18.7 / 24.5 (paper)
"""

from dataclasses import dataclass
from pathlib import Path

from wordmask.data.augment import ScaleAugmentation
from wordmask.data.datasets import CocoPanoptic
from wordmask.training.from_clip import from_clip
from wordmask.training.from_labels import Views, check_data, labelled_recipe
from wordmask.training.objectives import masks
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import drops
from wordmask.training.validation import Subset, validate


@dataclass(frozen=True)
class EovSegSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        data: Where COCO lies.
        model: A preset.
        clip: CLIP's own weights: `auto` fetches them, `random`, or a file.
        spatial: The same for the CLIP whose first block sees where things are.
        pictures: Of val2017, for a validation.
        thorough: Decode every picture and label before the training, to know now of a broken one.
    """

    folder: Path = Path("runs/eov_seg_coco_panoptic")
    data: Path = Path("datasets/coco")
    model: str = "eov-seg-small"
    clip: str = "auto"
    spatial: str = "auto"
    steps: int = 200_000
    batch: int = 16
    rate: float = 1e-4
    workers: int = 4
    pictures: int = 200
    thorough: bool = False


def build(settings: EovSegSettings, data: CocoPanoptic | None = None, held_out: CocoPanoptic | None = None) -> Recipe:
    data, held_out = data or CocoPanoptic(settings.data), held_out or CocoPanoptic(settings.data, "val2017")
    check_data(data, held_out, thorough=settings.thorough)
    measured = Subset.spread(held_out, settings.pictures)
    return labelled_recipe(
        settings,
        from_clip(settings.model, settings.clip, settings.spatial),
        Views(data, ScaleAugmentation(side=1024, smallest=0.1, largest=2.0), seed=settings.seed),
        objective=masks(),
        schedule=drops((settings.steps * 163_889 // 200_000, settings.steps * 187_546 // 200_000)),
        validate=lambda model, folder: validate(model, measured, folder),
        origin="recipes/eov_seg_coco_panoptic.py",
    )
