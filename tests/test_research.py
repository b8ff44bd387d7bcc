"""The papers' ablations: every part builds, learns and is counted; the tables come out the same from what was saved."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import claims
import err_seg_parts
import report
import retrain
import starting_clip
import tables
from count import count, parameters_of, ratios, skeleton, some_words, time_variants
from eov_seg_parts import DINOV2, SAM, MaskedCrossAttention, TimmBeginning
from err_seg_parts import VariedErrSeg
from retrain import begin
from scenes import DRAWS, draws, estimate, figures, score_scenes
from variants import ERR_SEG, FUSIONS, SMALL_EXTRACTORS, VARIANTS
from wordmask import clip
from wordmask.clip import CONVNEXT_LARGE, CONVNEXT_MINI, VIT_MINI
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.models import kind_of
from wordmask.models.eov_seg import EovSeg
from wordmask.models.err_seg import loss
from wordmask.models.load import load_model
from wordmask.text import Words
from wordmask.training.tiny_clip import pair
from wordmask.training.validation import validate

ROOT = Path(__file__).parents[1]
SMALL = {name: variant for name, variant in VARIANTS.items() if not variant.full_size_only}
WITHIN = 1.0  # million parameters: the paper gives whole ones


def small(name: str) -> torch.nn.Module:
    """A variant of the smallest configuration of its family."""
    variant = VARIANTS[name]
    torch.manual_seed(0)
    return variant.build(kind_of(f"{variant.family}-untrained").presets[f"{variant.family}-untrained"])


def few_words(width: int) -> Words:
    vectors = F.normalize(torch.randn(5, width, generator=torch.Generator().manual_seed(1)), dim=-1)
    return Words(vectors, torch.arange(5), torch.tensor([True, True, False, True, False]))


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_part_learns_and_answers(name):
    model = small(name).train()
    words, pixels = few_words(model.config.clip.width), torch.randn(2, 3, 64, 64)
    raw = model(pixels, words)
    if model.family == "err-seg":
        loss(raw, torch.randint(0, 5, (2, 64, 64))).backward()
    else:
        sum((part**2).mean() for part in raw if part is not None and part.isfinite().all()).backward()
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if model.is_trained(name) and not name.startswith("clip.")
    }
    without = [
        name for name, parameter in trained.items() if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert not without
    with torch.inference_mode():
        answer = model.eval()(pixels, words)
        alone = model(pixels[:1], words)
    masks = answer.logits if model.family == "err-seg" else answer.mask_logits
    assert masks.shape[-2:] == (16, 16)
    torch.testing.assert_close(
        (alone[0] if model.family == "err-seg" else alone.mask_logits)[0], masks[0], rtol=1e-3, atol=1e-3
    )


def test_err_seg_without_an_exchanged_part_is_err_seg(tiny):
    varied = VariedErrSeg(tiny.config).eval()
    varied.load_state_dict(tiny.state_dict())
    words, pixels = few_words(tiny.config.clip.width), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert all(
            torch.equal(ours, theirs) for ours, theirs in zip(varied(pixels, words), tiny(pixels, words), strict=True)
        )


def test_one_cost_map_chooses_and_shows_the_same():
    model = small("x32 alone").eval()
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, 64, 64))
    assert features.dense_x16 is features.dense_x32
    assert features.dense_x32.shape[-2:] == (2, 2)


@pytest.mark.parametrize("name", ["x16 alone", "x32 alone"])
def test_one_cost_map_goes_in_parts_as_well(name, monkeypatch):
    model = small(name).eval()
    cost, convolve, sizes = torch.randn(2, 5, 4, 6), model.cost_embedding.convolve, []
    monkeypatch.setattr(
        model.cost_embedding, "convolve", lambda cost, fused: sizes.append(cost.shape[1]) or convolve(cost, fused)
    )
    with torch.inference_mode():
        whole = model.cost_embedding(cost, cost)
        monkeypatch.setattr(err_seg_parts, "ENTRIES_AT_ONCE", 1)
        torch.testing.assert_close(model.cost_embedding(cost, cost), whole)
    assert sizes == [5, 1, 1, 1, 1, 1]


def test_an_empty_mask_looks_everywhere():
    config = kind_of("eov-seg-untrained").presets["eov-seg-untrained"]
    attention = MaskedCrossAttention(config).eval()
    kernels, features = torch.randn(1, 3, config.width), torch.randn(1, config.width, 4, 4)
    masks = torch.full((1, 3, 4, 4), -1.0)
    masks[0, 1, 0, 0] = 1
    everywhere, one_pixel, _ = attention(kernels, features, masks)[0]
    assert everywhere.isfinite().all()
    moved = features.clone()
    moved[..., 3, 3] += 1
    again = attention(kernels, moved, masks)[0]
    assert torch.equal(again[1], one_pixel), "what it doesn't cover is nothing to it"
    assert not torch.equal(again[0], everywhere)


@pytest.mark.parametrize("name", [DINOV2, SAM])
def test_other_towers_give_a_map_at_stride_16(name):
    tower = TimmBeginning(name, blocks=1).eval()
    with torch.inference_mode():
        assert tower(torch.randn(1, 3, 64, 96)).shape == (1, tower.channels, 4, 6)


def test_variants_begin_alike(tmp_path):
    file = tmp_path / "clip.safetensors"
    pair.save(file, pair.ClipPair(pair.PairConfig(CONVNEXT_MINI, VIT_MINI, vit_layers=3)), "a test")
    config = kind_of("eov-seg-tiny").presets["eov-seg-tiny"]
    base = EovSeg(config)
    model = begin(VARIANTS["CLIP, last of 3 blocks"].build(config), base, file)
    assert len(model.spatial.blocks) == 3
    vit = pair.load(file).vit.state_dict()
    assert torch.equal(model.spatial.blocks[2].ln_1.weight, vit["transformer.resblocks.2.ln_1.weight"])
    assert torch.equal(model.layers[0].feed_forward[0].weight, base.layers[0].feed_forward[0].weight)


@pytest.mark.slow
def test_trainings_begin_with_the_bundled_clip_and_further_blocks(tmp_path):
    before = starting_clip.bundled_pair().state_dict()
    file = starting_clip.starting_clip(tmp_path / "clip", "cpu", 2, ("batch=2", "workers=0"))
    after = pair.load(file).state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.split(".")[3] for name in changed if "resblocks" in name} == {"1", "2"}
    assert {name for name in changed if "resblocks" not in name} == {
        "vit.proj",
        "vit.ln_post.weight",
        "vit.ln_post.bias",
    }
    bundled_model = load_model("eov-seg-tiny").model
    assert torch.equal(after["clip.text_projection"], bundled_model.clip.text_projection)
    assert torch.equal(after["vit.conv1.weight"], bundled_model.spatial.conv1.weight)


# Counts ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def millions() -> dict[str, float]:
    """Parameters of EOV-Seg L's variants, in millions, without the text tower and without the paper's spatial tower of
    one block."""
    variants = FUSIONS | {name: VARIANTS[name] for name in ("cross-attention, single-scale", "CLIP, block 11")}
    with torch.device("meta"):
        tower = clip.build(CONVNEXT_LARGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "build", lambda config: tower)  # one for all: it takes longest
        models = {name: skeleton(variant, "eov-seg-large") for name, variant in variants.items()}
    first_block = sum(parameter.numel() for parameter in models["EOV-Seg"].spatial.parameters())
    return {
        name: (parameters_of(model) - (first_block if model.spatial else 0)) / 1e6 for name, model in models.items()
    }


def test_parameters_are_the_papers_where_they_are_of_the_same(millions):
    """The paper's sums come out if the spatial tower is left out; all of its figures are then higher by 1 to 2 %."""
    published = {name: FUSIONS[name].published.parameters for name in FUSIONS}
    base = "no fusion, no VAS"
    for name in FUSIONS:
        ours, theirs = millions[name] - millions[base], published[name] - published[base]
        assert ours == pytest.approx(theirs, abs=WITHIN), name
        assert millions[name] == pytest.approx(published[name], rel=0.025), name


