"""The protocol of a built-in data set: its base classes, sessions and shots; this module imports no torch."""

from dataclasses import dataclass, replace

from m2sd_cli.data.catalogue import DATA_SETS, DataSetInfo, simulation_of
from m2sd_cli.errors import UsageError, os_errors_as
from m2sd_cli.paths import expand
from m2sd_cli.reading import counted, quoted, read_regular

ORDER_LIMIT = 2**24  # bytes of a file of class names
SEED_LIMIT = 2**32  # of numpy's RandomState


@dataclass(frozen=True)
class Protocol:
    """Another division of a built-in data set than its official one; its simulation is divided accordingly."""

    base_classes: int
    way: int  # classes of a session; the last one has those that are left
    shots_per_class: int
    class_order: int | tuple[str, ...] | None = None  # a seed, or classes by name or number; None: the data set's own
    shots_draw: int | None = None  # None: the official shots, or draw 1 where a class has too few of them

    def describe(self, classes: int) -> str:
        """Describe the division in a line.

        Args:
            classes: of the whole data set.
        """
        left = classes - self.base_classes
        sessions, rest = -(-left // self.way), left % self.way
        shots = counted(self.shots_per_class, "shot")
        parts = [f"{self.base_classes} base classes, {counted(sessions, 'session')} of {self.way} classes x {shots}"]
        if rest:
            parts.append(f"{rest} in the last session")
        if self.class_order is not None:
            parts.append(f"order {self.class_order}" if isinstance(self.class_order, int) else "order of a file")
        parts.append("official shots" if self.shots_draw is None else f"draw {self.shots_draw} of the shots")
        return ", ".join(parts)


def choose_protocol(
    info: DataSetInfo,
    base_classes: int | None = None,
    way: int | None = None,
    shots_per_class: int | None = None,
    class_order: str | None = None,
    shots_draw: int | None = None,
) -> Protocol | None:
    """Choose the protocol of a data set, or of the one that it simulates; None stands for the official value.

    Args:
        info: the data set.
        base_classes, way, shots_per_class, shots_draw: see Protocol.
        class_order: a seed, or the path of a file, see `read_order`.

    Returns:
        None if nothing is asked for.

    Raises:
        UsageError: the data set has too few classes, or the order cannot be read.
    """
    if (base_classes, way, shots_per_class, class_order, shots_draw) == (None,) * 5:
        return None
    original = DATA_SETS[info.simulates or info.name]
    base = original.base if base_classes is None else base_classes
    protocol = Protocol(
        base,
        max(1, min(original.way, original.classes - base)) if way is None else way,
        original.shots if shots_per_class is None else shots_per_class,
        None if class_order is None else read_order(class_order),
        shots_draw,
    )
    require_fit(protocol, original)
    return protocol


def require_fit(protocol: Protocol, info: DataSetInfo) -> None:
    """Refuse a protocol of more classes than a data set has.

    Raises:
        UsageError: the data set has too few; the message names the option.
    """
    base, way = protocol.base_classes, protocol.way
    left = info.classes - base
    if left < 1:
        raise UsageError(
            f"--base-classes {base}: {info.name} has {info.classes} classes, and one has to be left to teach; give "
            f"fewer"
        )
    if way > left:
        raise UsageError(f"--way {way}: {info.name} has {left} classes left after {base} base classes; give fewer")


def read_order(value: str) -> int | tuple[str, ...]:
    """Read an order of classes: a seed, or a file with one class a line, by its name or by its number from 0.

    Raises:
        UsageError: the file cannot be read, or the seed is too large.
    """
    if value.isascii() and value.isdecimal():
        if int(value[:20]) >= SEED_LIMIT:
            raise UsageError(f"--class-order {quoted(value)}: a seed is below {SEED_LIMIT}")
        return int(value)
    path = expand(value, "--class-order")
    with os_errors_as(UsageError, f"--class-order {path}: no seed, and no file that can be read"):
        content = read_regular(path, ORDER_LIMIT)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"--class-order {path}: cannot be read (not UTF-8)") from None
    return tuple(filter(None, map(str.strip, lines)))


def apply_protocol(info: DataSetInfo, protocol: Protocol | None) -> DataSetInfo:
    """Describe a data set, or a simulation, under a protocol of the data set; None leaves it as it is.

    Raises:
        UsageError: the protocol has too few base classes for a simulation.
    """
    if protocol is None:
        return info
    original = replace(
        DATA_SETS[info.simulates or info.name],
        base=protocol.base_classes,
        way=protocol.way,
        shots=protocol.shots_per_class,
    )
    if info.simulates is None:
        return original
    simulated = simulation_of(original)
    if simulated is None:
        raise UsageError(f"--data {info.name}: too few base classes to play new ones; take more --base-classes")
    return simulated
