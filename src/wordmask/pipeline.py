"""Work on many things that overlaps: prepared ahead in threads, run in groups of a kind, finished in threads, handed
out in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Raw = TypeVar("Raw")
Result = TypeVar("Result")

MOST_THREADS = 8  # reading and finishing one picture each


@dataclass(frozen=True)
class Steps(Generic[Item, Ready, Raw, Result]):
    """What happens to an item.

    Args:
        prepare: In a thread, ahead of the rest.
        kind: Ready items of one kind may be run together.
        run: In the thread of whoever asks for results: a group → the raw result of each.
        finish: In a thread, while the next group is run.
    """

    prepare: Callable[[Item], Ready]
    kind: Callable[[Ready], Hashable]
    run: Callable[[list[Ready]], list[Raw]]
    finish: Callable[[Raw], Result]

    def one(self, item: Item) -> Result:
        """Do all of it here and now, with one item."""
        return self.finish(self.run([self.prepare(item)])[0])


def overlapping(
    items: Iterable[Item], steps: Steps[Item, Ready, Raw, Result], *, group: int, threads: int
) -> Generator[Result | Exception]:
    """Go through items, of which there may be no end; yield each one's result, or its error, in the order of the items.

    Items are taken in the thread of whoever asks for results; if that fails, the results of those taken come first.
    Which items are run together follows from their order and kinds alone, never from who is quick: the same items make
    the same groups. A group that doesn't fill up waits for `2 · group` later items at most.

    Args:
        group: How many of a kind are run together.
        threads: For preparing and finishing together; as many items are prepared ahead, and as many finished behind.
    """
    patience = 2 * group if group > 1 else 0
    waiting: dict[Hashable, list[tuple[int, Ready]]] = {}
    results: dict[int, Future[Result] | Exception] = {}
    failures: list[Exception] = []
    yielded = 0
    with thread_pool(threads) as pool:

        def run(members: list[tuple[int, Ready]]) -> None:
            for (number, _), raw in zip(members, _run_each(steps.run, [ready for _, ready in members]), strict=True):
                results[number] = raw if isinstance(raw, Exception) else pool.submit(steps.finish, raw)

        prepared = work_ahead(_until_failure(items, failures), steps.prepare, pool, most=threads + group)
        for place, ready in enumerate(prepared):
            if isinstance(ready, Exception):
                results[place] = ready
            else:
                waiting.setdefault(steps.kind(ready), []).append((place, ready))
            for kind, members in list(waiting.items()):
                if len(members) == group or members[0][0] <= place - patience:
                    run(waiting.pop(kind))
            while yielded in results and (place - yielded > patience + threads or _is_done(results[yielded])):
                yield _outcome(results.pop(yielded))
                yielded += 1
        for members in waiting.values():
            run(members)
        while results:
            yield _outcome(results.pop(yielded))
            yielded += 1
    if failures:
        raise failures[0]


def work_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], pool: Executor, *, most: int
) -> Generator[Result | Exception]:
    """Work on items in the pool; yield each one's result, or its error, in order.

    Items are taken in the thread of whoever asks for results. If that fails, the results of those taken come first.

    Args:
        most: How many are begun at most, and not yet yielded.
    """
    begun: deque[Future[Result]] = deque()
    failures: list[Exception] = []
    for item in _until_failure(items, failures):
        begun.append(pool.submit(work, item))
        if len(begun) >= most or begun[0].done():  # one taken, one yielded: so that those ahead don't dwindle
            yield _outcome(begun.popleft())
    while begun:
        yield _outcome(begun.popleft())
    if failures:
        raise failures[0]


def result_or_raise(outcome: Result | Exception) -> Result:
    """Return a result, or raise the error there is in its place."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are there for the block: what has begun when it is left, ends; what has not, is dropped."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """How many threads prepare and finish pictures on this machine."""
    return max(2, min(MOST_THREADS, usable_cores()))


def _until_failure(items: Iterable[Item], failures: list[Exception]) -> Iterator[Item]:
    """End where the iterable fails, so that the results of what came before can be yielded first."""
    try:
        yield from items
    except Exception as error:  # whatever it is, it is for the caller, whose iterable it is
        failures.append(error)


def _run_each(run: Callable[[list[Ready]], list[Raw]], group: list[Ready]) -> Sequence[Raw | Exception]:
    """Run a group; if that fails, each alone, so that none suffers from another."""
    try:
        return run(group)
    except Exception as error:  # whatever it is, it is the result of this one
        if len(group) == 1:
            return [error]
    return [result for ready in group for result in _run_each(run, [ready])]


def _is_done(result: Future[Result] | Exception) -> bool:
    return isinstance(result, Exception) or result.done()


def _outcome(result: Future[Result] | Exception) -> Result | Exception:
    if isinstance(result, Exception):
        return result
    error = result.exception()  # waits
    return error if isinstance(error, Exception) else result.result()
