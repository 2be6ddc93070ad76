"""Heat maps of a run: their means are the scores or similarities that predict gives."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from m2sd_cli.inference.explanation import explain, splits_its_score
from m2sd_cli.inference.session import load_session
from m2sd_cli.method.heads import Head
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import CLASSIFIERS


@pytest.mark.parametrize("name", CLASSIFIERS.entries)
@pytest.mark.parametrize("views", [1, 2])
def test_the_mean_of_a_map_is_the_score_or_the_similarity(trained: Path, name: str, views: int) -> None:
    model = load_session(RunFolder(trained), classifier=name)
    model = replace(model, transform=replace(model.transform, views=views))
    pixels = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classes = torch.tensor([[0, 1], [6, 2], [4, 4]])
    maps = explain(model, pixels, classes)
    assert maps.shape[:2] == (3, 2)
    features = model.embed(pixels)
    if splits_its_score(model):
        assert isinstance(model.head, Head)
        scores = model.classify(features)
        scores = scores if model.head.bias is None else scores - model.head.bias
    else:
        scores = F.normalize(features, dim=1) @ F.normalize(model.means, dim=1).T
    torch.testing.assert_close(maps.mean(dim=(2, 3)).double(), scores.gather(1, classes).double(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_map_of_the_mirrored_view_is_mirrored_back(trained: Path) -> None:
    """A mirror image has the same two views in the other order, so that its map is the mirror image of the map."""
    model = load_session(RunFolder(trained))
    model = replace(model, transform=replace(model.transform, views=2))
    pixels = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classes = torch.tensor([[0, 1], [6, 2], [4, 3]])
    maps = explain(model, pixels, classes)
    assert ((maps - maps.flip(3)).abs().amax(dim=(2, 3)) > 0.01).all()  # so that the comparisons mean something
    torch.testing.assert_close(explain(model, pixels.flip(3), classes), maps.flip(3), rtol=1e-4, atol=1e-4)

    assert not splits_its_score(model)
    plain, mirrored = (model.backbone(model.transform.normalise(each)).maps[3] for each in (pixels, pixels.flip(3)))
    phi = (plain + mirrored.flip(3)) / 2
    length = phi.mean(dim=(2, 3)).norm(dim=1)[:, None, None, None]
    rows = F.normalize(model.means, dim=1)[classes]
    torch.testing.assert_close(maps, torch.einsum("bkd,bdhw->bkhw", rows, phi) / length, rtol=1e-4, atol=1e-4)


def test_the_paper_s_classifier_splits_its_score(trained: Path) -> None:
    splits = {name: splits_its_score(load_session(RunFolder(trained), classifier=name)) for name in CLASSIFIERS.entries}
    assert splits["means"]
    assert splits["teen"]
    assert not splits["fecam"]