def test_parameters_of_what_is_not_the_same(millions):
    """The paper's cross-attention brings 57 M, which no attention of its width has; and ViT-B's blocks have 7.1 M each,
    all alike."""
    assert millions["cross-attention, single-scale"] - millions["EOV-Seg"] == pytest.approx(0.8, abs=0.1)
    assert millions["CLIP, block 11"] - millions["EOV-Seg"] == pytest.approx(11 * 7.09, abs=0.1)


@pytest.mark.slow
def test_operations_of_the_full_size_model_are_near_the_papers():
    """The paper has 377 G for pictures of ADE20K, wider than the square of 640 that is counted here."""
    counted = count(FUSIONS["EOV-Seg"], "eov-seg-large", "ade20k-150")
    assert counted["operations"] / 1e9 == pytest.approx(341, abs=1)
    assert counted["spatial tower"] == 7_831_296


@pytest.mark.slow
def test_a_reduction_saves_operations():
    operations = {
        name: count(variant, "err-seg-tiny", "shapeland-150")["operations"] for name, variant in ERR_SEG.items()
    }
    assert operations["x32 alone"] < operations["x16 alone"] < operations["ERR-Seg"]
    assert operations["ERR-Seg"] < operations["no spatial reduction"] < operations["no reduction"]
    assert operations["ERR-Seg"] < operations["no class reduction"] < operations["no reduction"]


def test_words_are_as_many_as_a_family_encodes():
    assert len(some_words("ade20k-150", "err-seg", 8).embeddings) == 150
    assert len(some_words("ade20k-150", "eov-seg", 8).embeddings) > 150


