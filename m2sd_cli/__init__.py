"""m2sd: few-shot class-incremental learning by multiple mixing self-distillation (M2SD, AAAI 2024).

The functions behind the commands are here: pretrain, distill, increment, evaluate, compare, predict, export,
open_run, reproduce, bench. They are imported when first used, since torch takes seconds to import.
"""

TYPE_CHECKING = False  # typing takes a while to import

if TYPE_CHECKING:
    from m2sd_cli.api import bench, compare, distill, evaluate, export, increment, open_run, predict, pretrain
    from m2sd_cli.reproduction import reproduce

__version__ = "0.1.0"
__all__ = [
    "bench",
    "compare",
    "distill",
    "evaluate",
    "export",
    "increment",
    "open_run",
    "predict",
    "pretrain",
    "reproduce",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from m2sd_cli import api, reproduction

        return getattr(reproduction if name == "reproduce" else api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
