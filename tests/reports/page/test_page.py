"""The page of a run: whole, bounded, without a script, and safe whatever things are called."""

import re
import shutil
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import m2sd_cli
from m2sd_cli.api.tested_images import TestedImages
from m2sd_cli.data.folders import read_shots
from m2sd_cli.errors import UsageError
from m2sd_cli.reports.figures.table import FIGURES
from m2sd_cli.reports.page.content import Page, SessionEntry, Shown, TaughtClassEntry
from m2sd_cli.reports.page.render import render
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.places import remember_shots
from tests.helpers import Cli, Stripes, check_refusal, tree
from tests.hostile.test_images import NAMES

CPU = ["--device", "cpu"]
LOUD = "<script>alert(1)</script>"


class Outline(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_harmless(page: str) -> Outline:
    """Check that a page has no script and fetches nothing."""
    outline = Outline(page)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(outline.tags)
    for name, value in outline.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value is not None
            assert value.startswith(("data:image/", "#"))
    assert "url(" not in page
    assert "@import" not in page
    return outline


@pytest.fixture(scope="session")
def page(calibrated: Path, stripes: Stripes) -> str:
    return m2sd_cli.report(
        run=calibrated,
        data=stripes.folder,
        shots={1: stripes.first_shots, 2: stripes.second_shots},
        device="cpu",
    )


def test_shots_of_official_sessions_are_shown_whatever_was_before_them(stripes: Stripes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain("demo", run=run, epochs=1, batch_size=512, images_per_class=4, class_order="3", device="cpu")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    m2sd_cli.increment(shots=stripes.first_shots, run=run, device="cpu")
    with RunFolder(run).locked("undo"):
        RunFolder(run).remove_sessions(1)
    taught = m2sd_cli.increment(run=run, device="cpu").manifest.classes
    m2sd_cli.rename(taught[0].name, "another", run=run)
    taught += m2sd_cli.increment(run=run, device="cpu").manifest.classes
    page = m2sd_cli.report(run=run, device="cpu")
    assert page.count('loading="lazy"') == 6 + sum(each.shots for each in taught)


def test_a_page_has_everything_of_a_run(page: str) -> None:
    outline = check_harmless(page)
    text = "".join(outline.text)
    for figure in FIGURES.values():
        assert figure.title in text
    assert len(re.findall("<svg", page)) == len(FIGURES)
    assert "Left out" not in text
    for name in ("blue", "green", "red", "yellow", "purple", "white", "grey"):
        assert name in text
    assert page.count('loading="lazy"') == 4 + 3 + 2 + 4  # an image of each base class, and the shots
    assert "m2sd pretrain --data ./colours " in text
    assert " --held-out 0.25 " in text
    assert "m2sd increment --session 2 --shots" in text
    assert len(re.findall(r"<code>[0-9a-f]{64}</code>", page)) == 4 + 3 + 4  # manifests, parents, checkpoints
    assert len(page) < 300_000


def test_a_page_without_test_images_says_so(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "places.json").unlink(missing_ok=True)
    done = m2sd("report", "--run", run, "--out", tmp_path / "page.html", *CPU)
    assert (done.code, done.out) == (0, "")
    assert "the page has no figures of test images: " in done.err
    text = "".join(check_harmless((tmp_path / "page.html").read_text()).text)
    assert "Without test images, no figures of accuracy" in text
    assert "name the folder of its shots with --shots 1=DIR" in text
    assert "Training, stage 1" in text


def test_a_page_without_a_test_image_of_a_known_class_says_so(
    m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_classes(*_: object) -> TestedImages:
        labelled = read_shots(stripes.labelled)
        return TestedImages(labelled.source, [f"other {name}" for name in labelled.classes], "test", (), None)

    monkeypatch.setattr("m2sd_cli.api.report.open_tested_images", other_classes)
    done = m2sd("report", "--run", trained, "--out", tmp_path / "page.html", *CPU)
    assert done.code == 0, done.err
    assert "the page has no figures of test images: test: no test image of a class that the model knows" in done.err
    assert "Training, stage 1" in (tmp_path / "page.html").read_text()


def test_shots_whose_folder_is_gone_are_asked_for(m2sd: Cli, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    remember_shots(run, 1, [tmp_path / "gone"])
    assert m2sd("report", "--run", run, "--out", tmp_path / "page.html", *CPU).code == 0
    assert "name the folder of its shots with --shots 1=DIR" in (tmp_path / "page.html").read_text()


def test_a_page_has_so_many_thumbnails_and_no_more(
    trained: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2sd_cli.api.report.MOST_THUMBNAILS", 6)
    pages: list[Page] = []
    monkeypatch.setattr("m2sd_cli.api.report.render", pages.append)
    m2sd_cli.report(run=trained, data=stripes.folder, shots={1: stripes.first_shots}, device="cpu")
    shown = [[len(each.thumbnails) for each in session.classes] for session in pages[0].sessions]
    assert (shown[0], sum(shown[1])) == ([1, 1, 1, 1], 2)


def test_own_test_images_and_wrong_folders(m2sd: Cli, trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    words = ["report", "--run", trained, "--out", out, *CPU]
    done = m2sd(*words, "--test", stripes.labelled, "--shots", f"1={stripes.second_shots}")
    assert done.code == 0, done.err
    text = "".join(check_harmless(out.read_text()).text)
    assert "Left out: no base images were held out" in text
    assert "the images there are not those that taught it" in text
    assert "Test images of classes not taught: orange" in text
    before = tree(tmp_path)
    check_refusal(m2sd(*words, "--test", tmp_path / "absent"), 3, "no such folder")
    check_refusal(m2sd(*words, "--test", stripes.labelled, "--shots", f"1={tmp_path / 'absent'}"), 3, "no such file or")
    check_refusal(m2sd(*words, "--shots", "1"), 2, "write N=DIR")
    for number in (0, 9):
        refused = m2sd(*words, "--test", stripes.labelled, "--shots", f"{number}={stripes.first_shots}")
        check_refusal(refused, 2, f"--shots {number}: no session {number} in it that was taught shots; leave it out")
    check_refusal(m2sd("report", "--run", trained, "--out", trained / "head.json"), 2, "that is a file of the run")
    assert tree(tmp_path) == before


def hostile_page(name: str) -> Page:
    shown = Shown("accuracy", name, name, None, name)
    session = SessionEntry(0, "base", [TaughtClassEntry(name, name, [])], [name], name)
    return Page(name, name, [(name, name)], [session], [shown], None, name, [name], [], name, name)


@pytest.mark.parametrize("name", [*NAMES, LOUD, '" onmouseover="alert(1)', "{{ 7 * 7 }}", "a\x00b\ud800"])
def test_no_name_breaks_out_of_the_page(name: str) -> None:
    page = render(hostile_page(name))
    outline = check_harmless(page)
    assert outline.tags == check_harmless(render(hostile_page("x"))).tags
    page.encode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", page)
    assert {each.name for each in fields(Page)} == replace(hostile_page(name)).__dict__.keys()


def test_hostile_names_of_a_run_stay_names(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run <b>&"))
    for old, new in (("red", "<img src=x onerror=alert(1)>"), ("grey", '"\x1b[31m\u202e')):
        m2sd_cli.rename(old, new, run=run)
    m2sd_cli.forget("white", run=run)
    page = m2sd_cli.report(run=run, test=stripes.labelled, device="cpu")
    outline = check_harmless(page)
    assert "<img src=x onerror=alert(1)>" in "".join(outline.text)
    assert "white is forgotten." in "".join(outline.text)
    assert "\x1b" not in page


def test_an_option_of_another_run_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError):
        m2sd_cli.report(run=trained, data="demo", device="cpu")
