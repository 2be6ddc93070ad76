"""Base classes that play new ones, against a loop over parts, draws, images and classes."""

import json
import math
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from PIL import Image

import m2sd_cli
from m2sd_cli.cli.simulate import as_lines
from m2sd_cli.method.base_statistics import HeldOut
from m2sd_cli.reports import rehearsal as rehearsing
from m2sd_cli.reports.draws import DrawFigures, LabelledFeatures, Simulation, draw_shots
from m2sd_cli.reports.rehearsal import Rehearsal, choose_for_classes, rehearse, sample_images, why_not
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord
from m2sd_cli.tables import CLASSIFIERS
from tests.helpers import Cli

RECORD = BackboneRecord(name="resnet20", width=8, similarity="cosine", scale=16.0)


def images(sizes: list[int], seed: int = 0, noise: float = 2.0) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centres = 3 * torch.rand(len(sizes), 8, generator=generator)
    return LabelledFeatures(centres[labels] + noise * torch.rand(len(labels), 8, generator=generator), labels)


def cosine(one: list[float], other: list[float]) -> float:
    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_each_class_plays_a_new_one_once() -> None:
    """Class means by the cosine, image by image in float64; the seventh class has too few images to play."""
    sizes = [10, 6, 7, 15, 12, 9, 3]
    known = images(sizes)
    found = rehearse(known, 7, RECORD, ["means"], draws=2)
    features: list[list[float]] = known.features.double().tolist()
    ranks, playing = rehearsing._ranks(known.labels).tolist(), rehearsing._playing(known.labels, 7).tolist()
    assert sorted(playing) == [0, 1, 2, 3, 4, 5]
    for label, size in enumerate(sizes):
        assert sorted(r for r, of in zip(ranks, known.labels.tolist(), strict=True) if of == label) == [*range(size)]
    assert found.new == [2, 2, 2]
    for part in range(3):
        new = playing[part::3]
        old = [label for label in range(7) if label not in new]
        tested: dict[int, list[int]] = {label: [] for label in range(7)}
        learned: dict[int, list[int]] = {label: [] for label in range(7)}
        for place, label in enumerate(known.labels.tolist()):
            tests = max(1, round(0.2 * sizes[label]))
            is_test = label in playing and part * tests <= ranks[place] < (part + 1) * tests
            (tested if is_test else learned)[label].append(place)
        places = [place for place, of in enumerate(known.labels.tolist()) if of in new and place in learned[of]]
        pool = torch.tensor([new.index(int(known.labels[place])) for place in places])
        for draw in range(2):
            shots = draw_shots(pool, len(new), 5, draw)
            rows = {label: mean([features[place] for place in learned[label]]) for label in old}
            rows |= {
                label: mean([features[places[place]] for place in chosen.tolist()])
                for label, chosen in zip(new, shots, strict=True)
            }
            right = {
                label: fmean(
                    max(rows, key=lambda other: cosine(features[place], rows[other])) == label for place in of_class
                )
                for label, of_class in tested.items()
                if of_class
            }
            figures = found.figures["means"][part][draw]
            base = 100 * fmean(right[label] for label in old if label in right)
            novel = 100 * fmean(right[label] for label in new)
            assert figures.base == pytest.approx(base)
            assert figures.novel == pytest.approx(novel)
            count = sum(len(each) for each in tested.values())
            hits = sum(right[label] * len(of_class) for label, of_class in tested.items() if of_class)
            assert figures.last == pytest.approx(100 * hits / count)


def figures(*harmonic: float) -> list[list[DrawFigures]]:
    return [[DrawFigures(0, 0, 0, 0, each)] for each in harmonic]


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ({}, "usual"),
        ({"one": (51, 61, 71)}, "one"),
        ({"one": (51, 61, 71), "two": (60, 61, 71)}, "two"),
        ({"one": (90, 90, 70)}, "usual"),  # the default is as good in one part
        ({"one": (90, 90, 60), "two": (51, 61, 71)}, "two"),
    ],
)
def test_another_one_has_to_beat_the_default_in_every_part(others: dict[str, Any], best: str) -> None:
    found = Rehearsal([2, 2, 2], {name: figures(*each) for name, each in {"usual": (50, 60, 70), **others}.items()})
    assert found.best("usual") == best


def test_the_record_has_the_means_and_says_why_there_are_none() -> None:
    known = images([12] * 6)
    record, name = choose_for_classes(known, 6, RECORD, "centred")
    candidates = [each for each in CLASSIFIERS.entries if CLASSIFIERS[each].candidate]
    assert [*record.figures] == candidates
    assert name in candidates
    found = rehearse(known, 6, RECORD, ["means"]).draws()["means"]
    assert record.figures["means"].novel == pytest.approx(fmean(each.novel for each in found))
    assert (record.parts, record.draws, record.shots, record.reason) == (3, 10, 5, None)
    linear = RECORD.model_copy(update={"similarity": "linear"})
    assert "teen" not in choose_for_classes(known, 6, linear, "centred")[0].figures
    few, name = choose_for_classes(images([12] * 5 + [5]), 6, RECORD, "centred")
    assert name == "centred"
    assert few.figures == {}
    assert few.reason == "it takes 6 classes of 6 photos or more to learn from; 5 are here"


