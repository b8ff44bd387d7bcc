import itertools
import threading
import time

import pytest

from wordmask.pipeline import Steps, overlapping, thread_pool, work_ahead

SHORT = 0.01  # seconds


def steps(prepare=lambda item: item, kind=lambda item: None, run=list, finish=lambda raw: raw) -> Steps:
    return Steps(prepare, kind, run, finish)


@pytest.mark.parametrize("group", [1, 2, 5])
def test_results_come_in_the_order_asked(group):
    def dawdle(number):
        time.sleep(SHORT * (number % 3 == 0))
        return number

    for slow in ("prepare", "finish"):
        flow = overlapping(range(20), steps(kind=lambda number: number % 4, **{slow: dawdle}), group=group, threads=3)
        assert list(flow) == list(range(20))


def test_groups_follow_from_the_order_and_not_from_who_is_quick():
    """So that the same pictures give the same batches, and these the same bits."""

    def groups(delay):
        seen = []
        flow = overlapping(
            range(50),
            steps(
                prepare=lambda number: time.sleep(delay(number)) or number,
                kind=lambda number: number % 7 == 0,
                run=lambda group: seen.append(group) or group,
            ),
            group=4,
            threads=3,
        )
        assert list(flow) == list(range(50))
        return seen

    seen = groups(lambda number: 0)
    assert seen == groups(lambda number: SHORT * (number % 5 == 0))
    assert all(len(group) <= 4 for group in seen)
    assert [0, 7] in seen, "a rare kind waits for eight others at most"
    assert sorted(itertools.chain(*seen)) == list(range(50))


def test_an_error_has_its_place():
    def fail(number, *wrong):
        if number in wrong:
            raise ValueError(f"bad {number}")
        return number

    flow = overlapping(
        range(9),
        steps(
            prepare=lambda number: fail(number, 2),
            run=lambda group: [fail(number, 4) for number in group],
            finish=lambda number: fail(number, 6),
        ),
        group=3,
        threads=2,
    )
    outcomes = list(flow)
    assert [str(outcome) for outcome in outcomes] == ["0", "1", "bad 2", "3", "bad 4", "5", "bad 6", "7", "8"]


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_an_exit_in_a_thread_is_no_result(step):
    def leave(number):
        if number == 2:
            raise SystemExit(3)
        return number

    flow, seen = overlapping(range(4), steps(**{step: leave}), group=1, threads=2), []
    with pytest.raises(SystemExit, match="3"):
        seen.extend(flow)
    assert seen == [0, 1][: len(seen)]


def test_an_iterable_that_fails_loses_nothing_before_it():
    def items():
        yield from range(3)
        raise OSError("the camera is gone")

    flow, results = overlapping(items(), steps(), group=2, threads=2), []

    def gather():
        for result in flow:
            results.append(result)

    with pytest.raises(OSError, match="camera"):
        gather()
    assert results == [0, 1, 2]


def test_preparing_running_and_finishing_overlap():
    """Each takes as long as the others; together little longer than one."""
    threads, delay = set(), 3 * SHORT

    def work(item):
        threads.add(threading.get_ident())
        time.sleep(delay)
        return item

    start = time.perf_counter()
    assert (
        len(
            list(overlapping(range(20), steps(work, run=lambda group: [work(*group)], finish=work), group=1, threads=4))
        )
        == 20
    )
    assert time.perf_counter() - start < 2 * 20 * delay
    assert len(threads) > 2


def test_few_are_begun_ahead():
    begun = []
    with thread_pool(2) as pool:
        results = work_ahead(itertools.count(), lambda number: begun.append(number) or number, pool, most=3)
        for number in range(50):
            assert next(results) == number
            assert len(begun) <= number + 1 + 3
        results.close()
