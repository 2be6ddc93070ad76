"""The folder for a model hub answers as the session does, without this package."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import m2sd_cli
from m2sd_cli.data.folders import read_shots
from m2sd_cli.data.images import open_rgb
from m2sd_cli.errors import ImageError, M2sdError, UsageError
from m2sd_cli.exporting import EXPORT_FORMATS, HUB_FILES, ExportFormat
from m2sd_cli.exporting.export import export_session
from m2sd_cli.exporting.hub import model as standalone
from m2sd_cli.exporting.hub.card import ChainFigures, Origin, SessionRow, code, write_card, yaml_text
from m2sd_cli.inference.session import SessionModel, load_session
from m2sd_cli.method.backbone import Features
from m2sd_cli.method.calibration import known_score
from m2sd_cli.reading import printable
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.tables import BACKBONES
from tests.helpers import Cli, OneLayer, Stripes, check_refusal, fill, tables_as_before, tree

HOSTILE = [
    "a|b",
    "`tick` ``two``",
    "<script>alert(1)</script>",
    "[x](http://evil.example)",
    "**bold** _it_",
    "# head\n\n- item",
    "\x1b[31mred",
    '"quo\\te"',
    "---",
    " ",
    "ünï: #é",
    "\u202eback",
]

ALONE = """
import json, sys
sys.modules["m2sd_cli"] = None  # importing it fails
from model import Model
from safetensors.torch import load_file, save_file
model = Model()
images = load_file(sys.argv[1])["images"]
logits, scores = model(images)
save_file({"logits": logits, "scores": scores}, sys.argv[2])
assert "PIL" not in sys.modules
print(json.dumps([answer._asdict() for answer in model.predict(images)]))
"""


@pytest.fixture(scope="module")
def folder(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the newest session of a calibrated run, with a real network."""
    return m2sd_cli.export("hub", tmp_path_factory.mktemp("hub") / "birds", run=calibrated)


@pytest.fixture
def origin(trained: Path) -> Origin:
    return Origin([stored.manifest for stored in RunFolder(trained).chain()])


