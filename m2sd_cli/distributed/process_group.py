"""Several processes at one task, begun by torchrun: each takes its share, the first one writes and speaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m2sd_cli.distributed.torchrun import is_distributed, launcher_number
from m2sd_cli.errors import M2sdError, UsageError

PATIENCE = timedelta(days=1)  # with a process that decodes a large data set; one that dies is noticed at once


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one command; one alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Which of `count` things are this process's: consecutive ones, as many as anybody's or one fewer."""
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
        """The numbers of all processes behind one another: (N,) on the CPU, of any N each."""
        if self.size == 1:
            return numbers
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(numbers)]))
        longest = int(max(counts))
        parts = [numbers.new_zeros(longest) for _ in range(self.size)]
        dist.all_gather(parts, torch.cat([numbers, numbers.new_zeros(longest - len(numbers))]))
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def any(self, wanted: bool) -> bool:
        """Whether any process wants it. Kept on the host, so that nobody waits for a device."""
        if self.size == 1:
            return wanted
        votes = torch.tensor(int(wanted))
        dist.all_reduce(votes)
        return bool(votes)

    def broadcast(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Until every process has come here."""
        self.any(False)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """One process of each machine goes first, so that what it fetches or decodes is there for the others."""
        first = self.size == 1 or launcher_number("LOCAL_RANK") == 0
        if not first:
            self.barrier()
        try:
            yield
        finally:  # if it failed, so will the others, each by itself
            if first:
                self.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group(chosen: torch.device) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """The team that this process belongs to, and its device; under torchrun each process of a machine has its own.

    Args:
        chosen: of the device that was asked for; its number is each process's own.

    Raises:
        UsageError: no such device, or too few of them here.
        M2sdError: another process has ended before its time.
    """
    if not is_distributed():
        yield SINGLE_PROCESS, chosen
        return
    local, here = launcher_number("LOCAL_RANK"), launcher_number("LOCAL_WORLD_SIZE")
    if chosen.type == "cuda":
        if chosen.index is not None and here > 1:
            raise UsageError(f"--device {chosen}: {here} processes cannot share it; say --device cuda")
        if here > torch.cuda.device_count():
            raise UsageError(
                f"--nproc-per-node {here}: only {torch.cuda.device_count()} CUDA device(s) here; one process for each"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise UsageError(f"--device {chosen}: several processes work on cpu or cuda only")
    for variable in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        launcher_number(variable)
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()), chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise M2sdError("another process of the team has ended; its message says why") from None
        raise
    # Not after an error: to take leave of processes that are still at work may take as long as they are.
    dist.destroy_process_group()
