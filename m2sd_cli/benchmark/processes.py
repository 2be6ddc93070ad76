"""How long commands take from the start of their process to its end, on a small run made for the purpose."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import m2sd_cli
from m2sd_cli.benchmark import launcher
from m2sd_cli.benchmark.report import Latency
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.timing import Measurements
from m2sd_cli.data.folders import open_folder
from m2sd_cli.errors import InterruptedTrainingError, M2sdError
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.distill import run_distill
from m2sd_cli.training.pretrain import run_pretrain
from m2sd_cli.training.stage import Execution

WAY, SHOTS = 5, 5
PIXELS = 256  # both sides of a generated picture
MOST_ROUNDS = 3


@dataclass(frozen=True)
class Launched:
    """One process that has ended well."""

    seconds: float
    peak_resident_bytes: int | None


def launch(words: list[str]) -> Launched:
    """Run Python with these words to the end.

    Raises:
        M2sdError: it failed.
    """
    command = [sys.executable, "-I", "-S", launcher.__file__, sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())  # noqa: S603
    outcome = json.loads(done.stdout) if done.returncode == 0 else {"code": done.returncode}
    if outcome["code"]:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise M2sdError(f"a process to be timed failed, python {' '.join(words)}: {reason}")
    return Launched(outcome["seconds"], outcome["peak_resident_bytes"])


def _environment() -> dict[str, str]:
    """Lets a new process find the package that this one runs, if it is not an installed one."""
    home = str(Path(m2sd_cli.__file__).parent.parent)
    if home == sysconfig.get_path("purelib"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}


def write_pictures(folder: Path, classes: int, each: int) -> None:
    """Noise as FOLDER/CLASS/*.jpg."""
    random = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"{folder.name}-{label}"
        place.mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.jpg")


def make_run(run: RunFolder, pictures: Path, settings: Settings) -> None:
    """A run with a base session, after a single step of training."""
    write_pictures(pictures, WAY, 1)
    data = open_folder(pictures, settings.image_size)
    machine = Execution(settings.device, settings.precision)
    once = replace(settings.pretrain, epochs=1)
    try:
        with run.locked("bench"):
            parent = run_pretrain(run, data, once, machine, None, None)
            assert parent is not None, "no time limit ends it"
            run_distill(run, parent, data, replace(settings.distill, epochs=0), machine, None)
    except InterruptedTrainingError:
        raise InterruptedTrainingError("interrupted") from None


def measure_processes(settings: Settings, tell: Callable[[str], None]) -> dict[str, Latency]:
    """Seconds and memory of increment and predict, of the help that imports no torch, and of importing torch alone.

    Args:
        settings: which network on which device.
        tell: hears what is being done.

    Raises:
        M2sdError: a command failed.
    """
    rounds = min(settings.rounds, MOST_ROUNDS)
    with TemporaryDirectory(prefix="m2sd-bench-") as temporary:
        place = Path(temporary)
        run = RunFolder(place / "run")
        tell("processes: making a run to teach and to ask")
        make_run(run, place / "base", settings)
        write_pictures(place / "new", WAY, SHOTS)
        common = ["--run", str(run.path), "--device", str(settings.device), "--precision", settings.precision]
        m2sd = ["-m", "m2sd_cli"]
        commands = {
            "import_torch": ["-c", "import torch"],
            "help": [*m2sd, "--help"],
            "increment": [*m2sd, "increment", "--session", "1", "--shots", str(place / "new"), "-q", *common],
            "predict": [*m2sd, "predict", str(place / "base" / "base-0" / "0.jpg"), *common],
        }
        launch(commands["import_torch"])  # from now on torch's files are in memory
        found: dict[str, list[Launched]] = {name: [] for name in commands}
        for number in range(rounds):
            tell(f"processes: round {number + 1} of {rounds}")
            for name, words in commands.items():
                found[name].append(launch(words))
            with run.locked("bench"):
                run.remove_sessions(first=1)
    return {name: _latency(each) for name, each in found.items()}


def _latency(is_distributed: list[Launched]) -> Latency:
    peaks = [each.peak_resident_bytes for each in is_distributed if each.peak_resident_bytes is not None]
    return Latency(Measurements.of([each.seconds for each in is_distributed]), max(peaks, default=None))
