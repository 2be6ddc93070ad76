"""Stage 3: teach new classes from a few images each."""

from pathlib import Path

from m2sd_cli.api.recorded_data import official_data
from m2sd_cli.data.folders import folder_name, read_shots
from m2sd_cli.data.skipping import check_pictures, skip_bad_shots
from m2sd_cli.data.views import MOST_VIEWS
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import choose_classifier
from m2sd_cli.runs.folder import open_run
from m2sd_cli.runs.reader import StoredManifest
from m2sd_cli.training.increment import check_names, check_session, run_increment
from m2sd_cli.training.records import data_record, shots_record


def increment(
    session: int,
    shots: Path | str | None = None,
    *,
    run: Path | str | None = None,
    data: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    classifier: str | None = None,
    views: int = 1,
) -> StoredManifest:
    """Stage 3: teach new classes from a few images each.

    Args:
        session: the number of the new session, one above the newest.
        shots: DIR with DIR/CLASS/*.jpg; None for a built-in data set's official session.
        run: the run folder.
        data: the built-in data set whose official session to take, if it is not the one of stage 1.
        data_root: where built-in data sets lie.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: whether to leave out pictures that cannot be read; the manifest lists them.
        classifier: of HEADS, what the chain answers with from now on; None for what it did so far.
        views: of each shot to take the mean of: 1 the shot alone, 2 with its mirror image, more with shifted crops.

    Raises:
        M2sdError: one of its kinds; nothing was changed.
    """
    if not 1 <= views <= MOST_VIEWS:
        raise UsageError(f"--views {views}: 1 to {MOST_VIEWS}")
    folder = open_run(run)
    chosen = choose_device(device)
    exact = inference_precision(precision)
    chain = folder.summary()
    choose_classifier(folder, chain, classifier)
    check_session(folder, len(chain.sessions) - 1, session)
    if views == chain.base.manifest.transform.views == 2:
        raise UsageError("--views 2: this chain sees every image and its mirror image already; leave it out")
    if shots is not None:
        if data is not None:
            raise UsageError("--shots and --data: choose one, your own images or an official session")
        place = Path(shots)
        taught = read_shots(place)
        record = shots_record(folder_name(place))
    else:
        data_set = official_data(chain.base.manifest.data, data, data_root, session)
        place = data_set.location
        taught = data_set.session(session)
        record = data_record(data_set)
    check_names(chain.taught(), taught.classes)
    if skip_bad:
        taught = skip_bad_shots(taught, place, check_pictures)
    return run_increment(folder, chain, session, taught, record, chosen, exact, classifier, views)
