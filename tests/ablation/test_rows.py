"""Parts of stage 2 that each row trains with."""

from dataclasses import asdict

import pytest

from m2sd_cli.ablation.rows import ROWS, choose_rows
from m2sd_cli.config.option import options_of
from m2sd_cli.config.stages import DistillConfig, validate
from m2sd_cli.errors import UsageError
from m2sd_cli.training.distill import loss_weights

# Branches, what FE lacks (None: there is no FE), and the terms of the loss.
FE = {"kd", "attention", "teacher"}
EXPECTED = {
    "plain": ("none", None, {"ce"}),
    "mixup": ("mixup", None, {"ce"}),
    "cutmix": ("cutmix", None, {"ce"}),
    "both-no-kl": ("both", None, {"ce"}),
    "both": ("both", None, {"ce", "kl"}),
    "fe": ("none", "full", {"ce", *FE}),
    "m2sd": ("both", "full", {"ce", "kl", *FE}),
    "no-attention": ("both", "no-attention", {"ce", "kl", *FE}),
    "no-pyramid": ("both", "no-pyramid", {"ce", "kl", *FE}),
    "no-at": ("both", "full", {"ce", "kl", "kd", "teacher"}),
    "no-teacher-ce": ("both", "full", {"ce", "kl", "kd", "attention"}),
    "clean-ce": ("both", "full", {"ce", "kl", *FE, "clean"}),
    "both-clean-ce": ("both", None, {"ce", "kl", "clean"}),
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"clean_weight": 0.5, "enhancement": "no-pyramid"},
        {"mixing": "mixup"},
        {"kd_weight": 0.0, "attention_weight": 0.0, "teacher_weight": 0.0, "clean_weight": 1.0},
        {"ce_weight": 0.0},
    ],
)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_what_it_says(name: str, given: dict[str, object]) -> None:
    base = validate(DistillConfig, {"epochs": 1, "temperature": 2.0, **given})
    row = validate(DistillConfig, {**asdict(base), **ROWS[name].changes(asdict(base))})
    weights = loss_weights(row)
    mixing, enhancement, terms = EXPECTED[name]
    assert row.mixing == mixing
    assert weights.need_enhancement == (enhancement is not None)
    if enhancement is not None:
        assert row.enhancement == enhancement
    assert {term for term in ("ce", "kl", *FE, "clean") if getattr(weights, term)} == terms
    assert row.temperature == 2.0


def test_a_weight_that_is_set_is_kept() -> None:
    base = asdict(validate(DistillConfig, {"epochs": 1, "attention_weight": 10.0, "kd_weight": 0.0}))
    changes = ROWS["m2sd"].changes(base)
    assert (changes["attention_weight"], changes["kd_weight"], changes["clean_weight"]) == (10, 1, 0)


def test_attention_transfer_as_a_sum_has_the_usual_weight_of_a_sum() -> None:
    base = asdict(validate(DistillConfig, {"epochs": 1, "attention_reduction": "sum", "attention_weight": 0.0}))
    assert ROWS["m2sd"].changes(base)["attention_weight"] == 1


def test_there_is_a_row_for_each_expectation() -> None:
    assert list(ROWS) == list(EXPECTED)


def test_rows_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert choose_rows(None) == list(ROWS.values())
    assert [row.name for row in choose_rows("m2sd, plain,m2sd")] == ["plain", "m2sd"]
    assert [row.name for row in choose_rows(["both"])] == ["both"]


@pytest.mark.parametrize("names", ["plain,all", "", ["m2sd,plain"]])
def test_an_unknown_row_is_named(names: str | list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--rows .*: no such row; choose plain, mixup, "):
        choose_rows(names)


def test_a_row_sets_the_weight_of_every_term() -> None:
    terms = {name for name in options_of(DistillConfig) if name.endswith("_weight")}
    for row in ROWS.values():
        assert terms <= row.changes(asdict(DistillConfig(epochs=1))).keys()
