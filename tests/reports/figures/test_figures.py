"""Every figure: the numbers that it shows, well-formed whatever the names, and readable in both schemes."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from m2sd_cli.api.draw_figures import histories_of
from m2sd_cli.config.stages import STAGES
from m2sd_cli.distributed.process_group import SINGLE_PROCESS
from m2sd_cli.method.calibration import Confidence
from m2sd_cli.reports.answers import class_sessions, gather_answers, session_answers
from m2sd_cli.reports.calibration import chain_calibration
from m2sd_cli.reports.evaluation import Embedded, Evaluation
from m2sd_cli.reports.figures.accuracy import draw_accuracy, draw_last_session
from m2sd_cli.reports.figures.confusion_map import (
    LEVELS,
    LONGEST_NAME,
    MOST_CELLS,
    MOST_NAMES,
    confusion_shares,
    draw_confusion,
)
from m2sd_cli.reports.figures.feature_map import principal_plane
from m2sd_cli.reports.figures.known_scores import draw_known_scores
from m2sd_cli.reports.figures.reliability import draw_reliability
from m2sd_cli.reports.figures.svg import CSS, HEIGHT, WIDTH, LeftOutError, Plot, round_steps, standalone, svg, words
from m2sd_cli.reports.figures.table import FIGURES, History, Material, draw_all
from m2sd_cli.reports.figures.training_curves import draw_training
from m2sd_cli.reports.metrics import chain_figures
from m2sd_cli.reports.published import Method, Published, Row
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import EpochRecord
from m2sd_cli.runs.training_log import TrainingLog
from tests.hostile.test_images import NAMES

SIZES = [4, 6, 7]
EPOCHS = [
    EpochRecord(epoch=n, loss=3.0 / n, terms={"ce": 2.0 / n, "attention": 0.01 / n}, accuracy=0.5, learning_rate=0.1)
    for n in (1, 2, 3)
]


def material(sizes: Sequence[int] = SIZES, images: int = 60, **changes: object) -> Material:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, sizes[-1], (images,), generator=generator)
    logits = 3 * torch.randn(images, sizes[-1], generator=generator)
    confidence = Confidence(temperature=1.5, unknown_below=0.2)
    answers = gather_answers([session_answers(logits, labels, sizes, confidence, logits)], SINGLE_PROCESS)
    known = labels >= 0
    evaluation = Evaluation(
        figures=chain_figures(labels[known], answers.lost[known], sizes),
        calibration=chain_calibration(answers, sizes),
        confidence=confidence,
        classifier="means",
        answers=answers,
        sizes=list(sizes),
        classes=[f"class {number}" for number in range(sizes[-1])],
        taught=class_sessions(sizes)[:-1].tolist(),
        untested=[],
        unknown=[],
        embedded=Embedded(torch.randn(images, 5, generator=generator), torch.randn(sizes[-1], 5, generator=generator)),
    )
    assert evaluation.embedded is not None
    features, means = evaluation.embedded
    row = Row("cifar100", "ResNet-20", "the paper", Decimal("70.1"), Decimal("50.2"), Decimal("60.3"))
    other = replace(row, sessions=[Decimal("71"), Decimal("61"), Decimal("51")])
    published = [Published(Method("a", 2020, "b", "unknown", [each]), each) for each in (row, other)]
    made = Material(evaluation, features, means, published, {1: History(EPOCHS, {2: 0.4}), 2: History(EPOCHS)})
    return replace(made, **changes)  # type: ignore[arg-type]


def parse(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(standalone(figure))


def elements(figure: str, kind: str) -> list[dict[str, str]]:
    return [each.attrib for each in parse(figure).iter() if kind in each.get("class", "").split()]


@pytest.mark.parametrize(
    ("sizes", "labels", "session"),
    [
        ([4, 6, 7], [0, 5, 6], 1),
        ([4, 6, 6], [0, 5, 5], 0),  # the last session renames
        ([4, 6, 7], [0, 1, 2], 2),  # none is unknown to any session
        ([4, 6, 7], [0, 1, -1], 2),
        ([3], [0, 1, 2], 0),
    ],
)
def test_scores_are_those_of_the_last_session_that_has_unknown_images(
    sizes: list[int], labels: list[int], session: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int, int]] = []

    def draw(known: torch.Tensor, unknown: torch.Tensor, _confidence: Confidence, number: int) -> str:
        drawn.append((len(known), len(unknown), number))
        return "<svg/>"

    monkeypatch.setattr("m2sd_cli.reports.figures.table.draw_known_scores", draw)
    made = material(sizes, len(labels))
    answers = made.evaluation.answers._replace(labels=torch.tensor(labels))
    FIGURES["known-scores"].draw(replace(made, evaluation=replace(made.evaluation, answers=answers)))
    unknown = sum(label < 0 or label >= sizes[session] for label in labels)
    assert drawn == [(len(labels) - unknown, unknown, session)]


@pytest.mark.parametrize("sizes", [SIZES, [3], [1], [2, 3]], ids=str)
@pytest.mark.parametrize("images", [2, 60])
def test_every_figure_is_drawn_inside_its_frame(sizes: list[int], images: int) -> None:
    drawn = dict(draw_all(material(sizes, images)))
    assert drawn.keys() == FIGURES.keys()
    for name, figure in drawn.items():
        if isinstance(figure, LeftOutError):  # too few images or sessions
            assert images == 2 or (name == "accuracy" and len(sizes) == 1), (name, figure)
            continue
        root = parse(figure)
        assert len(list(root.iter())) > 6, name
        height = float(root.attrib["viewBox"].split()[3])
        for each in root.iter():
            for attribute, most in (("x", WIDTH), ("cx", WIDTH), ("y", height), ("cy", height)):
                assert -12 <= float(each.get(attribute, 0)) <= most, (name, each.attrib)
        assert "nan" not in figure
        assert "inf" not in figure


def test_a_reason_comes_instead_of_what_the_run_cannot_tell() -> None:
    made = material(history={1: History(EPOCHS), 2: History([])})
    made = replace(made, evaluation=replace(made.evaluation, confidence=Confidence()))
    drawn = dict(draw_all(made))
    assert {name for name, each in drawn.items() if isinstance(each, LeftOutError)} == {"known-scores", "stage-2"}


def test_bars_are_as_high_as_their_figures() -> None:
    figures = material().evaluation.figures
    last = figures.sessions[-1]
    drawn = draw_last_session(figures)
    heights = [float(each["height"]) for kind in ("bar0", "bar1", "bar2", "bar3") for each in elements(drawn, kind)]
    values = [last.overall, last.base, last.novel, last.harmonic]
    assert heights == pytest.approx([(HEIGHT - 40 - 12) * (value or 0) / 100 for value in values], abs=0.01)


def test_a_bar_has_the_colour_of_its_curve() -> None:
    css = CSS.read_text(encoding="utf-8")
    for place in range(4):
        assert f".l{place} {{ stroke: var(--c{place});" in css
        assert f".bar{place} {{ fill: var(--fill{place}); stroke: var(--c{place});" in css


def test_hundreds_of_sessions_leave_the_cells_to_be_seen() -> None:
    labels = torch.arange(300)
    drawn = draw_confusion(labels, labels, list(range(300)), [str(each) for each in range(300)])
    assert len(elements(drawn, "frame")) == 3  # the border, and base from novel


def test_one_session_has_no_curve() -> None:
    figures = material().evaluation.figures
    with pytest.raises(LeftOutError, match="no session was taught after session 0"):
        draw_accuracy([replace(figures, sessions=figures.sessions[:1])])


def test_no_accuracy_is_above_100() -> None:
    figures = material().evaluation.figures
    perfect = [
        replace(each, overall=100.0, base=100.0, novel=None if each.novel is None else 100.0, harmonic=None)
        for each in figures.sessions
    ]
    ticks = re.findall(r">(\d+)</text>", draw_accuracy([replace(figures, sessions=perfect)]))
    assert max(map(int, ticks)) == 100


def test_rows_of_few_classes_have_names_that_are_cut_and_escaped() -> None:
    labels = torch.arange(MOST_NAMES + 1)
    names = [f"<b>{number} {'x' * 40}" for number in range(MOST_NAMES + 1)]
    few = draw_confusion(labels[:-1], labels[:-1], [0] * MOST_NAMES, names[:-1])
    written = [text for text in re.findall(r">([^<]*)</text>", few) if "&lt;b&gt;" in text]
    assert len(written) == MOST_NAMES
    assert written[0] == f"&lt;b&gt;0 {'x' * (LONGEST_NAME - 6)}\N{HORIZONTAL ELLIPSIS}"
    assert "&lt;b&gt;" not in draw_confusion(labels, labels, [0] * len(labels), names)


def test_published_methods_of_other_sessions_are_not_drawn() -> None:
    made = material()
    both = draw_accuracy([made.evaluation.figures], made.published)
    assert (len(elements(both, "thin")), len(elements(both, "dotted"))) == (2, 1)  # the legend has a thin one, too
    longer = replace(made.published[1].row, sessions=[Decimal(1)] * 9)
    alone = draw_accuracy([made.evaluation.figures], [Published(made.published[1].method, longer)])
    assert (len(elements(alone, "thin")), len(elements(alone, "dotted"))) == (0, 0)


@pytest.mark.parametrize("classes", [1, 7, MOST_CELLS + 3])
def test_shares_are_as_a_loop_says(classes: int) -> None:
    generator = torch.Generator().manual_seed(1)
    labels, predicted = (torch.randint(0, classes, (50,), generator=generator) for _ in range(2))
    shared = 1 if classes <= MOST_CELLS else 2
    side = -(-classes // shared)
    rows = [[0.0] * side for _ in range(side)]
    for label, answer in zip(labels.tolist(), predicted.tolist(), strict=True):
        rows[label // shared][answer // shared] += 1
    expected = [[cell / max(sum(row), 1) for cell in row] for row in rows]
    torch.testing.assert_close(
        confusion_shares(labels, predicted, classes), torch.tensor(expected, dtype=torch.float64)
    )


def test_every_cell_with_an_image_is_drawn_once() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 0])
    figure = draw_confusion(labels, predicted, [0, 0, 1], ["a", "b", "c"])
    paths = [each["d"] for each in elements(figure, "heat") if "d" in each]
    cells = re.findall(r"M(\d+) (\d+)h1v1h-1z", "".join(paths))
    assert sorted((int(row), int(column)) for column, row in cells) == [(0, 0), (0, 1), (1, 1), (2, 0)]
    assert len(elements(figure, "heat")) == len(paths) + LEVELS


def test_the_plane_is_that_of_the_largest_variances() -> None:
    generator = torch.Generator().manual_seed(2)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    features = torch.randn(400, 6, generator=generator).double() * torch.tensor([1.0, 9, 2, 0.5, 4, 1]) @ turn.T + 3
    centre, axes, share = principal_plane(features)
    plain = sum(features[n] for n in range(400)) / 400
    torch.testing.assert_close(centre, plain)
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    total = float((features - plain).square().sum())
    for number, column in enumerate((1, 4)):
        assert abs(float(axes[:, number] @ turn[:, column])) > 0.98
        along = sum(float((features[n] - plain) @ axes[:, number]) ** 2 for n in range(400))
        assert float(share[number]) == pytest.approx(along / total)
    assert torch.equal(principal_plane(features)[1], axes)


def test_reliability_has_a_bar_for_each_bin_with_images() -> None:
    probability = torch.tensor([0.05, 0.5, 0.5, 1.0], dtype=torch.float64)
    figure = draw_reliability(probability, torch.tensor([False, True, False, True]))
    plot = HEIGHT - 106 - 12
    heights = sorted(float(each["height"]) for each in elements(figure, "bar0"))
    assert heights == pytest.approx([0, 10, 0.5 * plot, plot], abs=0.01)  # 10: the sample in the legend
    with pytest.raises(LeftOutError):
        draw_reliability(probability[:0], torch.tensor([], dtype=torch.bool))


def test_the_score_counts_images_and_marks_the_threshold() -> None:
    confidence = Confidence(1.0, 2.0)
    figure = draw_known_scores(torch.tensor([1.0, 3.0, 3.0, 4.0]), torch.tensor([1.0, 1.0]), confidence, 0)
    assert "unknown below 2.00" in figure
    assert "75.0 % of 4 images of known classes pass, and 0.0 % of 2 others" in figure
    (line,) = elements(figure, "threshold")
    assert line["d"].startswith("M")
    alone = draw_known_scores(torch.tensor([3.0]), torch.tensor([]), confidence, 0)
    assert not elements(alone, "outline")
    for known, fitted in ((torch.tensor([3.0]), Confidence()), (torch.tensor([]), confidence)):
        with pytest.raises(LeftOutError):
            draw_known_scores(known, torch.tensor([]), fitted, 0)


@pytest.mark.parametrize("losses", [[1.0], [0.0, 0.0], [1e-9, 5.0, 0.0], [2.0, None, 1.9]], ids=str)
def test_curves_of_any_losses(losses: list[float | None]) -> None:
    figure = draw_training("Stage 1", {"loss": losses}, {"a": [None] * len(losses)}, {"rate": [0.0] * len(losses)})
    assert len(elements(figure, "line")) == 4  # two curves, and two samples
    with pytest.raises(LeftOutError):
        draw_training("Stage 1", {}, {"a": []}, {})


def test_a_curve_below_zero_keeps_all_epochs() -> None:
    figure = draw_training("Stage 1", {"loss": [4.0, 0.3, -0.2], "closeness": [0.9, 0.1, 0.05]}, {}, {})
    curves = [each["d"] for each in elements(figure, "line") if "d" in each]
    assert sorted(each.count("L") for each in curves if each.count("L") > 1) == [2, 2]


@pytest.mark.parametrize(("low", "high"), [(0, 100), (3.2, 3.3), (5, 5), (0, 0), (-2, 7), (1e-5, 3e-5), (99.9, 1e6)])
def test_round_numbers_enclose_the_range(low: float, high: float) -> None:
    steps = round_steps(low, high)
    assert steps[0] <= low + 1e-9
    assert steps[-1] >= high - 1e-9
    assert 2 <= len(steps) <= 9
    step = steps[1] - steps[0]
    assert f"{step:.0e}"[0] in "125"
    place = Plot(x=steps, y=steps)
    assert place.at(steps[0], steps[-1]) == (place.left, place.top)
    assert place.at(steps[-1], steps[0]) == (place.right, place.bottom)


@pytest.mark.parametrize("name", [*NAMES, "</svg><script>alert(1)</script>", "a\x00b", "&amp;", "\ud800"])
def test_no_name_breaks_out_of_a_figure(name: str) -> None:
    figure = svg(name, name, f"<text>{words(name)}</text>")
    root = parse(figure)
    assert [each.tag.rpartition("}")[2] for each in root] == ["style", "rect", "title", "desc", "text"]
    assert root[2].text == root[4].text


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def schemes() -> list[dict[str, str]]:
    light, _, rest = CSS.read_text(encoding="utf-8").partition("/* dark */")
    dark = rest.partition("/* rules */")[0]
    return [dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})", each)) for each in (light, dark)]


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_text_and_lines_can_be_read(scheme: dict[str, str]) -> None:
    """WCAG 2: AA asks for 4.5 of text, and 3 of what graphics consist of."""
    for name in ("ink", "soft"):
        assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
    for name in ("c0", "c1", "c2", "c3", "c4", "heat", "pale"):
        assert contrast(scheme[name], scheme["paper"]) >= 3, name
    fills = sorted(luminance(scheme[f"fill{number}"]) for number in range(3))
    assert min(high / low for low, high in pairwise(fills)) > 1.15  # told apart in grey


def test_both_schemes_have_the_same_colours_and_the_rules_use_no_other() -> None:
    light, dark = schemes()
    assert light.keys() == dark.keys()
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", CSS.read_text(encoding="utf-8"))) <= light.keys()
    assert "var(" not in standalone(svg("a", "b"))


def test_features_of_no_variance_make_a_figure() -> None:
    made = material(features=torch.ones(60, 5), means=torch.ones(7, 5))
    drawn = dict(draw_all(made))["features"]
    assert isinstance(drawn, str)
    assert "nan" not in drawn


def shades(figure: str) -> Tensor:
    return torch.tensor([float(each["fill-opacity"]) for each in elements(figure, "heat")])


def test_the_shade_grows_with_the_share() -> None:
    labels = torch.arange(4).repeat_interleave(10)
    predicted = torch.cat([torch.full((10 - 3 * number,), number) for number in range(4)] + [torch.zeros(18).long()])
    drawn = shades(draw_confusion(labels, predicted, [0] * 4, list("abcd")))
    assert bool((drawn[: len(drawn) - LEVELS].diff() > 0).all())


def test_held_out_accuracies_are_those_of_the_same_training(calibrated: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(calibrated, tmp_path / "run")))
    first, base = run.pretrain().manifest, run.session(0).manifest
    before = histories_of(run, first, base)[1].held_out
    assert set(before) <= {each.epoch for each in first.history}
    log = TrainingLog(run.path, STAGES)
    log.keep("pretrain", 0)
    last = first.history[-1]
    line = {"stage": "pretrain", "epoch": last.epoch, "loss": last.loss, "held_out_accuracy": 0.25}
    log.append(line)
    assert histories_of(run, first, base)[1].held_out == {last.epoch: 0.25}
    log.keep("pretrain", 0)
    log.append({**line, "loss": last.loss + 1})  # of a training that has begun over it
    assert histories_of(run, first, base)[1].held_out == {}
