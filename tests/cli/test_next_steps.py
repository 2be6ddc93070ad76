"""The commands that are offered as the next ones, typed as they are printed."""

import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import m2sd_cli
from m2sd_cli.cli.output import as_word
from tests.helpers import Cli, Outcome, Stripes, check_refusal, tree

TRAINING = ["--epochs", 1, "--batch-size", 8, "--device", "cpu"]


def next_commands(done: Outcome) -> list[list[str]]:
    """The commands in the line that begins with `next:`, as a shell takes them apart."""
    assert done.code == 0, done.err
    lines = [line.removeprefix("next: ") for line in done.err.splitlines() if line.startswith("next: ")]
    words = [shlex.split(each) for line in lines for each in line.split(", or ")]
    assert words
    assert all(each[0] == "m2sd" for each in words)
    return [each[1:] for each in words]


def test_every_next_command_works_as_it_is_printed(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("my runs") / "it's $HOME"
    run.parent.mkdir()
    small = ["--image-size", 16, "--backbone", "resnet20", *TRAINING]
    (distill,) = next_commands(m2sd("pretrain", "--data", stripes.folder, "--run", run, *small))
    (evaluate,) = next_commands(m2sd(*distill, *TRAINING, "--learning-rate", 0.02))
    assert (distill[0], evaluate[0]) == ("distill", "evaluate")
    assert m2sd(*evaluate).code == 0
    (tmp_path / "-odd 'names'" / "purple").mkdir(parents=True)
    Image.new("RGB", (20, 20), "purple").save(tmp_path / "-odd 'names'" / "purple" / "-1.png")
    taught = m2sd("increment", "--run", run, "--shots", "./-odd 'names'", "--device", "cpu")
    assert [words[0] for words in next_commands(taught)] == ["predict", "evaluate"]
    for words in next_commands(taught):
        ran = m2sd(*words)
        assert ran.code == 0, (words, ran.err)


def test_evaluate_does_not_come_next_without_test_images(
    m2sd: Cli, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stripes.folder / "train", tmp_path / "only" / "train")
    run = tmp_path / "run"
    small = ["--image-size", 16, "--backbone", "resnet20", *TRAINING]
    (distill,) = next_commands(m2sd("pretrain", "--data", tmp_path / "only", "--run", run, *small))
    done = m2sd(*distill, "--epochs", 0, "--device", "cpu")
    assert done.code == 0, done.err
    assert "next: " not in done.err
    assert f"m2sd evaluate --run {run} --test DIR\n" in done.err
    taught = m2sd("increment", "--run", run, "--shots", stripes.first_shots, "--device", "cpu")
    assert [words[0] for words in next_commands(taught)] == ["predict"]
    check_refusal(m2sd("evaluate", "--run", run, "--device", "cpu"), 3, "name some with --test DIR")


def test_official_sessions_come_next_where_there_are_any(m2sd: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = ["--images-per-class", 4, "--batch-size", 64, "--epochs", 1, "--device", "cpu"]
    begun = m2sd("pretrain", "--data", "demo", "--run", run, *few)
    assert next_commands(begun) == [["distill", "--run", str(run)]]
    distilled = m2sd("distill", "--run", run, "--epochs", 0, "--device", "cpu")
    first, evaluate = next_commands(distilled)
    assert first == ["increment", "--run", str(run), "--session", "1"]
    assert evaluate == ["evaluate", "--run", str(run)]
    second, evaluate = next_commands(m2sd(*first))
    assert second == ["increment", "--run", str(run), "--session", "2"]
    assert evaluate == ["evaluate", "--run", str(run)]
    assert next_commands(m2sd(*second)) == [evaluate]


def test_sessions_that_taught_nothing_do_not_count_as_official(m2sd: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = ["--images-per-class", 4, "--batch-size", 64, "--epochs", 1, "--device", "cpu"]
    m2sd("pretrain", "--data", "demo", "--run", run, *few)
    m2sd("distill", "--run", run, "--epochs", 0, "--device", "cpu")
    m2sd_cli.rename("coat", "long coat", run=run)
    taught = m2sd("increment", "--run", run, "--device", "cpu")
    third, _ = next_commands(taught)
    assert third == ["increment", "--run", str(run), "--session", "3"]
    assert [words[0] for words in next_commands(m2sd(*third))] == ["evaluate"]


def test_one_class_is_taught_from_images_wherever_they_lie(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    whites = sorted((stripes.first_shots / "white").iterdir())
    one, other = (m2sd_cli.rename(name, f"old {name}", run=run) for name in ("white", "purple"))
    assert (one.manifest.session, other.manifest.session) == (3, 4)
    done = m2sd("increment", "--class", "white", *whites, "--run", run, "--device", "cpu")
    assert "session 5: learned white (2); 8 classes now" in done.err
    taught = m2sd("increment", "--class", "purple", stripes.first_shots / "purple", "--run", run, "--device", "cpu")
    assert "session 6: learned purple (3); 9 classes now" in taught.err
    chain = m2sd_cli.open_run(run).chain()
    first = {each.name: each for each in chain[1].manifest.classes}
    for stored in chain[5:]:
        (record,) = stored.manifest.classes
        assert (record.digest, record.shot_sha256) == (first[record.name].digest, first[record.name].shot_sha256)
    more = m2sd("increment", "--extend", "--class", "grey", whites[0], "--run", run, "--device", "cpu")
    assert "session 7: extended grey (1); 9 classes now" in more.err


def test_an_image_that_was_left_out_is_not_asked_about(m2sd: Cli, run: Path, stripes: Stripes, tmp_path: Path) -> None:
    shutil.copytree(stripes.first_shots / "white", tmp_path / "shots" / "orange")
    (tmp_path / "shots" / "orange" / "a.png").write_bytes(b"no image")
    words = ["--shots", tmp_path / "shots", "--skip-bad", "--run", run, "--device", "cpu"]
    asked, _ = next_commands(m2sd("increment", *words))
    assert m2sd(*asked, "--device", "cpu").code == 0


def test_what_cannot_be_taught_as_one_class_is_refused(m2sd: Cli, run: Path, stripes: Stripes) -> None:
    image, shots = next((stripes.first_shots / "white").iterdir()), as_word(stripes.first_shots)
    before = tree(run)
    for words, code, says in (
        (["--class", "a", "--class", "b", image], 2, "--class: one at a time; several come with --shots DIR"),
        (["--class", "a"], 2, "--class CLASS and photos belong together"),
        ([image], 2, "--class CLASS and photos belong together"),
        (
            [stripes.first_shots],
            2,
            f"--shots {shots} teaches the classes whose folders are in it, --class CLASS {shots} its",
        ),
        (["--class", "a", image, "--shots", stripes.first_shots], 2, "--class and --shots or --data: choose one"),
        (["--class", " ", image], 2, "--class ' ': not the name of a class"),
        (["--class", "../a", image], 2, "not the name of a class"),
        (["--class", "grey", image], 4, "class 'grey' exists already, since session 2; --extend adds these shots"),
        (["--class", "a", image, image], 3, "named twice; name it once"),
        (["--class", "a", run / "absent.png"], 3, "no such file or folder"),
    ):
        check_refusal(m2sd("increment", *words, "--run", run, "--device", "cpu"), code, says)
    assert tree(run) == before
