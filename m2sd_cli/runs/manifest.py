"""The content of manifests. A file that does not fit these models is refused; their JSON Schema can be printed.

Numbers and texts have bounds, far above any real one, since a manifest may come from anywhere.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from m2sd_cli.runs.checksummed import ChecksummedModel, Sha256

SCHEMA_VERSION: Final = 4  # frozen since 0.2.0: every later version reads its files, see tests/kept
SchemaVersion = Literal[4]  # files of others are refused, see `misread`

FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Text = Annotated[str, Field(max_length=1024)]  # most are names of files, of which none is longer
Name = Annotated[Text, Field(min_length=1)]
EntryName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]  # of a table to which plug-ins add
NetworkName = Annotated[  # of a table, or of another package behind a prefix
    str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,63}|[a-z0-9]+:[A-Za-z0-9][A-Za-z0-9._-]{0,99})$", max_length=128)
]
Longer = Annotated[str, Field(max_length=8192)]  # a path below a folder, and a sentence that may have one in it
Count = Annotated[int, Field(ge=0, le=10**9)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Setting = bool | Whole | float | Text | None  # of a configuration
Share = Annotated[float, Field(ge=-1000, le=1000)]  # the mean that is subtracted from values of 0 to 1
Deviation = Annotated[float, Field(ge=0.001, le=1000)]
Percent = Annotated[float, Field(ge=0, le=100)]
Precision = Literal["fp32", "bf16"]
Kind = Literal["pretrain", "base", "increment", "extend", "rename", "forget"]
EDITS: Final = ("rename", "forget")
WITH_SHOTS: Final = ("increment", "extend")
ViewCount = Annotated[int, Field(ge=1, le=18)]
Views = Annotated[ViewCount, Field(description="of each shot, whose features the checkpoint holds")]


class Record(BaseModel):
    """A frozen model that refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileRecord(Record):
    """A file beside the manifest, and the SHA-256 of its content."""

    file: FileName
    sha256: Sha256


class ClassRecord(Record):
    """A class that this session taught."""

    index: Count
    name: Name
    shots: Annotated[Count, Field(ge=1, description="number of images")]
    digest: Annotated[Sha256, Field(description="SHA-256 over the SHA-256s of its images, in order")]
    shot_sha256: Annotated[list[Sha256], Field(description="of every shot; empty in the base session")] = []


class EditRecord(Record):
    """A class that this session renames or forgets; its index stays its own."""

    index: Count
    name: Annotated[Name, Field(description="until now")]
    new_name: Annotated[Name | None, Field(description="from now on; none if it is forgotten")] = None


class ProtocolRecord(Record):
    """Another division of a built-in data set than the official one; of a simulated one, that of the original."""

    base_classes: Annotated[Count, Field(ge=1)]
    way: Annotated[Count, Field(ge=1, description="classes of a session; the last one has those that are left")]
    shots_per_class: Annotated[Count, Field(ge=1)]
    class_order: Annotated[
        Annotated[int, Field(ge=0, lt=2**32)] | list[Name] | None, Field(description="seed of a permutation, or names")
    ] = None
    shots_draw: Annotated[Count | None, Field(description="None for the official shots")] = None


class SplitRecord(Record):
    """The list that divides a folder, each image by its path below it."""

    base: list[Longer]
    sessions: list[list[Longer]] = []
    test: list[Longer] = []


class DataRecord(Record):
    """The origin of images; never a path."""

    name: Text
    kind: Literal["built-in", "folder"]
    split: Annotated[Text, Field(description="how base, sessions and test images were told apart")]
    protocol: ProtocolRecord | None = None


class BackboneRecord(Record):
    """The frozen network, and how features become logits."""

    name: NetworkName
    width: Annotated[int, Field(ge=1, le=65536, description="length of the pooled feature")]
    similarity: Annotated[Literal["cosine", "linear"], Field(description="of the pooled feature and class weights")]
    scale: Annotated[float, Field(gt=0)]
    levels: Annotated[
        int, Field(ge=1, le=4, description="the last maps whose means are the feature that sessions compare")
    ] = 1


