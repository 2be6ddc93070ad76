"""The command `m2sd sessions reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.option_sets import Printing, takes_option_sets
from m2sd_cli.cli.output import document, results, table
from m2sd_cli.errors import M2sdError


@dataclass(frozen=True, kw_only=True)
class Places:
    """The options that name where the inputs of a run lie."""

    data: options.FolderOfPretrain = None
    shots: options.ShotFolders = None
    init: Annotated[
        str | None, typer.Option("--init", help="The file of weights that pretrain began from.", show_default=False)
    ] = None
    data_root: options.DataRoot = None


@takes_option_sets
def reproduce(
    *,
    run: options.Run = None,
    session: Annotated[
        int | None,
        typer.Option("--session", help="Number of the last session to run; by default the newest.", show_default=False),
    ] = None,
    places: Places,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Device: cpu, cuda, cuda:N, mps or auto; auto is the recorded one, if it is there."
        ),
    ] = "auto",
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="New folder to keep the second run in.", show_default=False, readable=False),
    ] = None,
    printing: Printing,
) -> None:
    """Run all stages once more from what their manifests say, and compare the weights. The run is only read.

    It takes as long as the trainings took. The data have to be at hand, and are compared first. The table
    compares weights, and the statistics of batch norm.

    Examples:
      m2sd sessions reproduce
      m2sd sessions reproduce --data ./photos --shots 1=./new-birds
    """
    folders = options.shot_folders(places.shots or [])

    from m2sd_cli.api.reproduce import reproduce as run_again
    from m2sd_cli.cli.progress import reporting

    with reporting(printing.quiet):
        done = run_again(
            run=run,
            session=session,
            data=places.data,
            data_root=places.data_root,
            shots=folders,
            init=places.init,
            device=device,
            keep=keep,
        )
    if printing.json:
        document(
            {
                "same": done.same,
                "stages": [
                    {
                        "stage": each.name,
                        "recorded": each.recorded,
                        "reproduced": each.reproduced,
                        "same": each.same,
                        "largest_difference": each.difference,
                        "largest_difference_of_weights": each.weights,
                        "largest_difference_of_statistics": each.statistics,
                    }
                    for each in done.stages
                ],
                "circumstances": done.provenance,
            }
        )
        if not done.same:
            raise typer.Exit(M2sdError.exit_code)
        return
    rows = [
        [
            each.name,
            each.recorded[:12],
            each.reproduced[:12],
            _compared(each.weights, each.same),
            _compared(each.statistics, each.same),
        ]
        for each in done.stages
    ]
    results(table(["stage", "recorded", "reproduced", "weights", "statistics"], rows))
    if not done.same:
        differing = sum(not each.same for each in done.stages)
        why = "; ".join(done.provenance) or "versions, device, CPU and threads are the recorded ones"
        raise M2sdError(f"{differing} of {len(done.stages)} differ; {why}")


def _compared(difference: float | None, same: bool) -> str:
    if same or difference == 0:
        return "same"
    return "other tensors" if difference is None else f"differs by {difference:.1e}"
