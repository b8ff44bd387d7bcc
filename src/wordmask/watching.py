"""Watch methods of an object whenever they are called: to time them, or to count what they do."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

Notes = TypeVar("Notes")
Watch = Callable[[Notes, partial], object]  # runs a method, notes something, and returns what it returned


@contextmanager
def watched(owner: object, notes: Mapping[str, Notes], watch: Watch[Notes]) -> Iterator[None]:
    """Watch some methods of an object, whenever they are called, in any thread.

    Args:
        notes: By the methods' names.
    """

    def wrap(method: str, noted: Notes) -> Callable:
        original = getattr(owner, method)

        def watched_method(*arguments: object, **settings: object) -> object:
            return watch(noted, partial(original, *arguments, **settings))

        return watched_method

    vars(owner).update({method: wrap(method, noted) for method, noted in notes.items()})
    try:
        yield
    finally:
        for method in notes:
            vars(owner).pop(method, None)
