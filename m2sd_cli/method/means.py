"""The paper's classifier, section 3.4: the row of a class is the mean feature of its shots."""

import torch

from m2sd_cli.method.heads import Head
from m2sd_cli.method.stage3 import KnownClasses


def build(known: KnownClasses, similarity: str, scale: float) -> Head:
    """Build the head whose rows are the class means, compared with features as the trained W was."""
    return Head(torch.cat([known.base, known.new]), similarity, scale)