def head(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_it_answers_without_this_package(folder: Path, calibrated: Path, stripes: Stripes, tmp_path: Path) -> None:
    model = load_session(RunFolder(calibrated))
    pixels, _ = next(iter(read_shots(stripes.labelled).source.batches(model.transform, 99)))
    noise = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = torch.cat([pixels, noise])
    save_file({"images": images}, tmp_path / "in")
    words = [sys.executable, "-B", "-c", ALONE, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found, answers = load_file(tmp_path / "out"), json.loads(done.stdout)
    features = model.embed(images)
    logits = model.classify(features)
    tempered, scores = model.confidence.tempered(logits), known_score(model.recognise(features, logits))
    torch.testing.assert_close(found["logits"].double(), tempered, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["scores"], scores, rtol=1e-4, atol=1e-3)
    wanted = tempered.softmax(dim=1)
    probabilities = torch.tensor([each["probabilities"] for each in answers], dtype=torch.float64)
    torch.testing.assert_close(probabilities, wanted, rtol=0, atol=1e-4)
    assert [each["label"] for each in answers] == [model.classes[index] for index in wanted.argmax(dim=1).tolist()]
    unknown = [model.confidence.is_unknown(score) for score in scores.tolist()]
    assert [each["unknown"] for each in answers] == unknown
    assert {True, False} == set(unknown)


def test_the_module_is_short_and_imports_torch_and_safetensors_alone(folder: Path) -> None:
    source = (folder / "model.py").read_text()
    assert source.count("\n") <= 150
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else node.module for node in imports for alias in node.names}
    roots = {str(name).partition(".")[0] for name in names}
    assert roots - sys.stdlib_module_names == {"torch", "safetensors"}


def test_an_image_is_answered_at_a_terminal(folder: Path, stripes: Stripes) -> None:
    image = next((stripes.labelled / "blue").iterdir())
    words = [sys.executable, "model.py", str(image)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["image"] == str(image)


def test_an_image_that_cannot_be_read_is_told_and_others_are_answered(folder: Path, stripes: Stripes) -> None:
    image = next((stripes.labelled / "blue").iterdir())
    words = [sys.executable, "model.py", "config.json", "missing.png", str(image)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == [str(image)]
    assert [line.partition(" (")[0] for line in done.stderr.splitlines()] == [
        "config.json: cannot be read",
        "missing.png: cannot be read",
    ]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_grey_of_more_than_eight_bits_is_refused(folder: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="grey of more than 8 bits; save it with 8 bits"):
        standalone.Model(folder).prepare(Image.new(mode, (20, 20)))


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (40, 23), (23, 41), (300, 7)])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_an_image_is_prepared_as_here(
    folder: Path, calibrated: Path, tmp_path: Path, squash: bool, size: tuple[int, int], kind: str
) -> None:
    alone = standalone.Model(folder)
    transform = load_session(RunFolder(calibrated)).transform
    if squash:
        transform = replace(transform, squash=True, interpolation="bicubic")
        alone.config["preprocessing"] |= {"resize_what": "both sides", "resize_how": "bicubic, antialiased"}
    noise = torch.randint(0, 256, (size[1], size[0], 3 if kind == "jpg" else 4), dtype=torch.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # it was taken upright
    path = tmp_path / f"image.{kind}"
    Image.fromarray(noise.numpy()).save(path, exif=exif)
    with Image.open(path) as image:
        assert torch.equal(alone.prepare(image), transform.pixels(open_rgb(path)))


@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_here(folder: Path, calibrated: Path, tmp_path: Path, orientation: int) -> None:
    """The EXIF block holds what Pillow cannot write again, as those of some cameras do: a text for a resolution."""
    transform, noise = load_session(RunFolder(calibrated)).transform, torch.randint(0, 256, (23, 40, 3))
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = orientation, 72.0
    block = exif.tobytes()
    assert block.count(b"\x01\x1a\x00\x05") == 1
    path = tmp_path / "image.jpg"
    damaged = block.replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02")
    Image.fromarray(noise.to(torch.uint8).numpy()).save(path, exif=damaged)
    with Image.open(path) as image:
        assert torch.equal(standalone.Model(folder).prepare(image), transform.pixels(open_rgb(path)))


def test_the_configuration_has_labels_and_threshold(folder: Path, calibrated: Path) -> None:
    model, config = load_session(RunFolder(calibrated)), json.loads((folder / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(7)] == model.classes
    assert config["label2id"] == {name: index for index, name in enumerate(model.classes)}
    assert config["unknown_below"] == model.confidence.unknown_below
    assert config["preprocessing"]["centre_crop"] == 16
    assert sorted(path.name for path in folder.iterdir()) == sorted(HUB_FILES)


def test_the_card_has_the_figures_of_evaluate(folder: Path, calibrated: Path) -> None:
    figures = m2sd_cli.evaluate(run=calibrated, device="cpu").figures
    card = (folder / "README.md").read_text()
    for each in figures.sessions:
        assert f"| {each.session} | {each.classes} | {each.images} | {each.overall:.2f} |" in card
    assert head(card)["license"] == "unknown"
    assert "model-index" not in head(card)  # a hub would show the accuracy of four classes as that of seven
    assert "Without test images, and left out of all figures: `purple`, `white`, `grey`" in card
    assert "has not stated its licence" in card


@pytest.mark.usefixtures("load_one_layer")
def test_a_card_tells_what_became_of_the_classes(run: Path, stripes: Stripes, tmp_path: Path) -> None:
    m2sd_cli.forget("purple", run=run)
    m2sd_cli.rename("grey", "slate", run=run)
    fill(tmp_path / "more", "red", 1, first=300)
    m2sd_cli.increment(shots=tmp_path / "more", run=run, extend=True, device="cpu")
    path = m2sd_cli.export("hub", tmp_path / "out", run=run, test=stripes.labelled)
    card = (path / "README.md").read_text()
    told = [line for line in card.splitlines() if line.startswith("- Session ")]
    assert told[1:] == [
        "- Session 1: 1 class, taught from 2 images a class: `white`",
        "- Session 2: 1 class, taught from 4 images a class: `slate`",
        "- Session 3: `purple` is forgotten",
        "- Session 4: `grey` is called `slate` from here on",
        "- Session 5: 1 image more of `red`",
    ]


@pytest.mark.usefixtures("load_one_layer")
def test_a_hub_gets_the_accuracy_of_all_classes_alone(run: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    for colour in ("red", "blue", "green", "yellow", "white", "purple", "grey"):
        fill(labelled, colour, 1, first=300)
    figures = m2sd_cli.evaluate(run=run, test=labelled, device="cpu").figures
    card = (m2sd_cli.export("hub", tmp_path / "out", run=run, test=labelled) / "README.md").read_text()
    assert "Without test images" not in card
    (result,) = head(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "own labelled images"
    assert result["metrics"][0]["value"] == round((figures.sessions[-1].overall or 0) / 100, 4)
    shutil.rmtree(labelled / "grey")
    less = (m2sd_cli.export("hub", tmp_path / "less", run=run, test=labelled) / "README.md").read_text()
    assert "Without test images, and left out of all figures: `grey`" in less
    assert "model-index" not in head(less)


@pytest.mark.usefixtures("load_one_layer")
def test_a_card_without_test_images_says_so(run: Path, tmp_path: Path, m2sd: Cli) -> None:
    (run / "places.json").unlink(missing_ok=True)
    before = tree(run)
    done = m2sd("export", "--format", "hub", "--out", tmp_path / "out", "--run", run, "--license", "mit")
    assert done.code == 0
    assert "the model card has no figures: this run is of the folder 'colours'" in done.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Unmeasured: no test images could be used" in card
    assert "model-index" not in head(card)
    assert head(card)["license"] == "mit"
    assert str(tmp_path) not in card
    assert tree(run) == before


@pytest.mark.usefixtures("load_one_layer")
def test_own_test_images_are_measured_with(trained: Path, stripes: Stripes, tmp_path: Path) -> None:
    path = m2sd_cli.export("hub", tmp_path / "out", run=trained, test=stripes.labelled)
    assert "on test images that its owner has labelled" in (path / "README.md").read_text()


@pytest.mark.usefixtures("load_one_layer", "small_backbone")
def test_the_card_says_whether_the_network_was_trained(folder: Path, stripes: Stripes, tmp_path: Path) -> None:
    assert "The network, resnet20, was trained on the base classes of `colours`" in (folder / "README.md").read_text()
    run = tmp_path / "run"
    m2sd_cli.pretrain(str(stripes.folder), run=run, backbone="small", init="imagenet", epochs=0, device="cpu")
    m2sd_cli.distill(run=run, epochs=0, device="cpu")
    card = (m2sd_cli.export("hub", tmp_path / "out", run=run) / "README.md").read_text()
    says = "The network, small, has the weights of its publisher, and learned without training the base classes of"
    assert says in card


def test_hostile_names_stay_names(trained: Path, origin: Origin) -> None:
    indices = list(range(len(HOSTILE)))
    model = replace(load_session(RunFolder(trained)), classes=HOSTILE, taught=[0] * len(HOSTILE), indices=indices)
    records = [origin.sessions[0].classes[0].model_copy(update={"index": index}) for index in indices]
    sessions = [
        each.model_copy(
            update={"data": each.data.model_copy(update={"name": HOSTILE[5]}), "classes": [] if number else records}
        )
        for number, each in enumerate(origin.sessions)
    ]
    rows = [SessionRow(0, 6, 10, 50.0, 50.0, None, None)]
    figures = ChainFigures(rows, 50.0, 0.0, own_images=False)
    card = write_card(model, Origin(sessions, "mit", HOSTILE[2], HOSTILE[3], figures))
    assert printable(card.replace("\n", "")) == card.replace("\n", "")
    assert head(card)["model-index"][0]["results"][0]["dataset"]["name"] == printable(HOSTILE[5])
    body = card.split("---\n", 2)[2]
    tokens = [each for block in MarkdownIt("commonmark", {"html": True}).parse(body) for each in block.children or []]
    blocks = MarkdownIt("commonmark", {"html": True}).parse(body)
    assert not [each.type for each in (*tokens, *blocks) if each.type.startswith(("html", "link", "strong", "em"))]
    quoted = [each.content for each in tokens if each.type == "code_inline"]
    for name in HOSTILE:
        assert printable(name) in quoted, name


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_read_back(text: str) -> None:
    assert yaml.safe_load(yaml_text(text)) == printable(text)
    (paragraph,) = (each for each in MarkdownIt("commonmark").parse(f"x{code(text)}x") if each.children)
    assert [each.content for each in paragraph.children or []][1] == printable(text)


def test_weights_from_elsewhere_are_named_with_their_licence(trained: Path, origin: Origin) -> None:
    imagenet = BACKBONES["efficientnet-lite0"].imagenet
    assert imagenet is not None
    assert imagenet.licence == "Apache-2.0"
    card = write_card(load_session(RunFolder(trained)), replace(origin, weights="w", weights_licence="Apache-2.0"))
    assert "began from the weights `w`, whose publisher states the licence `Apache-2.0`" in card
    card = write_card(load_session(RunFolder(trained)), replace(origin, weights="w"))
    assert "began from the weights `w`, for which no licence is on record" in card


class Odd(OneLayer):
    """A network with operations in place, on sizes and with several results."""

    def forward(self, x: Tensor) -> Features:
        """See OneLayer."""
        level = super().forward(x).maps[0].clone()
        level.mul_(2).clamp_(min=-float("inf"), max=3.0)
        left, right = torch.split(level, level.shape[1] // 2, dim=1)
        joined = (
            torch.cat([right, left], dim=1).contiguous().view(x.shape[0] * 2, -1).reshape(x.shape[0], self.width, -1)
        )
        return Features((level,) * 4, joined.mean(dim=2).to(torch.float64).float())


@pytest.mark.parametrize("batch", [1, 3])
def test_odd_operations_are_held(trained: Path, origin: Origin, tmp_path: Path, batch: int) -> None:
    model = replace(load_session(RunFolder(trained)), backbone=Odd().eval())
    export_session(model, "hub", tmp_path / "out", origin)
    images = torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8)
    logits, scores = standalone.Model(tmp_path / "out")(images)
    features = model.embed(images)
    wanted = model.classify(features)
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, known_score(model.recognise(features, wanted)), rtol=1e-4, atol=1e-4)


@torch.library.custom_op("m2sd_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """Double a tensor, as no operation of torch's own does."""
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(OneLayer):
    """A network with an operation that only this module knows."""

    def forward(self, x: Tensor) -> Features:
        """See OneLayer."""
        maps, pooled = super().forward(x)
        return Features(maps, twice(pooled))


def test_another_operation_is_refused_by_its_name(trained: Path, origin: Origin, tmp_path: Path) -> None:
    model = replace(load_session(RunFolder(trained)), backbone=Custom().eval())
    with pytest.raises(M2sdError, match=r"has the operation m2sd_tests.twice.default, which the folder cannot hold"):
        export_session(model, "hub", tmp_path / "out", origin)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch.load", "python.attrgetter", "os.system", "aten_.relu.default", "profiler.x.y"])
def test_a_network_calls_operations_alone(name: str) -> None:
    with pytest.raises(ValueError, match="is no operation"):
        standalone._function(name)


@pytest.mark.parametrize("argument", [{"torch": "load"}, {"torch": "hub"}, {"shell": "x"}])
def test_a_network_has_no_other_arguments(folder: Path, argument: Any) -> None:
    with pytest.raises(ValueError, match="is no argument"):
        standalone.Model(folder)._value(argument, {})


@pytest.mark.usefixtures("load_one_layer")
def test_a_folder_is_replaced_only_if_asked_to(trained: Path, tmp_path: Path, m2sd: Cli) -> None:
    out = tmp_path / "out"
    words = ["export", "--format", "hub", "--out", out, "--run", trained, "-q"]
    out.mkdir()
    assert m2sd(*words).code == 0
    check_refusal(m2sd(*words), 2, "it exists already, and is not empty; --force replaces it")
    (out / "README.md").write_text("mine")
    assert m2sd(*words, "--force").code == 0
    assert (out / "README.md").read_text().startswith("---\n")
    (out / "__pycache__").mkdir()  # of model.py, used there
    (out / ".DS_Store").touch()
    assert m2sd(*words, "--force").code == 0
    assert not {"__pycache__", ".DS_Store"} & {path.name for path in out.iterdir()}
    (out / ".git").mkdir()
    before = tree(tmp_path)
    check_refusal(m2sd(*words, "--force"), 2, "it holds more than such a folder does, .git; name another one")
    assert tree(tmp_path) == before


def test_the_current_folder_is_not_replaced(
    trained: Path, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    (tmp_path / "out" / "README.md").touch()
    before = tree(tmp_path)
    for name, *force in ((".", "--force"), (tmp_path / "out", "--force"), (".",)):
        done = m2sd("export", "--format", "hub", "--out", name, "--run", trained, *force)
        check_refusal(done, 2, f"--out {name}: it is the current folder; name another one")
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("load_one_layer")
def test_test_images_that_nobody_named_do_not_end_an_export(
    trained: Path, stripes: Stripes, tmp_path: Path, m2sd: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImageError(Path("photo.jpg"), "damaged image")

    monkeypatch.setattr("m2sd_cli.api.export.evaluate_session", fail)
    words = ["export", "--format", "hub", "--run", trained, "--out", tmp_path / "out"]
    check_refusal(m2sd(*words, "--test", stripes.labelled), 3, "photo.jpg: damaged image")
    done = m2sd(*words)
    assert done.code == 0, done.err
    assert "the model card has no figures: photo.jpg: damaged image" in done.err
    assert "Unmeasured: no test images could be used" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("load_one_layer")
def test_a_write_that_fails_leaves_what_was_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, m2sd: Cli
) -> None:
    words = ["export", "--format", "hub", "--out", tmp_path / "out", "--run", trained, "--force", "-q"]
    assert m2sd(*words).code == 0
    before = tree(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("rename", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{name}", fail)
            done = m2sd(*words)
        assert done.code in (1, 4)
        assert "could not be written (No space left on device)" in done.err
        assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--format hub --out FILE", "it is a file; name a folder"),
        ("--format hub --out -", "it has to be a folder"),
        ("--format hub --out ABSENT/x", "no such folder as"),
        ("--format hub --out RUN", "it exists already, and is not empty"),
        ("--format hub --out RUN --force", "it holds more than such a folder does"),
        ("--format hub --out RUN/session-009", "that is a name of the run's own files"),
        ("--format hub --out OUT --license 'my own'", "write the identifier of a licence, such as mit"),
        ("--format pt2 --out OUT --license mit", "--license and --format pt2: it is for --format hub; leave it out"),
        ("--format onnx --out OUT --test RUN", "--test and --format onnx: it is for --format hub; leave it out"),
    ],
)
def test_what_is_refused(run: Path, tmp_path: Path, words: str, says: str, m2sd: Cli) -> None:
    import shlex

    (tmp_path / "file").touch()
    places = {"FILE": "file", "ABSENT": "absent", "RUN": "run", "OUT": "out"}
    for name, place in places.items():
        words = words.replace(name, str(tmp_path / place))
    before = tree(tmp_path)
    check_refusal(m2sd("export", "--run", run, *shlex.split(words)), 2, says)
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("load_one_layer")
def test_a_format_of_ones_own_may_be_a_folder(trained: Path, tmp_path: Path, m2sd: Cli) -> None:
    def build(model: SessionModel, text: str, origin: Origin) -> dict[str, bytes]:
        return {"labels.txt": "\n".join(model.classes).encode(), "about.json": text.encode()}

    out = tmp_path / "out"
    words = ["export", "--format", "bundle", "--out", out, "--run", trained, "--license", "mit"]
    with tables_as_before():
        files = ("about.json", "labels.txt")
        EXPORT_FORMATS.register("bundle", ExportFormat(build, folder=True, files=files), build)
        done = m2sd(*words)
        assert (done.code, "README.md" in done.err) == (0, False), done.err
        assert sorted(path.name for path in out.iterdir()) == [*files]
        assert m2sd(*words, "--force").code == 0
        (out / "README.md").touch()
        check_refusal(m2sd(*words, "--force"), 2, "it holds more than such a folder does, README.md")
        words = ["export", "--format", "pt2", "--out", tmp_path / "x", "--run", trained, "--license", "mit"]
        check_refusal(m2sd(*words), 2, "it is for --format hub or bundle; leave it out")


@pytest.mark.usefixtures("load_one_layer")
def test_json_tells_the_size_of_the_folder(trained: Path, tmp_path: Path, m2sd: Cli) -> None:
    done = m2sd("export", "--format", "hub", "--out", tmp_path / "out", "--run", trained, "--json", "-q")
    wanted = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert json.loads(done.out) == {"file": str(tmp_path / "out"), "format": "hub", "bytes": wanted}


def test_an_earlier_session_knows_its_classes(
    trained: Path, tmp_path: Path, load_one_layer: Callable[..., SessionModel]
) -> None:
    path = m2sd_cli.export("hub", tmp_path / "out", run=trained, session=0)
    base = load_one_layer(RunFolder(trained), 0)
    assert standalone.Model(path).classes == base.classes
    assert "Session 1" not in (path / "README.md").read_text()


def test_it_needs_the_option_for_a_name_without_a_suffix(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one with --format: safetensors, onnx, pt2 or hub"):
        m2sd_cli.export(None, tmp_path / "out", run=trained)
