"""ERR-Seg, tiny, on Shapeland: the recipe of the paper in small. CLIP comes from recipes/shapeland_regions.py.

command   wordmask train recipes/shapeland_err_seg.py
hardware  one core with avx512_bf16, beside the other model's training and more, 41 min for 2500 steps, 25 for the
          other 2000
expected  shapeland-150, validation: mIoU 61.4 (seen 65.4, unseen 56.6); after 2500 steps 58.3
reached   at 37ac7e9
"""

from dataclasses import dataclass
from pathlib import Path

from wordmask.data.augment import ColourJitter, CropAugmentation
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.data.shapeland.sets import SEEN
from wordmask.models.err_seg import PRESETS, ErrSeg
from wordmask.training.from_labels import Views, labelled_recipe
from wordmask.training.objectives import semantic
from wordmask.training.recipe import Recipe, TrainingSettings
from wordmask.training.schedules import rounds
from wordmask.training.tiny_clip import pair
from wordmask.training.validation import validate

PRESET = "err-seg-tiny"
COLOURS = ColourJitter(hue=3)  # the paper's 18 turns red into orange, and here colours have names


@dataclass(frozen=True)
class TinyErrSegSettings(TrainingSettings):
    """What differs from `TrainingSettings`.

    Args:
        clip: What recipes/shapeland_regions.py wrote.
        most: Classes that take part in a step, as many as COCO-Stuff has: the words are encoded at every step.
        keep: Of those, how many the aggregator refines; the paper's 32 would take twice the time, and scenes hold
            eleven classes at most.
        clip_factor: Of the rate, for CLIP's weights; a CLIP as small as this one has more to learn than the paper's
            0.01 lets it.
        first: Steps of the first round; the rest are a second one, in which the rate rises again.
        scenes: Of the validation.
    """

    folder: Path = Path("runs/shapeland_err_seg")
    clip: Path = Path("runs/shapeland_regions/last.safetensors")
    steps: int = 4500
    first: int = 2500
    batch: int = 4
    rate: float = 1e-3
    precision: str = "bfloat16"
    most: int = 171
    keep: int = 16
    clip_factor: float = 0.1
    scenes: int = 100
    validate_every: int = 1250
    save_every: int = 250


def build(settings: TinyErrSegSettings) -> Recipe:
    model = ErrSeg(PRESETS[PRESET])
    model.clip.load_state_dict(pair.load(settings.clip).clip.state_dict())
    model.start_from_clip()
    side = model.config.resolution
    data = Shapeland(SEEN, "training", settings.steps * settings.batch)
    held_out = Shapeland("shapeland-150", "validation", settings.scenes)
    augment = CropAugmentation(shortest_edge=side, longest_edge=2 * side, crop=side, colours=COLOURS)
    return labelled_recipe(
        settings,
        model,
        Views(data, augment, seed=settings.seed, shuffle=False),
        objective=semantic(most=settings.most, keep=settings.keep, clip_factor=settings.clip_factor),
        schedule=rounds(settings.first, settings.steps, warmup=31, start=0.001),
        validate=lambda model, folder: validate(model, held_out, folder, unseen=unseen_classes("shapeland-150")),
        origin="recipes/shapeland_err_seg.py",
    )
