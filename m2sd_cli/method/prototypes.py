"""Stage 3, paper section 3.4: the weight of a class is the mean feature of its images, w_i = (1 / K) sum_j phi(x_j)."""

import torch
import torch.nn.functional as F
from torch import Tensor


class ClassMeans:
    """Sums of features by class, batch by batch, so that no more than one batch of features is ever held.

    Sums are kept in float64: the mean is the same to float32 rounding however the images were cut into batches.
    """

    def __init__(self, classes: int, width: int, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(classes, width, dtype=torch.float64, device=device)
        self._counts = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, D), un-normalised, of images with labels (B,) in [0, classes)."""
        # One matrix product instead of index_add_, whose order of summation is not fixed on CUDA.
        member = F.one_hot(labels, self._sums.shape[0]).to(torch.float64)
        self._sums += member.T @ features.to(torch.float64)
        self._counts += member.sum(dim=0).long()

    @property
    def totals(self) -> tuple[Tensor, Tensor]:
        """The sums (classes, D) and counts (classes,) so far; those of other processes may be added to them."""
        return self._sums, self._counts

    def means(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Compute w_i of every class, (classes, D).

        Raises:
            ValueError: a class has no image; its mean is not defined.
        """
        empty = torch.nonzero(self._counts == 0).flatten().tolist()
        if empty:
            raise ValueError(f"classes without an image have no mean: {empty[:5]}")
        return (self._sums / self._counts[:, None]).to(dtype)
