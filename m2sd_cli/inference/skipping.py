"""Several processes that look for the pictures that cannot be read."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from m2sd_cli.data.skipping import check_pictures
from m2sd_cli.distributed.process_group import ProcessGroup


def check_pictures_together(paths: Sequence[Path], group: ProcessGroup) -> list[str | None]:
    """As `check_pictures`; each process reads its share, and all of them come to the same reasons.

    Args:
        paths: the same ones in every process, wherever they lie.
    """
    part = json.dumps(check_pictures(paths[group.shard(len(paths))])).encode() + b"\n"
    everybody = bytes(group.all_gather(torch.frombuffer(bytearray(part), dtype=torch.uint8)).tolist())
    return [reason for line in everybody.splitlines() for reason in json.loads(line)]
