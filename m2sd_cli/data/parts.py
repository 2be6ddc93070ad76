"""The parts of a data set whose images a run saw or was tested on; imports no torch."""

from typing import Final

from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted

PARTS: Final = {
    "train": "the base images that were trained on",
    "held-out": "the base images that were held out",
    "test": "the test images of all classes",
}


def check_part(name: str) -> str:
    """Return the name of a part.

    Raises:
        UsageError: there is none of that name; the message lists them.
    """
    if name not in PARTS:
        raise UsageError(f"--part {quoted(name)}: no such part; choose {', '.join(PARTS)}")
    return name
