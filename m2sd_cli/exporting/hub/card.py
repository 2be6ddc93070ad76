"""Model card of a session: Markdown below a head of YAML; names in it are any texts, since folders may have any."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from m2sd_cli.inference.session import SessionModel
from m2sd_cli.reading import counted, printable
from m2sd_cli.runs.manifest import EditRecord, Manifest

UNSTATED = "unknown"  # the hubs' word for a licence that nobody has stated


@dataclass(frozen=True)
class SessionRow:
    """Accuracies after a session, top-1 in per cent; None where there was no image to count."""

    session: int
    classes: int  # so far
    images: int  # test images of those classes
    overall: float | None
    base: float | None
    novel: float | None
    harmonic: float | None


@dataclass(frozen=True)
class ChainFigures:
    """Figures of a chain on test images."""

    rows: Sequence[SessionRow]
    average: float | None
    drop: float | None
    own_images: bool  # True if a person labelled the images, False if they are the data set's
    untested: Sequence[str] = ()  # classes without a test image


@dataclass(frozen=True)
class Origin:
    """Facts of a run beside its network."""

    sessions: Sequence[Manifest]  # 0, 1, ..., up to the exported one
    licence: str = UNSTATED  # the identifier that the owner of the exported files states
    weights: str | None = None  # the name of the weights that stage 1 began from
    weights_licence: str | None = None  # as their publisher states it
    figures: ChainFigures | None = None  # None if no test images could be used
    trained: bool = True  # False if the network has those weights as they were


def code(text: str) -> str:
    """Quote a text in Markdown as a span of code, in which nothing is markup, a tag or a link."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    # Markdown removes one space at each end of a span, unless the span has spaces alone.
    room = " " if shown.strip(" ") and (shown[0] + shown[-1]).strip("` ") != shown[0] + shown[-1] else ""
    return f"{fence}{room}{shown}{room}{fence}"


def yaml_text(text: str) -> str:
    """Quote a text in YAML, in ASCII."""
    escaped = (char if " " <= char <= "~" and char not in '"\\' else f"\\U{ord(char):08x}" for char in printable(text))
    return f'"{"".join(escaped)}"'


def write_card(model: SessionModel, origin: Origin) -> str:
    """Write the text of README.md."""
    data = origin.sessions[0].data.name
    begun = "random weights" if origin.weights is None else "the weights of its publisher"
    beginning = "was trained on" if origin.trained else f"has {begun}, and learned without training"
    parts = [
        _head(model, origin, data),
        f"# Image classifier of {counted(len(model.classes), 'class')}\n\n"
        f"The network, {model.record.name}, {beginning} the base classes of {code(data)}. Later classes are taught "
        f"from a few images each, session by session, and it stays as it is (few-shot class-incremental learning, "
        f"classifier `{model.classifier}`). This folder is session {model.session}. It was written by m2sd.",
        _use(model),
        _figures(model, origin),
        _classes(model, origin),
        _licences(origin),
        _limits(model),
    ]
    return "\n\n".join(parts) + "\n"


def _head(model: SessionModel, origin: Origin, data: str) -> str:
    lines = [
        "---",
        f"license: {origin.licence}",
        "library_name: m2sd",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("image-classification", "few-shot", "class-incremental", "safetensors")),
        f"- {yaml_text(model.record.name)}",
    ]
    figures = origin.figures
    # A hub shows the accuracy alone, which has to be that of all classes.
    if figures is not None and figures.rows[-1].overall is not None and not figures.untested:
        lines += [
            "model-index:",
            f"- name: {yaml_text(f'session {model.session}')}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {yaml_text('own labelled images' if figures.own_images else data)}",
            f"      type: {yaml_text('own labelled images' if figures.own_images else data)}",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {figures.rows[-1].overall / 100:.4f}",
        ]
    return "\n".join([*lines, "---"])


def _use(model: SessionModel) -> str:
    side = model.transform.crop
    return f"""## How to use

`model.py` needs torch and safetensors, and Pillow to open images. In this folder:

```python
from PIL import Image
from model import Model

model = Model()
(answer,) = model.predict(model.prepare(Image.open("image.jpg"))[None])
print("unknown" if answer.unknown else answer.label, answer.probability)
```

`python model.py image.jpg` prints the same as JSON. `Model()(images)` maps images (N, 3, {side}, {side}) uint8 to
logits and scores. `network.json` names the operations of torch that use `model.safetensors`, and `config.json` has the
labels, the pre-processing and the threshold of "unknown". No file is a pickle, and none but `model.py` holds code."""


