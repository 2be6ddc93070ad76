"""Recipe, file and options make one validated configuration."""

import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.cli.commands import build_command
from m2sd_cli.config.files import OptionsFile, read_options
from m2sd_cli.config.idle import without_effect
from m2sd_cli.config.merging import Sources, given_options, resolve, stage_defaults
from m2sd_cli.config.option import as_word, options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.data.catalogue import DATA_SETS, FOLDER_DEFAULTS, all_infos
from m2sd_cli.errors import UsageError
from m2sd_cli.tables import DEFAULT_CLASSIFIER, SCHEDULES, UNTRAINED_CLASSIFIER, ScheduleEntry
from tests.helpers import Cli, tables_as_before


def write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_options_win_over_the_file_the_file_over_the_recipe(tmp_path: Path) -> None:
    recipe = {"epochs": 3, "batch_size": 10, "learning_rate": 0.3, "backbone": "resnet20"}
    file = write(tmp_path, "[pretrain]\nbatch_size = 20\nlearning_rate = 0.2\n[distill]\nbatch_size = 7\n")
    config = resolve(PretrainConfig, Sources(recipe, file, {"learning_rate": 0.1, "seed": None}))
    assert (config.epochs, config.batch_size, config.learning_rate, config.seed) == (3, 20, 0.1, 0)
    assert resolve(DistillConfig, Sources(recipe, file)).batch_size == 7


@pytest.mark.parametrize(
    ("total", "share", "first", "second"), [(200, None, 40, 160), (1, None, 1, 0), (20, 0.6, 12, 8), (7, None, 1, 6)]
)
def test_epochs_are_divided_between_the_stages(total: int, share: float | None, first: int, second: int) -> None:
    recipe = {"total_epochs": total} | ({} if share is None else {"pretrain_share": share})
    assert resolve(PretrainConfig, Sources(recipe)).epochs == first
    assert resolve(DistillConfig, Sources(recipe)).epochs == second


def test_learning_rate_and_weight_decay_go_with_the_optimiser() -> None:
    data_set = {"epochs": 1, "learning_rate": 0.01, "weight_decay": 0.001}

    def rates(model: Any, **options: Any) -> tuple[float, float]:
        config = resolve(model, Sources(data_set, options=options))
        return config.learning_rate, config.weight_decay

    assert rates(PretrainConfig) == (0.01, 0.001)
    assert rates(PretrainConfig, optimizer="sgd") == (0.01, 0.001)
    assert rates(PretrainConfig, optimizer="adamw") == (1e-3, 0.05)
    assert rates(DistillConfig, optimizer="adamw") == (2e-4, 0.05)
    assert rates(DistillConfig, optimizer="adamw", learning_rate=0.5) == (0.5, 0.05)
    adamw = OptionsFile(None, {"pretrain": {"optimizer": "adamw", "weight_decay": 0.2}})
    both = resolve(PretrainConfig, Sources(data_set, recipe=adamw))
    assert (both.learning_rate, both.weight_decay) == (1e-3, 0.2)
    back = resolve(PretrainConfig, Sources(data_set, recipe=adamw, options={"optimizer": "sgd"}))
    assert (back.learning_rate, back.weight_decay) == (0.1, 5e-4)


def test_weights_that_begin_trained_have_an_optimiser_of_their_own() -> None:
    def chosen(**options: Any) -> tuple[str, float, float, float]:
        config = resolve(PretrainConfig, Sources({"epochs": 1}, options=options))
        return config.optimizer, config.learning_rate, config.backbone_rate, config.weight_decay

    assert chosen() == chosen(init="none") == ("sgd", 0.1, 1.0, 5e-4)
    assert chosen(init="imagenet") == ("adamw", 1e-3, 0.1, 0.05)
    assert chosen(init="imagenet", backbone_rate=1.0, weight_decay=0.0) == ("adamw", 1e-3, 1.0, 0.0)
    assert chosen(init="imagenet", learning_rate=0.01) == ("sgd", 0.01, 1.0, 5e-4)
    assert chosen(init="imagenet", optimizer="sgd") == ("sgd", 0.1, 1.0, 5e-4)
    cub200 = resolve(PretrainConfig, Sources(all_infos()["cub200"].defaults))
    assert (cub200.init, cub200.optimizer, cub200.learning_rate) == ("imagenet", "sgd", 0.01)


