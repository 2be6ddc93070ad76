"""A classifier that is no rows of numbers, wherever one answers: the nearest neighbours of m2sd_cli/README.md."""

import json
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import m2sd_cli
from m2sd_cli.errors import DamagedError, M2sdError, UsageError
from m2sd_cli.inference.session import SessionModel, load_all_sessions, load_session
from m2sd_cli.method.heads import Head, NetworkHead
from m2sd_cli.method.stage3 import KnownClasses, choices
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import CLASSIFIERS, ClassifierEntry
from tests.helpers import Cli, Stripes, check_refusal, tables_as_before

TEXT = (Path(__file__).parents[2] / "m2sd_cli" / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL))
CPU = ["--device", "cpu"]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    module: dict[str, Any] = {}
    exec(compile(FILES["neighbours.py"], "neighbours.py", "exec"), module)
    monkeypatch.setitem(CLASSIFIERS.entries, "neighbours", ClassifierEntry(module["build"]))


def plain_logits(run: Path, model: SessionModel, features: Tensor) -> list[list[float]]:
    """The largest cosine of each feature to the samples of each class, one at a time in float64."""
    samples = [[row] for row in RunFolder(run).tensors(RunFolder(run).session(0))["class_means"]]
    for session in range(1, len(RunFolder(run).sessions())):
        stored = RunFolder(run).session(session)
        rows = iter(RunFolder(run).tensors(stored)["shot_features"])
        samples += [[next(rows) for _ in range(each.shots)] for each in stored.manifest.classes]
    return [
        [
            max(model.record.scale * float(F.cosine_similarity(phi.double(), x.double(), dim=0)) for x in of_class)
            for of_class in samples
        ]
        for phi in features
    ]


def test_its_logits_are_those_of_a_plain_loop(trained: Path) -> None:
    model = load_session(RunFolder(trained), classifier="neighbours")
    features = torch.randn(3, model.record.width, generator=torch.Generator().manual_seed(0)).abs()
    torch.testing.assert_close(
        model.classify(features), torch.tensor(plain_logits(trained, model, features)), rtol=1e-4, atol=1e-4
    )
    one = model.classify(features[:1])
    torch.testing.assert_close(one, model.classify(features)[:1], rtol=1e-5, atol=1e-5)


def test_figures_probabilities_and_forgotten_classes(calibrated: Path, stripes: Stripes, m2sd: Cli) -> None:
    done = m2sd("evaluate", "--run", calibrated, "--classifier", "neighbours", "--json", *CPU)
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert content["calibrated"]
    assert [each["classes"] for each in content["sessions"]] == [4, 6, 7]
    album = stripes.labelled / "purple"
    answers = m2sd("predict", album, "--run", calibrated, "--classifier", "neighbours", "--json", *CPU)
    assert answers.code == 0, answers.err
    head = load_session(RunFolder(calibrated), classifier="neighbours").head
    features = torch.rand(2, 64)
    chosen = torch.tensor([0, 5])
    torch.testing.assert_close(head.select(chosen)(features), head(features)[:, chosen])
    torch.testing.assert_close(head.select(chosen).first(1)(features), head(features)[:, :1])


def test_a_chain_without_one_of_its_classes(run: Path) -> None:
    whole = load_session(RunFolder(run), classifier="neighbours")
    m2sd_cli.forget("white", run=run)
    models = load_all_sessions(RunFolder(run), RunFolder(run).summary(), classifier="neighbours")
    features = torch.rand(2, 64)
    kept = [place for place, name in enumerate(whole.classes) if name != "white"]
    torch.testing.assert_close(models[-1].classify(features), whole.classify(features)[:, kept])


def test_programs_hold_it_and_tensors_do_not(trained: Path, tmp_path: Path, m2sd: Cli, load_one_layer: Any) -> None:
    words = ["export", "--run", trained, "--classifier", "neighbours", "--out"]
    for form in ("safetensors", "hub"):
        refused = m2sd(*words, tmp_path / "out", "--format", form)
        check_refusal(refused, 2, f"--format {form}: the classifier neighbours is a program")
        assert not (tmp_path / "out").exists()
    done = m2sd(*words, tmp_path / "model.onnx")
    assert done.code == 0, done.err
    model = load_one_layer(RunFolder(trained), classifier="neighbours")
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    logits, _ = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": pixels.numpy()})
    expected = model.classify(model.embed(pixels)) / model.confidence.temperature
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-3)


class Wrong(nn.Module):
    """Logits of one class too few, or a branch that no program has."""

    def __init__(self, classes: int, branch: bool) -> None:
        super().__init__()
        self.classes, self.branch = classes, branch

    def forward(self, features: Tensor) -> Tensor:
        if self.branch and float(features.sum()) > 1e9:
            return features[:, : self.classes] * 2
        return features[:, : self.classes]


