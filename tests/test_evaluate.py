"""`wordmask evaluate`: protocols, the report, what a stop leaves, several processes, and the command."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import asked_for
from test_splits import BUILDERS, a_150, pas_20
from wordmask import fingerprints
from wordmask.data.labelled import LabelledPicture
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.data.splits import SPLITS, open_split
from wordmask.evaluation import evaluate as evaluation
from wordmask.evaluation.evaluate import Choices, evaluate
from wordmask.evaluation.metrics import SemanticScore
from wordmask.evaluation.protocols import PROTOCOLS, PUBLISHED, published, shrink
from wordmask.evaluation.rendering import in_terminal, markdown
from wordmask.evaluation.scoring import Scores
from wordmask.evaluation.store import IDENTITY, ScoreStore
from wordmask.models import MODELS, preset_names
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary

FIGURES = ["split", "pictures", "figures", "classes", "confusion"]  # what doesn't depend on when, and how fast


def figures(report) -> list[dict]:
    return [{name: split[name] for name in FIGURES} for split in report.to_dict()["splits"]]


# Protocols ------------------------------------------------------------------------------------------------------------


def test_every_split_has_a_protocol_of_every_family(tmp_path):
    assert set(PROTOCOLS) == set(MODELS)
    for name, split in SPLITS.items():
        if split.folders:
            BUILDERS[name](tmp_path / name)
        data, _ = open_split(name, tmp_path / name, partial=True)
        for rows in PROTOCOLS.values():
            words = rows[name].read_vocabulary()
            assert len(words) == len(data.vocabulary) or (split.folded is not None and len(words) > split.folded)
            alike = [set(ours.names) & set(theirs.names) for ours, theirs in zip(words, data.vocabulary, strict=False)]
            assert sum(not names for names in alike) < 0.25 * len(alike), (name, "classes are in another order")
    assert all(set(rows) == set(SPLITS) for rows in PROTOCOLS.values())


def test_the_papers_own_protocols():
    keeps = {name: PROTOCOLS["err-seg"][name].keep for name in ("a-150", "a-847", "pc-459", "pc-59", "pas-20")}
    assert keeps == {"a-150": 32, "a-847": 48, "pc-459": 48, "pc-59": 24, "pas-20": 16}
    assert [name for name, row in PROTOCOLS["err-seg"].items() if row.shrink] == ["a-847"]
    assert PROTOCOLS["eov-seg"]["pas-20"].read_vocabulary().names[0] == "aeroplane"


def test_published_figures_belong_to_presets_and_splits():
    assert set(PUBLISHED) <= set(preset_names())
    assert all(set(rows) <= set(SPLITS) for _, rows in PUBLISHED.values())
    assert published("err-seg-large", "a-847")[1] == {"mIoU": 16.9}
    assert published("eov-seg-large", "ade20k-panoptic")[1]["PQ"] == 24.5
    assert published("eov-seg-large", "cityscapes-19")[1] == {}
    source, card = published("err-seg-tiny", "shapeland-150")
    assert source == "the model card"
    assert set(card) == {"mIoU", "mIoU seen", "mIoU unseen"}
    assert published("my.safetensors", "shapeland-150")[1] == {}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 1200), (512, 1024)), ((1000, 513), (998, 512)), ((512, 2000), (512, 2000)), ((700, 700), (512, 512))],
)
def test_larger_pictures_are_shrunk_to_their_shorter_side(size, expected):
    rng = np.random.default_rng(0)
    segments = np.zeros(size, np.int32)
    segments[: size[0] // 2] = 1
    labelled = LabelledPicture(
        rng.integers(0, 256, (*size, 3), dtype=np.uint8), segments, np.array([5]), np.array([False]), "x"
    )
    small = shrink(labelled, 512)
    assert small.rgb.shape == (*expected, 3)
    assert small.segments.shape == expected
    assert small.segments.dtype == segments.dtype
    assert set(np.unique(small.semantic)) == {-1, 5}
    assert abs(float(small.rgb.mean()) - float(labelled.rgb.mean())) < 1


def smaller(model, **sizes: int):
    """The same model that sees less of a picture, for speed."""
    other = copy(model)
    other.config = replace(model.config, **sizes)
    return other


# Measuring ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmenter(tiny):
    return Segmenter(smaller(tiny, resolution=128, shortest_edge=128), name="small")


@pytest.fixture(scope="module")
def whole(segmenter, tmp_path_factory):
    return evaluate(segmenter, ["shapeland-150"], pictures=4, work=tmp_path_factory.mktemp("work"))


def test_figures_are_those_of_the_metrics(segmenter, whole):
    data, score = Shapeland("shapeland-150", "test", 4), SemanticScore(150)
    for place in range(4):
        score.update(segmenter(data[place].rgb, data.vocabulary).labels, data[place].semantic)
    (split,) = whole.splits
    assert split.figures["mIoU"] == score.compute().mean_iou
    unseen = unseen_classes("shapeland-150")
    assert split.figures["mIoU unseen"] == pytest.approx(score.compute().mean_iou_over(unseen), nan_ok=True)
    assert split.protocol.keep == 32
    assert split.protocol.synonyms == "first"
    iou = [row.figures["IoU"] for row in split.classes]
    assert np.allclose(iou, score.compute().iou, equal_nan=True)
    worst = split.confusion[0]
    assert worst.iou == np.nanmin(iou)
    row = score.confusion[worst.label].copy()
    row[worst.label] = 0
    assert worst.taken_for[0].share == pytest.approx(row.max() / score.confusion[worst.label].sum())


def test_the_report_says_all(whole):
    (split,) = whole.splits
    assert (split.pictures, split.whole) == (4, 200)
    assert split.difference == {}, "four pictures compare with nothing"
    assert split.speed.median_ms > 0
    conditions = whole.conditions
    assert (conditions.model, conditions.precision, conditions.processes) == ("small", "float32", 1)
    assert set(conditions.versions) == {"wordmask", "torch", "numpy", "python"}
    assert all((conditions.weights, conditions.device, conditions.threads, conditions.date))
    content = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert len(content["splits"][0]["classes"]) == 150
    text = markdown(whole)
    assert text.startswith("## small on Shapeland 150, 4 of 200 pictures")
    for wanted in (
        "| mIoU |",
        "### The worst classes",
        "### Every class",
        "## Conditions",
        "only 4 of 200 pictures",
        "float32",
    ):
        assert wanted in text
    assert len(list(in_terminal(whole))) > 4


def test_ours_stands_beside_the_published(segmenter, tmp_path, monkeypatch):
    monkeypatch.setitem(
        SPLITS,
        "shapeland-150",
        SPLITS["shapeland-150"].__class__("S", 2, lambda _: Shapeland("shapeland-150", "test", 2)),
    )
    monkeypatch.setattr(segmenter, "name", "err-seg-tiny")
    report = evaluate(segmenter, ["shapeland-150"], work=tmp_path)
    (split,) = report.splits
    theirs = published("err-seg-tiny", "shapeland-150")[1]["mIoU"]
    assert split.difference["mIoU"] == pytest.approx(split.figures["mIoU"] - theirs)
    assert f"| mIoU | {split.figures['mIoU']:.1f} | {theirs:.1f} | {split.figures['mIoU'] - theirs:+.1f} |" in markdown(
        report
    )
    assert "the model card" in markdown(report)


def test_eov_seg_is_looked_at_once_for_three_tasks(tiny_eov, tmp_path, monkeypatch):
    segmenter, calls = Segmenter(smaller(tiny_eov, shortest_edge=128)), []
    forward = type(tiny_eov).forward
    monkeypatch.setattr(
        type(tiny_eov), "forward", lambda *arguments, **named: calls.append(1) or forward(*arguments, **named)
    )
    report = evaluate(segmenter, ["shapeland-150"], pictures=1, choices=Choices(most=20), work=tmp_path)
    assert len(calls) == 1
    (split,) = report.splits
    assert split.tasks == ("panoptic", "instance", "semantic")
    assert {"PQ", "SQ things", "RQ stuff", "AP", "AP50", "AP large", "mIoU", "boundary IoU", "PQ seen"} <= set(
        split.figures
    )
    assert {"PQ", "AP", "IoU", "boundary IoU"} <= set(split.classes[0].figures)
    assert split.changed == {"most": 20}
    data = Shapeland("shapeland-150", "test", 1)
    for task in split.tasks:
        alone = segmenter(data[0].rgb, data.vocabulary, task=task, **({"most": 20} if task == "instance" else {}))
        together = segmenter.readings(data[0].rgb, data.vocabulary, split.tasks, most=20)[task]
        assert np.array_equal(alone.labels, together.labels)
        assert alone.settings == together.settings


def test_a_background_of_many_names_is_one_class():
    words = PROTOCOLS["err-seg"]["pas-20b"].read_vocabulary()
    scores = Scores(("semantic",), words, SPLITS["pas-20b"].folded)
    segments = np.array([[1, 1, 2, 2]])
    labelled = LabelledPicture(np.zeros((1, 4, 3), np.uint8), segments, np.array([3, 20]), np.zeros(2, bool), "x")
    labels = np.array([[3, 58, 20, 41]], np.uint8)
    found = Segmentation(labels, [], asked_for(labelled.rgb, words))
    scores.update(0, {"semantic": found}, labelled, seconds=0.1)
    result = scores.semantic.compute()
    assert (result.iou[3], result.iou[20]) == pytest.approx((50, 200 / 3))
    assert len(result.iou) == 21


@pytest.mark.parametrize("name", ["pas-20b", "a-150"])
def test_real_layouts_are_measured(segmenter, tmp_path, name):
    {"pas-20b": pas_20, "a-150": a_150}[name](tmp_path)
    report = evaluate(
        segmenter, [name.upper()], data=tmp_path, partial=True, work=tmp_path / "work", choices=Choices(keep=5, size=64)
    )
    (split,) = report.splits
    assert split.pictures == 1
    assert split.protocol.keep == 5
    assert split.input == "square of 64"
    assert split.changed == {"keep": 5, "size": 64}
    assert len(split.classes) == {"pas-20b": 21, "a-150": 150}[name]
    assert segmenter.model.image_input.square != 64, "what was handed in stays as it was"


def test_choices_that_make_no_sense_are_refused(segmenter, tiny_eov, tmp_path):
    for choices, message in (
        (Choices(vocabulary="road; sky"), "has 150 classes; the vocabulary 'road; sky' has 2"),
        (Choices(overlap=0.5), "overlap says nothing to small"),
        (Choices(synonyms="each"), "synonyms came as 'each'"),
        (Choices(size=3), "size came as 3"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(segmenter, ["shapeland-150"], pictures=1, choices=choices, work=tmp_path)
    with pytest.raises(ValueError, match="keep says nothing"):
        evaluate(Segmenter(tiny_eov), ["shapeland-150"], pictures=1, choices=Choices(keep=3), work=tmp_path)


def test_splits_are_looked_for_before_a_model_is(tmp_path):
    with pytest.raises(ValueError, match="A-150 is not here") as error:
        evaluate("no-such-model", ["a-150", "pc-59", "shapeland-150"], data=tmp_path)
    assert "PC-59 is not here" in str(error.value)
    assert "no-such-model" not in str(error.value)


# A stop at any moment -------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """Somebody pulls the plug."""


def stopping(after: int):
    @contextmanager
    def watch(title, done, total):
        seen = [0]

        def count():
            seen[0] += 1
            if seen[0] == after:
                raise Stop

        yield count

    return watch


def test_a_stopped_evaluation_goes_on(segmenter, whole, tmp_path, monkeypatch):
    asked = {"pictures": 4, "work": tmp_path}
    with pytest.raises(Stop):
        evaluate(segmenter, ["shapeland-150"], watch=stopping(2), **asked)
    looked, readings = [], Segmenter.readings
    monkeypatch.setattr(
        Segmenter, "readings", lambda self, *rest, **named: looked.append(1) or readings(self, *rest, **named)
    )
    again = evaluate(segmenter, ["shapeland-150"], **asked)
    assert len(looked) == 2
    assert figures(again) == figures(whole)
    assert not list(tmp_path.rglob("*.npz")), "nothing is left when all is done"


def test_a_killed_evaluation_goes_on_from_what_was_written(segmenter, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "SAVED_EVERY", 0.0)
    saves, save = [], ScoreStore.save

    def save_twice(self, scores):
        saves.append(1)
        if len(saves) < 3:
            save(self, scores)

    monkeypatch.setattr(ScoreStore, "save", save_twice)
    with pytest.raises(Stop):
        evaluate(segmenter, ["shapeland-150"], pictures=4, work=tmp_path, watch=stopping(3))
    monkeypatch.setattr(ScoreStore, "save", save)
    (part,) = tmp_path.rglob("*.npz")
    with np.load(part) as content:
        assert content["pictures"].tolist() == [0, 1]
    part.with_name("part-7.npz").write_bytes(part.read_bytes()[:-9])  # damaged: as if it weren't there
    # a stop while files were joined: no picture counts twice
    part.with_name("part-1.npz").write_bytes(part.read_bytes())
    assert figures(evaluate(segmenter, ["shapeland-150"], pictures=4, work=tmp_path)) == figures(whole)


def test_a_picture_that_cannot_be_read_leaves_the_others_counted(segmenter, whole, tmp_path, monkeypatch):
    read = Shapeland.__getitem__

    def bad(self, place):
        if place == 3:
            raise ValueError("picture 3 is bad")
        return read(self, place)

    monkeypatch.setattr(Shapeland, "__getitem__", bad)
    with pytest.raises(ValueError, match="picture 3 is bad"):
        evaluate(segmenter, ["shapeland-150"], pictures=4, work=tmp_path)
    monkeypatch.setattr(Shapeland, "__getitem__", read)
    (part,) = tmp_path.rglob("*.npz")
    with np.load(part) as content:
        assert content["pictures"].tolist() == [0, 1, 2]
    assert figures(evaluate(segmenter, ["shapeland-150"], pictures=4, work=tmp_path)) == figures(whole)


def test_another_evaluation_does_not_go_on_from_this_one(segmenter, tmp_path):
    for keep in (4, 5):
        with pytest.raises(Stop):
            evaluate(
                segmenter, ["shapeland-150"], pictures=2, work=tmp_path, choices=Choices(keep=keep), watch=stopping(1)
            )
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_an_evaluation_is_of_what_is_in_its_files(segmenter, tmp_path):
    """Not of where they lie, nor of their size alone."""

    def identity(root) -> dict:
        return evaluation._plan(segmenter, "a-150", *open_split("a-150", root, partial=True), Choices()).identity()

    for name in ("here", "there"):
        a_150(tmp_path / name)
    before = identity(tmp_path / "here")
    assert identity(tmp_path / "there") == before
    label = next((tmp_path / "here").rglob("annotations/**/*.png"))
    content = bytearray(label.read_bytes())
    content[-1] ^= 1
    label.write_bytes(content)
    assert identity(tmp_path / "here") != before


def test_an_evaluation_does_not_go_on_with_other_code(segmenter, tmp_path, monkeypatch, capsys):
    asked = {"pictures": 4, "work": tmp_path}
    with pytest.raises(Stop):
        evaluate(segmenter, ["shapeland-150"], watch=stopping(2), **asked)
    home = tmp_path / "edited" / "wordmask"
    shutil.copytree(fingerprints.HOME, home, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    (home / "models" / "err_seg.py").write_text("# another version of the model\n")
    monkeypatch.setattr(fingerprints, "HOME", home)
    looked, readings = [], Segmenter.readings
    monkeypatch.setattr(
        Segmenter, "readings", lambda self, *rest, **named: looked.append(1) or readings(self, *rest, **named)
    )
    evaluate(segmenter, ["shapeland-150"], **asked)
    assert len(looked) == 4, "every picture by the same code"
    assert "can't go on, as the code changed: it begins anew" in capsys.readouterr().err


def test_counts_of_an_older_version_are_named(segmenter, tmp_path, capsys):
    with pytest.raises(Stop):
        evaluate(segmenter, ["shapeland-150"], pictures=2, work=tmp_path, watch=stopping(1))
    (identity,) = tmp_path.rglob(IDENTITY)
    identity.unlink()
    identity.parent.rename(tmp_path / "0123456789abcdef")
    evaluate(segmenter, ["shapeland-150"], pictures=2, work=tmp_path)
    assert "0123456789abcdef' is of a version that noted less, and can't be used: remove it" in capsys.readouterr().err


def test_scores_are_restored_and_merged(segmenter):
    words = Vocabulary.of("sky; car")
    scores, other = (
        Scores(("semantic", "panoptic", "instance"), words),
        Scores(("semantic", "panoptic", "instance"), words),
    )
    with pytest.raises(ValueError, match="state of other scores"):
        other.restore(Scores(("semantic", "panoptic", "instance"), Vocabulary.of("sky; car; cat")).state())
    scores.merge(other.restore(scores.state()))
    assert scores.pictures == []


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command(run, tmp_path):
    status, out, err = run(
        *(
            "evaluate",
            "err-seg-tiny",
            "shapeland-150",
            "--pictures",
            "2",
            "--json",
            "out/report.json",
            "--markdown",
            "out/report.md",
        )
    )
    assert status == 0, err
    for wanted in (
        "err-seg-tiny on Shapeland 150, 2 of 200 pictures",
        "mIoU",
        "the model card",
        "taken for",
        "ms a picture",
        "float32",
    ):
        assert wanted in out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not math.isnan(content["splits"][0]["figures"]["mIoU"])
    assert (tmp_path / "out" / "report.md").read_text().startswith("## err-seg-tiny on Shapeland 150")


def test_the_command_says_what_is_wrong(run, tmp_path):
    status, _, err = run("evaluate", "err-seg-tiny", "A-150", "--data", tmp_path)
    assert status == 2
    assert f"looked for '{tmp_path / 'ADEChallengeData2016'}'" in err
    status, _, err = run("evaluate", "err-seg-tiny", "shapland-150")
    assert status == 2
    assert "Did you mean shapeland-150" in err
    status, out, _ = run("splits", "--data", tmp_path)
    assert status == 0
    assert "shapeland-847" in out
    assert len(out.splitlines()) == len(SPLITS)


@pytest.mark.slow
def test_the_page_is_run(run, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    (shell,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in shell.splitlines():
        words = shlex.split(line, comments=True)
        assert words[:3] == ["uv", "run", "wordmask"]
        status, _, err = run(*words[3:])
        assert status == 0, err
    (python,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(python, "docs/evaluation.md", "exec"), {})
    for name, split in SPLITS.items():
        assert re.search(rf"\| .*`{name}`.* \| .*\b{split.pictures}\b", page), name


@pytest.mark.slow
@pytest.mark.parametrize("model", ["err-seg-tiny", "eov-seg-tiny"])
def test_two_processes_give_the_figures_of_one(tmp_path, model):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    reports = []
    for processes in (1, 2):
        here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
        file = tmp_path / f"{processes}.json"
        asked = [
            model,
            "shapeland-150",
            "--pictures",
            "3",
            "--device",
            "cpu",
            "--json",
            str(file),
            "--work",
            str(tmp_path / str(processes)),
        ]
        command = [sys.executable, "-m", "torch.distributed.run", *here, "-m", "wordmask", "evaluate", *asked]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count(f"{model} on Shapeland 150, 3 of 200 pictures") == 1, "one process reports"
        content = json.loads(Path(file).read_text())
        assert content["conditions"]["processes"] == processes
        reports.append([{name: split[name] for name in FIGURES} for split in content["splits"]])
    assert reports[0] == reports[1]
