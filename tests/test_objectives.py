"""What a model learns from labelled pictures: the same pixels as it will see, its own objective, and clear words where
something is not known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import filled
from wordmask import clip
from wordmask.data.augment import ScaleAugmentation
from wordmask.data.datasets import LabelledFolder
from wordmask.data.labelled import DataSet, LabelledPicture
from wordmask.data.shapeland import Shapeland
from wordmask.image import prepare
from wordmask.models import MODELS, eov_seg, err_seg
from wordmask.pixels import ImageInput
from wordmask.raw import ClassMaps
from wordmask.text import Words
from wordmask.training.from_clip import from_clip
from wordmask.training.from_labels import Views, labelled_recipe
from wordmask.training.objectives import Objective, masks, objective_of, semantic
from wordmask.training.optimiser import ParameterGroup
from wordmask.training.recipe import Batch, Recipe, TrainingSettings
from wordmask.training.validation import Subset, pictures_of

OTHER = {"mean": (100.0, 110.0, 120.0), "std": (20.0, 30.0, 40.0)}  # no model's constants


class OtherErrSeg(err_seg.ErrSeg):
    """ERR-Seg with other constants, and no other size than the pictures have."""

    image_input = ImageInput(256, 256, square=256, **OTHER)


class OtherEovSeg(eov_seg.EovSeg):
    """EOV-Seg, likewise."""

    image_input = ImageInput(256, 256, square=None, **OTHER)


def as_it_is(labelled: LabelledPicture, _: np.random.Generator) -> LabelledPicture:
    return labelled


def recipe_for(model, objective: Objective, augment=as_it_is) -> Recipe:
    settings = TrainingSettings(Path("nowhere"), steps=2, batch=2, rate=1e-3)
    return labelled_recipe(
        settings,
        model,
        Views(Shapeland("shapeland-150", "training", 3), augment, seed=settings.seed),
        objective=objective,
        schedule=lambda step: 1.0,
        validate=lambda model, folder: {},
        origin="a test",
    )


@pytest.mark.parametrize(("kind", "family"), [(OtherErrSeg, "err-seg"), (OtherEovSeg, "eov-seg")])
def test_training_sees_the_pixels_that_inference_sees(kind, family):
    """With other constants than CLIP's, too."""
    model = kind(MODELS[family].presets[f"{family}-untrained"])
    recipe = recipe_for(model, objective_of(family))
    views = Views(Shapeland("shapeland-150", "training", 3), as_it_is, seed=0)
    for number in range(3):
        wanted, _ = prepare(views[number].rgb, model.image_input)
        torch.testing.assert_close(recipe.examples[number].pixels, wanted, rtol=0, atol=1e-6)


def test_each_family_has_the_numbers_of_its_paper():
    by_family = {family: objective_of(family) for family in ("err-seg", "eov-seg")}
    numbers = {
        family: (one.clip_factor, one.weight_decay, one.gradient_norm, one.muon) for family, one in by_family.items()
    }
    assert numbers == {"err-seg": (0.01, 1e-4, None, None), "eov-seg": (1.0, 0.05, 0.01, None)}
    recipe = recipe_for(filled("eov-seg-untrained"), masks())
    assert recipe.gradient_norm == 0.01
    assert {group.rate for group in recipe.groups(recipe.model)} == {1e-3}


def test_groups_may_follow_muon():
    groups = masks(muon=3).groups(filled("eov-seg-untrained"), rate=1e-3)
    muon, adamw = ([group for group in groups if group.muon is which] for which in (True, False))
    assert {group.rate for group in muon} == {3e-3}
    assert {group.rate for group in adamw} == {1e-3}
    assert all(parameter.ndim == 2 for group in muon for parameter in group.parameters.values())
    assert all(isinstance(group, ParameterGroup) for group in groups)


def test_a_recipe_for_another_objective_is_refused():
    with pytest.raises(ValueError, match="trains models of the family err-seg; eov-seg came"):
        recipe_for(filled("eov-seg-untrained"), semantic())
    with pytest.raises(ValueError, match="trains models of the family eov-seg; err-seg came"):
        recipe_for(filled("err-seg-untrained"), masks())


