"""The command `m2sd demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from m2sd_cli.cli import options
from m2sd_cli.cli.output import command, note, results
from m2sd_cli.errors import InterruptedTrainingError, UsageError


def demo(
    run: Annotated[Path, typer.Option("--run", help="Run folder to make; it must not exist yet.")] = Path("m2sd-demo"),
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same machine: same result.")] = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Show the whole life of a model on bundled images of clothes, in a few minutes on a laptop's CPU.

    Example:
      m2sd demo
    """
    if run.exists():
        raise UsageError(f"--run {run}: it exists already; remove it, or name another folder with --run")

    import m2sd_cli
    from m2sd_cli.cli.evaluate import as_lines
    from m2sd_cli.cli.progress import reporting
    from m2sd_cli.data.locate import open_data

    data = open_data("demo")
    note(f"1/5 pretrain: a small network learns {data.base} kinds: {', '.join(data.classes[: data.base])}", quiet)
    try:
        with reporting(quiet):
            m2sd_cli.pretrain("demo", run=run, seed=seed, device=device)
        note("2/5 distill: it learns from mixed images, and from its own enhanced features", quiet)
        with reporting(quiet):
            m2sd_cli.distill(run=run, device=device)
    except InterruptedTrainingError:
        raise InterruptedTrainingError(f"interrupted; remove {run} to begin the demo again") from None
    for session in range(1, data.sessions + 1):
        stored = m2sd_cli.increment(session, run=run, device=device)
        taught = " and ".join(f"{each.name} ({each.shots} images)" for each in stored.manifest.classes)
        note(f"3/5 increment: session {session} teaches {taught}", quiet)
    note("4/5 evaluate: accuracy in per cent on images that it has never seen", quiet)
    results(as_lines(m2sd_cli.evaluate(run=run, device=device), None))
    out = m2sd_cli.export("safetensors", run / "demo.safetensors", run=run)
    note(f"5/5 export: {os.path.relpath(out)}, one file for use elsewhere", quiet)
    note("", quiet)
    for line in (
        f"next: {command('sessions', run)}",
        f"      {command('predict', run, ' IMAGE')}",
        f"      {command('increment', run, f' --session {data.sessions + 1} --shots DIR')}    a folder a class in DIR",
        f"      {command('learn', None, ' ./photos')}    your own photos, photos/CLASS/*.jpg",
    ):
        note(line, quiet)
