"""The completion scripts match what the app itself would install."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer._completion_shared import get_completion_script

from tests.helpers import Cli

SCRIPTS = {"bash": "m2sd.bash", "zsh": "_m2sd", "fish": "m2sd.fish"}
FOLDER = Path(__file__).parent.parent / "completions"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_is_the_one_of_the_app(shell: str) -> None:
    expected = get_completion_script(prog_name="m2sd", complete_var="_M2SD_COMPLETE", shell=shell).strip()
    script = (FOLDER / SCRIPTS[shell]).read_text(encoding="utf-8").strip()
    if shell == "zsh":  # which runs the file itself at the first Tab
        *_, last = expected.split("\n")
        expected = expected.removesuffix(last)
        run_at_once = f'if [[ $funcstack[1] == _m2sd ]]; then\n  _m2sd_completion "$@"\nelse\n  {last}\nfi'
        assert script.removeprefix(expected) == run_at_once
    else:
        assert script == expected


def test_every_script_is_in_the_wheel() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCRIPTS.values())
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert set(shared) == {f"completions/{name}" for name in SCRIPTS.values()}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("m2sd pre", "predict"),
        ("m2sd be", "bench"),
        ("m2sd --version pre", "predict"),
        ("m2sd distill --kd", "--kd-weight"),
        ("m2sd distill --epochs 3 --kd", "--kd-weight"),
        ("m2sd sessions --run somewhere un", "undo"),
        ("m2sd sessions undo --y", "--yes"),
        ("m2sd pretrain --data ci", "cifar100-simulated"),
        ("m2sd pretrain --backbone resnet1", "resnet18-cifar"),
        ("m2sd pretrain --backbone t", "timm:"),
        ("m2sd pretrain --recipe cub", "cub200-resnet18"),
        ("m2sd distill --mixing c", "cutmix"),
        ("m2sd evaluate --classifier t", "teen"),
        ("m2sd export --session 1", "12"),
        ("m2sd evaluate --session a", "all"),
        ("m2sd sessions show --run RUN 1", "12"),
        ("m2sd data verify d", "demo"),
        ("m2sd recipes show m", "miniimagenet-resnet18"),
    ],
)
def test_bash_completes(typed: str, expected: str, m2sd: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("session-001.json", "session-012.json", "session-012.safetensors", "session-x.json", "pretrain.json"):
        (run / name).touch()
    monkeypatch.setenv("M2SD_RUN", str(run))
    typed = typed.replace("RUN", str(run))
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    done = m2sd()
    assert expected in done.out.split()
    assert all(word.startswith(typed.split()[-1]) for word in done.out.split())


def test_learn_completes_backbones_with_weights_alone(m2sd: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_M2SD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "m2sd learn --backbone res")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert m2sd().out.split() == ["resnet18", "resnet34", "resnet50"]


def test_completing_a_value_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from m2sd_cli.cli.app import app\n"
        "try:\n"
        "    app(prog_name='m2sd')\n"
        "finally:\n"
        "    print(sorted({'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)))\n"
    )
    words = {"_M2SD_COMPLETE": "complete_bash", "COMP_WORDS": "m2sd pretrain --backbone resnet2", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("resnet20\n[]\n", "")
