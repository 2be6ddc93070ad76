"""Peak speeds of chips, by their makers' datasheets."""

from dataclasses import dataclass

TERA = 10**12


@dataclass(frozen=True)
class Chip:
    """Dense peaks in TFLOP/s, without sparsity, sums in float32; None for a format that the chip has no units for."""

    bf16: float | None
    tf32: float | None
    fp32: float


@dataclass(frozen=True)
class Peak:
    """Peak that a computation is measured against."""

    format: str  # bf16, tf32 or fp32
    flop_per_second: float


# From NVIDIA's datasheets of H200 and H100 (2024), A100 (2021), A10 (2022), L40S, L40 and L4 (2023), V100 (2020) and
# T4 (2019), halved where a datasheet has figures with sparsity only; of RTX 4090 and RTX 6000 from the whitepaper on
# the Ada architecture, of RTX 3090 and A6000 from that on GA102. The names are the driver's. A laptop's chip and a
# slice of a chip have other names and other figures.
_A100 = Chip(bf16=312, tf32=156, fp32=19.5)
_V100 = Chip(bf16=None, tf32=None, fp32=15.7)
CHIPS = {
    "NVIDIA H200": Chip(bf16=989.5, tf32=494.5, fp32=67),
    "NVIDIA H200 NVL": Chip(bf16=835.5, tf32=417.5, fp32=60),
    "NVIDIA H100 80GB HBM3": Chip(bf16=989.5, tf32=494.5, fp32=67),
    "NVIDIA H100 NVL": Chip(bf16=835.5, tf32=417.5, fp32=60),
    "NVIDIA H100 PCIe": Chip(bf16=756.5, tf32=378, fp32=51),
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA A10": Chip(bf16=125, tf32=62.5, fp32=31.2),
    "NVIDIA L40S": Chip(bf16=362, tf32=183, fp32=91.6),
    "NVIDIA L40": Chip(bf16=181, tf32=90.5, fp32=90.5),
    "NVIDIA L4": Chip(bf16=121, tf32=60, fp32=30.3),
    "NVIDIA RTX 6000 Ada Generation": Chip(bf16=364.2, tf32=182.1, fp32=91.1),
    "NVIDIA RTX A6000": Chip(bf16=154.8, tf32=77.4, fp32=38.7),
    "NVIDIA GeForce RTX 4090": Chip(bf16=165.2, tf32=82.6, fp32=82.6),
    "NVIDIA GeForce RTX 3090": Chip(bf16=71, tf32=35.6, fp32=35.6),
    "Tesla V100-SXM2-16GB": _V100,
    "Tesla V100-SXM2-32GB": _V100,
    "Tesla T4": Chip(bf16=None, tf32=None, fp32=8.1),
}


def peak(name: str, precision: str, tf32: bool) -> Peak | None:
    """Find the peak of a chip for the arithmetic that a computation does on it.

    Args:
        name: of the device, by its driver.
        precision: fp32 or bf16.
        tf32: True if fp32 convolutions may round their inputs to TF32, on a chip that has it.

    Returns:
        None for a chip that is not in the table, or for a format that the chip emulates.
    """
    chip = CHIPS.get(name)
    if chip is None:
        return None
    if precision == "bf16":
        return Peak("bf16", chip.bf16 * TERA) if chip.bf16 is not None else None
    if tf32 and chip.tf32 is not None:
        return Peak("tf32", chip.tf32 * TERA)
    return Peak("fp32", chip.fp32 * TERA)
