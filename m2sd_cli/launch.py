"""Whether torchrun began this process; asked before torch is imported."""

import os


def launched() -> bool:
    """Whether this is one of the processes that torchrun began."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def speaks() -> bool:
    """Whether this process prints: of several at one task only the first does."""
    return not launched() or os.environ["RANK"] == "0"
