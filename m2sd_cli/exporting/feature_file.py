"""Features of images as a safetensors file."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import safetensors.numpy

from m2sd_cli.exporting.export import METADATA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def feature_file(features: "NDArray[np.float32]", labels: "NDArray[np.int64]", about: Mapping[str, Any]) -> bytes:
    """Encode features (N, D) and labels (N,) under these names, with `about` as JSON under the key m2sd."""
    return safetensors.numpy.save({"features": features, "labels": labels}, {METADATA: json.dumps(about)})
