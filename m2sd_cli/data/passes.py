"""Passes over many pictures, and whoever wants to know how far they have come."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TypeVar

Item = TypeVar("Item")


class Pass:
    """Something that is done to one picture after another; whoever listens hears of its beginning and every step.

    Args:
        what: is done, as "decoding".
        total: pictures, or whatever `unit` says.
        unit: in the plural.
    """

    def __init__(self, what: str, total: int, unit: str = "images") -> None:
        self.what: Final = what
        self.total: Final = total
        self.unit: Final = unit
        self.done = 0
        self.add(0)

    def add(self, steps: int = 1) -> None:
        """So many more are done."""
        self.done += steps
        listener = _listener.get()
        if listener is not None:
            # Words that cannot be printed must not end a pass, nor be taken for a failure of its files.
            with suppress(OSError):
                listener(self)


def counted(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, one for each picture, as steps of a pass. Each is done when the next one is asked for."""
    steps = Pass(what, total)
    for item in items:
        yield item
        steps.add()


Listener = Callable[[Pass], None]

# In the context and not an argument: passes lie deep, and what they find does not depend on who listens.
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Have somebody listen to all passes of the code inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
