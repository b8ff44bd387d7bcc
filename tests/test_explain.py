"""What is explained is what the model used; and the pictures, the tables and the files of it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import colourful, filled
from wordmask.demo import draw_sample
from wordmask.drawing import choose_font, text_width
from wordmask.explain.answer import explain
from wordmask.explain.charts import Bar, Row, chart, colour_scale, heat, shortened, wrapped
from wordmask.explain.class_maps import ClassMapExplanation
from wordmask.explain.maps import on_picture
from wordmask.explain.query_masks import QueryExplanation, tell_fates
from wordmask.explain.sheets import draw
from wordmask.image import Frame, prepare
from wordmask.models.eov_seg import EovSeg, Parts
from wordmask.preparing import stacked
from wordmask.segmenter import Segmenter
from wordmask.sources import find_pictures
from wordmask.watching import watched

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explain.md").read_text()
SHELL = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
WORDS = ["person", "sky", "car, automobile", "grass", "tree", "猫", "wall", "wooden spoon", "road"]
WIDE = (40, 170)  # EOV-Seg pads it, and finds something in it


@pytest.fixture(scope="module")
def err(tiny):
    return Segmenter(tiny, name="err-seg-untrained")


@pytest.fixture(scope="module")
def eov(tiny_eov):
    return Segmenter(tiny_eov, name="eov-seg-untrained")


@pytest.fixture(scope="module")
def voted(err) -> ClassMapExplanation:
    return explain(err, colourful(70, 50), WORDS, keep=4)


@pytest.fixture(scope="module")
def asked(eov) -> QueryExplanation:
    return explain(eov, colourful(*WIDE), WORDS)


def seen(segmenter: Segmenter, height: int, width: int) -> torch.Tensor:
    """A picture as the segmenter shows it to its model, (1, 3, H, W)."""
    pixels, _ = prepare(colourful(height, width), segmenter.model.image_input)
    return stacked([pixels], segmenter.device)


# ERR-Seg --------------------------------------------------------------------------------------------------------------


def test_votes_are_the_models(err, voted):
    with torch.inference_mode():
        pixels = seen(err, 70, 50)
        words = err.encode_words(voted.result.vocabulary)
        raw = err.model(pixels, words, keep=4)
        cost = err.model.cost(err.model.encode_image(pixels).dense_x16, words.embeddings[None])[0]
    np.testing.assert_array_equal(voted.votes, raw.votes[0])
    np.testing.assert_array_equal(voted.kept, raw.kept[0])
    np.testing.assert_array_equal(voted.probability, raw.logits[0].sigmoid())
    np.testing.assert_allclose(voted.peaks, cost.amax(dim=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(voted.cost_x16, cost[raw.kept[0]], atol=1e-6)
    assert voted.votes.sum() == pytest.approx(1.11 * voted.voters, rel=1e-5), "each pixel gives 1 + 0.1 + 0.01"
    assert sorted(voted.order[:4]) == voted.kept.tolist(), "the first of the order are kept"
    assert (np.diff(voted.votes[voted.order]) <= 0).all()


def test_the_maps_give_the_result(err, voted):
    plain = err(colourful(70, 50), WORDS, keep=4)
    np.testing.assert_array_equal(voted.result.labels, plain.labels)
    whole = on_picture(voted.probability, voted.frame)
    assert whole.shape == (4, 70, 50)
    np.testing.assert_array_equal(voted.kept[whole.argmax(axis=0)], plain.labels)
    assert voted.shares.sum() == pytest.approx(1)
    assert voted.cost_x32.shape[1:] == tuple(side // 2 for side in voted.cost_x16.shape[1:])


def test_equal_votes_go_to_the_higher_cosine(voted):
    tied = replace(voted, votes=np.array([1, 0, 1, 2, 0], "f"), peaks=np.array([0.1, 0.2, 0.3, 0, 0.2], "f"))
    assert tied.order.tolist() == [3, 2, 0, 1, 4]


def test_the_background_is_named(err):
    voted = explain(err, colourful(30, 40), ["qwerty", "asdf"], background="other", keep=3)
    assert voted.names[:2] == ["qwerty", "asdf"]
    assert len(voted.names) == len(voted.votes) > 100
    assert {voted.names[label] for label in voted.kept} - {"qwerty", "asdf"}
    assert [row["share"] is None for row in voted.to_dict()["classes"]].count(False) == len(voted.shares) == 2
    assert set(voted.lost_words()) == {0, 1} - set(voted.kept.tolist())
    assert draw(voted)["votes"].height > 15 * 21, "own words that were lost, and some that weren't, are listed"


# EOV-Seg --------------------------------------------------------------------------------------------------------------


def test_queries_are_the_models(eov, asked):
    plain = eov(colourful(*WIDE), WORDS)
    np.testing.assert_array_equal(asked.result.segments, plain.segments)
    with torch.inference_mode():
        raw = eov.model(seen(eov, *WIDE), eov.encode_words(plain.vocabulary))
    np.testing.assert_array_equal(asked.mask_logits, raw.mask_logits[0])
    np.testing.assert_array_equal(asked.final, raw.class_logits[0].softmax(dim=-1))
    np.testing.assert_array_equal(asked.own, raw.layer_class_logits[-1, 0].softmax(dim=-1))


def test_segments_lie_in_the_masks_of_their_queries(asked):
    masks = on_picture(asked.mask_logits, asked.frame) > 0
    assert asked.result.regions
    assert {region.id for region in asked.result.regions} == set(asked.regions.tolist()) - {0}
    for region in asked.result.regions:
        queries = np.flatnonzero(asked.regions == region.id)
        assert (region.mask <= masks[queries].any(axis=0)).all()
        assert all(asked.final[query].argmax() == region.label for query in queries)
    assert [asked.fates[query] == "segment" for query in asked.order].index(False) == (asked.regions > 0).sum(), (
        "those come first"
    )


def test_the_ensemble_is_of_both_opinions(asked):
    weight = np.where(asked.seen, 0.4, 0.8)
    assert set(weight) == {0.4, 0.8}
    for query in range(len(asked.fates)):
        opinions = {name: probs.astype(float) for name, probs in asked.opinions(query).items()}
        mean = opinions["own"] ** (1 - weight) * opinions["clip"] ** weight
        np.testing.assert_allclose(opinions["ensemble"], mean / mean.sum(), atol=1e-4)
        assert all(probs.sum() == pytest.approx(1, abs=1e-5) for probs in opinions.values())
        assert int(opinions["clip"].argmax()) in asked.named(query)
    np.testing.assert_allclose(asked.own[:, -1], asked.final[:, -1], atol=1e-5)


def test_weights_reproduce_the_selection(eov, asked):
    model = eov.model
    with torch.inference_mode():
        words = eov.encode_words(asked.result.vocabulary)
        x = model.aggregate(model.encode_image(seen(eov, *WIDE)))
        selected = model.select(x, words)
    np.testing.assert_allclose(x * torch.from_numpy(asked.selection.weights), selected, rtol=1e-5, atol=1e-6)
    assert asked.selection.phrases == len(words.embeddings) == 10, "a class has two names"
    assert 0 < asked.selection.clarity.min() < asked.selection.clarity.max() <= 1


def test_gates_reproduce_the_mix(eov, asked):
    fusion = eov.model.layers[-1].fusion
    calls = {name: [] for name in ("semantic_norm", "spatial_norm", "out")}  # arguments and result of each

    def keep(kept, run):
        kept.append((run.args, run()))
        return kept[-1][1]

    with ExitStack() as watching:
        for name, kept in calls.items():
            watching.enter_context(watched(getattr(fusion, name), {"forward": kept}, keep))
        eov(colourful(*WIDE), WORDS)
    semantic, spatial = calls["semantic_norm"][0][1][0], calls["spatial_norm"][0][1][0]
    last = asked.gates[-1]
    mixed = torch.from_numpy(last.semantic) * semantic + torch.from_numpy(last.spatial) * spatial
    torch.testing.assert_close(mixed, calls["out"][0][0][0][0])
    np.testing.assert_allclose(
        last.semantic_strength, (torch.from_numpy(last.semantic) * semantic).abs().mean(dim=1), rtol=1e-5
    )
    assert [gates.layer for gates in asked.gates] == [1, 2, 3], "a whole model has them in every layer"


def test_what_inference_leaves_out_is_not_shown():
    found = explain(Segmenter(filled("eov-seg-untrained").for_inference()), colourful(*WIDE), WORDS)
    assert [gates.layer for gates in found.gates] == [3]


def test_parts_that_a_model_lacks(tiny_eov):
    bare = EovSeg(tiny_eov.config, Parts(selection=None, fusion=None))
    found = explain(Segmenter(bare), colourful(30, 40), "sky")
    assert found.selection is None
    assert found.gates == []
    assert list(draw(found)) == ["queries"]
    assert found.to_dict()["selection"] is None


def test_fates():
    final = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.3, 0.45, 0.25], [0.2, 0.7, 0.1]])
    regions, fates = tell_fates(final, [[4], [0]], [1, 0], words=1, threshold=0.48)
    assert fates == ["segment", "void", "covered", "unsure", "other"]
    assert regions.tolist() == [1, 0, 0, 0, 0], "the background's segment has no region"


# Both -----------------------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was(err, eov, voted, asked):
    parts = [
        err,
        err.model,
        eov,
        eov.model,
        eov.model.selection,
        *eov.model.layers,
        *(layer.fusion.out for layer in eov.model.layers),
    ]
    assert not any(
        {"forward", "vote", "cost", "_read", "ask_clip", "clarity", "refine", "classify"} & vars(part).keys()
        for part in parts
    )


def test_numbers_are_plain(voted, asked):
    content = json.loads(json.dumps(voted.to_dict()))
    assert [row["rank"] for row in content["classes"]] == list(range(1, 10))
    assert [row["kept"] for row in content["classes"]] == [True] * 4 + [False] * 5
    content = json.loads(json.dumps(asked.to_dict()))
    assert len(content["queries"]) == len(asked.fates)
    assert content["queries"][0]["fate"] == "segment"
    assert content["queries"][0]["score"] == pytest.approx(asked.result.regions[0].score)
    assert [gates["layer"] for gates in content["queries"][0]["gates"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "settings", [{"task": "semantic"}, {"task": "instance"}, {"tile": 512}, {"keep": 3}, {"most": 5}]
)
def test_what_is_not_explained(eov, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        explain(eov, colourful(30, 40), WORDS, **settings)


def test_a_compiled_model_is_refused(err):
    compiled = copy(err)
    compiled.run = torch.nn.Identity()  # stands for a graph
    with pytest.raises(ValueError, match="without compile"):
        explain(compiled, colourful(30, 40), WORDS)


@pytest.mark.parametrize(("size", "words"), [((1, 1), ["sky"]), ((3, 200), WORDS[:3]), ((200, 3), WORDS[:2])])
def test_any_picture_is_drawn(err, eov, size, words):
    for segmenter, questions in ((err, ["votes", "costs"]), (eov, ["selection", "queries", "gates"])):
        sheets = draw(explain(segmenter, colourful(*size), words), most=2)
        assert list(sheets) == questions
        assert all(sheet.mode == "RGB" and max(sheet.size) < 3000 for sheet in sheets.values())


def test_many_kept_classes_are_cut(voted, monkeypatch):
    monkeypatch.setattr("wordmask.explain.class_map_sheets.KEPT_ROWS", 1)
    monkeypatch.setattr("wordmask.explain.class_map_sheets.LAST_ROWS", 1)
    whole = draw(voted)["votes"]
    monkeypatch.setattr("wordmask.explain.class_map_sheets.LAST_ROWS", 4)
    assert draw(voted)["votes"].height > whole.height


def test_maps_come_back_without_padding():
    maps = np.zeros((1, 8, 8), "f")
    maps[:, :6, :4] = 1  # the picture; the rest is padding
    frame = Frame(original=(60, 40), resized=(24, 16), padded=(32, 32))
    assert on_picture(maps, frame).shape == (1, 60, 40)
    assert on_picture(maps, frame)[0, :50, :30].min() == 1
    assert on_picture(maps, frame, (30, 20)).shape == (1, 30, 20)


def test_colours_and_text():
    font = choose_font(["a"], size=14)
    picture, values = Image.new("RGB", (20, 10), "white"), np.linspace(0, 1, 200).reshape(10, 20)
    drawn = np.asarray(heat(picture, values, (0, 1), values > 0.5)).astype(int)
    assert drawn[0, 0, 2] > drawn[0, 0, 1], "low is violet"
    assert drawn[-1, -1, 0] > drawn[-1, -1, 2], "high is yellow"
    assert (np.asarray(heat(picture, np.ones((10, 20)), (1, 1))) > 0).any(), "a map may be flat"
    assert colour_scale((0, 1), font, 2).size == colour_scale((-0.5, 123.456), font, 2).size
    assert text_width(shortened("a very long name " * 9, font, 100), font) <= 100
    assert shortened("short", font, 100) == "short"
    assert all(text_width(line, font) <= 100 for line in wrapped("words that go on and on, and on", font, 100))
    narrow, wide = (
        chart(["", "x"], [Row(name, [[Bar(0.5, "1", (0, 0, 0))]])], font).width for name in ("a", "a long name")
    )
    assert narrow < wide


# The command ----------------------------------------------------------------------------------------------------------


QUESTIONS = {"err-seg-untrained": ["costs", "votes"], "eov-seg-untrained": ["gates", "queries", "selection"]}


@pytest.mark.parametrize(("model", "questions"), QUESTIONS.items())
def test_the_command(run, picture, model, questions):
    status, out, err = run("explain", picture, "road", "car [thing]", "--model", model, "--json", "numbers/garden.json")
    assert status == 0, err
    assert "1 picture · 2 words: road, car" in err
    assert "labels mean nothing" in err
    names = [f"garden.{question}.explain.png" for question in questions]
    assert sorted(path.name for path in picture.parent.glob("*.explain.png")) == names, "beside the picture"
    assert all(name in out for name in (*names, "garden.json", "road"))
    content = json.loads((picture.parent / "numbers" / "garden.json").read_text())
    assert content["model"] == model
    assert [source.path.name for source in find_pictures(["."])] == ["garden.png"], (
        "pictures of ours are not read again"
    )


def test_another_folder(run, picture, tmp_path):
    settings = ["--keep", 1, "--show", 1, "--output", "out", "--model", "err-seg-untrained"]
    assert run("explain", picture, "--words", "road; sky", *settings)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "garden.costs.explain.png",
        "garden.votes.explain.png",
    ]
    assert not list(tmp_path.glob("*.explain.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["garden.png"], "No words were given"),
        (["garden.png", "car", "Car"], "given twice"),
        (["sky", "road"], "No picture was given"),
        (["missing.jpg", "sky"], "no picture 'missing.jpg'"),
        (["garden.png", "other.png", "sky"], "2 pictures were given"),
        (["broken.png", "sky"], "no known picture format"),
        (["garden.png", "sky", "--words", "road"], "came in 2 ways"),
        (["garden.png", "sky", "--model", "err-seg-bse"], "Did you mean err-seg-base"),
        (["garden.png", "sky", "--keep", "0"], "keep"),
        (["garden.png", "sky", "--overlap", "0.5"], "overlap says nothing"),
        (["garden.png", "sky", "--output", "garden.png"], "cannot be written to"),
        (["garden.png", "sky", "--json", "."], "is a folder"),
    ],
)
def test_errors_are_messages(run, picture, tmp_path, arguments, message):
    shutil.copy(picture, tmp_path / "other.png")
    (tmp_path / "broken.png").write_text("no picture")
    arguments = arguments if "--model" in arguments else [*arguments, "--model", "err-seg-untrained"]
    status, _, err = run("explain", *arguments)
    assert status == 2
    assert message in err
    assert not list(tmp_path.rglob("*.explain.png"))


def test_nothing_is_half_written(run, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("the disk is full")))
    status, _, err = run("explain", picture, "sky", "--json", "numbers.json", "--model", "err-seg-untrained")
    assert status == 2
    assert "the disk is full" in err
    assert [path.name for path in tmp_path.iterdir()] == ["garden.png"], (
        "the pictures were ready, and are not there either"
    )


# The page -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the page's picture."""
    shutil.copytree(ROOT / "docs" / "pictures", tmp_path / "docs" / "pictures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", SHELL)
