"""Content of the folder: weights, network, configuration, model card, and the module that reads them."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch

from m2sd_cli.exporting.export import export_program
from m2sd_cli.exporting.hub import model as standalone
from m2sd_cli.exporting.hub.card import Origin, write_card
from m2sd_cli.exporting.hub.network import describe_network
from m2sd_cli.inference.session import SessionModel


def to_folder(model: SessionModel, text: str, origin: Origin) -> dict[str, bytes]:
    """Encode a session as files by name.

    Raises:
        M2sdError: the network has an operation that the folder cannot hold.
    """
    network = describe_network(export_program(model))
    described = json.loads(text)
    names = described.pop("classes")
    config = {
        "model_type": "m2sd",
        "num_labels": len(names),
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        **described,
    }
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.tensors.items()}
    return {
        "README.md": write_card(model, origin).encode(),
        "config.json": _indented(config),
        "model.py": Path(standalone.__file__).read_bytes(),
        "model.safetensors": safetensors.torch.save(tensors, {"format": "pt"}),
        "network.json": _line_by_line(network.operations, network.outputs),
    }


def _indented(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _line_by_line(operations: list[dict[str, Any]], outputs: list[Any]) -> bytes:
    lines = ",\n".join(map(json.dumps, operations))
    return f'{{"operations": [\n{lines}\n],\n"outputs": {json.dumps(outputs)}}}\n'.encode()
