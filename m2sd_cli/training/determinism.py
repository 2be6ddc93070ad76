"""Algorithms that repeat exactly; by default torch on CUDA takes faster ones, which add up in any order."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
REPEATABLE = (":4096:8", ":16:8")  # the workspaces with which cuBLAS repeats exactly


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Let torch use deterministic algorithms only, and raise a RuntimeError where it has none.

    cuBLAS reads its environment variable when a process first multiplies on CUDA: enter this context before.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(WORKSPACE)
    if workspace not in REPEATABLE:
        os.environ[WORKSPACE] = REPEATABLE[0]
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
    """Tell whether torch raised an error because an operation, or cuBLAS in this process, has no such algorithm."""
    return "does not have a deterministic implementation" in str(error) or WORKSPACE in str(error)
