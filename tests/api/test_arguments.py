"""Texts and paths as arguments of the public functions, and what they return, shown."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from m2sd_cli.errors import DataError, M2sdError, UsageError
from m2sd_cli.runs.folder import open_run
from tests.helpers import QUICK, QUICK_DISTILL, Cli, Stripes

ADDRESS = "https://example.org/a/cat.jpg"


@pytest.mark.parametrize("kind", [str, Path])
def test_one_image_may_stand_for_itself(trained: Path, stripes: Stripes, kind: Any) -> None:
    path = next((stripes.labelled / "red").iterdir())
    alone = list(m2sd_cli.predict(kind(path), run=kind(trained), device="cpu"))
    assert [each.path for each in alone] == [path]
    assert alone == list(m2sd_cli.predict([path], run=trained, device="cpu"))
    assert len(list(m2sd_cli.predict(kind(path.parent), run=trained, device="cpu"))) == 2
    assert len(list(m2sd_cli.predict((each for each in [path, path]), run=trained, device="cpu"))) == 2


@pytest.mark.parametrize("images", ["", [""]])
def test_an_empty_name_is_not_the_current_folder(trained: Path, images: Any) -> None:
    with pytest.raises(UsageError, match="empty name"):
        m2sd_cli.predict(images, run=trained, device="cpu")


@pytest.mark.parametrize("kind", [str, Path])
def test_texts_and_paths_stand_for_each_other(stripes: Stripes, tmp_path: Path, kind: Any) -> None:
    (tmp_path / "options.toml").write_text("[pretrain]\nseed = 5\n")
    run, folder = kind(tmp_path / "run"), kind(stripes.folder)
    common = {"run": run, "data_root": kind(tmp_path)}
    first = m2sd_cli.pretrain(folder, config=kind(tmp_path / "options.toml"), **common, **QUICK)
    assert first is not None
    assert first.manifest.seed == 5
    m2sd_cli.distill(folder, **common, **QUICK_DISTILL)
    m2sd_cli.increment(1, kind(stripes.first_shots), device="cpu", **common)
    assert m2sd_cli.evaluate(data=folder, device="cpu", **common) is not None
    assert m2sd_cli.evaluate(test=kind(stripes.labelled), device="cpu", **common) is not None
    m2sd_cli.export("safetensors", kind(tmp_path / "out.safetensors"), run=run)
    weights = kind(tmp_path / "run" / "pretrain.safetensors")
    again = m2sd_cli.pretrain(folder, run=kind(tmp_path / "again"), init=weights, **QUICK)
    assert again is not None
    assert again.manifest.config["init"] == "pretrain.safetensors"
    shots = {1: kind(stripes.first_shots)}
    assert all(each.same for each in m2sd_cli.reproduce(data=folder, shots=shots, **common).stages)


def test_a_manifest_is_shown_in_one_short_line(trained: Path) -> None:
    run = open_run(trained)
    assert repr(run.pretrain()) == "<pretrain of 4 classes: pretrain.json>"
    assert repr(run.session(0)) == "<base of 4 classes: session-000.json>"
    assert repr(run.session(2)) == "<increment of 1 class: session-002.json>"


@pytest.mark.parametrize("address", [ADDRESS, Path(ADDRESS), "s3://bucket/cats", "FTP://a.b/c"])
def test_an_address_is_called_what_it_is(trained: Path, stripes: Stripes, tmp_path: Path, address: Any) -> None:
    def refused(call: Any, *arguments: Any, **options: Any) -> str:
        with pytest.raises(DataError) as error:
            call(*arguments, **options)
        return str(error.value)

    named = str(address).replace("https:/e", "https://e")
    says = f"{named}: an address, and no file or folder; download it first"
    assert refused(m2sd_cli.predict, [address], run=trained, device="cpu") == says
    assert refused(m2sd_cli.increment, 3, address, run=trained, device="cpu") == says
    assert refused(m2sd_cli.evaluate, test=address, run=trained, device="cpu") == says
    assert refused(m2sd_cli.pretrain, address, run=tmp_path / "run", **QUICK) == f"--data {says}"
    begun = refused(m2sd_cli.pretrain, stripes.folder, run=tmp_path / "run", init=address, **QUICK)
    assert begun == f"--init {says}"


def test_an_address_on_the_command_line(m2sd: Cli, trained: Path) -> None:
    for words in (["predict", ADDRESS, "--run", trained], ["data", "verify", ADDRESS], ["pretrain", "--data", ADDRESS]):
        done = m2sd(*words)
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert f"{ADDRESS}: an address, and no file or folder; download it first" in done.err


def test_other_images_are_named_by_their_classes(pretrained: Path, stripes: Stripes, tmp_path: Path) -> None:
    other = shutil.copytree(stripes.folder, tmp_path / "colours")
    train = other / "train"
    shutil.move(train / "blue", train / "azure")
    next((train / "red").iterdir()).unlink()
    first, second, *_ = sorted((train / "yellow").iterdir())
    shutil.copy(first, second)
    says = "'blue' is missing, 'red' has 7 images, not 8, 'yellow' has other images, or other names of them and 1 more"
    files = "8 new: train/azure/.*; 9 gone: train/blue/.*, train/red/.*; 1 changed: train/yellow/[^,;]*"
    begin = "pretrained on other images than those of colours; give .* --data"
    with pytest.raises(M2sdError, match=f"{begin}: {says}; {files}$"):
        m2sd_cli.distill(other, run=pretrained, device="cpu")


def test_evaluate_names_them_too(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    other = shutil.copytree(stripes.folder, tmp_path / "colours")
    gone = next((other / "train" / "red").iterdir())
    gone.unlink()
    says = f"name others with --test DIR: 'red' has 7 images, not 8; 1 gone: train/red/{gone.name}$"
    with pytest.raises(DataError, match=says):
        m2sd_cli.evaluate(data=other, run=trained, device="cpu")


def test_a_misspelt_option_is_told_before_the_run_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^there is no option 'clasifier'; did you mean 'classifier'\?$"):
        m2sd_cli.distill(run=tmp_path / "none", clasifier="teen")
