"""The parts of a data set by their use in a run; this module imports no torch."""

from typing import Final

from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted

PARTS: Final = {
    "train": "the base images that were trained on",
    "held-out": "the base images that were held out",
    "test": "the test images of all classes",
}


def check_part(name: str) -> str:
    """Check the name of a part, and return it.

    Raises:
        UsageError: there is no part of that name; the message lists the names.
    """
    if name not in PARTS:
        raise UsageError(f"--part {quoted(name)}: no such part; choose {', '.join(PARTS)}")
    return name
