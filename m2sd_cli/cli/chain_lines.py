"""Sessions as the commands that list them print them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2sd_cli.runs.reader import StoredManifest

NAMED = 5  # classes to name in a row


def outline(stored: "StoredManifest") -> dict[str, object]:
    """Return a session for JSON."""
    manifest = stored.manifest
    return {
        "session": manifest.session,
        "kind": manifest.kind,
        "classes": [each.name for each in manifest.classes],
        "edits": [each.model_dump() for each in manifest.edits],
        "shots": sum(each.shots for each in manifest.classes),
        "classifier": manifest.classifier,
        "data": manifest.data.name,
        "created": manifest.created,
        "sha256": stored.record.sha256,
    }
