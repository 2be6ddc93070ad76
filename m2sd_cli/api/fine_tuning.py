"""Fine-tuning of a pretrained network within minutes, which is kept only if base images say that it is better.

A trial decides first: it trains without a third of the classes, and these play new ones. Two figures
are compared with the published network's: the accuracy on the others, and the harmonic mean with the new ones. If none
is lower and one is higher, a training on all classes follows. Held-out images of all classes have the last word.
"""

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import torch

from m2sd_cli import progress
from m2sd_cli.api.base_session import fit_distill
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.api.tuning_trial import compare, held_out_accuracy, is_better
from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.sources import select_where
from m2sd_cli.errors import RunError, TrainingError, UsageError, os_errors_as
from m2sd_cli.inference.session import to_transform
from m2sd_cli.reports.draws import embed_source
from m2sd_cli.reports.rehearsal import Part, sample_images, why_not
from m2sd_cli.runs.files import TEXT_LIMIT, read_bounded, write_atomically
from m2sd_cli.runs.folder import TRIAL, TUNING, WHOLE, RunFolder
from m2sd_cli.runs.manifest import NetworksRecord, TuningRecord, TuningState
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest, session_name
from m2sd_cli.runs.training_log import LOG
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.training.distill import (
    build_enhancement,
    distill_module,
    distill_objective,
    loss_weights,
)
from m2sd_cli.training.execution import Execution
from m2sd_cli.training.fitting import step_seconds
from m2sd_cli.training.job import Job
from m2sd_cli.training.memory import freed_memory_kept
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from m2sd_cli.training.records import base_records
from m2sd_cli.training.resuming import load_state

DISTILL: Final = "distill"
MOST_MINUTES = 10**6
BATCH = 32  # images a step: few, so that a small folder has many steps
# Of stage 2. Stage 1 is trained as any other that begins from trained weights.
SECOND_STAGE = {"optimizer": "adamw", "learning_rate": 5e-4, "backbone_rate": 0.1, "clean_weight": 1.0}
PASSES = 2.0  # epochs of stage 1 that the passes for means and comparisons take together
MEASURED_EPOCHS = 1000  # more than a measurement needs


def refuse_minutes(minutes: float, data: DataSet, execution: Execution) -> None:
    """Refuse a time that is none, and a folder of which no class can play a new one.

    Raises:
        UsageError: it is refused.
    """
    if not 0 < minutes <= MOST_MINUTES:
        raise UsageError(f"--minutes {minutes:g}: more than 0, and at most {MOST_MINUTES}")
    if execution.group.size > 1:
        raise UsageError("--minutes: for one process; begin without torchrun")
    reason = why_not(data.train.labels, data.base)
    if reason is not None:
        raise UsageError(
            f"--minutes {minutes:g}: only a trial in which some classes play new ones tells if it pays: {reason}; "
            f"leave --minutes out"
        )


