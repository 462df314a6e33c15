"""Names, labels and owner references of everything that belongs to a Recording. Deterministic, so that a repeated create is a no-op.

Names of objects in a user's namespace start with the Recording's own name, cut so that `<base>-a<n>` and what Kubernetes appends
to it (pods: six characters) stay within the 63 characters of a label value; eight digits of the uid keep namesakes apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from isotrack_api.recording import Recording
from isotrack_api.resource import API_VERSION, GROUP

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "isotrack"
UID_LABEL = f"{GROUP}/recording-uid"
NAME_LABEL = f"{GROUP}/recording"
ATTEMPT_LABEL = f"{GROUP}/attempt"
CLASS_LABEL = f"{GROUP}/class-uid"
FINALIZER = f"{GROUP}/recording"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""What the operator watches of Jobs and pods."""

AGENT = "agent"
RECORDER = "recorder"
FINALISER = "finaliser"
SWEEPER = "sweeper"
CHECKER = "check"

MAX_STEM = 40


def uid8(uid: str) -> str:
    """The first eight hexadecimal digits of a uid."""
    return uid.replace("-", "")[:8]


def base_name(name: str, uid: str) -> str:
    """Common start of the names of all objects of one Recording; a DNS label."""
    stem = re.sub(r"[^a-z0-9-]", "-", name)[:MAX_STEM].strip("-") or "recording"
    return f"{stem}-{uid8(uid)}"


def attempt_name(name: str, uid: str, n: int) -> str:
    """Name of the Job and the RecordingReport of attempt `n`."""
    return f"{base_name(name, uid)}-a{n}"


def finaliser_name(name: str, uid: str) -> str:
    """Name of the Job that finishes a Recording whose attempts are over."""
    return f"{base_name(name, uid)}-finalise"


def token_secret_name(job_name: str) -> str:
    """Name of the Secret with the join token of one attempt."""
    return f"{job_name}-join"


def identity(uid: str, *, other: bool = False) -> str:
    """Identity that attempts of a Recording join the SFU with: the SFU evicts the older one.

    Args:
        other: The second one of two, for a successor beside an older attempt that is about to end by itself.
    """
    return f"isotrack-{uid}-2" if other else f"isotrack-{uid}"


def folder(namespace: str, name: str, uid: str) -> str:
    """The recording's folder below the storage's prefix."""
    return f"{namespace}/{name}-{uid8(uid)}"


def claim_name(class_name: str, call_id: str) -> str:
    """Name of the Lease that says who records a call. Class and call are hashed: call ids are arbitrary text."""
    digest = hashlib.sha256(f"{class_name}\0{call_id}".encode()).hexdigest()
    return f"isotrack-call-{digest[:40]}"


def label_value(text: str) -> str:
    """Text as a label value: illegal characters replaced, at most 63 characters (Kubernetes, labels and selectors)."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


def labels(recording: Recording, n: int | None = None) -> dict[str, str]:
    """Labels of an object of this Recording, or of its attempt `n`."""
    found = {
        "app.kubernetes.io/name": "isotrack-recorder",
        MANAGED_BY: MANAGER,
        NAME_LABEL: label_value(recording.metadata.name),
        UID_LABEL: uid_of(recording),
    }
    return found if n is None else found | {ATTEMPT_LABEL: str(n)}


def uid_of(recording: Recording) -> str:
    """The uid of a Recording that came from the API server."""
    assert recording.metadata.uid is not None, "an object from the API server has a uid"
    return recording.metadata.uid


def namespace_of(recording: Recording) -> str:
    """The namespace of a Recording that came from the API server."""
    assert recording.metadata.namespace is not None, "Recordings are namespaced"
    return recording.metadata.namespace


def owner(recording: Recording) -> dict[str, Any]:
    """Owner reference to a Recording; deleting the Recording in the foreground waits for the child."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Recording",
        "name": recording.metadata.name,
        "uid": uid_of(recording),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned_by(metadata: Mapping[str, Any], uid: str) -> bool:
    """Whether the controlling owner reference of an object is the one with this uid."""
    return any(ref.get("uid") == uid and ref.get("controller") for ref in metadata.get("ownerReferences") or ())
