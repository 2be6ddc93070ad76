"""Networks of the package timm as backbones."""

import inspect
import warnings
from typing import Any

import timm
import torch
from torch import Tensor, nn

from m2sd_cli.errors import UsageError
from m2sd_cli.method.backbone import Backbone, Features, OtherNames
from m2sd_cli.reading import quoted
from m2sd_cli.tables import TIMM

LEVELS = 4
INSIDE = "network."  # before every name of timm's
OPTION = "--backbone"


class TimmBackbone(Backbone):
    """A network of timm, whose last four maps are phi_1..phi_4, of any resolutions.

    Args:
        model: a name of timm's, without its tag.
        image_size: side of the square that the network sees, in pixels; None for the one that timm made it for.

    Raises:
        UsageError: the network has fewer than four maps, or does not take this size.
    """

    pools_last = False

    def __init__(self, model: str, image_size: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.image_size = image_size
        network: Any = _create(model, image_size)
        self.network = network
        maps = getattr(network, "feature_info", [])
        if not hasattr(network, "forward_intermediates") or len(maps) < LEVELS:
            raise UsageError(
                f"{OPTION} {TIMM}{model}: {len(maps)} maps, and not the four that a backbone needs; choose another"
            )
        self.level_widths = tuple(each["num_chs"] for each in list(maps)[-LEVELS:])
        self.width = getattr(network, "head_hidden_size", None) or network.num_features

    @property
    def other_names(self) -> list[OtherNames]:
        """The names of timm."""
        return [OtherNames({name: name.removeprefix(INSIDE) for name in self.state_dict()})]

    def forward(self, x: Tensor) -> Features:
        """Map normalised images (B, 3, H, W) to phi_1..phi_4 and the feature (B, D) before timm's classifier."""
        network: Any = self.network
        last, maps = network.forward_intermediates(x, indices=LEVELS, output_fmt="NCHW")
        pooled: Tensor = network.forward_head(last, pre_logits=True)
        return Features(tuple(maps), pooled.float())

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights of another image size, or with the names of a network's first authors, as timm does."""
        convert = getattr(inspect.getmodule(type(self.network)), "checkpoint_filter_fn", None)
        network: Any = self.network
        classifiers = network.pretrained_cfg.get("classifier") or ()
        unused = tuple(f"{name}." for name in ((classifiers,) if isinstance(classifiers, str) else classifiers))
        inside = {name.removeprefix(INSIDE): tensor for name, tensor in state.items()}
        if convert is not None:
            try:
                wants_model = len(inspect.signature(convert).parameters) > 1
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    inside = convert(inside, self.network) if wants_model else convert(inside)
            except Exception:  # the function expects a state dict of this network, and may fail in any way at another
                return state
        known = self.network.state_dict().keys()
        return {INSIDE + name: each for name, each in inside.items() if name in known or not name.startswith(unused)}

    def check(self, image_size: int) -> None:
        """Try the network on one black image.

        Raises:
            UsageError: the network does not take this size, or its maps are not as timm describes them.
        """
        was_training = self.training
        try:
            with torch.no_grad():
                maps, pooled = self.eval()(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise _not_of_size(self.model, image_size, error) from None
        finally:
            self.train(was_training)
        widths = tuple(each.shape[1] if each.dim() == 4 else None for each in maps)
        if widths != self.level_widths or pooled.shape != (1, self.width):
            raise UsageError(
                f"{OPTION} {TIMM}{self.model}: maps of {widths} channels and a feature of {tuple(pooled.shape[1:])}, "
                f"and not of {self.level_widths} and {self.width} as timm {timm.__version__} says; choose another"
            )


def _not_of_size(model: str, image_size: int | None, error: Exception) -> UsageError:
    native = timm.get_pretrained_cfg(model)
    made_for = native.input_size[-1] if native else "another number of"
    return UsageError(
        f"--image-size {image_size}: {TIMM}{model} cannot take it, it was made for {made_for} pixels "
        f"({quoted(str(error).splitlines()[0] if str(error) else type(error).__name__)})"
    )


def _create(model: str, image_size: int | None) -> nn.Module:
    config = timm.get_pretrained_cfg(model)
    sized: dict[str, Any] = {}
    if image_size is not None and config is not None and config.fixed_input_size:
        sized = {"img_size": image_size} if image_size != config.input_size[-1] else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of names that it has replaced
        try:
            network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **sized)
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            if not sized:
                raise UsageError(
                    f"{OPTION} {TIMM}{model}: timm {timm.__version__} cannot build it ({error}); choose another"
                ) from None
            raise _not_of_size(model, image_size, error) from None
    return network
