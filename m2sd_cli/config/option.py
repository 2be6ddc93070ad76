"""An option: its name, type, default, bounds and help, as the command line, Python and a file know it."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_type_hints

from m2sd_cli.config.usual_names import meant_by, plain
from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted
from m2sd_cli.registry import Registry, one_of

MANY = 10**9  # the highest bound of a count
WANTED: Final = {  # by pydantic's names of errors
    "greater_than": "more than {}",
    "greater_than_equal": "at least {}",
    "less_than": "less than {}",
    "less_than_equal": "at most {}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text in quotes",
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """The bounds and the help of an option, whose name, type and default are those of its field.

    `{choices}` in the help stands for the choices.
    """

    help: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    table: Registry[Any] | None = None  # the table of the names that the option takes
    default: str | None = None  # for the help page, if the default of the field is not the whole truth
    aliases: tuple[str, ...] = ()  # earlier names, which the command line takes without showing them
    symbol: str = ""  # in the paper, as tables of the documents show it


@dataclass(frozen=True)
class TrainingOption:
    """An option of a configuration, as the command line, Python and a file know it."""

    name: str
    type: Any  # of a value that is given
    optional: bool  # True if None is a value, too
    default: Any  # dataclasses.MISSING if there is none
    option: Option

    @property
    def choices(self) -> tuple[str, ...]:
        """The names to choose from, if the option is a choice."""
        return get_args(self.type) if self.option.table is None else self.option.table.names()

    @property
    def help(self) -> str:
        """The line of help, with the choices in it."""
        choices = one_of(get_args(self.type)) if self.option.table is None else self.option.table.listed()
        return self.option.help.replace("{choices}", choices)

    @property
    def shown_default(self) -> str:
        """The default as a help page shows it; empty if there is none."""
        if self.option.default is not None or self.default is dataclasses.MISSING:
            return self.option.default or ""
        return as_word(self.default)

    def check(self, value: object) -> Any:
        """Return a value in the option's type, such as a whole number as a float or as a text.

        Raises:
            UsageError: the option cannot have the value.
        """
        from pydantic import ValidationError

        if value is None and self.optional:
            return None
        if self.type is str and type(value) is int:
            value = shown(value)  # a seed needs no quotes in Python and TOML
        try:
            checked = self._validator.validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{flag(self.name)} {shown(value)}: {self._wanted(error.errors()[0])}") from None
        if self.option.table is not None:
            self.option.table[checked]
        return checked

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value, without the names in a table."""
        found: dict[str, Any] = self._validator.json_schema()
        return found

    def _wanted(self, error: Mapping[str, Any]) -> str:
        """Return the values that the option takes, as the end of a message on one that pydantic has refused."""
        if get_args(self.type):
            return f"choose {one_of(self.choices)}"
        if error["type"] not in WANTED:
            return str(error["msg"]).lower()
        return WANTED[error["type"]].format(*map(as_word, error.get("ctx", {}).values()))

    @property
    def _validator(self) -> Any:
        return _validator(self.type, **{name: getattr(self.option, name) for name in ("gt", "ge", "lt", "le")})


@lru_cache
def _validator(kind: Any, **bounds: float | None) -> Any:
    """Return the validator of a type within bounds."""
    from pydantic import ConfigDict, Field, TypeAdapter

    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    if kind is float and not given.keys() & {"lt", "le"}:
        given["allow_inf_nan"] = False
    # Strict: otherwise `epochs = true` in a file would be one epoch.
    return TypeAdapter(Annotated[kind, Field(**given)], config=ConfigDict(strict=True))


def options_of(model: type[Any]) -> dict[str, TrainingOption]:
    """Return the options of a configuration by name, those of its own class first."""
    hints = get_type_hints(model, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    found = {}
    for name in dict.fromkeys(name for each in model.__mro__ for name in inspect.get_annotations(each)):
        kind, option = get_args(hints[name])
        optional = NoneType in get_args(kind)
        plain = next(each for each in get_args(kind) if each is not NoneType) if optional else kind
        found[name] = TrainingOption(name, plain, optional, defaults[name], option)
    return found


def find_option(options: Mapping[str, TrainingOption], name: str, source: str | None = None) -> TrainingOption:
    """Return an option by its name.

    Raises:
        UsageError: there is none of that name; the message names the nearest one.
    """
    if name not in options:
        where = f"{source}: " if source else ""
        raise UsageError(f"{where}there is no option {quoted(repr(name))}{nearest(name, options)}")
    return options[name]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that names the ones of some names that may be meant; empty if there is none."""
    known = {plain(each): each for each in names}
    meant = [repr(known[each.split()[0]]) for each in meant_by(name, known)]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def as_word(value: object) -> str:
    """Return a default as a help page shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def flag(name: str) -> str:
    """Return the name of a field on the command line: `--batch-size` of `batch_size`."""
    return "--" + name.replace("_", "-")


def shown(value: object) -> str:
    """Return a given value of any type as a message can show it."""
    if isinstance(value, dict | list):
        return "(a table)" if isinstance(value, dict) else "(a list)"
    if isinstance(value, int) and value.bit_length() > 80:
        return "(a large number)"  # Python refuses to convert very large ones to text
    return quoted(str(value))
