"""The commands that a page names: read again they give the recorded configuration."""

import shlex
from pathlib import Path

import pytest

from m2sd_cli.api.recorded_commands import recorded_command
from m2sd_cli.config.idle import without_effect
from m2sd_cli.config.option import flag, options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.records import LISTED, shots_record


@pytest.mark.parametrize("model", [PretrainConfig, DistillConfig])
def test_every_option_that_was_in_force_is_named(calibrated: Path, model: type[PretrainConfig | DistillConfig]) -> None:
    folder = RunFolder(calibrated)
    stored = folder.pretrain() if model is PretrainConfig else folder.session(0)
    words = shlex.split(recorded_command(stored.manifest))
    named = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["m2sd", "pretrain" if model is PretrainConfig else "distill"]
    assert named.pop("--data") == "./colours"
    assert named.pop("--precision") == stored.manifest.precision
    config = stored.manifest.config
    idle = without_effect(model, config)
    assert "gamma" in idle  # of a cosine, so that a command with it would be refused
    recorded = {flag(name): config[name] for name in options_of(model) if name in config and name not in idle}
    assert named == {name: str(value) for name, value in recorded.items() if value is not None}
    assert named["--seed"] == "0"


def test_a_session_is_told_from_those_with_other_options(calibrated: Path) -> None:
    manifest = RunFolder(calibrated).session(2).manifest
    words = ["m2sd", "increment", "--session", "2"]
    usual = ["--classifier", manifest.classifier, "--views", "1", "--precision", "fp32"]
    assert shlex.split(recorded_command(manifest)) == [*words, "--shots", "./second", *usual]
    extended = manifest.model_copy(update={"kind": "extend", "views": 4, "precision": "bf16"})
    options = ["--extend", *usual[:2], "--views", "4", "--precision", "bf16"]
    assert shlex.split(recorded_command(extended)) == [*words, "--shots", "./second", *options]
    of_one = manifest.model_copy(update={"data": shots_record("photos", named=True), "classes": manifest.classes[:1]})
    named = ["--class", manifest.classes[0].name, "./photos/..."]  # some photos of that folder, or all
    assert shlex.split(recorded_command(of_one)) == [*words, *named, *usual]
    listed = manifest.model_copy(update={"data": manifest.data.model_copy(update={"split": LISTED})})
    assert shlex.split(recorded_command(listed)) == [*words, *usual]


def test_names_are_quoted_for_a_shell(calibrated: Path) -> None:
    manifest = RunFolder(calibrated).session(1).manifest
    data = manifest.data.model_copy(update={"name": "$(x) 'y'"})
    command = recorded_command(manifest.model_copy(update={"data": data}))
    assert shlex.split(command)[:6] == ["m2sd", "increment", "--session", "1", "--shots", "./$(x) 'y'"]
