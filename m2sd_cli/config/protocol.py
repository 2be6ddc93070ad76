"""The options that divide a built-in data set into base session and sessions, and those that choose its images."""

from dataclasses import dataclass
from typing import Annotated

from m2sd_cli.config.option import MANY, Option


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """The division of a built-in data set, as far as it is not the official one."""

    base_classes: Annotated[
        int | None,
        Option(
            help="Number of base classes of a built-in data set; sessions teach the others.",
            ge=2,
            le=MANY,
            default="official",
        ),
    ] = None
    way: Annotated[
        int | None,
        Option(help="New classes of a session; the last session may have fewer.", ge=1, le=MANY, default="official"),
    ] = None
    shots_per_class: Annotated[
        int | None,
        Option(help="Number of shots, the images that teach a new class.", ge=1, le=MANY, default="official"),
    ] = None
    class_order: Annotated[
        str | None,
        Option(
            help="Order of the classes: the seed of a permutation, as 1993, or a file with a name or number a line.",
            default="official",
        ),
    ] = None  # a recorded configuration has the name of a file without its folder
    shots_draw: Annotated[
        int | None,
        Option(
            help="Draw the shots at random; this is the seed of the draw.",
            ge=1,
            le=MANY,
            default="official; 1 where a class has too few",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """The choice of the base training images that stage 1 is given, and with it every later stage."""

    held_out: Annotated[
        float,
        Option(
            help="Share of each base class that is held out of training, to calibrate probabilities with; up to 0.5.",
            ge=0,
            le=0.5,
        ),
    ] = 0.0
    images_per_class: Annotated[
        int | None,
        Option(help="Most images of each base class to train on.", ge=1, le=MANY, default="all"),
    ] = None  # of those that are not held out
