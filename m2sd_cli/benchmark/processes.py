"""Time of commands from the start of their process to its end, on a small run made for the purpose."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import m2sd_cli
from m2sd_cli.benchmark import launcher
from m2sd_cli.benchmark.report import Latency
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.timing import Measurements
from m2sd_cli.errors import M2sdError
from m2sd_cli.plugin_files import OPTION, loaded
from m2sd_cli.progress import say
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES

WAY, SHOTS = 5, 5
M2SD = ["-m", "m2sd_cli"]
PIXELS = 256  # both sides of a generated image
MOST_ROUNDS = 3

# A function of the run folder, a folder of images of its base classes, and the settings; it makes the run.
MakeRun = Callable[[Path, Path, Settings], None]


@dataclass(frozen=True)
class Launched:
    """Time and memory of a process that has ended without an error."""

    seconds: float
    peak_resident_bytes: int | None


def launch(words: list[str]) -> Launched:
    """Run Python with these arguments to its end.

    Raises:
        M2sdError: the process failed.
    """
    command = [sys.executable, "-I", "-S", launcher.__file__, sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())  # noqa: S603
    outcome = json.loads(done.stdout) if done.returncode == 0 else {"code": done.returncode}
    if outcome["code"]:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise M2sdError(f"a process to be timed failed, python {' '.join(words)}: {reason}")
    return Launched(outcome["seconds"], outcome["peak_resident_bytes"])


def _environment() -> dict[str, str]:
    """Return an environment in which a new process finds the package that this one runs, installed or not."""
    home = str(Path(m2sd_cli.__file__).parent.parent)
    if home == sysconfig.get_path("purelib"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}


def write_images(folder: Path, classes: int, each: int) -> None:
    """Write noise as FOLDER/CLASS/*.jpg."""
    random = np.random.default_rng(0)
    for label in range(classes):
        of_class = folder / f"{folder.name}-{label}"
        of_class.mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(of_class / f"{number}.jpg")


def measure_processes(settings: Settings, make_run: MakeRun) -> dict[str, Latency]:
    """Measure increment, predict, the help page, which imports no torch, and the import of torch alone.

    Commands name the files that this process has named. There are no figures of a network that no other process knows.

    Raises:
        M2sdError: a command failed.
    """
    backbone = settings.pretrain.backbone
    if BACKBONES.is_of_this_process(backbone):
        say(f"processes: not timed, as this process alone knows {backbone}; name the file that has it with {OPTION}")
        return {}
    plugins = [word for file in loaded for word in (OPTION, str(file))]
    rounds = min(settings.rounds, MOST_ROUNDS)
    with TemporaryDirectory(prefix="m2sd-bench-") as temporary:
        folder = Path(temporary)
        run = RunFolder(folder / "run")
        say("processes: making a run to teach and to ask")
        write_images(folder / "base", WAY, 1)
        make_run(run.path, folder / "base", settings)
        write_images(folder / "new", WAY, SHOTS)
        common = ["--run", str(run.path), "--device", str(settings.device), "--precision", settings.precision]
        commands = {
            "import_torch": ["-c", "import torch"],
            "help": [*M2SD, "--help"],
            "increment": [
                *M2SD,
                *plugins,
                "increment",
                "--session",
                "1",
                "--shots",
                str(folder / "new"),
                "-q",
                *common,
            ],
            "predict": [*M2SD, *plugins, "predict", str(folder / "base" / "base-0" / "0.jpg"), *common],
        }
        launch(commands["import_torch"])  # brings torch's files into the system's cache
        launches: dict[str, list[Launched]] = {name: [] for name in commands}
        for number in range(rounds):
            say(f"processes: round {number + 1} of {rounds}")
            for name, words in commands.items():
                launches[name].append(launch(words))
            with run.locked("bench"):
                run.remove_sessions(first=1)
    return {name: _latency(each) for name, each in launches.items()}


def _latency(launches: list[Launched]) -> Latency:
    peaks = [each.peak_resident_bytes for each in launches if each.peak_resident_bytes is not None]
    return Latency(Measurements.of([each.seconds for each in launches]), max(peaks, default=None))
