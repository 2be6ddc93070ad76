"""Settings: the usual ones, those of a recipe, and the options that replace them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.benchmark.settings import EPOCHS, LEARNING_RATE, Schedule, Settings, configure
from m2sd_cli.benchmark.workload import distill_stage, treatment
from m2sd_cli.config.merging import Sources, resolve
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data import cifar100, cub200, demo, miniimagenet
from m2sd_cli.data.catalogue import DATA_SETS
from m2sd_cli.errors import UsageError
from m2sd_cli.recipes import Recipe, find_recipe, recipe_names
from m2sd_cli.training.batches import batch_bounds
from m2sd_cli.training.loop import Training
from m2sd_cli.training.sums import Sums
from tests.benchmark.small import few


def measured(**options: Any) -> Settings:
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "seconds": 1.0, "rounds": 1, "workers": None}
    return configure(**(how | options))


def test_without_a_recipe_the_defaults_of_both_stages_are_measured() -> None:
    found = measured()
    endless: dict[str, Any] = {"epochs": EPOCHS, "learning_rate": LEARNING_RATE, "batch_size": 128}
    assert found.pretrain == PretrainConfig(backbone="resnet20", **endless)
    assert found.distill == DistillConfig(**endless)
    assert (found.image_size, found.classes, found.recipe, found.schedules) == (32, 60, None, {})


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_measured_as_its_commands_train(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.options.data is not None
    info = DATA_SETS[recipe.options.data]
    found = measured(recipe=recipe)
    endless: dict[str, Any] = {"epochs": EPOCHS, "learning_rate": LEARNING_RATE}
    pretrain = resolve(PretrainConfig, Sources(info.defaults, recipe=recipe.options))
    distill = resolve(DistillConfig, Sources(info.defaults, recipe=recipe.options))
    assert found.pretrain == replace(pretrain, **endless)
    assert found.distill == replace(distill, **endless)
    assert (found.image_size, found.classes, found.recipe) == (info.image_size, info.base, name)
    assert {stage: each.epochs for stage, each in found.schedules.items()} == {
        "pretrain": pretrain.epochs,
        "distill": distill.epochs,
    }


def test_steps_are_counted_by_hand() -> None:
    # 490 images of each of 60 classes in batches of 128: 229 full ones and 88 images.
    schedules = measured(recipe=find_recipe("cifar100-resnet20-cpu")).schedules
    assert schedules == {"pretrain": Schedule(100, 23_000), "distill": Schedule(8, 1_840)}
    # 3,000 images in batches of 64: 46 full ones and 56 images.
    schedules = measured(recipe=find_recipe("cifar100-resnet20-few")).schedules
    assert schedules == {"pretrain": Schedule(30, 1_410), "distill": Schedule(20, 940)}
    assert measured(recipe=find_recipe("cifar100-resnet20-few"), batch_size=3_000).schedules == {
        "pretrain": Schedule(30, 30),
        "distill": Schedule(20, 20),
    }


@pytest.fixture
def demo_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """One on images that are at hand."""
    stage = "epochs = 2\nbatch_size = 32\n"
    text = f'data = "demo"\n[pretrain]\nheld_out = 0.05\n{stage}[distill]\n{stage}'
    (tmp_path / "own.toml").write_text(text)
    monkeypatch.setattr("m2sd_cli.recipes.FOLDER", tmp_path)
    return find_recipe("own")


def test_there_are_as_many_steps_as_the_command_takes(
    demo_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    class BegunError(Exception):
        pass

    def step(training: Training, sums: Sums) -> None:
        asked.append(training.steps)
        raise BegunError

    monkeypatch.setattr(Training, "_step", step)
    with pytest.raises(BegunError):
        m2sd_cli.pretrain(run=tmp_path / "run", recipe="own", device="cpu", precision="fp32")
    plan = measured(recipe=demo_recipe).schedules["pretrain"]
    assert asked == [plan.steps] == [2 * len(batch_bounds(6 * 285, 32))]


def test_options_win_over_the_recipe() -> None:
    found = measured(recipe=find_recipe("cifar100-resnet20-cpu"), backbone="resnet18-cifar", batch_size=8)
    assert (found.pretrain.backbone, found.pretrain.batch_size, found.distill.batch_size) == ("resnet18-cifar", 8, 8)
    assert found.distill.clean_weight == 1


@pytest.mark.parametrize(("option", "says"), [("image_size", "--image-size 16"), ("classes", "--classes 16")])
def test_what_a_data_set_decides_is_no_option_beside_a_recipe(option: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"{says}: cifar100-resnet20-cpu is for cifar100"):
        measured(recipe=find_recipe("cifar100-resnet20-cpu"), **{option: 16})


@pytest.mark.parametrize("name", recipe_names())
def test_images_are_treated_as_those_of_the_recipes_data_set(name: str) -> None:
    settings = measured(recipe=find_recipe(name))
    own = {
        "cifar100": cifar100.TREATMENT,
        "miniimagenet": miniimagenet.TREATMENT,
        "cub200": cub200.TREATMENT,
    }
    assert settings.data is not None
    assert treatment(28, "demo") == demo.TREATMENT
    assert treatment(settings.image_size, settings.data) == own[settings.data]


def test_stage_2_computes_the_terms_of_the_recipe() -> None:
    settings = replace(measured(recipe=find_recipe("cifar100-resnet20-cpu"), batch_size=4), image_size=8, classes=5)
    stage = distill_stage(settings, few())
    stage.run(3)
    (record,) = stage._training.position.history
    assert set(record.terms) == {"ce", "kl", "clean"}
