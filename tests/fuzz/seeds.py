"""Seeds that are made by today's code, and so hold today's schema: good ones and bad ones, under their names."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import safetensors.torch
import torch

from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.base_statistics import BaseSums
from m2sd_cli.runs.checksummed import BLANK, SEAL, ChecksummedModel
from m2sd_cli.runs.files import encode_tensors
from m2sd_cli.runs.manifest import (
    BackboneRecord,
    ClassRecord,
    DataRecord,
    EpochRecord,
    FileRecord,
    Manifest,
    NewestPointer,
    SkippedRecord,
    TrainingState,
    TransformRecord,
)

Seeds = dict[str, bytes]

ZEROS = "0" * 64
BASE_CLASSES = 3
SMALL = {"class_means": torch.ones(2, 3), "steps": torch.tensor(7)}
HISTORY = [EpochRecord(epoch=1, loss=1.5, terms={"ce": 0.5}, learning_rate=0.1)]
BACKBONE = BackboneRecord(name="resnet20", width=64, similarity="cosine", scale=16.0)
TRANSFORM = TransformRecord(resize=18, crop=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), squash=False)


def sha256(content: bytes) -> str:
    """Hash some bytes."""
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes) -> bytes:
    """Give a file that holds its own hash the right one, as whoever means harm would; other files stay as they are."""
    if not content.startswith(SEAL):
        return content
    before, after = content[: len(SEAL)], content[len(SEAL) + len(BLANK) :]
    return before + sha256(before + BLANK + after).encode() + after


def classes(first: int, names: Iterable[str], list_shots: bool = False) -> list[ClassRecord]:
    """Make records of classes of two shots."""
    shots = [sha256(b"one"), sha256(b"two")] if list_shots else []
    return [
        ClassRecord(index=index, name=name, shots=2, digest=sha256(name.encode()), shot_sha256=shots)
        for index, name in enumerate(names, start=first)
    ]


def checkpoint() -> bytes:
    """Make the checkpoint of a base session; the same bytes every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone, features = build_backbone("resnet20"), torch.rand(2 * BASE_CLASSES, 64)
    labels = torch.arange(BASE_CLASSES).repeat(2)
    sums = BaseSums(torch.bincount(labels), 64, projection=torch.eye(64))
    sums.add(features, labels)
    return encode_tensors(BaseCheckpoint(backbone, sums.means.means(), sums.statistics()).tensors())


def base_session() -> Manifest:
    """Make the manifest of the session of `checkpoint`."""
    return Manifest(
        kind="base",
        session=0,
        parent=FileRecord(file="pretrain.json", sha256=ZEROS),
        checkpoint=FileRecord(file="session-000.safetensors", sha256=sha256(checkpoint())),
        classes=classes(0, ["blue", "green", "red"]),
        data=DataRecord(name="birds", kind="folder", split="none"),
        backbone=BACKBONE,
        transform=TRANSFORM,
        config={"epochs": 1, "learning_rate": 0.1, "classifier": None},
        classifier="means",
        seed=0,
        versions={"m2sd": "0", "torch": "0"},
        device="cpu",
        precision="fp32",
        seconds=0.5,
        created="2026-11-24T21:21:32+00:00",
    )


def increment() -> Manifest:
    """Make a manifest in which no field has its default."""
    return Manifest(
        kind="increment",
        session=1,
        parent=FileRecord(file="session-000.json", sha256=ZEROS),
        checkpoint=FileRecord(file="session-001.safetensors", sha256=ZEROS),
        classes_before=BASE_CLASSES,
        classes=classes(BASE_CLASSES, ["na\u00efve \u6f22\u202e\x1b", "white"], list_shots=True),
        data=DataRecord(name="first", kind="folder", split="all images are shots"),
        backbone=BACKBONE,
        transform=TRANSFORM.model_copy(update={"views": 2}),
        config={"epochs": 1, "learning_rate": 0.1, "init": None, "flip": True, "backbone": "resnet20"},
        classifier="another",
        views=2,
        seed=1,
        versions={"m2sd": "0", "python": "3", "torch": "0"},
        device="cpu",
        precision="bf16",
        seconds=0.022,
        created="2026-11-24T21:21:32+00:00",
        history=HISTORY,
        skipped=[SkippedRecord(file="a/b c\n.jpg", reason="damaged image")],
        threads=2,
        compiled=True,
        deterministic=True,
        recipe="cifar100",
        plugins={"another": "package 1.0"},
    )


def as_json(content: Mapping[str, Any], **changes: object) -> bytes:
    """Write a manifest with some fields changed."""
    return json.dumps({**content, **changes}, indent=1, ensure_ascii=False).encode()


