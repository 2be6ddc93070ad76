"""Options that change nothing beside the others."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import ENHANCEMENT_TERMS, DistillConfig, PretrainConfig
from m2sd_cli.tables import OPTIMIZERS, SCHEDULES


def without_effect(model: type[PretrainConfig | DistillConfig], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a stage that change nothing beside the others, each with the reason.

    A schedule or an optimiser of another package may use any of them: with such a one there are none.

    Args:
        model: the configuration of the stage.
        values: of options by name; others have their defaults.
    """
    options = options_of(model)
    idle: dict[str, str] = {}

    def chosen(name: str) -> Any:
        return values.get(name, options[name].default)

    if not SCHEDULES.is_built_in(chosen("schedule")) or not OPTIMIZERS.is_built_in(chosen("optimizer")):
        return idle
    if not SCHEDULES[chosen("schedule")].milestones:
        idle["gamma"] = f"--schedule {chosen('schedule')} has no milestones"
    if model is PretrainConfig:
        return idle
    if chosen("mixing") == "none":
        idle["beta"] = "--mixing none mixes no images"
    if not chosen("kd_weight"):
        idle["temperature"] = "there is no distillation from enhanced features, as --kd-weight is 0"
    if not chosen("attention_weight"):
        idle["attention_reduction"] = "there is no attention transfer, as --attention-weight is 0"
    if chosen("enhancement") == "no-pyramid" or not any(map(chosen, ENHANCEMENT_TERMS)):
        idle["pyramid_width"] = "there is no pyramid"
    return idle


def effective(config: PretrainConfig | DistillConfig) -> dict[str, Any]:
    """Return the options of a configuration by name, without those that change nothing beside the others."""
    values = asdict(config)
    idle = without_effect(type(config), values)
    return {name: value for name, value in values.items() if name not in idle}
