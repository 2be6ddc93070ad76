"""Work on many files in several threads, with a bounded number of files on the way."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(16, os.cpu_count() or 1)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2 * WORKERS, workers: int = WORKERS
) -> Generator[Result, None, None]:
    """Yield `work` of each item in the order of the items; work is begun before its turn. Close it to stop early.

    Pillow and hashlib release the interpreter lock while they work, so that threads are enough.

    Args:
        work: called in one of the threads; its exception is raised in place of its result.
        items: taken only as they are needed.
        ahead: results that may be under way or wait for their turn, at least 1.
        workers: threads.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class MemoryBudget:
    """A bounded amount of memory that threads share.

    Args:
        size: of the budget, in the unit of `reserved`.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = Condition()

    @contextmanager
    def reserved(self, amount: int) -> Iterator[None]:
        """Reserve an amount for a while, once it is free; an amount above the budget takes all of it."""
        amount = min(amount, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
