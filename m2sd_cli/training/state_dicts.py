"""The weights of a backbone in the state dict of a file, under any key, prefix and names that people give them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from m2sd_cli.method.backbone import Backbone
from m2sd_cli.progress import say
from m2sd_cli.reading import quoted
from m2sd_cli.runs.tensors import find_mismatch, tensor_specs

CLASSIFIERS = ("fc.", "_fc.", "head.", "classifier.", "linear.")
DEPTH = 2  # dicts inside of the dict of a file
NAMED = 3  # tensors in a message
OPTIONAL = "num_batches_tracked"


class Candidate(NamedTuple):
    """Tensors of a file that may be the weights of one network."""

    origin: str  # keys and prefix, for messages; empty if the file holds nothing else
    state: dict[str, Tensor]
    remark: str = ""  # for a person who begins from these weights


def check_weights(backbone: Backbone, state: Mapping[str, Tensor], most: int = 3) -> str | None:
    """Describe how a state dict with torchvision's names differs from the backbone's; None if it fits.

    Args:
        backbone: the network.
        state: without classifier.
        most: differences to name.
    """
    specs = tensor_specs(backbone.state_dict())
    required = {name: spec for name, spec in specs.items() if not name.endswith(OPTIONAL)}
    return find_mismatch(state, required, specs, convertible=True, most=most)


def without_classifier(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Leave out a classifier by its usual names, unless the backbone has a part of such a name."""
    known = backbone.state_dict().keys()
    return {name: tensor for name, tensor in state.items() if name in known or not name.startswith(CLASSIFIERS)}


def select_weights(content: Mapping[object, object], backbone: Backbone) -> dict[str, Tensor]:
    """Select the weights of a backbone: the only tensors in a file that have its names and shapes.

    The tensors may lie under keys, such as `state_dict`, `model` or `params`. Their names may have a prefix, such as
    `module.`, `backbone.` or `encoder.`, and may be the backbone's other names. All other content is passed over.

    Raises:
        ValueError: nothing in the file fits, or networks of different weights do; the message describes its content.
    """
    renamed = [each for found in _tensors(content) for each in _with_our_names(found, backbone)]
    named = [each for found in renamed for each in _without_prefix(found, backbone)]
    candidates = [each._replace(state=backbone.fitted(each.state)) for each in named]
    fitting = [each for each in candidates if check_weights(backbone, each.state) is None]
    if not fitting:
        names = backbone.state_dict().keys()
        closest = max(candidates, key=lambda each: len(names & each.state.keys()), default=Candidate("", {}))
        mismatch = check_weights(backbone, closest.state)
        raise ValueError(f"{mismatch}; {describe_content(content)}")
    first, *others = fitting
    for each in others:
        if not all(torch.equal(tensor, each.state[name]) for name, tensor in first.state.items() if name in each.state):
            origins = " and ".join(repr(quoted(each.origin)) for each in (first, each))
            raise ValueError(f"the file holds more than one network, under {origins}; save one of them alone")
    if first.remark:
        say(first.remark)
    return first.state


def describe_content(content: object) -> str:
    """Describe the content of a file, for a message."""
    if not isinstance(content, Mapping):
        return f"the file holds a {type(content).__name__}"
    tensors = {str(name): each for name, each in content.items() if isinstance(each, Tensor)}
    others = [
        f"{quoted(str(name))} ({_count(each) or type(each).__name__})"
        for name, each in content.items()
        if not isinstance(each, Tensor)
    ]
    parts = [f"{quoted(name)} {tuple(each.shape)}" for name, each in tensors.items()]
    count = [f"{len(tensors)} tensors"] if tensors else []
    words = _listed(others) if others and not tensors else _listed([*parts[:NAMED], *others, *parts[NAMED:]])
    return f"the file holds {': '.join([*count, words or 'nothing'])}"


def _count(content: object) -> str:
    inside = [name for found in _tensors(content) for name in found.state]
    return f"{len(inside)} tensors: {', '.join(map(quoted, inside[:NAMED]))}, ..." if inside else ""


def _listed(words: list[str]) -> str:
    return ", ".join(words[:NAMED]) + (f" and {len(words) - NAMED} more" if len(words) > NAMED else "")


def _tensors(content: object, keys: str = "", depth: int = DEPTH) -> Iterator[Candidate]:
    """Yield the tensors of a dict, and of the dicts inside."""
    if not isinstance(content, Mapping):
        return
    named = {name: each for name, each in content.items() if isinstance(name, str)}
    tensors = {name: each for name, each in named.items() if isinstance(each, Tensor)}
    if tensors:
        yield Candidate(keys, tensors)
    for name, each in named.items() if depth else ():
        yield from _tensors(each, f"{keys}{name}/", depth - 1)


def _with_our_names(found: Candidate, backbone: Backbone) -> Iterator[Candidate]:
    """Yield the tensors as they are named, and renamed if another publisher has named them."""
    yield found
    for names, remark in backbone.other_names:
        first = next(iter(names.values()))
        for prefix in [name.removesuffix(first) for name in found.state if f".{name}".endswith(f".{first}")]:
            ours = {prefix + theirs: name for name, theirs in names.items()}
            inside = {name: each for name, each in found.state.items() if name.startswith(prefix)}
            if not inside.keys().isdisjoint(set(ours) - {prefix + first}):
                state = {ours.get(name, name.removeprefix(prefix)): each for name, each in inside.items()}
                yield Candidate(found.origin + prefix, state, remark)


def _without_prefix(found: Candidate, backbone: Backbone) -> Iterator[Candidate]:
    """Yield the tensors as they are named, and those under each prefix that precedes every name of the backbone."""
    required = [name for name in backbone.state_dict() if not name.endswith(OPTIONAL)]
    ends = f".{required[0]}"
    prefixes = [name.removesuffix(required[0]) for name in found.state if name.endswith(ends)]
    yield found._replace(state=without_classifier(found.state, backbone))
    for prefix in prefixes:
        inside = {name.removeprefix(prefix): each for name, each in found.state.items() if name.startswith(prefix)}
        if inside.keys() & set(required[1:]):
            yield Candidate(found.origin + prefix, without_classifier(inside, backbone))
