"""A session whose network is quick to export."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from m2sd_cli.inference.session import SessionModel, load_session
from tests.helpers import OneLayer


@pytest.fixture
def load_one_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SessionModel]:
    """Load sessions with a backbone of one convolution, here and in export and predict.

    What is exported around the backbone is under test; tests/exporting export a real one, which takes seconds.
    """

    def load(*arguments: Any, **options: Any) -> SessionModel:
        model = load_session(*arguments, **options)
        return replace(model, backbone=OneLayer(model.record.width).eval())

    monkeypatch.setattr("m2sd_cli.api.export.load_session", load)
    monkeypatch.setattr("m2sd_cli.api.predict.load_session", load)
    return load