def test_the_pages_commands(line, checkout, run):
    shutil.copytree(ROOT / "docs" / "pictures", "docs/pictures", dirs_exist_ok=True)
    words = shlex.split(line)
    assert words[:2] == ["wordmask", "explain"]
    status, _, err = run(*words[1:])
    assert status == 0, err
    questions = re.findall(r"\*\*`(\w+)`:", PAGE)
    written = {path.name.split(".")[1] for path in (checkout / "explained").iterdir()}
    assert written
    assert written <= set(questions), "the page says what each answers"


def test_the_pages_python(checkout, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(compile(block, "docs/explain.md", "exec"), names)
    assert names["maps"].shape == (2, *names["found"].result.size)
    assert (checkout / "coffee.costs.explain.png").exists()
    assert "spoon" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["err-seg-tiny", "eov-seg-tiny"])
def test_the_bundled_models_by_the_shell(model, tmp_path):
    """On a generated scene they find what is there, and say so."""
    scene, words = draw_sample(3)
    scene.save(tmp_path / "scene.png")
    command = [
        sys.executable,
        "-m",
        "wordmask",
        "explain",
        "scene.png",
        *words,
        "--model",
        model,
        "--json",
        "scene.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "scene.json").read_text())
    assert "hay" in done.stdout
    if model == "err-seg-tiny":
        assert content["classes"][0]["name"] == "hay"
        assert content["classes"][0]["share"] > 0.3
    else:
        found = {query["classes"][0]["name"]: query for query in content["queries"] if query["fate"] == "segment"}
        assert {"hay", "planks"} <= found.keys()
        assert found["hay"]["classes"][0]["ensemble"] > 0.9
    for path in tmp_path.glob("*.explain.png"):
        with Image.open(path) as sheet:
            assert np.asarray(sheet).std() > 20, path
