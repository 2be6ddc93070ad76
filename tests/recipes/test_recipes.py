"""Recipes that ship: followed, overridden, recorded and resumed."""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import m2sd_cli
from m2sd_cli import recipes
from m2sd_cli.cli.commands import COMMANDS
from m2sd_cli.config.files import OptionsFile
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import UsageError
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.recipes import NOTHING, find_recipe, recipe_names
from m2sd_cli.recipes.results import find_measured, read_results, words_on
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.runs.training_state import StateStore
from m2sd_cli.tables import BACKBONES
from m2sd_cli.training.distill import loss_weights
from tests.helpers import Cli, Stripes, finished

Begin = Callable[..., StoredManifest | None]
COMMON = "epochs = 1\nbatch_size = 8\nmomentum = 0.5\n"
QUICK = (
    f'data = "demo"\n[pretrain]\nbackbone = "resnet20"\nimage_size = 16\n{COMMON}'
    f"[distill]\nclean_weight = 0.25\n{COMMON}"
)
EXACT: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def quick_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two recipes of a second each, in the place of those that ship."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "first.toml").write_text(QUICK)
    (folder / "second.toml").write_text(QUICK.replace("0.25", "0.75"))
    monkeypatch.setattr(recipes, "FOLDER", folder)
    return folder


# ---- those that ship


