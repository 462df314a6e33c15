"""Kubernetes Events about a Recording: one per numbered transition, and one per cause for which tracks cannot be recorded. Their names
tell them apart, so a repeated create is a no-op."""

from __future__ import annotations

from typing import Any

from isotrack_api.conditions import Condition
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
    bad = warning or transition.phase in _BAD_PHASES
    what = (transition.phase.value, transition.reason)
    return _event(recording, f"t{transition.seq}", transition.time, what, note, warning=bad, instance=instance)


def build_warning(recording: Recording, condition: Condition, time: str, *, instance: str) -> dict[str, Any]:
    """The Event of a condition that has become True for a reason that it did not have before."""
    what = (condition.type, condition.reason)
    name = condition.reason.lower()
    return _event(recording, name, time, what, condition.message, warning=True, instance=instance)


def _event(
    recording: Recording, name: str, time: str, what: tuple[str, str], note: str, *, warning: bool, instance: str
) -> dict[str, Any]:
    uid = names.uid_of(recording)
    action, reason = what
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{names.base_name(recording.metadata.name, uid)}-{name}",
            "namespace": names.namespace_of(recording),
        },
        "eventTime": f"{seconds}.{(fraction + '000000')[:6]}Z",
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
        "action": action,
        "reason": reason,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": "Recording",
            "name": recording.metadata.name,
            "namespace": names.namespace_of(recording),
            "uid": uid,
        },
        "note": note[:MAX_NOTE],
        "type": "Warning" if warning else "Normal",
    }
