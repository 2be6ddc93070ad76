"""Write a session as one file."""

from pathlib import Path
from typing import Literal

from m2sd_cli.errors import UsageError
from m2sd_cli.exporting.export import export_session
from m2sd_cli.inference.session import load_session
from m2sd_cli.runs.folder import open_run


def export(
    form: Literal["safetensors", "onnx", "pt2"],
    out: Path | str,
    *,
    run: Path | str | None = None,
    session: int | None = None,
    force: bool = False,
    classifier: str | None = None,
) -> Path:
    """Write backbone and classifier of a session as one file.

    Args:
        form: the format.
        out: the file.
        run: the run folder.
        session: which session; None for the newest.
        force: replace `out` if it exists.
        classifier: of HEADS, what the file answers with; None for what the session names.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    path = Path(out)
    folder = open_run(run)
    if path.is_dir():
        raise UsageError(f"--out {path}: it is a folder; name a file")
    if folder.owns(path):
        raise UsageError(f"--out {path}: that is a file of the run; name another one")
    if path.exists() and not force:
        raise UsageError(f"--out {path}: it exists already; --force replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: no such folder as {path.parent}")
    model = load_session(folder, session, classifier=classifier)
    export_session(model, form, path)
    return path
