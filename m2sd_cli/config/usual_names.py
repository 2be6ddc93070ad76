"""Names that other tools give to options and commands, for suggestions after a name that m2sd does not have."""

from collections.abc import Iterable, Mapping
from typing import Final

ALIKE: Final = 0.7  # least similarity, 0 to 1, of two names of which one may be a slip of the other

# Names that people type, and the options that they may mean, the likeliest first; a value may follow an option. Names
# of one letter and names with "base" are those of widespread scripts of the field.
USUAL_NAMES: Final = {
    ("lr", "lr0", "lr-base", "base-lr", "rate"): ("learning-rate",),
    ("bs", "b", "batch", "batchsize", "batch-size-base"): ("batch-size",),
    ("wd", "decay", "l2"): ("weight-decay",),
    ("epoch", "e", "num-epochs", "max-epochs", "epochs-base"): ("epochs", "minutes"),
    ("epochs", "time-budget", "time", "budget"): ("time-budget", "minutes"),
    ("scheduler", "sched", "lr-scheduler", "lr-schedule"): ("schedule",),
    ("step-size", "lr-steps"): ("milestones",),
    ("dataset", "d", "source", "input", "folder", "dir", "train", "train-dir"): ("data", "folder", "images", "test"),
    ("data-dir", "datadir", "dataroot", "data-path", "root"): ("data-root", "data", "folder"),
    ("data", "image", "images", "file", "input-dir"): ("folder", "images", "name"),
    ("run",): ("runs",),
    ("recipe", "class"): ("name",),
    ("test-dir", "test-data", "val", "valid", "val-dir"): ("test", "held-out"),
    ("val-split", "validation-split", "val-share"): ("held-out",),
    ("arch", "a", "model", "network", "net", "encoder"): ("backbone",),
    ("imgsz", "img-size", "size", "input-size", "resolution"): ("image-size",),
    ("cpu", "cuda"): ("device {}",),
    ("gpu", "gpus", "gpu-id", "accelerator"): ("device",),
    ("fp32", "bf16"): ("precision {}",),
    ("amp", "fp16", "half", "dtype", "mixed-precision"): ("precision",),
    ("mixup", "cutmix"): ("mixing {}",),
    ("alpha",): ("beta",),
    ("augment", "augmentation", "autoaugment", "aa"): ("auto-augment",),
    ("color", "color-jitter", "jitter"): ("colour",),
    ("random-erasing", "erasing"): ("cutout",),
    ("pretrained", "weights", "checkpoint", "ckpt", "model-dir"): ("init", "run"),
    ("output", "o", "out-dir", "output-dir", "save-dir", "save-path"): ("out", "run"),
    ("logdir", "log-dir"): ("tensorboard", "run"),
    ("project", "experiment", "exp-name"): ("run",),
    ("task", "step", "s", "sessions"): ("session",),
    ("shots", "shot", "n-shot", "k-shot", "num-shots"): ("shots", "shots-per-class"),
    ("support", "few-shot"): ("shots", "shots-per-class"),
    ("ways", "n-way", "num-ways"): ("way",),
    ("num-classes", "base-class", "init-cls"): ("base-classes", "classes"),
    ("topk", "k"): ("top-k",),
    ("type", "f"): ("format",),
    ("conf", "cfg"): ("config",),
    ("continue",): ("resume",),
    ("overwrite",): ("force",),
    ("temp", "t"): ("temperature",),
    ("head", "new-mode"): ("classifier",),
    ("base-mode",): ("similarity",),
    ("silent",): ("quiet",),
    ("v",): ("version",),
    ("seed",): ("seeds",),
}
USUAL_COMMANDS: Final = {
    ("train", "fit"): ("pretrain",),
    ("test", "eval", "score"): ("evaluate",),
    ("infer", "inference", "classify", "label"): ("predict",),
    ("teach", "add"): ("increment",),
    ("benchmark",): ("bench",),
}
# Names of options that are not needed, and the reason.
ANSWERS: Final = {
    ("workers", "num-workers", "j", "threads"): "as many threads read images as there are cores",
    ("num-gpus", "nproc-per-node", "world-size", "distributed", "ddp"): "torchrun begins a training on several GPUs",
}


def plain(name: str) -> str:
    """Return the name of an option as the table has it: `batch-size` of `--batch_size`."""
    return name.lstrip("-").replace("_", "-").lower()


def usual_meanings(name: str, usual: Mapping[tuple[str, ...], tuple[str, ...]] = USUAL_NAMES) -> list[str]:
    """Return the options that a name usually stands for, known or not."""
    return [each.format(plain(name)) for names, ours in usual.items() if plain(name) in names for each in ours]


def meant_by(
    name: str, known: Iterable[str], usual: Mapping[tuple[str, ...], tuple[str, ...]] = USUAL_NAMES
) -> list[str]:
    """Return at most two options that a wrong name may stand for, the likeliest first.

    The first of these rules that finds one decides. The name is that of an option in another spelling. It usually
    stands for an option. One or two options have it at the beginning of one of their words. It is similar to an option.

    Args:
        name: with or without dashes.
        known: the options to choose from, as the table has them.
        usual: the table.
    """
    from difflib import get_close_matches

    known = [*known]
    wanted = plain(name)
    if wanted in known:
        return [wanted]
    meant = [each for each in usual_meanings(wanted, usual) if each.split()[0] in known]
    if meant:
        return meant[:2]
    holding = [each for each in known if len(wanted) > 2 and f"-{wanted}" in f"-{each}"]
    return holding if 0 < len(holding) < 3 else get_close_matches(wanted, known, 1, ALIKE)
