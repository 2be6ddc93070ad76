"""Sessions that extend, rename and forget classes, and all that asks the chain after them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import m2sd_cli
from m2sd_cli.errors import RunError, UsageError
from m2sd_cli.inference.session import SessionModel, load_all_sessions, load_session
from m2sd_cli.method.heads import AnyHead
from m2sd_cli.method.stage3 import KnownClasses, build_head
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import CLASSIFIERS
from tests.helpers import Stripes, copy_base_session, draw, fill, tree


def split_shots(folder: Path, first: Path, colour: str, count: int) -> Path:
    """Move the shots of a colour after the first `count` of a copy of `folder` into a folder of their own."""
    for place, kept in ((first, slice(count)), (first.with_name("rest"), slice(count, None))):
        (place / colour).mkdir(parents=True)
        for path in sorted((folder / colour).iterdir())[kept]:
            shutil.copy(path, place / colour)
    return first.with_name("rest")


@pytest.fixture
def extended(calibrated: Path, stripes: Stripes, tmp_path: Path) -> tuple[Path, Path]:
    """A run that was taught four grey images at once, and one in two sessions with another session between them."""
    whole, parts = (copy_base_session(calibrated, tmp_path / name) for name in ("whole", "parts"))
    rest = split_shots(stripes.second_shots, tmp_path / "first", "grey", 3)
    m2sd_cli.increment(shots=stripes.second_shots, run=whole, device="cpu")
    m2sd_cli.increment(shots=stripes.first_shots, run=whole, device="cpu")
    m2sd_cli.increment(shots=tmp_path / "first", run=parts, device="cpu")
    m2sd_cli.increment(shots=stripes.first_shots, run=parts, device="cpu")
    m2sd_cli.increment(shots=rest, run=parts, device="cpu", extend=True)
    return whole, parts


@pytest.mark.parametrize("classifier", CLASSIFIERS.names())
def test_an_extended_class_is_that_of_one_session_with_all_shots(extended: tuple[Path, Path], classifier: str) -> None:
    whole, parts = (load_session(RunFolder(run), classifier=classifier) for run in extended)
    assert parts.classes == whole.classes
    torch.testing.assert_close(parts.means, whole.means, rtol=1e-6, atol=1e-7)
    features = torch.rand(20, whole.means.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(parts.classify(features), whole.classify(features), rtol=1e-5, atol=1e-5)
    assert parts.confidence == whole.confidence


def test_the_history_keeps_both(extended: tuple[Path, Path]) -> None:
    _, run = extended
    chain = RunFolder(run).chain()
    assert [each.manifest.kind for each in chain] == ["base", "increment", "increment", "extend"]
    assert [(each.index, each.name, each.shots) for each in chain[1].manifest.classes] == [(4, "grey", 3)]
    assert [(each.index, each.name, each.shots) for each in chain[3].manifest.classes] == [(4, "grey", 1)]
    before = load_session(RunFolder(run), 2)
    assert before.sizes == [4, 5, 7]
    after = load_session(RunFolder(run))
    assert (after.first, after.sizes, after.base, after.session) == (3, [7], 4, 3)
    assert torch.equal(before.means[5:], after.means[5:])
    assert not torch.equal(before.means[4], after.means[4])
    assert RunFolder(run).verify() == []


def test_base_classes_are_extended_as_if_they_had_had_the_shots(
    calibrated: Path, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(calibrated, tmp_path / "run"))
    fill(tmp_path / "more", "red", 2, first=300)
    before = load_session(RunFolder(run), classifier="means")
    stored = m2sd_cli.increment(shots=tmp_path / "more", run=run, device="cpu", extend=True)
    assert (stored.manifest.kind, stored.manifest.classes_so_far, stored.manifest.classes[0].index) == ("extend", 7, 2)
    after = load_session(RunFolder(run), classifier="means")
    count = RunFolder(run).session(0).manifest.classes[2].shots
    features = load_file(run / "session-003.safetensors")["shot_features"].double()
    wanted = (count * before.means[2].double() + features.sum(dim=0)) / (count + 2)
    torch.testing.assert_close(after.means[2].double(), wanted, rtol=1e-6, atol=1e-7)
    others = [0, 1, 3, 4, 5, 6]
    assert torch.equal(after.means[others], before.means[others])
    for classifier in CLASSIFIERS.names():  # every one answers, and the earlier session as it did
        asked = load_session(RunFolder(run), classifier=classifier)
        assert asked.classify(features.float()).isfinite().all()
        assert load_session(RunFolder(run), 2, classifier=classifier).sizes == [4, 6, 7]
    taught: list[KnownClasses] = []

    def keep(name: str, known: KnownClasses, *rest: Any) -> AnyHead:
        taught.append(known)
        return build_head(name, known, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("m2sd_cli.inference.session.build_head", keep)
        load_session(RunFolder(run))
    assert taught[0].images[2] == count + 2
    assert taught[0].covariance_images[2] == count  # the later shots are not in it
    figures = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu").figures.sessions
    assert [each.session for each in figures] == [0, 1, 2, 3]
    assert figures[:3] == m2sd_cli.evaluate(run=calibrated, test=stripes.labelled, device="cpu").figures.sessions


def answers(model: SessionModel) -> torch.Tensor:
    return model.classify(torch.rand(40, model.means.shape[1], generator=torch.Generator().manual_seed(3)))


def test_a_forgotten_class_is_no_answer_and_nothing_else_changes(
    calibrated: Path, stripes: Stripes, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(calibrated, tmp_path / "run"))
    before = load_session(RunFolder(run))
    stored = m2sd_cli.forget("purple", run=run)
    assert (stored.manifest.session, stored.manifest.classes, stored.manifest.classes_so_far) == (3, [], 7)
    after = load_session(RunFolder(run))
    assert after.classes == ["blue", "green", "red", "yellow", "white", "grey"]
    kept = [before.classes.index(name) for name in after.classes]
    assert torch.equal(answers(after), answers(before)[:, kept])
    assert after.confidence == before.confidence
    evaluation = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu")
    assert evaluation.classes == after.classes
    assert "purple" in evaluation.unknown
    old = m2sd_cli.evaluate(run=calibrated, test=stripes.labelled, device="cpu")
    assert evaluation.figures.sessions[:3] == old.figures.sessions
    assert [each.session for each in evaluation.calibration] == [0, 1, 2, 3]
    last = evaluation.figures.sessions[3]
    assert (last.classes, last.images) == (6, old.figures.sessions[2].images - 2)
    assert (evaluation.calibration[3].known, evaluation.calibration[3].unknown) == (10, 4)  # purple, orange
    guesses = next(m2sd_cli.predict(stripes.labelled / "purple", run=run, top_k=9, device="cpu")).guesses
    assert sorted(guess.name for guess in guesses) == sorted(after.classes)


def test_a_forgotten_name_is_free_and_has_an_index_of_its_own(run: Path, stripes: Stripes) -> None:
    m2sd_cli.forget("grey", run=run)
    stored = m2sd_cli.increment(shots=stripes.second_shots, run=run, device="cpu")
    assert [(each.index, each.name) for each in stored.manifest.classes] == [(7, "grey")]
    model = load_session(RunFolder(run))
    assert model.classes == ["blue", "green", "red", "yellow", "purple", "white", "grey"]
    assert (model.first, model.sizes) == (3, [6, 7])
    figures = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu").figures.sessions
    assert [each.classes for each in figures] == [4, 6, 7, 6, 7]
    assert (figures[4].overall, figures[4].novel) == (figures[2].overall, figures[2].novel)


def test_base_classes_are_forgotten_too_but_not_the_last_class(run: Path, stripes: Stripes) -> None:
    for name in ("blue", "green", "red", "yellow", "purple", "grey"):
        m2sd_cli.forget(name, run=run)
    before = tree(run)
    with pytest.raises(RunError, match="class 'white' is the only one"):
        m2sd_cli.forget("white", run=run)
    assert tree(run) == before
    model = load_session(RunFolder(run))
    assert (model.classes, model.base, answers(model).shape) == (["white"], 0, (40, 1))
    fill(stripes.labelled.with_name("whites"), "white", 2, first=200)
    figures = m2sd_cli.evaluate(run=run, test=stripes.labelled.with_name("whites"), device="cpu").figures.sessions[-1]
    assert (figures.overall, figures.base, figures.novel, figures.harmonic) == (100, None, 100, None)


def test_a_renamed_class_is_known_by_both_names(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    before = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu")
    stored = m2sd_cli.rename("grey", " slate ", run=run)
    edit = stored.manifest.edits[0]
    assert (stored.manifest.kind, edit.index, edit.name, edit.new_name) == ("rename", 6, "grey", "slate")
    after = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu")
    assert after.classes == [*before.classes[:-1], "slate"]
    assert after.figures.sessions[:3] == before.figures.sessions
    assert after.figures.sessions[3].overall == before.figures.sessions[2].overall
    labelled = Path(shutil.copytree(stripes.labelled, tmp_path / "labelled"))
    (labelled / "grey").rename(labelled / "slate")
    renamed = m2sd_cli.evaluate(run=run, test=labelled, device="cpu")
    assert renamed.figures == after.figures
    assert load_session(RunFolder(run), 2).classes[6] == "grey"
    draw("grey", 77).save(tmp_path / "more.png")
    (tmp_path / "more" / "slate").mkdir(parents=True)
    (tmp_path / "more.png").rename(tmp_path / "more" / "slate" / "more.png")
    assert (
        m2sd_cli.increment(shots=tmp_path / "more", run=run, extend=True, device="cpu").manifest.classes[0].index == 6
    )


def test_a_forgotten_class_keeps_its_name_from_one_that_had_it_before(run: Path, tmp_path: Path) -> None:
    m2sd_cli.rename("grey", "slate", run=run)
    fill(tmp_path / "shots", "purple", 2, first=50)
    (tmp_path / "shots" / "purple").rename(tmp_path / "shots" / "grey")
    m2sd_cli.forget("purple", run=run)
    m2sd_cli.increment(shots=tmp_path / "shots", run=run, device="cpu")
    fill(tmp_path / "labelled", "grey", 3, first=60)
    (tmp_path / "labelled" / "grey").rename(tmp_path / "labelled" / "slate")
    fill(tmp_path / "labelled", "purple", 2, first=60)
    (tmp_path / "labelled" / "purple").rename(tmp_path / "labelled" / "grey")
    before = m2sd_cli.evaluate(run=run, test=tmp_path / "labelled", device="cpu")
    assert [each.images for each in before.figures.sessions[-2:]] == [3, 5]
    m2sd_cli.forget("grey", run=run)
    after = m2sd_cli.evaluate(run=run, test=tmp_path / "labelled", device="cpu")
    assert [each.images for each in after.figures.sessions[-3:]] == [3, 5, 3]
    assert after.unknown == ["grey"]


def test_case_and_spaces_do_not_tell_classes_apart(run: Path) -> None:
    model = load_session(RunFolder(run))
    assert model.find(["Blue", " blue", "blue", "BLUE  ", "bluer"]).tolist() == [0, 0, 0, 0, -1]


def test_a_name_is_that_of_the_class_that_got_it_last(run: Path) -> None:
    for old, new in (("white", "snow"), ("blue", "white"), ("white", "sky")):
        m2sd_cli.rename(old, new, run=run)
    chain = RunFolder(run).summary()
    model = load_session(RunFolder(run))
    blue, white = (
        next(each.index for each in chain.classes.all if each.earlier_names[:1] == [name]) for name in ("blue", "white")
    )
    assert (model.places()["white"], model.places()["blue"], model.places()["snow"]) == (blue, blue, white)
    m2sd_cli.forget("sky", run=run)
    places = load_session(RunFolder(run)).places()
    assert "white" not in places  # its images are those of a forgotten class
    assert places["snow"] == white - 1


def test_a_part_of_a_chain_does_not_take_images_of_a_later_owner_of_a_name(
    run: Path, stripes: Stripes, tmp_path: Path
) -> None:
    m2sd_cli.forget("grey", run=run)  # which begins another part
    m2sd_cli.rename("white", "snow", run=run)
    fill(tmp_path / "shots", "purple", 3, first=50)
    (tmp_path / "shots" / "purple").rename(tmp_path / "shots" / "white")
    m2sd_cli.increment(shots=tmp_path / "shots", run=run, device="cpu")
    early, late = (each.places() for each in load_all_sessions(RunFolder(run), RunFolder(run).summary()))
    assert "white" not in early
    assert late["white"] != late["snow"]
    assert "snow" in early


def test_a_class_that_is_forgotten_and_taught_again_keeps_its_earlier_figures(
    run: Path, stripes: Stripes, tmp_path: Path
) -> None:
    before = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu").figures.sessions
    m2sd_cli.forget("grey", run=run)
    fill(tmp_path / "shots", "grey", 3, first=50)
    m2sd_cli.increment(shots=tmp_path / "shots", run=run, device="cpu")
    after = m2sd_cli.evaluate(run=run, test=stripes.labelled, device="cpu").figures.sessions
    assert after[: len(before)] == before
    assert after[-1].images == before[-1].images


@pytest.mark.parametrize(
    ("forgotten", "renamed"), [("red", "purple"), ("grey", "purple"), ("purple", "red"), ("purple", "grey")]
)
def test_a_forgotten_class_keeps_its_images_before_another_one_gets_its_name(
    run: Path, forgotten: str, renamed: str
) -> None:
    first = load_session(RunFolder(run)).places()
    m2sd_cli.forget(forgotten, run=run)
    m2sd_cli.rename(renamed, forgotten, run=run)
    early, late = (each.places() for each in load_all_sessions(RunFolder(run), RunFolder(run).summary()))
    assert (early[forgotten], early[renamed]) == (first[forgotten], first[renamed])
    assert late[forgotten] == late[renamed]


def test_a_name_that_a_class_was_forgotten_under_is_its_own_before_it_had_it(run: Path, tmp_path: Path) -> None:
    first = load_session(RunFolder(run)).places()
    m2sd_cli.forget("grey", run=run)  # which begins another part
    m2sd_cli.rename("white", "snow", run=run)
    m2sd_cli.forget("snow", run=run)
    fill(tmp_path / "shots", "purple", 3, first=50)
    (tmp_path / "shots" / "purple").rename(tmp_path / "shots" / "snow")
    m2sd_cli.increment(shots=tmp_path / "shots", run=run, device="cpu")
    early = load_all_sessions(RunFolder(run), RunFolder(run).summary())[0].places()
    assert early["snow"] == early["white"] == first["white"]


def test_a_misspelt_class_is_answered_with_the_nearest(run: Path) -> None:
    with pytest.raises(
        RunError, match=r"no class 'gery' in it \(did you mean 'grey'\?\); 'm2sd sessions --json' lists"
    ):
        m2sd_cli.forget("gery", run=run)


def test_what_cannot_be_edited_is_refused_and_nothing_changes(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    m2sd_cli.rename("grey", "slate", run=run)
    m2sd_cli.forget("white", run=run)
    before = tree(run)
    for old, new, why in (
        ("grey", "stone", "it is called 'slate' now"),
        ("white", "stone", "'white' was forgotten in session 4"),
        ("pink", "stone", "no class 'pink' in it"),
        ("slate", "slate", "has that name already"),
        ("slate", "slate ", "has that name already"),
        (
            "slate",
            "red",
            "'red' exists already, since session 0; to join them, forget 'slate', and teach its photos with --extend",
        ),
        ("slate", "Red", "differ only by case or spaces"),
    ):
        with pytest.raises(RunError, match=why):
            m2sd_cli.rename(old, new, run=run)
    for name in ("", " ", "a/b", "a\0b", "x" * 256, "\udcff"):
        with pytest.raises(UsageError, match="not the name of a class"):
            m2sd_cli.rename("slate", name, run=run)
    with pytest.raises(RunError, match="not there: 'grey'; teach these without it"):
        m2sd_cli.increment(shots=stripes.second_shots, run=run, extend=True, device="cpu")
    fill(tmp_path / "more", "purple", 1, first=400)
    with pytest.raises(UsageError, match="'purple' was taught with 1; leave --views out"):
        m2sd_cli.increment(shots=tmp_path / "more", run=run, extend=True, views=4, device="cpu")
    with pytest.raises(UsageError, match="name the folder of the shots"):
        m2sd_cli.increment(run=run, extend=True, device="cpu")
    assert tree(run) == before


def test_shots_count_the_same_whenever_they_are_taught(run: Path, tmp_path: Path) -> None:
    fill(tmp_path / "one", "orange", 2)
    fill(tmp_path / "two", "orange", 1, first=2)
    fill(tmp_path / "two", "purple", 1, first=50)
    fill(tmp_path / "three", "orange", 1, first=2)
    m2sd_cli.increment(shots=tmp_path / "one", run=run, views=3, device="cpu")
    with pytest.raises(UsageError, match="extend them one at a time"):
        m2sd_cli.increment(shots=tmp_path / "two", run=run, extend=True, device="cpu")
    assert m2sd_cli.increment(shots=tmp_path / "three", run=run, extend=True, device="cpu").manifest.views == 3
    assert len(load_file(run / "session-004.safetensors")["shot_features"]) == 3


def test_the_last_session_is_undone_and_the_class_is_back(run: Path) -> None:
    before = load_session(RunFolder(run))
    m2sd_cli.forget("purple", run=run)
    RunFolder(run).remove_sessions(first=3)
    after = load_session(RunFolder(run))
    assert after.classes == before.classes
    assert torch.equal(answers(after), answers(before))
    assert RunFolder(run).verify() == []


def test_a_changed_chain_is_reproduced(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    fill(tmp_path / "more", "purple", 2, first=400)
    m2sd_cli.increment(shots=tmp_path / "more", run=run, extend=True, device="cpu")
    m2sd_cli.rename("purple", "violet", run=run)
    m2sd_cli.forget("red", run=run)
    done = m2sd_cli.reproduce(
        run=run,
        data=stripes.folder,
        shots={1: stripes.first_shots, 2: stripes.second_shots, 3: tmp_path / "more"},
        device="cpu",
    )
    assert (done.same, len(done.stages)) == (True, 7)


def test_official_sessions_do_not_count_edits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    m2sd_cli.pretrain("demo", run=run, epochs=1, batch_size=512, images_per_class=4, device="cpu", precision="fp32")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    first = m2sd_cli.increment(run=run, device="cpu").manifest.classes
    m2sd_cli.rename(first[0].name, "other", run=run)
    stored = m2sd_cli.increment(run=run, device="cpu").manifest
    assert (stored.session, stored.classes[0].index) == (3, first[-1].index + 1)
    with pytest.raises(RunError, match="demo has no session 3 of its own"):
        m2sd_cli.increment(run=run, device="cpu")