@dataclass(frozen=True)
class FineTuning:
    """Fine-tuning of the network of a run whose session 0 was made without training."""

    run: RunFolder  # locked
    data: DataSet  # with held-out images
    settings: PretrainConfig  # of stage 1, which has 0 epochs
    init: str | None  # the weights to begin from
    minutes: float
    execution: Execution

    def decide(self) -> StoredManifest:
        """Train within the time, or go on with it, and let session 0 be that of the better network.

        Returns:
            The manifest of session 0, which has the decision with its figures.

        Raises:
            RunError: the run has changed since the fine-tuning was interrupted.
            UsageError: it had begun with another time.
            InterruptedTrainingError: a signal ended it; it can be gone on with.
        """
        began = monotonic()
        source = self.run
        try:
            record = self._load() or self._begin(began)
            if record.reason is None and record.trial_base is None:
                record = self._save(self._try(record))
            if is_better(record) and record.held_out is None:
                record = self._save(self._confirm(record))
        except TrainingError as error:  # the frozen network is as good as before
            reason = str(error).partition(";")[0]  # the way out behind it is that of another command
            record = TuningRecord(minutes=self.minutes, reason=reason[:1024])
        if record.tuned:
            source = self._folder(WHOLE)
        stored = self._install(source, record)
        self.run.remove_tuning()
        return stored

    # ---- the state, so that an interrupted one can be gone on with

    def _folder(self, training: str) -> RunFolder:
        return RunFolder(self.run.tuning / training)

    def _load(self) -> TuningRecord | None:
        try:
            state = self._state()
        except FileNotFoundError:
            return None
        newest = self.run.newest()
        if newest is None or newest.sha256 != state.frozen:
            raise RunError(
                f"{self.run.path}: it has changed since the fine-tuning was interrupted, which would replace "
                f"{newest.file if newest else 'it'}; start over with --force if that may be lost"
            )
        if state.record.minutes != self.minutes:
            raise UsageError(
                f"--minutes {self.minutes:g}: it began with {state.record.minutes:g}; give it these, or start over "
                f"with --force"
            )
        return state.record

    def _state(self) -> TuningState:
        path = self.run.tuning / TUNING
        return TuningState.decoded(path, read_bounded(path, TEXT_LIMIT))

    def _save(self, record: TuningRecord) -> TuningRecord:
        with os_errors_as(RunError, f"{self.run.tuning}: cannot be made"):
            self.run.tuning.mkdir(exist_ok=True)
        try:
            frozen = self._state().frozen
        except FileNotFoundError:
            frozen = self.run.session(0).record.sha256
        write_atomically(self.run.tuning / TUNING, TuningState(frozen=frozen, record=record).encoded())
        return record

    # ---- the plan

    def _begin(self, began: float) -> TuningRecord:
        """Measure the steps of both stages, and say which epochs fit."""
        trial = self._trial()[1]
        batch = min(BATCH, len(trial.train))
        first, second = self._measure(trial)
        steps = [math.ceil(len(each.train) / batch) for each in (trial, self.data)]
        left = 60 * self.minutes - (monotonic() - began)
        epochs = fit_epochs(left, sum(steps) * first, sum(steps) * second)
        progress.say(
            f"--minutes {self.minutes:g}: a step of {batch} images takes {first:.2g} s in stage 1 and {second:.2g} s "
            f"in stage 2"
        )
        record = TuningRecord(minutes=self.minutes, left_out=self.data.base - trial.base)
        if epochs is None:
            least = progress.duration(sum(steps) * ((1 + PASSES) * first + second) + monotonic() - began)
            reason = f"one epoch of each stage takes about {least}, in a trial and on all images"
            return self._save(record.model_copy(update={"reason": reason}))
        one, two = epochs
        for count, said in zip(
            steps,
            (
                f"trial of {len(trial.train)} images, without {record.left_out} of {self.data.base} classes",
                f"if it is better, the same with all {len(self.data.train)} images",
            ),
            strict=True,
        ):
            times = (
                f"{number} {'epoch' if number == 1 else 'epochs'} of stage {stage} in about "
                f"{progress.duration(number * count * seconds)}"
                for stage, number, seconds in ((1, one, first), (2, two, second))
            )
            progress.say(f"{said}: {' and '.join(times)}")
        return self._save(record.model_copy(update={"pretrain_epochs": one, "distill_epochs": two}))

    def _configs(self, epochs: tuple[int, int]) -> tuple[PretrainConfig, DistillConfig]:
        """Choose the options of both stages."""
        settings = self.settings
        kept = {name: getattr(settings, name) for name in ("backbone", "init", "image_size", "held_out")}
        first: dict[str, Any] = {**kept, "epochs": epochs[0], "batch_size": BATCH}
        classifier = self.run.session(0).manifest.classifier
        second = {**SECOND_STAGE, "epochs": epochs[1], "batch_size": BATCH, "classifier": classifier}
        return resolve(PretrainConfig, Sources({}, options=first)), resolve(DistillConfig, Sources({}, options=second))

    def _measure(self, data: DataSet) -> tuple[float, float]:
        """Measure the seconds of a step of each stage, with random weights."""
        first, second = self._configs((MEASURED_EPOCHS, MEASURED_EPOCHS))
        network = build_network(first, data.base, data.transform.crop)
        weights = loss_weights(second)
        enhancement = build_enhancement(network, second, weights)
        run, classes, execution = self._folder(TRIAL), base_records(data), self.execution
        jobs = Job(PRETRAIN, run, data, classes, first, execution), Job(DISTILL, run, data, classes, second, execution)
        one = step_seconds(jobs[0], network, pretrain_objective(network, first))
        module = distill_module(network, enhancement)
        return one, step_seconds(jobs[1], module, distill_objective(network, enhancement, second, weights))

    # ---- the trainings

    def _trial(self) -> tuple[Part, DataSet]:
        """Divide the base images, and leave classes and images to test with out of the training images."""
        data = self.data
        chosen = sample_images(data.train.labels, data.base)
        part = Part.of(data.train.labels[chosen], data.base, 0)
        tested = torch.zeros(len(data.train), dtype=torch.bool)
        tested[chosen] = part.tested
        place = torch.full((data.base,), -1)
        place[part.old] = torch.arange(len(part.old))
        labels = place[data.train.labels]
        learned = ((labels >= 0) & ~tested).nonzero().flatten()
        names = [data.classes[label] for label in part.old.tolist()]
        train = data.train.select(learned, labels[learned])
        return part, replace(data, classes=names, base=len(names), train=train, held_out=None)

    def _train(self, training: str, data: DataSet, record: TuningRecord) -> RunFolder:
        """Train both stages into a folder, or the part of them that an interruption has left."""
        folder, classes = self._folder(training), base_records(data)
        first, second = self._configs((record.pretrain_epochs, record.distill_epochs))
        store = StateStore(folder)
        with folder.locked("learn"):
            if not folder.has_pretrain():
                state = load_state(store, PRETRAIN) if store.exists() else None
                execution = self.execution.resumed_from(state) if state else self.execution
                with progress.stage(f"{training}, stage 1"):
                    fit_pretrain(Job(PRETRAIN, folder, data, classes, first, execution, init=self.init, state=state))
            if not folder.sessions():
                state = load_state(store, DISTILL) if store.exists() else None
                execution = self.execution.resumed_from(state) if state else self.execution
                parent = folder.pretrain()
                with progress.stage(f"{training}, stage 2"):
                    fit_distill(Job(DISTILL, folder, data, classes, second, execution, parent=parent, state=state))
        return folder

    def _try(self, record: TuningRecord) -> TuningRecord:
        """Train without some classes, and compare both networks on images that neither has learned."""
        part, data = self._trial()
        trained = self._train(TRIAL, data, record)
        frozen = self.run.session(0).manifest
        source = select_where(self.data.train, sample_images(self.data.train.labels, self.data.base))
        base, harmonic = [], []
        for run in (self.run, trained):
            backbone = BaseCheckpoint.read(run, run.session(0)).backbone
            backbone.to(self.execution.device).to(memory_format=torch.channels_last)
            transform = to_transform(frozen.transform)
            with freed_memory_kept(self.execution.device):
                known = embed_source(backbone, source, transform, "fp32", "features of base images")
            figures = compare(known, part, frozen.backbone, str(frozen.classifier))
            base.append(figures[0])
            harmonic.append(figures[1])
        update = {"trial_base": _networks(base), "trial_harmonic": _networks(harmonic)}
        return record.model_copy(update=update)

    def _confirm(self, record: TuningRecord) -> TuningRecord:
        """Train on all base classes, and compare both networks on the held-out images."""
        trained = self._train(WHOLE, self.data, record)
        held_out = _networks([held_out_accuracy(run, run.session(0)) for run in (self.run, trained)])
        return record.model_copy(update={"held_out": held_out, "tuned": held_out.tuned >= held_out.frozen})

    def _install(self, source: RunFolder, record: TuningRecord) -> StoredManifest:
        """Make the chain of a folder that of the run, with the decision in session 0."""
        stored, name = source.session(0), session_name(0)
        tensors = source.tensors(stored)
        with self.run.at_once():
            if source is not self.run:
                self.run.copy_pretrain(source)
            update = {"tuning": record, "checkpoint": self.run.write_checkpoint(name, tensors)}
            decided = self.run.write_manifest(name, stored.manifest.model_copy(update=update))
        if source is not self.run:
            with suppress(OSError):
                shutil.copyfile(source.path / LOG, self.run.path / LOG)
        return decided


def fit_epochs(seconds: float, first: float, second: float) -> tuple[int, int] | None:
    """Choose the epochs of both stages, each of which gets about half of a time; None if one of each takes longer.

    Args:
        seconds: the time, also for the passes that compare.
        first, second: seconds of an epoch of each stage, in the trial and on all images together.
    """
    left = seconds - PASSES * first
    distill = max(1, int(left / 2 / second))
    pretrain = int((left - distill * second) / first)
    return (pretrain, distill) if pretrain >= 1 else None


def _networks(figures: list[float]) -> NetworksRecord:
    return NetworksRecord(frozen=figures[0], tuned=figures[1])
