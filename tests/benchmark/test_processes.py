"""Time and memory of a process are its own."""

import sys
from pathlib import Path

import pytest

from m2sd_cli.api.bench import _make_run
from m2sd_cli.benchmark.processes import launch, write_images
from m2sd_cli.errors import M2sdError
from m2sd_cli.runs.folder import RunFolder
from tests.benchmark.small import tiny

MEBIBYTE = 2**20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_memory_is_the_childs_and_not_what_this_process_holds() -> None:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit > 200 * MEBIBYTE  # torch is in memory here
    idle = launch(["-S", "-c", "pass"])
    busy = launch(["-S", "-c", f"bytearray({100 * MEBIBYTE})"])
    assert idle.peak_resident_bytes is not None
    assert busy.peak_resident_bytes is not None
    assert idle.peak_resident_bytes < 60 * MEBIBYTE
    assert 90 * MEBIBYTE < busy.peak_resident_bytes - idle.peak_resident_bytes < 110 * MEBIBYTE
    assert idle.seconds > 0


def test_a_process_that_fails_is_an_error_and_no_figure() -> None:
    with pytest.raises(M2sdError, match=r"python -c .*: boom") as caught:
        launch(["-c", "import sys; print('fine'); print('a\\nboom', file=sys.stderr); sys.exit(3)"])
    assert "\n" not in str(caught.value)


def test_processes_import_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import m2sd_cli

    monkeypatch.chdir(tmp_path)
    launch(["-c", f"import m2sd_cli; assert m2sd_cli.__file__ == {m2sd_cli.__file__!r}"])


def test_the_run_can_be_taught(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_images(tmp_path / "base", 5, 1)
    _make_run(run.path, tmp_path / "base", tiny(image_size=16))
    assert run.sessions() == [0]
    assert run.verify() == []
    assert run.chain()[0].manifest.backbone.name == "resnet20"
    assert run.chain()[0].manifest.transform.crop == 16
