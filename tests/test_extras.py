"""The way to install an extra, as m2sd itself was installed."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from m2sd_cli.extras import install_extra


def install(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> None:
    """Pretend that pip has installed m2sd from somewhere; None: from a registry."""

    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())


def test_a_checkout_is_named_by_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "my m2sd"
    folder.mkdir()
    for info, option in (({"editable": True}, "-e "), ({}, "")):
        install(monkeypatch, {"url": folder.as_uri(), "dir_info": info})
        monkeypatch.chdir(tmp_path)
        assert install_extra("onnx") == f"pip install {option}'{folder}[onnx]'"
        monkeypatch.chdir(folder)
        assert install_extra("onnx") == f"pip install {option}'.[onnx]'"


def test_another_origin_is_the_one_that_pip_has_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"url": "https://example.org/m2sd.whl", "archive_info": {}})
    assert install_extra("onnx") == "pip install 'm2sd[onnx] @ https://example.org/m2sd.whl'"
    install(monkeypatch, None)
    assert install_extra("onnx") == "pip install 'm2sd[onnx]'"


def test_sources_that_were_not_installed_are_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_extra("onnx") == "pip install '.[onnx]'"
