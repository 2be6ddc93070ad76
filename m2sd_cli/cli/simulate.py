"""The command `m2sd simulate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.option_sets import Answering, Printing, takes_option_sets, values
from m2sd_cli.cli.output import FIGURES, document, format_mean, results, table
from m2sd_cli.reading import counted
from m2sd_cli.registry import CLASSIFIERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2sd_cli.reports.deviation import MeanAndDeviation
    from m2sd_cli.reports.draws import DrawFigures, Simulation


@takes_option_sets
def simulate(
    *,
    draws: Annotated[int, typer.Option("--draws", help="How often to draw the shots.")] = 20,
    classifier: Annotated[
        list[str] | None, options.named(CLASSIFIERS, "{choices}, may be repeated; all by default.")
    ] = None,
    run: options.Run = None,
    data: options.FolderOfPretrain = None,
    answering: Answering,
    printing: Printing,
) -> None:
    """Compare classifiers on a network, on average over many draws of the shots; no test image has a say.

    Some of the base classes play the new ones: those of a simulated data set that are not trained on, or a third of a
    folder's classes at a time. The latter is fair if the network was not trained on them, as after learn.

    Examples:
      m2sd pretrain --data cifar100-simulated --run simulation
      m2sd distill --run simulation
      m2sd simulate --run simulation --draws 20

      m2sd simulate --run birds
    """
    import m2sd_cli
    from m2sd_cli.cli.progress import reporting

    with reporting(printing.quiet):
        simulation = m2sd_cli.simulate(
            run=run,
            data=data,
            draws=draws,
            classifiers=classifier or None,
            **values(answering),
        )
    if printing.json:
        from dataclasses import asdict

        document(
            {
                "data": simulation.data,
                "sizes": simulation.sizes,
                "parts": simulation.parts,
                "shots": simulation.shots,
                "views": simulation.views,
                "skipped": [asdict(each) for each in simulation.skipped],
                "classifiers": [
                    {
                        "classifier": name,
                        **{key: asdict(each) for key, each in _means(figures).items()},
                        "draws": [asdict(each) for each in figures],
                    }
                    for name, figures in simulation.figures.items()
                ],
            }
        )
        return
    results(as_lines(simulation, draws))


def _means(figures: "Sequence[DrawFigures]") -> "dict[str, MeanAndDeviation]":
    from m2sd_cli.reports.deviation import MeanAndDeviation

    return {name: MeanAndDeviation.of([getattr(each, name) for each in figures]) for name in FIGURES}


def as_lines(simulation: "Simulation", draws: int) -> list[str]:
    """Format the simulation, and a line for each classifier."""
    base, *later = simulation.sizes
    way = simulation.sizes[1] - base
    rows = [
        [name, *(format_mean(each) for each in _means(figures).values())]
        for name, figures in simulation.figures.items()
    ]
    if simulation.parts > 1:
        played = f"{simulation.sizes[-1]} base classes, {way} at a time play new ones in {simulation.parts} parts"
        played += f", {simulation.shots} shots"
    else:
        played = f"{base} base classes, {counted(len(later), 'session')} of {way} classes x {simulation.shots} shots"
    return [
        f"{simulation.data}: {played}, views {simulation.views}, draws {draws}",
        "",
        *table(["classifier", *FIGURES.values()], rows),
    ]
