"""Every byte counts: flipped, cut, swapped or deleted, verify names the file and no command uses it."""

import itertools
import random
import re
import shutil
from pathlib import Path

import pytest

from m2sd_cli.errors import DamagedError
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes, check_refusal, tree
from tests.survival.scenes import ROUNDS

FLIPS = 12 * ROUNDS  # of each file
FILES = [
    "head.json",
    *(
        f"{name}.{end}"
        for name in ("pretrain", "session-000", "session-001", "session-002")
        for end in ("json", "safetensors")
    ),
]


def blamed(run: Path) -> list[str]:
    """The files that verify names."""
    return [problem.partition(": ")[0].removeprefix(f"{run}/") for problem in RunFolder(run).verify()]


@pytest.mark.parametrize("file", FILES)
def test_flipped_bits(run: Path, file: str) -> None:
    path = run / file
    whole = path.read_bytes()
    draw = random.Random(file)
    for _ in range(FLIPS):
        bit = draw.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert blamed(run) == [file], bit
        if not file.startswith("pretrain."):  # which only distill uses
            with pytest.raises(DamagedError, match=file):
                load_session(RunFolder(run))
    path.write_bytes(whole)
    assert blamed(run) == []


@pytest.mark.parametrize("file", FILES)
def test_cut_and_lengthened_files(run: Path, file: str) -> None:
    path = run / file
    whole = path.read_bytes()
    draw = random.Random(file)
    for content in (b"", whole[:-1], whole + b"\0", whole[draw.randrange(len(whole)) :], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert blamed(run) == [file]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FILES, 2)))
def test_swapped_files(run: Path, one: str, other: str) -> None:
    (run / one).rename(run / "aside")
    (run / other).rename(run / one)
    (run / "aside").rename(run / other)
    named = set(blamed(run))
    assert named
    assert named <= {one, other}  # of a damaged manifest nobody knows what its checkpoint should be


USES = {
    "sessions --run RUN": r"head|session-.*json",
    "predict IMAGE --run RUN": r"head|session-",
    "evaluate --test LABELLED --run RUN": r"head|session-",
    "export --format safetensors --out OUT --run RUN": r"head|session-",
    "increment --session 3 --shots SHOTS --run RUN": r"head|session-.*json|session-000.safetensors",
    "distill --data DATA --force --yes --epochs 0 --run RUN": r"head|session-.*json|pretrain",
    "sessions undo --yes --run RUN": r"head|session-002.json",
    "sessions verify --run RUN": r".*",
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("deleted", [False, True])
def test_no_command_uses_a_damaged_file(
    run: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli, file: str, deleted: bool
) -> None:
    shots = tmp_path / "shots"
    shutil.copytree(stripes.labelled / "orange", shots / "orange")
    paths = {
        "RUN": run,
        "IMAGE": next((shots / "orange").iterdir()),
        "LABELLED": stripes.labelled,
        "DATA": stripes.folder,
        "SHOTS": shots,
        "OUT": tmp_path / "out",
    }
    path = run / file
    if deleted:
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
    before = tree(tmp_path)
    for use, uses in USES.items():
        if not re.match(uses, file):
            continue
        done = m2sd(*[paths.get(word, word) for word in use.split()])
        check_refusal(done, 4, file)
        assert tree(tmp_path) == before, use
