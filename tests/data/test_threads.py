"""Bounded work in threads: order, bound, errors, leaving off."""

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.data.threads import MemoryBudget, in_order
from tests.helpers import PATIENCE


@given(st.lists(st.integers()), st.integers(1, 9), st.integers(1, 4))
def test_it_is_map(items: list[int], ahead: int, workers: int) -> None:
    assert list(in_order(lambda item: item * 2, items, ahead, workers)) == [item * 2 for item in items]


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_items_are_taken_only_as_results_are(ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item

    with closing(in_order(str, items(), ahead)) as results:
        for done in range(1, 20):
            assert next(results) == str(done - 1)
            assert taken == done - 1 + ahead
    assert taken == 18 + ahead


def test_several_are_worked_on_at_once() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)
    assert sorted(in_order(lambda item: (both.wait(), item)[1], range(2), ahead=2, workers=2)) == [0, 1]


def test_work_goes_on_while_the_caller_is_busy() -> None:
    begun = threading.Event()

    def work(item: int) -> int:
        if item == 3:
            begun.set()
        return item

    with closing(in_order(work, range(10), ahead=4, workers=1)) as results:
        assert next(results) == 0
        assert begun.wait(PATIENCE)


def test_an_error_comes_where_its_result_would() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for result in in_order(lambda item: 1 // item, [1, -1, 0, 1], ahead=4):
            seen.append(result)  # noqa: PERF402
    assert seen == [1, -1]


def test_leaving_off_begins_no_more_and_leaves_no_thread() -> None:
    before = threading.active_count()
    done: list[int] = []
    with closing(in_order(done.append, range(1000), ahead=5, workers=2)) as results:
        assert list(islice(results, 3)) == [None] * 3
    assert len(done) <= 7
    assert threading.active_count() == before


def test_no_more_is_reserved_of_a_budget_than_there_is() -> None:
    budget = MemoryBudget(10)
    done: list[str] = []

    def take(amount: int, name: str) -> None:
        with budget.reserved(amount):
            done.append(name)

    with budget.reserved(4):
        fits, waits = (threading.Thread(target=take, args=each) for each in ((6, "fits"), (7, "waits")))
        fits.start()
        fits.join(timeout=PATIENCE)
        waits.start()
        waits.join(timeout=0.05)
        assert done == ["fits"]
    waits.join(timeout=PATIENCE)
    assert done == ["fits", "waits"]


def test_a_reservation_larger_than_the_budget_has_it_alone() -> None:
    budget = MemoryBudget(10)
    with pytest.raises(KeyError), budget.reserved(25):
        raise KeyError
    with budget.reserved(10):
        pass
