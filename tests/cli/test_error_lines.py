"""An error is as many lines as it has arguments, whatever characters are in them."""

import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from m2sd_cli.errors import DamagedError, DataError, ImageError
from tests.helpers import Cli


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (DataError("one"), ["one"]),
        (DataError("a\nb\r\x1b[2J\x9b: wrong"), ["a\\x0ab\\x0d\\x1b[2J\\x9b: wrong"]),
        (DamagedError("a\nb", "c"), ["a\\x0ab", "c"]),
        (ImageError(Path("a\nb.png"), "damaged\nimage"), ["a\\x0ab.png: damaged\\x0aimage; --skip-bad leaves it out"]),
        (DataError("im\udce9.png"), ["im\\udce9.png"]),
    ],
)
def test_an_argument_is_a_line(m2sd: Cli, monkeypatch: pytest.MonkeyPatch, error: DataError, wanted: list[str]) -> None:
    def fail(**_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("m2sd_cli.evaluate", fail)
    done = m2sd("evaluate")
    assert (done.code, done.out) == (error.exit_code, "")
    assert done.err.split("\n") == [*(f"m2sd: {line}" for line in wanted), ""]


def test_a_file_that_the_system_refuses_is_a_line(m2sd: Cli, tmp_path: Path) -> None:
    words = ["pretrain", "--data", "demo", "--run", tmp_path / "run", "--init", "x" * 300, "--backbone", "resnet18"]
    done = m2sd(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"m2sd: {'x' * 300}: File name too long\n"
    assert "Traceback" in m2sd("--debug", *words).err


def test_an_error_as_text_has_all_of_its_lines() -> None:
    assert str(DamagedError("a", "b")) == "a\nb"
    assert str(ImageError(Path("x.png"), "why")) == "x.png: why"


def test_each_damaged_file_is_a_line_though_the_run_folder_is_named_oddly(
    m2sd: Cli, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "new\nline"))
    for name in ("session-000.safetensors", "session-001.safetensors"):
        (run / name).write_bytes(b"")
    done = m2sd("sessions", "verify", "--run", run)
    assert (done.code, done.out) == (4, "")
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"m2sd: {tmp_path}/new\\x0aline/session-00") for line in lines)
