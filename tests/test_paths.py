"""Folders that are named by an empty variable, by ~, or not at all."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from m2sd_cli.data.cache import cache_folder
from m2sd_cli.data.locate import data_roots
from m2sd_cli.errors import DataError, UsageError
from m2sd_cli.paths import expand, refuse_address
from m2sd_cli.runs.chain import NO_FOLDER
from m2sd_cli.runs.folder import open_run
from tests.helpers import Cli, Stripes, check_refusal


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without $HOME and without an entry in the list of users, as in a container."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "M2SD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_tilde_is_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("M2SD_CACHE", "M2SD_DATA", "M2SD_RUN"):
        monkeypatch.setenv(variable, f"~/{variable}")
    assert cache_folder() == home / "M2SD_CACHE"
    assert data_roots(None)[0] == home / "M2SD_DATA"
    assert open_run().path == home / "M2SD_RUN"
    assert open_run("~/run").path == home / "run"


def test_a_tilde_in_an_option_is_the_home_folder(home: Path, m2sd: Cli, tmp_path: Path) -> None:
    done = m2sd("sessions", "list", "--run=~/none")
    assert (done.code, done.err) == (4, f"m2sd: {home}/none: {NO_FOLDER}\n")
    assert m2sd("predict", "~/none.jpg", "--run", "~/none").err.startswith(f"m2sd: {home}/none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["M2SD_CACHE", "M2SD_DATA", "M2SD_RUN"])
def test_an_empty_variable_is_as_good_as_none(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def folders() -> list[object]:
        return [cache_folder(), data_roots(None), open_run().path]

    monkeypatch.delenv(variable, raising=False)
    before = folders()
    monkeypatch.setenv(variable, "")
    assert folders() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", ""], "''"),
        (["predict", "a.jpg", ""], "''"),
        (["predict", "a.jpg", "--run", ""], "--run"),
        (["predict", "a.jpg", "--run="], "--run="),
        (["increment", "--session", "1", "--shots", ""], "--shots"),
        (["evaluate", "--test", ""], "--test"),
        (["evaluate", "--confusion", ""], "--confusion"),
        (["pretrain", "--data", ""], "--data"),
        (["pretrain", "--config", ""], "--config"),
        (["export", "--format", "pt2", "--out", ""], "--out"),
        (["data", "verify", ""], "''"),
        (["sessions", "list", "--run", ""], "--run"),
        (["ablation", "--out", ""], "--out"),
    ],
)
def test_an_empty_argument_is_no_folder(
    words: list[str], named: str, m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = m2sd(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"m2sd: {named}: an empty argument; is a shell variable not set?\n"
    assert not list(tmp_path.iterdir())


def test_an_empty_name_in_python_is_no_folder() -> None:
    with pytest.raises(UsageError, match="--run: an empty name"):
        open_run("")
    with pytest.raises(UsageError, match="--test: an empty name"):
        expand("", "--test")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_one_line_says_so(m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    done = m2sd("data", "list")
    assert (done.code, done.out) == (2, "")
    assert done.err == "m2sd: the home folder of this user is not known; set HOME or $M2SD_CACHE\n"
    assert m2sd("sessions", "list", "--run", "~/run").err == (
        "m2sd: --run ~/run: the home folder is not known; set HOME, or write the whole path\n"
    )
    with pytest.raises(UsageError, match="--run ~: the home folder is not known"):
        expand("~", "--run")
    monkeypatch.setenv("M2SD_DATA", "/data")
    assert data_roots(None) == [Path("/data")]


def test_a_name_that_begins_with_a_tilde_is_kept(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(next((stripes.labelled / "red").iterdir()), "~photo.png")
    for words in (["~photo.png"], ["./~photo.png"], ["."]):
        done = m2sd("predict", *words, "--run", trained, "--device", "cpu")
        assert done.code == 0, done.err
        assert "~photo.png" in done.out
    assert expand("~", "--run") == Path.home()
    assert expand("~/x", "--run") == Path.home() / "x"
    with pytest.raises(UsageError, match="--run ~nobody-of-this-name/x: the home folder is not known"):
        expand("~nobody-of-this-name/x", "--run")
    Path("~nobody-of-this-name").mkdir()
    assert expand("~nobody-of-this-name/x", "--run") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE", "MASTER_PORT"])
def test_a_variable_that_the_launcher_left_out_is_named(
    variable: str, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path
) -> None:
    numbers = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "1"}
    for name, value in (numbers | {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(variable)
    done = m2sd("evaluate", "--run", trained, "--test", tmp_path, "--device", "cpu")
    check_refusal(done, 2)
    assert done.err.startswith(f"m2sd: ${variable} '': not as torchrun sets it;")


def test_a_current_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    words = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {sys.executable} -m m2sd_cli sessions list"
    (tmp_path / "gone").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "m2sd: the current folder is not there any more; go to another one\n"


@pytest.mark.parametrize("name", ["file:///home/me/bird.jpg", Path("file:///home/me/bird.jpg")])
def test_the_address_of_a_file_need_not_be_downloaded(name: Path | str) -> None:
    with pytest.raises(DataError, match=r"an address; name the path alone, without file:$"):
        refuse_address(name)