@pytest.mark.parametrize("init", ["imagenet", "mine.pth"])
def test_stage_2_after_weights_that_began_trained_has_an_optimiser_of_its_own(init: str) -> None:
    def chosen(init: str | None, **options: Any) -> tuple[str, float, float, float]:
        config = resolve(DistillConfig, Sources({"epochs": 1}, options=options, init=init))
        return config.optimizer, config.learning_rate, config.backbone_rate, config.weight_decay

    assert chosen(None) == chosen("none") == ("sgd", 0.02, 1.0, 5e-4)
    assert chosen(init) == ("adamw", 2e-4, 1.0, 0.05)
    assert chosen(init, weight_decay=0.0) == ("adamw", 2e-4, 1.0, 0.0)
    assert chosen(init, learning_rate=0.01) == ("sgd", 0.01, 1.0, 5e-4)
    assert chosen(init, optimizer="sgd") == ("sgd", 0.02, 1.0, 5e-4)
    cub200 = resolve(DistillConfig, Sources(all_infos()["cub200"].defaults, init=init))
    assert (cub200.optimizer, cub200.learning_rate) == ("sgd", 0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"warmup_epochs": 2.0}, "--warmup-epochs 2: the stage has 2 epochs; give fewer, or more --epochs$"),
        (
            {"milestones": "1"},
            "--milestones 1: --schedule cosine has none; leave them out, or give --schedule multistep$",
        ),
        ({"milestones": "1;2", "schedule": "multistep"}, "--milestones 1;2: write epochs with commas, as 60,80"),
        ({"milestones": "1,1", "schedule": "multistep"}, "--milestones 1,1: each is an epoch after the one before"),
        ({"milestones": "0", "schedule": "multistep"}, "--milestones 0: each is an epoch after the one before"),
        (
            {"milestones": "1,2", "schedule": "multistep"},
            "--milestones 1,2: the stage has 2 epochs; name earlier ones, or give more --epochs$",
        ),
        ({"optimizer": "adam"}, r"--optimizer adam: choose sgd, adamw \(did you mean adamw\?\)"),
        ({"schedule": "step"}, "--schedule step: choose cosine, multistep, constant"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"^{says}"):
        resolve(PretrainConfig, Sources({"epochs": 2}, options=options))


def test_a_recipe_has_a_table_for_one_stage() -> None:
    recipe = {"epochs": 1, "seed": 1, "distill": {"seed": 2}}
    assert resolve(PretrainConfig, Sources(recipe)).seed == 1
    assert resolve(DistillConfig, Sources(recipe)).seed == 2


@pytest.mark.parametrize("recipe", [*(info.defaults for info in all_infos().values()), FOLDER_DEFAULTS])
def test_shipped_recipes_are_valid(recipe: dict[str, Any]) -> None:
    assert (
        resolve(PretrainConfig, Sources(recipe)).epochs + resolve(DistillConfig, Sources(recipe)).epochs
        == recipe["total_epochs"]
    )
    used = {*options_of(PretrainConfig), *options_of(DistillConfig), "total_epochs", "pretrain_share", "distill"}
    assert set(recipe) <= used


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"momentum": 1.0}, "--momentum 1.0"),
        ({"backbone": "vgg"}, "--backbone vgg"),
        ({"seed": -1}, "--seed -1"),
        ({"image_size": 4}, "--image-size 4"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}: "):
        resolve(PretrainConfig, Sources({"epochs": 1}, None, options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": -1}, "--epochs -1: at least 0"),
        ({"epochs": 2.5}, "--epochs 2.5: a whole number"),
        ({"epochs": 10**10}, "--epochs 10000000000: at most 1000000000"),
        ({"momentum": 1.0}, "--momentum 1.0: less than 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: more than 0"),
        ({"learning_rate": "much"}, "--learning-rate much: a number"),
        ({"learning_rate": float("inf")}, "--learning-rate inf: a finite number"),
        ({"similarity": "angle"}, "--similarity angle: choose cosine or linear"),
        ({"split": 3.5}, "--split 3.5: a text in quotes"),
    ],
)
def test_what_an_option_takes_is_said(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(says)}$"):
        resolve(PretrainConfig, Sources({"epochs": 1}, None, options))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[pretrain]\nepoch = 3\n", "there is no option 'epoch'"),
        ("epochs = 3\n", "only data, \\[pretrain\\] and \\[distill\\] are known, not 'epochs'"),
        ("data = 3\n", "data 3: write the name of a data set or folder in quotes"),
        ("[data]\nname = 'demo'\n", "data \\(a table\\): write the name"),
        ("[increment]\n", "'increment'"),
        ("[pretrain\n", "not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        resolve(PretrainConfig, Sources({"epochs": 1}, write(tmp_path, text)))
    assert "config.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        resolve(PretrainConfig, Sources({"epochs": 1}, tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("true", "--epochs True: "),
        ("'3'", "--epochs 3: "),
        ("3.0", "--epochs 3.0: "),
        ("[3]", r"--epochs \(a list\): "),
        ("{ of = 3 }", r"--epochs \(a table\): "),
        ("nan", "--epochs nan: "),
        ("1979-05-27", "--epochs 1979-05-27: "),
        ("0x" + 5000 * "f", r"--epochs \(a large number\): "),
        (2**63, f"--epochs {2**63}: "),
        (repr("x" * 5000), r"--epochs x{80}\.\.\.: "),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path: Path, value: object, named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}"):
        resolve(PretrainConfig, Sources({"epochs": 1}, write(tmp_path, f"[pretrain]\nepochs = {value}\n")))


