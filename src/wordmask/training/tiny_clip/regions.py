"""How a CLIP that knows words learns where things are: regions of whole scenes are named, those of seen kinds alone.

Beside that it goes on to compare whole scenes with their captions, which name seen and unseen things alike.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import RandomState
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import Dataset

from wordmask import clip
from wordmask.clip import Clip
from wordmask.data.augment import resize
from wordmask.data.labelled import LabelledPicture
from wordmask.data.shapeland import Composition, Scene, Shapeland, World, caption, draw_scene, unseen_classes
from wordmask.data.shapeland.sets import FIRST, SEEN, SQUARE
from wordmask.models import eov_seg, err_seg
from wordmask.text import encode_phrases
from wordmask.training.from_labels import Augmentation
from wordmask.training.objectives import choose_among
from wordmask.training.recipe import Batch, Example
from wordmask.training.tiny_clip.captions import unit
from wordmask.training.tiny_clip.pair import ClipPair, pixels_of_scene
from wordmask.training.validation import DRAWN, draw_beside_truth, pictures_of, truth_of
from wordmask.vocabulary import Vocabulary

PROMPTS = (*err_seg.TEMPLATES, *eov_seg.TEMPLATES)
STRIDE = 16  # of the masks; the last stage sees half of that
NO_WORD = -1


class Regions(NamedTuple):
    """The caption of each scene, its regions, and their words.

    Args:
        tokens: Of the captions, zero-padded.
        masks: Share of each cell at stride 16 that a region covers; all zero where a scene has fewer than R regions.
        words: Numbers of classes, or `NO_WORD`.
    """

    tokens: Int[Tensor, "B L"]
    masks: Float[Tensor, "B R h w"]
    words: Int[Tensor, "B R"]


class RegionScenes(Dataset[Example[Regions]]):
    """Scenes with captions and regions, by number, without end. Regions of unseen things have no word.

    Args:
        augment: Its pictures must have sides that are multiples of 32.
        world: What the scenes look like.
    """

    def __init__(self, augment: Augmentation, seed: int, world: World = SQUARE):
        self.augment, self.seed, self.world = augment, seed, world
        self.label = {name: label for label, name in enumerate(Vocabulary.builtin(SEEN).names)}

    def __getitem__(self, number: int) -> Example[Regions]:
        seed = FIRST["regions"] + number
        scene = draw_scene(seed, self.world)
        labelled = self.augment(
            self.labelled(scene, f"Shapeland scene {seed}"), np.random.default_rng([self.seed, 2, number])
        )
        tokens = torch.tensor(clip.tokenize([caption(scene, RandomState(seed))])[0])
        return Example(pixels_of_scene(labelled.rgb), Regions(tokens, *regions_of(labelled)), labelled.source)

    def labelled(self, scene: Scene, source: str) -> LabelledPicture:
        """Label the regions of seen kinds."""
        names = [name.name if isinstance(name, Composition) else name for name in scene.names]
        labels = np.array([self.label.get(name, NO_WORD) for name in names], dtype=np.int64)
        return LabelledPicture(scene.rgb, scene.segments, labels, np.zeros(len(labels), dtype=bool), source)


def regions_of(labelled: LabelledPicture) -> tuple[Float[Tensor, "R h w"], Int[Tensor, " R"]]:
    """The share of each cell that every segment covers, and the segments' words."""
    numbers = torch.arange(1, len(labelled.labels) + 1)
    masks = (torch.from_numpy(labelled.segments.astype(np.int64)) == numbers[:, None, None]).float()
    masks = F.avg_pool2d(masks[None], STRIDE)[0]
    return masks, torch.where(masks.flatten(1).any(dim=1), torch.from_numpy(labelled.labels), NO_WORD)