def test_times_are_ratios_of_the_same_round():
    found = ratios({"base": [1.0, 2.0, 4.0], "twice": [2.0, 4.0, 8.0]}, "base")
    assert found["twice"] == {"seconds": 4.0, "ratio": 2.0, "low": 2.0, "high": 2.0, "runs": 3}
    chosen = {name: FUSIONS[name] for name in ("EOV-Seg", "no fusion, no VAS")}
    times = time_variants(chosen, "eov-seg-untrained", "ade20k-150", runs=1, device=torch.device("cpu"))
    assert times["EOV-Seg"]["ratio"] == 1


# Scores and claims ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["err-seg-tiny", pytest.param("eov-seg-tiny", marks=pytest.mark.slow)])
def test_scores_by_scene_come_to_the_usual_ones(model):
    data, unseen = Shapeland("shapeland-150", "test", 2), unseen_classes("shapeland-150")
    loaded = load_model(model).model.for_inference()
    expected = validate(loaded, data, unseen=unseen)
    found = figures(score_scenes(loaded, data), unseen)
    assert found.keys() == expected.keys()
    assert all(values[0] == pytest.approx(expected[name], nan_ok=True) for name, values in found.items())
    assert all(len(values) == DRAWS + 1 for values in found.values())


def test_draws_are_the_same_every_time_and_of_as_many_scenes():
    assert np.array_equal(draws(7), draws(7))
    assert (draws(7).sum(axis=1) == 7).all()
    assert estimate(np.array([5.0, *range(101)])) == (5.0, 5 - 47.5, 5 + 47.5), (
        "around the value, not around the mean of the draws"
    )


def claim(kind: str, difference: list[float], **more) -> dict:
    return {
        "kind": kind,
        "text": "it does",
        "unit": "PQ",
        "seeds": None,
        "rounds": 5,
        "paper": "",
        "difference": difference,
    } | more


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (claim("better", [2.0, 1.0, 3.0]), True),
        (claim("better", [2.0, -1.0, 3.0]), None),
        (claim("better", [-2.0, -3.0, -1.0]), False),
        (claim("better", [2.0, 1.0, 3.0], seeds=1.5), None),
        (claim("kept", [-0.2, -0.9, 0.5]), True),
        (claim("kept", [-0.2, -1.9, 0.5]), None),
        (claim("kept", [-3.0, -4.0, -2.0]), False),
        (claim("kept", [-3.0, -4.0, -2.0], seeds=2.5), None),
        (claim("faster", [0.5, 0.4, 0.6]), True),
        (claim("faster", [0.9, 0.8, 1.1]), None),
        (claim("faster", [0.5, 0.4, 0.6], rounds=2), None),
        (claim("slower", [0.5, 0.4, 0.6]), False),
        (claim("near", [5.05, 5.0]), True),
        (claim("near", [0.8, 57.0]), False),
    ],
)
def test_a_claim_holds_or_not_or_stays_open(made, verdict):
    assert claims.holds(made) is verdict
    assert claims.sentence(made).startswith(f"**{claims.SAID[verdict]}**: it does.")


def test_what_a_claim_says_has_its_numbers():
    made = claim("better", [2.04, -1.0, 3.0], seeds=0.5, paper="24.5 against 23.6 PQ")
    for part in ("+2.0 PQ", "−1.0 to +3.0", "0.5 apart", "Paper: 24.5 against 23.6 PQ."):
        assert part in claims.sentence(made)


def test_the_parts_that_are_varied_count_as_code():
    assert {"err_seg_parts.py", "eov_seg_parts.py", "variants.py"} <= {path.name for path in retrain.SOURCES}
    assert all(path.is_file() for path in retrain.SOURCES)


def test_scenes_are_counted_anew_when_a_part_was_edited(tmp_path, monkeypatch):
    """Figures of before are repeated for the same weights, scenes and code alone."""
    model, data, counted = small("ERR-Seg").eval(), Shapeland("shapeland-150", "test", 2), []

    def score(model, held_out):
        counted.append(len(held_out))
        return {"found": np.zeros(len(held_out))}

    part = tmp_path / "parts.py"
    part.write_text("# as it was")
    monkeypatch.setattr(retrain, "score_scenes", score)
    monkeypatch.setattr(retrain, "SOURCES", (part,))
    for _ in range(2):
        assert list(retrain.counted_once(model, data, tmp_path / "scenes.npz")) == ["found"]
    assert counted == [2]
    part.write_text("# edited")
    retrain.counted_once(model, data, tmp_path / "scenes.npz")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    retrain.counted_once(model, data, tmp_path / "scenes.npz")
    np.savez(tmp_path / "scenes.npz", found=np.zeros(2))  # as it was kept before
    retrain.counted_once(model, data, tmp_path / "scenes.npz")
    assert counted == [2, 2, 2, 2]


