"""Whoever listens to passes over pictures hears of every one of them to its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import m2sd_cli
from m2sd_cli.data.check import check_data
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.passes import Pass, counted, heard
from m2sd_cli.data.skipping import check_pictures
from m2sd_cli.data.sources import FileImages
from m2sd_cli.inference.features import base_features
from m2sd_cli.method.backbones import build_backbone

if TYPE_CHECKING:
    from tests.conftest import Pictures


@pytest.fixture
def passes() -> Iterator[list[Pass]]:
    """What was heard of: each pass at its first word, at most as far as its total in steps that never go back."""
    found: list[Pass] = []
    before = 0

    def listen(steps: Pass) -> None:
        nonlocal before
        if not found or steps is not found[-1]:
            assert steps.done == before == 0
            found.append(steps)
        assert before <= steps.done <= steps.total
        before = steps.done if steps.done < steps.total else 0

    with heard(listen):
        yield found


def told(passes: list[Pass]) -> list[tuple[str, int]]:
    """The passes so far, all of which have come to their end."""
    assert all(each.done == each.total for each in passes)
    return [(each.what, each.total) for each in passes]


def test_files_are_read_then_decoded(pictures: "Pictures", passes: list[Pass], tmp_path: Path) -> None:
    data = open_folder(pictures.folder, 11)  # a size that no other test has kept
    data.train.for_training(data.augmentation)
    assert told(passes) == [("reading", 32), ("decoding", 32)]
    batches = data.test.for_testing(data.transform, 5)
    assert told(passes[2:]) == [("reading", 12), ("decoding", 12)]
    assert sum(len(labels) for _, labels in batches) == 12
    assert len(passes) == 4


def test_checks_features_and_evaluations(pictures: "Pictures", trained: Path, passes: list[Pass]) -> None:
    data = open_folder(pictures.folder, 16)
    check_data(data)
    assert told(passes) == [("checking", 44)]
    assert isinstance(data.test, FileImages)
    check_pictures(data.test.paths)
    assert told(passes[1:]) == [("checking", 12)]
    base_features(build_backbone("resnet20"), data.train, 4, data.transform)
    assert told(passes[2:]) == [("features of base images", 32)]
    m2sd_cli.evaluate(run=trained, test=pictures.labelled, device="cpu")
    assert told(passes)[-1][0] == "evaluating"


def test_without_a_listener_nothing_is_different() -> None:
    assert list(counted("abc", "reading", 3)) == ["a", "b", "c"]
    with heard(lambda _: None):
        assert list(counted(torch.arange(3), "reading", 3)) == [0, 1, 2]


def test_the_former_listener_listens_again() -> None:
    words: list[str] = []
    with heard(lambda steps: words.append(f"outer {steps.what}")):
        with heard(lambda steps: words.append(f"inner {steps.what}")):
            Pass("one", 1)
        Pass("two", 1)
    Pass("three", 1)
    assert words == ["inner one", "outer two"]
