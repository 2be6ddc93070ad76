"""Processes that torchrun began for one command: each computes on its shard, the first one writes and prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m2sd_cli.distributed.torchrun import is_distributed, launcher_number
from m2sd_cli.errors import M2sdError, UsageError

TIMEOUT = timedelta(days=1)  # another process may decode a large data set; the death of one is noticed at once


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one command; a single one by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True if this process is the one that writes."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return the consecutive items of `count` that are this process's; shards differ by one item at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def all_reduce(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes, with one message for all of one type.

        Args:
            tensors: of the same shapes everywhere.
        """
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            joint = torch.cat([tensor.detach().flatten() for tensor in same])
            dist.all_reduce(joint)
            parts = torch.split(joint, [tensor.numel() for tensor in same])
            with torch.no_grad():
                for tensor, part in zip(same, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def all_gather(self, numbers: Tensor) -> Tensor:
        """Concatenate the numbers (N,) of all processes, on the CPU; N may differ from process to process."""
        if self.size == 1:
            return numbers
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(numbers)]))
        longest = int(max(counts))
        parts = [numbers.new_zeros(longest) for _ in range(self.size)]
        dist.all_gather(parts, torch.cat([numbers, numbers.new_zeros(longest - len(numbers))]))
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def any(self, vote: bool) -> bool:
        """Tell whether the vote of any process is true, without waiting for a device."""
        if self.size == 1:
            return vote
        votes = torch.tensor(int(vote))
        dist.all_reduce(votes)
        return bool(votes)

    def broadcast(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.any(False)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Let one process of each machine go first; the others find the files that it has fetched or decoded."""
        first = self.size == 1 or launcher_number("LOCAL_RANK") == 0
        if not first:
            self.barrier()
        try:
            yield
        finally:  # after an error too: the other processes run into it themselves
            if first:
                self.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def stdout_spared() -> Iterator[None]:
    """Redirect the output of C code to stderr: Gloo prints when processes meet, and stdout is for results alone."""
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def process_group(chosen: torch.device) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the group of this process.

    Yields:
        The group and the device of this process; under torchrun each process of a machine has a device of its own.

    Raises:
        UsageError: there is no such device here, or there are too few devices.
        M2sdError: another process has ended too early.
    """
    if not is_distributed():
        yield SINGLE_PROCESS, chosen
        return
    local_rank, local_size = launcher_number("LOCAL_RANK"), launcher_number("LOCAL_WORLD_SIZE")
    if chosen.type == "cuda":
        if chosen.index is not None and local_size > 1:
            raise UsageError(f"--device {chosen}: {local_size} processes cannot share it; say --device cuda")
        if local_size > torch.cuda.device_count():
            devices = torch.cuda.device_count()
            raise UsageError(f"--nproc-per-node {local_size}: only {devices} CUDA device(s) here; one process for each")
        if chosen.index is None:
            chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise UsageError(f"--device {chosen}: several processes work on cpu or cuda only")
    for variable in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        launcher_number(variable)
    with stdout_spared():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()), chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise M2sdError("another process of the team has ended; its message says why") from None
        raise
    # Not after an error, when leaving the group would wait for processes that are still at work.
    dist.destroy_process_group()
