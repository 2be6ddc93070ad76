"""Names that other tools give to options, for the suggestion after one that m2sd does not have."""

from typing import Any, Final

# What people type, and the options that may be meant; a command suggests those that it has.
USUAL_NAMES: Final = {
    ("--lr", "--lr0", "--base-lr", "--rate"): ("--learning-rate",),
    ("--bs", "-b", "--batch", "--batchsize"): ("--batch-size",),
    ("--wd", "--decay", "--l2"): ("--weight-decay",),
    ("--epoch", "-e", "--num-epochs", "--max-epochs"): ("--epochs",),
    ("--dataset", "-d", "--data-dir", "--source"): ("--data", "--test"),
    ("--arch", "-a", "--model", "--network", "--encoder"): ("--backbone",),
    ("--imgsz", "--img-size", "--size", "--input-size", "--resolution"): ("--image-size",),
    ("--gpu", "--gpus", "--cuda", "--cpu", "--accelerator"): ("--device",),
    ("--amp", "--fp16", "--fp32", "--bf16", "--half", "--dtype"): ("--precision",),
    ("--pretrained", "--weights", "--checkpoint", "--ckpt"): ("--init", "--run"),
    ("--output", "-o", "--out-dir", "--output-dir", "--save-dir", "--logdir"): ("--out", "--run"),
    ("--task", "--step", "-s"): ("--session",),
    ("--support", "--few-shot"): ("--shots",),
    ("--topk", "-k"): ("--top-k",),
    ("--color", "--color-jitter"): ("--colour",),
    ("--type", "-f"): ("--format",),
    ("--conf", "--cfg"): ("--config",),
    ("--continue",): ("--resume",),
    ("--overwrite",): ("--force",),
    ("--temp", "-T", "-t"): ("--temperature",),
    ("--head",): ("--classifier",),
    ("--silent",): ("--quiet",),
}


def meant_by(name: str, command: Any) -> list[str]:
    """Return the options of a command that are usually called by a name that it does not have."""
    known = {option for parameter in command.params for option in parameter.opts}
    return [each for names, ours in USUAL_NAMES.items() if name in names for each in ours if each in known]
