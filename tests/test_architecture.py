"""The map in docs/architecture.md: every file, function, class and test that it names is there."""

import ast
import re
from pathlib import Path

import pytest

import wordmask

ROOT = Path(__file__).parents[1]
PACKAGE = Path(wordmask.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
STEPS = re.findall(r"`([\w/]+\.py): ([\w.]+)`", PAGE)
FOLLOWED = re.search(r"## One call, followed\n(.*?)\n## ", PAGE, re.DOTALL)[1]


def definitions(file: Path) -> set[str]:
    """Names of functions and classes, and of methods as Class.method."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                names.add(f"{node.name}.{inner.name}")
    return names


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_every_step_is_there(file, name):
    assert name in definitions(PACKAGE / file)


def test_a_call_is_followed_in_about_twelve_steps():
    numbers = re.findall(r"^(\d+)\. .*`[\w/]+\.py: ", FOLLOWED, re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))
    assert 10 <= len(numbers) <= 14


PLACES = (ROOT, PACKAGE, PACKAGE.parent, ROOT / "tests", ROOT / "research")


def test_every_file_named_is_there():
    named = set(re.findall(r"`([\w/]+\.py)[`:]", PAGE + CONTRIBUTING)) | set(re.findall(r"`(\w+/)`", PAGE))
    missing = [name for name in named if not any((place / name).exists() for place in PLACES)]
    assert missing == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_other_pages_name_files_that_are_there(page):
    """In folders of ours, that is: pages of models name the reference's files too, and the log what is gone."""
    if page.name == "log.md":
        return
    for name in re.findall(r"`([\w/]+/\w+\.py)[`:]", page.read_text()):
        homes = [place / name for place in PLACES if (place / name).parent.is_dir()]
        assert not homes or any(home.exists() for home in homes), name


def test_tests_named_are_all_tests():
    """The table of CONTRIBUTING has every file of tests, once."""
    named = re.findall(r"`(test_\w+\.py)`", CONTRIBUTING.partition("## How the code reads")[0])
    there = sorted(path.name for path in (ROOT / "tests").glob("test_*.py"))
    assert sorted(set(named)) == there


def test_crossing_objects_exist():
    table = re.search(r"## What crosses borders\n(.*?)\n## ", PAGE, re.DOTALL)[1]
    names = set()
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        names.update(re.findall(r"`(\w+)`", row))
    assert len(names) > 8
    defined = set()
    for path in PACKAGE.rglob("*.py"):
        defined |= definitions(path)
    assert names <= defined
