"""A session as one file, or as a folder of files."""

import io
import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import torch

from m2sd_cli.checkpoints import network_tensors
from m2sd_cli.errors import M2sdError, UsageError
from m2sd_cli.exporting import EXPORT_FORMATS
from m2sd_cli.exporting.deployed import Deployed, description
from m2sd_cli.exporting.hub.card import Origin
from m2sd_cli.extras import install_extra
from m2sd_cli.inference.session import SessionModel
from m2sd_cli.method.heads import Head
from m2sd_cli.output_files import write_output, write_output_folder
from m2sd_cli.reading import quoted
from m2sd_cli.registry import load

HEAD_PREFIX = "head."
FAMILIARITY_PREFIX = "familiarity."
METADATA = "m2sd"  # the key under which each format carries the description, as JSON


def export_session(model: SessionModel, form: str, out: Path, origin: Origin | None = None) -> None:
    """Write a session, whole or not at all.

    Args:
        model: the session.
        form: a name in EXPORT_FORMATS. `safetensors` holds backbone, class means and head; `onnx`, `pt2`
            and the folder `hub` hold the network `Deployed`, for any batch. All carry the class names and the
            pre-processing.
        out: the file or folder.
        origin: the facts for the model card of a folder.

    Raises:
        UsageError: the format is unknown, or cannot hold the classifier.
        M2sdError: a package that the format needs is not installed, or the file cannot be written.
    """
    entry = EXPORT_FORMATS[form]
    if entry.extra is not None and any(find_spec(module) is None for module in entry.modules):
        raise M2sdError(f"--format {form} needs more packages: {install_extra(entry.extra)}")
    if entry.tensors_only and not isinstance(model.head, Head):
        raise UsageError(
            f"--format {form}: the classifier {model.classifier} is a program, and no rows of numbers; choose onnx or "
            f"pt2"
        )
    text, build = json.dumps(description(model), ensure_ascii=False), load(entry.builder)
    if entry.folder:
        write_output_folder(out, build(model, text, origin))
    else:
        write_output(out, build(model, text))


def to_safetensors(model: SessionModel, text: str) -> bytes:
    """Encode backbone, class means, head, and familiarity unless the logits are the likeness."""
    head = {HEAD_PREFIX + name: tensor for name, tensor in model.head.state_dict().items()}
    if model.familiarity is not None:
        head |= {FAMILIARITY_PREFIX + name: tensor for name, tensor in model.familiarity.state_dict().items()}
    tensors = {**network_tensors(model.backbone, model.means), **head}
    return safetensors.torch.save({name: each.cpu().contiguous() for name, each in tensors.items()}, {METADATA: text})


def _example(model: SessionModel) -> torch.Tensor:
    # Two images, since torch.export takes a batch of one for a constant.
    return torch.zeros(2, 3, model.transform.crop, model.transform.crop, dtype=torch.uint8)


def export_program(model: SessionModel) -> torch.export.ExportedProgram:
    """Export the network `Deployed` as a program of torch.export, for any batch of images.

    Raises:
        M2sdError: torch cannot export a classifier that is no Head.
    """
    shapes = {"images": {0: torch.export.Dim.DYNAMIC}}
    with torch.no_grad():
        try:
            return torch.export.export(Deployed(model).eval(), (_example(model),), dynamic_shapes=shapes)
        except Exception as error:  # a classifier of another package may compute anything
            if isinstance(model.head, Head):
                raise
            reason = str(error).strip().split("\n")[0]
            raise M2sdError(
                f"torch cannot export the classifier {model.classifier}: {quoted(reason)}; choose another --classifier"
            ) from None


def to_pt2(model: SessionModel, text: str) -> bytes:
    """Encode the network as a program of torch.export."""
    buffer = io.BytesIO()
    torch.export.save(export_program(model), buffer, extra_files={METADATA: text})
    return buffer.getvalue()


def to_onnx(model: SessionModel, text: str) -> bytes:
    """Encode the network as a model of ONNX."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals
        program = torch.onnx.export(
            export_program(model),
            (),
            input_names=["images"],
            output_names=["logits", "score"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, text
    content: bytes = proto.SerializeToString()
    return content