@pytest.mark.parametrize(
    "content",
    [
        b"[pretrain]\nepochs = " + 5000 * b"9",
        b"[pretrain]\nepochs = " + 50_000 * b"[",
        b"[pretrain]\nscale = 1e999\xff",
        b"[" + 3000 * b"a." + b"a]",
        b"[pretrain]\n" + 3000 * b"a." + b"a = 1",
        b"[pretrain.epochs." + 3000 * b"a." + b"a]",
        2**20 * b"#" + b"#",
    ],
    ids=range(7),
)
def test_a_file_made_to_harm_is_refused_in_one_short_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        resolve(PretrainConfig, Sources({"epochs": 1}, file))
    assert len(str(caught.value)) < len(str(file)) + 200
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"^--config {path}: not a regular file"):
            resolve(PretrainConfig, Sources({"epochs": 1}, path))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "none"])
def test_one_branch_has_no_pair_to_compare(mixing: str) -> None:
    assert resolve(DistillConfig, Sources({"epochs": 1}, None, {"mixing": mixing})).kl_weight == 0
    with pytest.raises(UsageError, match=rf"--mixing {mixing} has not both; give --kl-weight 0$"):
        resolve(DistillConfig, Sources({"epochs": 1}, None, {"kl_weight": 1.0, "mixing": mixing}))
    assert resolve(DistillConfig, Sources({"epochs": 1, "kl_weight": 1.0}, None, {"mixing": mixing})).kl_weight == 0
    assert resolve(DistillConfig, Sources({"epochs": 1}, None, {"mixing": "both"})).kl_weight == 1


def test_the_usual_weight_of_attention_transfer_goes_with_its_reduction() -> None:
    summed = {"epochs": 1, "attention_reduction": "sum"}
    assert resolve(DistillConfig, Sources({"epochs": 1})).attention_weight == 100
    assert resolve(DistillConfig, Sources(summed)).attention_weight == 1
    assert resolve(DistillConfig, Sources(summed, None, {"attention_weight": 25.0})).attention_weight == 25
    assert resolve(DistillConfig, Sources(summed, None, {"attention_reduction": "mean"})).attention_weight == 100


@pytest.mark.parametrize(
    ("weight", "options", "expected"),
    [
        (25.0, {"attention_reduction": "sum"}, 1.0),  # a quarter of the mean's, and 25 times the sum's
        (25.0, {"attention_reduction": "mean"}, 25.0),
        (25.0, {"attention_reduction": "sum", "attention_weight": 0.25}, 0.25),
        (0.0, {"attention_reduction": "sum", "attention_weight": 2.0}, 2.0),
    ],
)
def test_another_reduction_drops_the_weight_of_an_earlier_layer(
    weight: float, options: dict[str, Any], expected: float
) -> None:
    earlier = {"epochs": 1, "attention_weight": weight}
    assert resolve(DistillConfig, Sources(earlier, None, options)).attention_weight == expected


PLAIN = {"epochs": 3, "kd_weight": 0.0, "attention_weight": 0.0, "teacher_weight": 0.0}


