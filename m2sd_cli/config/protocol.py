"""The options that divide a built-in data set into base session and sessions, and those that choose its images."""

from dataclasses import dataclass
from typing import Annotated

from m2sd_cli.config.option import MANY, Option


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """The division of a built-in data set, as far as it is not the official one."""

    base_classes: Annotated[
        int | None, Option(help="Of a built-in data set; sessions teach the others.", ge=2, le=MANY, default="official")
    ] = None
    way: Annotated[
        int | None, Option(help="Classes of a session; the last may be smaller.", ge=1, le=MANY, default="official")
    ] = None
    shots_per_class: Annotated[
        int | None, Option(help="Images of a new class that a session teaches.", ge=1, le=MANY, default="official")
    ] = None
    class_order: Annotated[
        str | None,
        Option(
            help="Seed of a permutation, as 1993, or a file: one class a line, by name or number.", default="official"
        ),
    ] = None  # in a configuration that was used the name of the file, without its folder
    shots_draw: Annotated[
        int | None,
        Option(help="Number of a draw of the shots.", ge=1, le=MANY, default="official; 1 where a class has too few"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """The choice of the base training images that stage 1 is given, and with it every later stage."""

    held_out: Annotated[float, Option(help="Share of each base class never to train on, up to 0.5.", ge=0, le=0.5)] = (
        0.0
    )
    images_per_class: Annotated[
        int | None,
        Option(help="Train on so many images of each base class only.", ge=1, le=MANY, default="all"),
    ] = None  # of those that are not held out
