"""`wordmask train RECIPE [key=value …]`: read a recipe file and its settings, then train."""

import dataclasses
import difflib
import importlib.util
import math
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch

from wordmask.hardware import choose_device, choose_precision
from wordmask.surroundings import as_if_alone, float32_by_default
from wordmask.training.loop import TrainingOutcome, train
from wordmask.training.recipe import TrainingSettings
from wordmask.writing import expanded

SettingsOfRecipe = TypeVar("SettingsOfRecipe", bound=TrainingSettings)
Value = str | int | float | Path | None

INSTALLED = Path(__file__).parents[1] / "recipes"  # where a wheel has them; in a checkout they lie beside src
CHECKOUT = Path(__file__).parents[3] / "recipes"
# the other numbers may be 0
POSITIVE = {"steps", "batch", "validate_every", "save_every", "pictures", "scenes", "points", "keep", "most"}
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@as_if_alone()
@float32_by_default()
def start(recipe: str, assignments: list[str]) -> TrainingOutcome:
    """Train by a recipe.

    Raises:
        ValueError: There is no such recipe or setting, a value doesn't fit, or the data are bad.
    """
    module = load_recipe(recipe)
    settings = read_settings(settings_class(module), assignments)
    settings = dataclasses.replace(
        settings, precision=choose_precision(settings.precision, choose_device(settings.device))
    )
    torch.manual_seed(settings.seed)  # the weights a model starts with
    if hasattr(module, "run"):
        return module.run(settings)
    return train(module.build(settings), settings)


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in _own_folder().glob("*.py"))


def load_recipe(recipe: str) -> ModuleType:
    """Load a recipe: a Python file, or the name of one that comes with the project."""
    path = expanded(recipe)
    if not path.is_file() and path.parent in (Path(), Path("recipes")):
        path = _own_folder() / f"{path.stem}.py"
    if not path.is_file():
        near = difflib.get_close_matches(Path(recipe).stem, recipe_names(), n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(recipe_names())}."
        raise ValueError(f"There is no recipe {recipe!r}. {hint} A Python file of your own works too.")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{recipe!r} is no recipe; expected a Python file, such as recipes/finetune.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


def settings_class(module: ModuleType) -> type[TrainingSettings]:
    """Find the settings that a recipe declares."""
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, TrainingSettings)]
    own = [kind for kind in kinds if kind.__module__ == module.__name__]
    if len(own) != 1 or not hasattr(module, "build"):
        raise ValueError(
            f"{module.__file__} is no recipe: expected one class of TrainingSettings and a function build(settings)."
        )
    return own[0]


def read_settings(kind: type[SettingsOfRecipe], assignments: list[str]) -> SettingsOfRecipe:
    """Read key=value pairs as the fields of a recipe's settings.

    Raises:
        ValueError: No such setting, a value of the wrong type, or a setting without default that was not given.
    """
    fields, every = dataclasses.fields(kind), typing.get_type_hints(kind)
    hints = {field.name: every[field.name] for field in fields}
    values: dict[str, Value] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"A setting came as {assignment!r}; expected key=value, such as steps=1000.")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else _listed(hints)
            raise ValueError(f"This recipe has no setting {name!r}. {hint}")
        if name in values:
            raise ValueError(f"The setting {name!r} was given twice.")
        values[name] = _read(name, text, hints[name])
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in values]
    if missing:
        raise ValueError(f"This recipe needs {' and '.join(f'{name}=…' for name in missing)}. {_listed(hints)}")
    settings = kind(**values)  # pyright: ignore[reportArgumentType]  # each was read as its field's type
    for name in hints:
        value, least = getattr(settings, name), 1 if name in POSITIVE else 0
        if isinstance(value, int | float) and not (value >= least and math.isfinite(value)):
            raise ValueError(f"{name} came as {value}; expected at least {least}.")
    return settings


def _read(name: str, text: str, hint: type) -> Value:
    """Read a value as the type of its field."""
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None)]
    if text.lower() == "none" and type(None) in typing.get_args(hint):
        return None
    try:
        if kinds[0] is bool:
            return TRUTHS[text.lower()]
        return expanded(text) if kinds[0] is Path else kinds[0](text)
    except (ValueError, KeyError):
        raise ValueError(
            f"{name} came as {text!r}; expected {'true or false' if kinds[0] is bool else kinds[0].__name__}."
        ) from None


def _listed(hints: dict[str, type]) -> str:
    return f"It has {', '.join(hints)}."


def _own_folder() -> Path:
    return INSTALLED if INSTALLED.is_dir() else CHECKOUT
