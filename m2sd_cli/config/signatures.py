"""Functions of `**` that show the options of a configuration in their signature and help."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_options(model: type[PretrainConfig | DistillConfig]) -> Callable[[Function], Function]:
    """Decorate a function of `**options` so that its signature and its help list the options of a configuration."""
    options = options_of(model).values()
    heading = "Options, each as the file, the recipe or the data set has it if it is left out or None:"
    lines = [heading, *(f"    {option.name}: {option.help}" for option in options)]
    parameters = {option.name: (option.type | None, None) for option in options}

    def decorate(function: Function) -> Function:
        insert_parameters(function, parameters)
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", *lines])
        return function

    return decorate


def insert_parameters(
    function: Callable[..., Any], parameters: Mapping[str, tuple[Any, Any]], first: bool = False
) -> None:
    """Make a function of `**` show keyword-only parameters in its signature.

    Args:
        function: the function.
        parameters: annotation and default by name.
        first: put them before the keyword-only parameters that the function declares, and not after.
    """
    signature = inspect.signature(function)
    declared = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    inserted = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in parameters.items()
    ]
    position = sum(each.kind is not each.KEYWORD_ONLY for each in declared) if first else len(declared)
    declared[position:position] = inserted
    vars(function)["__signature__"] = signature.replace(parameters=declared)
