"""m2sd: few-shot class-incremental learning by multiple mixing self-distillation (M2SD, AAAI 2024).

The functions behind the commands are here under the names of PUBLIC. They are imported when first used, since torch
takes seconds to import.
"""

from importlib import import_module

TYPE_CHECKING = False  # typing takes a while to import

if TYPE_CHECKING:
    from m2sd_cli.api.ablate import ablate as ablate
    from m2sd_cli.api.bench import bench as bench
    from m2sd_cli.api.distill import distill as distill
    from m2sd_cli.api.doctor import doctor as doctor
    from m2sd_cli.api.draw_figures import draw_figures as draw_figures
    from m2sd_cli.api.edits import forget as forget
    from m2sd_cli.api.edits import rename as rename
    from m2sd_cli.api.evaluate import compare as compare
    from m2sd_cli.api.evaluate import evaluate as evaluate
    from m2sd_cli.api.export import export as export
    from m2sd_cli.api.features import features as features
    from m2sd_cli.api.increment import increment as increment
    from m2sd_cli.api.learn import Learned as Learned
    from m2sd_cli.api.learn import learn as learn
    from m2sd_cli.api.load_run import load_run as load_run
    from m2sd_cli.api.predict import predict as predict
    from m2sd_cli.api.pretrain import pretrain as pretrain
    from m2sd_cli.api.quantize import quantize as quantize
    from m2sd_cli.api.replay import replay as replay
    from m2sd_cli.api.report import report as report
    from m2sd_cli.api.reproduce import reproduce as reproduce
    from m2sd_cli.api.simulate import simulate as simulate
    from m2sd_cli.api.study import study as study
    from m2sd_cli.data.catalogue import DataSetInfo as DataSetInfo
    from m2sd_cli.data.catalogue import register_data_set as register_data_set
    from m2sd_cli.errors import M2sdError as M2sdError
    from m2sd_cli.exporting import register_export_format as register_export_format
    from m2sd_cli.runs.folder import open_run as open_run
    from m2sd_cli.tables import register_backbone as register_backbone
    from m2sd_cli.tables import register_classifier as register_classifier
    from m2sd_cli.tables import register_optimizer as register_optimizer
    from m2sd_cli.tables import register_schedule as register_schedule
    from m2sd_cli.training.epochs import EpochFigures as EpochFigures

__version__ = "0.3.0.dev0"

# Where each public name lives.
PUBLIC = {
    "DataSetInfo": "m2sd_cli.data.catalogue",
    "EpochFigures": "m2sd_cli.training.epochs",
    "Learned": "m2sd_cli.api.learn",
    "M2sdError": "m2sd_cli.errors",
    "ablate": "m2sd_cli.api.ablate",
    "bench": "m2sd_cli.api.bench",
    "compare": "m2sd_cli.api.evaluate",
    "distill": "m2sd_cli.api.distill",
    "doctor": "m2sd_cli.api.doctor",
    "draw_figures": "m2sd_cli.api.draw_figures",
    "evaluate": "m2sd_cli.api.evaluate",
    "export": "m2sd_cli.api.export",
    "features": "m2sd_cli.api.features",
    "forget": "m2sd_cli.api.edits",
    "increment": "m2sd_cli.api.increment",
    "learn": "m2sd_cli.api.learn",
    "load_run": "m2sd_cli.api.load_run",
    "open_run": "m2sd_cli.runs.folder",
    "predict": "m2sd_cli.api.predict",
    "pretrain": "m2sd_cli.api.pretrain",
    "quantize": "m2sd_cli.api.quantize",
    "register_backbone": "m2sd_cli.tables",
    "register_classifier": "m2sd_cli.tables",
    "register_data_set": "m2sd_cli.data.catalogue",
    "register_export_format": "m2sd_cli.exporting",
    "register_optimizer": "m2sd_cli.tables",
    "register_schedule": "m2sd_cli.tables",
    "rename": "m2sd_cli.api.edits",
    "replay": "m2sd_cli.api.replay",
    "report": "m2sd_cli.api.report",
    "reproduce": "m2sd_cli.api.reproduce",
    "simulate": "m2sd_cli.api.simulate",
    "study": "m2sd_cli.api.study",
}
__all__ = list(PUBLIC)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]


def __getattr__(name: str) -> object:
    if name in PUBLIC:
        found = globals()[name] = getattr(import_module(PUBLIC[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
