"""Network as JSON: the operations of an exported program on the tensors of a safetensors file.

The operations are those of torch's aten, whose names and arguments torch keeps from version to version. The JSON is no
code: `model.py` looks each operation up by its name.
"""

import math
import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from m2sd_cli.errors import M2sdError

ASSERTIONS = "aten._assert"  # the beginning of the names of operations that check and return nothing
ON_NUMBERS = {
    getattr(operator, name): f"python.{name}"
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
}


class Network(NamedTuple):
    """Operations in their order, and the tensors that they take."""

    operations: list[dict[str, Any]]  # name of the result, operation, arguments, named arguments, last uses
    outputs: list[Any]  # arguments
    tensors: dict[str, Tensor]


def describe_network(program: ExportedProgram) -> Network:
    """Describe a program of one input, "images".

    Raises:
        M2sdError: the program has an operation that is none of aten's, or an argument of no known kind.
    """
    arguments: dict[str, Any] = {}  # by the name of a node
    tensors: dict[str, Tensor] = {}
    kept = {**program.constants, **program.state_dict}
    for each in program.graph_signature.input_specs:
        if each.kind == InputKind.USER_INPUT:
            arguments[each.arg.name] = {"value": "images"}
        elif each.target in kept:
            arguments[each.arg.name] = {"tensor": each.target}
            if isinstance(tensor := kept[each.target], Tensor):
                tensors[each.target] = tensor
    operations: list[dict[str, Any]] = []
    outputs: list[Any] = []
    used: set[str] = set()
    for node in program.graph.nodes:
        if node.op == "output":
            outputs = _encoded(list(node.args[0]), arguments)
        elif node.op == "call_function":
            name = _name(node)
            if name.startswith(ASSERTIONS):
                continue
            operations.append(
                {
                    "name": node.name,
                    "operation": name,
                    "arguments": _encoded(list(node.args), arguments),
                    "named": {key: _encoded(value, arguments) for key, value in node.kwargs.items()},
                    "last": [],
                }
            )
            arguments[node.name] = {"value": node.name}
            used |= {each.name for each in node.all_input_nodes}
        elif node.op != "placeholder":
            raise _refused(f"{node.op} {node.target}")
    _mark_last_uses(operations, outputs)
    needed = {arguments[name]["tensor"] for name in used if "tensor" in arguments.get(name, {})}
    return Network(operations, outputs, {name: tensors[name] for name in needed})


def _name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        return str(node.target)
    if node.target in ON_NUMBERS:
        return ON_NUMBERS[node.target]
    raise _refused(f"the operation {node.target}")


def _encoded(argument: Any, arguments: dict[str, Any]) -> Any:
    if isinstance(argument, list | tuple):
        return [_encoded(each, arguments) for each in argument]
    if isinstance(argument, fx.Node):
        return arguments[argument.name]
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    if argument is None or isinstance(argument, bool | int | float | str):
        return argument
    if isinstance(argument, torch.dtype | torch.layout | torch.memory_format):
        return {"torch": str(argument).removeprefix("torch.")}
    if isinstance(argument, torch.device):
        return {"device": "of the images"}
    raise _refused(f"an argument of the kind {type(argument).__name__}")


def _mark_last_uses(operations: list[dict[str, Any]], outputs: list[Any]) -> None:
    """List with each operation the values that nothing after it takes."""
    later = set(_values(outputs))
    for each in reversed(operations):
        taken = {each["name"], *_values([each["arguments"], [*each["named"].values()]])}
        each["last"] = sorted(taken - later)
        later |= taken


def _values(argument: Any) -> list[str]:
    if isinstance(argument, list):
        return [name for each in argument for name in _values(each)]
    return [argument["value"]] if isinstance(argument, dict) and "value" in argument else []


def _refused(what: str) -> M2sdError:
    return M2sdError(f"--format hub: this network has {what}, which the folder cannot hold; --format pt2 can")
