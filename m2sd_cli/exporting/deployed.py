"""Deployed network: pixels in, logits out, normalisation inside."""

from typing import Any

import torch
from torch import Tensor, nn

from m2sd_cli.data.views import views
from m2sd_cli.inference.session import SessionModel, likeness
from m2sd_cli.method.calibration import known_score


class Deployed(nn.Module):
    """Network from pixels (B, 3, crop, crop) uint8 of resized and cropped RGB images to logits (B, C) and scores (B,).

    Both are float32. The logits are those of the head over its temperature: their softmax gives the probability of each
    class. The score is `known_score`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: SessionModel) -> None:
        super().__init__()
        mean, std = torch.tensor(model.transform.mean), torch.tensor(model.transform.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))
        self.backbone = model.backbone.cpu().to(memory_format=torch.contiguous_format)
        self.head = model.head.cpu()
        self.familiarity = None if model.familiarity is None else model.familiarity.cpu()
        self.temperature = model.confidence.temperature
        self.views = model.transform.views

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and scores, see the class."""
        found = [
            self.backbone.session_feature(view.float() * self.scale + self.shift) for view in views(images, self.views)
        ]
        features = torch.stack(found).mean(dim=0)
        logits: Tensor = self.head(features)
        return logits / self.temperature, known_score(likeness(self.familiarity, features, logits))


def description(model: SessionModel) -> dict[str, Any]:
    """Describe the use of the file: class names in the order of the logits, the pre-processing, and the head."""
    transform = model.transform
    return {
        "classes": model.classes,
        "session": model.session,
        "preprocessing": {
            "colour": "RGB, 0..255, uint8, channels first",
            "resize": transform.resize,
            "resize_what": "both sides" if transform.squash else "the short side, keeping the aspect",
            "resize_how": f"{transform.interpolation}, antialiased",
            "centre_crop": transform.crop,
            "mean": list(transform.mean),
            "std": list(transform.std),
        },
        "views": transform.views,
        "backbone": model.record.name,
        "feature_width": model.means.shape[1],
        "levels": model.record.levels,
        "classifier": model.classifier,
        "head": model.head.describe(),
        "familiarity": None if model.familiarity is None else model.familiarity.describe(),
        "temperature": model.confidence.temperature,
        "calibrated": model.confidence.calibrated,
        "unknown_below": model.confidence.unknown_below,
        "unknown_told": model.confidence.told,
        "score": model.score,
    }
