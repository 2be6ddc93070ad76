"""Stage 1 with the term that draws classes together."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import m2sd_cli
from m2sd_cli.api.pretrain import fit_pretrain
from m2sd_cli.config.stages import PretrainConfig
from m2sd_cli.errors import UsageError
from m2sd_cli.method.losses import closeness, cross_entropy
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.training.pretrain import build_network, pretrain_objective
from tests.helpers import QUICK, Stripes, finished


def test_it_is_taken_from_the_cross_entropy() -> None:
    config = PretrainConfig(epochs=1, backbone="resnet20")
    network = build_network(config, 3).eval()
    generator = torch.Generator().manual_seed(3)
    x, labels = torch.rand(5, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 2, 1])
    closer = replace(config, closeness_weight=0.5)
    loss, measures = pretrain_objective(network, closer)(x, labels, generator, slice(1, 5))
    output = network(x[1:5])
    term = closeness(output.features.pooled, labels[1:5])
    torch.testing.assert_close(loss, cross_entropy(output.logits, labels[1:5]) - 0.5 * term)
    torch.testing.assert_close(measures["closeness"], term)
    plain, measures = pretrain_objective(network, config)(x, labels, generator, slice(1, 5))
    torch.testing.assert_close(plain, cross_entropy(output.logits, labels[1:5]))
    assert "closeness" not in measures


def test_it_is_recorded_shown_and_resumed(stripes: Stripes, tmp_path: Path) -> None:
    options = {**QUICK, "epochs": 2, "closeness_weight": 1.0}
    whole = finished(m2sd_cli.pretrain(stripes.folder, run=tmp_path / "whole", **options)).manifest
    assert whole.config["closeness_weight"] == 1.0
    assert all(-1 <= epoch.terms["closeness"] <= 1 for epoch in whole.history)
    assert m2sd_cli.pretrain(stripes.folder, run=tmp_path / "cut", stop_after=0, **options) is None
    again = finished(m2sd_cli.pretrain(run=tmp_path / "cut", resume=True, device="cpu")).manifest
    assert again.checkpoint.sha256 == whole.checkpoint.sha256
    plain = finished(m2sd_cli.pretrain(stripes.folder, run=tmp_path / "plain", **{**options, "closeness_weight": 0}))
    assert plain.manifest.checkpoint.sha256 != whole.checkpoint.sha256
    assert RunFolder(tmp_path / "cut").verify() == []


def test_a_negative_weight_is_refused(stripes: Stripes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--closeness-weight -1\.0: at least 0"):
        m2sd_cli.pretrain(stripes.folder, run=tmp_path / "run", **{**QUICK, "closeness_weight": -1.0})


def test_the_pairs_of_a_batch_are_of_one_process() -> None:
    config = SimpleNamespace(closeness_weight=0.5)
    execution = SimpleNamespace(group=SimpleNamespace(size=2))
    job: Any = SimpleNamespace(data=None, run=None, config=config, execution=execution)
    with pytest.raises(UsageError, match=r"--closeness-weight 0.5 is of all pairs of a batch, which 2 processes share"):
        fit_pretrain(job)
