"""The CLIP that trainings begin with: that of the bundled models, and further blocks of its ViT, of which those hold
only the first.

Whoever trained recipes/shapeland_regions.py has all of it, and names that file instead.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from wordmask import bundled, weights
from wordmask.clip import contrastive_loss, encode_by_vit, encode_tokens
from wordmask.data.shapeland import World
from wordmask.hardware import choose_device, choose_precision
from wordmask.models.eov_seg import EovSegConfig
from wordmask.training.checkpoints import LAST
from wordmask.training.command import load_recipe, read_settings, settings_class
from wordmask.training.loop import train
from wordmask.training.recipe import Batch
from wordmask.training.tiny_clip.captions import Captions
from wordmask.training.tiny_clip.naming import naming
from wordmask.training.tiny_clip.pair import ClipPair, PairConfig

BLOCKS = 3  # as many as recipes/shapeland_clip.py trains


def starting_clip(folder: Path, device: str, steps: int, more: tuple[str, ...] = ()) -> Path:
    """Train the further blocks on captions, everything else as it is; return the file. A training found in the folder
    goes on.

    Args:
        more: Settings of recipes/shapeland_clip.py, as `key=value`.

    Raises:
        InterruptedError: It was told to stop.
    """
    module = load_recipe("shapeland_clip")
    own = (
        f"folder={folder}",
        f"device={device}",
        f"steps={steps}",
        f"plain={steps // 3}",
        f"widening={steps // 3}",
        "batch=128",
    )
    given = {setting.partition("=")[0]: setting for setting in (*own, *more)}
    settings = read_settings(settings_class(module), list(given.values()))
    settings = replace(
        settings, precision=choose_precision("auto", choose_device(settings.device)), validate_every=settings.steps
    )
    torch.manual_seed(settings.seed)
    pair = bundled_pair()
    recipe = replace(
        module.build(settings),
        model=pair,
        loss=by_captions,
        fingerprint=weights.fingerprint(pair.state_dict()),
        sources=(Path(__file__),),
    )
    recipe = replace(recipe, validate=partial(named_by_vit, world=recipe.examples.worlds[-1][1]))
    if not train(recipe, settings).finished:
        raise InterruptedError(f"The training in {str(folder)!r} was stopped; the same command goes on from there.")
    return folder / LAST


def bundled_pair() -> ClipPair:
    """The bundled models' frozen CLIP and the first block of its ViT; the further blocks are random, and alone to be
    trained."""
    checkpoint = bundled.unpack("eov-seg-tiny")
    config = weights.configure(EovSegConfig, checkpoint.configuration)
    pair = ClipPair(PairConfig(config.clip, config.spatial, vit_layers=BLOCKS))
    pair.clip.load_state_dict(part_of(checkpoint.state, "clip."))
    beginning = {
        name.replace("blocks.", "transformer.resblocks."): tensor
        for name, tensor in part_of(checkpoint.state, "spatial.").items()
    }
    pair.vit.load_state_dict(beginning, strict=False)
    pair.clip.requires_grad_(False)
    for name, parameter in pair.vit.named_parameters():
        parameter.requires_grad_(name not in beginning)
    return pair


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of a part, by its own names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def by_captions(model: ClipPair, part: Batch[Captions], whole: list[Batch[Captions]]) -> Tensor:
    """The ViT against captions."""
    assert len(whole) == 1
    seen, read = encode_by_vit(model.vit, part.pixels), encode_tokens(model.clip, part.targets.tokens)
    seen, read = (F.normalize(vectors.float(), dim=-1) for vectors in (seen, read))
    return contrastive_loss(seen, read, model.clip.logit_scale.exp().clamp(max=100))


def named_by_vit(model: ClipPair, folder: Path, world: World) -> dict[str, float]:
    """Percent of single things that the ViT names right, and by what is wrong."""
    return naming(model, world, folder, encode=lambda pixels: encode_by_vit(model.vit, pixels))
