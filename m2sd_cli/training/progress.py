"""What a long computation tells whoever is watching."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Snapshot:
    """How far a training has come; its averages are over the epoch under way."""

    epoch: int  # from 1
    epochs: int
    step: int  # steps done, over all epochs
    steps: int
    loss: float
    accuracy: float | None  # share of clean training images, where it is known
    images_per_second: float
    seconds_left: float


class Progress(Protocol):
    """Somebody who watches. A snapshot waits for the device, so it is taken once every `interval` seconds only."""

    interval: float

    def show(self, snapshot: Snapshot) -> None:
        """Show how far it has come."""


class Silent:
    """Nobody watches."""

    interval = float("inf")

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""
