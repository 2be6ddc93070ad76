"""Heat maps of the parts of an image that speak for a class."""

import torch
from torch import Tensor

from m2sd_cli.data.views import views
from m2sd_cli.inference.device import autocast
from m2sd_cli.inference.features import exact_convolutions
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.activation_map import activation_maps
from m2sd_cli.method.feature_maps import PlainFeatures
from m2sd_cli.method.heads import Head


def splits_its_score(model: SessionModel) -> bool:
    """Tell whether the classifier's own scores can be split over positions; else similarities to class means are split.

    Only a classifier that compares the features themselves with its rows has a score that is a sum over positions. A
    feature map before the rows is not linear, and earlier levels are of other maps.
    """
    head, width = model.head, model.record.width
    return isinstance(head, Head) and isinstance(head.features, PlainFeatures) and head.rows.shape[1] == width


@torch.inference_mode()
def why_no_maps(model: SessionModel) -> str | None:
    """Return the predicate of a sentence on a network whose scores cannot be split over positions; None if they can.

    They can where the feature is the mean of phi_4. A backbone that does not promise it is shown an image of noise.
    """
    if model.backbone.pools_last:
        return None
    side = model.transform.crop
    noise = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    device = next(model.backbone.parameters()).device
    with exact_convolutions():
        found = model.backbone(model.transform.normalise(noise.to(device)))
    mean = found.maps[-1].mean(dim=(2, 3)).float()
    if mean.shape == found.pooled.shape and torch.allclose(mean, found.pooled, rtol=1e-3, atol=1e-4):
        return None
    return f"{model.record.name} has a feature that is not the mean of its last map"


@torch.inference_mode()
def explain(model: SessionModel, pixels: Tensor, classes: Tensor) -> Tensor:
    """Compute the map of each class: its mean is the class's score without bias, or the similarity of phi(x).

    The maps of several views are averaged; a mirrored view's map is mirrored back. A shifted view's map lies up to an
    eighth of the side beside its place. `why_no_maps` has to be None.

    Args:
        model: the session that answers.
        pixels: (B, 3, S, S) uint8 after the test transform.
        classes: (B, K), places in `model.classes`.

    Returns:
        (B, K, H, W) on the CPU, H and W as phi_4 has them.
    """
    device = next(model.backbone.parameters()).device
    maps = []
    with exact_convolutions(), autocast(device, model.precision):
        for number, view in enumerate(views(pixels.to(device), model.transform.views)):
            found = model.backbone(model.transform.normalise(view).contiguous(memory_format=torch.channels_last)).maps[
                3
            ]
            maps.append(found.flip(3).float() if number % 2 else found.float())
    phi = torch.stack(maps).mean(dim=0)
    if isinstance(model.head, Head) and splits_its_score(model):
        rows, similarity, scale = model.head.rows, model.head.similarity, model.head.scale
    else:
        rows, similarity, scale = model.means[:, : phi.shape[1]], "cosine", 1.0  # phi(x) comes before earlier levels
    return activation_maps(phi, rows[classes.to(rows.device)], similarity, scale).cpu()
