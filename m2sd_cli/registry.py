"""The table of parts that are chosen by name. Plug-ins add to it.

An entry names its builder as "module:function", which is imported when it is used, so that a table imports no torch.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.progress import say
from m2sd_cli.reading import quoted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FILE_ORIGINS: Final[dict[str, str]] = {}  # by module, the name and SHA-256 of a file that the command line has named
FILE_SHA256: Final = "SHA-256 "
_registered: list[str] = []  # names of all tables that were registered in this process
_running: list[str] = []  # modules of the files that are being run, the last one begun last

OTHERS: Final = "m2sd --plugin FILE.py adds others"  # the end of messages on unknown names
OWN: Final = "m2sd_cli."  # the beginning of the builders of this package, which the tests cover
NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"  # the pattern of a well-formed name
WELL_FORMED: Final = (
    "names have lower-case letters, digits, dots, dashes and underscores, and begin with a letter or a digit"
)

Builder = str | Callable[..., Any]


class Buildable(Protocol):
    """An entry of a table."""

    @property
    def builder(self) -> Builder:
        """A function, or its "module:function"."""


Entry = TypeVar("Entry", bound=Buildable)


def load(builder: Builder) -> Callable[..., Any]:
    """Import the function that "module:function" names; a function is returned as it is.

    Raises:
        M2sdError: there is no such module or function, or the module fails.
    """
    if callable(builder):
        return builder
    module, _, function = builder.partition(":")
    try:
        loaded: Callable[..., Any] = getattr(import_module(module), function)
    except Exception as error:  # a module of another package may raise anything
        raise M2sdError(f"{builder}: it cannot be imported ({error})") from error
    return loaded


def registrations() -> int:
    """Count the entries that were registered in this process, in all tables."""
    return len(_registered)


@contextmanager
def running(module: str) -> Iterator[None]:
    """Run a file: whatever is registered meanwhile comes from it."""
    _running.append(module)
    try:
        yield
    finally:
        _running.pop()


def file_of(origin: str) -> str | None:
    """Return the name of the file that a record names as an origin, see `Registry.origin`; None for a package."""
    return origin.rpartition(f" ({FILE_SHA256}")[0] or None


def way_to(origin: str | None) -> str:
    """Return the end of a message on an unknown name: the way to the file or package that it came from.

    Args:
        origin: as `Registry.origin` returned it and a record has it; None for a name of this package.
    """
    if origin is None:
        return ""
    file = file_of(origin)
    if file is not None:
        return f"; it comes from {quoted(file)}, to be named before the command: m2sd --plugin {quoted(file)}"
    return f"; it comes from {quoted(origin)}, which has to be installed"


def one_of(names: Sequence[str]) -> str:
    """Enumerate names as a sentence does: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


@dataclass(frozen=True)
class Family:
    """Entries that another package has under names of its own, which begin with a prefix here."""

    prefix: str
    builder: Builder  # of the name after the prefix, returns the entry
    package: str  # the module of the other package
    extra: str  # of this package, which installs the other one


