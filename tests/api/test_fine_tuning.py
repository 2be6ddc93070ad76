"""m2sd learn --minutes: fine-tuning that is kept only if base images say that it is better."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

import m2sd_cli
from m2sd_cli.api import fine_tuning, tuning_trial
from m2sd_cli.api import learn as learning
from m2sd_cli.errors import RunError, TrainingError, UsageError
from m2sd_cli.reports.draws import LabelledFeatures
from m2sd_cli.reports.rehearsal import Part, play
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, NetworksRecord, TuningRecord
from m2sd_cli.tables import BACKBONES, ImageNetWeights
from m2sd_cli.training import fitting
from m2sd_cli.training.loop import Training
from tests.helpers import COLOURS, Cli, check_refusal, fill, small_state, tree

SIX = [*COLOURS][:6]
MINUTES = 0.21  # one epoch of each stage, with steps of a second, one of the trial and two of all images
BETTER, EQUAL, WORSE = (80.0, 90.0), (80.0, 80.0), (80.0, 79.0)


@pytest.fixture(autouse=True)
def _small(small_backbone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best backbone is a small one, and a step takes a second on the clock."""
    monkeypatch.setattr(learning, "best_backbone", lambda: "small")
    monkeypatch.setattr(fine_tuning, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(fine_tuning, "monotonic", lambda: 0.0)


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of each of six colours, two of them to test with, and two of the others held out."""
    folder = tmp_path_factory.mktemp("six") / "photos"
    for colour in SIX:
        fill(folder, colour, 12)
    return folder


def judge(monkeypatch: pytest.MonkeyPatch, base: Any, harmonic: Any, held_out: Any = EQUAL) -> None:
    """Let comparisons come out so, each a figure of the frozen network and one of the tuned."""
    trial, confirmation = iter(zip(base, harmonic, strict=True)), iter(held_out)
    monkeypatch.setattr(fine_tuning, "compare", lambda *_: next(trial))
    monkeypatch.setattr(fine_tuning, "held_out_accuracy", lambda *_: next(confirmation))


def learn(folder: Path, run: Path, **options: Any) -> TuningRecord:
    stored = m2sd_cli.learn(folder, run=run, **{"minutes": MINUTES, "device": "cpu", **options}).stored
    assert stored == RunFolder(run).session(0)
    assert not (run / "tuning").exists()
    assert stored.manifest.tuning is not None
    return stored.manifest.tuning


def weights(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in run.glob("*.safetensors")}


@pytest.fixture(scope="session")
def frozen(six: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, bytes]]:
    """The weights of the same folder without --minutes."""
    run = tmp_path_factory.mktemp("frozen") / "run"

    def made() -> dict[str, bytes]:
        if not run.exists():
            m2sd_cli.learn(six, run=run, device="cpu")
        return weights(run)

    return made


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the trainings that are done from now on."""
    done: list[str] = []
    train = fine_tuning.FineTuning._train

    def noted(self: fine_tuning.FineTuning, training: str, *others: Any) -> RunFolder:
        done.append(training)
        return train(self, training, *others)

    monkeypatch.setattr(fine_tuning.FineTuning, "_train", noted)
    return done


@pytest.mark.parametrize(
    ("seconds", "first", "second", "epochs"),
    [
        (100, 10, 20, (4, 2)),  # 80 without the passes: half of it for two epochs of stage 2
        (100, 10, 79, None),
        (100, 10, 70, (1, 1)),
        (100, 10, 45, (3, 1)),  # less than one epoch of stage 2 is half of the time
        (0, 1, 1, None),
        (-5, 1, 1, None),
    ],
)
def test_the_time_is_divided_between_the_stages(
    seconds: float, first: float, second: float, epochs: tuple[int, int] | None
) -> None:
    assert fine_tuning.fit_epochs(seconds, first, second) == epochs
    if epochs is not None:
        assert epochs[0] * first + epochs[1] * second <= seconds - fine_tuning.PASSES * first


@pytest.mark.parametrize(
    ("base", "harmonic", "better"),
    [
        (BETTER, BETTER, True),
        (BETTER, EQUAL, True),
        (EQUAL, BETTER, True),
        (EQUAL, EQUAL, False),
        (BETTER, WORSE, False),
        (WORSE, BETTER, False),
    ],
)
def test_a_trial_is_won_in_one_figure_and_lost_in_none(base: Any, harmonic: Any, better: bool) -> None:
    def networks(figures: tuple[float, float]) -> NetworksRecord:
        return NetworksRecord(frozen=figures[0], tuned=figures[1])

    record = TuningRecord(minutes=1, trial_base=networks(base), trial_harmonic=networks(harmonic))
    assert tuning_trial.is_better(record) == better
    assert not tuning_trial.is_better(TuningRecord(minutes=1, reason="too short"))


def test_both_figures_of_a_trial_by_a_plain_loop() -> None:
    labels = torch.arange(6).repeat_interleave(12)
    features = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))[labels] + torch.rand(72, 8)
    part = Part.of(labels, 6, 0)
    record = BackboneRecord(name="resnet20", width=8, similarity="cosine", scale=16.0)
    base, harmonic = tuning_trial.compare(LabelledFeatures(features, labels), part, record, "means")
    old = part.old.tolist()
    rows: list[list[float]] = features.double().tolist()
    means = {}
    for label in old:
        own = [rows[i] for i in range(72) if labels[i] == label and not part.tested[i]]
        means[label] = [sum(column) / len(own) for column in zip(*own, strict=True)]
    right = []
    for i in (i for i in range(72) if int(labels[i]) in old and part.tested[i]):
        cosines = {
            label: sum(a * b for a, b in zip(rows[i], mean, strict=True)) / sum(b * b for b in mean) ** 0.5
            for label, mean in means.items()
        }
        right.append(max(cosines, key=lambda label: cosines[label]) == int(labels[i]))
    assert len(right) == 8
    assert base == pytest.approx(100 * fmean(right))
    draws = play(LabelledFeatures(features, labels), part, record, ["means"])["means"]
    assert harmonic == pytest.approx(fmean(each.harmonic for each in draws))


