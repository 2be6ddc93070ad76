"""The batches of a training: the images of each step, on the device in time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from m2sd_cli.data.sources import TrainingImages

Batch = tuple[Tensor, Tensor, Tensor]  # images, aspects, labels


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Divide an epoch into batches, each from its first image to the one after its last.

    The last batch may be short. A single image, of which batch norm has no variance, joins the batch before it.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def to_device(data: TrainingImages, device: torch.device) -> TrainingImages:
    """Move the images to the device if they take half of its free memory at most; else each batch is moved alone."""
    if device.type == "cuda" and data.images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return data
    return data.to(device)


class Batches:
    """The images, aspects and labels of every step, on one device.

    Args:
        size: images a batch.
        order: the function from an epoch, counted from 0, to the order (N,) of its images, on the CPU.
        ahead: gather the next batch while the device works on this one; of use for images in another memory than the
            device's.
    """

    def __init__(
        self, data: TrainingImages, size: int, order: Callable[[int], Tensor], device: torch.device, ahead: bool
    ) -> None:
        self.bounds = batch_bounds(len(data.labels), size)
        self._data, self._make_order, self._device, self._ahead = data, order, device, ahead
        self._epoch, self._order = -1, torch.empty(0)
        self._pool: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[Batch]] | None = None

    def take(self, step: int) -> Batch:
        """Return the batch of a step, counted over all epochs from 0."""
        if not self._ahead:
            return self._move(self._data.gather(self._choose(step)))
        if self._next is None or self._next[0] != step:
            self._begin(step)
        assert self._next is not None
        batch = self._next[1].result()
        self._begin(step + 1)
        return self._move(batch)

    def close(self) -> None:
        """End gathering ahead; another step would begin it anew."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._next = None

    def _begin(self, step: int) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "batches")
        self._next = step, self._pool.submit(self._gather, self._choose(step))

    def _gather(self, indices: Tensor) -> Batch:
        images, aspects, labels = self._data.gather(indices)
        if self._device.type == "cuda":  # only from pinned memory does a copy run beside the device's work
            return images.pin_memory(), aspects.pin_memory(), labels.pin_memory()
        return images, aspects, labels

    def _move(self, batch: Batch) -> Batch:
        images, aspects, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
        return images, aspects, labels

    def _choose(self, step: int) -> Tensor:
        epoch, number = divmod(step, len(self.bounds))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._make_order(epoch).to(self._data.images.device)
        begin, end = self.bounds[number]
        return self._order[begin:end]