def test_the_recipes_of_the_benchmarks_are_there() -> None:
    assert {
        "cifar100-resnet20",
        "cifar100-resnet20-paper",
        "cifar100-resnet20-letter",
        "cifar100-resnet20-cpu",
        "cifar100-resnet20-long",
        "cifar100-resnet18",
        "miniimagenet-resnet18",
        "cub200-resnet18",
    } <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_two_configurations_on_its_data(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.options.data is not None
    assert recipe.options.data in DATA_SETS
    defaults = DATA_SETS[recipe.options.data].defaults
    first = resolve(PretrainConfig, Sources(defaults, recipe=recipe.options))
    second = resolve(DistillConfig, Sources(defaults, recipe=recipe.options))
    for config, stage in ((first, "pretrain"), (second, "distill")):
        # Its file says how long both stages are, so that the data set's defaults may change.
        assert config.epochs == recipe.options.tables[stage]["epochs"] > 0
        for option, value in recipe.options.tables[stage].items():
            assert getattr(config, option) == value
    assert first.backbone in BACKBONES
    assert name.startswith(f"{recipe.options.data}-{first.backbone.removesuffix('-cifar')}")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_begins_with_what_makes_it_and_what_it_takes(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    lines = recipe.text.splitlines()
    assert re.fullmatch(r"# \S.*", lines[0])
    assert all(words_on(name).values())
    commands = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    assert commands[:3] == [f"export M2SD_RUN={name}", f"m2sd pretrain --recipe {name}", "m2sd distill"]
    assert recipe.options.data is not None
    sessions = " ".join(str(1 + number) for number in range(len(DATA_SETS[recipe.options.data].split)))
    assert commands[3:] == [
        f"for session in {sessions}; do m2sd increment --session $session; done",
        "m2sd evaluate",
    ]
    for words in map(shlex.split, commands):
        assert words[0] != "m2sd" or words[1] in COMMANDS


def test_every_measured_recipe_ships() -> None:
    assert set(read_results()["recipes"]) <= set(recipe_names())


def test_the_words_on_a_recipe_are_its_figures() -> None:
    measured = find_measured("cifar100-resnet20-cpu")
    assert measured is not None
    mean, deviation = map(str, measured.harmonic)
    assert re.fullmatch(r"\d+\.\d \d\.\d", f"{mean} {deviation}")
    told = f"HM {mean} (mean of {len(measured.seeds)} seeds; before today's margin of `debiased`)"
    assert told in words_on("cifar100-resnet20-cpu")["accuracy"]
    assert words_on("cifar100-resnet20-long")["accuracy"].endswith(" (mean of 3 seeds)")
    assert find_measured("of nobody") is None
    assert set(words_on("of nobody").values()) == {"not yet measured"}


def configurations(recipe: str) -> tuple[PretrainConfig, DistillConfig]:
    sources = Sources(DATA_SETS["cifar100"].defaults, recipe=find_recipe(recipe).options)
    return resolve(PretrainConfig, sources), resolve(DistillConfig, sources)


def test_the_papers_recipe_has_the_loss_the_classifier_and_the_division_of_the_paper() -> None:
    first, second = configurations("cifar100-resnet20-paper")
    assert loss_weights(second) == LossWeights()
    assert (second.mixing, second.enhancement, second.clean_weight) == ("both", "full", 0)
    assert (second.classifier, second.views) == ("means", 1)
    assert (first.held_out, first.images_per_class) == (0, None)
    assert first.batch_size == second.batch_size == 256
    assert first.epochs / (first.epochs + second.epochs) == 0.2


def test_the_recipe_to_the_letter_differs_from_the_papers_in_three_things() -> None:
    first, second = configurations("cifar100-resnet20-paper")
    letter = configurations("cifar100-resnet20-letter")
    linear = replace(first, similarity="linear")
    formula = replace(second, attention_reduction="sum", attention_weight=1.0, teacher_weight=0.0)
    assert letter == (linear, formula)


def test_nothing_says_nothing() -> None:
    assert find_recipe(None) is find_recipe("none") is NOTHING
    assert NOTHING.name is None
    assert NOTHING.options == OptionsFile(None, {})


# ---- what wins


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_command_line_wins_over_the_file_the_file_over_the_recipe(given: list[bool]) -> None:
    """Set the batch size to another number at each level; the first that sets one wins."""
    by_option, by_file, by_recipe, by_stage, by_defaults = given
    defaults: dict[str, Any] = {"epochs": 1} | ({"batch_size": 5} if by_defaults else {})
    defaults |= {"distill": {"batch_size": 4}} if by_stage else {}
    recipe = OptionsFile("demo", {"distill": {"batch_size": 3}} if by_recipe else {})
    options = {"batch_size": 2} if by_option else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "m2sd_cli.config.merging.read_options",
            lambda _: OptionsFile(None, {"distill": {"batch_size": 9}, "pretrain": {"batch_size": 8}}),
        )
        config = resolve(DistillConfig, Sources(defaults, Path("file") if by_file else None, options, recipe))
    places = [(by_option, 2), (by_file, 9), (by_recipe, 3), (by_stage, 4), (by_defaults, 5), (True, 256)]
    assert config.batch_size == next(value for there, value in places if there)


def test_both_stages_follow_the_recipe_of_the_first(quick_recipes: Path, stripes: Stripes, tmp_path: Path) -> None:
    run, folder, file = tmp_path / "run", str(stripes.folder), tmp_path / "options.toml"
    file.write_text("[pretrain]\nmomentum = 0.75\nbatch_size = 9\n")
    stored = finished(m2sd_cli.pretrain(folder, recipe="first", run=run, config=file, batch_size=10, **EXACT))
    manifest = stored.manifest
    assert manifest.recipe == "first"
    assert [manifest.config[name] for name in ("backbone", "batch_size", "momentum", "seed")] == [
        "resnet20",
        10,
        0.75,
        0,
    ]
    base = finished(m2sd_cli.distill(folder, run=run, epochs=0, **EXACT))
    assert base.manifest.recipe == "first"
    assert [base.manifest.config[name] for name in ("epochs", "batch_size", "momentum", "clean_weight")] == [
        0,
        8,
        0.5,
        0.25,
    ]
    for name, recorded, weight in (("second", "second", 0.75), ("none", None, 1.0)):
        other = finished(m2sd_cli.distill(folder, run=run, recipe=name, epochs=0, force=True, **EXACT))
        assert (other.manifest.recipe, other.manifest.config["clean_weight"]) == (recorded, weight)


@pytest.mark.parametrize("where", ["option", "file", "recipe"])
def test_the_images_are_those_that_are_named_last(
    quick_recipes: Path, stripes: Stripes, tmp_path: Path, where: str
) -> None:
    run, folder = tmp_path / "run", str(stripes.folder)
    if where == "recipe":
        (quick_recipes / "first.toml").write_text(QUICK.replace('"demo"', json.dumps(folder)))
    file = tmp_path / "options.toml"
    file.write_text(f"data = {json.dumps(folder if where == 'file' else str(tmp_path / 'nowhere'))}\n")
    stored = m2sd_cli.pretrain(
        folder if where == "option" else None,
        recipe="first",
        run=run,
        config=None if where == "recipe" else file,
        **EXACT,
    )
    assert stored is not None
    assert stored.manifest.data.name == stripes.folder.name
    if where == "file":
        assert m2sd_cli.pretrain(run=run, config=file, resume=True, **EXACT) == stored
        base = finished(m2sd_cli.distill(run=run, config=file, epochs=0, **EXACT))
        assert base.manifest.data.name == stripes.folder.name


# ---- what is recorded


def test_an_interrupted_training_goes_on_with_its_recipe(
    quick_recipes: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli
) -> None:
    run, folder = tmp_path / "run", str(stripes.folder)
    stages: dict[str, Begin] = {
        "pretrain": m2sd_cli.pretrain,
        "distill": m2sd_cli.distill,
    }
    for stage, train in stages.items():
        assert train(folder, recipe="first", run=run, stop_after=0, **EXACT) is None
        assert StateStore(RunFolder(run)).load().recipe == "first"
        for other in ("second", "none"):
            done = m2sd(stage, "--data", folder, "--recipe", other, "--run", run, "--resume")
            assert (done.code, done.err) == (
                2,
                f"m2sd: --recipe {other}: the training began with first; leave it out, or start over with --force\n",
            )
        (quick_recipes / "first.toml").write_text(QUICK.replace("0.5", "0.625"))  # as another version may have it
        stored = finished(train(folder, recipe="first" if stage == "pretrain" else None, run=run, resume=True, **EXACT))
        assert (stored.manifest.recipe, stored.manifest.config["momentum"]) == ("first", 0.5)
        (quick_recipes / "first.toml").write_text(QUICK)
        again = m2sd(stage, "--data", folder, "--recipe", "second", "--run", run, "--resume")
        assert again.err.startswith("m2sd: --recipe second: the training began with first;")


def test_it_comes_out_again_when_reproduced(quick_recipes: Path, stripes: Stripes, tmp_path: Path) -> None:
    run, folder, keep = tmp_path / "run", str(stripes.folder), tmp_path / "again"
    m2sd_cli.pretrain(folder, recipe="first", run=run, **EXACT)
    m2sd_cli.distill(folder, run=run, epochs=0, **EXACT)
    shutil.rmtree(quick_recipes)  # what the manifests say suffices
    assert m2sd_cli.reproduce(run=run, data=folder, keep=keep).same
    for name in ("pretrain", "session-000"):
        assert RunFolder(keep).read(name).manifest.recipe == "first"


def test_a_file_of_other_images_is_refused_by_resume(m2sd: Cli, tmp_path: Path) -> None:
    run, same, other = tmp_path / "run", tmp_path / "same.toml", tmp_path / "other.toml"
    same.write_text('data = "demo"\n')
    other.write_text('data = "cifar100"\n')
    m2sd_cli.pretrain("demo", run=run, epochs=1, stop_after=0, device="cpu")
    done = m2sd("pretrain", "--run", run, "--resume", "--stop-after", "0s", "--config", other, "--device", "cpu")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"m2sd: --config {other}: its data is cifar100, and the training began on demo; take it out, or start over "
        f"with --force\n"
    )
    assert m2sd_cli.pretrain(run=run, resume=True, config=same, stop_after=0, device="cpu") is None


