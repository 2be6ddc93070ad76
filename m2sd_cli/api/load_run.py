"""The pieces of a run as Python objects: `load_run`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.inference.device import choose_device
from m2sd_cli.inference.session import SessionModel, load_chain
from m2sd_cli.method.backbone import Backbone
from m2sd_cli.method.heads import AnyHead
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.folder import RunFolder, open_run


class Heads(Mapping[str, AnyHead]):
    """The heads of all classifiers that a run can answer with, each built when it is first asked for."""

    def __init__(self, run: RunFolder, chain: ChainSummary, device: str, loaded: SessionModel) -> None:
        self._run, self._chain, self._device = run, chain, device
        self._loaded = {loaded.classifier: loaded.head}
        self._model = loaded

    @property
    def _names(self) -> list[str]:
        return self._model.classifiers

    def __getitem__(self, name: str) -> AnyHead:
        """Return the head of a classifier, in eval mode.

        Raises:
            KeyError: the run cannot answer with a classifier of that name.
            DamagedError: a checkpoint is damaged.
        """
        if name not in self._loaded:
            if name not in self._names:
                raise KeyError(f"{name!r}; there are {', '.join(self._names)}")
            self._loaded[name] = load_chain(self._run, self._chain, choose_device(self._device), classifier=name).head
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<heads: {', '.join(self._names)}>"


@dataclass(frozen=True)
class LoadedRun:
    """The pieces of a run: logits are `head(backbone.session_feature(transform.normalise(pixels)))`.

    `transform.pixels` makes pixels (3, H, W) uint8 of an RGB image.
    """

    backbone: Backbone = field(repr=False)  # in eval mode; maps images (B, 3, H, W) to phi_1 .. phi_4 and `pooled`
    means: Tensor = field(repr=False)  # class means (C, D), in the order of `classes`
    heads: Mapping[str, AnyHead]  # by the name of the classifier; each maps features (B, D) to logits (B, C)
    classifier: str  # that the session names
    classes: list[str]
    taught: list[int]  # the session that taught each of `classes` first
    transform: TestTransform  # that every image goes through before the backbone

    @property
    def head(self) -> AnyHead:
        """The head of the classifier that the session names."""
        return self.heads[self.classifier]


def load_run(run: Path | str | None = None, *, session: int | None = None, device: str = "cpu") -> LoadedRun:
    """Load the pieces of a run.

    Args:
        run: the run folder.
        session: a number; None for the newest.
        device: where backbone, means and heads are to be; `auto` chooses.

    Raises:
        RunError: there is no such session, or a file is damaged.
    """
    folder = open_run(run)
    chain = folder.summary(session)
    model = load_chain(folder, chain, choose_device(device))
    return LoadedRun(
        backbone=model.backbone,
        means=model.means,
        heads=Heads(folder, chain, device, model),
        classifier=model.classifier,
        classes=model.classes,
        taught=model.taught,
        transform=model.transform,
    )
