"""The search for unreadable images by several processes."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from m2sd_cli.data.skipping import check_images
from m2sd_cli.distributed.process_group import ProcessGroup


def check_images_together(paths: Sequence[Path], group: ProcessGroup) -> list[str | None]:
    """Check images like `check_images`; each process reads its shard, and every process returns all reasons.

    Args:
        paths: the same files in every process; each machine may have them in a folder of its own.
    """
    line = json.dumps(check_images(paths[group.shard(len(paths))])).encode() + b"\n"
    lines = bytes(group.all_gather(torch.frombuffer(bytearray(line), dtype=torch.uint8)).tolist())
    return [reason for line in lines.splitlines() for reason in json.loads(line)]
