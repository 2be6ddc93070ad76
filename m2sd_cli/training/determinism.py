"""Only algorithms that repeat exactly; torch on CUDA otherwise takes faster ones that add up in any order."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED = (":4096:8", ":16:8")  # the workspaces of cuBLAS with which it repeats


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Have torch choose such algorithms alone, and raise a RuntimeError where it has none; on a CPU it always does.

    cuBLAS looks at its environment variable when a process first multiplies on CUDA: this has to come before.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(WORKSPACE)
    if workspace not in FIXED:
        os.environ[WORKSPACE] = FIXED[0]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = cudnn_before
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if workspace is None:
            del os.environ[WORKSPACE]
        else:
            os.environ[WORKSPACE] = workspace


def is_not_deterministic(error: RuntimeError) -> bool:
    """Whether an error is torch's, of an operation that has no such algorithm."""
    return "does not have a deterministic implementation" in str(error)