@pytest.mark.parametrize(
    ("model", "defaults", "options", "says"),
    [
        (PretrainConfig, {"epochs": 3}, {"gamma": 0.2}, "--gamma 0.2: --schedule cosine has no milestones"),
        (DistillConfig, PLAIN, {"gamma": 0.2}, "--gamma 0.2: --schedule cosine has no milestones"),
        (DistillConfig, PLAIN, {"beta": 0.5, "mixing": "none"}, "--beta 0.5: --mixing none mixes no images"),
        (DistillConfig, PLAIN, {"temperature": 2.0}, "--temperature 2.0: there is no distillation"),
        (DistillConfig, PLAIN, {"attention_reduction": "sum"}, "--attention-reduction sum: there is no attention"),
        (DistillConfig, PLAIN, {"pyramid_width": 2}, "--pyramid-width 2: there is no pyramid; leave it out"),
        (DistillConfig, {"epochs": 3}, {"pyramid_width": 2, "enhancement": "no-pyramid"}, "--pyramid-width 2: "),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    model: Any,
    defaults: dict[str, Any],
    options: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(says)}"):
        resolve(model, Sources(defaults, None, options))
    name = next(iter(options))
    usual = getattr(resolve(model, Sources(defaults)), name)
    assert getattr(resolve(model, Sources(defaults, None, {**options, name: usual})), name) == usual
    assert getattr(resolve(model, Sources({**defaults, **options})), name) == options[name]  # of a recipe it is spare
    useful = (
        {"schedule": "multistep", "milestones": "1"} if name == "gamma" else {"enhancement": "full", "mixing": "both"}
    )
    assert getattr(resolve(model, Sources(defaults, None, {**options, **useful})), name) == options[name]


def test_a_schedule_or_an_optimiser_of_another_package_may_use_every_option() -> None:
    assert "gamma" in without_effect(PretrainConfig, {})
    assert without_effect(PretrainConfig, {"schedule": "exponential"}) == {}
    assert without_effect(DistillConfig, {"optimizer": "lion", "mixing": "none"}) == {}


def test_an_entry_says_if_a_schedule_has_milestones() -> None:
    options = {"epochs": 9, "schedule": "steps", "milestones": "3,6", "gamma": 0.5}
    with tables_as_before():
        for name, has in (("steps", True), ("ramp", False)):
            entry = ScheduleEntry("m2sd_cli.training.schedules:multistep", milestones=has)
            SCHEDULES.register(name, entry, "tests:build")
        assert resolve(PretrainConfig, Sources({}, options=options)).milestones == "3,6"
        says = "^--milestones 3,6: --schedule ramp has none; leave them out, or give --schedule multistep or steps$"
        with pytest.raises(UsageError, match=says):
            resolve(PretrainConfig, Sources({}, options={**options, "schedule": "ramp"}))
        # Whether it uses another option, such as gamma, only its own package knows.
        assert without_effect(PretrainConfig, {"schedule": "ramp"}) == {}


def test_weights_go_with_the_enhancement_and_the_mixing_of_their_layer() -> None:
    clean = {"epochs": 1, "kd_weight": 0.0, "attention_weight": 0.0, "teacher_weight": 0.0, "clean_weight": 1.0}

    def weights(**options: Any) -> tuple[float, ...]:
        config = resolve(DistillConfig, Sources(clean, None, options))
        return config.kd_weight, config.attention_weight, config.teacher_weight, config.clean_weight

    assert weights() == weights(mixing="mixup") == weights(mixing="both") == (0, 0, 0, 1)
    assert weights(mixing="none") == (0, 0, 0, 0)
    assert weights(enhancement="full") == weights(enhancement="no-pyramid") == (1, 100, 1, 1)
    assert weights(enhancement="full", kd_weight=0.0) == (0, 100, 1, 1)


def test_clean_images_are_not_mixed_in_twice() -> None:
    with pytest.raises(UsageError, match=r"^--clean-weight 0\.5: with --mixing none all images are unmixed"):
        resolve(DistillConfig, Sources({"epochs": 1}, None, {"mixing": "none", "clean_weight": 0.5}))
    assert (
        resolve(DistillConfig, Sources({"epochs": 1}, None, {"mixing": "mixup", "clean_weight": 0.5})).clean_weight
        == 0.5
    )


def test_what_was_given_is_told_apart_from_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "[distill]\nbeta = 2.0\nseed = 4\n")
    assert given_options(DistillConfig, file, {"seed": 5, "epochs": None}) == {"beta": 2.0, "seed": 5}


