"""Files that a person asks for with --out and --confusion, whatever is at their place."""

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from m2sd_cli.errors import M2sdError, RunError, UsageError
from m2sd_cli.output_files import (
    check_new_folder,
    check_output,
    check_output_folder,
    is_special,
    is_stdout,
    write_output,
    write_output_folder,
)
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, Stripes


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_regular_file_is_replaced_as_a_whole(tmp_path: Path, folder: RunFolder) -> None:
    file = tmp_path / "file"
    check_output("--out", file, folder, replace=False)
    write_output(file, b"first")
    with file.open("rb") as reader:
        check_output("--out", file, folder)
        write_output(file, iter([b"sec", b"ond"]))
        assert (file.read_bytes(), reader.read()) == (b"second", b"first")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", ["there", "not there"])
def test_a_link_stays_a_link(tmp_path: Path, target: str, folder: RunFolder) -> None:
    (tmp_path / "there").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    check_output("--out", link, folder)
    write_output(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / target).read_bytes() == b"new"


def test_a_pipe_is_written_into(tmp_path: Path, folder: RunFolder) -> None:
    pipe, seen = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    reader.start()
    check_output("--out", pipe, folder, replace=False)
    write_output(pipe, b"content")
    reader.join(10)
    assert seen == [b"content"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device(folder: RunFolder) -> None:
    ours, theirs = os.openpty()
    device = Path(os.ttyname(theirs))
    check_output("--out", device, folder, replace=False)
    write_output(device, b"content")
    assert os.read(ours, 100) == b"content"
    assert device.is_char_device()
    os.close(ours)
    os.close(theirs)


def test_a_full_device_is_one_line() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full")
    with pytest.raises(M2sdError, match=r"^/dev/full: could not be written \(No space left on device\)$") as caught:
        write_output(Path("/dev/full"), b"content")
    assert caught.value.exit_code == 4
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("name", "says"),
    [(".", "it is a folder"), ("no/where", "no such folder as"), ("run/head.json", "a file of the run")],
)
def test_outputs_that_are_refused(name: str, says: str, tmp_path: Path, folder: RunFolder) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match=says):
        check_output("--out", tmp_path / name, folder)


def test_outputs_that_could_not_be_written_are_refused_before_any_work(
    tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "file")
    with pytest.raises(UsageError, match=r"link: no such folder as .*/gone$"):
        check_output("--out", tmp_path / "link", folder)
    (tmp_path / "closed").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    checks = [
        partial(check_output, "--out", tmp_path / "closed" / "file", folder),
        partial(check_output_folder, "--out", tmp_path / "closed", folder),
        partial(check_output_folder, "--out", tmp_path / "closed" / "new", folder),
        partial(check_new_folder, "--out", tmp_path / "closed" / "new", folder, []),
    ]
    for check in checks:
        with pytest.raises(UsageError, match=r"/closed cannot be written to; name another folder$"):
            check()
    check_output("--out", tmp_path / "file", folder)
    with pytest.raises(UsageError, match=r"^--figures -: it has to be a folder; name one$"):
        check_output_folder("--figures", Path("-"), folder)


@pytest.mark.parametrize("name", ["loop", "loop/file", "x" * 300, "y" * 300 + "/file"])
def test_a_name_that_no_file_can_have_is_one_line(name: str, tmp_path: Path, folder: RunFolder) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for check in (check_output, check_output_folder):
        with pytest.raises(UsageError, match="cannot be used"):
            check("--out", tmp_path / name, folder)


def test_a_file_too_large_for_the_system_is_refused_in_one_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(RunError, match=r"could not be written \(File too large\)") as caught:
            write_output(tmp_path / "file", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_is_kept_if_its_replacement_is_interrupted(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real, renamed = tmp_path / "out", os.rename, []
    place.mkdir()
    (place / "a").write_bytes(b"old")

    def rename(source: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) == 2:
            raise error
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises((KeyboardInterrupt, RunError)):
        write_output_folder(place, {"a": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (place / "a").read_bytes() == b"old"


def test_a_file_is_replaced_only_if_asked_to(tmp_path: Path, folder: RunFolder) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it exists already; --force replaces it"):
        check_output("--out", tmp_path / "file", folder, replace=False)


WRITES = """
import sys
from pathlib import Path
from typing import NoReturn
from m2sd_cli.output_files import is_special, is_stdout, write_output
print("before")
for name in sys.argv[1:]:
    assert is_special(Path(name)) and is_stdout(Path(name)), name
    write_output(Path(name), name.encode() + b"\\n")
print("after")
"""


@pytest.mark.parametrize("to_file", [True, False])
def test_stdout_has_all_in_order_wherever_it_goes(tmp_path: Path, to_file: bool) -> None:
    names = ["-", "/dev/stdout", "/dev/fd/1"] if sys.platform == "linux" else ["-"]
    words = [sys.executable, "-c", WRITES, *names]
    if to_file:
        with (tmp_path / "out").open("wb") as out:
            subprocess.run(words, stdout=out, check=True)
        text = (tmp_path / "out").read_text()
    else:
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert text.splitlines() == ["before", *names, "after"]


def test_other_files_are_not_stdout(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none", tmp_path):
        assert not is_stdout(path)
        assert not is_special(path)


def test_the_confusion_matrix_goes_to_stdout(trained: Path, stripes: Stripes, m2sd: Cli) -> None:
    words = ["evaluate", "--run", trained, "--test", stripes.labelled, "--device", "cpu", "--confusion", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "m2sd_cli", *map(str, words)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].split(",")[0] == "true \\ answer"
    assert "AVG" not in done.stdout
    assert "AVG" in done.stderr
    refused = m2sd(*words, "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "both write to stdout" in refused.err


def test_a_file_that_cannot_be_written_at_the_end_loses_no_figure(
    trained: Path, stripes: Stripes, m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--test", stripes.labelled, "--device", "cpu", "--latex", tmp_path / "table.tex"]

    def full(path: Path, *_: object) -> NoReturn:
        raise RunError(f"{path}: could not be written")

    with monkeypatch.context() as patch:
        patch.setattr("m2sd_cli.output_files.write_output", full)
        for command in (["evaluate", "--run", trained], ["study", trained]):
            done = m2sd(*command, *words)
            assert done.code == 4
            assert "AVG" in done.out
    assert not (tmp_path / "table.tex").exists()


def test_a_reader_who_leaves_loses_no_file(
    trained: Path, stripes: Stripes, m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> NoReturn:
        raise SystemExit(0)

    for module, command in {"evaluate": ["evaluate", "--run", trained], "study": ["study", trained]}.items():
        file = tmp_path / f"{module}.tex"
        monkeypatch.setattr(f"m2sd_cli.cli.{module}.results", leave)
        assert m2sd(*command, "--test", stripes.labelled, "--device", "cpu", "--latex", file).code == 0
        assert file.stat().st_size
