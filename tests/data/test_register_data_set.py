"""A data set that is added from outside is listed, trained on and taught like those of the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.api.recorded_data import recorded_info
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.data.toy import INFO
from tests.helpers import Cli, check_refusal

HELP = """
import sys
from tests.data.toy import INFO
import m2sd_cli
m2sd_cli.register_data_set(INFO)
from m2sd_cli.cli.app import app
app(["pretrain", "--help"])
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATA_SETS, "entries", dict(DATA_SETS.entries))
    m2sd_cli.register_data_set(INFO)


@pytest.mark.usefixtures("registered")
def test_an_entry_is_listed_and_named_in_messages(m2sd: Cli) -> None:
    listing = {each["name"]: each for each in json.loads(m2sd("data", "list", "--json").out)["data_sets"]}
    assert listing["toy"] == {"name": "toy", "title": INFO.title, "here": True, "place": None}
    assert "toy-simulated" in listing
    assert (
        f"{', '.join(DATA_SETS.names())}, one of these with -simulated, or a folder"
        in m2sd("pretrain", "--data", "tay").err
    )
    assert m2sd("data", "verify", "toy").out.startswith(
        "toy: 6 classes, 4 of them base classes, 2 sessions of its own; 32 images to train on, 24 to test on; "
        "all readable\n"
    )


def test_an_entry_is_in_the_help() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
    )
    names = ", ".join([*DATA_SETS.names(), "toy"])
    assert f"{names}, one of these with -simulated, or a folder of photos" in " ".join(done.stdout.split())


def test_an_entry_is_trained_on_and_its_sessions_are_taught(
    m2sd: Cli, registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--run", tmp_path / "run", "--device", "cpu"]
    for command in ("pretrain --data toy -q", "distill -q", "increment --session 1 -q"):
        done = m2sd(*command.split(), *words)
        assert done.code == 0, done.err
    folder = RunFolder(tmp_path / "run")
    first, *_, last = (stored.manifest for stored in (folder.pretrain(), *folder.chain()))
    assert (first.data.name, first.data.kind, first.data.split) == ("toy", "built-in", "official")
    assert {name: first.config[name] for name in INFO.defaults if name != "total_epochs"} == {
        "backbone": "resnet20",
        "batch_size": 8,
    }
    assert [(each.name, each.shots) for each in last.classes] == [("colour 4", 5)]
    figures = json.loads(m2sd("evaluate", *words, "--json").out)
    assert [(each["classes"], each["images"]) for each in figures["sessions"]] == [(4, 16), (5, 20)]

    monkeypatch.delitem(DATA_SETS.entries, "toy")
    done = m2sd("evaluate", *words)
    message = "this run is of 'toy', and this version knows no data set of that name"
    check_refusal(done, 4, message)
    with pytest.raises(RunError, match=f"{message}; it comes from toys 1.2, which has to be installed"):
        recorded_info(first.model_copy(update={"plugins": {"toy": "toys 1.2"}}))


@pytest.mark.usefixtures("registered")
def test_a_name_is_given_once() -> None:
    with pytest.raises(UsageError, match="--data toy: the name is taken"):
        m2sd_cli.register_data_set(INFO)


def test_an_installed_package_adds_one(tmp_path: Path) -> None:
    metadata = tmp_path / "toys-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[m2sd.data_sets]\ntoy = tests.data.toy:INFO\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "m2sd_cli", "data", "verify", "toy", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert json.loads(done.stdout)["training_images"] == 32, done.stderr
