"""A reporter hears of every pass over images to its end, and changes nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import m2sd_cli
from m2sd_cli.data.check import check_data
from m2sd_cli.data.folders import open_folder
from m2sd_cli.data.skipping import check_images
from m2sd_cli.data.sources import FileImages
from m2sd_cli.inference.features import base_features
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.progress import Pass, Reporter, count_passing, report_to, say, stage
from tests.helpers import Stripes


class Listener(Reporter):
    """Keeps the name of every pass and line; each pass begins at 0 and comes as far as its total, never back."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.before = 0

    def show_pass(self, step: Pass) -> None:
        if not self.passes or step is not self.passes[-1]:
            assert step.done == self.before == 0
            self.passes.append(step)
        assert self.before <= step.done <= step.total
        self.before = step.done if step.done < step.total else 0


@pytest.fixture
def passes() -> Iterator[list[Pass]]:
    listener = Listener()
    with report_to(listener):
        yield listener.passes


def told(passes: list[Pass]) -> list[tuple[str, int]]:
    assert all(each.done == each.total for each in passes)
    return [(each.name, each.total) for each in passes]


def test_files_are_read_then_decoded(stripes: Stripes, passes: list[Pass], tmp_path: Path) -> None:
    data = open_folder(stripes.folder, 11)  # a size that no other test has kept
    data.train.for_training(data.augmentation)
    assert told(passes) == [("reading", 32), ("decoding", 32)]
    batches = data.test.for_testing(data.transform, 5)
    assert told(passes[2:]) == [("reading", 12), ("decoding", 12)]
    assert sum(len(labels) for _, labels in batches) == 12
    assert len(passes) == 4


def test_checks_features_and_evaluations(stripes: Stripes, trained: Path, passes: list[Pass]) -> None:
    data = open_folder(stripes.folder, 16)
    check_data(data)
    sizes = Counter(path.stat().st_size for path in stripes.folder.rglob("*.png"))
    alike = sum(count for count in sizes.values() if count > 1)  # of one size, which may be one image
    assert told(passes) == [("checking", 44), ("reading", alike)]
    passes.clear()
    assert isinstance(data.test, FileImages)
    check_images(data.test.paths)
    assert told(passes) == [("checking", 12)]
    base_features(build_backbone("resnet20"), data.train, 4, data.transform)
    assert told(passes[1:]) == [("features of base images", 32)]
    m2sd_cli.evaluate(run=trained, test=stripes.labelled, device="cpu")
    assert told(passes)[-1][0] == "evaluating"


def test_without_a_reporter_nothing_is_different() -> None:
    assert list(count_passing("abc", "reading", 3)) == ["a", "b", "c"]
    with report_to(Reporter()):
        assert list(count_passing(torch.arange(3), "reading", 3)) == [0, 1, 2]


def test_the_former_reporter_hears_again() -> None:
    words: list[str] = []

    class Named(Reporter):
        def __init__(self, name: str) -> None:
            self.name = name

        def say(self, text: str) -> None:
            words.append(f"{self.name} {text}")

        def close(self) -> None:
            words.append(f"{self.name} closed")

    with report_to(Named("outer")):
        with report_to(Named("inner")):
            say("one")
        say("two")
    say("three")
    assert words == ["inner one", "inner closed", "outer two", "outer closed"]


def test_a_stage_ends_for_the_reporter_whatever_happens() -> None:
    words: list[str] = []

    class Stages(Reporter):
        def begin_stage(self, stage: str) -> None:
            words.append(f"begin {stage}")
            raise OSError

        def end_stage(self) -> None:
            words.append("end")
            raise OSError

    with pytest.raises(MemoryError), report_to(Stages()), stage("pretrain"):
        raise MemoryError
    assert words == ["begin pretrain", "end"]


def test_words_that_cannot_be_printed_change_nothing() -> None:
    class Deaf(Reporter):
        def show_pass(self, step: Pass) -> None:
            raise BrokenPipeError

    with report_to(Deaf()):
        assert list(count_passing("abc", "reading", 3)) == ["a", "b", "c"]
