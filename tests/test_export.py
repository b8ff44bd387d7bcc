"""Exported models: words and sizes that they were not recorded with, and the runtime that needs no torch, against
PyTorch."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import colourful, filled
from exporting import FAMILIES, OTHER_WORDS, agree
from wordmask import export, runtime
from wordmask.data.shapeland import COMPOSITIONS, World, draw_scene
from wordmask.segmenter import Segmenter, load

PAGE = Path(__file__).parents[1] / "docs" / "export.md"


def export_by_shell(model: str, form: str, folder: Path) -> list[str]:
    """Run `wordmask export` as a person does; give what it says. A process of its own: what checks its shapes can't be
    recorded."""
    command = [sys.executable, "-m", "wordmask", "export", model, "--format", form, "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    return [line for line in done.stderr.splitlines() if " MB, " in line]


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory):
    """A bundled model, and what was exported of it as ONNX."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("export") / "onnx"
    said = export_by_shell(f"{request.param}-tiny", "onnx", folder)
    return load(f"{request.param}-tiny", precision="float32", cache=None), folder, said


@pytest.mark.slow
def test_the_folder_says_what_it_holds(exported):
    segmenter, folder, said = exported
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["model.json", "model.onnx", "runtime.py", "text.onnx", "tokenizer.json", export.PARTS]
    assert {path.name for path in (folder / export.PARTS).glob("*.py")} == set(export.COPIED)
    assert len(said) == 2
    assert float(re.search(r"([\d.]+)% of pixels", said[0])[1]) >= 99.9
    about = json.loads((folder / "model.json").read_text())
    assert about["templates"] == list(segmenter.model.templates)
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"], "nothing is left beside it"


@pytest.mark.slow
@pytest.mark.parametrize("size", [(200, 200), (150, 260), (333, 180), (60, 3000), (2000, 31), (5, 5)])
@pytest.mark.parametrize("count", [1, 2, 3, 20, 61])
def test_other_words_on_other_sizes(exported, size, count):
    segmenter, folder, _ = exported
    scene = Image.fromarray(draw_scene(count, World(*size)).rgb)
    words = [*OTHER_WORDS, *(thing.name for thing in COMPOSITIONS[1:200:3])][:count]
    segment = runtime.Runtime(folder)
    for task in segment.about.tasks:
        agree(segment(scene, words, task=task), segmenter(scene, words, task=task))


@pytest.mark.slow
def test_photographs(exported, shared):
    segmenter, folder, _ = exported
    segment = runtime.Runtime(folder)
    photos = sorted((shared / "samples").glob("*/images/*.jpg"))
    assert photos
    for photo in photos:
        for task in segment.about.tasks:
            words = ["sky [stuff]", "tree", "person, man", "building", "car", "grass", "a red bus"]
            agree(segment(photo, words, task=task), segmenter(photo, words, task=task))


@pytest.mark.slow
def test_several_pictures_at_once(exported):
    segmenter, folder, _ = exported
    pair = export.example(segmenter, export.Sizes(9, 96, 64, 2)).model
    graph = runtime.open_graph(folder / "model.onnx")
    given = {
        name: value.numpy() if isinstance(value, torch.Tensor) else np.array(value) for name, value in pair.items()
    }
    together = graph(**given)
    alone = [graph(**{**given, "pixels": given["pixels"][n : n + 1]}) for n in range(2)]
    for n, one in enumerate(alone):
        assert all(np.allclose(a[n], b[0], atol=1e-3) for a, b in zip(together, one, strict=True))


