"""Torchvision that does not fit torch, or is not there."""

import importlib
from importlib import metadata
from types import ModuleType

import pytest

import m2sd_cli
from m2sd_cli.errors import M2sdError
from m2sd_cli.pairing import describe_wrong_pair, import_torchvision, install_command
from tests.helpers import Cli, check_refusal


def install(monkeypatch: pytest.MonkeyPatch, torch: str | None, torchvision: str | None, wanted: str = "2.8.0") -> None:
    """Pretend that these versions are installed."""
    versions = {"torch": torch, "torchvision": torchvision}
    real, real_requires = metadata.version, metadata.requires

    def version(name: str) -> str:
        found = versions.get(name, "") if name in versions else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    def requires(name: str) -> list[str] | None:
        return ["numpy", f"torch=={wanted}", "pillow>=5"] if name == "torchvision" else real_requires(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", requires)


def break_torchvision(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every import of torchvision fail, as that of a wrong pair does."""
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name.split(".")[0] == "torchvision":
            raise error
        return real(name, package)

    monkeypatch.setattr("m2sd_cli.pairing.import_module", import_module)
    monkeypatch.setattr("m2sd_cli.api.doctor.import_module", import_module)


@pytest.mark.parametrize(
    ("torch", "command"),
    [
        ("2.8.0", "pip install 'torchvision==0.23.*'"),
        ("2.14.1", "pip install 'torchvision==0.29.*'"),
        ("2.8.0+cpu", "pip install 'torchvision==0.23.*' --index-url https://download.pytorch.org/whl/cpu"),
        (None, "pip install --upgrade torch torchvision"),
        ("3.0.0", "pip install --upgrade torch torchvision"),
    ],
)
def test_the_command_names_the_torchvision_of_a_torch(
    monkeypatch: pytest.MonkeyPatch, torch: str | None, command: str
) -> None:
    install(monkeypatch, torch, "0.23.0")
    assert install_command() == command


def test_a_pair_fits_whatever_device_it_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "2.8.0+cpu", "0.23.0+cu128")
    assert describe_wrong_pair() is None
    install(monkeypatch, "2.9.1", "0.23.0")
    assert describe_wrong_pair() == "torchvision 0.23.0 is built for torch 2.8.0, and torch 2.9.1 is installed"


def test_the_installed_pair_fits() -> None:
    assert describe_wrong_pair() is None
    assert metadata.version("torchvision").startswith(install_command().partition("==")[2].partition("*")[0])
    assert import_torchvision("models").__name__ == "torchvision.models"


def test_a_wrong_pair_is_named_before_the_error_that_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "2.9.1", "0.23.0")
    break_torchvision(monkeypatch, RuntimeError("operator torchvision::nms does not exist\nmore"))
    with pytest.raises(M2sdError, match=r"torch 2\.8\.0, and torch 2\.9\.1 is installed; pip"):
        import_torchvision("models")


def test_another_failure_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "2.8.0", "0.23.0")
    break_torchvision(monkeypatch, OSError("libcudart.so.12: cannot open\nmore"))
    with pytest.raises(M2sdError) as failure:
        import_torchvision("models")
    assert str(failure.value) == (
        "torchvision cannot be imported (libcudart.so.12: cannot open); pip install 'torchvision==0.23.*'"
    )
    break_torchvision(monkeypatch, ModuleNotFoundError("No module named 'torchvision'", name="torchvision"))
    with pytest.raises(M2sdError, match=r"^torchvision is not installed; pip install 'torchvision==0.23.\*'$"):
        import_torchvision("models")


def test_commands_that_need_it_name_it_in_one_line(monkeypatch: pytest.MonkeyPatch, m2sd: Cli) -> None:
    break_torchvision(monkeypatch, RuntimeError("operator torchvision::nms does not exist"))
    words = ["pretrain", "--data", "demo", "--device", "cpu", "--epochs", 1, "--images-per-class", 10]
    for options in (["--auto-augment", "cifar10"], ["--backbone", "resnet18", "--init", "imagenet"]):
        done = m2sd(*words, "--run", "run", *options)
        check_refusal(done, 1, "torchvision cannot be imported (operator torchvision::nms does not exist); pip")


def test_doctor_survives_it_and_names_the_fix_first(monkeypatch: pytest.MonkeyPatch, m2sd: Cli) -> None:
    install(monkeypatch, "2.9.1", "0.23.0")
    break_torchvision(monkeypatch, RuntimeError("operator torchvision::nms does not exist"))
    done = m2sd("doctor")
    first = (
        "does not work: torchvision 0.23.0 is built for torch 2.8.0, and torch 2.9.1 is installed; pip install 'torch"
    )
    assert done.code == 1
    assert first in done.out
    assert m2sd_cli.doctor().problems
