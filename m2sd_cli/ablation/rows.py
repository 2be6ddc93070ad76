"""Rows of the ablation table, each with the options that it changes, and its seeds; this module imports no torch."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from m2sd_cli.config.files import FILE_LIMIT
from m2sd_cli.config.option import find_option, options_of
from m2sd_cli.config.stages import ENHANCEMENT_TERMS, MODELS, STAGES, DistillConfig
from m2sd_cli.errors import M2sdError, UsageError, os_errors_as
from m2sd_cli.method.loss_weights import ATTENTION, LossWeights
from m2sd_cli.reading import quoted, read_toml
from m2sd_cli.registry import NAME

PLAIN: Final = "plain"  # the row that the others are compared with
STAGE: Final = "stage"  # the beginning of names of folders that are not those of rows
WHAT: Final = "what"
WHAT_LIMIT: Final = 200
MOST_SEEDS: Final = 1000
DIGITS: Final = 19

WEIGHTS: Final = tuple(f"{term.name}_weight" for term in fields(LossWeights))
CE: Final = {"ce_weight"}
BOTH: Final = {"ce_weight", "kl_weight"}
FE: Final = {*ENHANCEMENT_TERMS}


@dataclass(frozen=True)
class Parts:
    """Some parts of the method."""

    mixing: str
    terms: Set[str]  # of L, by their weights
    enhancement: str = "full"

    def changes(self, distill: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of stage 2 that train with these parts alone.

        Args:
            distill: the options that all rows share. A term of these parts keeps its weight there, or has the usual one
                if that is 0. Other terms have the weight 0.
        """
        usual = {name: options_of(DistillConfig)[name].default or 1.0 for name in WEIGHTS}
        usual["attention_weight"] = ATTENTION[distill["attention_reduction"]]
        weights = {name: (distill[name] or usual[name]) if name in self.terms else 0.0 for name in WEIGHTS}
        return {"mixing": self.mixing, "enhancement": self.enhancement, **weights}