# The command ----------------------------------------------------------------------------------------------------------


def some_table() -> dict:
    scores = {"PQ": [20.0, 18.0, 22.0], "PQ seen": [25.0, 22.0, 28.0], "PQ unseen": [14.0, 12.0, 16.0]}
    time = {"seconds": 0.1, "ratio": 1.0, "low": 1.0, "high": 1.0, "runs": 3}
    published = {"pq": 24.5, "miou": 32.1, "fps": 11.6, "parameters": 225}
    cost = {"parameters": 2_570_000, "spatial tower": 100_000, "operations": 5 * 10**8}
    rows = [
        {"variant": name, "scores": scores, "time": time, "cost": cost, "published": published}
        for name in ("base", "other")
    ]
    rows.append({"variant": "base, another seed", "scores": scores})
    made = {
        "title": "A table",
        "base": "base",
        "plot": "dots",
        "rows": rows,
        "claims": [claim("better", [2.0, 1.0, 3.0])],
    }
    return made | {"notes": ["A note."], "conditions": {"threads": 1, "instructions": ["avx2"]}}


def test_pages_and_plots_come_out_the_same_from_what_was_saved(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "fusion.json").write_text(json.dumps(some_table()))
    content = []
    for _ in range(2):
        assert tables.main(["--render", "--out", str(tmp_path)]) == 0
        content.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert content[0] == content[1]
    assert content[0].keys() == {"fusion.json", "fusion.md", "fusion.png", "README.md"}
    text = content[0]["fusion.md"].decode()
    assert "| base | 20.0 (18.0–22.0) |" in text
    assert "**Agrees**: it does. +2.0 PQ" in text
    assert "[A table](fusion.md) | 1 | 0 | 0 |" in content[0]["README.md"].decode()


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("throughput", ()),
        pytest.param("speed", ("speed.png", "memory.png"), marks=pytest.mark.slow),
        pytest.param("precision", (), marks=pytest.mark.slow),
    ],
)
def test_the_page_of_a_benchmark_is_what_its_json_says(tmp_path, name, plots):
    folder = ROOT / "docs" / "results"
    shutil.copy(folder / f"{name}.json", tmp_path)
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--report", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert (tmp_path / f"{name}.md").read_text() == (folder / f"{name}.md").read_text()
    assert all((tmp_path / plot).exists() and (folder / plot).exists() for plot in plots)


def test_nothing_is_faster_than_its_floor():
    found = json.loads((ROOT / "docs" / "results" / "speed.json").read_text())
    parts = [part for one in found["models"] for part in one["parts"] if part["floor"]]
    assert len(parts) > 40
    assert all(part["median"] >= part["floor"] for part in parts)


def test_what_lies_in_docs_is_what_its_json_says(tmp_path):
    folder = ROOT / "docs" / "results"
    for path in folder.glob("*.json"):
        if path.stem in ("speed", "throughput", "precision"):  # no tables of a paper; see above
            continue
        shutil.copy(path, tmp_path)
        assert report.page(path.stem, json.loads(path.read_text())) == path.with_suffix(".md").read_text(), path.stem
        assert path.with_suffix(".png").exists()


def test_without_a_clip_the_rest_is_measured(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    given = [
        "--quick",
        "--only",
        "fusion",
        "--out",
        str(tmp_path / "out"),
        "--clip",
        str(tmp_path / "none"),
        "--runs-folder",
        str(tmp_path),
    ]
    assert tables.main(given) == 1
    assert "fusion was left out: There is no CLIP" in capsys.readouterr().err
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.slow
def test_the_command_from_end_to_end_and_again(tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    chosen = ["ensembles", "layers", "reductions", "blocks", "cost_err_seg"]
    given = ["--quick", "--only", *chosen, "--out", str(out), "--runs-folder", str(tmp_path / "runs")]
    assert tables.main(given) == 0
    assert {path.stem for path in out.glob("*.json")} == set(chosen)
    first = {name: json.loads((out / f"{name}.json").read_text()) for name in chosen}
    assert [row["variant"] for row in first["blocks"]["rows"]] == [
        "EOV-Seg",
        "EOV-Seg, another seed",
        *SMALL_EXTRACTORS,
    ]
    assert len(list((tmp_path / "runs").iterdir())) == 7 + 4 + len(["clip"])
    assert tables.main([*given[:1], "--only", "blocks", *given[7:]]) == 0, "the trainings are there, and are taken up"
    again = json.loads((out / "blocks.json").read_text())
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in first["blocks"]["rows"]]


# Style ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "research").glob("*.py")), ids=lambda path: path.name)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_nothing_imports_research():
    names = {path.stem for path in (ROOT / "research").glob("*.py")}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not names & {alias.name.split(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in names, path
