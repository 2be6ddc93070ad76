"""Export of a session as one file."""

from pathlib import Path

from m2sd_cli.exporting import choose_format
from m2sd_cli.exporting.export import export_session
from m2sd_cli.inference.session import load_session
from m2sd_cli.output_files import check_output
from m2sd_cli.runs.folder import open_run


def export(
    form: str | None,
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
    classifier: str | None = None,
) -> Path:
    """Write backbone and classifier of a session as one file.

    Args:
        form: a name in EXPORT_FORMATS; None for the one that the suffix of `out` names.
        out: the file.
        run: the run folder.
        session: a number; None for the newest.
        force: replace `out` if it exists.
        classifier: a name in CLASSIFIERS; None for the one that the session names.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    path = Path(out)
    chosen = choose_format(form, path)
    folder = open_run(run)
    check_output("--out", path, folder, replace=force)
    model = load_session(folder, session, classifier=classifier)
    export_session(model, chosen, path)
    return path
