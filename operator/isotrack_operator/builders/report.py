"""The RecordingReport of one attempt, created empty: its agent fills the status."""

from __future__ import annotations

from typing import Any

from isotrack_api.recording import Recording
from isotrack_api.resource import API_VERSION

from . import names


def build_report(recording: Recording, n: int) -> dict[str, Any]:
    """The report of attempt `n`, named like its Job, owned by the Recording (it outlives the Job)."""
    uid = names.uid_of(recording)
    return {
        "apiVersion": API_VERSION,
        "kind": "RecordingReport",
        "metadata": {
            "name": names.attempt_name(recording.metadata.name, uid, n),
            "namespace": names.namespace_of(recording),
            "labels": names.labels(recording, n),
            "ownerReferences": [names.owner(recording)],
        },
        "spec": {"recordingUid": uid, "attempt": n},
    }
