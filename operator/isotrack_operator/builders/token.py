"""The Secret with the join token of one attempt: the only secret that the recorder container sees.

Immutable, created and never patched or read by the operator, owned by the attempt's Job and gone with it.
"""

from __future__ import annotations

import base64
from typing import Any

from isotrack_api.recording import Recording

from . import names

TOKEN_KEY = "token"  # noqa: S105 - name of a key


def build_token_secret(recording: Recording, n: int, job_uid: str, token: str) -> dict[str, Any]:
    """The Secret of attempt `n`, whose Job has `job_uid`."""
    job_name = names.attempt_name(recording.metadata.name, names.uid_of(recording), n)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.token_secret_name(job_name),
            "namespace": names.namespace_of(recording),
            "labels": names.labels(recording, n),
            # Without blockOwnerDeletion: it would need the right to set finalizers on Jobs (OwnerReferencesPermissionEnforcement).
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job_name, "uid": job_uid}],
        },
        "type": "Opaque",
        "immutable": True,
        "data": {TOKEN_KEY: base64.b64encode(token.encode()).decode()},
    }
