"""The command `m2sd doctor`."""

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from m2sd_cli.runs.lock import lock_folder
from tests.helpers import Cli

PROBES = {"m2sd", "python", "torch", "torchvision", "gpu", "cpu", "memory", "cache", "run", "data", "extras"}


def document(m2sd: Cli, *words: object, code: int = 0) -> Any:
    done = m2sd("doctor", *words, "--json")
    assert (done.code, done.err) == (code, "")
    return json.loads(done.out)


def test_a_sound_machine_without_a_run(m2sd: Cli, tmp_path: Path) -> None:
    found = document(m2sd, "--run", tmp_path / "run")
    assert (found["works"], found["problems"], set(found["findings"])) == (True, [], PROBES)
    assert not [name for name, facts in found["findings"].items() if "unknown" in facts]
    assert not (tmp_path / "run").exists()
    assert found["findings"]["data"]["places"]["demo"] == "in the package"
    done = m2sd("doctor", "--run", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    assert {line.split()[0] for line in done.out.splitlines()} >= PROBES
    assert done.out.endswith("a training works here\n")


def test_a_run_is_described_while_nobody_writes_to_it(m2sd: Cli, trained: Path) -> None:
    before = sorted(trained.iterdir())
    facts = document(m2sd, "--run", trained)["findings"]["run"]
    assert (facts["head"], facts["damage"], facts["writer"]) == ("session-002", [], None)
    assert sorted(trained.iterdir()) == before


def test_a_run_to_which_somebody_writes(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with lock_folder(run, "distill"):
        found = document(m2sd, "--run", run, code=1)
    assert found["problems"][0].startswith(f"{run}: m2sd distill (process ")


def test_a_damaged_run_comes_first(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "session-001.safetensors").write_bytes(b"")
    done = m2sd("doctor", "--run", run)
    assert done.code == 1
    assert done.out.startswith(f"does not work: {run / 'session-001.safetensors'}: ")
    (run / "head.json").write_text("{}")
    assert m2sd("doctor", "--run", run).code == 1


def test_no_memory_and_no_room(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.api.doctor.memory", lambda: (10**9, 10**8))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 10**6))
    found = document(m2sd, "--run", tmp_path / "run", code=1)
    assert found["problems"][0].startswith("100 MB of memory are free, and a training takes 800 MB; ")
    assert f"{tmp_path}: 1 MB are free on this disk, and a training takes 200 MB" in found["problems"]


def test_a_file_where_the_run_should_be(m2sd: Cli, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert f"{tmp_path / 'run'}: not a folder" in document(m2sd, "--run", tmp_path / "run", code=1)["problems"][0]


def test_more_threads_than_a_container_may_use(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.api.doctor.core_limit", lambda: 1.0)
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    found = document(m2sd, "--run", tmp_path / "run")
    assert found["remarks"] == [
        "torch takes 64 threads, and this process may use 1 cores: export OMP_NUM_THREADS=1 trains faster"
    ]


def test_a_probe_that_fails_is_told_and_stops_no_other(
    m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise OSError("no such sensor\nmore")

    monkeypatch.setattr("m2sd_cli.api.doctor.cpu_model", fail)
    found = document(m2sd, "--run", tmp_path / "run")
    assert found["findings"]["cpu"] == {"unknown": "no such sensor"}
    assert "free" in found["findings"]["memory"]


def test_a_gpu_that_torch_cannot_use(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.api.doctor._driver", lambda: "570.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    found = document(m2sd, "--run", tmp_path / "run")
    assert found["remarks"][0].startswith("a GPU of driver 570.1 is here, and torch is built without CUDA")


def test_a_gpu_that_is_hidden(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2sd_cli.api.doctor._driver", lambda: "570.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = document(m2sd, "--run", tmp_path / "run")
    assert found["remarks"] == ["a GPU of driver 570.1 is here; unset CUDA_VISIBLE_DEVICES, which is '-1', to use it"]


def test_a_folder_that_cannot_be_looked_at(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(folder: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("m2sd_cli.api.doctor._disk", closed)
    problems = document(m2sd, "--run", tmp_path / "run", code=1)["problems"]
    assert f"run: [Errno 13] Permission denied: '{tmp_path / 'run'}'" in problems


def test_a_data_folder_that_is_not_there(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2SD_DATA", str(tmp_path / "nowhere"))
    assert document(m2sd, "--run", tmp_path / "run")["remarks"] == [f"$M2SD_DATA: {tmp_path / 'nowhere'} is no folder"]
