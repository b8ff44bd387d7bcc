"""The loop: what it leaves behind, that it goes on as if nothing had happened, and that the division of the work
changes nothing."""

import csv
import dataclasses
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from wordmask import fingerprints
from wordmask.models import err_seg
from wordmask.raw import ClassMaps
from wordmask.training.checkpoints import BEST, CODE, LAST, RESUME
from wordmask.training.command import load_recipe, read_settings, settings_class
from wordmask.training.loading import Share, parts_per_step
from wordmask.training.loop import code_of, train
from wordmask.training.optimiser import ParameterGroup
from wordmask.training.recipe import Example, Recipe, TrainingSettings, stack
from wordmask.training.schedules import drops, warmup_cosine

RECIPES = Path(__file__).parents[1] / "recipes"


class Points(Dataset):
    """Numbers to fit a line to, drawn from the number of the example alone."""

    def __getitem__(self, number: int) -> Example:
        x = torch.from_numpy(np.random.default_rng(number).normal(size=3)).float()
        return Example(x, (2 * x).sum() + 1, f"point {number}")


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.frozen = nn.Linear(3, 1), nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        return self.layer(self.drop(x))[:, 0] * self.frozen


def squares(model, part, whole):
    return (model(part.pixels) - part.targets).square().mean()


def line_recipe(loss=squares, **changes) -> Recipe:
    torch.manual_seed(0)
    validations = []

    def validate(model, folder):
        validations.append(folder)
        return {"closeness": -abs(model.layer.bias.item() - 1)}

    def save(path, model):
        save_file(model.state_dict(), path)

    parts = {
        "model": Line(),
        "groups": lambda model: [ParameterGroup(dict(model.layer.named_parameters()), rate=0.05, weight_decay=0.01)],
        "examples": Points(),
    }
    parts |= {"schedule": lambda step: 1.0, "loss": loss, "validate": validate, "save": save, "collate": stack}
    return Recipe(**parts | changes)


def settings_for(folder: Path, **changes) -> TrainingSettings:
    values = {
        "folder": folder,
        "steps": 8,
        "batch": 4,
        "rate": 0.05,
        "workers": 0,
        "validate_every": 4,
        "save_every": 2,
    }
    return TrainingSettings(**values | changes)


def losses_in(folder: Path) -> list[float]:
    with (folder / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_training_leaves_curves_and_checkpoints(tmp_path):
    outcome = train(line_recipe(), settings_for(tmp_path, steps=60))
    assert outcome.finished
    losses = losses_in(tmp_path)
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert {LAST, BEST, RESUME, "losses.csv", "scores.csv"} <= {path.name for path in tmp_path.iterdir()}
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(4, 61, 4))
    best = max(rows, key=lambda row: float(row["closeness"]))
    bias = load_file(tmp_path / BEST)["layer.bias"].item()
    assert -abs(bias - 1) == pytest.approx(float(best["closeness"]), abs=1e-5)
    assert load_file(tmp_path / BEST)["frozen"] == 1, "what is in no group stays"


