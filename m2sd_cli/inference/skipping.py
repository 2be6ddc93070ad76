"""The search for unreadable pictures by several processes."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from m2sd_cli.data.skipping import check_pictures
from m2sd_cli.distributed.process_group import ProcessGroup


def check_pictures_together(paths: Sequence[Path], group: ProcessGroup) -> list[str | None]:
    """Check pictures like `check_pictures`; each process reads its shard, and every process returns all reasons.

    Args:
        paths: the same files in every process, which may lie in different folders.
    """
    line = json.dumps(check_pictures(paths[group.shard(len(paths))])).encode() + b"\n"
    lines = bytes(group.all_gather(torch.frombuffer(bytearray(line), dtype=torch.uint8)).tolist())
    return [reason for line in lines.splitlines() for reason in json.loads(line)]