@pytest.mark.slow
def test_the_runtime_needs_no_torch(exported, tmp_path):
    _, folder, _ = exported
    Image.fromarray(colourful(40, 60)).save(tmp_path / "a.png")
    blocked = "import sys; sys.modules['torch'] = sys.modules['wordmask'] = None"
    asked = f"sys.argv = ['runtime.py', 'a.png', 'sky', 'red car']; sys.path.insert(0, {str(folder)!r})"
    run = f"{blocked}; {asked}; import runpy; runpy.run_path({str(folder / 'runtime.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_the_page_says_of_the_runtime(exported, tmp_path, monkeypatch, capsys):
    _, folder, _ = exported
    page = PAGE.read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("python exported/")]
    (python,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if block.startswith("from runtime")
    ]
    Image.fromarray(colourful(40, 60)).save(tmp_path / "street.jpg")
    (tmp_path / "exported").symlink_to(folder)
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    exec(compile(python, PAGE.name, "exec"), {})
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [
        line.split()[0] for line in capsys.readouterr().out.splitlines()
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_that_differs_is_not_written(family, tmp_path, monkeypatch):
    segmenter = Segmenter(filled(f"{family}-untrained"))

    def wrong(file, graph):
        def call(**inputs):
            outputs = export.as_tuple(graph(*(torch.from_numpy(a) if a.ndim else int(a) for a in inputs.values())))
            return [
                output.numpy()[..., ::-1].copy() if output.is_floating_point() else output.numpy() for output in outputs
            ]

        return call

    monkeypatch.setattr(export, "record", lambda graph, case: None)
    monkeypatch.setattr(export, "write_graph", lambda program, file, graph: file.write_bytes(b"graph"))
    monkeypatch.setattr(export, "open_graph", wrong)
    with pytest.raises(ValueError, match="Nothing was written"):
        export.export(segmenter, tmp_path / "out", form="torch")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_wrong_at_one_size_alone_is_not_written(tmp_path, monkeypatch):
    """One side of a grid is 1: what a recording is most likely to take for a constant. Classes may be right by luck."""
    segmenter = Segmenter(filled("eov-seg-untrained"))

    def wrong(file, graph):
        def call(**inputs):
            outputs = export.as_tuple(graph(*(torch.from_numpy(array) for array in inputs.values())))
            is_thin = "pixels" in inputs and 32 in inputs["pixels"].shape
            return [output.numpy() * np.float32(1.5 if is_thin else 1) for output in outputs]

        return call

    monkeypatch.setattr(export, "record", lambda graph, case: None)
    monkeypatch.setattr(export, "write_graph", lambda program, file, graph: file.write_bytes(b"graph"))
    monkeypatch.setattr(export, "open_graph", wrong)
    with pytest.raises(ValueError, match=r"differs: .* on pixels \d×3×\d+×\d+, .*Nothing was written"):
        export.export(segmenter, tmp_path / "out", form="torch")
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_exported(tmp_path, monkeypatch):
    segmenter = Segmenter(filled("err-seg-untrained"))
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists"):
        export.export(segmenter, tmp_path / "there", form="torch")
    with pytest.raises(ValueError, match="expected one of"):
        export.export(segmenter, tmp_path / "out", form="coreml")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wordmask\[openvino\]"):
        export.export(segmenter, tmp_path / "out", form="openvino")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_of_torch_takes_other_words(family, tmp_path):
    export_by_shell(f"{family}-tiny", "torch", tmp_path / "out")
    segmenter = load(f"{family}-tiny", precision="float32", cache=None)
    recorded = export.graph_of(segmenter.model)
    graph = export.open_graph(tmp_path / "out" / "model.pt2", recorded)
    for sizes in ((1, 128, 128, 1), (2, 32, 256, 1), (17, 256, 32, 2), (300, 32, 32, 1)):
        words, *_ = sizes
        case = export.example(segmenter, export.Sizes(*sizes)).model
        case |= {"keep": min(words, 5)} if "keep" in case else {}
        with torch.inference_mode():
            expected = [output.numpy() for output in recorded(*case.values())]
        found = graph(
            **{
                name: value.numpy() if isinstance(value, torch.Tensor) else np.array(value)
                for name, value in case.items()
            }
        )
        assert [a.shape for a in found] == [b.shape for b in expected]
        best = [export.class_scores(recorded, raw, words).argmax(axis=1) for raw in (found, expected)]
        assert (best[0] == best[1]).mean() >= 0.999


BY_THE_RUNTIME = """
import json, pickle, sys
from pathlib import Path
from PIL import Image
from wordmask.runtime import Runtime

segment, found = Runtime(Path(sys.argv[1])), []
for file, words in json.loads(Path("asked.json").read_text()):
    found.append(segment(Image.open(file), words))
Path("found").write_bytes(pickle.dumps(found))
# in a process of its own: a process that ran OpenVINO 2026.4 and then trains with torch 2.15 ends in a segmentation
# fault
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["eov-seg"])
def test_openvino(family, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    export_by_shell(f"{family}-tiny", "openvino", tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {".xml", ".bin", ".json", ".py"}
    asked = []
    for height, width in ((160, 240), (60, 3000), (2000, 31), (5, 5)):
        file = f"{height}x{width}.png"
        Image.fromarray(draw_scene(3, World(height, width)).rgb).save(tmp_path / file)
        asked += [(file, OTHER_WORDS[:1]), (file, OTHER_WORDS)]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    subprocess.run([sys.executable, "-c", BY_THE_RUNTIME, "out"], cwd=tmp_path, check=True, timeout=300)
    segmenter = load(f"{family}-tiny", precision="float32", cache=None)
    for (file, words), found in zip(asked, pickle.loads((tmp_path / "found").read_bytes()), strict=True):
        agree(found, segmenter(tmp_path / file, words))