# ---- the commands


def test_an_unknown_one_is_answered_with_the_choices(m2sd: Cli, tmp_path: Path, pretrained: Path) -> None:
    for stage in ("pretrain", "distill", "ablation"):
        place = ["--out", tmp_path / "none"] if stage == "ablation" else ["--run", pretrained]
        done = m2sd(stage, "--recipe", "../cifar100-resnet20", *place)
        assert (done.code, done.out) == (2, "")
        assert done.err == (
            f"m2sd: --recipe ../cifar100-resnet20: no such recipe; choose {', '.join(recipe_names())}, or none\n"
        )
    shown = m2sd("recipes", "show", "nothing")
    assert (shown.code, shown.err) == (2, f"m2sd: nothing: no such recipe; choose {', '.join(recipe_names())}\n")
    with pytest.raises(UsageError, match="no such recipe"):
        m2sd_cli.distill(run=pretrained, recipe="nothing")


def test_the_list(m2sd: Cli) -> None:
    done = m2sd("recipes")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["name", "time", "accuracy", "what"]
    assert [line.split()[0] for line in lines[1:]] == recipe_names()
    assert m2sd("recipes", "list").out == done.out
    content = json.loads(m2sd("recipes", "list", "--json").out)["recipes"]
    assert [each["name"] for each in content] == recipe_names()
    for each in content:
        own = find_recipe(each["name"])
        assert (each["title"], each["data"], each["time"]) == (
            own.title,
            own.options.data,
            words_on(each["name"])["time"],
        )
        assert each["pretrain"] == own.options.tables["pretrain"]


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_shown_can_be_saved_and_given_as_a_file(m2sd: Cli, tmp_path: Path, name: str) -> None:
    done = m2sd("recipes", "show", name)
    assert done.code == 0
    assert done.out == (recipes.FOLDER / f"{name}.toml").read_text()
    assert tomllib.loads(done.out)["data"] == find_recipe(name).options.data
    file = tmp_path / "mine.toml"
    file.write_text(done.out)
    options = find_recipe(name).options
    assert resolve(PretrainConfig, Sources({}, file)) == resolve(PretrainConfig, Sources({}, recipe=options))
    assert resolve(DistillConfig, Sources({}, file)) == resolve(DistillConfig, Sources({}, recipe=options))
