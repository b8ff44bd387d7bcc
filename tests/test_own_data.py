"""Fine-tuning on one's own data: what is looked at before it, what is told, and how it goes on."""

import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wordmask.data.reading import FILLED, FolderReading
from wordmask.data.shapeland import Shapeland
from wordmask.evaluation.metrics import PanopticScore
from wordmask.evaluation.scoring import present
from wordmask.training.command import load_recipe, read_settings, settings_class, start
from wordmask.training.finetune import FineTuneData, FineTuneSettings, open_data
from wordmask.training.validation import Subset, pictures_of

FEW = ("steps=2", "batch=1", "workers=0", "pictures=1", "device=cpu")


@pytest.mark.slow
def test_data_that_were_repaired_may_be_gone_on_with(garden, tmp_path, capsys):
    """A photograph that breaks stops nothing in the middle; repaired or taken out, the training goes on, if asked."""
    arguments = [f"data={garden}", "start=err-seg-untrained", f"folder={tmp_path / 'run'}", *FEW]
    start("finetune", arguments)
    picture = garden / "images" / "1.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-60])
    with pytest.raises(ValueError, match=r"Pictures that cannot be read \(1\)(.|\n)*images/1\.png(.|\n)*partial=true"):
        start("finetune", arguments)
    with pytest.raises(ValueError, match=r"the data's fingerprint is(.|\n)*accept_changed_data=true"):
        start("finetune", [*arguments, "partial=true"])
    assert start("finetune", [*arguments, "partial=true", "accept_changed_data=true"]).finished
    said = capsys.readouterr().err
    assert "with 1 whole pictures of 6" in said
    assert "the data have changed; the training goes on with these" in said
    picture.write_bytes(whole)
    assert start("finetune", arguments).finished
    garden.rename(tmp_path / "moved")  # the same contents elsewhere are the same data
    assert start("finetune", [f"data={tmp_path / 'moved'}", *arguments[1:]]).finished


@pytest.mark.slow
@pytest.mark.parametrize("format", ["labels", "coco", "coco-panoptic", "yolo"])
def test_what_batch_labels_can_be_learnt_from(tmp_path, run, format, capsys):
    """Pre-label, correct, fine-tune: without any work by hand between."""
    data = Shapeland("shapeland-150", "test", 4)
    for place in range(4):
        path = tmp_path / "shots" / ("deep/er" if place == 3 else ".") / f"shot {place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data[place].rgb).save(path)
    words = data.vocabulary.names[:40]
    status, _, _ = run(
        "batch", "shots", "out", "--words", "; ".join(words), "--model", "eov-seg-tiny", "--format", format
    )
    assert status == 0
    outcome = start("finetune", ["data=out", "start=eov-seg-tiny", f"folder={tmp_path / 'run'}", *FEW])
    assert outcome.finished
    said = capsys.readouterr().err
    assert "3 pictures to learn from, 1 to measure on" in said
    assert all(word in said for word in words)
    if format != "labels":
        assert outcome.scores.keys() == {"PQ", "mIoU", "AP"}


def data_of(folder: Path, *more: str) -> FineTuneData:
    return open_data(read_settings(settings_class(load_recipe("finetune")), [f"data={folder}", *more]))


def test_the_classes_are_told_before_training(garden, capsys):
    for number in range(1, 6):
        labels = np.zeros((48, 64), np.uint8)
        labels[:12] = 255
        Image.fromarray(labels).save(garden / "labels" / f"{number}.png")
    data = data_of(garden)
    assert (len(data.learn), len(data.own)) == (4, 2)
    said = capsys.readouterr().err
    assert "4 pictures to learn from, 2 to measure on" in said
    (row,) = (line for line in said.splitlines() if "0 red wall" in line)
    assert "9,216" in row
    assert "75.00 %" in row
    assert "never in what is learnt: blue door (1 of 2 classes)" in said
    assert "Each measurement looks at 2 of the 2 pictures to measure on" in said


def test_measured_pictures_are_spread_over_all(garden):
    for number in range(6, 30):
        rgb = np.full((48, 64, 3), 8 * number, np.uint8)
        Image.fromarray(rgb).save(garden / "images" / f"{number:02}.png")
        Image.fromarray(np.ones((48, 64), np.uint8)).save(garden / "labels" / f"{number:02}.png")
    own = data_of(garden, "pictures=3").own
    assert [Path(one.source).stem for one in own] == ["0", "14", "23"]
    assert Subset.spread(own, 2).places == [0, 1]


def test_copies_of_a_picture_stay_in_one_half(garden, capsys):
    for number in (2, 3):
        shutil.copy(garden / "images" / "0.png", garden / "images" / f"{number}.png")
    data = data_of(garden)
    learnt, measured = ({Path(one.source).stem for one in half} for half in (data.learn, data.own))
    assert measured == {"0", "2", "3"}
    assert learnt == {"1", "4", "5"}
    assert "3 pictures have the same contents as another; they are kept in one half: 0.png = 2.png = … (3)" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_pictures_that_are_measured_elsewhere_are_not_learnt_from(garden, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(garden, other)
    for number in range(4):
        (other / "images" / f"{number}.png").unlink()
        (other / "labels" / f"{number}.png").unlink()
    data = data_of(garden, f"validation={other}")
    assert [Path(one.source).stem for one in data.learn] == ["0", "1", "2", "3"]
    assert "2 pictures have the same contents as one that is measured" in " ".join(capsys.readouterr().err.split())
    assert len(data_of(garden, f"validation={garden}").learn) == 6
    assert "known by heart" in " ".join(capsys.readouterr().err.split())


def test_invented_things_cost_something_on_a_background(garden):
    """Things alone are labelled: what is found on other ground is excused, unless that is a class of its own."""
    for number in range(6):
        labels = np.array(Image.open(garden / "labels" / f"{number}.png"))
        Image.fromarray(np.where(labels == 1, 1, 255).astype(np.uint8)).save(garden / "labels" / f"{number}.png")
    for chosen, expected in (((), 100.0), (("unlabelled=background",), 50.0)):
        data = data_of(garden, *chosen)
        is_thing = np.array([entry.thing for entry in data.own.vocabulary])
        score = PanopticScore(is_thing)
        for one in pictures_of(data.own):
            is_door = one.semantic == 1
            invented = np.where(is_door, 1, 2 + (np.arange(64) < 10)[None].repeat(48, axis=0))
            score.update(invented, np.array([1, 1, 1]), **present(one))
        assert score.compute().over(is_thing).pq == pytest.approx(expected)


def test_every_way_to_read_a_folder_can_be_asked_of_a_training():
    told = {
        "format": "coco",
        "annotations": Path("a.json"),
        "images": Path(),
        "unlabelled": "11",
        "values": "0,255",
        "boxes": FILLED,
        "partial": True,
    }
    assert told.keys() == {field.name for field in fields(FolderReading)} - {"reduce_zero_label"}
    assert FineTuneSettings(data=Path(), **told).reading() == FolderReading(**told)
    assert FineTuneSettings(data=Path(), reduce_zero_label=True).reading() == FolderReading(reduce_zero_label=True)
