"""The rooms import downwards only, the command line starts without torch, and nothing is unpickled."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "m2sd_cli"
BASE = {
    "errors",
    "reading",
    "registry",
    "tables",
    "progress",
    "paths",
    "extras",
    "pairing",
    "host",
}  # anybody may import them; they import nothing but one another
# Every room and every module beside them, and the others that it may import.
MAY_IMPORT = {
    "errors": set[str](),
    "reading": set[str](),
    "registry": set[str](),
    "tables": set[str](),
    "progress": set[str](),
    "paths": set[str](),
    "extras": set[str](),
    "pairing": set[str](),
    "host": set[str](),
    "plugin_files": set[str](),
    "method": set[str](),
    "data": set[str](),
    "runs": set[str](),
    "distributed": set[str](),
    "config": {"method"},  # the defaults of the loss weights, without torch
    "recipes": {"config"},
    "checkpoints": {"method", "runs"},
    "inference": {"checkpoints", "distributed", "method", "data", "runs"},
    "training": {"checkpoints", "distributed", "method", "data", "runs", "inference", "config"},
    "reports": {"checkpoints", "distributed", "method", "data", "runs", "inference"},
    "output_files": {"runs"},
    "exporting": {"output_files", "checkpoints", "method", "data", "runs", "inference"},
    "ablation": {"reports", "method", "data", "runs", "config"},
    "benchmark": {"__init__", "plugin_files", "recipes", "method", "data", "runs", "inference", "training", "config"},
}
EVERYTHING = {*MAY_IMPORT, "api", "cli", "__init__", "__main__"}
MAY_IMPORT |= {"api": {*MAY_IMPORT}, "cli": {*MAY_IMPORT, "api", "__init__"}, "__main__": EVERYTHING}
MAY_IMPORT |= {"__init__": {"api", "data", "errors", "exporting", "runs", "training"}}
MAY_IMPORT["training"] |= {"__init__"}  # its version
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module != "m2sd_cli":
                yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(package: Path) -> dict[str, list[Path]]:
    """The files of every room, and of every module beside the rooms, under its name."""
    rooms = {path.parent.name: sorted(path.parent.rglob("*.py")) for path in package.glob("*/__init__.py")}
    return rooms | {path.stem: [path] for path in package.glob("*.py")}


def imported_rooms(path: Path, known: Container[str]) -> set[str]:
    """The rooms and top modules that a module imports; the package itself is `__init__`."""
    names = [name.split(".") for name in imported(ast.parse(path.read_text(encoding="utf-8")))]
    own = [parts[1:] for parts in names if parts[0] == "m2sd_cli"]
    return {parts[0] if parts and parts[0] in known else "__init__" for parts in own}


def wrong_imports(package: Path) -> list[str]:
    """Every import that points upwards, and every room that has no rule."""
    rooms = rooms_of(package)
    wrong = [f"{room} has no rule" for room in rooms if room not in MAY_IMPORT]
    for room, paths in rooms.items():
        allowed = MAY_IMPORT.get(room, set()) | BASE | {room}
        for path in paths:
            found = sorted(imported_rooms(path, rooms) - allowed)
            wrong += [f"{path.relative_to(package)} imports {each}" for each in found]
    return wrong


def test_imports_point_downwards() -> None:
    assert wrong_imports(PACKAGE) == []


def test_every_rule_is_of_a_room_that_is_there() -> None:
    assert {*MAY_IMPORT} == {*rooms_of(PACKAGE)}


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("method/mixing.py", "from m2sd_cli.api.pretrain import pretrain", "method/mixing.py imports api"),
        ("method/mixing.py", "import m2sd_cli.data.cache", "method/mixing.py imports data"),
        ("errors.py", "def late():\n    from m2sd_cli import config", "errors.py imports config"),
        ("runs/lock.py", "import m2sd_cli\nm2sd_cli.pretrain()", "runs/lock.py imports __init__"),
        ("attic/__init__.py", "", "attic has no rule"),
        ("attic.py", "", "attic has no rule"),
    ],
)
def test_a_planted_wrong_import_is_found(file: str, line: str, wrong: str, tmp_path: Path) -> None:
    package = Path(shutil.copytree(PACKAGE, tmp_path / "m2sd_cli", ignore=shutil.ignore_patterns("bundled", "*.pyc")))
    (package / file).parent.mkdir(exist_ok=True)
    with (package / file).open("a", encoding="utf-8") as text:
        text.write(f"\n{line}\n")
    assert wrong_imports(package) == [wrong]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_click_and_no_pickle(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imported(tree)}
    assert not roots & {"click", "pickle", "joblib", "dill"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(each.arg == "weights_only" and ast.unparse(each.value) == "True" for each in node.keywords)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["pretrain", "--help"], ["evaluate", "--wrong"], ["learn", "x", "--lr", "1"], ["nothing"]]
)
def test_help_and_usage_errors_start_fast(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from m2sd_cli.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr


EVERY_HELP = """
import contextlib, io, os, sys
from m2sd_cli.cli.app import app
from m2sd_cli.cli.commands import COMMANDS, build_command

