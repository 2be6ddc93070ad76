"""The classifier that a chain answers with: chosen by name, refused where the chain cannot answer with it."""

from dataclasses import replace

from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.errors import UsageError
from m2sd_cli.inference.known import known_classes, read_later
from m2sd_cli.method.base_statistics import BaseStatistics, HeldOut
from m2sd_cli.method.stage3 import build_head, choices, load_builder
from m2sd_cli.registry import one_of
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import ChainClasses
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import ManifestSummary
from m2sd_cli.tables import CLASSIFIERS


def choose_classifier(run: RunFolder, chain: ChainSummary, name: str | None) -> str:
    """Choose the classifier that a chain answers with: `name`, else the classifier of its last session.

    Raises:
        UsageError: there is none of that name, or it compares directions and W was trained as a linear one.
        M2sdError: it is of another package, and cannot be imported.
        DamagedError: the session names a classifier that this version does not know.
    """
    recorded = chain.last.manifest.classifier
    assert recorded is not None, "every session names one"
    if not name and recorded not in CLASSIFIERS:
        raise run.unknown(chain.last, "classifier", recorded)
    chosen = name or recorded
    require_classifier(chosen, chain.base.manifest.backbone.similarity)
    return chosen


def require_classifier(name: str, similarity: str) -> None:
    """Refuse a classifier that cannot be imported, or compares directions if the trained W is linear.

    Raises:
        UsageError: it does so, or there is none of that name; the message lists the others.
        M2sdError: it is of another package, and cannot be imported.
    """
    load_builder(name)
    if CLASSIFIERS[name].cosine_only and similarity != "cosine":
        raise UsageError(
            f"--classifier {name}: it compares directions, and this run was pretrained with --similarity {similarity}; "
            f"choose {', '.join(choices(similarity))}"
        )


def require_covariances(name: str, statistics: BaseStatistics) -> None:
    """Refuse a classifier that needs the covariance of each base class if session 0 keeps none.

    Raises:
        UsageError: it needs them, and there are none.
    """
    if CLASSIFIERS[name].by_class and statistics.class_covariances is None:
        raise UsageError(
            f"--classifier {name}: session 0 keeps no covariance of each class, as those of earlier versions and of "
            f"many wide classes; distill once more with this version, or choose another classifier"
        )


def choose_base_cost(
    chain: ChainSummary, held_out: HeldOut | None, classifier: str, asked: float | None
) -> float | None:
    """Choose the points of accuracy that a new class may cost: `asked`, else those of the base session.

    Raises:
        UsageError: points are asked for, and the classifier ignores them or no held-out image measures them.
    """
    if asked is None:
        return chain.base.manifest.base_cost
    if not 0 <= asked <= 100:
        raise UsageError(f"--base-cost {asked:g}: points of accuracy, 0 to 100")
    if not CLASSIFIERS[classifier].base_cost:
        able = one_of([name for name in CLASSIFIERS.entries if CLASSIFIERS[name].base_cost])
        raise UsageError(f"--base-cost {asked:g}: {classifier} has none; leave it out, or add --classifier {able}")
    if held_out is None:
        raise UsageError(f"--base-cost {asked:g}: pretrain held no base image out to measure it with; leave it out")
    return asked


def try_classifier(
    name: str,
    run: RunFolder,
    chain: ChainSummary,
    base: BaseCheckpoint,
    part: ManifestSummary,
    taught: IncrementCheckpoint,
) -> None:
    """Build the head of another package's classifier with a session that is not yet written, whose record names it.

    Args:
        name: of the classifier.
        run: the run folder.
        chain: its chain.
        base: the checkpoint of session 0.
        part: the new session.
        taught: the shots of the new session.

    Raises:
        M2sdError: the classifier fails, or does not keep the contract.
    """
    later = {**read_later(run, chain, base), len(chain.sessions): taught}
    known = known_classes(base, later, ChainClasses.of([*chain.sessions, part]))
    record, cost = chain.base.manifest.backbone, chain.base.manifest.base_cost
    build_head(name, replace(known, base_cost=cost), record.similarity, record.scale, record.width)