class TransformRecord(Record):
    """The test transform in full."""

    resize: Annotated[int, Field(ge=1, le=8192, description="pixels of the short side, or of both sides if squash")]
    crop: Annotated[int, Field(ge=1, le=4096, description="side of the centre crop, in pixels")]
    mean: tuple[Share, Share, Share]
    std: tuple[Deviation, Deviation, Deviation]
    squash: bool
    views: Annotated[ViewCount, Field(description="of an image, whose mean feature is the image's")] = 1
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class WeightsRecord(Record):
    """The weights that a network begins from, and the preparation of the images that they were trained on."""

    name: Annotated[Text, Field(description="of a file, without its folder, or as its publisher names the weights")]
    sha256: Annotated[Sha256 | None, Field(description="of the file")] = None
    licence: Annotated[Text | None, Field(description="as the publisher states it")] = None
    tag: Annotated[Text | None, Field(description="that tells weights of one network apart")] = None
    image_size: Annotated[int, Field(ge=1, le=4096, description="pixels")]
    crop: Annotated[float, Field(gt=0, le=2, description="share of the resized side that the network sees")]
    mean: tuple[Share, Share, Share]
    std: tuple[Deviation, Deviation, Deviation]
    squash: bool
    interpolation: Literal["bilinear", "bicubic"]


class SkippedRecord(Record):
    """An image that could not be read and was left out, as --skip-bad asks."""

    file: Annotated[Longer, Field(min_length=1, description="below the folder of images; never a whole path")]
    reason: Longer


class MachineRecord(Record):
    """A machine that a training ran on, and from which step on: rounding depends on all of it."""

    from_step: Annotated[Count, Field(description="optimiser steps that were done before")]
    device: Text
    cpu: Annotated[Text, Field(description="model of the CPU")]
    threads: Annotated[int | None, Field(ge=1, le=65536, description="of torch on a CPU")] = None
    processes: Annotated[int, Field(ge=1, le=65536, description="of torchrun")] = 1
    versions: dict[Text, Text]


class EpochRecord(Record):
    """One epoch of training, as it was seen during it."""

    epoch: Count
    loss: float
    terms: dict[Text, float]
    accuracy: Annotated[float | None, Field(description="share of clean training images, in stage 1")] = None
    learning_rate: float


OptionsTables = dict[Name, dict[Text, Setting]]  # by stage


class FiguresRecord(Record):
    """Accuracies of a classifier where base classes played new ones, means over parts and draws."""

    average: Percent
    last: Percent
    base: Percent
    novel: Percent
    harmonic: Percent


class ChoiceRecord(Record):
    """The comparison by which a base session chose its classifier; no test image had a say."""

    parts: Annotated[Count, Field(description="of the classes, which played the new ones in turn")]
    draws: Annotated[Count, Field(description="of the shots, in each part")]
    shots: Annotated[Count, Field(description="of each new class")]
    figures: dict[EntryName, FiguresRecord] = {}
    reason: Annotated[Text | None, Field(description="why nothing was compared, and the default taken")] = None


class NetworksRecord(Record):
    """One figure of two networks: the published one as it is, and the same fine-tuned."""

    frozen: Percent
    tuned: Percent


class TuningRecord(Record):
    """The decision between a published network as it is and the same fine-tuned; no test image had a say.

    The networks of the trial had not seen the classes left out. A missing figure was not needed.
    """

    minutes: Annotated[float, Field(gt=0, description="that were allowed")]
    tuned: Annotated[bool, Field(description="the fine-tuned network was kept")] = False
    pretrain_epochs: Count = 0
    distill_epochs: Count = 0
    left_out: Annotated[Count, Field(description="base classes that played new ones in the trial")] = 0
    trial_base: Annotated[NetworksRecord | None, Field(description="accuracy on images of the other classes")] = None
    trial_harmonic: Annotated[NetworksRecord | None, Field(description="HM after those left out were taught")] = None
    held_out: Annotated[NetworksRecord | None, Field(description="accuracy on held-out images of all classes")] = None
    reason: Annotated[Text | None, Field(description="why there was no comparison")] = None


