"""The command `m2sd ablation`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2sd_cli.ablation.rows import ROWS, baseline, choose_rows, choose_seeds, read_rows
from m2sd_cli.cli import options
from m2sd_cli.cli.output import FIGURES, as_text, document, duration, format_mean, note, results, table
from m2sd_cli.cli.study import session_data
from m2sd_cli.cli.training import option_annotation, stopped_in_time
from m2sd_cli.config.option import options_of
from m2sd_cli.config.protocol import ProtocolOptions
from m2sd_cli.config.signatures import insert_parameters
from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.data.catalogue import find_info
from m2sd_cli.errors import StoppedError, TrainingError, UsageError
from m2sd_cli.reading import counted

if TYPE_CHECKING:
    from m2sd_cli.ablation.records import Budget
    from m2sd_cli.ablation.table import RowSummary
    from m2sd_cli.api.ablation_plan import AblationPlan
    from m2sd_cli.reports.deviation import MeanAndDeviation

HEADINGS = {**FIGURES, "session_0": "session 0"}
PROTOCOL = (*options_of(ProtocolOptions), "split")
SEEDS = "3"  # unless others are named
LOOKS = {"auto_augment": "none", "colour": 0.0, "cutout": 0.0}  # of training images; told of if they are changed


def ablation(
    out: Annotated[Path, typer.Option("--out", help="The folder for runs and results.", readable=False)] = Path(
        "m2sd-ablation"
    ),
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A built-in data set, or a folder with --split.",
            show_default="of --config or --recipe, else cifar100",
            autocompletion=options.complete_data_sets,
        ),
    ] = None,
    recipe: options.RecipeName = None,
    images_per_class: Annotated[
        int | None,
        typer.Option(
            "--images-per-class",
            help="Most images of each base class to train on; by default as --config or --recipe says, else all.",
            show_default=False,
        ),
    ] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option("--pretrain-epochs", help="Epochs of stage 1.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs of stage 2, in every row.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            help="Number of seeds (3 stands for 0, 1 and 2), or the seeds, such as 0,2,5 or 0..4.",
            show_default=f"{SEEDS}; with --table all that are there",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            help=f"Rows of the table: some of {', '.join(ROWS)}, or of --rows-file; by default all.",
            show_default=False,
        ),
    ] = None,
    rows_file: Annotated[
        Path | None,
        typer.Option(
            "--rows-file",
            help="TOML file of rows of your own: [ROW.pretrain] and [ROW.distill] with their options.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    shared_stage_1: Annotated[
        bool,
        typer.Option(
            "--shared-stage-1/--stage-1-per-seed", help="One stage 1 for all seeds, or for the rows of each seed."
        ),
    ] = False,
    *,
    config: options.ConfigFile = None,
    data_root: options.DataRoot = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    deterministic: options.Deterministic = False,
    compile: options.Compile = False,
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after",
            help="Save and stop after this time, such as 90s, 9m or 2h, with exit code 5; the same command continues.",
            show_default=False,
        ),
    ] = None,
    save_every: Annotated[
        str,
        typer.Option(
            "--save-every",
            help="Time between two saves, from which the same command continues, such as 90s, 5m or 2h; 0s saves after "
            "every step.",
        ),
    ] = "5m",
    only_table: Annotated[bool, typer.Option("--table", help="Print the results so far, and run nothing.")] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **protocol: Any,
) -> None:
    """Measure the worth of each part of the method: train rows for the same number of epochs, with several seeds.

    Rows of a seed that differ in stage 2 alone begin from one stage 1, and rows that differ in their classifier alone
    have one network. Then they learn every session. The same command continues where it was cut off. Of the options
    that decide a result only --seeds and --rows may change then. Started several times, for example once with
    --device cuda:0 and once with --device cuda:1, it shares the runs. m2sd study has more of the figures.

    A row that ships sets mixing, enhancement and every loss weight. The row m2sd has no clean cross-entropy: most
    recipes are the row clean-ce.

    A row of your own is a table of --rows-file with any options of both stages, such as [long] with
    distill.epochs = 200, pretrain.way = 2 and what = "a description".

    Examples:
      m2sd ablation --recipe cifar100-resnet20-few --dry-run
      m2sd ablation --recipe cifar100-resnet20
      m2sd ablation --images-per-class 100 --epochs 10 --out few
      m2sd ablation --rows plain,both,m2sd --stop-after 9m
      m2sd ablation --rows-file rows.toml --seeds 0,1,2 --dry-run
      m2sd ablation --rows m2sd --base-classes 50 --way 10 --class-order 1993
      m2sd ablation --table --out few
      m2sd study few --latex table.tex
    """
    # What is misspelt is answered before torch is imported.
    own = None if rows_file is None else read_rows(rows_file)
    if not only_table:
        choose_rows(rows, own)
    chosen_seeds = choose_seeds(SEEDS if seeds is None else seeds)
    if data is not None:
        find_info(data)
    for name, value in protocol.items():
        if value is not None:
            options_of(PretrainConfig)[name].check(value)
    if only_table and dry_run:
        raise UsageError("--table and --dry-run: choose one, what is there or what would be done")
    limit = options.time_limit(stop_after)
    between_saves = options.seconds("--save-every", save_every)

    from m2sd_cli.ablation.records import read_budget, read_results
    from m2sd_cli.ablation.table import summarise
    from m2sd_cli.cli.progress import reporting

    finished, busy, diverged = True, list[str](), list[str]()
    if only_table:
        budget = read_budget(out)
        known = choose_rows(rows, [*(own or []), *budget.own_rows()]) if rows else None
        names = list(budget.described()) if known is None else [row.name for row in known]
        with reporting(quiet):
            runs = read_results(out, names)
        if seeds is not None:
            there = sorted({each.seed for each in runs})
            runs = [each for each in runs if each.seed in chosen_seeds]
            if there and not runs:
                raise UsageError(
                    f"--seeds {seeds}: the table has seeds {', '.join(map(str, there))}; name some of them"
                )
    else:
        given: dict[str, Any] = {
            "data": data,
            "recipe": recipe,
            "config": config,
            "images_per_class": images_per_class,
            "pretrain_epochs": pretrain_epochs,
            "epochs": epochs,
            "seeds": chosen_seeds,
            "rows": rows,
            "rows_file": rows_file,
            "shared_stage_1": shared_stage_1,
            "data_root": data_root,
            "device": device,
            "precision": precision,
            "deterministic": deterministic,
            "compile": compile,
            **protocol,
        }
        if dry_run:
            from m2sd_cli.api.ablation_plan import plan_ablation

            with reporting(quiet):
                planned = plan_ablation(out, **given)
            _print_plan(planned, json, quiet)
            return
        from m2sd_cli.api.ablate import ablate

        with reporting(quiet), stopped_in_time("ablation", requeue=True):
            done = ablate(out, stop_after=limit, save_every=between_saves, **given)
        budget, runs, finished, busy, diverged = done.budget, done.results, done.finished, done.busy, done.diverged
    summary = summarise(runs, budget.described())
    if json:
        content = {
            "out": as_text(out),
            "budget": budget.as_data(),
            "baseline": baseline([line.row for line in summary]) if summary else None,
            "rows": [row_as_data(line) for line in summary],
            "runs": [each.as_data() for each in runs],
        }
        document(content if only_table else content | {"finished": finished})
    else:
        results(as_lines(budget, summary))
    if busy:
        note(f"other processes are at {', '.join(busy)}; the same command goes on with what they leave", quiet)
    elif not finished:
        raise StoppedError("ablation: time is up; saved. Go on with the same command")
    if diverged:
        raise TrainingError(
            f"ablation: without a result, since the training diverged: {', '.join(diverged)}; leave these rows out "
            f"with --rows, or give them other names and a lower learning rate in --rows-file"
        )


insert_parameters(
    ablation,
    {name: (option_annotation(PretrainConfig, options_of(PretrainConfig)[name]), None) for name in PROTOCOL},
    first=True,
)


def _print_plan(planned: "AblationPlan", json: bool, quiet: bool) -> None:
    """Print the rows, their stages and the time that they would take."""
    if json:
        from dataclasses import asdict

        document({**asdict(planned), "out": as_text(planned.out)})
        return
    lines = [f"{len(planned.rows)} rows with seeds {', '.join(map(str, planned.seeds))} in {planned.out}", ""]
    rows = [
        [
            each.row,
            each.stage_1,
            each.stage_2,
            str(each.epochs),
            duration(each.seconds),
            str(each.trainings),
            str(each.ended),
            each.what,
        ]
        for each in planned.rows
    ]
    lines += table(["row", "stage 1", "network of", "epochs", "time", "to train", "finished", "what"], rows)
    for first in planned.firsts:
        epochs = f"{first.epochs} epoch{'s' if first.epochs > 1 else ''}"
        left = f"{first.trainings} to train"
        lines.append(f"{first.stage_1}: {epochs}, {duration(first.seconds)}; {left}; for {', '.join(first.rows)}")
    lines.append(f"all trainings that are left: about {duration(planned.seconds)}, one after the other")
    results(lines)
    note(f"ablation --dry-run: nothing was trained, and nothing written to {planned.out}", quiet)


def describe_budget(budget: "Budget") -> str:
    """Format the settings that all rows share, as far as a reader has to know them."""
    first, second = budget.pretrain, budget.distill
    protocol = [f"{name.replace('_', '-')} {first[name]}" for name in PROTOCOL if first.get(name) is not None]
    few = first["images_per_class"]
    epochs = [counted(int(each["epochs"] or 0), "epoch") for each in (first, second)]
    parts = [
        budget.data,
        *protocol,
        f"recipe {budget.recipe}" if budget.recipe else "no recipe",
        f"{'all images' if few is None else f'{few} images'} of each base class, held out {first['held_out']:g}",
        f"{first['backbone']} from {first['init'] or 'random'} weights",
        f"stage 1 {epochs[0]}, {'the same' if budget.shared_stage_1 else 'one'} for each seed",
        f"stage 2 {epochs[1]} in batches of {second['batch_size']}",
        *(
            f"{name.replace('_', '-')} {first[name]} and {second[name]}"
            for name, usual in LOOKS.items()
            if (first[name], second[name]) != (usual, usual)
        ),
        f"views {second['views']}",
        *([] if first["similarity"] == "cosine" else [f"similarity {first['similarity']}"]),
        *([] if second["levels"] == 1 else [f"levels {second['levels']}"]),
        f"classifier {second['classifier'] or 'by default'}",
        *([] if second["base_cost"] is None else [f"base-cost {second['base_cost']:g}"]),
        " ".join(
            [
                f"{budget.device} {budget.precision}",
                *(["compiled"] if budget.compiled else []),
                *(["deterministic"] if budget.deterministic else []),
            ]
        ),
    ]
    return "; ".join(parts)


def as_lines(budget: "Budget", summary: "list[RowSummary]") -> list[str]:
    """Format the shared settings, the table, all sessions, and below them the differences to a row, seed by seed."""
    if not summary:
        return ["no run has ended yet"]
    rows = [
        [
            line.row,
            *(_mean(line.accuracies[name]) for name in HEADINGS),
            f"{line.seconds.mean:.0f}",
            f"{line.ms_per_step.mean:.1f}",
            str(line.seeds),
            line.what,
        ]
        for line in summary
    ]
    text = [describe_budget(budget), ""]
    text += table(["row", *HEADINGS.values(), "seconds", "ms/step", "seeds", "what"], rows)
    sessions = max(len(line.sessions) for line in summary)
    if sessions:
        cells = [[line.row, *(_mean(each.figures["overall"].summary) for each in line.sessions)] for line in summary]
        full = [[*row, *["-"] * (sessions + 1 - len(row))] for row in cells]
        text += ["", "accuracy after each session", *table(["row", *map(str, range(sessions))], full)]
    compared = [
        [line.row, *(_mean(line.above[name], "+") for name in HEADINGS), str(line.pairs)]
        for line in summary
        if line.above is not None
    ]
    if compared:
        first = baseline([line.row for line in summary])
        text += ["", f"above {first}, seed by seed", *table(["row", *HEADINGS.values(), "seeds"], compared)]
    return text


def row_as_data(line: "RowSummary") -> dict[str, object]:
    """Return a row for JSON, unrounded."""
    from dataclasses import asdict

    return {**asdict(line), "sessions": list(map(session_data, line.sessions))}


def _mean(figure: "MeanAndDeviation | None", sign: str = "") -> str:
    return "-" if figure is None else format_mean(figure, sign)
