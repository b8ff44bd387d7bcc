"""ERR-Seg (B) on COCO-Stuff-164k, as the paper trains it (section 4.1).

command   torchrun --nproc-per-node 4 -m wordmask train recipes/err_seg_coco_stuff.py data=/data/coco
data      images/train2017 and stuffthingmaps/train2017, as published; val2017 likewise
hardware  the paper's; this project has never run it to its end
expected  mIoU 35.8 on ADE20K-150, 13.9 on ADE20K-847 (paper)
"""

from dataclasses import dataclass
from pathlib import Path

from wordmask.data.augment import CropAugmentation
from wordmask.data.datasets import CocoStuff
from wordmask.training.from_clip import from_clip
from wordmask.training.from_labels import Views, check_data, labelled_recipe
from wordmask.training.objectives import semantic
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import warmup_cosine
from wordmask.training.validation import Subset, validate


@dataclass(frozen=True)
class ErrSegSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        data: Where COCO lies.
        model: A preset.
        clip: CLIP's own weights: `auto` fetches them, `random`, or a file.
        pictures: Of val2017, for a validation.
        thorough: Decode every picture and label before the training, to know now of a broken one.
    """

    folder: Path = Path("runs/err_seg_coco_stuff")
    data: Path = Path("datasets/coco")
    model: str = "err-seg-base"
    clip: str = "auto"
    steps: int = 80_000
    batch: int = 4
    rate: float = 2e-4
    precision: str = "float16"
    workers: int = 4
    pictures: int = 200
    thorough: bool = False


def build(settings: ErrSegSettings, data: CocoStuff | None = None, held_out: CocoStuff | None = None) -> Recipe:
    data, held_out = data or CocoStuff(settings.data), held_out or CocoStuff(settings.data, "val2017")
    check_data(data, held_out, thorough=settings.thorough)
    measured = Subset.spread(held_out, settings.pictures)
    return labelled_recipe(
        settings,
        from_clip(settings.model, settings.clip),
        Views(data, CropAugmentation(shortest_edge=640, longest_edge=1333, crop=640), seed=settings.seed),
        objective=semantic(),
        schedule=warmup_cosine(settings.steps, warmup=min(1000, settings.steps // 10), start=0.001),
        validate=lambda model, folder: validate(model, measured, folder),
        origin="recipes/err_seg_coco_stuff.py",
    )