class Manifest(Record):
    """One stage or session of a run.

    A session `increment` teaches new classes, `extend` more shots of classes that are there. `rename` and `forget` have
    edits instead of classes, and an empty checkpoint.
    """

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Kind
    session: Count | None = None
    parent: FileRecord | None = None
    checkpoint: FileRecord
    classes_before: Annotated[Count, Field(description="class indices of all earlier sessions")] = 0
    classes: Annotated[list[ClassRecord], Field(description="that this session teaches, or has more shots of")]
    edits: Annotated[list[EditRecord], Field(description="of names; of a session that renames or forgets")] = []
    data: DataRecord
    backbone: BackboneRecord
    transform: TransformRecord
    weights: Annotated[
        WeightsRecord | None, Field(description="that stage 1 began from, where their origin is known")
    ] = None
    init_sha256: Annotated[Sha256 | None, Field(description="of the file that stage 1 began from")] = None
    config: dict[Text, Setting]
    classifier: Annotated[EntryName | None, Field(description="of stage 3, from this session on; none in stage 1")] = (
        None
    )
    choice: Annotated[ChoiceRecord | None, Field(description="of the classifier; None if it was not compared")] = None
    tuning: Annotated[TuningRecord | None, Field(description="of session 0 of learn --minutes")] = None
    known_score: Annotated[
        Literal["logit", "distance", "centred", "centred-length"],
        Field(description="of the likeness to the classes known, in the base session; see method/familiarity.py"),
    ] = "logit"
    base_cost: Annotated[
        Percent | None,
        Field(description="of debiased, in the base session: points that a new class may cost; None: a fixed margin"),
    ] = None
    views: Views | None = None
    seed: Whole
    versions: dict[Text, Text]
    device: Text
    precision: Precision
    seconds: Annotated[float, Field(ge=0, description="wall time")]
    created: Annotated[Text, Field(description="UTC, ISO 8601")]
    history: list[EpochRecord] = []
    skipped: Annotated[list[SkippedRecord], Field(description="images left out since they cannot be read")] = []
    files: Annotated[
        dict[Longer, Sha256 | None],
        Field(description="of stage 1 of a folder: its images below it, to train on with SHA-256, to test on without"),
    ] = {}
    split: Annotated[SplitRecord | None, Field(description="of stage 1 of a folder that --split divides")] = None
    threads: Annotated[int | None, Field(ge=1, le=65536, description="of torch on a CPU; rounding depends on them")] = (
        None
    )
    machines: Annotated[
        list[MachineRecord],
        Field(description="that a training ran on, one after another; none where it was not recorded, or none trained"),
    ] = []
    compiled: Annotated[bool, Field(description="by torch.compile; rounding depends on it")] = False
    deterministic: Annotated[bool, Field(description="only algorithms that repeat exactly, on CUDA too")] = False
    recipe: Annotated[Name | None, Field(description="that the options came from, as far as none was given")] = None
    options_file: Annotated[
        OptionsTables, Field(description="the tables of --config, which stage 2 follows; of stage 1 alone")
    ] = {}
    plugins: Annotated[
        dict[Name, Text], Field(description="package and version that each name comes from, unless m2sd ships it")
    ] = {}

    @model_validator(mode="after")
    def _is_consistent(self) -> "Manifest":
        _require_consistent(self)
        if (self.classifier is None) != (self.kind == "pretrain"):
            raise ValueError("a classifier is named by every session")
        return self

    @property
    def classes_so_far(self) -> int:
        """The number of class indices up to and including this session; a forgotten class keeps its own."""
        return count_indices(self)


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class of a summary."""

    index: Count
    name: Name
    shots: Count
    shot_sha256: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of a summary."""

    index: Count
    name: Name
    new_name: Name | None = None


