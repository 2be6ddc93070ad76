"""M2SD in plain torch, one concept a module.

Lin, Wu, Lin, Huang, Luo, "M2SD: Multiple Mixing Self-Distillation for Few-Shot Class-Incremental Learning",
AAAI 2024, doi 10.1609/aaai.v38i4.28129. A module that goes beyond the paper names its own source. No module reads a
file, prints, or chooses a device.
"""
