"""Published figures are consistent, and shown beside a run only where it can be compared."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from m2sd_cli.cli.comparison import OwnRow, comparison_lines, explain_comparison
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import UsageError
from m2sd_cli.reports.latex import latex_table
from m2sd_cli.reports.markdown import markdown_table
from m2sd_cli.reports.method_rows import published_rows, run_row
from m2sd_cli.reports.metrics import Figures, SessionFigures
from m2sd_cli.reports.published import compare_with_published, explain_marks, joined, published_methods
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import DataRecord, Manifest, ProtocolRecord
from m2sd_cli.tables import BACKBONES
from tests.helpers import Cli, Stripes, check_refusal

CPU = ["--device", "cpu"]


def official(manifest: Manifest, data: str, backbone: str, sessions: int) -> list[Manifest]:
    """Manifests as those of a run on a built-in data set are, as far as a comparison looks at them."""
    record = DataRecord(name=data, kind="built-in", split="official")
    named = manifest.backbone.model_copy(update={"name": backbone})
    base = manifest.model_copy(update={"data": record, "backbone": named})
    return [base, *[base.model_copy(update={"kind": "increment"})] * (sessions - 1)]


@pytest.fixture
def manifest(trained: Path) -> Manifest:
    return RunFolder(trained).chain()[0].manifest


def figures(sessions: int) -> Figures:
    rows = [SessionFigures(b, 60 + 5 * b, 100, 70.0 - b, 70.0, 30.125 if b else None, 42.0) for b in range(sessions)]
    return Figures(rows, average=66.0, drop=8.0, average_harmonic=None)


def texts(value: object) -> list[str]:
    return [each for each in vars(value).values() if isinstance(each, str)]


def test_the_file_is_consistent() -> None:
    methods = published_methods()
    for method in methods:
        assert {type(method.name), type(method.paper), type(method.year)} == {str, int}
        assert method.epoch_chosen_on_test in (True, False, "unknown")
        # A choice of the epoch has a witness.
        assert (method.epoch_chosen_on_test == "unknown") == (method.epoch_seen_in is None)
        for row in method.rows:
            assert row.data in DATA_SETS
            assert all([*texts(method), *texts(row)])
            figures = [row.base, row.last, row.average, row.novel, row.harmonic, *(row.sessions or [])]
            assert all(isinstance(each, Decimal) and 0 <= each <= 100 for each in figures if each is not None)
            in_order = [each for each in (row.last, row.average, row.base) if each is not None]
            assert in_order == sorted(set(in_order))
            assert any((in_order, row.harmonic))
            if row.sessions is not None:
                assert row.average is not None
                assert len(row.sessions) == 1 + len(DATA_SETS[row.data].split)
                assert (row.sessions[0], row.sessions[-1]) == (row.base, row.last)
                assert abs(sum(row.sessions, Decimal()) / len(row.sessions) - row.average) <= Decimal("0.01")
    rows = [row for method in methods for row in method.rows]
    keys = [(method.name, row.data, row.backbone) for method in methods for row in method.rows]
    assert len(set(keys)) == len(keys)
    assert {row.data for row in rows} == {"cifar100", "cub200", "miniimagenet"}
    labels = {entry.label for entry in BACKBONES.entries.values()}
    assert labels & {row.backbone for row in rows} == {"ResNet-12", "ResNet-18", "ResNet-20"}


def test_figures_keep_the_digits_of_their_source() -> None:
    rows = {(method.name, row.data): row for method in published_methods() for row in method.rows}
    assert str(rows["FACT", "cifar100"].base) == "74.60"
    assert str(rows["ALICE", "cifar100"].base) == "79.0"
    assert rows["CEC", "cifar100"].drop == Decimal("23.93")


def test_figures_that_no_source_gives_are_shown_as_such(manifest: Manifest) -> None:
    found = compare_with_published(manifest, official(manifest, "cifar100", "resnet12", 9))
    row = next(line for line in comparison_lines([OwnRow("this run", [figures(9)], found)]) if line.startswith("ConCM"))
    assert row.split()[:9] == ["ConCM", "?", "2026", "ResNet-12", "-", "58.3", "-", "-", "-"]
    assert "52.5" in row
    assert next(each for each in found.rows if each.method.name == "ConCM").as_data()["drop"] is None


def test_rows_of_the_same_data_and_backbone_are_chosen(manifest: Manifest) -> None:
    found = compare_with_published(manifest, official(manifest, "cifar100", "resnet20", 9))
    assert found.comparable
    assert {(each.row.data, each.row.backbone) for each in found.rows} == {("cifar100", "ResNet-20")}
    every = [row for method in published_methods() for row in method.rows if row.data == "cifar100"]
    assert found.others == len(every) - len(found.rows) > 0
    years = [each.method.year for each in found.rows]
    assert years == sorted(years)
    wide = compare_with_published(manifest, official(manifest, "cifar100", "resnet18-cifar", 9))
    assert {each.row.backbone for each in wide.rows} == {"ResNet-18"}
    assert compare_with_published(manifest, official(manifest, "cifar100", "another", 9)).rows == []


def test_a_table_has_later_sessions_of_others_only_beside_the_official_ones(manifest: Manifest) -> None:
    whole = official(manifest, "cifar100", "resnet20", 9)
    rows = published_rows(compare_with_published(manifest, whole), 9)
    assert any(row.average is not None and row.sessions[-1] is not None for row in rows)
    own = published_rows(compare_with_published(manifest, [*whole[:8], manifest]), 9)  # as many, but one is its own
    assert [row.sessions[0] for row in own] == [row.sessions[0] for row in rows]
    assert all(cell is None for row in own for cell in (*row.sessions[1:], row.average, row.drop, row.harmonic))


def test_only_the_official_sessions_can_be_compared(manifest: Manifest) -> None:
    whole = official(manifest, "cifar100", "resnet20", 9)
    renamed = whole[1].model_copy(update={"kind": "rename"})
    for sessions in (whole[:4], [*whole, whole[1]], [*whole[:8], manifest], [*whole[:8], renamed], [*whole, renamed]):
        assert not compare_with_published(manifest, sessions).comparable
    refused = r"nothing is published on 'demo', only on cifar100, cub200, miniimagenet; leave --compare out$"
    with pytest.raises(UsageError, match=refused):
        compare_with_published(manifest, official(manifest, "demo", "resnet20", 3))
    named = manifest.model_copy(update={"data": manifest.data.model_copy(update={"name": "cifar100"})})
    with pytest.raises(UsageError, match="nothing is published on 'cifar100'"):  # a folder of that name
        compare_with_published(manifest, [named])


def test_the_mean_of_runs_is_compared_only_if_every_run_is(manifest: Manifest) -> None:
    whole = official(manifest, "cifar100", "resnet20", 9)
    one, other = (compare_with_published(manifest, each) for each in (whole, under(whole, class_order=1993)))
    assert joined([one, one]) == one
    mean = joined([one, other])
    assert not mean.comparable
    assert mean.other_base == other.other_base != []
    assert mean.rows == joined([other, one]).rows == []
    wider = compare_with_published(manifest, official(manifest, "cifar100", "resnet12", 9))
    assert wider.rows
    mean = joined([one, wider])
    assert (mean.backbone, mean.rows, mean.comparable) == ("ResNet-20 and ResNet-12", [], False)


def under(sessions: list[Manifest], **changes: object) -> list[Manifest]:
    """Manifests of another protocol of cifar100."""
    protocol = ProtocolRecord.model_validate({"base_classes": 60, "way": 5, "shots_per_class": 5, **changes})
    return [each.model_copy(update={"data": each.data.model_copy(update={"protocol": protocol})}) for each in sessions]


def test_other_shots_leave_session_0_to_be_compared(manifest: Manifest) -> None:
    whole = official(manifest, "cifar100", "resnet20", 9)
    every = compare_with_published(manifest, whole)
    for changes in ({"shots_draw": 3}, {"way": 8, "shots_per_class": 1}):
        found = compare_with_published(manifest, under(whole, **changes))
        assert not found.comparable
        assert (found.other_base, found.others) == ([], every.others)
        assert [each.row.base for each in found.rows] == [
            each.row.base for each in every.rows if each.row.base is not None
        ]
        later = [(each.row.last, each.row.average, each.row.novel, each.row.harmonic) for each in found.rows]
        assert later == [(None,) * 4] * len(found.rows)
        assert {each.row.sessions for each in found.rows} == {None}


def test_other_base_classes_leave_nothing_to_be_compared(manifest: Manifest) -> None:
    whole = official(manifest, "cifar100", "resnet20", 9)
    found = compare_with_published(manifest, under(whole, base_classes=50, way=10, class_order=1993))
    assert found.rows == []
    assert found.other_base == ["50 base classes, not 60", "its classes in another order"]
    assert found.others > 0
    table = comparison_lines([OwnRow("this run", [figures(6)], found)])
    assert len(table) == 3
    assert table[2].split() == ["this", "run", "-", "ResNet-20", "70.00", *["-"] * 5]
    assert compare_with_published(manifest, under(whole, class_order=["a"])).rows == []


def test_the_table_begins_with_this_run_and_names_every_source(manifest: Manifest) -> None:
    comparison = compare_with_published(manifest, official(manifest, "cifar100", "resnet20", 9))
    blank, header, own, *rest = comparison_lines([OwnRow("this run", [figures(9)], comparison)])
    assert (blank, header.split()[:3]) == ("", ["method", "year", "backbone"])
    assert own.split() == ["this", "run", "-", "ResNet-20", "70.00", "62.00", "66.00", "8.00", "30.12", "42.00"]
    rows, legend, sources = (
        rest[: len(comparison.rows)],
        rest[len(comparison.rows)],
        rest[len(comparison.rows) + 2 :],
    )
    for number, (row, source, each) in enumerate(zip(rows, sources, comparison.rows, strict=True), start=1):
        mark = {True: " * ", False: "   ", "unknown": " ? "}[each.method.epoch_chosen_on_test]
        assert row.startswith(each.method.name + mark)
        assert row.endswith(f"[{number}]")
        assert source.startswith(f"[{number}] {each.method.paper}; figures: ")
    cec = next(row for row in rows if row.startswith("CEC"))
    assert cec.split()[:9] == ["CEC", "*", "2021", "ResNet-20", "73.07+", "49.14", "59.53", "23.93", "-"]
    assert rest[len(comparison.rows) + 1].startswith("+ perhaps answers of the trained W")
    assert next(row for row in rows if row.startswith("SAVC")).split()[4] == "78.77"
    assert "* epoch chosen by the accuracy on the test images" in legend


def test_a_run_with_other_sessions_shows_session_0_only(manifest: Manifest) -> None:
    comparison = compare_with_published(manifest, official(manifest, "cifar100", "resnet20", 4))
    own = comparison_lines([OwnRow("this run", [figures(4)], comparison)])[2]
    assert own.split() == ["this", "run", "-", "ResNet-20", "70.00", *["-"] * 5]


def test_the_command_shows_the_comparison(
    m2sd: Cli,
    trained: Path,
    stripes: Stripes,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["evaluate", "--data", stripes.folder, "--run", trained, *CPU]
    plain = m2sd(*command)
    refused = m2sd(*command, "--compare")
    check_refusal(refused, 2, "--compare: nothing is published on 'colours'")
    few = manifest.model_copy(update={"config": {"images_per_class": 5}})
    monkeypatch.setattr(
        "m2sd_cli.api.evaluate.compare_with_published",
        lambda *_: compare_with_published(few, official(manifest, "cub200", "resnet18", 3)),
    )
    done = m2sd(*command, "--compare")
    assert done.code == 0
    assert done.out.startswith(plain.out + "\nmethod")
    assert "only its session 0 can be compared" in done.err
    assert "trained on 5 images of each base class, the published ones on all\n" in done.err
    data = json.loads(m2sd(*command, "--compare", "--json").out)
    assert data["comparable"] is False
    nc = next(each for each in data["published"] if each["name"] == "NC-FSCIL")
    assert (nc["data"], nc["base"], nc["drop"], nc["epoch_chosen_on_test"]) == ("cub200", 80.45, 21.01, True)
    assert len(nc["sessions"]) == 11
    assert nc["novel"] is None
    assert "published" not in json.loads(m2sd(*command, "--json").out)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"held_out": 0.02}, "held 2 % of each base class out of training, the published ones none (--held-out 0)"),
        ({"held_out": 0.0}, None),
        ({"held_out": 0.02, "images_per_class": 50}, "was trained on 50 images of each base class, the published ones"),
        ({}, None),
        ({"init": "imagenet"}, "began from imagenet weights, the published ones from random ones"),
        ({"init": "none"}, None),
    ],
)
def test_a_run_that_holds_images_out_says_so_beside_published_rows(
    manifest: Manifest, config: dict[str, object], sentence: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    first = manifest.model_copy(update={"config": config})
    comparison = compare_with_published(first, official(manifest, "cifar100", "resnet20", 9))
    explain_comparison(comparison, quiet=False)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("this run ")]
    assert len(told) == (sentence is not None)
    assert sentence is None or told[0].startswith(f"this run {sentence}")


def test_the_published_ones_of_cub200_began_from_imagenet(manifest: Manifest) -> None:
    data = manifest.data.model_copy(update={"name": "cub200"})
    for init, told in (
        ("imagenet", []),
        ("none", ["began from random weights, the published ones from imagenet ones"]),
    ):
        first = manifest.model_copy(update={"config": {"init": init}, "data": data})
        assert compare_with_published(first, official(manifest, "cub200", "resnet18", 11)).other_training == told


def test_tables_for_a_paper_mark_what_was_chosen_on_test_images(manifest: Manifest) -> None:
    found = compare_with_published(manifest, official(manifest, "cifar100", "resnet20", 9))
    rows = [*published_rows(found, 9), run_row("ours", [figures(9)])]
    latex, text = latex_table(rows), markdown_table(rows)
    assert "\nCEC (2021) * & 73.07+ & " in latex
    assert "\n| CEC \\(2021\\) \\* | 73.07\\+ | " in text
    assert latex.splitlines()[-2:] == [f"% {line}" for line in explain_marks(found.rows, "the runs of m2sd")]
    assert "\n\\* epoch chosen by the accuracy on the test images; ? not known" in text
    alone = [run_row("ours", [figures(9)])]
    assert "%" not in latex_table(alone).partition("\\end{tabular}")[2]
    assert not markdown_table(alone).endswith("\n\n")


@pytest.mark.parametrize("more", [["--test", "somewhere"], ["--session", "1"]])
def test_a_part_of_the_benchmark_is_not_compared(m2sd: Cli, more: list[str]) -> None:
    done = m2sd("evaluate", "--compare", *more)
    check_refusal(done, 2, "leave one out")
