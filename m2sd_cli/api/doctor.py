"""Examination of this installation and machine: versions, devices, memory, disk, data, run folder.

The probes import torch, and each of them fails softly: a broken installation is one to examine.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from m2sd_cli.data.cache import as_size, cache_folder, list_entries
from m2sd_cli.data.catalogue import all_infos
from m2sd_cli.data.locate import ROOT_VARIABLE, locate
from m2sd_cli.errors import M2sdError, RunError
from m2sd_cli.extras import DISTRIBUTION, install_extra
from m2sd_cli.host import core_limit, cores, cpu_model, memory
from m2sd_cli.pairing import describe_failure, describe_wrong_pair, install_command
from m2sd_cli.paths import environment_path, expand_given
from m2sd_cli.reading import counted

DISK_NEEDED: Final = 200 * 10**6  # bytes: the checkpoints and the state of a training of ResNet-18
MEMORY_NEEDED: Final = 800 * 10**6  # bytes: a small network's training on a CPU, torch included
DRIVER_PATIENCE: Final = 5.0  # seconds
FOLDERS: Final = ("cache", "run", "data")  # probes of a folder


@dataclass(frozen=True)
class Finding:
    """The outcome of one probe."""

    name: str
    line: str  # for people
    facts: dict[str, Any] = field(default_factory=dict)  # for JSON
    problems: list[str] = field(default_factory=list)  # for which a training would fail here, each with the way out
    remarks: list[str] = field(default_factory=list)  # on what works, but worse than it could


@dataclass(frozen=True)
class Diagnosis:
    """The findings of all probes."""

    findings: list[Finding]

    @property
    def problems(self) -> list[str]:
        """List the reasons for which a training would fail here."""
        return [each for finding in self.findings for each in finding.problems]

    @property
    def remarks(self) -> list[str]:
        """List the parts that work worse than they could."""
        return [each for finding in self.findings for each in finding.remarks]


def doctor(*, run: Path | str | None = None, data_root: Path | str | None = None) -> Diagnosis:
    """Examine whether a training would work here. Nothing is changed or downloaded.

    Args:
        run: the run folder that it would use.
        data_root: the folder of built-in data sets.
    """
    root = expand_given(data_root, "--data-root")
    probes: dict[str, Callable[[], Finding]] = {
        "m2sd": _installation,
        "python": _python,
        "torch": _torch,
        "torchvision": _torchvision,
        "gpu": _gpu,
        "cpu": _cpu,
        "memory": _memory,
        "cache": _cache,
        "run": lambda: _run(run),
        "data": lambda: _data(root),
        "extras": _extras,
    }
    return Diagnosis([_examine(name, probe) for name, probe in probes.items()])


def _examine(name: str, probe: Callable[[], Finding]) -> Finding:
    try:
        return probe()
    except Exception as error:
        # A training would end with a folder that cannot be looked at. Another probe tells of a library that is broken.
        problems = [f"{name}: {_reason(error)}"] if name in FOLDERS and isinstance(error, OSError | M2sdError) else []
        return Finding(name, f"not known: {_reason(error)}", {"unknown": _reason(error)}, problems)


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# ---- the software


def _installation() -> Finding:
    wrong, versions = [], {}
    for required in _required(None):
        name, bound = required
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed; pip install '{name}>={bound}'")
            continue
        if _numbers(versions[name]) < _numbers(bound):
            wrong.append(f"{name} {versions[name]} is older than {bound}; pip install '{name}>={bound}'")
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Finding("m2sd", "its sources alone: what it requires is not known", {"version": None, "requires": {}})
    return Finding("m2sd", version, {"version": version, "requires": versions}, wrong)


def _python() -> Finding:
    facts = {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()}
    return Finding("python", f"{facts['version']}, {sys.executable}", facts)


def _torch() -> Finding:
    try:
        torch = import_module("torch")
    except Exception as error:
        why = f"torch cannot be imported ({_reason(error)}); pip install --upgrade torch torchvision"
        return Finding("torch", "cannot be imported", {"unknown": _reason(error)}, [why])
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return Finding("torch", f"{torch.__version__}, {built}", facts)


def _torchvision() -> Finding:
    try:
        version = import_module("torchvision").__version__
    except Exception as error:
        return Finding("torchvision", "cannot be imported", {"unknown": _reason(error)}, [describe_failure(error)])
    pair = describe_wrong_pair()
    remarks = [] if pair is None else [f"{pair}, and can be imported all the same; {install_command()}"]
    return Finding("torchvision", version, {"version": version, "fits": pair is None}, remarks=remarks)


def _extras() -> Finding:
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    missing = {
        extra: [name for name, bound in _required(extra) if not _has(name, bound)]
        for extra in extras
        if extra != "test"
    }
    parts = [extra if not names else f"{extra} lacks {', '.join(names)}" for extra, names in missing.items()]
    ways = [f"{install_extra(extra)} adds {extra}" for extra, names in missing.items() if names]
    return Finding("extras", "; ".join([*parts, *ways]), {"missing": missing})


def _required(extra: str | None) -> list[tuple[str, str]]:
    """List the packages with their lowest versions that m2sd requires, or that one of its extras does."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        match = re.match(r"([A-Za-z0-9._-]+)\s*\(?[>=]=\s*([0-9.]+)", requirement)
        if match and (named[1] if named else None) == extra:
            found.append((match[1], match[2]))
    return found


def _has(name: str, bound: str) -> bool:
    try:
        return _numbers(metadata.version(name)) >= _numbers(bound)
    except metadata.PackageNotFoundError:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(each) for each in re.findall(r"\d+", version.partition("+")[0])[:3]]
    return (*numbers, *[0] * (3 - len(numbers)))