@pytest.mark.parametrize(("stage", "model"), [("pretrain", PretrainConfig), ("distill", DistillConfig)])
def test_command_line_file_and_python_have_the_same_options(
    stage: str, model: type[PretrainConfig | DistillConfig]
) -> None:
    command = build_command(stage)
    shown = {parameter.name: parameter for parameter in command.params}
    in_python = inspect.signature(getattr(m2sd_cli, stage)).parameters
    for name, option in options_of(model).items():
        assert shown[name].opts == [f"--{name.replace('_', '-')}"]
        assert (shown[name].help, shown[name].default) == (option.help, None)
        assert in_python[name].annotation == option.type | None
        assert f"\n    {name}: {option.help}" in getattr(m2sd_cli, stage).__doc__
    names = [name for name in in_python if name in shown]
    assert {*options_of(model), "recipe", "config", "compile", "save_every"} <= set(names)
    assert all(each.kind is not each.VAR_KEYWORD for each in in_python.values())


def test_the_help_names_the_default_that_counts() -> None:
    shown = {parameter.name: parameter.show_default for parameter in build_command("distill").params}
    classifier = f"{DEFAULT_CLASSIFIER}, or chosen, mostly {UNTRAINED_CLASSIFIER}, without any training"
    assert [shown[name] for name in ("seed", "classifier", "beta")] == ["pretrain's", classifier, "1"]


@pytest.mark.parametrize(("stage", "model"), [("pretrain", PretrainConfig), ("distill", DistillConfig)])
def test_the_help_names_the_defaults_that_each_data_set_has(
    stage: str, model: type[PretrainConfig] | type[DistillConfig]
) -> None:
    shown = {parameter.name: parameter.show_default for parameter in build_command(stage).params}
    for name in sorted({"epochs", "batch_size", "learning_rate", "backbone", "init"} & {*options_of(model)}):
        own = stage_defaults(model, FOLDER_DEFAULTS)
        usual = as_word(own[name]) if name in own else options_of(model)[name].shown_default
        assert shown[name].startswith(usual)
        told: dict[str, str] = {}
        for group in filter(None, shown[name].removeprefix(usual).split("; ")):
            value, _, names = group.partition(" for ")
            told |= dict.fromkeys(names.replace(" or ", ", ").split(", "), value)
        for data, info in DATA_SETS.entries.items():
            if info.simulates is None:
                config = (
                    resolve(PretrainConfig, Sources(info.defaults))
                    if stage == "pretrain"
                    else resolve(DistillConfig, Sources(info.defaults))
                )
                used = getattr(config, name)
                assert used is None or told.get(data, usual).split("; ")[0] == as_word(used), (name, data)


@pytest.mark.parametrize("resume", [False, True])
def test_a_misspelt_option_names_the_nearest_one(trained: Path, resume: bool) -> None:
    with pytest.raises(UsageError, match=r"^there is no option 'epoch'; did you mean 'epochs'\?$"):
        m2sd_cli.pretrain("demo", run=trained, resume=resume, force=not resume, epoch=3)


def test_an_earlier_name_is_taken_without_being_shown(m2sd: Cli) -> None:
    assert "--classifier" not in m2sd("pretrain", "--help").out
    said = m2sd("pretrain", "--data", "demo", "--classifier", "angle").err
    assert said == m2sd("pretrain", "--data", "demo", "--similarity", "angle").err
    assert said.startswith("m2sd: --similarity angle: choose cosine or linear")


def test_a_file_is_read_as_a_person_and_an_editor_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows editors begin it with a mark, and no shell has replaced a ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "options.toml"
    file.write_text('data = "~/photos"\n[pretrain]\ninit = "~/weights.pt"\n', encoding="utf-8-sig")
    options = read_options(file)
    assert options.data == str(tmp_path / "photos")
    assert options.tables == {"pretrain": {"init": str(tmp_path / "weights.pt")}}


@pytest.mark.parametrize("folder", ["./cifar100", "cifar100/"])
def test_a_folder_named_as_a_data_set_stays_a_folder(tmp_path: Path, folder: str) -> None:
    file = tmp_path / "options.toml"
    file.write_text(f'data = "{folder}"\n')
    assert read_options(file).data == folder


def test_a_file_with_empty_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('data = ""\n')
    with pytest.raises(UsageError, match="data: an empty name"):
        read_options(file)