class Registry(Generic[Entry]):
    """Entries of one kind under their names: built-in ones, registered ones and entry points of installed packages.

    The metadata of installed packages is read when a name is unknown or completed, and not before: help pages name the
    other entries alone. Where two entries have one name, the built-in one counts.

    Args:
        option: the command-line option that chooses an entry, for messages.
        group: the group of the entry points, each of which names an entry.
        kind: the class of an entry.
        entries: the built-in entries by name.
        families: sets of entries that are not listed one by one.
    """

    def __init__(
        self,
        option: str,
        group: str,
        kind: type[Entry],
        entries: Mapping[str, Entry],
        families: Sequence[Family] = (),
    ) -> None:
        self.option = option
        self.group = group
        self.kind = kind
        self.entries = dict(entries)
        self.families = families
        self._modules: dict[str, str] = {}  # of registered entries by name

    def register(self, name: str, entry: Entry, builder: Builder) -> None:
        """Add an entry.

        Args:
            name: lower-case letters, digits, dots, dashes and underscores.
            entry: of the class `kind`.
            builder: a function of the package that adds the entry, see `origin`.

        Raises:
            UsageError: the name is taken or not well-formed.
        """
        if not re.fullmatch(NAME, name):
            raise UsageError(f"{self.option} {name}: {WELL_FORMED}")
        if name in self:
            raise UsageError(f"{self.option} {name}: the name is taken; choose another")
        self.entries[name] = entry
        _registered.append(name)
        if _running:  # whose builder may be of another module, as that of functools.partial
            self._modules[name] = _running[-1]
        else:
            self._modules[name] = builder.partition(":")[0] if isinstance(builder, str) else builder.__module__

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._plugins or self._family(name) is not None

    def __getitem__(self, name: str) -> Entry:
        """Look up an entry.

        Raises:
            UsageError: there is none of that name; the message lists the names, and the most similar one.
            M2sdError: a plug-in cannot be loaded, or the package of a family is not installed.
        """
        if name in self.entries:
            return self.entries[name]
        family = self._family(name)
        if family is not None:
            return self._member(name, family)
        if name not in self._plugins:
            if name in self._entry_points:
                raise UsageError(f"{self.option} {quoted(name)}: its package has to rename it: {WELL_FORMED}")
            choices = ", ".join([*self.names(), *self._examples()])
            raise UsageError(f"{self.option} {quoted(name)}: choose {choices}{self._suggestion(name)}; {OTHERS}")
        plugin = self._plugins[name]
        try:
            entry = plugin.load()
        except Exception as error:  # a module of another package may raise anything
            raise M2sdError(f"{self.option} {name}: {self.origin(name)} cannot be loaded ({error})") from error
        if not isinstance(entry, self.kind):
            raise M2sdError(f"{self.option} {name}: {plugin.value} of {self.origin(name)} is no {self.kind.__name__}")
        own = getattr(entry, "name", name)  # a data set is recorded, and opened again, by its own name
        if own != name:
            raise self.broken(name, f"{plugin.value} has the name {own!r}; name the entry point so")
        return entry

    def names(self) -> tuple[str, ...]:
        """List the names of all entries, plug-ins last."""
        return *self.entries, *(name for name in sorted(self._plugins) if name not in self.entries)

    def loadable(self) -> dict[str, Entry]:
        """Return all entries by name, plug-ins last; one that cannot be loaded is left out, and a line says why."""
        found = {}
        for name in self.names():
            try:
                found[name] = self[name]
            except M2sdError as error:
                say(f"left out: {error}")
        return found

    def listed(self, only: Callable[[Entry], bool] = lambda _: True) -> str:
        """Enumerate the names for a help page, which is shown before the metadata of packages could be read.

        Args:
            only: tells if an entry is listed.
        """
        return one_of((*(name for name, entry in self.entries.items() if only(entry)), *self._examples()))

    def complete(self, incomplete: str, only: Callable[[Entry], bool] = lambda _: True) -> list[str]:
        """List the names that have this beginning, for a shell.

        Args:
            incomplete: the beginning.
            only: tells if an entry is listed; entries of installed packages always are.
        """
        prefixes = [family.prefix for family in self.families]
        names = [name for name in self.names() if name not in self.entries or only(self.entries[name])]
        return [name for name in (*names, *prefixes) if name.startswith(incomplete)]

    def origin(self, name: str) -> str | None:
        """Return the package that an entry comes from, with its version; None for a built-in one."""
        family = self._family(name)
        if name in self._modules or family is not None:
            from importlib import metadata

            package = family.package if family is not None else self._modules[name].partition(".")[0]
            if package in FILE_ORIGINS:
                return FILE_ORIGINS[package]
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                return f"{package} without a version"
        if name in self.entries or name not in self._plugins:
            return None
        distribution = self._plugins[name].dist
        return f"{distribution.name} {distribution.version}" if distribution else self._plugins[name].module

    def has_changed(self, name: str, origin: str) -> bool:
        """Tell whether an entry that came from a file comes from another one now; the file may have been renamed.

        Args:
            name: of an entry that is here.
            origin: as a record has it.
        """
        content = origin.rpartition(FILE_SHA256)[2]
        return file_of(origin) is not None and not (self.origin(name) or "").endswith(content)

    def tell_changed(self, name: str, origins: Mapping[str, str]) -> None:
        """Say so if an entry comes from another file than a record says, with which the answers may be others.

        Args:
            name: of an entry that is here.
            origins: of entries by name, as the record has them.
        """
        origin = origins.get(name)
        if origin is not None and self.has_changed(name, origin):
            say(f"{name} is of another {file_of(origin)} than the run was made with: answers may be others")

    def is_built_in(self, name: str) -> bool:
        """Tell whether an entry is of this package; a name that is not known here is of none."""
        return name in self.entries and self.origin(name) is None

    def is_of_this_process(self, name: str) -> bool:
        """Tell whether an entry was registered by no file and no package, so that no other process knows it."""
        return name in self._modules and self._modules[name].partition(".")[0] not in FILE_ORIGINS

    def broken(self, name: str, reason: str) -> M2sdError:
        """Make the error of an entry whose builder does not keep the contract."""
        origin = self.origin(name)
        return M2sdError(f"{self.option} {name}{f', of {origin}' if origin else ''}: {reason}")

    def is_foreign(self, name: str) -> bool:
        """Tell whether the code of an entry is of a package or file that adds it, and may do anything.

        Raises:
            UsageError: there is no entry of that name.
            M2sdError: a plug-in cannot be loaded.
        """
        builder = self[name].builder
        return self._family(name) is None and not (isinstance(builder, str) and builder.startswith(OWN))

    @contextmanager
    def blamed(self, name: str) -> Iterator[None]:
        """Turn whatever the code of a foreign entry raises into an error that names the entry.

        Raises:
            M2sdError: the code raised something.
        """
        try:
            yield
        except M2sdError:
            raise
        except Exception as error:
            if not self.is_foreign(name):
                raise
            reason = quoted(f"{type(error).__name__}: {error}")
            raise self.broken(name, f"it fails ({reason}); --debug shows where") from error

    def _family(self, name: object) -> Family | None:
        text = name if isinstance(name, str) else ""
        return next((each for each in self.families if text.startswith(each.prefix)), None)

    def _member(self, name: str, family: Family) -> Entry:
        from importlib.util import find_spec

        if find_spec(family.package) is None:
            from m2sd_cli.extras import install_extra

            raise M2sdError(f"{self.option} {quoted(name)}: it needs one more package: {install_extra(family.extra)}")
        entry: Entry = load(family.builder)(name.removeprefix(family.prefix))
        return entry

    def _examples(self) -> list[str]:
        return [f"{family.prefix}NAME" for family in self.families]

    def _suggestion(self, name: str) -> str:
        from difflib import get_close_matches

        similar = get_close_matches(name, self.names(), n=1)
        return f" (did you mean {similar[0]}?)" if similar else ""

    @cached_property
    def _entry_points(self) -> "dict[str, EntryPoint]":
        from importlib.metadata import entry_points  # takes longer to import than all of the command line does to build

        return {each.name: each for each in entry_points(group=self.group)}

    @cached_property
    def _plugins(self) -> "dict[str, EntryPoint]":
        return {name: each for name, each in self._entry_points.items() if re.fullmatch(NAME, name)}
