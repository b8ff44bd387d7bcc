"""What the house style asks of the source: imports run downhill, no devices in models, one door per dependency."""

import ast
from pathlib import Path

import pytest

import wordmask

ROOT = Path(wordmask.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# The rooms of the house, from the ground up: a room imports from those below it alone. This is the only list of layers;
# docs/architecture.md says what each room is for.
LEVELS = [
    {"decoded", "file_names", "word_lines"},
    {"pngs", "tiffs", "words"},
    {"picture_files"},
    {"bars", "compiler_stand_in", "fingerprints", "folders", "georeference", "hardware", "in_parts", "memory"}
    | {"pipeline", "pixels", "polygons", "processes", "surroundings", "terminal", "watching", "writing"},
    {"array_readings", "clip", "coco", "image", "released", "unpickling", "vocabulary"},
    {"adapters", "background", "doctor", "regions", "runtime", "sources", "text", "vocabulary_lists", "weights"},
    {"bundled", "data", "drawing", "fetching", "settings"},
    {"postprocess", "segmentation"},
    {"tiles"},
    {"preparing", "raw"},
    {"compiling", "models", "results"},
    {"segmenter"},
    {"model_choice"},
    {"batch", "bench", "demo", "evaluation", "explain", "export", "options", "segmenting"},
    {"serve", "training"},
    {"cli"},
]
SAYS_NOTHING = {"utils", "util", "common", "misc", "helpers", "base", "core"}


def level_of(module: str) -> int:
    found = [number for number, rooms in enumerate(LEVELS) if module in rooms]
    assert len(found) == 1, f"{module} is on {len(found)} levels of LEVELS; give it one, above what it imports"
    return found[0]


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING`: no import when the program runs."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found.update(ast.walk(node))
    return found


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Full names of the modules that a file imports when it runs, anywhere in it or only when it is imported."""
    tree = ast.parse(path.read_text())
    nodes = set(tree.body if at_import else ast.walk(tree)) - only_for_types(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = f"wordmask.{node.module}" if node.level else node.module  # relative in files that are copied
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def rooms_imported(path: Path) -> set[str]:
    """The rooms of ours that a file imports from."""
    rooms = set()
    for name in imports(path):
        package, *inside = name.split(".")
        if package == "wordmask" and inside and room_exists(inside[0]):
            rooms.add(inside[0])
    return rooms


def room_exists(name: str) -> bool:
    return (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_downhill(path):
    home = path.relative_to(ROOT).with_suffix("").parts[0]
    if home in ("__init__", "__main__"):
        return
    for room in rooms_imported(path) - {home}:
        assert level_of(room) < level_of(home), f"{home} imports {room}"


def test_every_room_has_a_level():
    rooms = {path.relative_to(ROOT).with_suffix("").parts[0] for path in FILES} - {"__init__", "__main__"}
    assert set().union(*LEVELS) == rooms


def test_no_class_name_stands_twice():
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    twice = {name: files for name, files in homes.items() if len(files) > 1}
    assert twice.keys() <= {"Features"}, twice  # what a tower sees: each family has its own


def test_nothing_tests_a_familys_name():
    """What came out of a model counts, not which family it was; its protocols and its row are its own."""
    for path in FILES:
        if path.parent.name == "models" or path.name == "protocols.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare | ast.Subscript):
                assert not any(isinstance(part, ast.Attribute) and part.attr == "family" for part in ast.walk(node)), (
                    f"{path}:{node.lineno}"
                )


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def test_no_comprehension_stands_in_another():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, COMPREHENSIONS):
                inner = [part for part in ast.walk(node) if isinstance(part, COMPREHENSIONS) and part is not node]
                assert not inner, f"{path}:{node.lineno}"


def test_open_clip_and_timm_have_one_door():
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path)}
        if path.name not in ("clip.py", "compiler_stand_in.py"):  # the latter uses nothing of them
            assert not {"timm", "open_clip"} & roots, path


def test_models_name_no_device():
    for path in (ROOT / "models").glob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ('"cuda', "'cuda", ".cuda(", '"cpu', "'cpu", ".cpu(")), path


def test_the_command_line_imports_nothing_heavy():
    heavy = {"torch", "numpy", "PIL", "rich", "wordmask.segmenter", "wordmask.models"}
    for name in ("cli", "memory", "model_choice", "options", "settings", "sources", "terminal", "vocabulary"):
        assert not heavy & imports(ROOT / f"{name}.py", at_import=True), name


def test_names_say_something():
    assert not SAYS_NOTHING & {path.stem for path in FILES}


def test_functions_are_short():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                most = 150 if path.name == "loop.py" and node.name == "train" else 60  # the loop is read in one piece
                assert node.end_lineno - node.lineno < most, f"{path}:{node.lineno} {node.name}"
