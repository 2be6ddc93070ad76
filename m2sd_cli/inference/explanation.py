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
    feature map before the rows is not linear.
    """
    return isinstance(model.head, Head) and isinstance(model.head.features, PlainFeatures)


@torch.inference_mode()
def explain(model: SessionModel, pixels: Tensor, classes: Tensor) -> Tensor:
    """Compute the map of each class: its mean is the class's score without bias, or its similarity.

    The maps of several views are averaged; a mirrored view's map is mirrored back. A shifted view's map lies up to an
    eighth of the side beside its place.

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
        rows, similarity, scale = model.means, "cosine", 1.0
    return activation_maps(phi, rows[classes.to(rows.device)], similarity, scale).cpu()
