"""What both training commands ask before they begin, and print when they end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m2sd_cli.cli.output import as_text, document, duration, note

if TYPE_CHECKING:
    from m2sd_cli.runs.folder import RunFolder
    from m2sd_cli.runs.reader import StoredManifest


def require_recipe(name: str | None) -> None:
    """Answer a misspelt recipe before torch is imported.

    Raises:
        UsageError: there is no recipe of that name.
    """
    if name is not None:
        from m2sd_cli.recipes import find_recipe

        find_recipe(name)


def report_training(
    stage: str, stored: "StoredManifest | None", run: "RunFolder", next_steps: Sequence[str], json: bool, quiet: bool
) -> None:
    """The end of a training: what it came to, and what to type next.

    Args:
        stage: its command.
        link: its manifest; None if the time limit ended it.
        run: the run folder.
        next_steps: commands that may follow.
        json: whether to print a JSON document.
        quiet: whether to leave the hints out.
    """
    if stored is None:
        note(f"{stage}: time is up; saved. Go on with the same command and --resume", quiet)
        if json:
            document({"stage": stage, "finished": False, "run": as_text(run.path)})
        return
    manifest = stored.manifest
    last = manifest.history[-1] if manifest.history else None
    if json:
        document(
            {
                "stage": stage,
                "finished": True,
                "run": as_text(run.path),
                "manifest": stored.record.file,
                "classes": len(manifest.classes),
                "epochs": len(manifest.history),
                "loss": last.loss if last else None,
                "seconds": manifest.seconds,
                "device": manifest.device,
                "precision": manifest.precision,
            }
        )
        return
    trained = f"{len(manifest.history)} epochs in {duration(manifest.seconds)}" if last else "no training"
    note(
        f"{stage}: {len(manifest.classes)} base classes of {manifest.data.name}, {trained}; "
        f"{run.path / stored.record.file}",
        quiet,
    )
    note(f"next: {', or '.join(next_steps)}", quiet)
