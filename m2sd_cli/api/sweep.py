"""Options of an ablation: those that all rows share, and those of every row, refused before anything is trained."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m2sd_cli.ablation.records import Budget, RowRecord, stored_budget
from m2sd_cli.ablation.rows import ROWS, Row, choose_rows, read_rows
from m2sd_cli.api.base_session import require_kept, require_measured
from m2sd_cli.api.pretrain import LISTS
from m2sd_cli.api.stage import chosen_protocol, named_data
from m2sd_cli.checkpoints import SkippedInitialisation
from m2sd_cli.config.merging import Layer, Sources, layers, merge
from m2sd_cli.config.option import options_of
from m2sd_cli.config.protocol import ProtocolOptions
from m2sd_cli.config.stages import Config, DistillConfig, PretrainConfig, validate
from m2sd_cli.data.catalogue import FOLDER_DEFAULTS, DataSetInfo, find_info
from m2sd_cli.data.fixed_split import count_base
from m2sd_cli.data.folders import folder_name
from m2sd_cli.data.protocol import apply_protocol
from m2sd_cli.data.split_list import LIST_LIMIT, read_list
from m2sd_cli.errors import M2sdError, UsageError, os_errors_as
from m2sd_cli.inference.classifier import require_classifier
from m2sd_cli.inference.device import choose_device, training_precision
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.stage3 import default_classifier
from m2sd_cli.paths import expand, expand_given, text_given
from m2sd_cli.reading import read_regular
from m2sd_cli.recipes import Recipe, find_recipe
from m2sd_cli.registry import file_of
from m2sd_cli.runs.manifest import DataRecord
from m2sd_cli.tables import CLASSIFIERS
from m2sd_cli.training.distill import loss_weights
from m2sd_cli.training.initial_weights import file_digest, require_weights, separate_origin, without_path
from m2sd_cli.training.records import changed_part, plugins_record

DATA = "cifar100"  # unless another is named
ROW = "row"  # an origin of options
PROTOCOL = (*options_of(ProtocolOptions), "split")  # options that an ablation has for all its rows


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The arguments of `ablate` that decide what is trained."""

    data: Path | str | None = None
    recipe: str | None = None
    config: Path | str | None = None
    images_per_class: int | None = None
    pretrain_epochs: int | None = None
    epochs: int | None = None
    rows: str | Sequence[str] | None = None
    rows_file: Path | str | None = None
    shared_stage_1: bool = False
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    deterministic: bool = False
    base_classes: int | None = None
    way: int | None = None
    shots_per_class: int | None = None
    class_order: Path | str | int | None = None
    shots_draw: int | None = None
    split: Path | str | None = None

    def protocol(self) -> dict[str, Any]:
        """Return the options of the protocol that were given."""
        given = {name: getattr(self, name) for name in PROTOCOL}
        return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


@dataclass(frozen=True)
class RowOptions:
    """A row with the options of both stages, of which the files lie where this machine has them."""

    row: Row
    record: RowRecord
    pretrain: PretrainConfig
    distill: DistillConfig


@dataclass(frozen=True)
class Sweep:
    """The rows of a table and the options that they share."""

    budget: Budget
    rows: list[RowOptions]
    data: str  # a built-in data set, or a folder where this machine has it
    info: DataSetInfo | None  # of a built-in data set


def resolve_sweep(folder: Path, arguments: Mapping[str, Any]) -> Sweep:
    """Resolve the options of both stages of every row now, so that no call goes on with others.

    Args:
        folder: of the table, whose recorded precision is taken for `auto`.
        arguments: those of `ablate` that decide what is trained.

    Raises:
        UsageError: a value does not fit, or the data set has no sessions of its own; the message names the row.
        DataError: a file that an option names cannot be read.
        DamagedError: the recorded budget of the table cannot be read.
    """
    request = _Request(**arguments)
    if request.pretrain_epochs is not None and request.pretrain_epochs < 1:
        raise UsageError(f"--pretrain-epochs {request.pretrain_epochs}: at least 1")
    file = expand_given(request.rows_file, "--rows-file")
    rows = choose_rows(request.rows, None if file is None else read_rows(file))
    config = expand_given(request.config, "--config")
    first = {"epochs": request.pretrain_epochs, "images_per_class": request.images_per_class, **request.protocol()}
    second = {"epochs": request.epochs}
    computing = choose_device(request.device)
    followed = find_recipe(request.recipe)
    data = text_given(request.data) or named_data(config, followed) or DATA
    info = find_info(data)
    defaults = info.defaults if info else FOLDER_DEFAULTS

    def resolved(row: Row) -> tuple[PretrainConfig, DistillConfig]:
        sources = [
            *layers(PretrainConfig, Sources(defaults, config, first, followed.options)),
            Layer(ROW, row.pretrain),
        ]
        one = separate_origin(_merged(PretrainConfig, sources))
        sources = layers(DistillConfig, Sources(defaults, config, second, followed.options))
        changes = row.changes(asdict(_merged(DistillConfig, sources, one.init)))
        return one, _merged(DistillConfig, [*sources, Layer(ROW, changes)], one.init)

    one, two = resolved(Row("", ""))
    if one.seed or two.seed:
        raise UsageError(
            "a seed is set in the file of options; take it out, --seeds says with which ones every row is trained"
        )
    if two.epochs == 0 and any(row.name in ROWS for row in rows):
        raise UsageError("--epochs 0: every row would be the same network; give at least 1")
    if info is None and one.split is None:
        raise UsageError(
            f"--data {data}: a folder has no sessions of its own; divide it by a list with --split, or name a "
            f"built-in data set"
        )
    base = _record(one, two)
    chosen = []
    for row in rows:
        try:
            pretrain, distill = resolved(row)
            _require_sound(pretrain, distill, data, info)
            require_measured(measured_cost(pretrain, distill, followed), bool(pretrain.held_out))
        except M2sdError as error:
            raise type(error)(f"row {row.name}: {error}") from None
        own = _record(pretrain, distill)
        record = RowRecord(
            what=row.description,
            pretrain=_changed(base.pretrain, own.pretrain),
            distill=_changed(base.distill, own.distill),
            digests=_changed(base.digests, own.digests),
            plugins=_plugins(pretrain, distill, info),
        )
        chosen.append(RowOptions(row, record, pretrain, distill))
    precision = training_precision(request.precision, computing)
    begun = stored_budget(folder)
    if request.precision == "auto" and begun is not None:
        precision = begun.precision
    digests = dict(base.digests)
    budget = Budget(
        data=info.name if info else folder_name(Path(data)),
        recipe=followed.name,
        init_sha256=digests.pop("init", None),
        pretrain=base.pretrain,
        distill=base.distill,
        digests=digests,
        rows={each.row.name: each.record for each in chosen},
        shared_stage_1=request.shared_stage_1,
        device=computing.type,
        precision=precision,
        compiled=request.compile,
        deterministic=request.deterministic,
    )
    return Sweep(budget, chosen, data, info)


