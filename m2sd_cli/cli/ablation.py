"""The command `m2sd ablation`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2sd_cli.ablation.rows import PLAIN, ROWS, choose_rows
from m2sd_cli.cli import options
from m2sd_cli.cli.output import FIGURES, as_text, document, format_mean, note, results, table
from m2sd_cli.data.catalogue import find_info

if TYPE_CHECKING:
    from m2sd_cli.ablation.records import Budget
    from m2sd_cli.ablation.table import RowSummary

HEADINGS = {**FIGURES, "session_0": "session 0"}
LOOKS = {"auto_augment": "none", "colour": 0.0, "cutout": 0.0}  # of training images; told of if they are changed


def ablation(
    out: Annotated[Path, typer.Option("--out", help="The folder for runs and results.", readable=False)] = Path(
        "m2sd-ablation"
    ),
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A built-in data set.",
            show_default="of --config or --recipe, else cifar100",
            autocompletion=options.complete_data_sets,
        ),
    ] = None,
    recipe: options.RecipeName = None,
    images_per_class: Annotated[
        int | None,
        typer.Option(
            "--images-per-class",
            help="Of the base classes; by default as --config or --recipe says, else all.",
            show_default=False,
        ),
    ] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option("--pretrain-epochs", help="Epochs of stage 1.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs of stage 2, in every row.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many: 0, 1, ...")] = 3,
    rows: Annotated[
        str | None,
        typer.Option("--rows", help=f"Some of {', '.join(ROWS)}; all by default.", show_default=False),
    ] = None,
    shared_stage_1: Annotated[
        bool,
        typer.Option(
            "--shared-stage-1/--stage-1-per-seed", help="One stage 1 for all seeds, or for the rows of each seed."
        ),
    ] = False,
    config: options.ConfigFile = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after", help="Save and stop after 90s, 9m or 2h; the same command goes on.", show_default=False
        ),
    ] = None,
    save_every: options.SaveEvery = "5m",
    only_table: Annotated[
        bool, typer.Option("--table", help="Print what is there of --rows, and run nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the worth of each part of the method: train every row of the table on one budget, with several seeds.

    All rows of a seed begin from one stage 1 and differ in stage 2 alone. Then they learn every official session.
    The same command goes on where it was cut off; meanwhile --seeds and --rows may change, and no other option that
    decides a result. Started several times, for example once with --device cuda:0 and once with --device cuda:1, it
    shares the runs.

    Examples:
      m2sd ablation
      m2sd ablation --recipe cifar100-resnet20
      m2sd ablation --images-per-class 100 --epochs 10 --out few
      m2sd ablation --rows plain,both,m2sd --stop-after 9m
      m2sd ablation --table --out few
    """
    chosen = choose_rows(rows)  # what is misspelt is answered before torch is imported
    if data is not None:
        find_info(data)
    limit = options.time_limit(stop_after)
    between_saves = options.seconds("--save-every", save_every)

    from m2sd_cli.ablation.records import read_budget, read_results
    from m2sd_cli.ablation.table import summarise

    finished, busy = True, list[str]()
    if only_table:
        budget = read_budget(out)
        runs = [each for each in read_results(out) if each.row in {row.name for row in chosen}]
    else:
        from m2sd_cli.api.ablate import ablate
        from m2sd_cli.cli.progress import reporting

        with reporting(quiet):
            done = ablate(
                out,
                data=data,
                recipe=recipe,
                config=config,
                images_per_class=images_per_class,
                pretrain_epochs=pretrain_epochs,
                epochs=epochs,
                seeds=seeds,
                rows=rows,
                shared_stage_1=shared_stage_1,
                data_root=data_root,
                device=device,
                precision=precision,
                stop_after=limit,
                save_every=between_saves,
            )
        budget, runs, finished, busy = done.budget, done.results, done.finished, done.busy
    summary = summarise(runs)
    if json:
        from dataclasses import asdict

        content = {
            "out": as_text(out),
            "budget": budget.as_data(),
            "rows": [asdict(line) for line in summary],
            "runs": [each.as_data() for each in runs],
        }
        document(content if only_table else content | {"finished": finished})
    else:
        results(as_lines(budget, summary))
    if busy:
        note(f"other processes are at {', '.join(busy)}; the same command goes on with what they leave", quiet)
    elif not finished:
        note("time is up; saved. Go on with the same command", quiet)


def describe_budget(budget: "Budget") -> str:
    """Format the settings that all rows share, as far as a reader has to know them."""
    first, second = budget.pretrain, budget.distill
    few = first["images_per_class"]
    parts = [
        budget.data,
        f"recipe {budget.recipe}" if budget.recipe else "no recipe",
        f"{'all images' if few is None else f'{few} images'} of each base class, held out {first['held_out']:g}",
        f"{first['backbone']} from {first['init'] or 'random'} weights",
        f"stage 1 {first['epochs']} epochs, {'the same' if budget.shared_stage_1 else 'one'} for each seed",
        f"stage 2 {second['epochs']} epochs in batches of {second['batch_size']}",
        *(
            f"{name.replace('_', '-')} {first[name]} and {second[name]}"
            for name, usual in LOOKS.items()
            if (first[name], second[name]) != (usual, usual)
        ),
        f"views {second['views']}",
        f"classifier {second['classifier'] or 'by default'}",
        f"{budget.device} {budget.precision}",
    ]
    return "; ".join(parts)


def as_lines(budget: "Budget", summary: "list[RowSummary]") -> list[str]:
    """Format the shared settings, the table, and below it the differences to plain training, seed by seed."""
    if not summary:
        return ["no run has ended yet"]
    rows = [
        [
            line.row,
            *(format_mean(line.accuracies[name]) for name in HEADINGS),
            f"{line.seconds.mean:.0f}",
            f"{line.ms_per_step.mean:.1f}",
            str(line.seeds),
            line.what,
        ]
        for line in summary
    ]
    text = [describe_budget(budget), ""]
    text += table(["row", *HEADINGS.values(), "seconds", "ms/step", "seeds", "what"], rows)
    compared = [
        [line.row, *(format_mean(line.above_plain[name], "+") for name in HEADINGS), str(line.pairs)]
        for line in summary
        if line.above_plain is not None
    ]
    if compared:
        text += ["", f"above {PLAIN}, seed by seed", *table(["row", *HEADINGS.values(), "seeds"], compared)]
    return text
