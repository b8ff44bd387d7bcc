"""How CLIP learns where: regions of scenes, their words, and the maps they are read from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wordmask import clip
from wordmask.clip import CONVNEXT_MINI
from wordmask.data.augment import ScaleAugmentation
from wordmask.data.shapeland import COMPOSITIONS, MATERIALS, Scene, draw_scene
from wordmask.data.shapeland.sets import FIRST, SEEN, SQUARE
from wordmask.models import kind_of
from wordmask.training.objectives import choose_among
from wordmask.training.tiny_clip.regions import (
    NO_WORD,
    STRIDE,
    RegionLoss,
    RegionScenes,
    last_stage_at_16,
    pad_regions,
    regions_of,
)
from wordmask.vocabulary import Vocabulary

NAMES = Vocabulary.builtin(SEEN).names


@pytest.fixture(scope="module")
def scenes() -> RegionScenes:
    return RegionScenes(ScaleAugmentation(side=192, smallest=1.0, largest=1.2), seed=0)


def test_regions_cover_a_scene(scenes):
    labelled = scenes.labelled(*scene_and_source(3))
    masks, words = regions_of(labelled)
    assert masks.shape == (len(labelled.labels), 16, 16)
    torch.testing.assert_close(masks.sum(dim=0), torch.ones(16, 16))
    for number, mask in enumerate(masks, 1):
        cell = labelled.segments[STRIDE : 2 * STRIDE, :STRIDE] == number
        assert mask[1, 0] == pytest.approx(cell.mean())
    assert words.tolist() == labelled.labels.tolist()


def test_unseen_things_have_no_word(scenes):
    seen = {thing.name for thing in COMPOSITIONS if thing.seen} | set(MATERIALS)
    met = set()
    for number in range(20):
        scene, source = scene_and_source(number)
        labels = scenes.labelled(scene, source).labels
        for name, label in zip(scene.names, labels.tolist(), strict=True):
            name = getattr(name, "name", name)
            assert (NAMES[label] if label != NO_WORD else None) == (name if name in seen else None)
            met.add(label)
    assert NO_WORD in met
    assert len(met) > 20


def test_the_same_number_is_the_same_example(scenes):
    one, two = scenes[5], scenes[5]
    assert torch.equal(one.pixels, two.pixels)
    assert all(torch.equal(a, b) for a, b in zip(one.target, two.target, strict=True))
    assert not torch.equal(one.pixels, scenes[6].pixels)


def test_regions_outside_a_crop_have_no_word(scenes):
    labelled = scenes.labelled(*scene_and_source(0))
    gone = np.where(labelled.segments == 1, 2, labelled.segments)
    masks, words = regions_of(replace(labelled, segments=gone))
    assert words[0] == NO_WORD
    assert masks[0].max() == 0


def test_the_map_at_stride_16_is_the_one_of_err_seg():
    kind = kind_of("err-seg-tiny")
    model = kind.random(kind.presets["err-seg-tiny"])
    model.start_from_clip()
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        ours = clip.project_pixels(model.clip, last_stage_at_16(model.clip, clip.stage_maps(model.clip, pixels)[2]))
        torch.testing.assert_close(ours, model.encode_image(pixels).dense_x16)


def test_words_of_the_batch_are_among_those_compared():
    words = torch.tensor([[5, NO_WORD, 600], [17, 5, NO_WORD]])
    torch.manual_seed(0)
    chosen, labels = choose_among(words, len(NAMES), 40)
    assert len(chosen) == 40
    assert len(chosen.unique()) == 40
    assert torch.equal(torch.where(labels == NO_WORD, NO_WORD, chosen[labels.clamp(min=0)]), words)
    assert len(choose_among(words, len(NAMES), 2)[0]) == 3, "never fewer than are there"


def test_what_the_loss_asks_for(scenes, monkeypatch):
    """A tower whose regions are their words' vectors has a smaller loss than one whose regions are other words'
    vectors."""
    batch = pad_regions([scenes[0], scenes[1]])
    tower = clip.build(CONVNEXT_MINI)
    pair = torch.nn.Module()
    pair.clip = tower
    loss = RegionLoss(NAMES, most=len(NAMES))
    table = F.normalize(torch.randn(len(NAMES), CONVNEXT_MINI.width), dim=1)
    monkeypatch.setattr("wordmask.training.tiny_clip.regions.encode_phrases", lambda *_: table)

    def with_shift(shift: int) -> float:
        def pooled(_tower, x, masks):
            known = masks.shape[1] == batch.targets.words.shape[1]
            return (
                table[(batch.targets.words.clamp(min=0) + shift) % len(NAMES)]
                if known
                else torch.ones(len(x), 1, table.shape[1])
            )

        monkeypatch.setattr(clip, "pool_regions", pooled)
        torch.manual_seed(0)
        with torch.no_grad():
            return loss(pair, batch, [batch]).item()

    assert with_shift(0) < with_shift(1) - 5


def scene_and_source(number: int) -> tuple[Scene, str]:
    return draw_scene(FIRST["regions"] + number, SQUARE), f"scene {number}"
