"""A tiny data set, a chain trained on it, and the command line called in this process."""

import hashlib
import io
import math
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

import m2sd_cli
from m2sd_cli.cli.app import main
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import ClassRecord
from m2sd_cli.runs.reader import session_name
from m2sd_cli.tables import BACKBONES, BackboneEntry, ImageNetWeights
from m2sd_cli.training import loop
from m2sd_cli.training.stopping import SIGNALS
from tests.helpers import (
    BASE,
    PATIENCE,
    QUICK,
    QUICK_DISTILL,
    TESTED,
    TRAINED,
    Cli,
    OneLayer,
    Outcome,
    Stripes,
    fill,
    small_state,
)
from tests.survival.nursery import End, Nursery

REAL_DATA = os.environ.get("M2SD_DATA")  # before the tests hide it


# A machine that others load makes any example slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Give tests that run side by side one thread each: threads that wait for each other take many times as long."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the decoded images of all tests in one folder, for what trains once for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("M2SD_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _brief_measurements() -> Iterator[None]:
    """Time two steps of a training where a command would time them for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PROBED", 0.0)
        yield


@pytest.fixture(autouse=True)
def _own_places(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the folders of the person who runs the tests."""
    monkeypatch.delenv("M2SD_RUN", raising=False)
    monkeypatch.delenv("M2SD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "no-cache"))


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Stripes:
    root = tmp_path_factory.mktemp("images")
    found = Stripes(root / "colours", root / "first", root / "second", root / "labelled")
    for colour in BASE:
        fill(found.folder / "train", colour, TRAINED)
        fill(found.folder / "test", colour, TESTED, first=100)
        fill(found.labelled, colour, 2, first=200)
    fill(found.first_shots, "purple", 3)
    fill(found.first_shots, "white", 2)
    fill(found.second_shots, "grey", 4)
    for colour in ("purple", "grey", "orange"):
        fill(found.labelled, colour, 2, first=200)
    return found


def train_chain(run: Path, stripes: Stripes, **options: Any) -> Path:
    """Train four base classes and teach two sessions."""
    m2sd_cli.pretrain(str(stripes.folder), run=run, **QUICK | options)
    m2sd_cli.distill(str(stripes.folder), run=run, **QUICK_DISTILL)
    m2sd_cli.increment(1, stripes.first_shots, run=run, device="cpu")
    m2sd_cli.increment(2, stripes.second_shots, run=run, device="cpu")
    return run


@pytest.fixture(scope="session")
def trained(stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of four base classes and two sessions, which is not to be changed: see `run`."""
    return train_chain(tmp_path_factory.mktemp("trained") / "run", stripes)


@pytest.fixture(scope="session")
def calibrated(stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run as `trained`, without two images of each base class. It is not to be changed."""
    return train_chain(tmp_path_factory.mktemp("calibrated") / "run", stripes, held_out=0.25, epochs=4)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run on a simulated data set, its base session alone. Not to be changed."""
    run = tmp_path_factory.mktemp("simulated") / "run"
    m2sd_cli.pretrain("demo-simulated", run=run, epochs=1, batch_size=256, device="cpu", precision="fp32")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    return run


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Begin commands as processes that need not import torch."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def pair(nursery: Nursery) -> Callable[..., End]:
    """Run a command as two processes, as torchrun would begin them."""

    def begin(*words: object) -> End:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        environments = [{**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        return nursery.run(*words, environments=environments, limit=PATIENCE)

    return begin


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a pretrained network `small`, of images of 16 pixels."""
    _ = m2sd_cli.pretrain  # whose help lists the table when it is imported
    weights = ImageNetWeights(small_state, "small", image_size=16, resize=16)
    entry = BackboneEntry("m2sd_cli.method.resnet:resnet20", "Small", weights)
    monkeypatch.setitem(BACKBONES.entries, "small", entry)


@pytest.fixture
def load_one_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SessionModel]:
    """Load sessions with a backbone of one convolution, here and in export and predict.

    A real one takes seconds to export: this is for tests of what is exported around it.
    """

    def load(*arguments: Any, **options: Any) -> SessionModel:
        model = load_session(*arguments, **options)
        return replace(model, backbone=OneLayer(model.record.width).eval())

    monkeypatch.setattr("m2sd_cli.api.export.load_session", load)
    monkeypatch.setattr("m2sd_cli.api.predict.load_session", load)
    return load


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Copy the trained run, to do with as one likes."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def pretrained(run: Path) -> Path:
    """Copy a run that has finished stage 1 and nothing else."""
    RunFolder(run).remove_sessions(first=0)
    return run


@pytest.fixture
def lengthen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Add sessions of a few classes to a run, with class means drawn at random, as quickly as files can be written."""

    def add(run: Path, sessions: int, classes: int = 1) -> None:
        folder = RunFolder(run)
        generator = torch.Generator().manual_seed(0)
        stored = folder.chain()[-1]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)
            for session in range(len(folder.sessions()), len(folder.sessions()) + sessions):
                first = stored.manifest.classes_so_far
                means = torch.randn(classes, stored.manifest.backbone.width, generator=generator)
                sha256 = hashlib.sha256(str(session).encode()).hexdigest()
                update = {
                    "session": session,
                    "parent": stored.record,
                    "checkpoint": folder.write_checkpoint(
                        session_name(session), {"class_means": means, "shot_features": means.clone()}
                    ),
                    "views": 1,
                    "classes_before": first,
                    "classes": [
                        ClassRecord(index=index, name=f"class {index}", shots=1, digest=sha256, shot_sha256=[sha256])
                        for index in range(first, first + classes)
                    ],
                }
                stored = folder.write_manifest(session_name(session), stored.manifest.model_copy(update=update))

    return add


@pytest.fixture
def m2sd(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call a command in this process, since importing torch in another takes seconds. No line comes by the clock."""
    monkeypatch.setattr("m2sd_cli.cli.progress.LINE_INTERVAL", math.inf)
    monkeypatch.setattr("m2sd_cli.cli.progress.Lines.interval", 1e9)  # inf is of a reporter that nobody reads

    def call(*arguments: object, stdin: str = "") -> Outcome:
        out, err, code = io.StringIO(), io.StringIO(), 0
        monkeypatch.setattr(sys, "argv", ["m2sd", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as exit:
                code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def signals_as_at_a_terminal() -> Iterator[None]:
    """Ignore no signal: a test run in the background inherits an ignored SIGINT, and under nohup an ignored SIGHUP."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Find the root of the official CIFAR-100 files, or skip."""
    if REAL_DATA is None or not (Path(REAL_DATA) / "cifar-100-python").is_dir():
        pytest.skip("real CIFAR-100 is not under $M2SD_DATA")
    return Path(REAL_DATA)
