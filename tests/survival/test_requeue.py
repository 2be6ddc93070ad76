"""A job whose command is repeated until it has finished, whatever ends it meanwhile."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from m2sd_cli.errors import StoppedError
from tests.survival.nursery import Nursery
from tests.survival.scenes import DISTILL, PRETRAIN, Scene, state

Scenes = Callable[[str], Scene]
OPTIONS = ["--requeue", "--save-every", "0s"]
KILLED = 2  # times, each of the stages


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_job_that_was_ended_twice_in_each_stage_has_the_same_weights(
    number: signal.Signals, scenes: Scenes, nursery: Nursery, tmp_path: Path
) -> None:
    scene = scenes("distill")
    scene.set(tmp_path / "folder")
    run = tmp_path / "folder" / "run"
    draw = random.Random(f"requeue {number}")
    commands = [scene.spelt([*words, *OPTIONS], tmp_path / "folder") for words in (PRETRAIN, DISTILL)]
    for path in sorted(run.iterdir()):
        path.unlink()
    moments = nursery.run(*commands[0], "--stop-after", "0s").moments
    for command in commands:
        for _ in range(KILLED):
            if number == signal.SIGKILL:
                assert nursery.run(*command, crash_at=draw.randint(1, moments)).code == -number
            else:
                end = nursery.run(*command, signal=number, after=draw.uniform(0, 0.5))
                assert end.code in (0, -number, StoppedError.exit_code), end
        assert nursery.run(*command).code == 0
    assert state(run) == scene.new
    for command in commands:
        end = nursery.run(*[word for word in command if word != "-q"])
        assert (end.code, end.out) == (0, "")
        assert "it has finished before, and nothing is left to do\n" in end.err
    assert state(run) == scene.new


def test_stopped_in_time_and_finished_have_their_own_codes(scenes: Scenes, nursery: Nursery, tmp_path: Path) -> None:
    scene = scenes("distill")
    scene.set(tmp_path / "folder")
    command = scene.spelt([*DISTILL, "--requeue"], tmp_path / "folder")
    end = nursery.run(*command, "--stop-after", "0s")
    assert (end.code, end.out) == (StoppedError.exit_code, "")
    assert end.err == "m2sd: distill: time is up; saved. Go on with the same command and --resume, or with --requeue\n"
    first = scene.spelt([*PRETRAIN[:3], "--requeue", "--data", "DATA"], tmp_path / "folder")
    end = nursery.run(*first)
    assert (end.code, "nothing is left to do" in end.err) == (0, True), end  # and distill's state is as it was
    assert nursery.run(*command).code == 0
    assert state(tmp_path / "folder" / "run") == scene.new


def test_another_training_is_refused_and_so_is_force(scenes: Scenes, nursery: Nursery, tmp_path: Path) -> None:
    scene = scenes("distill")
    scene.set(tmp_path / "folder")
    first = scene.spelt([*PRETRAIN, "--requeue"], tmp_path / "folder")
    assert nursery.run(*first, "--force").code == 2
    other = nursery.run(*first, "--seed", "1")
    assert (other.code, "--seed 1: the training began with 0" in other.err) == (2, True), other
    assert state(tmp_path / "folder" / "run") == scene.old
