"""Several processes at one task, begun by torchrun: each takes its share, the first one writes and speaks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.inference.device import choose_device
from m2sd_cli.launch import launched

PATIENCE = timedelta(days=1)  # with a process that decodes a large data set; one that dies is noticed at once


@dataclass(frozen=True)
class Team:
    """The processes of one command; one alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things are this process's: consecutive ones, as many as anybody's or one fewer."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add(self, *tensors: Tensor) -> None:
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

    def collect(self, numbers: Tensor) -> Tensor:
        """The numbers of all processes behind one another: (N,) on the CPU, of any N each."""
        if self.size == 1:
            return numbers
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(numbers)]))
        longest = int(max(counts))
        parts = [numbers.new_zeros(longest) for _ in range(self.size)]
        dist.all_gather(parts, torch.cat([numbers, numbers.new_zeros(longest - len(numbers))]))
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def agree(self, wanted: bool) -> bool:
        """Whether any process wants it. Kept on the host, so that nobody waits for a device."""
        if self.size == 1:
            return wanted
        votes = torch.tensor(int(wanted))
        dist.all_reduce(votes)
        return bool(votes)

    def begin_alike(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until every process has come here."""
        self.agree(False)

    @contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """One process of each machine goes first, so that what it fetches or decodes is there for the others."""
        first = self.size == 1 or os.environ["LOCAL_RANK"] == "0"
        if not first:
            self.wait()
        try:
            yield
        finally:  # if it failed, so will the others, each by itself
            if first:
                self.wait()


ALONE = Team()


@contextmanager
def team_on(device: str) -> Iterator[tuple[Team, torch.device]]:
    """The team that this process belongs to, and its device; under torchrun each process of a machine has its own.

    Args:
        device: as for `choose_device`.

    Raises:
        UsageError: no such device, or too few of them here.
        M2sdError: another process has ended before its time.
    """
    if not launched():
        yield ALONE, choose_device(device)
        return
    chosen = choose_device(device)
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if chosen.type == "cuda":
        if chosen.index is not None and here > 1:
            raise UsageError(f"--device {device}: {here} processes cannot share it; say --device cuda")
        if here > torch.cuda.device_count():
            raise UsageError(
                f"--nproc-per-node {here}: only {torch.cuda.device_count()} CUDA device(s) here; one process for each"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise UsageError(f"--device {device}: several processes work on cpu or cuda only")
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size()), chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise M2sdError("another process of the team has ended; its message says why") from None
        raise
    # Not after an error: to take leave of processes that are still at work may take as long as they are.
    dist.destroy_process_group()
