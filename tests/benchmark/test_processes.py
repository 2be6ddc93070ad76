"""Time and memory of a process are its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.api.bench import _make_run
from m2sd_cli.benchmark.processes import Launched, launch, measure_processes, write_images
from m2sd_cli.errors import M2sdError
from m2sd_cli.plugin_files import load_plugin
from m2sd_cli.progress import report_to
from m2sd_cli.runs.folder import RunFolder
from tests.benchmark.small import tiny
from tests.helpers import Heard, tables_as_before

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
    monkeypatch.chdir(tmp_path)
    launch(["-c", f"import m2sd_cli; assert m2sd_cli.__file__ == {m2sd_cli.__file__!r}"])


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The words of the processes that were to be timed."""
    words: list[list[str]] = []

    def launch(command: list[str]) -> Launched:
        words.append(command)
        return Launched(1.0, None)

    monkeypatch.setattr("m2sd_cli.benchmark.processes.launch", launch)
    with tables_as_before():
        yield words


OWN = "import m2sd_cli\nm2sd_cli.register_backbone('own', 'm2sd_cli.method.resnet:resnet20')\n"


def test_commands_name_the_files_of_this_process(launched: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    load_plugin(tmp_path / "own.py")
    found = measure_processes(tiny(backbone="own"), _make_run)
    assert {"increment", "predict"} < found.keys()
    timed = [words[2:5] for words in launched if words[:2] == ["-m", "m2sd_cli"]]
    plugin = ["--plugin", str(tmp_path / "own.py")]
    assert timed == [["--help"], [*plugin, "increment"], [*plugin, "predict"]]


def test_a_network_that_no_other_process_knows_is_not_timed_there(launched: list[list[str]]) -> None:
    m2sd_cli.register_backbone("own", "m2sd_cli.method.resnet:resnet20")
    heard = Heard()
    with report_to(heard):
        assert measure_processes(tiny(backbone="own"), _make_run) == {}
    assert launched == []
    assert heard.lines == [
        "processes: not timed, as this process alone knows own; name the file that has it with --plugin"
    ]


def test_the_run_can_be_taught(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_images(tmp_path / "base", 5, 1)
    _make_run(run.path, tmp_path / "base", tiny(image_size=16))
    assert run.sessions() == [0]
    assert run.verify() == []
    assert run.chain()[0].manifest.backbone.name == "resnet20"
    assert run.chain()[0].manifest.transform.crop == 16
