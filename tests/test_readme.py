"""What the README says is run: its shell commands and its Python, on a small stand-in for the released weights."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from wordmask import cli, weights
from wordmask.models import MODELS, kind_of, preset_names
from wordmask.models.load import convert
from wordmask.released import remember

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if "wordmask" in line
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory, tiny, tiny_eov):
    """Reference checkpoints of tiny models, and the same converted."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for family, model in (("err-seg", tiny), ("eov-seg", tiny_eov)):
        torch.save(
            {MODELS[family].reference.name(name): tensor for name, tensor in model.state_dict().items()},
            folder / f"{family}.pth",
        )
        convert(weights.read(folder / f"{family}.pth"), folder / f"{family}.safetensors")
    return folder


@pytest.fixture
def checkout(tmp_path, monkeypatch, stand_ins):
    """A folder with the README's pictures, and a cache in which tiny models stand for the released ones."""
    shutil.copytree(ROOT / "docs" / "pictures", tmp_path / "docs" / "pictures")
    shutil.copy(stand_ins / "err-seg.pth", tmp_path / "model_final.pth")
    monkeypatch.chdir(tmp_path)
    for kind in MODELS.values():
        for preset in kind.released:
            remember(preset, stand_ins / f"{kind.family}.safetensors", {})
    return tmp_path


def test_the_first_screen_has_the_two_commands():
    first, second = re.search(r"```bash\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert first == "pip install uv && uv run wordmask demo"
    assert second == "uv run pytest"
    assert README[: README.index(second)].count("\n") < 12
    assert second in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("line", SHELL)
def test_shell_commands(line, checkout, monkeypatch, capsys):
    words = shlex.split(line.removeprefix("pip install uv && "), comments=True)
    assert words[:3] == ["uv", "run", "wordmask"]
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, capsys.readouterr().err
    if words[3] == "segment":
        assert {path.name for path in (checkout / "masks").iterdir()} >= {
            "coffee.masks.png",
            "coffee.labels.png",
            "coffee.masks.json",
        }


def test_python(checkout):
    assert len(PYTHON) == 3
    names = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)
    assert (checkout / "coffee.masks.png").exists()
    assert (checkout / "masks" / "coffee.masks.json").exists()


def test_python_of_the_training_page():
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL):
        exec(compile(block, "docs/training.md", "exec"), {})


@pytest.mark.parametrize("preset", preset_names())
def test_parameters(preset):
    kind = kind_of(preset)
    model = kind.skeleton(kind.presets[preset]).for_inference()
    text = (
        sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(weights.TEXT_TOWER))
        / 1e6
    )
    total = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    cells = {"err-seg": f"{total:.0f}M", "eov-seg": rf"{total:.0f}M \({total - text:.0f}M\)"}
    assert re.search(rf"`{preset}` \|.*\| {cells[kind.family]} \|", README), (preset, total, text)


def test_links():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)(.*?)\)", page.read_text()):
            assert (page.parent / target.split("#")[0]).exists(), target
