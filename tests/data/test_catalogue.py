"""The built-in data sets: their facts, their splits, and where they are looked for."""

from collections import Counter
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS, all_infos, find_info
from m2sd_cli.data.locate import data_roots, locate, open_data
from m2sd_cli.errors import DataError, M2sdError, UsageError
from tests.helpers import Cli

WAY = {"cifar100": 5, "miniimagenet": 5, "cub200": 10}
SHOT = 5


def test_what_there_is() -> None:
    official = list(DATA_SETS.entries)
    assert list(all_infos()) == [*official, *(f"{name}-simulated" for name in official)]
    facts = {
        name: (info.base, info.classes, info.image_size, info.images)
        for name, info in all_infos().items()
        if not info.simulates
    }
    known = {
        "cifar100": (60, 100, 32, 500),
        "miniimagenet": (60, 100, 84, 500),
        "cub200": (100, 200, 224, 30),
        "demo": (6, 10, 28, 300),
    }
    assert facts | known == facts


@pytest.mark.parametrize("name", WAY)
def test_the_official_split_has_every_shot_once(name: str) -> None:
    info = DATA_SETS[name]
    assert len(info.split) == info.sessions == (info.classes - info.base) // WAY[name]
    assert info.way == WAY[name]
    assert [len(session) for session in info.split] == [WAY[name] * SHOT] * len(info.split)
    lines = [line for session in info.split for line in session]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("name", ["miniimagenet", "cub200"])
def test_a_session_of_file_names_has_five_shots_a_class(name: str) -> None:
    seen: set[str] = set()
    for session in DATA_SETS[name].split:
        classes = Counter(line.split("/")[-2] for line in session)
        assert len(classes) == WAY[name]
        assert set(classes.values()) == {SHOT}
        assert not seen & classes.keys()
        seen |= classes.keys()


def test_the_classes_of_cub200_are_in_the_order_of_their_numbers() -> None:
    for number, session in enumerate(DATA_SETS["cub200"].split):
        numbers = {int(line.split("/")[-2][:3]) for line in session}
        assert numbers == set(range(101 + 10 * number, 111 + 10 * number))


def test_the_indices_of_cifar100_are_of_training_images() -> None:
    indices = [int(line) for session in DATA_SETS["cifar100"].split for line in session]
    assert min(indices) >= 0
    assert max(indices) < 50_000


@pytest.mark.parametrize("defaults", [*(info.defaults for info in all_infos().values()), FOLDER_DEFAULTS])
def test_all_defaults_make_two_configurations(defaults: dict[str, object]) -> None:
    first, second = resolve(PretrainConfig, Sources(defaults)), resolve(DistillConfig, Sources(defaults))
    assert first.epochs + second.epochs == defaults["total_epochs"]
    assert first.batch_size == defaults["batch_size"]


def test_a_name_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_info("demo") is DATA_SETS["demo"]
    (tmp_path / "photos").mkdir()
    assert find_info("photos") is None
    assert find_info(str(tmp_path)) is None
    with pytest.raises(
        UsageError,
        match=r"--data imagenet: .*choose .*cifar100, .*demo, .*with -simulated, or a folder; m2sd --plugin FILE.py ",
    ):
        find_info("imagenet")
    with pytest.raises(M2sdError, match=r"\./absent: ") as raised:
        find_info("./absent")
    assert raised.value.exit_code == 3


def test_where_data_sets_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = user_cache_path("m2sd")
    assert data_roots(None) == [cache]
    monkeypatch.setenv("M2SD_DATA", str(tmp_path / "named"))
    assert data_roots(None) == [tmp_path / "named", cache]
    assert data_roots(tmp_path / "given") == [tmp_path / "given"]

    info = DATA_SETS["cub200"]
    assert locate(info, None) is None
    (cache / info.layout).mkdir(parents=True)
    try:
        assert locate(info, None) == cache
        (tmp_path / "named" / info.layout).mkdir(parents=True)
        assert locate(info, None) == tmp_path / "named"
        assert locate(info, tmp_path / "given") is None
    finally:
        (cache / info.layout).rmdir()


@pytest.mark.parametrize("name", ["cub200", "miniimagenet"])
def test_what_is_not_here_and_cannot_be_downloaded_is_asked_for(tmp_path: Path, name: str) -> None:
    layout = DATA_SETS[name].layout
    with pytest.raises(DataError, match=f"{name}: no {layout} in {tmp_path}; .*--data-root"):
        open_data(name, tmp_path)


def test_the_commands_about_data(m2sd: Cli, stripes: object, tmp_path: Path) -> None:
    listed = m2sd("data", "--data-root", tmp_path)
    assert listed.code == 0
    listing, decoded = listed.out.split("\n\n")
    assert [line.split()[0] for line in listing.splitlines()] == ["name", *all_infos()]
    assert decoded.startswith("decoded images: ")
    assert "downloaded when needed" in listed.out
    assert f"not here; belongs in {tmp_path / 'CUB_200_2011'}" in listed.out
    assert "in the package" in listed.out
    (tmp_path / "miniimagenet").mkdir()
    assert str(tmp_path / "miniimagenet") in m2sd("data", "list", "--data-root", tmp_path).out
