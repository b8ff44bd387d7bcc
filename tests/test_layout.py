"""What the house style asks of the source: imports run downhill, no devices in models, one door per dependency."""

import ast
from pathlib import Path

import pytest

import wordmask

ROOT = Path(wordmask.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = [  # a module may import from its own level and those before it
    {
        "writing",
        "released",
        "vocabulary",
        "regions",
        "polygons",
        "coco",
        "adapters",
        "segmentation",
        "drawing",
        "sources",
        "pipeline",
    }
    | {"georeference", "runtime", "light", "watching", "memory"},
    {"image", "text", "clip", "weights", "in_parts", "postprocess", "settings", "results", "tiles"},
    {"bundled"},
    {"models"},
    {"segmenter", "data"},
    {"evaluation"},
    {"training", "demo", "bench", "doctor", "export", "batch", "explain"},
    {"serve", "cli"},
]
SAYS_NOTHING = {"utils", "util", "common", "misc", "helpers", "base", "core"}


def level_of(module: str) -> int:
    return next(number for number, names in enumerate(LEVELS) if module in names)


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it or only when it is imported."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_downhill(path):
    home = path.relative_to(ROOT).with_suffix("").parts[0]
    if home in ("__init__", "__main__"):
        return
    for name in imports(path):
        parts = name.split(".")
        if (
            parts[0] == "wordmask"
            and len(parts) > 1
            and (ROOT / parts[1]).with_suffix(".py").exists() | (ROOT / parts[1]).is_dir()
        ):
            assert level_of(parts[1]) <= level_of(home), f"{home} imports {name}"


def test_open_clip_and_timm_have_one_door():
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path)}
        if path.name not in ("clip.py", "light.py"):  # the latter uses nothing of them
            assert not {"timm", "open_clip"} & roots, path


def test_models_name_no_device():
    for path in (ROOT / "models").glob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ('"cuda', "'cuda", ".cuda(", '"cpu', "'cpu", ".cpu(")), path


def test_the_command_line_imports_nothing_heavy():
    heavy = {"torch", "numpy", "PIL", "rich", "wordmask.segmenter", "wordmask.models"}
    assert not heavy & imports(ROOT / "cli.py", at_import=True)


def test_names_say_something():
    assert not SAYS_NOTHING & {path.stem for path in FILES}


def test_functions_are_short():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                most = 150 if path.name == "train.py" and node.name == "train" else 60  # the loop is read in one piece
                assert node.end_lineno - node.lineno < most, f"{path}:{node.lineno} {node.name}"
