"""The command that made each stage and session, from its manifest."""

import shlex

from m2sd_cli.config.idle import without_effect
from m2sd_cli.config.option import flag, options_of
from m2sd_cli.config.stages import DistillConfig, PretrainConfig
from m2sd_cli.registry import file_of
from m2sd_cli.runs.manifest import Manifest
from m2sd_cli.training.records import LISTED, OF_ONE_CLASS


def recorded_command(manifest: Manifest) -> str:
    """Return the command, with every option that had an effect; paths, which are not recorded, stand as bare names.

    The photos of one class stand as FOLDER/..., since they may have been some of that folder alone.
    """
    own = manifest.data.kind == "folder"
    data = manifest.data.name
    if manifest.kind in ("pretrain", "base"):
        name, model = ("pretrain", PretrainConfig) if manifest.kind == "pretrain" else ("distill", DistillConfig)
        words = [*_program(manifest), name, "--data", f"./{data}" if own else data]
        idle = without_effect(model, manifest.config)
        for option in (each for each in options_of(model) if each not in idle):
            value = manifest.config.get(option)
            if value is True:
                words.append(flag(option))
            elif value is not None and value is not False:  # 0 is a value
                words += [flag(option), str(value)]
        words += ["--precision", manifest.precision]
        return shlex.join(words + (["--deterministic"] if manifest.deterministic else []))
    if manifest.kind in ("rename", "forget"):
        edited = ([each.name] if each.new_name is None else [each.name, each.new_name] for each in manifest.edits)
        return "; ".join(shlex.join(["m2sd", "sessions", manifest.kind, *words]) for words in edited)
    words = [*_program(manifest), "increment", "--session", str(manifest.session)]
    if not own:
        words += ["--data", data]
    elif manifest.data.split == OF_ONE_CLASS:
        words += ["--class", *(each.name for each in manifest.classes), f"./{data}/..."]
    elif manifest.data.split != LISTED:
        words += ["--shots", f"./{data}"]
    if manifest.kind == "extend":
        words.append("--extend")
    if manifest.classifier is not None:
        words += ["--classifier", manifest.classifier]
    return shlex.join([*words, "--views", str(manifest.views or 1), "--precision", manifest.precision])


def _program(manifest: Manifest) -> list[str]:
    """Return the words before the command, with the files that registered what the manifest names."""
    files = dict.fromkeys(filter(None, map(file_of, manifest.plugins.values())))
    return ["m2sd", *(word for file in files for word in ("--plugin", file))]