def _merged(model: type[Config], sources: Sequence[Layer], init: str | None = None) -> Config:
    return validate(model, {name: value for name, (_, value) in merge(model, sources, init).items()})


def measured_cost(pretrain: PretrainConfig, distill: DistillConfig, recipe: Recipe) -> float | None:
    """Return the `base_cost` to begin stage 2 with: that of a recipe is for the images that the recipe holds out."""
    if pretrain.held_out or distill.base_cost != recipe.options.tables.get("distill", {}).get("base_cost"):
        return distill.base_cost
    return None


def _require_sound(pretrain: PretrainConfig, distill: DistillConfig, data: str, info: DataSetInfo | None) -> None:
    """Refuse options that do not go together before hours are spent.

    Raises:
        UsageError: they do not.
        DataError: the list of a folder cannot be read, or the file to begin from is missing.
    """
    if info is not None and pretrain.split is not None:
        raise UsageError(f"--split is for folders; {info.name} has sessions of its own; leave it out")
    listed = None if pretrain.split is None else read_list(expand(pretrain.split, "--split"))
    protocol = chosen_protocol(info, pretrain)
    require_weights(pretrain.backbone, pretrain.init)
    loss_weights(distill)
    trained = bool(pretrain.epochs or distill.epochs)
    classifier = distill.classifier or default_classifier(pretrain.similarity, trained)
    require_classifier(classifier, pretrain.similarity)
    if CLASSIFIERS[classifier].by_class:
        with SkippedInitialisation():
            backbone = build_backbone(pretrain.backbone)
        backbone.pooled_levels = distill.levels
        if info is not None:
            base = apply_protocol(info, protocol).base
        else:
            assert listed is not None
            base = count_base(expand(data, "--data"), listed)
        require_kept(classifier, pretrain.similarity, base, backbone.session_width)


def _record(pretrain: PretrainConfig, distill: DistillConfig) -> RowRecord:
    """Record options, with files by their names and SHA-256: where one lies on this machine is nobody else's affair."""
    digests = {"init": file_digest(pretrain.init)}
    names: dict[str, Any] = {"init": without_path(pretrain.init)}
    for option in LISTS:
        value = getattr(pretrain, option)
        if value is None or (option == "class_order" and value.isascii() and value.isdecimal()):
            continue
        path = expand(value, f"--{option.replace('_', '-')}")
        with os_errors_as(UsageError, f"--{option.replace('_', '-')} {path}: cannot be read"):
            digests[option] = hashlib.sha256(read_regular(path, LIST_LIMIT)).hexdigest()
        names[option] = path.name
    options = [asdict(replace(pretrain, **names)), asdict(distill)]
    for each in options:
        del each["seed"]
    known = {name: digest for name, digest in digests.items() if digest is not None}
    return RowRecord(pretrain=options[0], distill=options[1], digests=known)


def _plugins(pretrain: PretrainConfig, distill: DistillConfig, info: DataSetInfo | None) -> dict[str, str]:
    data = DataRecord(name=info.name if info else "folder", kind="built-in" if info else "folder", split="-")
    first = plugins_record(data, pretrain.backbone, config=pretrain)
    return first | plugins_record(data, pretrain.backbone, distill.classifier, distill)


def require_same_parts(folder: Path, stored: Budget) -> None:
    """Refuse a table that has rows of other files of `--plugin`; others share stages with them.

    Args:
        folder: of the table.
        stored: its recorded budget.

    Raises:
        UsageError: a file was changed since; the message names a row.
    """
    for name, row in stored.rows.items():
        changed = changed_part(row.plugins)
        if changed is not None:
            raise UsageError(
                f"--out {folder}: its row {name} began with {changed!r} of another {file_of(row.plugins[changed])}, "
                f"which was changed since; name the file as it was, or another folder"
            )


def _changed(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if base.get(name, ...) != value}
