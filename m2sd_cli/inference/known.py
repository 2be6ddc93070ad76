"""The tensors of a chain's classes, read from its checkpoints: what the classifiers of stage 3 are built of."""

import torch

from m2sd_cli.checkpoints import BaseCheckpoint, IncrementCheckpoint
from m2sd_cli.method.extension import extended_base, joined_mean
from m2sd_cli.method.stage3 import KnownClasses
from m2sd_cli.runs.chain import ChainSummary
from m2sd_cli.runs.classes import ChainClasses
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import WITH_SHOTS


def read_later(run: RunFolder, chain: ChainSummary, base: BaseCheckpoint) -> dict[int, IncrementCheckpoint]:
    """Read the checkpoints of the sessions with shots, by their numbers.

    Raises:
        DamagedError: one is damaged, or does not fit its manifest.
    """
    return {
        number: IncrementCheckpoint.read(run, part, base.backbone.session_width)
        for number, part in enumerate(chain.sessions)
        if part.kind in WITH_SHOTS
    }


def known_classes(base: BaseCheckpoint, later: dict[int, IncrementCheckpoint], classes: ChainClasses) -> KnownClasses:
    """Collect the tensors of all classes, forgotten ones included, with the shots of all sessions that taught them.

    A forgotten class still counts in the heads of the others, so that their answers stay.
    """
    count = len(base.means)
    more = {
        each.index: torch.cat([later[number].shots[place] for number, place in each.shots[1:]])
        for each in classes.all[:count]
        if len(each.shots) > 1
    }
    means, statistics, images = base.means, base.statistics, base.images
    if more:
        means, statistics, images = extended_base(means, statistics, images, more)
    new, shots = [means[:0]], []
    for each in classes.all[count:]:
        parts = [later[number].shots[place] for number, place in each.shots]
        number, place = each.shots[0]
        shots.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        mean = later[number].means[place] if len(parts) == 1 else joined_mean(shots[-1])
        new.append(mean[None])
    views = [each.views or 1 for each in classes.all[count:]]
    return KnownClasses(
        means,
        torch.cat(new),
        shots,
        statistics,
        images,
        base.held_out,
        views=views,
        covariance_images=base.images,
    )
