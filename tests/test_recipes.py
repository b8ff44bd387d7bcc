"""Every recipe takes two steps: those of Shapeland as they are, those of COCO on the sample photographs laid out as
COCO publishes them."""

import csv
import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wordmask import clip
from wordmask.data.datasets import CocoPanoptic, CocoStuff, LabelledFolder
from wordmask.models import MODELS, kind_of
from wordmask.models.load import load_model
from wordmask.training.blends import Weights, blend
from wordmask.training.command import load_recipe, read_settings, settings_class, start
from wordmask.training.finetune import with_classes
from wordmask.training.from_clip import from_clip
from wordmask.training.loop import train
from wordmask.training.optimiser import build_optimiser
from wordmask.training.tiny_clip import pair
from wordmask.vocabulary import Vocabulary

TWO_STEPS = ("steps=2", "workers=0", "validate_every=2", "save_every=2", "precision=float32")


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory) -> Path:
    """Two steps of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    start("shapeland_clip", [f"folder={folder}", *TWO_STEPS, "batch=8", "plain=1", "widening=0"])
    return folder / "last.safetensors"


@pytest.fixture
def coco(shared, tmp_path) -> Path:
    """The two COCO samples as COCO Panoptic and COCO-Stuff publish them, as training and validation set."""
    samples = shared / "samples" / "coco"
    panoptic = CocoPanoptic(samples, annotations="panoptic.json", segments="panoptic", pictures="images")
    for split in ("train2017", "val2017"):
        shutil.copytree(samples / "images", tmp_path / split)
        shutil.copytree(samples / "panoptic", tmp_path / "annotations" / f"panoptic_{split}")
        shutil.copy(samples / "panoptic.json", tmp_path / "annotations" / f"panoptic_{split}.json")
        (tmp_path / "stuffthingmaps" / split).mkdir(parents=True)
        for place in range(len(panoptic)):
            labelled = panoptic[place]
            ids = np.array([panoptic.vocabulary.classes[label].dataset_id for label in labelled.labels])
            # merged classes of the panoptic set have ids above those of COCO-Stuff
            raw = np.where(ids <= 182, ids - 1, 255)
            values = np.concatenate([[255], raw])[labelled.segments].astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "stuffthingmaps" / split / (Path(labelled.source).stem + ".png"))
    return tmp_path


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def scores_in(folder: Path) -> list[dict[str, str]]:
    return rows_in(folder / "scores.csv")


@pytest.mark.slow
def test_clip_on_shapeland(clip_file):
    rows = scores_in(clip_file.parent)
    assert {"named", "named seen", "named unseen", "shape", "colour", "pattern"} < rows[-1].keys()
    assert (clip_file.parent / "pictures" / "000002" / "names.png").exists()


@pytest.mark.slow
def test_regions_on_shapeland(clip_file, tmp_path):
    outcome = start(
        "shapeland_regions", [f"folder={tmp_path}", f"clip={clip_file}", "scenes=2", "batch=2", "most=20", *TWO_STEPS]
    )
    assert outcome.finished
    assert outcome.scores.keys() == {"named", "named seen", "named unseen", "materials"}
    assert sorted(path.name for path in (tmp_path / "pictures" / "000002").iterdir()) == ["0.png", "1.png"]
    before, after = (pair.load(path) for path in (clip_file, tmp_path / "last.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(before.vit.parameters(), after.vit.parameters(), strict=True))
    assert not torch.equal(before.clip.text_projection, after.clip.text_projection)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "score"), [("shapeland_err_seg", "mIoU"), ("shapeland_eov_seg", "PQ")])
def test_both_models_on_shapeland(clip_file, tmp_path, recipe, score):
    outcome = start(recipe, [f"folder={tmp_path}", f"clip={clip_file}", "scenes=2", "batch=2", *TWO_STEPS])
    assert outcome.finished
    assert {score, f"{score} seen", f"{score} unseen"} <= outcome.scores.keys()
    assert sorted(path.name for path in (tmp_path / "pictures" / "000002").iterdir()) == ["0.png", "1.png"]
    trained = load_model(tmp_path / "last.safetensors").model
    begun = (
        load_recipe(recipe)
        .build(settings_of(recipe, f"folder={tmp_path}", f"clip={clip_file}", "batch=2", *TWO_STEPS))
        .model
    )
    state, before = trained.state_dict(), begun.state_dict()
    assert all(
        torch.equal(state[name], before[name]) for name, _ in trained.named_parameters() if not trained.is_trained(name)
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["shapeland_err_seg", "shapeland_eov_seg"])
def test_both_models_go_on_bit_by_bit(clip_file, tmp_path, recipe):
    """Dropped layers, random points, running statistics: all of it continues."""
    common = [
        f"clip={clip_file}",
        "scenes=1",
        "batch=2",
        "workers=0",
        "validate_every=9",
        "save_every=1",
        "steps=3",
        "precision=float32",
    ]
    start(recipe, [f"folder={tmp_path / 'whole'}", *common])
    module, settings = load_recipe(recipe), settings_of(recipe, f"folder={tmp_path / 'parts'}", *common)
    begun = module.build(settings)

    def interrupted(model, part, whole):
        signal.raise_signal(signal.SIGTERM)
        return begun.loss(model, part, whole)

    torch.manual_seed(settings.seed)
    assert not train(dataclasses.replace(module.build(settings), loss=interrupted), settings).finished
    start(recipe, [f"folder={tmp_path / 'parts'}", *common])
    losses = [[row["loss"] for row in rows_in(tmp_path / name / "losses.csv")] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["err_seg_coco_stuff", "eov_seg_coco_panoptic"])
def test_both_models_on_coco(coco, tmp_path, recipe):
    model = {"err_seg_coco_stuff": "err-seg-untrained", "eov_seg_coco_panoptic": "eov-seg-untrained"}[recipe]
    spatial = ["spatial=random"] if model.startswith("eov") else []
    folder = tmp_path / "run"
    arguments = [
        f"folder={folder}",
        f"data={coco}",
        f"model={model}",
        "clip=random",
        "pictures=1",
        "batch=2",
        *spatial,
        *TWO_STEPS,
    ]
    assert start(recipe, arguments).finished
    assert len(scores_in(folder)) == 1
    assert load_model(folder / "last.safetensors").model.family == model[:7]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "file"), [("err-seg-base", "err_seg_b.optimizer.json"), ("err-seg-large", "err_seg_l.optimizer.json")]
)
def test_the_optimiser_of_the_recipe_is_the_references(parity, coco, model, file):
    """The real AdamW that the loop builds from the recipe as it is: every trained parameter with its rate and decay."""
    theirs = json.loads((parity.folder / file).read_text())["parameters"]
    recipe = load_recipe("err_seg_coco_stuff").build(
        settings_of("err_seg_coco_stuff", f"data={coco}", f"model={model}", "clip=random")
    )
    optimiser = build_optimiser(recipe.model, recipe.groups(recipe.model), betas=recipe.betas)
    names = {
        id(parameter): MODELS["err-seg"].reference.name(name) for name, parameter in recipe.model.named_parameters()
    }
    ours = {
        names[id(p)]: [group["lr"], group["weight_decay"]] for group in optimiser.param_groups for p in group["params"]
    }
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == pytest.approx(theirs[name]) for name in theirs)
    trained = {names[id(parameter)] for parameter in recipe.model.parameters() if parameter.requires_grad}
    assert trained == theirs.keys()


# Fine-tuning ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["err-seg-untrained", "eov-seg-untrained"])
def test_fine_tuning_learns_and_reports(garden, tmp_path, model, capsys):
    folder = tmp_path / "run"
    arguments = [
        f"data={garden}",
        f"start={model}",
        f"folder={folder}",
        "steps=2",
        "batch=2",
        "workers=0",
        "pictures=1",
    ]
    assert start("finetune", arguments).finished
    report = json.loads((folder / "report.json").read_text())
    assert list(report["scores"]) == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    assert report["scores"]["0.0"].keys() == {"own", "held out"}
    assert "0 (before)" in capsys.readouterr().out
    whole = load_model(folder / "finetuned.safetensors").model
    start("finetune", [*arguments, "blend=0.5"])  # trained already: blended and measured only
    half, before = load_model(folder / "finetuned.safetensors").model.state_dict(), load_model(model).model.state_dict()
    name = next(name for name, parameter in whole.named_parameters() if whole.is_trained(name) and parameter.ndim > 1)
    assert torch.allclose(half[name], (before[name] + whole.state_dict()[name]) / 2, atol=1e-6)
    if model.startswith("eov"):
        assert "blue door" in whole.training_vocabulary


@pytest.mark.slow
def test_fine_tuning_goes_on_with_the_same_labels_alone(garden, tmp_path):
    arguments = [
        f"data={garden}",
        "start=err-seg-untrained",
        f"folder={tmp_path / 'run'}",
        "steps=1",
        "batch=1",
        "workers=0",
        "pictures=1",
    ]
    start("finetune", arguments)
    corrected = np.array(Image.open(garden / "labels" / "1.png"))
    corrected[0] = 255
    Image.fromarray(corrected).save(garden / "labels" / "1.png")
    with pytest.raises(ValueError, match="the data's fingerprint is"):
        start("finetune", arguments)


@pytest.mark.slow
def test_fine_tuning_on_coco_json(shared, tmp_path):
    root = tmp_path / "own"
    shutil.copytree(shared / "samples" / "coco" / "images", root / "images")
    shutil.copy(shared / "samples" / "coco" / "instances.json", root / "annotations.json")
    arguments = [
        f"data={root}",
        "start=eov-seg-untrained",
        f"folder={tmp_path / 'run'}",
        "steps=2",
        "batch=1",
        "workers=0",
        "pictures=1",
    ]
    assert start("finetune", arguments).finished


def test_bad_data_stop_before_anything_is_trained(garden, tmp_path):
    (garden / "labels" / "3.png").unlink()
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(garden / "labels" / "4.png")
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(garden / "labels" / "5.png")
    with pytest.raises(ValueError, match=r"3\.png") as caught:
        start("finetune", [f"data={garden}", "start=err-seg-untrained", f"folder={tmp_path / 'run'}"])
    assert "4.png" in str(caught.value)
    assert "5.png" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_empty_json_stops_before_anything_is_trained(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(ValueError, match=r"annotations\.json"):
        start("finetune", [f"data={tmp_path}", f"folder={tmp_path / 'run'}"])


def test_missing_coco_is_named(tmp_path):
    for recipe in ("err_seg_coco_stuff", "eov_seg_coco_panoptic"):
        with pytest.raises(ValueError, match="nowhere"):
            start(recipe, [f"data={tmp_path / 'nowhere'}", f"folder={tmp_path / 'run'}"])


def test_one_picture_is_too_few(garden, tmp_path):
    for number in range(1, 6):
        (garden / "images" / f"{number}.png").unlink()
        (garden / "labels" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="at least 2"):
        start("finetune", [f"data={garden}", f"folder={tmp_path / 'run'}"])


def test_blends_lie_between():
    model = torch.nn.BatchNorm1d(2)
    model.config = "before"
    start_weights = Weights.of(model)
    model.weight.data, model.num_batches_tracked, model.config = torch.tensor([3.0, 1.0]), torch.tensor(5), "after"
    tuned = Weights.of(model)
    for share, weight, count, config in (
        (0.0, [1, 1], 0, "before"),
        (0.25, [1.5, 1], 5, "after"),
        (1.0, [3, 1], 5, "after"),
    ):
        blend(model, start_weights, tuned, share)
        assert (model.weight.tolist(), model.num_batches_tracked.item(), model.config) == (weight, count, config)


def test_new_classes_count_as_seen_afterwards(garden):
    model = with_classes(load_model("eov-seg-untrained").model, LabelledFolder(garden).vocabulary)
    names = [name for entry in Vocabulary.of(model.training_vocabulary) for name in entry.names]
    assert {"red wall", "blue door", "blue gate", "person"} <= set(names)
    assert len(names) == len(set(names))


def test_coco_layouts_are_checked_before_training(coco):
    CocoStuff(coco).check()
    (coco / "stuffthingmaps" / "train2017" / "000000439180.png").unlink()
    with pytest.raises(ValueError, match="000000439180"):
        start(
            "err_seg_coco_stuff", [f"data={coco}", f"folder={coco / 'run'}", "clip=random", "model=err-seg-untrained"]
        )


def test_labels_may_be_decoded_before_training(coco):
    Image.fromarray(np.full((427, 640), 200, np.uint8)).save(coco / "stuffthingmaps" / "train2017" / "000000142238.png")
    arguments = [f"data={coco}", f"folder={coco / 'run'}", "clip=random", "model=err-seg-untrained", "thorough=true"]
    with pytest.raises(ValueError, match="holds 200; expected 0 to 181"):
        start("err_seg_coco_stuff", arguments)


def test_the_spatial_extractor_begins_with_a_whole_clip(tmp_path):
    """As published: image and text tower in one file, whose transformers name their blocks alike."""
    kind = kind_of("eov-seg-untrained")
    config = kind.presets["eov-seg-untrained"].spatial
    vit, whole = clip.build_vit(config, layers=2, width=32), clip.build(kind.presets["eov-seg-untrained"].clip)
    state = {f"visual.{name}": tensor for name, tensor in vit.state_dict().items()}
    state |= {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("visual.")}
    torch.save(state, tmp_path / "clip.pt")
    model = from_clip("eov-seg-untrained", "random", str(tmp_path / "clip.pt"))
    assert torch.equal(model.spatial.conv1.weight, vit.conv1.weight)
    assert torch.equal(model.spatial.blocks[0].attn.in_proj_weight, vit.transformer.resblocks[0].attn.in_proj_weight)


def settings_of(recipe: str, *assignments: str):
    return read_settings(settings_class(load_recipe(recipe)), list(assignments))
