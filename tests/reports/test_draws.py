"""Classifiers compared over draws of the shots, against a loop over draws, images and classes."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import m2sd_cli
from m2sd_cli.data.locate import open_data, open_shot_pool
from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.registry import OTHERS
from m2sd_cli.reports.deviation import MeanAndDeviation
from m2sd_cli.reports.draws import DrawFigures, LabelledFeatures, compare_classifiers, draw_shots
from m2sd_cli.runs.chain import NO_FOLDER
from m2sd_cli.runs.manifest import BackboneRecord
from m2sd_cli.tables import CLASSIFIERS
from tests.helpers import Cli, Stripes, tree

RECORD = BackboneRecord(name="resnet20", width=5, similarity="cosine", scale=16.0)
SIZES = [3, 5, 6]


def labelled(each: int, classes: range, seed: int) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(list(classes)).repeat(each)
    features = 3 * torch.eye(8)[labels, :5] + torch.rand(len(labels), 5, generator=generator)
    return LabelledFeatures(features, labels)


def cosine(one: list[float], other: list[float]) -> float:
    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def by_hand(base: Tensor, tested: LabelledFeatures, pool: LabelledFeatures, shots: int, draw: int) -> DrawFigures:
    """Class means by the cosine, image by image in float64."""
    rows: list[list[float]] = base.double().tolist()
    for places in draw_shots(pool.labels, SIZES[-1] - SIZES[0], shots, draw):
        chosen = pool.features[places].double().tolist()
        rows.append([sum(column) / len(chosen) for column in zip(*chosen, strict=True)])
    overall = []
    for size in SIZES:
        right = {label: [0, 0] for label in range(size)}
        for feature, label in zip(tested.features.double().tolist(), tested.labels.tolist(), strict=True):
            if label < size:
                scores = [cosine(feature, row) for row in rows[:size]]
                right[label][0] += scores.index(max(scores)) == label
                right[label][1] += 1
        overall.append(100 * sum(hit for hit, _ in right.values()) / sum(images for _, images in right.values()))
    shares = [100 * hit / images for hit, images in right.values()]
    old = sum(shares[: SIZES[0]]) / SIZES[0]
    new = sum(shares[SIZES[0] :]) / (SIZES[-1] - SIZES[0])
    return DrawFigures(sum(overall) / len(overall), overall[-1], old, new, 2 * old * new / (old + new))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_every_draw_is_taught_and_counted(draws: int, shots: int, seed: int) -> None:
    tested, pool = labelled(4, range(6), seed), labelled(5, range(3, 6), seed + 1)
    pool = LabelledFeatures(pool.features, pool.labels - 3)
    rows = 3 * torch.eye(3, 5) + torch.rand(3, 5, generator=torch.Generator().manual_seed(seed + 2))
    sums = BaseSums(torch.ones(3), 5)
    sums.add(rows, torch.arange(3))
    base = KnownClasses(rows, rows[:0], [], sums.statistics(), [1, 1, 1])
    found = compare_classifiers(base, RECORD, tested, pool, SIZES, ["means", "teen"], draws, shots)
    assert list(found) == ["means", "teen"]
    assert len(found["means"]) == len(found["teen"]) == draws
    for draw, own in enumerate(found["means"]):
        wanted = by_hand(rows, tested, pool, shots, draw)
        for name in ("average", "last", "base", "novel", "harmonic"):
            assert getattr(own, name) == pytest.approx(getattr(wanted, name), abs=1e-6)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 12), st.integers(0, 9))
def test_shots_are_different_images_of_their_class(sizes: list[int], shots: int, draw: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    found = draw_shots(labels, len(sizes), shots, draw)
    for label, (size, places) in enumerate(zip(sizes, found, strict=True)):
        assert len(places) == len(set(places.tolist())) == min(size, shots)
        assert (labels[places] == label).all()
    assert all(map(torch.equal, found, draw_shots(labels, len(sizes), shots, draw)))


def test_draws_differ() -> None:
    labels = torch.zeros(50, dtype=torch.int64)
    assert len({tuple(draw_shots(labels, 1, 5, draw)[0].tolist()) for draw in range(20)}) == 20


def test_shots_are_drawn_of_what_no_test_and_no_base_class_has() -> None:
    info = m2sd_cli.data.catalogue.all_infos()["demo-simulated"]
    data, (shots, place) = open_data("demo-simulated"), open_shot_pool(info)
    pool = shots.source
    assert (shots.classes, place) == (data.classes[4:], data.location)
    assert pool.labels.bincount().tolist() == [270, 270]
    assert not set(pool.sort_keys()) & {*data.test.sort_keys(), *data.train.sort_keys()}
    assert set(data.session(1).source.sort_keys()) <= set(pool.sort_keys())


def test_all_classifiers_are_compared_and_nothing_is_written(m2sd: Cli, simulated: Path) -> None:
    before = tree(simulated)
    done = m2sd("simulate", "--run", simulated, "--draws", 3, "--device", "cpu")
    assert (done.code, done.err) == (0, f"next: m2sd increment --run {simulated} --session 1\n")
    first, blank, heading, *lines = done.out.splitlines()
    assert first == "demo-simulated: 4 base classes, 1 session of 2 classes x 5 shots, views 1, draws 3"
    assert not blank
    assert heading.split() == ["classifier", "AVG", "last", "base", "novel", "HM"]
    assert [line.split()[0] for line in lines] == [*CLASSIFIERS.entries]
    assert tree(simulated) == before
    again = m2sd(
        "simulate", "--run", simulated, "--draws", 3, "--device", "cpu", "--json", *(2 * ["--classifier", "teen"])
    )
    content = json.loads(again.out)
    (teen,) = content["classifiers"]
    assert (content["sizes"], content["shots"], len(teen["draws"])) == ([4, 6], 5, 3)
    assert content["skipped"] == []
    mean = MeanAndDeviation.of([each["novel"] for each in teen["draws"]])
    assert teen["novel"] == {"mean": mean.mean, "deviation": mean.deviation}
    [shown] = [line.split() for line in lines if line.startswith("teen ")]
    assert shown[1:4] == [f"{teen['average']['mean']:.2f}", "+-", f"{teen['average']['deviation']:.2f}"]


def test_the_official_shots_come_to_what_evaluate_says(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same shots taught by increment have the same figures."""
    run = tmp_path / "run"
    shutil.copytree(simulated, run)
    official = set(open_data("demo-simulated").session(1).source.sort_keys())
    keys = open_shot_pool(m2sd_cli.data.catalogue.all_infos()["demo-simulated"])[0].source.sort_keys()
    monkeypatch.setattr(
        "m2sd_cli.reports.draws.draw_shots",
        lambda pool, classes, shots, draw: [
            torch.tensor([index for index, key in enumerate(keys) if key in official and pool[index] == label])
            for label in range(classes)
        ],
    )
    found = m2sd_cli.simulate(run=run, draws=1, classifiers=["fecam"], device="cpu").figures["fecam"][0]
    m2sd_cli.increment(1, run=run, device="cpu")
    figures = m2sd_cli.evaluate(run=run, device="cpu", classifier="fecam").figures
    assert found.average == pytest.approx(figures.average)
    assert found.novel == pytest.approx(figures.sessions[-1].novel)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--draws", 0], 2, "--draws 0: at least 1"),
        (["--classifier", "best"], 2, f"--classifier best: choose {', '.join(CLASSIFIERS.entries)}; {OTHERS}"),
        (["--run", "nowhere"], 4, f"nowhere: {NO_FOLDER}"),
    ],
)
def test_usage_errors_are_one_line(m2sd: Cli, simulated: Path, words: list[object], code: int, says: str) -> None:
    done = m2sd("simulate", *([] if "--run" in words else ["--run", simulated]), *words)
    assert (done.code, done.out, done.err) == (code, "", f"m2sd: {says}\n")


def test_a_run_on_a_whole_data_set_is_not_to_choose_by(m2sd: Cli, simulated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain("demo", run=run, epochs=1, batch_size=512, images_per_class=4, device="cpu")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    done = m2sd("simulate", "--run", run)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "m2sd: this run is of demo; to choose without its test images, pretrain on a data set of base training images "
        "alone, --data demo-simulated\n"
    )


def test_a_folder_of_few_classes_is_refused(m2sd: Cli, trained: Path, stripes: Stripes) -> None:
    done = m2sd("simulate", "--run", trained, "--data", stripes.folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == ("m2sd: colours: it takes 6 classes of 6 photos or more to learn from; 4 are here\n")
