"""M2SD in plain torch: one concept a module, in the order in which the paper introduces them.

Lin, Wu, Lin, Huang, Luo, "M2SD: Multiple Mixing Self-Distillation for Few-Shot Class-Incremental Learning",
AAAI 2024, doi 10.1609/aaai.v38i4.28129. What goes beyond it names its own source. Nothing here reads a file, prints, or
knows about devices.
"""

from typing import Final

HEADS: Final = ("means", "teen", "fecam", "ranpac", "debiased")  # the classifiers of stage 3, see method/stage3.py
# What a new base session names. It beats class means wherever both were tried; `debiased` gains far more with tens of
# base classes, and loses with few, see method/debiased.py.
DEFAULT_CLASSIFIER: Final = "fecam"