def test_an_interrupted_training_goes_on_bit_by_bit(tmp_path, monkeypatch):
    train(line_recipe(), settings_for(tmp_path / "whole"))

    def interrupted(model, part, whole):
        if interrupted.step == 5:
            signal.raise_signal(signal.SIGTERM)
        interrupted.step += 1
        return squares(model, part, whole)

    interrupted.step = 0
    first = train(line_recipe(loss=interrupted), settings_for(tmp_path / "parts"))
    assert not first.finished
    assert losses_in(tmp_path / "parts") == losses_in(tmp_path / "whole")[:6], (
        "the step that was running is finished, and saved"
    )
    assert train(line_recipe(), settings_for(tmp_path / "parts")).finished
    assert losses_in(tmp_path / "parts") == losses_in(tmp_path / "whole")
    state = torch.load(tmp_path / "parts" / RESUME, weights_only=True)
    assert {"step", "validation_due", "best", "scores", "settings", "model", "optimiser", "scaler"} == state.keys()
    ours, theirs = (load_file(tmp_path / name / LAST) for name in ("parts", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_rows_after_the_checkpoint_are_written_anew(tmp_path):
    """A machine that fails outright has written more losses than its last checkpoint knows of."""

    def failing(model, part, whole):
        failing.step += 1
        if failing.step == 4:
            raise RuntimeError("power cut")
        return squares(model, part, whole)

    failing.step = 0
    train(line_recipe(), settings_for(tmp_path / "whole"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(line_recipe(loss=failing), settings_for(tmp_path / "parts"))
    assert len(losses_in(tmp_path / "parts")) == 3
    train(line_recipe(), settings_for(tmp_path / "parts"))
    assert losses_in(tmp_path / "parts") == losses_in(tmp_path / "whole")


def test_tensorboard_gets_the_curves_where_it_is_installed(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            assert purge_step == 1
            self.folder = folder

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    train(line_recipe(), settings_for(tmp_path))
    assert [step for name, step in written[:-1] if name == "loss"] == list(range(1, 9))
    assert [step for name, step in written[:-1] if name == "closeness"] == [4, 8]
    assert written[-1] == "closed"


def test_a_finished_training_is_not_repeated(tmp_path):
    train(line_recipe(), settings_for(tmp_path))
    before = (tmp_path / LAST).read_bytes(), losses_in(tmp_path)
    assert train(line_recipe(), settings_for(tmp_path)).scores["closeness"] < 0
    assert ((tmp_path / LAST).read_bytes(), losses_in(tmp_path)) == before


def test_another_training_in_the_folder_is_refused(tmp_path):
    train(line_recipe(), settings_for(tmp_path))
    with pytest.raises(ValueError, match=r"other settings: batch is 2, was 4"):
        train(line_recipe(), settings_for(tmp_path, batch=2))
    (tmp_path / RESUME).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="can't be read"):
        train(line_recipe(), settings_for(tmp_path))


def test_a_training_goes_on_with_the_same_data_alone(tmp_path):
    train(line_recipe(fingerprint="one"), settings_for(tmp_path, steps=2))
    assert train(line_recipe(fingerprint="one"), settings_for(tmp_path, steps=2)).finished
    with pytest.raises(ValueError, match="the data's fingerprint is two, was one"):
        train(line_recipe(fingerprint="two"), settings_for(tmp_path, steps=2))


def test_a_training_goes_on_with_the_same_code_alone(tmp_path, monkeypatch, capsys):
    train(line_recipe(), settings_for(tmp_path, steps=2))
    monkeypatch.setattr(fingerprints, "versions", lambda: {"torch": "another"})
    with pytest.raises(ValueError, match=r"begun with other code, or other versions .*accept_changed_code=true"):
        train(line_recipe(), settings_for(tmp_path, steps=2))
    assert train(line_recipe(), settings_for(tmp_path, steps=2, accept_changed_code=True)).finished
    assert "the code has changed; the training goes on with this" in capsys.readouterr().err
    with pytest.raises(ValueError, match="batch is 2, was 4"):
        train(line_recipe(), settings_for(tmp_path, steps=2, batch=2, accept_changed_code=True))
    state = torch.load(tmp_path / RESUME, weights_only=True)
    del state["settings"][CODE]
    torch.save(state, tmp_path / RESUME)
    with pytest.raises(ValueError, match="by a version of wordmask that did not note its code"):
        train(line_recipe(), settings_for(tmp_path, steps=2))


def test_the_code_of_a_training_is_also_the_recipes_and_the_models(tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    recipe, settings = line_recipe(), settings_for(tmp_path)
    codes = []
    for text in ("PART = 1", "PART = 2"):
        mine.write_text(text)
        codes.append(code_of(dataclasses.replace(recipe, sources=(mine,)), settings))
    assert len({*codes, code_of(recipe, settings)}) == 3
    assert Path(__file__) in fingerprints.files_that_define(recipe.model.modules()), "a model of one's own"


def test_scores_may_be_numpys(tmp_path):
    recipe = line_recipe(validate=lambda model, folder: {"closeness": np.float64(0.5)})
    train(recipe, settings_for(tmp_path))
    assert train(recipe, settings_for(tmp_path)).scores == {"closeness": 0.5}


def test_no_row_is_missing_after_a_checkpoint(tmp_path):
    """A machine may fail at any moment: what a checkpoint covers is on the disk by then."""
    rows = []

    def save(path, model):
        rows.append(len((tmp_path / "losses.csv").read_text().splitlines()) - 1)
        save_file(model.state_dict(), path)

    train(line_recipe(save=save), settings_for(tmp_path, validate_every=8))
    assert rows[:4] == [2, 4, 6, 8]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_files_and_rate(tmp_path, bad):
    def loss(model, part, whole):
        return squares(model, part, whole) * (bad if "point 13" in part.sources else 1)

    recipe = line_recipe(loss=loss, schedule=warmup_cosine(8, warmup=2, start=0.1))
    with pytest.raises(
        ValueError, match=r"Step 4: the loss is not finite, .* rate of 0\.03\d+, on point 12, point 13.*of step 2"
    ):
        train(recipe, settings_for(tmp_path))
    assert len(losses_in(tmp_path)) == 3
    assert torch.load(tmp_path / RESUME, weights_only=True)["step"] == 2


def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(tmp_path):
    """The root of zero is finite, its slope is not."""

    def loss(model, part, whole):
        bad = (0 * model.layer.weight.sum()).sqrt() if "point 21" in part.sources else 0
        return squares(model, part, whole) + bad

    with pytest.raises(ValueError, match=r"Step 6: the gradient is not finite, .*point 21.*of step 4"):
        train(line_recipe(loss=loss), settings_for(tmp_path))
    assert load_file(tmp_path / LAST)["layer.weight"].isfinite().all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_is_named_and_the_training_ends(tmp_path, workers):
    class Damaged(Points):
        def __getitem__(self, number):
            if number == 9:
                raise ValueError("a.jpg is damaged")
            return super().__getitem__(number)

    with pytest.raises(ValueError, match=r"^a\.jpg is damaged$"):
        train(line_recipe(examples=Damaged()), settings_for(tmp_path, workers=workers))
    assert len(losses_in(tmp_path)) == 2


def test_workers_end_whatever_happens(tmp_path):
    """They heed no signal; a training that fails must end them itself, or the process would never leave."""

    def failing(model, part, whole):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train(line_recipe(loss=failing), settings_for(tmp_path, workers=1))
    for child in multiprocessing.active_children():
        child.join(timeout=20)
        assert not child.is_alive()


def test_scores_that_are_no_numbers_are_never_the_best(tmp_path):
    scores = iter([math.nan, 5.0, 4.0])
    train(line_recipe(validate=lambda model, folder: {"score": next(scores)}), settings_for(tmp_path, steps=12))
    state = torch.load(tmp_path / RESUME, weights_only=True)
    assert (state["best"], state["scores"]) == (5.0, {"score": 4.0})


def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path):
    def cut_off(model, folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(line_recipe(validate=cut_off), settings_for(tmp_path, steps=4))
    assert train(line_recipe(), settings_for(tmp_path, steps=4)).scores["closeness"] < 0
    assert (tmp_path / BEST).exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_every_precision_trains(tmp_path, precision):
    used = set()

    def loss(model, part, whole):
        predicted = model.layer(part.pixels)[:, 0]
        used.add(predicted.dtype)
        return (predicted.float() - part.targets).square().mean()

    train(line_recipe(loss=loss), settings_for(tmp_path, precision=precision, steps=40))
    assert used == {getattr(torch, precision)}
    assert np.mean(losses_in(tmp_path)[-8:]) < np.mean(losses_in(tmp_path)[:8])


def test_parts_of_a_batch_give_the_same_as_the_whole(tmp_path):
    def without_dropout():
        recipe = line_recipe(gradient_norm=0.5)
        recipe.model.drop.p = 0.0
        return recipe

    train(without_dropout(), settings_for(tmp_path / "whole"))
    train(without_dropout(), settings_for(tmp_path / "parts", at_once=1))
    assert losses_in(tmp_path / "parts") == pytest.approx(losses_in(tmp_path / "whole"), rel=1e-5)


def test_every_example_is_taken_once_whoever_takes_it():
    shares = [list(Share(rank, 2, 3, 12, range(5, 9))) for rank in range(2)]
    assert [len(share) for share in shares] == [12, 12]
    taken = [number for share in shares for part in share for number in part]
    assert sorted(taken) == list(range(5 * 12, 9 * 12))
    alone = list(Share(0, 1, 6, 12, range(5, 9)))
    assert alone == [part for parts in zip(*shares, strict=True) for part in parts], (
        "one process takes the parts in the same order"
    )


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="batch of 4 pictures can't be divided into equal parts of 3"):
        parts_per_step(settings_for(Path(), at_once=3), 1, divisible=True)
    with pytest.raises(ValueError, match="for 3 processes"):
        parts_per_step(settings_for(Path()), 3, divisible=True)
    with pytest.raises(ValueError, match="compares all pictures"):
        parts_per_step(settings_for(Path(), at_once=1), 1, divisible=False)
    assert parts_per_step(settings_for(Path(), at_once=1), 2, divisible=True) == 2


def test_schedules():
    factor = warmup_cosine(100, warmup=10, start=0.001)
    assert factor(0) == 0.001
    assert factor(5) == pytest.approx((0.001 + (1 + math.cos(math.pi / 10)) / 2) / 2)
    assert factor(10) == pytest.approx((1 + math.cos(math.pi / 10)) / 2)
    assert factor(50) == pytest.approx(0.5)
    assert factor(100) == 0
    steps = drops((3, 5))
    assert [steps(step) for step in (0, 2, 3, 4, 5, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


# In the shell ---------------------------------------------------------------------------------------------------------

CLIP = (
    "steps=12",
    "batch=8",
    "plain=1",
    "widening=1",
    "validate_every=12",
    "save_every=1",
    "workers=0",
    "precision=float32",
)


def shell(*arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "wordmask", "train", *arguments], capture_output=True, text=True, check=False, **settings
    )


@pytest.mark.slow
def test_sigterm_saves_and_leaves(tmp_path):
    done = shell("shapeland_clip", f"folder={tmp_path / 'whole'}", *CLIP)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "wordmask", "train", "shapeland_clip", f"folder={tmp_path / 'parts'}", *CLIP]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "parts" / RESUME).exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "goes on from there" in errors
    done = shell("shapeland_clip", f"folder={tmp_path / 'parts'}", *CLIP)
    assert done.returncode == 0, done.stderr
    assert losses_in(tmp_path / "parts") == losses_in(tmp_path / "whole")


def torchrun(processes: int, script: Path, *arguments: str) -> None:
    # a free port, agreed on; a machine's own name may lead elsewhere
    here = ["--standalone", "--local-addr", "127.0.0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *here, str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["shapeland_clip", "shapeland_err_seg"])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path, recipe):
    """The same parts in one process one after the other, or in two at once; CLIP's loss compares the pictures of both.

    Muon rounds its updates to bfloat16, where a last bit of the gradient can be seen: at a small rate it stays small.
    """
    script = tmp_path / "run.py"
    script.write_text("import sys\nfrom wordmask.training.command import start\nstart(sys.argv[1], sys.argv[2:])\n")
    clip = tmp_path / "clip"
    settings = ["steps=3", "batch=8", "plain=1", "widening=1", "rate=1e-4"]
    if recipe == "shapeland_err_seg":
        torchrun(1, script, "shapeland_clip", f"folder={clip}", "steps=1", "batch=4", "workers=0", "device=cpu")
        settings = ["steps=3", "batch=4", "most=24", "scenes=1", f"clip={clip / LAST}"]
    settings += ["workers=0", "precision=float32", "device=cpu"]
    torchrun(
        1,
        script,
        recipe,
        f"folder={tmp_path / 'one'}",
        *settings,
        *(["at_once=2"] if recipe == "shapeland_err_seg" else []),
    )
    torchrun(2, script, recipe, f"folder={tmp_path / 'two'}", *settings)
    one, two = losses_in(tmp_path / "one"), losses_in(tmp_path / "two")
    assert len(one) == 3
    assert two == pytest.approx(one, rel=2e-5)


GRADIENTS = """
import sys, torch
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_pre_hook
from wordmask.training.set_loss import Target, mean_count
from wordmask.training.loop import train
sys.path.insert(0, sys.argv[1])
from test_train import line_recipe, settings_for

def dump(optimiser, *_):
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
    torch.save(gradients, Path(sys.argv[2]) / "gradients.pt")

def loss(model, part, whole):
    # as if each process had one target more than pictures
    rows = [Target(torch.zeros(len(part.sources) + 1, dtype=torch.long), None)]
    return (model.layer(part.pixels)[:, 0] - part.targets).square().mean() / mean_count(rows, part.pixels)

register_optimizer_step_pre_hook(dump)
train(line_recipe(loss=loss), settings_for(Path(sys.argv[2]), steps=1, at_once=2))
"""


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path):
    """AdamW doesn't see the scale of a gradient; clipping does."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    for processes in (1, 2):
        torchrun(processes, script, str(Path(__file__).parent), str(tmp_path / str(processes)))
    one, two = (torch.load(tmp_path / name / "gradients.pt") for name in "12")
    for ours, theirs in zip(two, one, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_settings_are_read_and_checked():
    kind = settings_class(load_recipe("shapeland_clip"))
    settings = read_settings(kind, ["steps=7", "rate=1e-4", "folder=~/x", "precision=float16"])
    assert (settings.steps, settings.rate, settings.precision) == (7, 1e-4, "float16")
    assert settings.folder == Path.home() / "x"
    for assignments, message in (
        (["step=7"], "Did you mean steps"),
        (["steps"], "expected key=value"),
        (["steps=many"], "steps came as 'many'; expected int"),
        (["steps=0"], "steps came as 0; expected at least 1"),
        (["rate=nan"], "rate came as nan; expected at least 0"),
        (["workers=-2"], "workers came as -2; expected at least 0"),
        (["steps=1", "steps=2"], "given twice"),
        (["any_time=x"], "no setting 'any_time'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_settings(kind, assignments)
    with pytest.raises(ValueError, match="needs data="):
        read_settings(settings_class(load_recipe("finetune")), [])
    with pytest.raises(ValueError, match="Did you mean finetune"):
        load_recipe("finetun")


def test_every_recipe_says_how_to_run_it():
    for path in RECIPES.glob("*.py"):
        header = path.read_text().split('"""')[1]
        assert f"wordmask train recipes/{path.name}" in header, path
        kind = settings_class(load_recipe(str(path)))
        assert {field.name for field in dataclasses.fields(TrainingSettings)} <= {
            field.name for field in dataclasses.fields(kind)
        }


def test_the_loss_of_err_seg_is_the_mean_of_its_parts():
    torch.manual_seed(0)
    raw = ClassMaps(torch.randn(4, 3, 8, 8), torch.tensor([[0, 2, 4]] * 4), torch.rand(4, 5))
    target = torch.randint(-1, 5, (4, 32, 32))
    parts = [err_seg.loss(ClassMaps(*(t[i : i + 2] for t in raw)), target[i : i + 2], ignore=-1) for i in (0, 2)]
    assert torch.stack(parts).mean() == pytest.approx(err_seg.loss(raw, target, ignore=-1).item(), rel=1e-6)
