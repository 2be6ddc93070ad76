"""The command `m2sd simulate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.option_sets import Evaluating, Printing, takes_option_sets, values
from m2sd_cli.cli.output import FIGURES, command, document, format_mean, note, results, table
from m2sd_cli.reading import counted
from m2sd_cli.registry import one_of
from m2sd_cli.tables import CLASSIFIERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2sd_cli.reports.deviation import MeanAndDeviation
    from m2sd_cli.reports.draws import DrawFigures, Simulation


@takes_option_sets
def simulate(
    *,
    draws: Annotated[int, typer.Option("--draws", help="Number of random draws of the shots.")] = 20,
    classifier: Annotated[
        list[str] | None, options.named(CLASSIFIERS, "Classifier: {choices}; may be repeated, by default all.")
    ] = None,
    run: options.Run = None,
    data: options.FolderOfPretrain = None,
    evaluating: Evaluating,
    printing: Printing,
) -> None:
    """Compare classifiers without test images, on average over many draws of the shots.

    The run is one of a folder, or of a data set whose name ends in -simulated. Some of its base classes play new
    ones. In a simulated data set these are never trained on. Of a folder a third of the classes at a time plays them,
    which is fair only if the network was not trained on them, as after learn.

    Examples:
      m2sd pretrain --data cifar100-simulated --run simulation
      m2sd distill --run simulation
      m2sd simulate --run simulation --draws 20

      m2sd simulate --run birds
    """
    import m2sd_cli
    from m2sd_cli.api.recorded_data import next_session
    from m2sd_cli.cli.progress import reporting

    with reporting(printing.quiet):
        simulation = m2sd_cli.simulate(
            run=run,
            data=data,
            draws=draws,
            classifiers=classifier or None,
            **values(evaluating),
        )
    if printing.json:
        from dataclasses import asdict

        document(
            {
                "data": simulation.data,
                "sizes": simulation.sizes,
                "parts": max(1, len(simulation.playing)),
                "playing": simulation.playing,
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
    following = next_session(m2sd_cli.open_run(run))
    if following is None:
        way = command("increment", run, " --classifier NAME --shots DIR")
        note(f"to teach new classes with one of them, a folder a class in DIR: {way}", printing.quiet)
    else:
        taught = command("increment", run, session=following, data_root=evaluating.data_root)
        note(f"next: {taught}", printing.quiet)


def _means(figures: "Sequence[DrawFigures]") -> "dict[str, MeanAndDeviation]":
    from m2sd_cli.reports.deviation import MeanAndDeviation

    return {name: MeanAndDeviation.of([getattr(each, name) for each in figures]) for name in FIGURES}


def as_lines(simulation: "Simulation", draws: int) -> list[str]:
    """Format the simulation, and a line for each classifier."""
    rows = [
        [name, *(format_mean(each) for each in _means(figures).values())]
        for name, figures in simulation.figures.items()
    ]
    drawn = f"draws {draws}"
    if simulation.playing:
        turns = one_of([str(each) for each in sorted({*simulation.playing})])
        parts = len(simulation.playing)
        played = f"{simulation.sizes[-1]} base classes, {turns} at a time play new ones in {parts} parts"
        played += f", {simulation.shots} shots"
        drawn += " in each part"
    else:
        base, *later = simulation.sizes
        way = later[0] - base
        played = f"{base} base classes, {counted(len(later), 'session')} of {way} classes x {simulation.shots} shots"
    return [
        f"{simulation.data}: {played}, views {simulation.views}, {drawn}",
        "",
        *table(["classifier", *FIGURES.values()], rows),
    ]
