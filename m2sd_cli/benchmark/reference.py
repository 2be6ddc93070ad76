"""Plain training loop of the field, for the comparison with stage 1 alone.

Most published code for few-shot class-incremental learning trains by it. Each image becomes a PIL image, is cut
and flipped by torchvision's transforms and made a tensor in a worker process of torch's DataLoader; the network
computes in float32 and the default memory format; loss and accuracy are read from the device after every step. Network,
loss, optimiser, batch size and the distribution of the augmented images are those of `m2sd pretrain` without
AutoAugment, colour and Cutout; `configure` refuses a recipe that has them.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from m2sd_cli.benchmark.machine import synchronise
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.workload import treatment
from m2sd_cli.data.augmentation import Augmentation
from m2sd_cli.data.sources import TrainingImages
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.pairing import import_torchvision
from m2sd_cli.training.pretrain import build_network

if TYPE_CHECKING:
    from m2sd_cli.method.network import Network


def image_transform(augmentation: Augmentation, transform: TestTransform) -> Callable[[Image.Image], Tensor]:
    """Compose transforms of torchvision for one image, with the distribution of an Augmentation of a batch.

    Raises:
        M2sdError: torchvision cannot be imported.
    """
    transforms = import_torchvision("transforms")
    if augmentation.padding is not None:
        crop = transforms.RandomCrop(augmentation.size, padding=augmentation.padding)
    else:
        crop = transforms.RandomResizedCrop(augmentation.size, scale=augmentation.area, ratio=augmentation.aspect)
    flip = [transforms.RandomHorizontalFlip()] if augmentation.flip else []
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(
        [crop, *flip, transforms.ToTensor(), transforms.Normalize(transform.mean, transform.std)]
    )
    return composed


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images in memory, decoded and augmented one by one."""

    def __init__(self, data: TrainingImages, transform: Callable[[Image.Image], Tensor]) -> None:
        self._images = data.images.numpy()
        self._labels = data.labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


class _Shuffled(Sampler[list[int]]):
    """Sampler of `steps` full batches, over as many epochs as they take."""

    def __init__(self, images: int, batch_size: int) -> None:
        self._images, self._batch_size = images, batch_size
        self.steps = 0

    def __iter__(self) -> Iterator[list[int]]:
        done = 0
        while done < self.steps:
            for batch in torch.split(torch.randperm(self._images), self._batch_size)[: self.steps - done]:
                yield batch.tolist()
                done += 1


class ReferenceLoop:
    """Plain loop as a Workload. Its workers live until `close`, and rest while another workload is timed.

    Args:
        settings: of stage 1; its precision does not apply.
        data: the images, on the CPU, in whole batches.
    """

    def __init__(self, settings: Settings, data: TrainingImages, workers: int) -> None:
        config = settings.pretrain
        transform, augmentation = treatment(settings.image_size, settings.data)
        self.images = config.batch_size
        self._device = settings.device
        self._workers = workers
        self.network: Network = build_network(config, settings.classes, settings.image_size).train().to(settings.device)
        self._optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
        )
        self._order = _Shuffled(len(data.labels), config.batch_size)
        self._loader: DataLoader[tuple[Tensor, int]] | None = DataLoader(
            ImageDataset(data, image_transform(augmentation, transform)),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=True,
            pin_memory=settings.device.type == "cuda",
        )
        self._batches: Iterator[list[Tensor]] = iter(())

    def prepare(self, steps: int) -> None:
        """Order the batches of these steps alone, and take one of each worker to fill the pipeline; see Workload.

        Workers that went on decoding would slow down the workload that is timed next, and give the next round a start.
        """
        assert self._loader is not None, "closed"
        self._order.steps = self._workers + steps
        self._batches = iter(self._loader)
        self.run(self._workers)

    def run(self, steps: int) -> None:
        """Do a number of steps, see Workload."""
        for images, labels in islice(self._batches, steps):
            self.step(images, labels)
        synchronise(self._device)

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Do one step, and return loss and accuracy of the batch before it."""
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        logits = self.network(images).logits
        loss = F.cross_entropy(logits, labels)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return loss.item(), accuracy.item()

    def close(self) -> None:
        """End the worker processes, which the loader does once nothing refers to it; see Workload."""
        self._batches = iter(())
        self._loader = None