def _figures(model: SessionModel, origin: Origin) -> str:
    lines = ["## Figures", ""]
    if origin.figures is None:
        lines.append("Unmeasured: no test images could be used when this folder was written.")
    else:
        whose = (
            "that its owner has labelled" if origin.figures.own_images else f"of {code(origin.sessions[0].data.name)}"
        )
        lines += [
            f"Top-1 accuracy in per cent on test images {whose}, of the classes taught so far. Base and novel are "
            "means over classes, HM is their harmonic mean. AVG is the mean of overall over session 0 and the sessions "
            "that teach new classes, PD what overall has lost.",
            "",
            "| session | classes | images | overall | base | novel | HM |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in origin.figures.rows:
            accuracies = (row.overall, row.base, row.novel, row.harmonic)
            lines.append(f"| {row.session} | {row.classes} | {row.images} | {' | '.join(map(_figure, accuracies))} |")
        lines += ["", f"AVG {_figure(origin.figures.average)}, PD {_figure(origin.figures.drop)}"]
        if origin.figures.untested:
            names = ", ".join(map(code, origin.figures.untested))
            lines += ["", f"Without test images, and left out of all figures: {names}"]
    choice = origin.sessions[0].choice
    if choice is not None and model.classifier in choice.figures:
        rehearsed = choice.figures[model.classifier]
        lines += [
            "",
            f"Without any test image, base classes that played new ones ({choice.shots} shots, {choice.draws} draws) "
            f"came to AVG {rehearsed.average:.1f}, base {rehearsed.base:.1f}, novel {rehearsed.novel:.1f}, "
            f"HM {rehearsed.harmonic:.1f}.",
        ]
    return "\n".join(lines)


def _classes(model: SessionModel, origin: Origin) -> str:
    lines = ["## Classes", ""]
    left = dict(zip(model.indices, model.classes, strict=True))
    for number, manifest in enumerate(origin.sessions):
        taught = [each for each in manifest.classes if each.index in left]
        names = ", ".join(code(left[each.index]) for each in taught)
        images = sorted({each.shots for each in taught})
        if manifest.edits:
            told = "; ".join(map(_edited, manifest.edits))
        elif not taught:
            told = "no class that is left"
        elif manifest.kind == "extend":
            told = "; ".join(f"{counted(each.shots, 'image')} more of {code(left[each.index])}" for each in taught)
        else:
            each = counted(images[0], "image") if len(images) == 1 else f"{images[0]} to {images[-1]} images"
            told = f"{counted(len(taught), 'class')}, taught from {each} a class: {names}"
        lines.append(f"- Session {number}: {told}")
    return "\n".join(lines)


def _edited(edit: EditRecord) -> str:
    if edit.new_name is None:
        return f"{code(edit.name)} is forgotten"
    return f"{code(edit.name)} is called {code(edit.new_name)} from here on"


def _licences(origin: Origin) -> str:
    stated = (
        "The owner of this model has not stated its licence."
        if origin.licence == UNSTATED
        else f"The owner of this model states the licence {code(origin.licence)}."
    )
    if origin.weights is None:
        return f"## Licence\n\n{stated}"
    theirs = (
        f"whose publisher states the licence {code(origin.weights_licence)}"
        if origin.weights_licence
        else "for which no licence is on record"
    )
    return f"## Licence\n\n{stated} The network began from the weights {code(origin.weights)}, {theirs}."


def _limits(model: SessionModel) -> str:
    lines = [
        "## Limits",
        "",
        f"- It answers with one of the {counted(len(model.classes), 'class')} above; images of anything else "
        "are at best told to be unknown.",
        "- Classes that were taught later, from a few images, are recognised less surely than base classes.",
        f"- Images are reduced to {model.transform.crop} x {model.transform.crop} pixels: smaller things are not seen.",
    ]
    confidence = model.confidence
    if not confidence.calibrated:
        lines.append(
            '- No images were held out: probabilities are not calibrated, and nothing is told to be "unknown".'
        )
    elif confidence.told is not None:
        lines.append(
            "- Probabilities are calibrated on held-out images of base classes, of which 95 % count as known. Images "
            "of a base class that is left out of the model score lower than images of a known one in "
            f"{confidence.told:.0f} % of pairs, where chance is 50."
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
