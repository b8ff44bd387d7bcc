"""What the tests of exported models share: what a runtime found is compared, and models stand in for graphs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wordmask import export, runtime
from wordmask.data.shapeland import COMPOSITIONS, MATERIALS
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter

FAMILIES = ["err-seg", "eov-seg"]
OTHER_WORDS = [*MATERIALS, *(thing.name for thing in COMPOSITIONS[:60:3]), "old lace, tulle [stuff]"]


def agree(found: runtime.Found, result: Segmentation) -> None:
    """The same labels, the same regions, the same scores."""
    labels = np.where(result.labels == result.unlabelled, -1, result.labels.astype(int))
    assert (found.labels == labels).mean() >= 0.999
    large = {region.name: region for region in result.regions if region.area > 0.02 * labels.size}
    assert large.keys() <= {region.name for region in found.regions}
    if result.task == "semantic":
        for region in found.regions:
            if region.name in large:
                assert region.score == pytest.approx(large[region.name].score, abs=2e-3)
                assert region.area == pytest.approx(large[region.name].area, rel=0.01)
    else:
        assert abs(len(found.regions) - len(result.regions)) <= 1
        assert sum(region.area for region in found.regions) == (found.ids > 0).sum()


def exported_without_graphs(segmenter: Segmenter, folder: Path) -> Path:
    """Write what `export` writes, with empty files for the graphs."""
    folder.mkdir()
    files = {"model": "model.onnx", "text": "text.onnx"}
    for name in files.values():
        (folder / name).touch()
    export.write_runtime(folder)
    (folder / "model.json").write_text(json.dumps(export.describe(segmenter, files)))
    export.tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def let_models_stand_in(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a runtime run the model itself where it would open a graph."""
    graphs = {"model.onnx": export.graph_of, "text.onnx": export.TextGraph}

    def open_graph(file: Path):
        graph = graphs[file.name](segmenter.model)

        def call(**inputs: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                arrays = [inputs[name] for name in graph.inputs]
                given = [torch.from_numpy(array) if array.ndim else int(array) for array in arrays]
                return [output.numpy() for output in export.as_tuple(graph(*given))]

        return call

    monkeypatch.setattr(runtime, "open_graph", open_graph)
