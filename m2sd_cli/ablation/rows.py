"""Rows of the ablation table, each with its options of stage 2; imports no torch."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Final

from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig
from m2sd_cli.errors import UsageError
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.reading import quoted

PLAIN: Final = "plain"  # the row that the others are compared with

WEIGHTS: Final = tuple(f"{term.name}_weight" for term in fields(LossWeights))
CE: Final = {"ce_weight"}
BOTH: Final = {"ce_weight", "kl_weight"}
FE: Final = {"kd_weight", "attention_weight", "teacher_weight"}


@dataclass(frozen=True)
class Row:
    """A way to train stage 2."""

    name: str
    description: str
    mixing: str
    terms: Set[str]  # of L, by their weights
    enhancement: str = "full"

    def changes(self, distill: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of stage 2 that the row changes; all others are the same for all rows.

        A term that it has keeps its weight there, or has the usual one where that is 0; a term that it lacks has none.
        """
        usual = {name: options_of(DistillConfig)[name].default or 1.0 for name in WEIGHTS}
        weights = {name: (distill[name] or usual[name]) if name in self.terms else 0.0 for name in WEIGHTS}
        return {"mixing": self.mixing, "enhancement": self.enhancement, **weights}


ROWS: Final = {
    row.name: row
    for row in (
        Row(PLAIN, "cross-entropy of clean images", "none", CE),
        Row("mixup", "mixup alone", "mixup", CE),
        Row("cutmix", "CutMix alone", "cutmix", CE),
        Row("both-no-kl", "both branches without L_KL^v", "both", CE),
        Row("both", "both branches with L_KL^v", "both", BOTH),
        Row("fe", "feature enhancement on clean images", "none", CE | FE),
        Row("m2sd", "all of M2SD", "both", BOTH | FE),
        Row("no-attention", "M2SD without the attention (EN)", "both", BOTH | FE, "no-attention"),
        Row("no-pyramid", "M2SD without BiFPN, which leaves level 4 alone", "both", BOTH | FE, "no-pyramid"),
        Row("no-at", "M2SD without attention transfer", "both", BOTH | FE - {"attention_weight"}),
        Row(
            "no-teacher-ce",
            "M2SD without the cross-entropy of W', which alone teaches FE",
            "both",
            BOTH | FE - {"teacher_weight"},
        ),
        Row("clean-ce", "M2SD with clean cross-entropy added", "both", BOTH | FE | {"clean_weight"}),
        Row("both-clean-ce", "both branches with clean cross-entropy", "both", BOTH | {"clean_weight"}),
    )
}


def choose_rows(names: str | Sequence[str] | None) -> list[Row]:
    """Find rows by their names, in the order of the table.

    Args:
        names: of rows, or one text with commas between them; None for all.

    Raises:
        UsageError: a name is unknown, or there is none.
    """
    if names is None:
        return list(ROWS.values())
    chosen = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in ROWS:
            raise UsageError(f"--rows {quoted(name)}: no such row; choose {', '.join(ROWS)}")
    return [row for row in ROWS.values() if row.name in chosen]