@dataclass(frozen=True)
class Row:
    """A way of training, by the options that it changes."""

    name: str
    description: str
    parts: Parts | None = None  # of the method
    pretrain: Mapping[str, Any] = field(default_factory=dict)
    distill: Mapping[str, Any] = field(default_factory=dict)

    def changes(self, distill: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options of stage 2 that the row changes; all others are the same for all rows.

        Args:
            distill: the options that all rows share, without those of the row.
        """
        return self.distill if self.parts is None else self.parts.changes(distill)


ROWS: Final = {
    row.name: row
    for row in (
        Row(PLAIN, "stage 2 with cross-entropy alone", Parts("none", CE)),
        Row("mixup", "mixup alone", Parts("mixup", CE)),
        Row("cutmix", "CutMix alone", Parts("cutmix", CE)),
        Row("both-no-kl", "both branches without L_KL^v", Parts("both", CE)),
        Row("both", "both branches with L_KL^v", Parts("both", BOTH)),
        Row("fe", "feature enhancement on clean images", Parts("none", CE | FE)),
        Row("m2sd", "all of M2SD", Parts("both", BOTH | FE)),
        Row("no-attention", "M2SD without the attention (EN)", Parts("both", BOTH | FE, "no-attention")),
        Row("no-pyramid", "M2SD without BiFPN, which leaves level 4 alone", Parts("both", BOTH | FE, "no-pyramid")),
        Row("no-at", "M2SD without attention transfer", Parts("both", BOTH | FE - {"attention_weight"})),
        Row(
            "no-teacher-ce",
            "M2SD without the cross-entropy of W', which alone teaches FE",
            Parts("both", BOTH | FE - {"teacher_weight"}),
        ),
        Row("clean-ce", "M2SD with clean cross-entropy added", Parts("both", BOTH | FE | {"clean_weight"})),
        Row("both-clean-ce", "both branches with clean cross-entropy", Parts("both", BOTH | {"clean_weight"})),
    )
}


def choose_rows(names: str | Sequence[str] | None, own: Sequence[Row] | None = None) -> list[Row]:
    """Find rows by their names, in the order of the table: built-in ones first.

    Args:
        names: of rows, or one text with commas between the names; None for all rows of `own`, or all built-in ones.
        own: rows of `read_rows`.

    Raises:
        UsageError: a name is unknown.
    """
    if names is None:
        return list(ROWS.values()) if own is None else list(own)
    table = ROWS | {row.name: row for row in own or []}
    chosen = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in table:
            raise UsageError(f"--rows {quoted(name)}: no such row; choose {', '.join(table)}")
    return [row for row in table.values() if row.name in chosen]


def baseline(rows: Sequence[str]) -> str:
    """Return the name of the row that the others are compared with: the plain one, or else the first."""
    return PLAIN if PLAIN in rows else rows[0]


def read_rows(file: Path) -> list[Row]:
    """Read a person's rows: a TOML file with a table a row, in which `pretrain` and `distill` are tables of options.

    A row may be described by `what`. Options that a row does not name are those of all rows.

    Raises:
        UsageError: the file cannot be used; the message names the row and the option.
    """
    where = f"--rows-file {file}"
    try:
        with os_errors_as(UsageError, f"{where}: cannot be read"):
            tables = read_toml(file, FILE_LIMIT)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if not tables:
        raise UsageError(f"{where}: no row in it; a row is a table, as [long.distill] with epochs = 200")
    return [_row(name, table, f"{where}: row {quoted(name)}") for name, table in tables.items()]


def _row(name: str, table: object, where: str) -> Row:
    """Check a table of options.

    Args:
        where: the beginning of a message.
    """
    if not re.fullmatch(NAME, name) or name.startswith(STAGE):
        raise UsageError(f"{where}: choose lower-case letters, digits and dashes, and another beginning than {STAGE}")
    if name in ROWS:
        raise UsageError(f"{where}: a row of m2sd has that name; choose another")
    if not isinstance(table, dict):
        raise UsageError(f"{where}: it is no table; write [{name}.distill] and its options below")
    what = table.get(WHAT, "")
    if not isinstance(what, str) or len(what) > WHAT_LIMIT:
        raise UsageError(f"{where}: {WHAT} is a text of up to {WHAT_LIMIT} characters")
    checked: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    for key, options in table.items():
        if key == WHAT:
            continue
        if key not in STAGES or not isinstance(options, dict):
            raise UsageError(f"{where}: only {WHAT}, pretrain and distill are known, not {quoted(repr(key))}")
        for option, value in options.items():
            if option == "seed":
                raise UsageError(f"{where}: {key} has a seed; --seeds says with which seeds every row is trained")
            try:
                checked[key][option] = find_option(options_of(MODELS[key]), option).check(value)
            except M2sdError as error:
                raise UsageError(f"{where}: {key}: {error}") from None
    return Row(name, what, pretrain=checked["pretrain"], distill=checked["distill"])


def choose_seeds(seeds: int | str | Sequence[int]) -> list[int]:
    """Return seeds by their number, from 0 on, or by a list or a range.

    Args:
        seeds: a number of seeds; or `0,2,5`, or `0..4`, or both with commas between them; or the seeds themselves.

    Raises:
        UsageError: `seeds` is none of these, or there is no seed.
    """
    if isinstance(seeds, str) and seeds.isascii() and seeds.isdecimal() and len(seeds) < DIGITS:
        seeds = int(seeds)
    shown_seeds = quoted(str(seeds))
    if isinstance(seeds, int):
        chosen: Sequence[int] = range(seeds)
    elif isinstance(seeds, str):
        chosen = [seed for part in seeds.split(",") for seed in _seed_range(part.strip(), shown_seeds)]
    else:
        chosen = list(seeds)
    if isinstance(seeds, int) and not 0 < seeds <= MOST_SEEDS:
        alone = f"; seed {seeds} alone is {seeds}..{seeds}" if seeds >= 0 else ""
        raise UsageError(f"--seeds {shown_seeds}: a single number is how many seeds, 1 to {MOST_SEEDS}{alone}")
    if not chosen:
        raise UsageError("--seeds: name at least one")
    if len(chosen) > MOST_SEEDS:
        raise UsageError(f"--seeds {shown_seeds}: {MOST_SEEDS} at most")
    for seed in chosen:
        options_of(DistillConfig)["seed"].check(seed)
    return list(dict.fromkeys(chosen))


def _seed_range(part: str, shown_seeds: str) -> Sequence[int]:
    match = re.fullmatch(rf"([0-9]{{1,{DIGITS}}})(?:\.\.([0-9]{{1,{DIGITS}}}))?", part)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise UsageError(f"--seeds {shown_seeds}: write how many, as 3, or which, as 0,2,5 or 0..4")
    found = range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(found) > MOST_SEEDS:
        raise UsageError(f"--seeds {shown_seeds}: {MOST_SEEDS} at most")
    return found
