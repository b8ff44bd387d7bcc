"""What else imports torchvision and timm imports this first: they come without torch's compiler, which takes seconds to
import.

Both ask it for a trifle when they are imported, and get it here from a stand-in. Whoever compiles a model later gets
the real one.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch  # noqa: F401  before the stand-in, which it would keep

COMPILER = "torch._dynamo"


def stand_in() -> dict[str, ModuleType]:
    """Modules that tell torchvision that no device can be compiled for, and give timm its functions back as they
    are."""
    package, answers = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    vars(package).update(__path__=[], utils=answers, disable=_as_it_is)
    vars(answers).update(is_compile_supported=_is_not)
    return {COMPILER: package, answers.__name__: answers}


def _is_not(device: object) -> bool:
    return False


def _as_it_is(function: Callable | None = None, *_, **__) -> Callable:
    return function if function is not None else _as_it_is


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let modules be imported as if the compiler were there, unless it is."""
    modules = {} if COMPILER in sys.modules else stand_in()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_all() -> None:
    """Import what asks for the compiler; should a new version ask for more than the stand-in has, then with the
    compiler."""
    try:
        with without_compiler():
            _import_all()
    except (ImportError, AttributeError):
        _import_all()


def _import_all() -> None:
    import open_clip  # noqa: F401  timm comes with it
    import torchvision.ops  # noqa: F401


import_all()