class ManifestSummary(BaseModel):
    """The part of a manifest that ties it to its neighbours and its checkpoint; a whole one takes longer to read.

    It is for manifests whose SHA-256 is known: their other parts are not looked at.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Kind
    session: Count | None = None
    parent: FileRecord | None = None
    checkpoint: FileRecord
    classes_before: Count = 0
    classes: list[ClassName]
    edits: list[Edit] = []
    views: Views | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "ManifestSummary":
        _require_consistent(self)
        return self

    @property
    def classes_so_far(self) -> int:
        """The number of class indices up to and including this session; a forgotten class keeps its own."""
        return count_indices(self)


def _require_consistent(part: Manifest | ManifestSummary) -> None:
    """Check that kind, number, classes and edits of a manifest fit each other.

    Raises:
        ValueError: they do not.
    """
    edits = part.kind in EDITS
    if (not part.classes) != edits or bool(part.edits) != edits:
        raise ValueError("classes are named by a session that teaches, and edits by one that does not")
    indices = [each.index for each in (part.edits or part.classes)]
    if edits or part.kind == "extend":
        if len(set(indices)) < len(indices) or max(indices) >= part.classes_before:
            raise ValueError("a class is named twice, or is of no earlier session")
    elif indices != list(range(part.classes_before, part.classes_so_far)):
        raise ValueError("class indices do not follow those of the earlier sessions")
    if any((each.new_name is None) != (part.kind == "forget") for each in part.edits):
        raise ValueError("a class has a new name where it is renamed, and none where it is forgotten")
    if (part.session is None) != (part.kind == "pretrain") or (part.session == 0) != (part.kind == "base"):
        raise ValueError("kind and session number do not fit each other")
    if (part.parent is None) != (part.kind == "pretrain"):
        raise ValueError("every manifest but the first names its parent")
    if (part.views is None) != (part.kind not in WITH_SHOTS):
        raise ValueError("views are named by every session with shots")


def count_indices(part: Manifest | ManifestSummary) -> int:
    """Count the class indices up to and including a session."""
    return part.classes_before + (len(part.classes) if part.kind != "extend" else 0)


class NewestPointer(ChecksummedModel):
    """The newest manifest of a chain; nothing counts as part of the chain before this file names it."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    manifest: FileRecord


class TrainingState(ChecksummedModel):
    """The progress of an unfinished training; it lies in training/ and changes as the training goes on."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    stage: Literal["pretrain", "distill"]
    parent: Sha256 | None  # of the manifest of stage 1, in stage 2
    data: DataRecord
    data_digest: Sha256
    tensors: FileRecord
    step: Annotated[int, Field(ge=0, lt=2**63, description="optimiser steps done")]
    seconds: Annotated[float, Field(ge=0)]
    precision: Precision
    compiled: bool = False
    deterministic: bool = False
    recipe: Name | None = None
    options_file: OptionsTables = Field(default={}, description="the tables of --config, of stage 1")
    weights: WeightsRecord | None = None
    init_sha256: Sha256 | None = None
    split: SplitRecord | None = None
    config: dict[Text, Setting]
    sums: Annotated[dict[Text, float], Field(description="of the epoch under way")]
    history: list[EpochRecord]
    skipped: list[SkippedRecord] = Field(default=[], description="images left out since they cannot be read")
    plugins: dict[Name, Text] = Field(default={}, description="package and version, or file, that each name comes from")
    classes: list[ClassRecord] = Field(default=[], description="the base classes with their images, for messages")
    machines: list[MachineRecord] = Field(default=[], description="that it ran on, one after another")
    head: Annotated[Sha256 | None, Field(description="in head.json when it began, if there was one")] = None


class TuningState(ChecksummedModel):
    """The progress of an unfinished `learn --minutes`."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    frozen: Annotated[Sha256, Field(description="of the manifest of session 0 of the network as it was published")]
    record: TuningRecord