def test_many_images_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(7).repeat_interleave(torch.tensor([40, 3, 20, 20, 20, 20, 20]))
    assert sample_images(labels, 7).all()
    monkeypatch.setattr(rehearsing, "MOST_IMAGES", 70)
    chosen = labels[sample_images(labels, 7)]
    assert chosen.bincount().tolist() == [10, 3, 10, 10, 10, 10, 10]
    monkeypatch.setattr(rehearsing, "MOST_IMAGES", 7)
    chosen = labels[sample_images(labels, 7)]
    assert chosen.bincount().tolist() == [6, 3, 6, 6, 6, 6, 6]
    assert why_not(chosen, 7) is None


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of each of six shades."""
    folder = tmp_path_factory.mktemp("six") / "shades"
    for kind in range(6):
        (folder / f"shade{kind}").mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (16, 16), (40 * kind, 255 - 40 * kind, 20 * kind))
            image.putpixel((kind, number), (255, 255, 255))
            image.save(folder / f"shade{kind}" / f"{number}.png")
    return folder


@pytest.mark.usefixtures("small_backbone")
def test_learn_chooses_and_simulate_shows_the_same(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    run = tmp_path / "run"
    done = m2sd("learn", six, "--run", run, "--backbone", "small", "--device", "cpu")
    assert done.code == 0, done.err
    [told] = [line for line in done.out.splitlines() if line.startswith("classifier: ")]
    manifest = RunFolder(run).session(0).manifest
    assert manifest.choice is not None
    assert told.startswith(f"classifier: {manifest.classifier}; ")
    assert "accuracy to expect with new classes of 5 photos: about " in done.out
    shown = m2sd("simulate", "--run", run, "--data", six, "--draws", 10, "--json")
    content = json.loads(shown.out)
    assert (shown.err, content["parts"], content["playing"], content["sizes"]) == ("", 3, [2, 2, 2], [4, 6])
    by_name = {each["classifier"]: each for each in content["classifiers"]}
    assert [*by_name] == [*CLASSIFIERS.entries]
    for name, each in manifest.choice.figures.items():
        assert by_name[name]["novel"]["mean"] == pytest.approx(each.novel)
        assert len(by_name[name]["draws"]) == 30
    shown = m2sd("simulate", "--run", run, "--draws", 1)  # the run remembers its folder
    assert shown.out.startswith(
        "shades: 6 base classes, 2 at a time play new ones in 3 parts, 5 shots, views 1, draws 1 in"
    )
    assert shown.out.partition("\n")[0].endswith(" in each part")
    unequal = Simulation("shades", [6, 10], 5, 1, {"means": [DrawFigures(50.0, 50.0, 50.0, 50.0, 50.0)]}, (), [4, 3, 3])
    assert as_lines(unequal, 1)[0].startswith("shades: 10 base classes, 3 or 4 at a time play new ones in 3 parts")


@pytest.mark.usefixtures("small_backbone")
def test_other_images_than_those_learned_are_refused(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    folder = shutil.copytree(six, tmp_path / "shades")
    m2sd_cli.learn(folder, run=tmp_path / "run", backbone="small", device="cpu")
    shutil.rmtree(folder / "shade0")
    done = m2sd("simulate", "--run", tmp_path / "run")
    assert (done.code, done.out) == (4, "")
    assert "'shade0' is missing" in done.err


@pytest.mark.usefixtures("small_backbone")
def test_a_given_classifier_is_not_compared(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    done = m2sd("learn", six, "--run", tmp_path / "run", "--backbone", "small", "--classifier", "means", "--json")
    content = json.loads(done.out)
    assert (content["classifier"], content["choice"]) == ("means", None)


def test_a_trained_network_knows_its_new_classes(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    options: dict[str, Any] = {"image_size": 16, "backbone": "resnet20", "batch_size": 16, "device": "cpu"}
    m2sd_cli.pretrain(six, run=tmp_path / "run", epochs=1, **options)
    m2sd_cli.distill(six, run=tmp_path / "run", epochs=0, device="cpu")
    assert RunFolder(tmp_path / "run").session(0).manifest.choice is None
    shown = m2sd("simulate", "--run", tmp_path / "run", "--data", six, "--draws", 1, "--classifier", "means")
    assert shown.code == 0
    told, hint = shown.err.splitlines()
    assert told == "the network was trained on these classes: as new ones they look easier than others will be"
    assert hint.startswith("to teach new classes with one of them, ")


def test_held_out_images_of_classes_that_play_are_left_out() -> None:
    known = images([8] * 6)
    part = rehearsing.Part.of(known.labels, 6, 0)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 5, 0])
    held = HeldOut(torch.arange(8.0)[:, None].expand(8, 8), labels)
    kept = part.base(known.features, held, 0.5).held_out
    assert kept is not None
    old = part.old.tolist()
    wanted = [(place, old.index(label)) for place, label in enumerate(labels.tolist()) if label in old]
    assert [int(each) for each in kept.features[:, 0]] == [place for place, _ in wanted]
    assert kept.labels.tolist() == [label for _, label in wanted]
    playing = HeldOut(held.features[:1], part.new[:1])
    assert part.base(known.features, playing, 0.5).held_out is None
    assert part.base(known.features).held_out is None
