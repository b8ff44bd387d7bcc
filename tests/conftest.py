"""What tests share: shapes checked at run time, no network, a cache of their own, and small models that are not
trivial."""

import os
import signal
import sys
import zlib
from dataclasses import replace
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from jaxtyping import install_import_hook

# what checks its shapes can't become one graph; see test_compile.py
COMPILED = os.environ.get("WORDMASK_TEST_COMPILED") == "1"

if not COMPILED:
    install_import_hook(
        [
            "wordmask.models",
            "wordmask.clip",
            "wordmask.text",
            "wordmask.postprocess",
            "wordmask.raw",
            "wordmask.data.augment",
            "wordmask.data.shapeland",
            "wordmask.evaluation",
        ],
        "beartype.beartype",
    )

import numpy as np
import pytest
import torch
from PIL import Image

from wordmask import cli
from wordmask.bench.timing import Timing
from wordmask.segmentation import Origin
from wordmask.settings import Task, of_known_labels
from wordmask.vocabulary import Vocabulary

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # so a shell starts what runs in the background, and all that this starts; the tests press Ctrl-C there too
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"


def asked_for(
    picture: np.ndarray, vocabulary: Vocabulary, task: Task = "semantic", *, threshold: float = 0.0, **about: str
) -> Origin:
    """The origin of a result that a test makes by hand; `about` may name its `model` and `source`."""
    settings = replace(of_known_labels(task), threshold=threshold)
    return Origin(picture, vocabulary, settings, **{"model": "test", **about})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Every test has an empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WORDMASK_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with parity cases, vocabularies and sample photographs."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def parity(shared):
    """The module with the parity cases' weight rule, and their folder."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("fill", shared / "parity" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = shared / "parity"
    return module


@pytest.fixture(scope="session")
def tiny():
    """A small ERR-Seg whose weights matter: as initialised, layer scales and biases hide bugs."""
    return filled("err-seg-untrained")


@pytest.fixture(scope="session")
def tiny_eov():
    """A small EOV-Seg, likewise."""
    return filled("eov-seg-untrained")


@pytest.fixture
def picture(tmp_path) -> Path:
    """A small colourful picture file."""
    path = tmp_path / "garden.png"
    Image.fromarray(colourful(48, 64)).save(path)
    return path


@pytest.fixture
def garden(tmp_path) -> Path:
    """Six pictures of one's own: a red and a blue half, labelled by PNGs."""
    root = tmp_path / "garden"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "names.txt").write_text("red wall [stuff]\nblue door, blue gate [thing]\n")
    for number in range(6):
        border = 20 + 5 * number
        labels = np.where(np.arange(64) < border, 0, 1).astype(np.uint8)[None].repeat(48, axis=0)
        rgb = np.array([(200, 30, 30), (30, 30, 200)], np.uint8)[labels]
        Image.fromarray(rgb).save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
    return root


@pytest.fixture
def small_bench(monkeypatch, tmp_path):
    """`wordmask bench` on a machine that is measured at once, and on small pictures."""
    for name, value in {"MATRIX": 64, "MAPS": (8, 4, 6), "RATE_SECONDS": 0, "COPIED": 2**16}.items():
        monkeypatch.setattr(f"wordmask.bench.machine.{name}", value)
    monkeypatch.setattr("wordmask.bench.machine.measure_yardstick", lambda _: Timing(2.0, 2.0, 2.0, 1))
    monkeypatch.setattr("wordmask.bench.model.SIZE", (64, 80))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def filled(preset: str) -> torch.nn.Module:
    """Build a preset with weights that depend on each parameter's name."""
    from wordmask.models import kind_of

    kind = kind_of(preset)
    model = kind.random(kind.presets[preset])
    state = {name: noise_for(name, tensor) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def noise_for(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Draw a weight of the right scale, by its name alone."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if name.endswith("selection.scale"):  # makes up for a near-uniform softmax
        return 20 + noise
    if tensor.ndim == 0:
        return torch.tensor(3.0).to(tensor.dtype)
    if name.endswith("gamma"):
        return 0.3 + 0.03 * noise
    if tensor.ndim == 1:
        return (1 + 0.1 * noise) if name.endswith("weight") else 0.1 * noise
    return noise / max(1, tensor[0].numel()) ** 0.5


def colourful(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw blocks of colour, (H, W, 3) uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run `wordmask …` in this process, in a folder of its own; give (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wordmask", *map(str, arguments)])
        with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return (130 if stop.type is KeyboardInterrupt else stop.value.code or 0), captured.out, captured.err

    return call
