"""The rows of the table: what each one trains stage 2 with. Knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from m2sd_cli.errors import UsageError
from m2sd_cli.reading import quoted

PLAIN: Final = "plain"  # what the others are compared with

Changes = dict[str, str | float]

WITHOUT_FE: Changes = {"kd_weight": 0.0, "attention_weight": 0.0, "teacher_weight": 0.0}
ONE_BRANCH: Changes = {"kl_weight": 0.0, "clean_weight": 0.0}
BOTH: Changes = {"mixing": "both", "clean_weight": 0.0}
M2SD: Changes = {**BOTH, "enhancement": "full"}


@dataclass(frozen=True)
class Row:
    """One way to train stage 2."""

    name: str
    what: str
    changes: Changes  # to DistillConfig; all else is the same in every row


ROWS: Final = {
    row.name: row
    for row in (
        Row(PLAIN, "cross-entropy of clean images", {"mixing": "none", **ONE_BRANCH, **WITHOUT_FE}),
        Row("mixup", "mixup alone", {"mixing": "mixup", **ONE_BRANCH, **WITHOUT_FE}),
        Row("cutmix", "CutMix alone", {"mixing": "cutmix", **ONE_BRANCH, **WITHOUT_FE}),
        Row("both-no-kl", "both branches without L_KL^v", {**BOTH, "kl_weight": 0.0, **WITHOUT_FE}),
        Row("both", "both branches with L_KL^v", {**BOTH, **WITHOUT_FE}),
        Row("fe", "feature enhancement on clean images", {"mixing": "none", **ONE_BRANCH, "enhancement": "full"}),
        Row("m2sd", "all of M2SD", M2SD),
        Row("no-attention", "M2SD without the attention (EN)", {**M2SD, "enhancement": "no-attention"}),
        Row("no-pyramid", "M2SD without BiFPN", {**M2SD, "enhancement": "no-pyramid"}),
        Row("no-at", "M2SD without attention transfer", {**M2SD, "attention_weight": 0.0}),
        Row("no-teacher-ce", "M2SD without the cross-entropy of W'", {**M2SD, "teacher_weight": 0.0}),
        Row("clean-ce", "M2SD with clean cross-entropy added", {**M2SD, "clean_weight": 1.0}),
    )
}


def choose_rows(names: str | Sequence[str] | None) -> list[Row]:
    """Rows by their names, in the table's order.

    Args:
        names: of rows, or one text with commas between them; None for all.

    Raises:
        UsageError: a name is unknown, or there is none.
    """
    if names is None:
        return list(ROWS.values())
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in ROWS:
            raise UsageError(f"--rows {quoted(name)}: no such row; choose {', '.join(ROWS)}")
    return [row for row in ROWS.values() if row.name in wanted]
