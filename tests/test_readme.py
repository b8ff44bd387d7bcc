"""What the README says is run: its shell commands and its Python, on a small stand-in for the released weights."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from wordmask import cli, weights
from wordmask.models import MODELS
from wordmask.models.convert import reference_name
from wordmask.models.load import convert

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if "wordmask" in line]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def checkout(tmp_path, monkeypatch, own_cache, tiny):
    """A folder with the README's pictures, and a cache in which a tiny model stands for the released ones."""
    shutil.copytree(ROOT / "docs" / "pictures", tmp_path / "docs" / "pictures")
    monkeypatch.chdir(tmp_path)
    torch.save({reference_name("err-seg", name): tensor for name, tensor in tiny.state_dict().items()}, tmp_path / "model_final.pth")
    convert(weights.read(tmp_path / "model_final.pth"), own_cache / "weights" / "stand-in.safetensors")
    for preset in MODELS["err-seg"].released:
        weights.remember(preset, own_cache / "weights" / "stand-in.safetensors", {})
    return tmp_path


def test_the_first_screen_has_the_two_commands():
    first, second = re.search(r"```bash\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert first.startswith("pip install uv && uv run wordmask segment ")
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
        assert {path.name for path in (checkout / "masks").iterdir()} >= {"coffee.masks.png", "coffee.labels.png", "coffee.masks.json"}


def test_python(checkout):
    assert len(PYTHON) == 2
    names = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)
    assert (checkout / "coffee.masks.png").exists()
    assert (checkout / "masks" / "coffee.masks.json").exists()


def test_parameters_and_links():
    for preset, configuration in MODELS["err-seg"].presets.items():
        millions = sum(parameter.numel() for parameter in MODELS["err-seg"].skeleton(configuration).parameters()) / 1e6
        assert re.search(rf"`{preset}` \|.*\| {millions:.0f}M \|", README), f"{preset} has {millions:.0f}M parameters"
    for target in re.findall(r"\]\((?!http)(.*?)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), target