def pad_regions(examples: list[Example[Regions]]) -> Batch[Regions]:
    """Stack pictures; captions and lists of regions are padded to the longest."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    targets = [example.target for example in examples]
    regions = Regions(
        pad([target.tokens for target in targets]),
        pad([target.masks for target in targets]),
        pad([target.words for target in targets], padding_value=NO_WORD),
    )
    return Batch(torch.stack([example.pixels for example in examples]), regions, [one.source for one in examples])


class RegionLoss:
    """Each region takes its own word among those of the batch and others at random, on both maps that ERR-Seg compares
    with words.

    Args:
        most: How many words are compared.
    """

    def __init__(self, names: list[str], most: int):
        self.names, self.most = names, most

    def __call__(self, model: ClipPair, part: Batch[Regions], whole: list[Batch[Regions]]) -> Float[Tensor, ""]:
        assert len(whole) == 1
        tower, target = model.clip, part.targets
        *_, x16, x32 = clip.stage_maps(tower, part.pixels.contiguous(memory_format=torch.channels_last))
        scale = tower.logit_scale.exp().clamp(max=100)
        pictures = unit(clip.pool_regions(tower, x32, torch.ones_like(x32[:, :1]))[:, 0])
        captions = unit(clip.encode_tokens(tower, target.tokens))
        loss = clip.contrastive_loss(pictures, captions, scale)
        words, labels = choose_among(target.words, len(self.names), self.most)
        prompt = PROMPTS[int(torch.randint(len(PROMPTS), ()))]
        text = encode_phrases(tower, [self.names[word] for word in words.tolist()], (prompt,))
        masks = {STRIDE: target.masks, 2 * STRIDE: F.avg_pool2d(target.masks, 2)}
        for stride, x in ((STRIDE, last_stage_at_16(tower, x16)), (2 * STRIDE, x32)):
            regions = unit(clip.pool_regions(tower, x, masks[stride]))  # (B, R, D)
            with torch.autocast(x.device.type, enabled=False):  # half precision can't tell large logits apart
                logits = scale * (regions @ text.float().T).flatten(0, 1)  # (B·R, S)
                loss = loss + F.cross_entropy(logits, labels.flatten(), ignore_index=NO_WORD)
        return loss


def last_stage_at_16(tower: Clip, x16: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C2 h w"]:
    """The last stage on the grid of the third, as ERR-Seg begins: through `MiddleDownsample`, here with CLIP's own
    weights, which learn."""
    norm, conv = clip.last_downsampling(tower)
    with torch.device("meta"):
        middle = err_seg.MiddleDownsample(x16.shape[1])
    own: dict[str, Tensor] = {f"norm.{name}": parameter for name, parameter in norm.named_parameters()}
    own |= {f"conv.{name}": parameter for name, parameter in conv.named_parameters()}
    return clip.last_stage_blocks(tower, functional_call(middle, own, x16))


@torch.no_grad()
def region_naming(model: ClipPair, side: int, scenes: int, folder: Path | None = None) -> dict[str, float]:
    """Name the regions of validation scenes among `shapeland-150`, on the finer map; percent right: things, seen and
    unseen; materials.

    Args:
        side: To which the scenes are resized, pixels.
        folder: Where the first scenes are drawn with the names they got, beside the truth.
    """
    data, unseen = Shapeland("shapeland-150", "validation", scenes), unseen_classes("shapeland-150")
    is_thing = np.array([entry.thing for entry in data.vocabulary])
    text = encode_phrases(model.clip, data.vocabulary.names, err_seg.TEMPLATES)
    found, true = [], []
    for place, scene in enumerate(pictures_of(data)):
        labelled = resize(scene, (side, side))
        masks, words = regions_of(labelled)
        *_, x16, _ = clip.stage_maps(model.clip, pixels_of_scene(labelled.rgb)[None].to(text.device))
        vectors = clip.pool_regions(model.clip, last_stage_at_16(model.clip, x16), masks[None].to(text.device))[0]
        names = (F.normalize(vectors, dim=-1) @ text.T).argmax(dim=1).cpu().numpy()
        if folder is not None and place < DRAWN:
            named = truth_of(replace(labelled, labels=names), data.vocabulary, "panoptic")
            draw_beside_truth(named, labelled, folder / f"{place}.png")
        there = words.numpy() != NO_WORD
        found.append(names[there])
        true.append(labelled.labels[there])
    labels = np.concatenate(true)
    right, thing, strange = np.concatenate(found) == labels, is_thing[labels], unseen[labels]
    groups = {"named": thing, "named seen": thing & ~strange, "named unseen": thing & strange, "materials": ~thing}
    return {name: 100 * float(right[group].mean()) for name, group in groups.items()}
