"""The table of peaks."""

import pytest

from m2sd_cli.benchmark.chips import CHIPS, Peak, peak


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "wanted"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", True, Peak("bf16", 989.5e12)),
        ("NVIDIA H100 80GB HBM3", "fp32", True, Peak("tf32", 494.5e12)),
        ("NVIDIA H100 80GB HBM3", "fp32", False, Peak("fp32", 67e12)),
        ("NVIDIA A100-SXM4-40GB", "bf16", False, Peak("bf16", 312e12)),
        ("NVIDIA L4", "fp32", True, Peak("tf32", 60e12)),
        ("Tesla T4", "fp32", True, Peak("fp32", 8.1e12)),  # it has no TF32
        ("Tesla T4", "bf16", True, None),  # nor bf16, which it emulates
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", True, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", True, None),
        ("NVIDIA GeForce RTX 4090 D", "bf16", True, None),
        ("AMD EPYC", "fp32", True, None),
        ("", "fp32", False, None),
    ],
)
def test_peak_of_what_is_computed(name: str, precision: str, tf32: bool, wanted: Peak | None) -> None:
    assert peak(name, precision, tf32) == wanted


@pytest.mark.parametrize("name", CHIPS)
def test_figures_are_dense_and_in_order(name: str) -> None:
    chip = CHIPS[name]
    assert (chip.bf16 is None) == (chip.tf32 is None)
    if chip.bf16 is not None and chip.tf32 is not None:
        # Tensor cores do bf16 twice as fast as TF32; a figure with sparsity among them would make it one or four.
        assert chip.bf16 / chip.tf32 == pytest.approx(2, rel=0.02)
        assert chip.tf32 >= chip.fp32