def test_what_breaks_the_contract_is_named(
    trained: Path, tmp_path: Path, m2sd: Cli, load_one_layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_one_layer is not None
    monkeypatch.setitem(CLASSIFIERS.entries, "few", ClassifierEntry(lambda known, _, scale: Wrong(6, False)))
    with pytest.raises(M2sdError, match=r"^--classifier few: its logits of 2 features and 7 classes are \(2, 6\)$"):
        load_session(RunFolder(trained), classifier="few")
    monkeypatch.setitem(
        CLASSIFIERS.entries,
        "branch",
        ClassifierEntry(lambda known, _, scale: Wrong(len(known.base) + len(known.new), True)),
    )
    assert isinstance(load_session(RunFolder(trained), classifier="branch").head, NetworkHead)
    done = m2sd("export", "--run", trained, "--classifier", "branch", "--out", tmp_path / "model.pt2")
    *_, last = done.err.strip().splitlines()  # after whatever torch says
    assert (done.code, last.startswith("m2sd: torch cannot export the classifier branch: ")) == (1, True), done.err
    assert not any(tmp_path.iterdir())


def spoilt(known: KnownClasses, _similarity: str, _scale: float) -> Head:
    raise ValueError("no shots")


def narrow(known: KnownClasses, _similarity: str, _scale: float) -> Head:
    return Head(torch.cat([known.base, known.new])[:, :3], "linear")


def bottomless(known: KnownClasses, _similarity: str, _scale: float) -> Head:
    rows = torch.cat([known.base, known.new])
    return Head(rows, "linear", bias=torch.full((len(rows),), -torch.inf))


class Limited(nn.Module):
    """Logits of no more than three features at a time."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("never", torch.tensor(-torch.inf))  # is no fault of a classifier of one's own

    def forward(self, features: Tensor) -> Tensor:
        if len(features) > 3:
            raise KeyError("too many")
        return features @ self.rows.T


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (spoilt, r"it fails \(ValueError: no shots\); --debug shows where$"),
        (narrow, r"it fails \(RuntimeError: .*\); --debug shows where$"),
        (bottomless, r"its logits of 2 features are not finite$"),
        (lambda known, *_: Limited(torch.cat([known.base, known.new])), r"it fails \(KeyError: 'too many'\); --debug"),
    ],
)
def test_a_classifier_of_ones_own_that_fails_is_no_damaged_run(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch, build: Any, says: str
) -> None:
    monkeypatch.setitem(CLASSIFIERS.entries, "own", ClassifierEntry(build))
    with pytest.raises(M2sdError, match=f"^--classifier own: {says}") as refusal:
        load_session(RunFolder(calibrated), classifier="own")
    assert not isinstance(refusal.value, DamagedError)


def test_a_constant_that_is_not_finite_is_no_damage(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ClassifierEntry(lambda known, *_: Limited(torch.cat([known.base, known.new])))
    monkeypatch.setitem(CLASSIFIERS.entries, "own", entry)
    model = load_session(RunFolder(trained), classifier="own")
    assert model.classify(torch.rand(2, 64)).shape == (2, 7)
    with pytest.raises(M2sdError, match=r"^--classifier own: it fails \(KeyError: 'too many'\); --debug shows where$"):
        model.classify(torch.rand(9, 64))


def test_a_list_leaves_out_a_classifier_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    before, told = choices("cosine"), list[str]()
    monkeypatch.setitem(CLASSIFIERS.entries, "own", ClassifierEntry("json:bild"))
    monkeypatch.setattr("m2sd_cli.method.stage3.say", told.append)
    assert choices("cosine") == before
    assert [line.partition(" (")[0] for line in told] == [
        "left out: --classifier own: json:bild: it cannot be imported"
    ]


def test_covariances_are_of_all_levels() -> None:
    with tables_as_before(), pytest.raises(UsageError, match="by_class goes with levels=True"):
        m2sd_cli.register_classifier("own", "json:loads", by_class=True, levels=False)


def test_a_classifier_that_fails_in_a_simulation_is_named(simulated: Path, m2sd: Cli) -> None:
    with tables_as_before():
        m2sd_cli.register_classifier("own", lambda known, *_: Limited(torch.cat([known.base, known.new])))
        words = ["simulate", "--run", simulated, "--draws", 1, "--classifier", "own", *CPU]
        check_refusal(m2sd(*words), 1, "it fails (KeyError: 'too many'); --debug shows where")


@pytest.mark.parametrize("module", [False, True])
def test_a_classifier_that_later_classes_change_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, module: bool
) -> None:
    def joint(known: KnownClasses, similarity: str, scale: float) -> nn.Module:
        rows = torch.cat([known.base, known.new])
        rows = rows - rows.mean(dim=0)  # of later classes, too
        return nn.Sequential(Head(rows, similarity, scale)) if module else Head(rows, similarity, scale)

    monkeypatch.setitem(CLASSIFIERS.entries, "joint", ClassifierEntry(joint))
    with pytest.raises(
        M2sdError, match=r"^--classifier joint: a later class changes the logits of earlier ones, whose "
    ):
        load_session(RunFolder(trained), classifier="joint")
    assert (
        load_session(RunFolder(trained), 0, classifier="joint").classes == load_session(RunFolder(trained), 0).classes
    )


class Farthest(Head):
    """The opposite of its rows."""

    def forward(self, features: Tensor) -> Tensor:
        return -super().forward(features)


def test_a_subclass_of_head_answers_as_its_forward_does_and_is_no_table_of_rows(
    trained: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(known: Any, similarity: str, scale: float) -> Head:
        return Farthest(torch.cat([known.base, known.new]), similarity, scale)

    monkeypatch.setitem(CLASSIFIERS.entries, "farthest", ClassifierEntry(build))
    features = torch.rand(3, 64)
    means = load_session(RunFolder(trained), classifier="means").classify(features)
    torch.testing.assert_close(load_session(RunFolder(trained), classifier="farthest").classify(features), -means)
    words = ["export", "--run", trained, "--classifier", "farthest", "--out", tmp_path / "model.safetensors"]
    check_refusal(m2sd(*words), 2, "farthest")
    assert not any(tmp_path.iterdir())
