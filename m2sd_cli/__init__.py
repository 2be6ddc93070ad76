"""m2sd: few-shot class-incremental learning by multiple mixing self-distillation (M2SD, AAAI 2024).

The functions behind the commands are here: pretrain, distill, increment, evaluate, compare, predict, export,
open_run, reproduce, simulate, bench, ablate. They are imported when first used, since torch takes seconds to import.
"""

TYPE_CHECKING = False  # typing takes a while to import

if TYPE_CHECKING:
    from m2sd_cli.ablation.run import ablate
    from m2sd_cli.api import bench, compare, distill, evaluate, export, increment, open_run, predict, pretrain, simulate
    from m2sd_cli.reproduction import reproduce

__version__ = "0.1.0"
__all__ = [
    "ablate",
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
    "simulate",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from m2sd_cli import api, reproduction
        from m2sd_cli.ablation import run

        homes = {"reproduce": reproduction, "ablate": run}
        # All at once, after the imports: a room of a function's name, bench, has taken that name with its own.
        globals().update({each: getattr(homes.get(each, api), each) for each in __all__})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
