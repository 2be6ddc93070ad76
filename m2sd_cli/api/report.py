"""One self-contained page of a run: `report`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from m2sd_cli.api.draw_figures import histories_of, material_of
from m2sd_cli.api.recorded_commands import recorded_command
from m2sd_cli.api.recorded_data import official_number
from m2sd_cli.api.taught_shots import find_shots, shots_there
from m2sd_cli.api.tested_images import TestedImages, open_base_data, open_tested_images
from m2sd_cli.config.stages import NO_INIT
from m2sd_cli.data.datasets import DataSet
from m2sd_cli.data.locate import open_data
from m2sd_cli.data.names import class_name
from m2sd_cli.data.sources import ImageSource
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.distributed.process_group import SINGLE_PROCESS
from m2sd_cli.errors import DataError, ImageError, M2sdError, UsageError
from m2sd_cli.inference.device import choose_device, inference_precision
from m2sd_cli.inference.session import load_all_sessions
from m2sd_cli.paths import expand, expand_given
from m2sd_cli.progress import say
from m2sd_cli.reading import counted
from m2sd_cli.reports.evaluation import evaluate_session
from m2sd_cli.reports.figures.accuracy import drawn_beside
from m2sd_cli.reports.figures.svg import LeftOutError
from m2sd_cli.reports.figures.table import FIGURES, draw_all, draw_histories
from m2sd_cli.reports.page.content import Page, SessionEntry, Shown, Stage, TaughtClassEntry, Tested
from m2sd_cli.reports.page.mistakes import tested_part
from m2sd_cli.reports.page.render import render
from m2sd_cli.reports.page.thumbnails import thumbnail
from m2sd_cli.reports.published import Published, other_training
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder, open_run
from m2sd_cli.runs.manifest import WITH_SHOTS, Manifest
from m2sd_cli.runs.places import read_places
from m2sd_cli.runs.reader import PRETRAIN, StoredManifest
from m2sd_cli.training.records import recorded_protocol

SHOWN_SHOTS = 5  # thumbnails of a class
MOST_THUMBNAILS = 600  # of a page
THUMBNAIL = 40  # pixels


def report(
    *,
    run: Path | str | None = None,
    session: int | None = None,
    test: Path | str | None = None,
    data: Path | str | None = None,
    data_root: Path | str | None = None,
    shots: Mapping[int, Path | str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    skip_bad: bool = False,
    ignore_new: bool = False,
    classifier: str | None = None,
) -> str:
    """Make the page of a run, as HTML that needs nothing else. It gives the reason for whatever the run cannot tell.

    Args:
        run: the run folder.
        session: the last session to look at; None for the newest.
        test: DIR with DIR/CLASS/*.jpg; None for the test images of the data set.
        data: the folder of pretrain, if it is not where it was.
        data_root: the folder of built-in data sets.
        shots: the folder of each session that was taught from one, if it is not where it was.
        device, precision: `auto` chooses; precision `auto` is fp32.
        skip_bad: leave out test images that cannot be read.
        ignore_new: leave out the images of a folder that pretrain did not have.
        classifier: the name in CLASSIFIERS that answers; None for that of the last session.

    Raises:
        M2sdError: one of its kinds; also if images that were named cannot be read.
    """
    folder, root = open_run(run), expand_given(data_root, "--data-root")
    chain = folder.summary(session)
    stored = folder.chain(len(chain.sessions) - 1)
    first_parent = stored[0].manifest.parent
    assert first_parent is not None
    first = folder.read(PRETRAIN, first_parent.sha256)
    manifests = [each.manifest for each in stored]
    taught = {part.session for part in manifests[1:] if part.kind in WITH_SHOTS}
    for number in shots or ():
        if number not in taught:
            raise UsageError(f"--shots {number}: no session {number} in it that was taught shots; leave it out")
    models = load_all_sessions(folder, chain, choose_device(device), inference_precision(precision), classifier)
    model = models[-1]
    images, evaluation, reason = None, None, None
    try:
        images = open_tested_images(folder, chain, SINGLE_PROCESS, test, data, root, skip_bad, ignore_new)
        keep = images.data_set is not None
        evaluation = evaluate_session(
            models, images.source, images.classes, images.location, keep, SINGLE_PROCESS, keep_features=True
        )
        evaluation = replace(evaluation, skipped=images.skipped)
    except ImageError:  # which --skip-bad leaves out
        raise
    except (DataError, UsageError) as error:
        if test is not None or data is not None or root is not None:
            raise
        reason = str(error)
        say(f"the page has no figures of test images: {reason}")
    data_set = images.data_set if images is not None else None
    if data_set is None:
        data_set = _data_set_or_none(folder, chain, data, root, ignore_new)
    tested: Tested | None = None
    figures: list[Shown] = []
    published: Sequence[str] = []
    if evaluation is not None:
        assert images is not None
        material = material_of(evaluation, folder, manifests, own_images=test is not None)
        drawn_methods = drawn_beside(material.published, len(evaluation.figures.sessions))
        published = _published(drawn_methods, first.manifest)
        drawn = dict(draw_all(material))
        tested = tested_part(evaluation, model, images.source)
    else:
        drawn = dict(draw_histories(histories_of(folder, first.manifest, manifests[0])))
    for name, svg in drawn.items():
        known = FIGURES[name]
        figure, why = (None, str(svg)) if isinstance(svg, LeftOutError) else (svg, None)
        figures.append(Shown(name, known.title, known.caption, figure, why))
    stages = [_stage("Stage 1, pretrain", first)]
    stages += [_stage(f"Session {number}", each) for number, each in enumerate(stored)]
    return render(
        Page(
            title=folder.path.resolve().name,
            subtitle=f"{manifests[0].data.name}, {len(model.classes)} classes after session {model.session}",
            facts=_facts(first.manifest, manifests, model.classifier, None if evaluation is None else images),
            sessions=_sessions(folder, stored, data_set, shots or {}, root, model.transform),
            figures=figures,
            tested=tested,
            untested_reason=reason,
            published=published,
            chain=stages,
            total=_duration(sum(each.seconds for each in (first.manifest, *manifests))),
            written_by=f"Written by m2sd {manifests[-1].versions.get('m2sd', '')} from the manifests of the run.",
        )
    )


def _published(rows: Sequence[Published], first: Manifest) -> list[str]:
    """Name the methods that are drawn beside the run, and what has to be known to compare them."""
    marks: dict[bool | str, str] = {
        True: ", its epoch chosen on the test images",
        False: "",
        "unknown": ", which may have chosen its epoch on the test images",
    }
    names = [
        f"{each.method.name} ({each.method.year}){marks[each.method.epoch_chosen_on_test]}: {each.source}"
        for each in rows
    ]
    return [*names, *(f"This run {predicate}." for predicate in (other_training(first) if rows else []))]


def _data_set_or_none(
    folder: RunFolder, chain: ChainSummary, data: Path | str | None, root: Path | None, ignore_new: bool
) -> DataSet | None:
    """Open the data set for thumbnails of its base classes, if it is there."""
    try:
        return open_base_data(folder, chain, data, root, ignore_new)
    except M2sdError as error:
        say(f"no images of base classes: {error}")
        return None


def _facts(
    first: Manifest, manifests: list[Manifest], classifier: str, images: TestedImages | None
) -> list[tuple[str, str]]:
    base, last = manifests[0], manifests[-1]
    epochs = [len(each.history) for each in (first, base)]
    training = f"{counted(epochs[0], 'epoch')} of stage 1 and {epochs[1]} of stage 2, seed {first.seed}"
    backbone = base.backbone
    begun = "as it was published" if first.config.get("init") not in (None, NO_INIT) else "of random weights"
    earlier = f" and the means of {counted(backbone.levels - 1, 'earlier map')}" if backbone.levels > 1 else ""
    return [
        ("network", f"{backbone.name}, {backbone.width} features{earlier}, {backbone.similarity}"),
        ("classifier", classifier),
        ("test images", "none" if images is None else f"{len(images.source)}"),
        ("training", training if any(epochs) else f"none; the network is {begun}"),
        ("recipe", first.recipe or "none"),
        ("made", f"{first.created[:10]} to {last.created[:10]} with m2sd {last.versions.get('m2sd', '')}"),
    ]


def _sessions(
    folder: RunFolder,
    stored: list[StoredManifest],
    data_set: DataSet | None,
    shots: Mapping[int, Path | str],
    root: Path | None,
    transform: TestTransform,
) -> list[SessionEntry]:
    places = read_places(folder.path).shots
    left = MOST_THUMBNAILS
    entries = []
    for number, each in enumerate(stored):
        manifest = each.manifest
        thumbnails: dict[str, list[str]] = {}
        reason: str | None = None
        if manifest.classes and left <= 0:
            reason = f"the page has {MOST_THUMBNAILS} already"
        elif number == 0:
            reason = "the data set is not at hand; --data or --data-root names its folder" if data_set is None else None
            if data_set is not None:
                thumbnails = _first_images(data_set, transform, left)
        elif manifest.classes:
            named = [shots[number]] if number in shots else []
            if not named and manifest.data.kind == "folder":
                named = [Path(path) for path in places.get(str(number), []) if os.path.isdir(path)]
            own = official_number([part.manifest for part in stored], number)
            thumbnails, reason = _shots(manifest, own, named, number in shots, root, transform, left)
        left -= sum(map(len, thumbnails.values()))
        classes = [
            TaughtClassEntry(each.name, counted(each.shots, "image"), thumbnails.get(each.name, []))
            for each in manifest.classes
        ]
        edits = [
            f"{each.name} is forgotten."
            if each.new_name is None
            else f"{each.name} is called {each.new_name} from here on."
            for each in manifest.edits
        ]
        entries.append(SessionEntry(number, manifest.kind, classes, edits, reason))
    return entries


def _first_images(data_set: DataSet, transform: TestTransform, most: int) -> dict[str, list[str]]:
    """Take the first training image of each base class."""
    labels = data_set.train.labels.tolist()
    first = {label: index for index, label in reversed(list(enumerate(labels)))}
    chosen = [first[label] for label in range(data_set.base) if label in first][:most]
    indices = torch.tensor(chosen, dtype=torch.int64)
    source = data_set.train.select(indices, data_set.train.labels[indices])
    return _thumbnails(source, data_set.classes, transform)


def _shots(
    manifest: Manifest,
    own: int,
    folders: Sequence[Path | str],
    given: bool,
    root: Path | None,
    transform: TestTransform,
    most: int,
) -> tuple[dict[str, list[str]], str | None]:
    """Show the shots of a session, as far as their bytes are those that taught it.

    Args:
        manifest: of the session.
        own: the number that its data set gives to the session.
        folders: of its shots; none for those of the data set.
        given: whether the caller has named the folders.
        root: the folder of built-in data sets.
        transform: of test images.
        most: images to show.
    """
    try:
        sources = _shot_sources(manifest, own, folders, given, root)
        if not sources:
            return {}, f"name the folder of its shots with --shots {manifest.session}=DIR"
        taught = {sha256 for each in manifest.classes for sha256 in each.shot_sha256}
        thumbnails: dict[str, list[str]] = {}
        for source, names in sources:
            digests = source.digests()
            seen: dict[int, int] = {}
            chosen = []
            for index, (digest, label) in enumerate(zip(digests, source.labels.tolist(), strict=True)):
                if digest in taught and seen.get(label, 0) < SHOWN_SHOTS:
                    seen[label] = seen.get(label, 0) + 1
                    chosen.append(index)
            chosen, most = chosen[:most], max(0, most - len(chosen))
            indices = torch.tensor(chosen, dtype=torch.int64)
            thumbnails |= _thumbnails(source.select(indices, source.labels[indices]), names, transform)
    except M2sdError as error:
        if given:
            raise
        return {}, str(error)
    if thumbnails:
        return thumbnails, None
    way = f"; name another folder with --shots {manifest.session}=DIR" if folders else ""
    return {}, f"the images there are not those that taught it{way}"


def _shot_sources(
    manifest: Manifest, own: int, folders: Sequence[Path | str], given: bool, root: Path | None
) -> list[tuple[ImageSource, list[str]]]:
    if folders:
        paths = [expand(each, "--shots") for each in folders]
        shots = shots_there(manifest, find_shots(paths) if given else find_shots([], paths))
        return [(shots.source, shots.classes)]
    if manifest.data.kind == "built-in":
        data = open_data(manifest.data.name, root, protocol=recorded_protocol(manifest.data))
        if own <= data.sessions:
            session = data.session(own)
            return [(session.source, session.classes)]
    return []


def _thumbnails(source: ImageSource, names: Sequence[str], transform: TestTransform) -> dict[str, list[str]]:
    thumbnails: dict[str, list[str]] = {}
    for pixels, labels in source.batches(transform, 64):
        for image, label in zip(pixels, labels.tolist(), strict=True):
            thumbnails.setdefault(class_name(names[label]), []).append(thumbnail(image, THUMBNAIL))
    return thumbnails


def _stage(name: str, stored: StoredManifest) -> Stage:
    manifest = stored.manifest
    versions = ", ".join(f"{package} {version}" for package, version in manifest.versions.items())
    threads = f", {counted(manifest.threads, 'thread')}" if manifest.threads else ""
    return Stage(
        name=f"{name}: {stored.record.file}",
        command=recorded_command(manifest),
        created=manifest.created,
        duration=_duration(manifest.seconds),
        device=f"{manifest.device}{threads}, {manifest.precision}",
        manifest=stored.record.sha256,
        parent=manifest.parent.sha256 if manifest.parent is not None else None,
        checkpoint=manifest.checkpoint.sha256,
        details=versions,
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