def manifest_seeds() -> Seeds:
    """Make manifests of an incremental session."""
    manifest = increment()
    content = manifest.model_dump(mode="json")
    good = manifest.model_dump_json(indent=1).encode()
    return {
        "good": good,
        "good twice": good.replace(b'"seed": 1,', b'"seed": 1, "seed": 2,'),
        "bad empty": b"",
        "bad cut": good[:405],
        "bad deep": 5000 * b"[",
        "bad utf8": b"\xff" + good,
        "bad surrogate": good.replace("na\u00efve".encode(), rb"\ud800"),
        "bad version": as_json(content, schema_version=2),
        "bad no classes": as_json(content, classes=[]),
        "bad path": as_json(content, checkpoint={"file": "../x", "sha256": ZEROS}),
        "bad session": good.replace(b'"session": 1,', b'"session": 1' + 400 * b"0" + b","),
        "bad setting": as_json(content, config={"a": [1]}),
        "bad seconds": as_json(content, seconds=float("nan")),
        "bad deviation": as_json(content, transform={**content["transform"], "std": [0, 1, 1]}),
        "bad classifier": as_json(content, classifier="no/name"),
        "bad views": as_json(content, views=None),
    }


def run_seeds() -> Seeds:
    """Make manifests of the base session whose checkpoint is `checkpoint`."""
    manifest = base_session()
    content = manifest.model_dump(mode="json")
    backbone, known = content["backbone"], content["classes"]
    later = [each | {"index": each["index"] + 1} for each in known]
    return {
        "good": manifest.model_dump_json(indent=1).encode(),
        "bad class more": as_json(content, classes=[*known, known[0] | {"index": BASE_CLASSES}]),
        "bad classes before": as_json(content, classes_before=1, classes=later),
        "bad name": as_json(content, backbone=backbone | {"name": "resnet18"}),
        "bad unknown": as_json(content, backbone=backbone | {"name": 64 * "x"}),
        "bad plug-in": as_json(content, classifier="another", plugins={"another": 1024 * "p"}),
        "bad width": as_json(content, backbone=backbone | {"width": 65536}),
        "bad scale": as_json(content, backbone=backbone | {"scale": float("inf")}),
        "bad parent": as_json(content, parent={"file": "session-000.json", "sha256": ZEROS}),
    }


def checksummed_seeds(models: Mapping[str, ChecksummedModel], bad: Mapping[str, tuple[bytes, bytes]]) -> Seeds:
    """Make files that hold their own hash.

    Args:
        models: the good ones.
        bad: replacements in the first good one, after which it is given the right hash.
    """
    seeds = {name: model.encoded() for name, model in models.items()}
    first = next(iter(seeds.values()))
    for name, (old, new) in bad.items():
        assert old in first, name
        seeds[name] = sealed(first.replace(old, new, 1))
    at = len(SEAL)
    other = b"1" if first[at : at + 1] == b"0" else b"0"
    return seeds | {
        "bad empty": b"",
        "bad seal": first[:at] + other + first[at + 1 :],
        "bad no seal": b"{\n " + first[first.index(b'"schema_version"') :],
        "bad version": sealed(first.replace(b'"schema_version": 4', b'"schema_version": 2')),
    }


def state_seeds() -> Seeds:
    """Make states of a training under way."""
    state = TrainingState(
        stage="distill",
        parent=ZEROS,
        data=DataRecord(name="birds", kind="folder", split="none"),
        data_digest=ZEROS,
        tensors=FileRecord(file="step-000000001.safetensors", sha256=ZEROS),
        step=1,
        seconds=1.5,
        precision="fp32",
        config={"epochs": 3, "seed": 0, "init": None},
        sums={"loss": 1.0, "ce": 0.5},
        history=HISTORY,
        skipped=[SkippedRecord(file="a.jpg", reason="damaged image")],
        head=ZEROS,
    )
    begun = state.model_copy(update={"stage": "pretrain", "parent": None, "sums": {}, "history": [], "head": None})
    bad = {
        "bad file": (b'"step-000000001.safetensors"', b'"/etc/passwd"'),
        "bad precision": (b'"fp32"', b'"fp8"'),
        "bad step": (b'"step": 1', b'"step": 9223372036854775808'),
        "bad sums": (b'"loss": 1.0', b'"loss": Infinity'),
        "bad deep": (b'"init": null', b'"init": ' + 3000 * b'{"config":'),
    }
    return checksummed_seeds({"good": state, "good pretrain": begun}, bad)


def head_seeds() -> Seeds:
    """Make files that name the newest manifest."""
    session, stage_1 = (
        NewestPointer(manifest=FileRecord(file=file, sha256=ZEROS)) for file in ("session-012.json", "pretrain.json")
    )
    bad = {"bad file": (b"session-012", b"session-9999999")}
    return checksummed_seeds({"good": session, "good pretrain": stage_1}, bad)


def tensor_seeds() -> Seeds:
    """Make files of the tensors SMALL; the corpus holds those that no library would write."""
    good = safetensors.torch.save(SMALL)
    return {
        "good": good,
        "good metadata": safetensors.torch.save(SMALL, {"a": "b"}),
        "bad cut": good[:-3],
        "bad more": safetensors.torch.save({**SMALL, "x": torch.ones(1)}),
        "bad nan": safetensors.torch.save({**SMALL, "class_means": torch.full((2, 3), torch.nan)}),
    }
