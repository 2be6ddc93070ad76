"""Rows of one's own: read, refused, trained with the stages that they share, and studied."""

import csv
import json
import statistics
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
import m2sd_cli.api.ablate as ablation_run
from m2sd_cli.ablation.records import RowRecord, divergence, read_budget, read_results
from m2sd_cli.ablation.rows import choose_rows, choose_seeds, read_rows
from m2sd_cli.api.ablate import ablate
from m2sd_cli.api.ablation_plan import plan_ablation
from m2sd_cli.api.base_session import copy_session_0
from m2sd_cli.api.increment import increment
from m2sd_cli.api.sweep import resolve_sweep
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.data.fixed_split import count_base
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.split_list import read_list
from m2sd_cli.errors import DamagedError, DataError, DivergedError, TrainingError, UsageError
from m2sd_cli.progress import report_to
from m2sd_cli.reports.metrics import require_figure
from m2sd_cli.reports.published import Comparison, Method, Published, Row
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.lock import lock_folder
from tests.ablation.test_run import BUDGET, WORDS, Teller
from tests.helpers import Cli, Stripes, check_refusal, tree

pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")
FILE = """
[halved]
what = "half the weight"
distill.kl_weight = 0.5

[halved-teen]
distill = { kl_weight = 0.5, classifier = "teen" }

[one-shot]
pretrain = { base_classes = 7, way = 1, shots_per_class = 1 }
distill.optimizer = "adamw"
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A table with three rows and seed 3, their file, and what was said. Not to be changed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "rows.toml").write_text(FILE)
    told: list[str] = []
    with report_to(Teller(told.append)):
        assert ablate(folder / "out", **BUDGET, seeds=[3], rows_file=folder / "rows.toml").finished
    return folder / "out", folder / "rows.toml", told


def write(folder: Path, text: str) -> Path:
    (folder / "rows.toml").write_text(text)
    return folder / "rows.toml"


# ---- seeds and files


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (2, [0, 1]),
        ("3", [0, 1, 2]),
        ("0,2,5", [0, 2, 5]),
        ("4..6, 1", [4, 5, 6, 1]),
        ("7..7", [7]),
        ("0..0", [0]),
        ([9, 9, 8], [9, 8]),
        (str(2**62) + ",1", [2**62, 1]),
    ],
)
def test_seeds(given: Any, seeds: list[int]) -> None:
    assert choose_seeds(given) == seeds


@pytest.mark.parametrize(
    "given", [0, "0", "", "a", "1..", "3..1", "-1", "1,,2", [], [-1], "0..99999999", 10**9, "9" * 30]
)
def test_other_seeds_are_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^--seeds?[ :]"):
        choose_seeds(given)


@pytest.mark.parametrize("seed", ["0", "2024"])
def test_a_number_that_is_no_count_is_shown_as_a_seed(seed: str) -> None:
    with pytest.raises(UsageError, match=rf"is how many seeds, 1 to 1000; seed {seed} alone is {seed}\.\.{seed}$"):
        choose_seeds(seed)
    assert choose_seeds(f"{seed}..{seed}") == [int(seed)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no row in it"),
        ("[a", "not TOML"),
        ("a = 1", "row a: it is no table"),
        ("[A]", "row A: choose lower-case letters"),
        ("[stage-1]", "another beginning than stage"),
        ("[m2sd]", "row m2sd: a row of m2sd has that name"),
        ("[a]\nwhat = 3", "row a: what is a text"),
        ("[a]\nbeta = 1.0", "row a: only what, pretrain and distill are known, not 'beta'"),
        ("[a]\ndistill = 3", "not 'distill'"),
        ("[a.distill]\nseed = 1", "row a: distill has a seed; --seeds says"),
        ("[a.distill]\nbetta = 1.0", "row a: distill: there is no option 'betta'; did you mean 'beta'?"),
        ("[a.distill]\nbeta = -1.0", "row a: distill: --beta -1.0: more than 0"),
        ("[a.pretrain]\nbackbone = 'resnet21'", "row a: pretrain: --backbone resnet21: choose "),
    ],
)
def test_a_wrong_file_is_refused_by_row_and_option(tmp_path: Path, m2sd: Cli, text: str, says: str) -> None:
    file = write(tmp_path, text)
    done = m2sd("ablation", "--rows-file", file, "--out", tmp_path / "out")
    check_refusal(done, 2, says)
    assert done.err.startswith(f"m2sd: --rows-file {file}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a.pretrain]\nbase_classes = 99", "row a: --base-classes 99: demo has 10 classes"),
        ("[a.distill]\nmixing = 'none'\nclean_weight = 1.0", "row a: --clean-weight 1.0: with --mixing none"),
        ("[a.distill]\nce_weight = 0.0\nkl_weight = 0.0\nkd_weight = 0.0\nattention_weight = 0.0\n"
         "teacher_weight = 0.0", "row a: every loss weight is 0"),
        ("[a]\npretrain.similarity = 'linear'\ndistill.classifier = 'teen'", "row a: --classifier teen: it compares"),
        ("[a.pretrain]\nclass_order = 'nowhere.txt'", "row a: --class-order "),
        ("[a.pretrain]\nsplit = 'nowhere.toml'", "row a: --split is for folders"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused_before_anything(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ablate(tmp_path / "out", **BUDGET, rows_file=write(tmp_path, text))
    assert not (tmp_path / "out").exists()


WIDE = "distill = { classifier = 'quadratic', levels = 2 }"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"[a]\npretrain.backbone = 'resnet18'\n{WIDE}", "row a: --classifier quadratic: the covariances of 60 "),
        ("[a]\npretrain.held_out = 0.0\ndistill.base_cost = 0.4", "row a: --base-cost 0.4: no base image is held out"),
        ("[a]\npretrain = { backbone = 'resnet20', init = 'imagenet' }", "row a: --init imagenet: no weights of"),
        ("[a]\npretrain.init = 'nowhere.pt'", "row a: --init nowhere.pt: no such file"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_stage_2_or_the_weights_would_refuse_is_refused_before_a_plan(
    tmp_path: Path, text: str, says: str, dry_run: bool
) -> None:
    given: dict[str, Any] = {**BUDGET, "data": "cifar100", "data_root": tmp_path, "rows_file": write(tmp_path, text)}
    with pytest.raises((UsageError, DataError), match=says):
        (plan_ablation if dry_run else ablate)(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        f"[a]\npretrain = {{ backbone = 'resnet18', base_classes = 50 }}\n{WIDE}",
        "[a]\npretrain.held_out = 0.0\ndistill.base_cost = 0.3",  # that of the recipe, which is left out
    ],
)
def test_a_row_that_can_be_trained_is_not_refused(tmp_path: Path, text: str) -> None:
    given = {"recipe": "cifar100-resnet20-long", "rows_file": write(tmp_path, text), "device": "cpu"}
    sweep = resolve_sweep(tmp_path / "out", given)
    assert [each.row.name for each in sweep.rows] == ["a"]


def test_a_copied_network_gets_no_classifier_that_it_cannot_answer_with(
    table: tuple[Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2sd_cli.method.base_statistics.MOST_NUMBERS", 1)
    source, run = RunFolder(table[0] / "seed-3" / "halved"), RunFolder(tmp_path / "run")
    with run.locked("test"):
        run.copy_pretrain(source)
    with pytest.raises(UsageError, match="--classifier quadratic: the covariances of 6 classes"):
        copy_session_0(source, run, DistillConfig(epochs=1, classifier="quadratic"))
    assert run.sessions() == []


def test_rows_of_the_file_and_built_in_ones_are_chosen_together(tmp_path: Path) -> None:
    own = read_rows(write(tmp_path, FILE))
    assert [row.name for row in choose_rows(None, own)] == ["halved", "halved-teen", "one-shot"]
    assert [row.name for row in choose_rows("one-shot,plain", own)] == ["plain", "one-shot"]
    with pytest.raises(UsageError, match=r"--rows full: no such row; choose plain, .*, halved, halved-teen, one-shot$"):
        choose_rows("full", own)


def test_what_rows_share_follows_from_their_options() -> None:
    one = RowRecord(distill={"beta": 2.0})
    assert one.network == RowRecord(distill={"beta": 2.0, "classifier": "teen"}).network
    assert one.network != RowRecord(distill={"beta": 3.0}).network
    assert one.network != RowRecord(distill={"beta": 2.0}, pretrain={"way": 1}).network
    assert one.stage_1 == "stage-1" != RowRecord(pretrain={"way": 1}).stage_1
    assert RowRecord(digests={"split": "0" * 64}).stage_1 != RowRecord(digests={"split": "1" * 64}).stage_1


# ---- what is trained


def test_rows_share_stage_1_and_the_network(table: tuple[Path, Path, list[str]]) -> None:
    out, _, told = table
    runs = {name: RunFolder(out / "seed-3" / name) for name in ("halved", "halved-teen", "one-shot")}
    assert [line for line in told if line.startswith(("stage 1", "the network"))] == [
        "stage 1 of seed 3",
        "the network is that of halved, with another classifier",
        "stage 1 of seed 3 for one-shot",
    ]
    for run in runs.values():
        assert run.verify() == []
    halved, teen, other = (run.session(0).manifest for run in runs.values())
    assert runs["halved"].pretrain() == runs["halved-teen"].pretrain()
    assert (
        (halved.checkpoint.sha256, halved.seed) == (teen.checkpoint.sha256, teen.seed) == (halved.checkpoint.sha256, 3)
    )
    assert (halved.classifier, teen.classifier, teen.config["classifier"]) == ("fecam", "teen", "teen")
    assert halved.config["kl_weight"] == 0.5
    assert (len(other.classes), runs["one-shot"].session(1).manifest.classes[0].shots) == (7, 1)
    assert runs["one-shot"].sessions() == [0, 1, 2, 3]
    assert (other.config["optimizer"], other.config["learning_rate"]) == ("adamw", 0.0002)


def test_a_row_is_as_the_commands_by_hand_make_it(table: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    common: dict[str, Any] = {"run": run, "device": "cpu", "precision": "fp32", "epochs": 1, "seed": 3}
    m2sd_cli.pretrain("demo", **common)
    m2sd_cli.distill(**common, kl_weight=0.5, classifier="teen")
    for session in (1, 2):
        m2sd_cli.increment(session, run=run, device="cpu")
    by_hand, row = RunFolder(run).chain(), RunFolder(table[0] / "seed-3" / "halved-teen").chain()
    for one, other in zip(by_hand, row, strict=True):
        assert one.manifest.checkpoint == other.manifest.checkpoint
        assert one.manifest.classifier == other.manifest.classifier
    figures = m2sd_cli.evaluate(run=run, device="cpu").figures
    [result] = read_results(table[0], ["halved-teen"])
    assert result.figures == figures


def test_the_same_call_has_nothing_to_do(table: tuple[Path, Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    out, file, _ = table
    before = tree(out)
    for name in ("pretrain", "distill", "increment", "evaluate", "open_data"):
        monkeypatch.setattr(ablation_run, name, None)
    assert ablate(out, **BUDGET, seeds="3..3", rows_file=file).finished
    assert tree(out) == before


def test_a_row_that_has_changed_is_refused_and_a_new_one_added(
    table: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    out = table[0]
    before = tree(out)
    changed = write(tmp_path, FILE.replace("0.5", "0.25"))
    with pytest.raises(UsageError, match=r"its row halved began with distill kl_weight 0\.5, not 0\.25; "):
        ablate(out, **BUDGET, seeds="3..3", rows_file=changed)
    dropped = write(tmp_path, FILE.replace(", shots_per_class = 1", ""))
    with pytest.raises(UsageError, match="row one-shot began with pretrain shots_per_class 1, not that of all rows"):
        ablate(out, **BUDGET, seeds="3..3", rows_file=dropped)
    assert tree(out) == before


def test_a_class_order_is_known_by_its_content(tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    order.write_text("".join(f"{number}\n" for number in (1, 0, *range(2, 10))))
    out = tmp_path / "out"
    words: dict[str, Any] = {**BUDGET, "seeds": 1, "rows": "plain", "class_order": order}
    assert not ablate(out, **words, stop_after=0).finished
    assert read_budget(out).pretrain["class_order"] == "order.txt"
    assert str(tmp_path) not in (out / "ablation.json").read_text()
    order.write_text(order.read_text() + "\n")
    with pytest.raises(UsageError, match="its table began with class_order of SHA-256 "):
        ablate(out, **words)


def test_a_folder_with_a_list_is_swept(
    tmp_path: Path, stripes: Stripes, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pretrain", "recorded_data", "ablate"):
        monkeypatch.setattr(f"m2sd_cli.api.{module}.open_data", open_data)
    *base, new = [f"train/{path.name}" for path in sorted((stripes.folder / "train").iterdir())]
    tested = [f"test/{path.name}" for path in sorted((stripes.folder / "test").iterdir())]
    split = tmp_path / "split.toml"
    split.write_text(f"base = {json.dumps(base)}\nsessions = [{json.dumps([new])}]\ntest = {json.dumps(tested)}\n")
    words = ["--data", stripes.folder, "--split", split, "--rows", "plain", "--seeds", 1, "--epochs", 1]
    words += ["--pretrain-epochs", 1, "--device", "cpu", "--out", tmp_path / "out", "--config", tmp_path / "small.toml"]
    (tmp_path / "small.toml").write_text(
        "[pretrain]\nbackbone = 'resnet20'\nimage_size = 16\n[distill]\nclassifier = 'quadratic'\n"
    )
    done = m2sd("ablation", *words)
    assert done.code == 0, done.err
    assert read_budget(tmp_path / "out").data == stripes.folder.name
    assert count_base(stripes.folder, read_list(split)) == len(base)
    [result] = read_results(tmp_path / "out")
    assert [each.classes for each in result.sessions] == [len(base), len(base) + 1]


WILD = """
[wild]
distill.learning_rate = 1e38

