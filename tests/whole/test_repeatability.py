"""The same seed, data and machine give the same weights, whichever process computes them, where, and how often."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2sd_cli.runs.folder import RunFolder
from tests.helpers import COMMANDS, Stripes

PRECISIONS = ["fp32", "bf16"]
STAGES = ["pretrain", "session-000", "session-001", "session-002"]


def teach(home: Path, stripes: Stripes, cache: Path, hash_seed: str, relative: bool) -> dict[str, list[str]]:
    """The checkpoints of a chain in each precision, made by another process with `home` as its working directory."""

    def place(path: Path) -> str:
        return os.path.relpath(path, home) if relative else str(path)

    commands = []
    for precision in PRECISIONS:
        common = ["--run", precision, "--device", "cpu", "--precision", precision, "-q"]
        training = [*common, "--data", place(stripes.folder), "--epochs", "1", "--batch-size", "8"]
        commands += [
            ["pretrain", *training, "--image-size", "16", "--backbone", "resnet20", "--save-every", "0s"],
            ["distill", *training],
            ["increment", *common, "--session", "1", "--shots", place(stripes.first_shots)],
            ["increment", *common, "--session", "2", "--shots", place(stripes.second_shots)],
        ]
    home.mkdir()
    subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(commands),
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "M2SD_CACHE": str(cache)},
        cwd=home,
        text=True,
        check=True,
    )
    return {
        precision: [RunFolder(home / precision).read(stage).manifest.checkpoint.sha256 for stage in STAGES]
        for precision in PRECISIONS
    }


def test_two_processes_come_to_the_same_weights(stripes: Stripes, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cold = teach(tmp_path / "here", stripes, cache, hash_seed="1", relative=False)
    kept = set(cache.rglob("*"))
    assert kept, "the first process keeps its decoded images"
    warm = teach(tmp_path / "there", stripes, cache, hash_seed="2", relative=True)
    assert set(cache.rglob("*")) == kept
    assert cold == warm
    assert len({sha256 for each in cold.values() for sha256 in each}) == len(PRECISIONS) * len(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_manifest_says_on_how_many_threads_that_depends(trained: Path, stage: str) -> None:
    threads = RunFolder(trained).read(stage).manifest.threads
    assert threads is not None
    assert threads >= 1