def test_the_whole_of_it_keeps_what_its_figures_say(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    run = tmp_path / "run"
    done = m2sd("learn", six, "--run", run, "--minutes", MINUTES, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if line.startswith(("--minutes", "trial of", "if it"))]
    assert said == [
        "--minutes 0.21: a step of 24 images takes 1 s in stage 1 and 1 s in stage 2",
        "trial of 24 images, without 2 of 6 classes: 1 epoch of stage 1 in about 1 s and 1 epoch of stage 2 in "
        "about 1 s",
        "if it is better, the same with all 48 images: 1 epoch of stage 1 in about 2 s and 1 epoch of stage 2 in "
        "about 2 s",
    ]
    tuning = TuningRecord.model_validate(json.loads(done.out)["tuning"])
    assert tuning == RunFolder(run).session(0).manifest.tuning
    assert tuning.trial_base is not None
    better = tuning_trial.is_better(tuning)
    assert (tuning.held_out is not None) == better
    assert tuning.tuned == (tuning.held_out is not None and tuning.held_out.tuned >= tuning.held_out.frozen)
    assert m2sd("sessions", "verify", "--run", run).code == 0


def test_the_better_network_is_kept_and_made_again(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[], dict[str, bytes]]
) -> None:
    judge(monkeypatch, BETTER, EQUAL)
    run = tmp_path / "run"
    tuning = learn(six, run)
    assert (tuning.tuned, tuning.pretrain_epochs, tuning.distill_epochs, tuning.left_out) == (True, 1, 1, 2)
    folder = RunFolder(run)
    first, base = folder.pretrain().manifest, folder.session(0).manifest
    assert (first.config["epochs"], first.config["optimizer"], len(first.history)) == (1, "adamw", 1)
    assert (base.config["epochs"], base.config["clean_weight"], base.classifier) == (1, 1.0, "centred")
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    assert weights(run) != frozen()
    assert m2sd_cli.reproduce(run=run, data=six).same
    assert m2sd_cli.learn(six, run=run, minutes=MINUTES, resume=True, device="cpu").stored == folder.session(0)


@pytest.mark.parametrize(
    ("figures", "trainings", "says"),
    [
        (
            (BETTER, WORSE),
            ["trial"],
            "fine-tuning is not kept: it was not better in a trial, so the network is as it was, in less time\n"
            "  trial without 2 of the classes, accuracy on the other 4: 90.0 %, without fine-tuning 80.0 %\n"
            "  these 2 taught as new, harmonic mean of both kinds: 79.0 %, without fine-tuning 80.0 %\n",
        ),
        (
            (BETTER, BETTER, WORSE),
            ["trial", "whole"],
            "  all classes, accuracy on photos held out: 79.0 %, without fine-tuning 80.0 %\n",
        ),
    ],
)
def test_the_frozen_network_is_kept_where_it_is_better(
    six: Path,
    tmp_path: Path,
    m2sd: Cli,
    monkeypatch: pytest.MonkeyPatch,
    frozen: Callable[[], dict[str, bytes]],
    figures: Any,
    trainings: list[str],
    says: str,
) -> None:
    judge(monkeypatch, *figures)
    done = trained(monkeypatch)
    outcome = m2sd("learn", six, "--run", tmp_path / "run", "--minutes", MINUTES, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert done == trainings
    assert says in outcome.out
    assert weights(tmp_path / "run") == frozen()
    manifest = RunFolder(tmp_path / "run").session(0).manifest
    assert manifest.choice is not None
    assert manifest.tuning is not None
    assert not manifest.tuning.tuned
    assert not (tmp_path / "run" / "tuning").exists()


def test_too_little_time_is_told(
    six: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[], dict[str, bytes]]
) -> None:
    monkeypatch.setattr(fine_tuning, "step_seconds", fitting.step_seconds)
    done = m2sd("learn", six, "--run", tmp_path / "run", "--minutes", 1e-6, "--device", "cpu")
    assert done.code == 0, done.err
    assert "fine-tuning: none, the network is as it was: one epoch of each stage takes about " in done.out
    assert weights(tmp_path / "run") == frozen()


