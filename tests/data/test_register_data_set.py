"""A data set that is added from outside is listed, trained on and taught like those of the package."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.api.recorded_data import recorded_info
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.catalogue import DATA_SETS, all_infos
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.errors import DataError, M2sdError, RunError, UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.data.toy import INFO, open_toy
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": 3, "way": 3}, "number of base classes is 4; its DataSetInfo says 3"),
        ({"classes": 7}, "number of classes is 6; its DataSetInfo says 7"),
        ({"way": 2}, "number of sessions is 2; its DataSetInfo says 1"),
        ({"name": "toys"}, "name is 'toy'; its DataSetInfo says 'toys'"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "-simulated"])
def test_a_data_set_is_what_its_entry_promises(
    change: dict[str, Any], says: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(INFO, **change)
    monkeypatch.setitem(DATA_SETS.entries, info.name, info)
    with pytest.raises(M2sdError, match=f"^--data {info.name}.*: its builder returns a DataSet whose {says}$"):
        open_data(info.name + suffix)


def test_a_builder_that_returns_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS.entries, "toy", replace(INFO, builder=lambda: [1, 2]))
    with pytest.raises(M2sdError, match=r"^--data toy.*: its builder returns a list, and no DataSet$"):
        open_data("toy")


def test_the_layout_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = []

    def build(root: Path) -> DataSet:
        roots.append(root)
        return open_toy()

    monkeypatch.setitem(DATA_SETS.entries, "toy", replace(INFO, builder=build, layout="toy.npz"))
    with pytest.raises(DataError, match=r"^toy: .*toy\.npz in"):
        open_data("toy", tmp_path)
    (tmp_path / "toy.npz").touch()
    open_data("toy", tmp_path)
    assert roots == [tmp_path]


def test_an_entry_point_has_the_name_of_its_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        vars(DATA_SETS), "_plugins", {"other": EntryPoint("other", "tests.data.toy:INFO", DATA_SETS.group)}
    )
    says = r"^--data other, of tests.data.toy: tests.data.toy:INFO has the name 'toy'; name the entry point so$"
    with pytest.raises(M2sdError, match=says):
        open_data("other")
    assert "other" not in all_infos()


@pytest.mark.parametrize(
    ("defaults", "says"),
    [
        ({"learning_rat": 1.0}, "'learning_rat'; did you mean 'learning_rate'?"),
        ({"distill": {"clean_wieght": 1.0}}, "'clean_wieght'; did you mean 'clean_weight'?"),
    ],
)
def test_a_default_that_is_no_option_is_refused(
    defaults: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(INFO, defaults=defaults)
    with pytest.raises(UsageError, match=f"^the defaults of the data set: there is no option {re.escape(says)}$"):
        resolve(DistillConfig, Sources(info.defaults))


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