def walk(command, words):
    yield words
    for name, each in getattr(command, "commands", {}).items():
        yield from walk(each, [*words, name])

for words in [[], *(words for name in COMMANDS for words in walk(build_command(name), [name]))]:
    for typed in (" ".join(["m2sd", *words, ""]), " ".join(["m2sd", *words, "--"])):
        for variable in ("", "complete_bash"):
            os.environ.update(_M2SD_COMPLETE=variable, COMP_WORDS=typed, COMP_CWORD=str(len(words) + 1))
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    app([*words, "--help"], prog_name="m2sd")
            except SystemExit as exit:
                assert not exit.code, words
            wanted = "Usage: m2sd" if not variable else "--help" if typed.endswith("--") else ""
            assert wanted in said.getvalue(), (words, said.getvalue())
            heavy = {"torch", "torchvision", "numpy", "PIL", "pydantic", "rich", "m2sd_cli.api"} & set(sys.modules)
            assert not heavy, (words, typed, variable, heavy)
"""


def test_no_help_and_no_completion_imports_what_takes_long() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_fast_and_offers_the_functions() -> None:
    program = (
        "import sys, m2sd_cli\n"
        "assert 'torch' not in sys.modules\n"
        "for name in [*m2sd_cli.__all__, *m2sd_cli.__all__]:\n"
        "    assert callable(getattr(m2sd_cli, name)), name\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_the_commands_do_no_arithmetic(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
    assert not roots & {"torch", "torchvision", "numpy", "PIL", "safetensors", "pydantic"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "method").glob("*.py")), ids=lambda path: path.name)
def test_the_method_knows_no_files_and_prints_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imported(tree)} & {"os", "pathlib", "io", "sys", "json", "logging"}
    assert not {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)} & {"print", "open"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--format", "gif", "--out", "x"],
        ["evaluate", "--session", "last"],
        ["evaluate", "--classifier", "best"],
        ["predict", "x.jpg", "--classifier", "cosine"],
        ["increment", "--session", "1", "--classifier", ""],
        ["export", "--format", "onnx", "--out", "x", "--classifier", "TEEN"],
        ["pretrain", "--recipe", "x"],
        ["distill", "--recipe", "x"],
        ["recipes", "show", "x"],
        ["ablation", "--rows", "x"],
        ["ablation", "--recipe", "x"],
    ],
)
def test_a_refused_word_needs_no_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from m2sd_cli.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not (PACKAGE.parent / ".git").exists(), reason="no checkout of git")
def test_no_stray_file_lies_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    known = {"LICENSE", "README.md", "completions", "m2sd_cli", "pyproject.toml", "tests"}
    assert {name for name in top if not name.startswith(".")} == known
