"""Options that several commands take together, as one value: dataclasses whose fields are options."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from m2sd_cli.cli import options


@dataclass(frozen=True, kw_only=True)
class Computing:
    """The options of commands that compute features of a data set's images."""

    data_root: options.DataRoot = None
    device: options.Device = "auto"
    precision: options.ExactPrecision = "auto"


@dataclass(frozen=True, kw_only=True)
class Answering(Computing):
    """The options of commands that may leave out unreadable photos, too."""

    skip_bad: options.SkipBad = False


@dataclass(frozen=True, kw_only=True)
class Evaluating(Answering):
    """The options of commands that evaluate runs, too."""

    ignore_new: options.IgnoreNew = False


@dataclass(frozen=True, kw_only=True)
class Classifying:
    """The options that choose how a run answers."""

    classifier: options.Classifier = None
    base_cost: options.BaseCost = None


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The options that name the images to test on."""

    test: options.LabelledFolder = None
    data: options.FolderOfPretrain = None


@dataclass(frozen=True, kw_only=True)
class Printing:
    """The options of a command's output."""

    json: options.Json = False
    quiet: options.Quiet = False


def takes_option_sets(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that a parameter that is a set of options stands for the options in it."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    sets: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    shown: dict[str, tuple[Any, Any]] = {}
    for name, parameter in signature.parameters.items():
        if name in sets:
            own = get_type_hints(sets[name], include_extras=True)
            shown |= {field.name: (own[field.name], field.default) for field in dataclasses.fields(sets[name])}
        else:
            shown[name] = hints[name], parameter.default

    @functools.wraps(command)
    def spread(**given: Any) -> None:
        for name, kind in sets.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})
        command(**given)

    vars(spread)["__signature__"] = signature.replace(
        parameters=[
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in shown.items()
        ]
    )
    return spread


def values(*sets: Any) -> dict[str, Any]:
    """Return the values of all options in some sets by name."""
    return {field.name: getattr(each, field.name) for each in sets for field in dataclasses.fields(each)}
