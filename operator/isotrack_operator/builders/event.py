"""Kubernetes Events about a Recording: one per numbered transition, so a repeated create is a no-op."""

from __future__ import annotations

from typing import Any

from isotrack_api.recording import Phase, Recording, Transition
from isotrack_api.resource import API_VERSION

from . import names

CONTROLLER = "isotrack.dev/operator"
MAX_NOTE = 1024
_BAD_PHASES = (Phase.ERRORED, Phase.PARTIALLY_UPLOADED)


def build_event(
    recording: Recording, transition: Transition, note: str, *, warning: bool, instance: str
) -> dict[str, Any]:
    """The Event of one transition (events.k8s.io/v1)."""
    uid = names.uid_of(recording)
    bad = warning or transition.phase in _BAD_PHASES
    seconds, _, fraction = transition.time.removesuffix("Z").partition(".")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{names.base_name(recording.metadata.name, uid)}-t{transition.seq}",
            "namespace": names.namespace_of(recording),
        },
        "eventTime": f"{seconds}.{(fraction + '000000')[:6]}Z",
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": transition.phase.value,
        "reason": transition.reason,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": "Recording",
            "name": recording.metadata.name,
            "namespace": names.namespace_of(recording),
            "uid": uid,
        },
        "note": note[:MAX_NOTE],
        "type": "Warning" if bad else "Normal",
    }
