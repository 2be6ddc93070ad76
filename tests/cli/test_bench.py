"""The command `m2sd bench`, for real and as small as it can be. The figures are up to the machine."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any

import pytest

from m2sd_cli.benchmark.processes import MakeRun
from m2sd_cli.benchmark.report import Report
from m2sd_cli.benchmark.run import run_bench
from m2sd_cli.benchmark.settings import Settings
from m2sd_cli.benchmark.timing import Measurements
from m2sd_cli.cli import output
from m2sd_cli.cli.app import main
from m2sd_cli.cli.bench import as_lines
from tests.helpers import Cli

MEASURED = {"median", "min", "max", "rounds"}


@pytest.fixture(scope="module")
def measured() -> tuple[str, str, Report]:
    """Standard output, standard error and report of the one real run of these tests."""
    reports: list[Report] = []

    def keep(settings: Settings, make_run: MakeRun) -> Report:
        reports.append(run_bench(replace(settings, image_size=8, classes=3), make_run))
        return reports[0]

    out, err = io.StringIO(), io.StringIO()
    words = [
        "--recipe",
        "cifar100-resnet20",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--seconds",
        "0.2",
        "--rounds",
        "1",
    ]
    words += ["--against-reference", "--workers", "1", "--json"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("m2sd_cli.api.bench.run_bench", keep)
        patch.setattr(sys, "argv", ["m2sd", "bench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0, err.getvalue()
    return out.getvalue(), err.getvalue(), reports[0]


pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def positive(measured: dict[str, Any]) -> bool:
    return measured.keys() == MEASURED and 0 < measured["min"] <= measured["median"] <= measured["max"]


def test_the_document_names_its_units(measured: tuple[str, str, Report]) -> None:
    document = json.loads(measured[0])
    assert set(document) == {
        "conditions",
        "versions",
        "device_name",
        "cores",
        "threads",
        "throughput",
        "distill_to_pretrain_step_time_ratio",
        "pretrain_to_reference_throughput_ratio",
        "durations",
        "processes",
    }
    assert list(document["durations"]) == ["pretrain", "distill"]
    for each in document["durations"].values():
        assert set(each) == {"epochs", "steps", "seconds"}
        assert positive(each["seconds"])
    assert document["conditions"] == {
        "recipe": "cifar100-resnet20",
        "backbone": "resnet20",
        "image_size_pixels": 8,
        "classes": 3,
        "device": "cpu",
        "training_precision": "fp32",
        "feature_precision": "fp32",
        "seconds": 0.2,
        "rounds": 1,
        "reference_workers": 1,
        "compiled": False,
    }
    assert document["versions"].keys() >= {"m2sd", "python", "torch"}
    assert document["device_name"]
    assert list(document["throughput"]) == ["pretrain", "distill", "features", "reference"]
    for name, each in document["throughput"].items():
        assert set(each) == {
            "batch_size_images",
            "steps_per_round",
            "images_per_second",
            "step_milliseconds",
            "peak_memory_bytes",
            "flop_per_step",
            "flop_per_second",
            "peak_format",
            "share_of_peak",
        }
        assert positive(each["images_per_second"])
        assert positive(each["step_milliseconds"])
        assert each["batch_size_images"] == (256 if name == "features" else 4)
        assert each["steps_per_round"] >= 1
        assert (each["peak_format"], each["share_of_peak"]) == (None, None)
    assert list(document["processes"]) == ["import_torch", "help", "increment", "predict"]
    for each in document["processes"].values():
        assert set(each) == {"seconds", "peak_resident_bytes"}
        assert positive(each["seconds"])


def test_figures_fit_together(measured: tuple[str, str, Report]) -> None:
    report = measured[2]
    throughput = report.throughput
    for each in throughput.values():
        seconds = each.step_milliseconds.median / 1000
        assert each.images_per_second.median == pytest.approx(each.batch_size_images / seconds)
        assert each.flop_per_second == pytest.approx(each.flop_per_step / seconds)
    for name, epochs in (("pretrain", 40), ("distill", 160)):
        duration = report.durations[name]
        assert (duration.epochs, duration.steps) == (epochs, epochs * 60 * 490 // 4)
        assert duration.seconds.median == pytest.approx(
            duration.steps * throughput[name].step_milliseconds.median / 1000
        )
    times = {name: each.step_milliseconds.rounds[0] for name, each in throughput.items()}
    assert report.distill_to_pretrain_step_time_ratio.rounds == pytest.approx([times["distill"] / times["pretrain"]])
    assert report.pretrain_to_reference_throughput_ratio is not None
    ours = report.pretrain_to_reference_throughput_ratio
    assert ours.rounds == pytest.approx([times["reference"] / times["pretrain"]])


def test_the_work_is_that_of_the_method(measured: tuple[str, str, Report]) -> None:
    throughput = measured[2].throughput
    # The plain loop computes the same network on as many images; its memory is shared out among processes.
    assert throughput["reference"].flop_per_step == throughput["pretrain"].flop_per_step
    assert throughput["reference"].peak_memory_bytes is None
    # Each image is two virtual ones in stage 2, besides what enhances their features.
    assert throughput["distill"].flop_per_step > 2 * throughput["pretrain"].flop_per_step
    # Backward is twice the forward, but for the first layer, which needs no gradient of its input. The recipe looks at
    # every image twice.
    forward = throughput["features"].flop_per_step / throughput["features"].batch_size_images / 2
    training = throughput["pretrain"].flop_per_step / throughput["pretrain"].batch_size_images
    assert 2.8 * forward < training < 3.01 * forward


def test_notes_go_to_stderr(measured: tuple[str, str, Report]) -> None:
    _, err, _ = measured
    for word in ("pretrain: warm-up", "reference: warm-up", "processes: round 1 of 1"):
        assert word in err


def test_the_table_shows_what_is_known(measured: tuple[str, str, Report]) -> None:
    report = measured[2]
    text = "\n".join(as_lines(report))
    for word in ("images/s", "GFLOP/s", "MiB", "distill / pretrain", "--workers 1", "m2sd predict, 1 image"):
        assert word in text
    hour = replace(report.durations["distill"], epochs=3, steps=700, seconds=Measurements.of([3540.0, 3660.0]))
    assert "distill of cifar100-resnet20, 3 epochs, 700 steps: 1 h 00 min (59 min to 1 h 01 min)" in as_lines(
        replace(report, durations={"distill": hour})
    )
    pretrain = replace(report.throughput["pretrain"], peak_memory_bytes=None, share_of_peak=0.4567, peak_format="tf32")
    changed = replace(
        report, throughput={"pretrain": pretrain}, pretrain_to_reference_throughput_ratio=None, durations={}
    )
    lines = as_lines(changed)
    (row,) = (line.split() for line in lines if line.startswith("pretrain  "))
    assert (row[6], row[-1]) == ("-", "45.7")
    assert not [line for line in lines if "reference" in line]


def test_the_tables_fit_a_narrow_terminal(
    measured: tuple[str, str, Report], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "room", lambda: 60)
    output.results(as_lines(measured[2]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("pretrain  ") for line in lines) > 1  # in more than one block


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--recipe cifar100-resnet20 --classes 3", "--classes 3: cifar100-resnet20 is for cifar100"),
        ("--recipe cifar", "--recipe cifar: no such recipe"),
        ("--backbone vgg", "--backbone vgg"),
        ("--batch-size 1", "--batch-size 1"),
        ("--image-size 7", "--image-size 7"),
        ("--image-size 5000", "--image-size 5000"),
        ("--classes 1", "--classes 1: at least 2"),
        ("--seconds 0", "--seconds 0.0: more than 0"),
        ("--seconds nan", "--seconds nan: more than 0"),
        ("--rounds 0", "--rounds 0: at least 1"),
        ("--workers 2", "--workers 2: these are the reference loop's; add --against-reference"),
        ("--against-reference --workers 0", "--workers 0: at least 1"),
        (
            "--against-reference --recipe cifar100-resnet20-long",
            "has no AutoAugment, colour or Cutout, as cifar100-",
        ),
        ("--device gpu", "--device gpu: choose"),
        ("--precision half", "--precision half: choose"),
    ],
)
def test_refusals(m2sd: Cli, words: str, says: str) -> None:
    done = m2sd("bench", *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("m2sd: ")
    assert done.err.count("\n") == 1
    assert says in done.err