def test_a_training_that_fails_leaves_the_frozen_network(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[], dict[str, bytes]]
) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("no finite value of loss")

    monkeypatch.setattr(fine_tuning, "fit_distill", fail)
    tuning = learn(six, tmp_path / "run")
    assert (tuning.tuned, tuning.reason) == (False, "no finite value of loss")
    assert weights(tmp_path / "run") == frozen()


def test_a_lack_of_memory_is_its_reason(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[], dict[str, bytes]]
) -> None:
    def step(_training: Training, _sums: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(fine_tuning, "step_seconds", fitting.step_seconds)
    monkeypatch.setattr(Training, "_step", step)
    tuning = learn(six, tmp_path / "run", minutes=1)
    assert tuning.reason is not None
    assert tuning.reason.startswith("pretrain: the memory of cpu is too small")
    assert "--batch-size" not in tuning.reason  # which learn does not have
    assert weights(tmp_path / "run") == frozen()


@pytest.mark.usefixtures("signals_as_at_a_terminal")
@pytest.mark.parametrize(("stop_at", "left"), [(3, ["trial", "whole"]), (6, ["whole"])])
def test_an_interrupted_one_goes_on_to_the_same_end(
    six: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, stop_at: int, left: list[str]
) -> None:
    """Two epochs: steps 1 and 2 are the trial's stage 1, 3 and 4 its stage 2, 5 to 8 and 9 to 12 those of the whole."""
    steps = 0
    step = Training._step

    def stopped(self: Training, sums: Any) -> None:
        nonlocal steps
        steps += 1
        step(self, sums)
        if steps == stop_at:
            signal.raise_signal(signal.SIGTERM)

    run, words = tmp_path / "run", ["--minutes", 0.31, "--device", "cpu"]
    judge(monkeypatch, BETTER, BETTER)
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_step", stopped)
        done = m2sd("learn", six, "--run", run, *words)
    assert (done.code, done.err.splitlines()[-1]) == (
        130,
        "m2sd: interrupted and saved; go on with the same command and --resume",
    )
    check_refusal(m2sd("learn", six, "--run", run, *words), 4, "a fine-tuning that --resume goes on with")
    check_refusal(m2sd("learn", six, "--run", run, "--minutes", 3, "--resume"), 2, "--minutes 3: it began with 0.31")
    assert m2sd("predict", "--run", run, six / "red" / "red-00.png", "--device", "cpu").code == 0
    gone_on = trained(monkeypatch)
    done = m2sd("learn", six, "--run", run, *words, "--resume")
    assert done.code == 0, done.err
    assert gone_on == left
    judge(monkeypatch, BETTER, BETTER)
    learn(six, tmp_path / "straight", minutes=0.31)
    assert weights(run) == weights(tmp_path / "straight")


def test_one_that_was_killed_while_it_replaced_the_network_goes_on(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, BETTER, BETTER)
    run = tmp_path / "run"
    write, copied = RunFolder.write_manifest, RunFolder.copy_pretrain

    def kill(self: RunFolder, *_: Any) -> None:
        copied(self, *_)
        monkeypatch.setattr(RunFolder, "write_manifest", lambda *_: 1 / 0)

    monkeypatch.setattr(RunFolder, "copy_pretrain", kill)
    with pytest.raises(ZeroDivisionError):
        learn(six, run)
    assert RunFolder(run).sessions() == [0]
    assert RunFolder(run).session(0).manifest.tuning is None
    assert RunFolder(run).verify() == []
    monkeypatch.setattr(RunFolder, "copy_pretrain", copied)
    monkeypatch.setattr(RunFolder, "write_manifest", write)
    assert learn(six, run, resume=True).tuned


def test_a_frozen_network_is_tuned_later(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m2sd_cli.learn(six, run=tmp_path / "run", device="cpu")
    with pytest.raises(RunError, match="session 0 is in it, which --resume fine-tunes; --force replaces it"):
        learn(six, tmp_path / "run")
    judge(monkeypatch, BETTER, BETTER)
    assert learn(six, tmp_path / "run", resume=True).tuned
    with pytest.raises(RunError, match="session 0 is in it; --force replaces it"):
        learn(six, tmp_path / "run")


def test_one_interrupted_before_it_trains_is_gone_on_with(
    six: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    words = ["learn", six, "--run", tmp_path / "run", "--minutes", MINUTES, "--device", "cpu"]
    with monkeypatch.context() as patched:
        patched.setattr(fine_tuning, "step_seconds", interrupted)
        check_refusal(m2sd(*words), 130, "m2sd: interrupted; go on with the same command and --resume")
    judge(monkeypatch, WORSE, WORSE)
    assert m2sd(*words, "--resume").code == 0


def test_it_goes_on_with_the_same_alone(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    again: dict[str, Any] = {"run": run, "minutes": MINUTES, "resume": True, "device": "cpu"}
    with pytest.raises(RunError, match="no network of 'm2sd learn' in it to go on with; leave --resume out"):
        m2sd_cli.learn(six, **again)
    assert not run.exists()
    m2sd_cli.learn(six, run=run, device="cpu")
    before = tree(run)
    with pytest.raises(UsageError, match="--resume: goes on with --minutes alone"):
        m2sd_cli.learn(six, run=run, resume=True, device="cpu")
    with pytest.raises(UsageError, match="--image-size: it began without it; leave it out"):
        m2sd_cli.learn(six, **again, image_size=24)
    with pytest.raises(UsageError, match="--classifier: it began with centred"):
        m2sd_cli.learn(six, **again, classifier="fecam")
    other = shutil.copytree(six, tmp_path / "photos")
    (other / "red" / "red-00.png").unlink()
    with pytest.raises(UsageError, match="photos: it began with other images: 'red' has "):
        m2sd_cli.learn(other, **again)
    assert tree(run) == before
    fill(tmp_path / "shots", "grey", 3)
    m2sd_cli.increment(run=run, shots=tmp_path / "shots", device="cpu")
    with pytest.raises(RunError, match="session 1 was taught, and would be replaced"):
        m2sd_cli.learn(six, **again)


def test_a_network_that_others_trained_is_not_gone_on_with(six: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"run": tmp_path / "run", "epochs": 1, "batch_size": 24, "device": "cpu"}
    m2sd_cli.pretrain(six, **common, backbone="small", init="imagenet", held_out=0.2)
    m2sd_cli.distill(**{**common, "epochs": 0})
    with pytest.raises(RunError, match="its network was not made by 'm2sd learn'"):
        m2sd_cli.learn(six, run=tmp_path / "run", minutes=MINUTES, resume=True, device="cpu")


def test_few_classes_and_no_time_are_refused(six: Path, tmp_path: Path, m2sd: Cli) -> None:
    for minutes in (0, -1, "nan", 1e9):
        check_refusal(
            m2sd("learn", six, "--run", tmp_path / "run", "--minutes", minutes), 2, "more than 0, and at most"
        )
    few = shutil.copytree(six, tmp_path / "few")
    shutil.rmtree(few / "red")
    check_refusal(
        m2sd("learn", few, "--run", tmp_path / "run", "--minutes", 1),
        2,
        "only a trial in which some classes play new ones tells if it pays: it takes 6 classes of 6 photos",
    )
    assert not (tmp_path / "run").exists()


def test_a_network_that_is_off_wins_its_trial_and_is_kept(
    six: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No figure is made up here: the means of all batch norms are off, which a few steps mend."""

    def off(name: str) -> dict[str, Tensor]:
        return {key: each + 2 if key.endswith("running_mean") else each for key, each in small_state(name).items()}

    spoilt = replace(BACKBONES["small"], imagenet=ImageNetWeights(off, "off", image_size=16, resize=16))
    monkeypatch.setitem(BACKBONES.entries, "small", spoilt)
    run = tmp_path / "run"
    done = m2sd("learn", six, "--run", run, "--minutes", 1.3, "--device", "cpu")
    tuning = RunFolder(run).session(0).manifest.tuning
    assert (done.code, tuning is not None and tuning.tuned) == (0, True), done.err + done.out
    assert tuning is not None
    figures = [tuning.trial_base, tuning.trial_harmonic, tuning.held_out]
    assert all(each is not None and each.tuned > each.frozen + 30 for each in figures), figures
    assert "\nfine-tuning is kept: it was better in a trial, and not worse on photos held out\n" in done.out
    share = float(done.out.splitlines()[1].split()[2])  # of the images to test with, which none of it has seen
    assert share > 60, done.out
