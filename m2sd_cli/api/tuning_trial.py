"""The figures by which a fine-tuned network is kept or dropped; no test image has a say."""

from statistics import fmean

import torch

from m2sd_cli.checkpoints import BaseCheckpoint
from m2sd_cli.method.stage3 import KnownClasses, build_head
from m2sd_cli.reports.draws import LabelledFeatures
from m2sd_cli.reports.rehearsal import Part, play
from m2sd_cli.runs.folder import RunFolder
from m2sd_cli.runs.manifest import BackboneRecord, TuningRecord
from m2sd_cli.runs.reader import StoredManifest


def is_better(record: TuningRecord) -> bool:
    """Tell whether fine-tuning has won its trial: in one figure, and lost in none."""
    base, harmonic = record.trial_base, record.trial_harmonic
    if base is None or harmonic is None:
        return False
    gains = [each.tuned - each.frozen for each in (base, harmonic)]
    return min(gains) >= 0 and max(gains) > 0


def compare(known: LabelledFeatures, part: Part, record: BackboneRecord, classifier: str) -> tuple[float, float]:
    """Compute the accuracy of the old classes before the new ones are taught, and the harmonic mean after; per cent."""
    tested = part.tested & (part.labels < len(part.old))
    own = LabelledFeatures(known.features[tested], part.labels[tested])
    draws = play(known, part, record, [classifier])[classifier]
    return accuracy(part.base(known.features), own, record, classifier), fmean(draw.harmonic for draw in draws)


def held_out_accuracy(run: RunFolder, stored: StoredManifest) -> float:
    """Compute the accuracy of a base session on its held-out images, in per cent."""
    checkpoint, manifest = BaseCheckpoint.read(run, stored), stored.manifest
    assert checkpoint.held_out is not None, "a class that can play a new one has a held-out image"
    means = checkpoint.means
    known = KnownClasses(means, means[:0], [], checkpoint.statistics, checkpoint.images)
    return accuracy(known, LabelledFeatures(*checkpoint.held_out), manifest.backbone, str(manifest.classifier))


@torch.inference_mode()
def accuracy(known: KnownClasses, tested: LabelledFeatures, record: BackboneRecord, classifier: str) -> float:
    """Compute the accuracy of a classifier on images of the base classes, in per cent."""
    logits = build_head(classifier, known, record.similarity, record.scale, record.width).eval()(tested.features)
    return 100 * float((logits.argmax(dim=1) == tested.labels).double().mean())
