"""Watch methods of an object whenever they are called: to time them, to count what they do, or to keep what passes
through them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

Notes = TypeVar("Notes")
Watch = Callable[[Notes, partial], object]  # runs a method, notes something, and returns what it returned


class Call(NamedTuple):
    """A call of a method: what it was given, and what it gave."""

    arguments: tuple
    settings: dict[str, object]
    result: object


@contextmanager
def watched(owner: object, notes: Mapping[str, Notes], watch: Watch) -> Iterator[None]:
    """Watch some methods of an object, whenever they are called, in any thread.

    Args:
        notes: By the methods' names.
    """

    def wrap(method: str, noted: Notes) -> Callable:
        original = getattr(owner, method)
        return lambda *arguments, **settings: watch(noted, partial(original, *arguments, **settings))

    vars(owner).update({method: wrap(method, noted) for method, noted in notes.items()})
    try:
        yield
    finally:
        for method in notes:
            vars(owner).pop(method, None)


@contextmanager
def recorded(methods: Mapping[str, tuple[object, str]]) -> Iterator[dict[str, list[Call]]]:
    """Keep every call of some methods of several objects.

    Args:
        methods: Label → object and name of its method.

    Yields:
        Label → calls, in their order.
    """
    calls: dict[str, list[Call]] = {label: [] for label in methods}
    with ExitStack() as stack:
        for label, (owner, method) in methods.items():
            stack.enter_context(watched(owner, {method: calls[label]}, keep_call))
        yield calls


def keep_call(calls: list[Call], run: partial) -> object:
    """Run a method and keep the call."""
    result = run()
    calls.append(Call(run.args, run.keywords, result))
    return result