# ---- the machine


def _gpu() -> Finding:
    import torch

    driver = _driver()
    facts: dict[str, Any] = {"driver": driver, "devices": []}
    if not torch.cuda.is_available():
        if torch.backends.mps.is_available():
            return Finding("gpu", "mps, for --device mps", {**facts, "mps": True})
        if driver is None:
            return Finding("gpu", "none", facts)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden in ("", "-1") and torch.version.cuda is not None:
            remark = f"a GPU of driver {driver} is here; unset CUDA_VISIBLE_DEVICES, which is {hidden!r}, to use it"
            return Finding("gpu", "not used: CUDA_VISIBLE_DEVICES hides it", facts, remarks=[remark])
        why = (
            "torch is built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda} does not start"
        )
        remark = (
            f"a GPU of driver {driver} is here, and {why}, so that the CPU does all; install a torch for this driver"
        )
        return Finding("gpu", f"not used: {why}", facts, remarks=[remark])
    parts, problems = [], []
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        name, chip = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        entry: dict[str, Any] = {"name": name, "capability": f"{chip[0]}.{chip[1]}"}
        facts["devices"].append(entry)
        try:
            entry["free"], entry["memory"] = torch.cuda.mem_get_info(device)
            float((torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).sum())
        except Exception as error:
            entry["unknown"] = _reason(error)
            parts.append(f"cuda:{number} {name} does not compute")
            problems.append(
                f"cuda:{number} ({name}) does not compute: {_reason(error)}; choose another --device, or cpu"
            )
            continue
        with torch.cuda.device(device):
            entry["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        units = "bf16" if entry["bf16"] else "no bf16"
        parts.append(f"cuda:{number} {name}, {as_size(entry['free'])} of {as_size(entry['memory'])} free, {units}")
    return Finding("gpu", "; ".join([*parts, f"driver {driver}"] if driver else parts), facts, problems)


def _driver() -> str | None:
    """Return the version of NVIDIA's driver; None if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=DRIVER_PATIENCE, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _cpu() -> Finding:
    import torch

    from m2sd_cli.inference.device import training_precision

    allowed, threads = core_limit(), torch.get_num_threads()
    bf16 = training_precision("auto", torch.device("cpu")) == "bf16"
    facts = {"model": cpu_model(), "cores": cores(), "core_limit": allowed, "threads": threads, "bf16": bf16}
    usable = cores() if allowed is None else min(cores(), allowed)
    limit = "" if allowed is None or allowed >= cores() else f", of which a limit allows {allowed:.3g}"
    units = "bf16 units" if bf16 else "no bf16 units"
    line = f"{cpu_model()}, {counted(cores(), 'core')}{limit}, torch with {counted(threads, 'thread')}, {units}"
    remarks = []
    if threads > max(1, round(usable)):
        remarks.append(
            f"torch takes {threads} threads, and this process may use {usable:.3g} cores: export "
            f"OMP_NUM_THREADS={max(1, int(usable))} trains faster"
        )
    return Finding("cpu", line, facts, remarks=remarks)


def _memory() -> Finding:
    found = memory()
    if found is None:
        return Finding("memory", "not known on this system", {"unknown": "no /proc/meminfo"})
    total, free = found
    problems = []
    if free < MEMORY_NEEDED:
        problems.append(
            f"{as_size(free)} of memory are free, and a training takes {as_size(MEMORY_NEEDED)}; end other programs, "
            f"or give the container more"
        )
    return Finding("memory", f"{as_size(free)} of {as_size(total)} free", {"total": total, "free": free}, problems)


# ---- the folders


def _cache() -> Finding:
    try:
        folder = cache_folder()
    except M2sdError as error:
        return Finding("cache", "no folder for it", {"unknown": str(error)}, [str(error)])
    entries = list_entries()
    facts, problems = _disk(folder)
    taken = sum(each.bytes for each in entries)
    line = f"{folder}, decoded images: {as_size(taken)}, {as_size(facts['free'])} free"
    return Finding("cache", line, {**facts, "bytes": taken, "entries": len(entries)}, problems)


def _disk(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Tell how much room a folder has, which need not exist yet, and why it could not be written to."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free, problems = shutil.disk_usage(there).free, []
    if not there.is_dir():
        problems.append(f"{there}: not a folder; name another one than {folder}")
    elif not os.access(there, os.W_OK | os.X_OK):
        problems.append(f"{there}: cannot be written to; name another folder than {folder}, or change its permissions")
    elif free < DISK_NEEDED:
        problems.append(f"{there}: {as_size(free)} are free on this disk, and a training takes {as_size(DISK_NEEDED)}")
    return {"place": str(folder), "free": free}, problems


def _run(run: Path | str | None) -> Finding:
    from m2sd_cli.runs.folder import open_run
    from m2sd_cli.runs.lock import living_writer
    from m2sd_cli.runs.training_state import StateStore

    folder = open_run(run)
    facts, problems = _disk(folder.path)
    facts |= {"head": None, "sessions": 0, "training": None, "writer": None, "damage": []}
    parts = [f"{folder.path}, {as_size(facts['free'])} free"]
    writer = living_writer(folder.path)
    if writer is not None:
        facts["writer"] = writer
        problems.append(f"{folder.path}: {writer} is writing to it; wait until that has ended")
    try:
        newest = folder.newest()
        if newest is None:
            parts.append("no run in it yet")
        else:
            facts |= {"head": newest.file.removesuffix(".json"), "sessions": len(folder.sessions())}
            parts.append(f"head {facts['head']}")
            facts["damage"] = folder.verify()
        if StateStore(folder).exists():
            state = StateStore(folder).load()
            facts["training"] = {"stage": state.stage, "step": state.step}
            parts.append(f"an interrupted {state.stage} of {state.step} steps, for --resume")
    except RunError as error:
        facts["damage"] += error.lines
    if facts["damage"]:
        parts.append("damaged")
    return Finding("run", ", ".join(parts), facts, [*problems, *facts["damage"]])


def _data(root: Path | None) -> Finding:
    places = {}
    for info in all_infos().values():
        found = locate(info, root) if info.layout else None
        places[info.name] = str(found / info.layout) if found else None if info.layout else "in the package"
    parts = [name if place == "in the package" else f"{name} in {place}" for name, place in places.items() if place]
    missing = [name for name, place in places.items() if place is None]
    named, remarks = environment_path(ROOT_VARIABLE), []
    if root is None and named is not None and not named.is_dir():
        remarks.append(f"${ROOT_VARIABLE}: {named} is no folder")
    line = "; ".join([*parts, f"not here: {', '.join(missing)}"] if missing else parts)
    return Finding("data", line, {"places": places}, remarks=remarks)
