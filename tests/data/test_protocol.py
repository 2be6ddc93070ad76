"""Another protocol of a built-in data set: the same images, divided otherwise, whoever asks."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import m2sd_cli
from m2sd_cli.data.catalogue import DATA_SETS, find_info
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.protocol import Protocol, choose_protocol
from m2sd_cli.errors import UsageError
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import Cli, check_refusal, tree

CPU = ["--device", "cpu"]
QUICK = ["--epochs", 1, "--batch-size", 256, "--images-per-class", 8, "--precision", "fp32", *CPU]
DEMO = open_data("demo")


def opened(name: str = "demo", **options: Any) -> DataSet:
    info = find_info(name)
    assert info is not None
    return open_data(name, protocol=choose_protocol(info, **options))


def shots_of(data: DataSet) -> dict[str, list[str]]:
    """The digests of the shots of every taught class, sorted."""
    found: dict[str, list[str]] = {}
    for number in range(1, data.sessions + 1):
        shots = data.session(number)
        for label, digest in zip(shots.source.labels.tolist(), shots.source.digests(), strict=True):
            found.setdefault(shots.classes[label], []).append(digest)
    return {name: sorted(digests) for name, digests in found.items()}


def by_class(source: Any, names: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, digest in zip(source.labels.tolist(), source.digests(), strict=True):
        found.setdefault(names[label], []).append(digest)
    return {name: sorted(digests) for name, digests in found.items()}


def test_the_official_one_in_other_words_is_the_official_one() -> None:
    same = opened(base_classes=6, way=2, shots_per_class=5)
    assert same.protocol is None
    assert shots_of(same) == shots_of(DEMO)
    order = DEMO.classes
    path_free = open_data("demo", protocol=Protocol(6, 2, 5, tuple(order)))
    assert path_free.protocol is None


@pytest.mark.parametrize("seed", [0, 1993])
def test_every_image_keeps_its_class_in_another_order(seed: int) -> None:
    data = opened(class_order=str(seed), base_classes=4, way=3, shots_per_class=2)
    permutation = np.random.RandomState(seed).permutation(10)
    assert data.classes == [DEMO.classes[label] for label in permutation]
    assert (data.base, data.sessions) == (4, 2)
    assert by_class(data.test, data.classes) == by_class(DEMO.test, DEMO.classes)
    trained = by_class(data.train, data.classes)
    assert list(dict.fromkeys(sorted(trained, key=data.classes.index))) == data.classes[:4]
    official = by_class(DEMO.train, DEMO.classes) | shots_of(DEMO)
    assert trained == {name: official[name] for name in data.classes[:4]}
    for number, names in ((1, data.classes[4:7]), (2, data.classes[7:])):
        shots = data.session(number)
        assert shots.classes == names
        assert Counter(shots.source.labels.tolist()) == dict.fromkeys(range(3), 2)
    assert all({*digests} <= {*official[name]} for name, digests in shots_of(data).items())


def test_the_last_session_has_the_classes_that_are_left() -> None:
    data = opened(base_classes=5, way=2, shots_per_class=1)
    assert [data.session(number).classes for number in (1, 2, 3)] == [
        data.classes[5:7],
        data.classes[7:9],
        data.classes[9:],
    ]
    assert data.protocol is not None
    assert data.protocol.describe(10) == (
        "5 base classes, 3 sessions of 2 classes x 1 shot, 1 in the last session, draw 1 of the shots"
    )


def test_official_shots_are_kept_where_every_class_has_them() -> None:
    data = opened(base_classes=7, way=1, shots_per_class=3)
    assert data.protocol == Protocol(7, 1, 3)
    first = DEMO.session(1)
    second = DEMO.session(2)
    of_second = second.source.digests()
    assert shots_of(data)[second.classes[0]] == sorted(of_second[:3])
    assert shots_of(data)[first.classes[1]] == sorted(first.source.digests()[5:8])
    # A base class among the taught ones has none, so that all are drawn.
    drawn = opened(base_classes=5, way=5)
    assert drawn.protocol == Protocol(5, 5, 5, shots_draw=1)


def test_draws_differ_and_are_nested() -> None:
    def drawn(draw: int, shots: int, **options: Any) -> dict[str, list[str]]:
        return shots_of(opened(base_classes=3, shots_per_class=shots, shots_draw=draw, **options))

    assert drawn(1, 2) == drawn(1, 2, way=7)
    assert drawn(1, 2) != drawn(2, 2)
    less, more = drawn(1, 2), drawn(1, 4)
    assert all({*less[name]} < {*more[name]} for name in less)
    # Of the class, whatever its place in the order.
    other = shots_of(opened(base_classes=3, shots_per_class=2, shots_draw=1, class_order="1993"))
    assert all(less[name] == other[name] for name in less.keys() & other.keys())
    alone = {shots_of(opened(shots_draw=draw, shots_per_class=1))[DEMO.classes[9]][0] for draw in range(1, 30)}
    assert alone == {*shots_of(DEMO)[DEMO.classes[9]]}  # each of the five images has its turn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base-classes", 10], "--base-classes 10: demo has 10 classes, and one has to be left to teach"),
        (["--way", 5], "--way 5: demo has 4 classes left after 6 base classes"),
        (["--shots-per-class", 6], "--shots-per-class 6: class 'bag' has 5 images"),
        (["--class-order", "no-such-file"], "--class-order no-such-file: no seed, and no file that can be read"),
        (["--class-order", 2**32], "--class-order 4294967296: a seed is below 4294967296"),
        (["--class-order", ""], "--class-order: an empty argument"),
        (["--base-classes", 1], "--base-classes 1: at least 2"),
        (["--way", 0], "--way 0: at least 1"),
        (["--shots-draw", 0], "--shots-draw 0: at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(m2sd: Cli, tmp_path: Path, words: list[object], message: str) -> None:
    done = m2sd("pretrain", "--data", "demo", "--run", tmp_path / "run", *words, *QUICK)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert tree(tmp_path) == {}


def test_orders_of_files(tmp_path: Path) -> None:
    names, numbers, wrong = tmp_path / "names", tmp_path / "numbers", tmp_path / "wrong"
    order = [*range(9, -1, -1)]
    names.write_text("\n".join(DEMO.classes[each] for each in order) + "\n\n")
    numbers.write_text("\n".join(map(str, order)))
    found = [opened(class_order=str(path), shots_per_class=1) for path in (names, numbers)]
    assert found[0].classes == found[1].classes == DEMO.classes[::-1]
    assert found[0].protocol == found[1].protocol
    for lines, why in (
        ([*DEMO.classes[:9], "\x1b[2Jbird"], r"'\\x1b\[2Jbird' is no class"),
        ([*DEMO.classes, DEMO.classes[0]], "'T-shirt' is there twice"),
        (DEMO.classes[1:], "9 of 10 classes are in it; 'T-shirt' is missing"),
        ([], "0 of 10 classes are in it"),
        ([str(each) for each in range(1, 11)], "'10' is no class"),
    ):
        wrong.write_text("\n".join(lines))
        with pytest.raises(UsageError, match=why):
            opened(class_order=str(wrong))
    wrong.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        opened(class_order=str(wrong))


def test_a_folder_has_no_protocol(m2sd: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done = m2sd("pretrain", "--data", tmp_path / "photos", "--way", 2, "--run", tmp_path / "run", *CPU)
    check_refusal(done, 2, "--way is for built-in data sets")


def test_a_simulation_is_of_the_base_classes_of_the_protocol() -> None:
    options: dict[str, Any] = {"base_classes": 5, "way": 2, "shots_per_class": 2, "class_order": "1993"}
    original, simulated = opened(**options), opened("demo-simulated", **options)
    assert simulated.classes == original.classes[:5]
    assert (simulated.base, simulated.sessions) == (4, 1)
    images = by_class(original.train, original.classes)
    mine = [by_class(part, simulated.classes) for part in (simulated.train, simulated.test)] + [shots_of(simulated)]
    seen = Counter(digest for part in mine for digests in part.values() for digest in digests)
    assert set(seen) <= {digest for digests in images.values() for digest in digests}
    assert set(seen.values()) == {1}
    assert {len(each) for each in shots_of(simulated).values()} == {2}
    with pytest.raises(UsageError, match="too few base classes"):
        opened("demo-simulated", base_classes=5, way=1)


def test_a_run_follows_its_protocol(m2sd: Cli, tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    order.write_text("\n".join([*DEMO.classes[6:], *DEMO.classes[:6]]))
    run, again = tmp_path / "run", tmp_path / "again"
    words = ["--base-classes", 7, "--way", 2, "--shots-per-class", 1, "--class-order", order, "--shots-draw", 4]
    begun = m2sd("pretrain", "--data", "demo", "--run", run, *words, *QUICK, "--stop-after", "0s")
    assert (
        "7 base classes, 2 sessions of 2 classes x 1 shot, 1 in the last session, order of a file, draw 4" in begun.err
    )
    order.unlink()  # the names are recorded
    assert m2sd("pretrain", "--resume", "--run", run, *CPU).code == 0
    assert m2sd("distill", "--epochs", 0, "--run", run, *CPU).code == 0
    for _ in range(2):
        assert m2sd("increment", "--run", run, *CPU).code == 0
    assert "demo has no session 3 of its own, its last is 2" in m2sd("increment", "--run", run, *CPU).err
    chain = [stored.manifest for stored in RunFolder(run).chain()]
    classes = [each.name for manifest in chain for each in manifest.classes]
    assert classes == [*DEMO.classes[6:], *DEMO.classes[:6]]
    assert {each.shots for manifest in chain[1:] for each in manifest.classes} == {1}
    first = RunFolder(run).pretrain().manifest
    assert first.data.protocol is not None
    assert (first.data.protocol.class_order, first.data.protocol.shots_draw) == (classes, 4)
    assert first.config["class_order"] == "order.txt"
    assert str(tmp_path) not in (run / "pretrain.json").read_text()
    sessions = json.loads(m2sd("evaluate", "--run", run, "--json", *CPU).out)["sessions"]
    assert [(each["classes"], each["images"]) for each in sessions] == [(7, 700), (9, 900), (10, 1000)]
    reproduced = m2sd("sessions", "reproduce", "--run", run)
    assert reproduced.code == 0, reproduced.err
    assert reproduced.out.count("same") == 8
    m2sd_cli.pretrain(
        "demo",
        run=again,
        epochs=1,
        seed=1,
        base_classes=7,
        way=2,
        shots_per_class=1,
        shots_draw=4,
        class_order=3,
        images_per_class=8,
        batch_size=256,
        device="cpu",
    )
    m2sd_cli.distill(run=again, epochs=0, device="cpu")
    other = m2sd("sessions", "replay", "--from", run, "--run", again, *CPU)
    assert other.code == 4
    assert "class 'coat' is in it since session 0" in other.err


def test_simulate_follows_the_protocol(m2sd: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--base-classes", 5, "--way", 2, "--shots-per-class", 2, "--class-order", 3]
    assert m2sd("pretrain", "--data", "demo-simulated", "--run", run, *words, *QUICK).code == 0
    assert m2sd("distill", "--epochs", 0, "--run", run, *CPU).code == 0
    done = m2sd("simulate", "--run", run, "--draws", 2, "--classifier", "means", "--json", *CPU)
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert (content["sizes"], content["shots"]) == ([4, 5], 2)


def test_cifar100_with_50_base_classes_in_the_order_of_the_field(real_data: Path) -> None:
    info = DATA_SETS["cifar100"]
    protocol = choose_protocol(info, base_classes=50, way=10, shots_per_class=1, class_order="1993")
    data, official = open_data("cifar100", real_data, protocol=protocol), open_data("cifar100", real_data)
    # The first classes of the order that the field's code prints.
    known = [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38]
    assert data.classes[:20] == [official.classes[label] for label in known]
    assert (data.base, data.sessions, len(data.train), len(data.test)) == (50, 5, 25_000, 10_000)
    assert torch.bincount(data.train.labels).tolist() == [500] * 50
    for number in range(1, 6):
        shots = data.session(number)
        assert shots.classes == data.classes[40 + 10 * number : 50 + 10 * number]
        assert shots.source.labels.tolist() == [*range(10)]
    apple = data.classes.index("apple")
    mine, theirs = data.test, official.test
    assert torch.equal(mine.labels == apple, theirs.labels == official.classes.index("apple"))


def test_simulated_sessions_have_the_shots_of_the_draw() -> None:
    info = find_info("demo-simulated")
    assert info is not None

    def opened_simulation(draw: int | None) -> DataSet:
        return open_data(info.name, protocol=choose_protocol(info, shots_draw=draw))

    usual, first, second = map(opened_simulation, (None, 1, 2))
    for drawn in (first, second):
        assert shots_of(drawn) != shots_of(usual)
        assert drawn.test.digests() == usual.test.digests()
        assert not {*drawn.test.digests()} & {each for shots in shots_of(drawn).values() for each in shots}
        assert {len(shots) for shots in shots_of(drawn).values()} == {info.shots}
    assert shots_of(first) != shots_of(second)
