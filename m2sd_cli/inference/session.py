"""A session of a run folder, loaded: frozen backbone, class means of all sessions so far, names, transform."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DamagedError
from m2sd_cli.inference.features import embed
from m2sd_cli.method.backbones import ARCHITECTURES, Backbone, build_backbone
from m2sd_cli.method.classifiers import classify
from m2sd_cli.runs.chain import ChainOutline, Link
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, Manifest, Outline, TransformRecord
from m2sd_cli.runs.tensors import Form, fault, forms

BACKBONE_PREFIX = "backbone."
MEANS = "class_means"
DRAWING = {torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_}


def to_transform(record: TransformRecord) -> TestTransform:
    """The test transform that a manifest names."""
    return TestTransform(**record.model_dump())


@dataclass(frozen=True)
class SessionModel:
    """What session b knows."""

    backbone: Backbone  # in eval mode
    weight: Tensor  # W, (C, D): one class mean a row, in the order of `classes`
    classes: list[str]
    sizes: list[int]  # classes known after session 0, 1, ..., b
    transform: TestTransform
    record: BackboneRecord
    precision: str

    def embed(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) uint8 after the test transform to features (B, D) float32."""
        return embed(self.backbone, pixels, self.transform, self.precision)

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        return classify(features, self.weight, self.record.classifier, self.record.scale)


def backbone_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's parameters and buffers as a checkpoint names them."""
    return {BACKBONE_PREFIX + name: tensor for name, tensor in backbone.state_dict().items()}


class Undrawn(TorchFunctionMode):
    """Leaves parameters that are about to be loaded uninitialised: drawing them takes as long as predicting an image.

    The meta device would do, too, but it imports for two seconds.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See torch."""
        given = kwargs or {}
        if func in DRAWING:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def load_checkpoint(run: RunFolder, link: Link, rows: str) -> tuple[Backbone, Tensor]:
    """The backbone of stage 1 or of the base session, in eval mode, and one row a class (C, D), both on the CPU.

    Args:
        run, link: whose checkpoint.
        rows: what the checkpoint calls the rows.

    Raises:
        DamagedError: the checkpoint does not hold just this, of the backbone that its manifest names.
    """
    record = link.manifest.backbone
    if record.name not in ARCHITECTURES:
        raise DamagedError(f"{run.path / link.record.file}: this version knows no backbone {record.name!r}")
    if record.width != ARCHITECTURES[record.name].widths[-1]:
        raise DamagedError(f"{run.path / link.record.file}: {record.width} is not the feature width of {record.name}")
    with Undrawn():
        backbone = build_backbone(record.name)
    own = backbone.state_dict()
    shape = (len(link.manifest.classes), record.width)
    tensors = _expect(run, link.manifest, {**forms(own, BACKBONE_PREFIX), rows: (shape, torch.float32)})
    backbone.load_state_dict({name: tensors[BACKBONE_PREFIX + name] for name in own})
    return backbone.eval(), tensors[rows]


def _expect(run: RunFolder, part: Manifest | Outline, wanted: Mapping[str, Form]) -> dict[str, Tensor]:
    """The checkpoint of a manifest.

    Raises:
        DamagedError: it is damaged, or does not hold just what is wanted.
    """
    tensors = run.tensors(part)
    wrong = fault(tensors, wanted)
    if wrong is not None:
        file = run.path / part.checkpoint.file
        raise DamagedError(f"{file}: not the checkpoint that its manifest names: {wrong}; restore it from a backup")
    return tensors


def load_session(
    run: RunFolder, last: int | None = None, device: torch.device | str = "cpu", precision: str = "fp32"
) -> SessionModel:
    """Load session `last`, the newest by default, with the class means of all sessions up to it.

    Raises:
        RunError: there is no such session, or a file of the chain is damaged.
    """
    return load_chain(run, run.outline(last), device, precision)


def load_chain(
    run: RunFolder, chain: ChainOutline, device: torch.device | str = "cpu", precision: str = "fp32"
) -> SessionModel:
    """Load the last session of a chain whose manifests were read already.

    Raises:
        DamagedError: a checkpoint is damaged, or does not fit its manifest.
    """
    base = chain.base.manifest
    backbone, means = load_checkpoint(run, chain.base, MEANS)
    weights = [means]
    for part in chain.sessions[1:]:
        shape = (len(part.classes), base.backbone.width)
        weights.append(_expect(run, part, {MEANS: (shape, torch.float32)})[MEANS])
    return SessionModel(
        backbone=backbone.to(device).to(memory_format=torch.channels_last),
        weight=torch.cat(weights).to(device),
        classes=[each.name for part in chain.sessions for each in part.classes],
        sizes=[part.classes_so_far for part in chain.sessions],
        transform=to_transform(base.transform),
        record=base.backbone,
        precision=precision,
    )