[wild-teen]
distill = { learning_rate = 1e38, classifier = "teen" }

[wild-from-the-start]
pretrain.learning_rate = 1e38

[wild-from-the-start-too]
pretrain.learning_rate = 1e38
distill.kl_weight = 0.5

[calm]
distill.kl_weight = 0.5
"""


def test_a_row_that_diverges_holds_no_other_one_up(tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    words = ["ablation", *WORDS, "--seeds", 1, "--out", out, "--rows-file", write(tmp_path, WILD)]
    end = (
        "m2sd: ablation: without a result, since the training diverged: seed-0/wild, seed-0/wild-teen, "
        "seed-0/wild-from-the-start, seed-0/wild-from-the-start-too; leave these rows out with --rows, or give them "
        "other names and a lower learning rate in --rows-file"
    )
    done = m2sd(*words)
    told = done.err.splitlines()
    assert (done.code, told[-1]) == (TrainingError.exit_code, end)
    assert [line.split(": no finite ")[0] for line in told if line.startswith(("run ", "seed "))][:-1] == [
        "run 1 of 5: seed 0, wild",
        "seed 0, wild diverged: distill",
        "seed 0, wild-from-the-start diverged: pretrain",
        "run 5 of 5: seed 0, calm",
    ]
    assert "start over" not in done.err
    assert [result.row for result in read_results(out, list(read_budget(out).described()))] == ["calm"]
    with monkeypatch.context() as patch:
        for name in ("pretrain", "distill"):
            patch.setattr(ablation_run, name, None)
        again = m2sd(*words)
        assert (again.code, again.err, again.out) == (1, f"{end}\n", done.out)
        assert m2sd(*words, "--rows", "calm").code == 0
    assert plan_ablation(out, **BUDGET, seeds=1, rows_file=tmp_path / "rows.toml").seconds == 0
    [mark] = (out / "seed-0").glob("stage-2-*.diverged")
    assert mark.read_text().startswith("distill: no finite ")
    mark.unlink()
    assert "seed 0, wild diverged: " in m2sd(*words, "--rows", "wild").err


def test_a_network_whose_features_of_shots_are_no_numbers_is_told_and_left(
    tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rows = write(tmp_path, "[a]\n[b]\npretrain.way = 1")
    words = ["ablation", *WORDS, "--seeds", 1, "--out", out, "--rows-file", rows]

    def fail(session: int, **options: Any) -> object:
        if session == 2 and options["run"].name == "a":
            raise DivergedError("the network's features are no finite numbers", "train it again")
        return increment(session, **options)

    monkeypatch.setattr(ablation_run, "increment", fail)
    for told in (True, False):  # once
        done = m2sd(*words)
        assert done.code == TrainingError.exit_code, done.err
        assert ("seed 0, a diverged: the network's features are no finite numbers" in done.err) == told
        assert "train it again" not in done.err
    assert [result.row for result in read_results(out, ["a", "b"])] == ["b"]


def test_a_stage_1_that_diverged_in_another_process_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out", list[str]()
    lock = lock_folder(out / ".seed-0-stage-1", "ablation")

    def end(text: str) -> None:
        """The other process marks the stage 1 that is waited for."""
        told.append(text)
        if text.startswith("waiting"):
            (out / "seed-0").mkdir()
            divergence(out, "seed-0/stage-1").touch()
            lock.__exit__(None, None, None)

    monkeypatch.setattr(ablation_run, "pretrain", None)
    lock.__enter__()
    with report_to(Teller(end)):
        done = ablate(out, **BUDGET, seeds=1, rows="plain,mixup")
    assert (done.finished, done.busy, done.diverged) == (True, [], ["seed-0/plain", "seed-0/mixup"])
    assert told[0] == "waiting for stage 1 of seed 0"
    assert told[-1] == f"seed 0, plain diverged: {out / 'seed-0' / 'stage-1.diverged'} is there"


# ---- what is told


def test_a_dry_run_tells_what_is_shared_and_writes_nothing(
    table: tuple[Path, Path, list[str]], tmp_path: Path, m2sd: Cli
) -> None:
    out, file, _ = table
    planned = plan_ablation(tmp_path / "out", **BUDGET, seeds="3,4", rows_file=file)
    assert [(each.stage_1, each.trainings, each.rows) for each in planned.firsts] == [
        ("stage-1", 2, ["halved", "halved-teen"]),
        (planned.firsts[1].stage_1, 2, ["one-shot"]),
    ]
    assert [(each.row, each.stage_2, each.trainings) for each in planned.rows] == [
        ("halved", "halved", 2),
        ("halved-teen", "halved", 0),
        ("one-shot", "one-shot", 2),
    ]
    seconds = [*(each.seconds for each in planned.firsts), *(each.seconds for each in planned.rows[::2])]
    assert planned.seconds == pytest.approx(2 * sum(seconds))
    assert not (tmp_path / "out").exists()
    before = tree(out)
    words = ["--data", "demo", "--pretrain-epochs", 1, "--epochs", 1, "--device", "cpu", "--precision", "fp32"]
    words += ["--rows-file", file, "--seeds", "3..3", "--rows", "halved,halved-teen", "--out", out, "--dry-run"]
    done = m2sd("ablation", *words)
    assert done.code == 0, done.err
    assert "for halved, halved-teen" in done.out
    assert "all trainings that are left: about 0 s" in done.out
    assert tree(out) == before


def test_a_dry_run_counts_no_network_that_a_row_of_an_earlier_call_has(
    table: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    file = write(tmp_path, FILE + '[halved-means]\ndistill = { kl_weight = 0.5, classifier = "means" }\n')
    planned = plan_ablation(table[0], **BUDGET, seeds="3,4", rows_file=file, rows="halved-means")
    assert [each.trainings for each in planned.rows] == [1]  # of seed 4


def test_a_study_reads_every_figure_that_was_kept(
    table: tuple[Path, Path, list[str]], tmp_path: Path, m2sd: Cli
) -> None:
    out, _, _ = table
    files = ["--csv", tmp_path / "f.csv", "--latex", tmp_path / "f.tex", "--markdown", tmp_path / "f.md"]
    done = m2sd("study", out, *files, "--figures", tmp_path / "curves")
    assert done.code == 0, done.err
    figures = m2sd_cli.evaluate(run=out / "seed-3" / "one-shot", device="cpu").figures
    middle = f"{require_figure(figures.sessions[1].overall):.2f}"
    for text in (done.out, (tmp_path / "f.tex").read_text(), (tmp_path / "f.md").read_text()):
        assert middle in next(
            line for line in text.splitlines() if line.replace("\\", "").strip("| ").startswith("one-shot")
        )
    lines = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    [line] = [each for each in lines if (each["row"], each["figure"], each["session"]) == ("one-shot", "top5", "1")]
    assert float(line["mean"]) == float(line["seed 3"]) == figures.sessions[1].top5
    assert (tmp_path / "curves" / "halved-accuracy.svg").exists()
    content = json.loads(m2sd("study", out, "--json").out)
    assert [row["row"] for row in content["rows"]] == ["halved", "halved-teen", "one-shot"]
    assert content["rows"][2]["average"]["values"] == [figures.average]
    by_runs = json.loads(m2sd("study", out / "seed-3" / "one-shot", "--json", "--device", "cpu").out)
    assert by_runs["sessions"] == content["rows"][2]["sessions"]
    one, two = (require_figure(each.average) for each in read_results(out, ["halved", "halved-teen"]))
    shown = json.loads(m2sd("ablation", "--table", "--out", out, "--json").out)
    assert shown["baseline"] == "halved"
    assert shown["rows"][1]["above"]["average"]["mean"] == pytest.approx(two - one)
    assert statistics.fmean([one]) == shown["rows"][0]["accuracies"]["average"]["mean"]


def test_a_study_of_an_ablation_refuses_what_it_cannot_do(table: tuple[Path, Path, list[str]], m2sd: Cli) -> None:
    out = table[0]
    check_refusal(m2sd("study", out, out), 2, "an ablation; name it alone, or its runs, as ")
    check_refusal(m2sd("study", out, "--classifier", "teen"), 2, "--classifier: ")
    check_refusal(m2sd("study", out, "--base-cost", 0), 2, "--base-cost: ")
    check_refusal(m2sd("study", out, "--device", "cpu"), 2, "--device: ")
    check_refusal(m2sd("study", out, "--latex", out / "seed-3" / "halved" / "pretrain.json"), 2, "--latex ")


def test_a_result_of_the_last_session_alone_is_told(table: tuple[Path, Path, list[str]]) -> None:
    from m2sd_cli.ablation.table import study_rows, summarise

    budget, results = read_budget(table[0]), read_results(table[0], ["halved"])
    early = [each.model_copy(update={"sessions": []}) for each in results]
    assert summarise(early, budget.described())[0].sessions == []
    with pytest.raises(DamagedError, match="row halved: an earlier version kept the figures of the last session alone"):
        study_rows(budget, early)


def test_what_cannot_be_compared_is_told(
    table: tuple[Path, Path, list[str]], m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Comparison("demo", "ResNet-20", [], 3, 2, False, other_base=["7 base classes, not 6"])
    monkeypatch.setattr(m2sd_cli, "compare", lambda _run: other)
    done = m2sd("study", table[0], "--compare")
    assert done.code == 0, done.err
    assert done.err.splitlines() == [
        "published on demo with other backbones, not shown: 3 rows",
        "each of the runs seed-3/halved, seed-3/halved-teen, seed-3/one-shot has 7 base classes, not 6: no published "
        "figure can be compared",
    ]
    content = json.loads(m2sd("study", table[0], "--compare", "--json").out)
    assert [row["other_base"] for row in content["rows"]] == [["7 base classes, not 6"]] * 3
    assert [line.split()[0] for line in done.out.splitlines() if " ResNet-20 " in line] == [
        "halved",
        "halved-teen",
        "one-shot",
    ]


def test_published_figures_stay_below_the_sessions_of_the_compared_row(
    table: tuple[Path, Path, list[str]], m2sd: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = Row("demo", "ResNet-20", "table 1", base=Decimal("80.1"), last=Decimal("40.2"))
    method = Method("Known", 2020, "a paper", False, [row])
    found = Comparison("demo", "ResNet-20", [Published(method, row)], 0, 2, True)
    monkeypatch.setattr(m2sd_cli, "compare", lambda _run: found)
    done = m2sd("study", table[0], "--compare", "--markdown", tmp_path / "rows.md")
    assert done.code == 0, done.err
    cells = {
        line.split("|")[1].strip().replace("\\", ""): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in (tmp_path / "rows.md").read_text().splitlines()
        if line.startswith("|")
    }
    assert [line.split()[:5] for line in done.out.splitlines() if line.startswith("Known")] == [
        ["Known", "2020", "ResNet-20", "80.1", "40.2"]
    ]
    lengths = {name: sum(cell not in ("", "-") for cell in cells[name]) for name in ("halved", "one-shot")}
    assert lengths["halved"] < lengths["one-shot"]  # which has more sessions
    assert {len(each) for each in cells.values()} == {len(cells["one-shot"])}
    assert cells["Known (2020)"].index("40.2") - cells["Known (2020)"].index("80.1") == 2  # sessions of `halved`