def test_a_family_from_outside_learns_by_its_objective(monkeypatch):
    """Nothing asks for its name: what its row says, it learns."""
    outside = replace(MODELS["eov-seg"], family="fc-clip")
    monkeypatch.setitem(MODELS, "fc-clip", outside)
    model = filled("eov-seg-untrained")
    model.family = "fc-clip"
    recipe = recipe_for(model.train(), objective_of("fc-clip"), ScaleAugmentation(64, 0.5, 1.5))
    batch = recipe.collate([recipe.examples[number] for number in range(2)])
    assert recipe.loss(recipe.model, batch, [batch]).isfinite()


class KeepsAll(torch.nn.Module):
    """Emits maps of all classes: the cosine of each pixel's colour and a word's first three entries."""

    family, keep_steps = "err-seg", ()
    image_input = ImageInput(256, 256, square=256, **OTHER)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def encode_text(self, phrases: list[str]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.arange(3.0 * len(phrases)).view(-1, 3) + 1, dim=1)

    def forward(self, pixels: torch.Tensor, words: Words) -> ClassMaps:
        logits = torch.einsum("bchw,tc,c->bthw", pixels, words.embeddings, self.weight)
        every = torch.arange(logits.shape[1]).expand(logits.shape[:2])
        return ClassMaps(logits, every, logits.amax(dim=(2, 3)))


def test_a_model_that_keeps_all_classes_learns_maps_too():
    """It takes no `keep`, nor which classes are present."""
    recipe = recipe_for(KeepsAll(), semantic(most=20))
    batch = recipe.collate([recipe.examples[number] for number in range(2)])
    recipe.loss(recipe.model, batch, [batch]).backward()
    assert recipe.model.weight.grad.abs().min() > 0


def test_what_is_not_known_is_said(monkeypatch):
    monkeypatch.setitem(MODELS, "fc-clip", replace(MODELS["eov-seg"], objective="dreams"))
    for family in ("fc-clip", "san"):
        with pytest.raises(ValueError, match=f"not known for {family}.*expected .*semantic or masks"):
            objective_of(family)


def test_every_family_begins_with_clip(tmp_path):
    """A file in open_clip's format fills the CLIP of a model, and what it starts from CLIP."""
    for preset in ("err-seg-untrained", "eov-seg-untrained"):
        kind = MODELS[preset.removesuffix("-untrained")]
        whole = clip.build(kind.presets[preset].clip)
        torch.save(whole.state_dict(), tmp_path / "clip.pt")
        model = from_clip(preset, str(tmp_path / "clip.pt"), "random")
        assert torch.equal(model.clip.text_projection, whole.text_projection)
        if preset.startswith("err"):
            _, conv = clip.last_downsampling(whole)
            assert torch.equal(model.middle_downsample.conv.weight, conv.weight)


def test_pictures_are_looked_at_in_permuted_epochs():
    """Every picture once an epoch, in another order each, the same for the same seed."""
    views = Views(Shapeland("shapeland-150", "training", 5), as_it_is, seed=3)
    epochs = [[views[number].source for number in range(5 * epoch, 5 * epoch + 5)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = Views(Shapeland("shapeland-150", "training", 5), as_it_is, seed=3)
    assert again[7].source == epochs[1][2], "whatever was asked for before"
    in_order = Views(Shapeland("shapeland-150", "training", 5), as_it_is, seed=3, shuffle=False)
    assert [in_order[number].source[-1] for number in range(7)] == list("0123401")


def test_part_of_a_data_set_is_one(garden):
    whole = LabelledFolder(garden)
    part = Subset(whole, [4, 1])
    assert isinstance(part, DataSet)
    assert [labelled.source for labelled in pictures_of(part)] == [whole[4].source, whole[1].source]
    assert part.files(1) == whole.files(1)
    part.check(thorough=True)
    assert len(Subset.spread(whole, 4)) == 4
    assert len(Subset.spread(whole, 40)) == 6


@pytest.mark.parametrize("targets", [torch.zeros(2), [torch.zeros(2)], (torch.zeros(2), torch.ones(1))])
def test_targets_of_every_form_are_moved(targets):
    moved = Batch(torch.zeros(1, 3, 2, 2), targets, ["a"]).to(torch.device("meta")).targets
    assert type(moved) is type(targets)
    for tensor in [moved] if isinstance(moved, torch.Tensor) else moved:
        assert tensor.is_meta
