"""Simulated benchmarks: of the base training images alone, and of use in every command."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2sd_cli.data.catalogue import DataSetInfo, all_infos, find_info
from m2sd_cli.data.check import check_data
from m2sd_cli.data.datasets import DataSet, Skipped
from m2sd_cli.data.demo import open_demo
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.simulation import simulate
from m2sd_cli.data.sources import ArrayImages, FileImages, ImageSource
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, check_refusal, train_on_less

INFOS = all_infos()
SIMULATED = [name for name, info in INFOS.items() if info.simulates]


demo = cache(open_demo)


def untouchable(*_: object) -> NoReturn:
    raise AssertionError("neither test images nor shots are any of a simulation's business")


def data_of(sizes: list[int]) -> DataSet:
    """A data set of which only the base training images are there, all of them different."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    numbers = torch.arange(len(labels))
    images = torch.stack([numbers % 256, numbers // 256, numbers * 0], dim=1).to(torch.uint8).view(-1, 1, 1, 3)
    return replace(
        demo(),
        classes=[f"class {number}" for number in range(len(sizes) + 3)],
        base=len(sizes),
        train=ArrayImages(images, labels),
        test=property(untouchable),  # type: ignore[arg-type]
        session=untouchable,
    )


def info_of(base: int, way: int, classes: int) -> DataSetInfo:
    return replace(INFOS["demo-simulated"], base=base, way=way, classes=classes)


def plainly(data: DataSet, info: DataSetInfo) -> tuple[set[str], set[str], dict[str, set[str]]]:
    """Choose the training images, the test images and the shots of each taught class, class by class."""
    trained: set[str] = set()
    tested: set[str] = set()
    shots: dict[str, set[str]] = {}
    for label in range(data.base):
        labels = data.train.labels.tolist()
        keys = sorted(key for key, each in zip(data.train.sort_keys(), labels, strict=True) if each == label)
        tests = min(len(keys) - 1, max(1, round(len(keys) / 10)))
        tested |= set(keys[:tests])
        if label < info.base:
            trained |= set(keys[tests:])
        else:
            shots[data.classes[label]] = set(keys[tests : tests + 5])
    return trained, tested, shots


def check_against_plain(data: DataSet, simulated: DataSet, info: DataSetInfo) -> None:
    trained, tested, shots = plainly(data, info)
    assert (set(simulated.train.sort_keys()), len(simulated.train)) == (trained, len(trained))
    assert (set(simulated.test.sort_keys()), len(simulated.test)) == (tested, len(tested))
    taught = [simulated.session(number) for number in range(1, simulated.sessions + 1)]
    assert [name for each in taught for name in each.classes] == data.classes[info.base : data.base]
    for each in taught:
        assert len(each.classes) <= info.way
        by_class: dict[str, set[str]] = {name: set() for name in each.classes}
        for key, label in zip(each.source.sort_keys(), each.source.labels.tolist(), strict=True):
            by_class[each.classes[label]].add(key)
        assert by_class == {name: shots[name] for name in each.classes}
    assert (simulated.name, simulated.base, simulated.classes) == (info.name, info.base, data.classes[: data.base])
    assert simulated.train.labels.max() < info.base


@given(st.lists(st.integers(1, 40), min_size=3, max_size=9), st.integers(1, 3))
def test_only_base_training_images_are_looked_at(sizes: list[int], way: int) -> None:
    data = data_of(sizes)
    info = info_of(base=2, way=way, classes=len(sizes))
    simulated = simulate(data, info)
    check_against_plain(data, simulated, info)
    everything = [*simulated.train.sort_keys(), *simulated.test.sort_keys()]
    assert len(set(everything)) == len(everything)
    shots = {key for number in range(1, simulated.sessions + 1) for key in simulated.session(number).source.sort_keys()}
    assert not shots & set(everything)
    assert simulated.train.labels.bincount(minlength=2).min() >= 1


@pytest.mark.parametrize(
    ("name", "base", "classes", "sessions", "way"),
    [
        ("cifar100-simulated", 48, 60, 4, 3),
        ("miniimagenet-simulated", 48, 60, 4, 3),
        ("cub200-simulated", 80, 100, 5, 4),
        ("demo-simulated", 4, 6, 1, 2),
    ],
)
def test_each_built_in_set_has_one(name: str, base: int, classes: int, sessions: int, way: int) -> None:
    info = find_info(name)
    assert info is not None
    original = INFOS[name.removesuffix("-simulated")]
    assert (info.base, info.classes, info.sessions, info.way) == (base, classes, sessions, way)
    assert info.base + info.sessions * info.way == info.classes == original.base
    assert info.simulates == original.name
    assert (info.defaults, info.layout, info.download) == (original.defaults, original.layout, original.download)
    assert f"{base} base classes, sessions of {way} classes x 5 shots" in info.title


def test_that_of_the_demo_is_made_of_the_demo() -> None:
    simulated = open_data("demo-simulated")
    check_against_plain(demo(), simulated, INFOS["demo-simulated"])
    assert demo().train.labels.bincount().tolist() == [INFOS["demo"].images] * 6
    assert simulated.train.labels.bincount().tolist() == [INFOS["demo-simulated"].images] * 4 == [270] * 4
    assert simulated.test.labels.bincount().tolist() == [30] * 6
    assert check_data(simulated).sessions == 1
    # The choice is part of what the data set is: figures of different versions can be compared.
    digest = sha256("".join(simulated.test.digests()).encode()).hexdigest()
    assert digest.startswith("3e9a69a73c586a72")


@pytest.mark.realdata
def test_that_of_cifar100_is_made_of_its_base_training_images(real_data: Path) -> None:
    simulated = open_data("cifar100-simulated", real_data)
    assert simulated.train.labels.bincount().tolist() == [INFOS["cifar100-simulated"].images] * 48 == [450] * 48
    assert simulated.test.labels.bincount().tolist() == [50] * 60
    assert [simulated.session(number).source.labels.bincount().tolist() for number in (1, 2, 3, 4)] == [[5] * 3] * 4
    original = open_data("cifar100", real_data)
    assert original.train.labels.bincount().tolist() == [INFOS["cifar100"].images] * 60
    assert set(simulated.test.digests()) <= set(original.train.digests())


def file_set(counts: Sequence[int]) -> DataSet:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    paths = tuple(Path("nowhere") / f"{label}" / f"{number}.jpg" for number, label in enumerate(labels.tolist()))
    names = [f"class {number}" for number in range(200)]
    return replace(
        demo(), name="cub200", classes=names, base=100, train=FileImages(paths, labels), location=Path("nowhere")
    )


def names(source: ImageSource) -> list[str]:
    assert isinstance(source, FileImages)
    return [path.name for path in source.paths]


def test_images_that_are_left_out_keep_their_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "CUB_200_2011").mkdir()
    monkeypatch.setattr("m2sd_cli.data.cub200.open_cub200", lambda root: replace(file_set([12] * 100), sessions=10))
    whole = open_data("cub200-simulated", tmp_path)
    assert whole.train.labels.bincount().tolist() == [11] * 80
    lost, unseen = names(whole.train)[3], names(whole.test)[0]
    skipped = [Skipped(f"0/{lost}", "cut off"), Skipped(f"0/{unseen}", "cut off")]
    opened = open_data("cub200-simulated", tmp_path, skipped=skipped)
    assert names(opened.train) == [name for name in names(whole.train) if name != lost]
    assert names(opened.test) == names(whole.test)[1:]
    assert opened.skipped == skipped


# ---- the commands


def test_the_whole_life_on_one(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on_less(monkeypatch, 20)
    run = tmp_path / "run"
    words = ["--run", run, "--device", "cpu"]
    for command in (
        "pretrain --data demo-simulated --epochs 1 -q",
        "distill --epochs 0 -q",
        "increment --session 1 -q",
    ):
        done = m2sd(*command.split(), *words)
        assert done.code == 0, done.err
    manifests = [RunFolder(run).pretrain().manifest, *(stored.manifest for stored in RunFolder(run).chain())]
    assert {(each.data.name, each.data.kind) for each in manifests} == {("demo-simulated", "built-in")}
    assert {each.data.split for each in manifests} == {
        "base training images of demo; a tenth of each class by its SHA-256s for testing"
    }
    assert [each.name for each in manifests[-1].classes] == demo().classes[4:6]
    figures = json.loads(m2sd("evaluate", *words, "--json").out)
    assert [(each["classes"], each["images"]) for each in figures["sessions"]] == [(4, 120), (6, 180)]
    again = m2sd("sessions", "reproduce", "--run", run, "-q")
    assert (again.code, again.out.count(" same\n")) == (0, 3), again.err
    more = m2sd("increment", "--session", 2, *words)
    check_refusal(more, 4, "demo-simulated has no session 2 of its own, its last is 1; teach yours with --shots DIR")


@pytest.mark.parametrize("name", SIMULATED)
def test_it_is_where_the_original_is(m2sd: Cli, tmp_path: Path, name: str) -> None:
    layout = INFOS[name].layout
    listed = json.loads(m2sd("data", "list", "--data-root", tmp_path, "--json").out)["data_sets"]
    here = {each["name"]: each["here"] for each in listed}
    assert here[name] is here[INFOS[name].simulates or ""] is (not layout)
    if not layout:
        assert m2sd("data", "download", name).err == f"{name}: in the package, nothing to download\n"
        return
    (tmp_path / layout).mkdir()
    listed = json.loads(m2sd("data", "list", "--data-root", tmp_path, "--json").out)["data_sets"]
    assert {each["name"]: each["place"] for each in listed}[name] == str(tmp_path / layout)
    assert m2sd("data", "download", name, "--data-root", tmp_path).err == f"{name}: {tmp_path / layout}\n"


def test_one_is_verified_like_any_other(m2sd: Cli) -> None:
    assert m2sd("data", "verify", "demo-simulated").out == (
        "demo-simulated: 6 classes, 4 of them base classes, 1 session of its own; 1080 images to train on, "
        "180 to test on; all readable\n"
        "images to train on and to test on, by class:\n"
        "  270 and 30: T-shirt, trousers, pullover, dress\n  0 and 30: coat, sandal\n"
        "smallest: 28 x 28\nlargest: 28 x 28\n"
    )


def test_the_number_of_shots_is_that_of_the_catalogue() -> None:
    simulated = simulate(data_of([30] * 4), info_of(base=2, way=1, classes=4))
    assert [Counter(simulated.session(number).source.labels.tolist()) for number in (1, 2)] == [Counter({0: 5})] * 2
