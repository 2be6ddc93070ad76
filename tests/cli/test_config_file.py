"""The command `m2sd config`, and files of options that both stages follow."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.cli.config import commented
from m2sd_cli.config.files import read_options
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import MODELS, STAGES
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import NOTHING, find_recipe, recipe_names
from m2sd_cli.runs.folder import RunFolder
from tests.helpers import QUICK, Cli, Stripes


def test_every_option_is_shown_with_its_origin(m2sd: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("data = 'demo'\n[pretrain]\nseed = 3\noptimizer = 'adamw'\n[distill]\nepochs = 2\n")
    words = ["config", "show", "--config", file, "--recipe", "cifar100-resnet20"]
    content = json.loads(m2sd(*words, "--json").out)
    assert content["data"] == "demo"
    for stage in STAGES:
        assert content[stage].keys() == options_of(MODELS[stage]).keys()

    def shown(stage: str, *names: str) -> list[tuple[Any, str]]:
        return [tuple(content[stage][name].values()) for name in names]

    assert shown("pretrain", "seed", "optimizer", "learning_rate", "backbone", "similarity", "held_out") == [
        (3, "file"),
        ("adamw", "file"),
        (0.001, "default"),  # the recipe's is that of SGD
        ("resnet20", "recipe"),
        ("cosine", "default"),
        (0.1, "data set"),
    ]
    assert shown("distill", "seed", "epochs") == [(3, "pretrain"), (2, "file")]
    file.write_text("data = 'demo'\n[pretrain]\ninit = 'imagenet'\n")
    content = json.loads(m2sd("config", "show", "--config", file, "--json").out)
    rates = "optimizer", "learning_rate", "backbone_rate"
    assert shown("pretrain", *rates) == [("adamw", "default"), (0.001, "default"), (0.1, "default")]
    assert shown("distill", *rates) == [("adamw", "default"), (0.0002, "default"), (1.0, "default")]


def test_a_table_has_a_line_for_every_option(m2sd: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("data = 'demo'\n[pretrain]\nseed = 3\n")
    words = ["config", "show", "--config", file]
    content = json.loads(m2sd(*words, "--json").out)
    plain = m2sd(*words).out
    assert plain.startswith("data: demo\nstage ")
    assert sum(len(content[stage]) for stage in STAGES) == len(plain.splitlines()) - 2
    assert "none" not in {line.split()[2] for line in plain.splitlines() if "--images-per-class" in line}


def test_a_written_file_changes_nothing(m2sd: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert m2sd("config", "init").err == "m2sd.toml: change it, then: m2sd pretrain --config m2sd.toml\n"
    assert tomllib.loads(Path("m2sd.toml").read_text()) == {"pretrain": {}, "distill": {}}
    there = m2sd("config", "init")
    assert (there.code, there.err) == (2, "m2sd: FILE m2sd.toml: it exists already; --force replaces it\n")
    assert m2sd("config", "init", "--force", "-q").err == ""
    before = m2sd("config", "show", "--data", "demo").out
    assert m2sd("config", "show", "--data", "demo", "--config", "m2sd.toml").out == before


@pytest.mark.parametrize("name", recipe_names())
def test_a_file_of_a_recipe_says_what_the_recipe_does(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    file = tmp_path / "mine.toml"
    file.write_text(commented(recipe.options.data, recipe))
    assert read_options(file) == recipe.options


@pytest.mark.parametrize("stage", STAGES)
def test_every_comment_becomes_an_option(stage: str, tmp_path: Path) -> None:
    folder = tmp_path / 'a"b\\\x7fé\U0001f600'
    folder.mkdir()
    lines = commented(str(folder), NOTHING).splitlines()
    settings = [line for line in lines if line.startswith("# ") and " = " in line and not line.startswith("# data")]
    values = [line[2:] for line in settings if " =  # " not in line]
    assert len(settings) == sum(len(options_of(MODELS[each])) for each in STAGES)
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(line[2:] if line[2:] in values else line for line in lines))
    options = read_options(file)
    assert options.data == str(folder)
    for name, value in options.tables[stage].items():
        assert options_of(MODELS[stage])[name].check(value) == value


def test_the_schema_has_the_bounds_of_the_options(m2sd: Cli) -> None:
    schema = json.loads(m2sd("config", "schema").out)
    assert (schema["additionalProperties"], schema["properties"]["data"]["type"]) == (False, "string")
    for stage in STAGES:
        table = schema["properties"][stage]
        assert table["additionalProperties"] is False
        assert table["properties"].keys() == options_of(MODELS[stage]).keys()
        for name, option in options_of(MODELS[stage]).items():
            found = table["properties"][name]
            bounds = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
            for bound, word in bounds.items():
                assert found.get(word) == getattr(option.option, bound)
            assert found.get("enum", []) == list(option.choices)
            if "default" in found:
                assert option.check(found["default"]) == found["default"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pretrain]\nlr = 1\n", "[pretrain]: there is no option 'lr'; did you mean 'learning_rate'?"),
        ("[pretrain]\nepoch = 1\n", "[pretrain]: there is no option 'epoch'; did you mean 'epochs'?"),
        ("[distill]\ntemprature = 1.0\n", "[distill]: there is no option 'temprature'; did you mean 'temperature'?"),
        ("[distil]\n", "only data, [pretrain] and [distill] are known, not 'distil'; did you mean 'distill'?"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain", "distill", "config show"])
def test_an_unknown_key_of_either_stage_is_named_with_the_nearest(
    m2sd: Cli, trained: Path, tmp_path: Path, command: str, text: str, says: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    run = [] if command == "config show" else ["--run", trained, "--force", "--yes"]
    done = m2sd(*command.split(), *run, "--data", "demo", "--config", file)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"m2sd: --config {file}: {says}")


# ---- a file that stage 2 follows


@pytest.fixture
def followed(stripes: Stripes, tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text("[pretrain]\nmomentum = 0.5\n[distill]\nepochs = 0\nviews = 2\nbeta = 0.5\n")
    m2sd_cli.pretrain(stripes.folder, run=tmp_path / "run", config=file, **QUICK)
    file.unlink()
    return tmp_path / "run"


def test_distill_follows_the_file_of_pretrain_and_says_so(m2sd: Cli, followed: Path, stripes: Stripes) -> None:
    manifest = RunFolder(followed).pretrain().manifest
    assert manifest.options_file == {"pretrain": {"momentum": 0.5}, "distill": {"epochs": 0, "views": 2, "beta": 0.5}}
    words = ["distill", "--data", stripes.folder, "--run", followed, "--device", "cpu"]
    done = m2sd(*words, "--beta", 0.25)
    assert done.code == 0
    said = (
        "distill: with the options of pretrain's --config: epochs 0, views 2, beta 0.5; --recipe none leaves them out"
    )
    assert said in done.err.splitlines()
    base = RunFolder(followed).session(0).manifest
    assert [base.config[name] for name in ("epochs", "views", "beta")] == [0, 2, 0.25]
    plain = m2sd(*words, "--force", "--recipe", "none", "--epochs", 0)
    assert said not in plain.err
    assert RunFolder(followed).session(0).manifest.config["views"] == 1


def test_another_file_replaces_it(m2sd: Cli, followed: Path, stripes: Stripes, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[distill]\nepochs = 0\n")
    words = ["distill", "--data", stripes.folder, "--run", followed, "--device", "cpu", "--config", other]
    assert "pretrain's --config" not in m2sd(*words).err
    assert RunFolder(followed).session(0).manifest.config["views"] == 1


def test_a_resumed_training_keeps_its_file(stripes: Stripes, tmp_path: Path) -> None:
    file, run = tmp_path / "mine.toml", tmp_path / "run"
    file.write_text("[distill]\nviews = 2\n")
    m2sd_cli.pretrain(stripes.folder, run=run, config=file, stop_after=0, **QUICK)
    file.write_text("[distill]\nviews = 3\n")
    with pytest.raises(UsageError, match=rf"^--config {file}: its \[distill\] is not that with which the training"):
        m2sd_cli.pretrain(stripes.folder, run=run, config=file, resume=True, device="cpu")
    m2sd_cli.pretrain(stripes.folder, run=run, resume=True, device="cpu")
    assert RunFolder(run).pretrain().manifest.options_file == {"distill": {"views": 2}}


def test_a_wrong_value_for_stage_2_is_found_before_stage_1(stripes: Stripes, tmp_path: Path) -> None:
    file, run = tmp_path / "mine.toml", tmp_path / "run"
    file.write_text("[distill]\nbeta = 0.0\n")
    with pytest.raises(UsageError, match=r"^--beta 0\.0: "):
        m2sd_cli.pretrain(stripes.folder, run=run, config=file, **QUICK)
    assert not (run / "pretrain.json").exists()


def test_no_folder_of_this_machine_is_recorded(stripes: Stripes, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"data = '{stripes.folder}'\n[pretrain]\ninit = '{tmp_path}/none/weights.pth'\n")
    m2sd_cli.pretrain(config=file, run=tmp_path / "run", init="none", **QUICK)
    manifest = RunFolder(tmp_path / "run").pretrain().manifest
    assert manifest.options_file == {"pretrain": {"init": "weights.pth"}}
    assert str(tmp_path) not in manifest.model_dump_json()
