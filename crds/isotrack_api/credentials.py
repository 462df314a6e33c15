"""How recorder pods prove to a storage who they are: by a key, or by what they are.

    secretName    a key in a Secret of the Recording's namespace
    ambient       the platform gives credentials to the pods of a service account (EKS)
    webIdentity   the pod's agent has a token of its service account, and changes it for credentials at a service that trusts the
                  cluster (AWS STS, Ceph, MinIO): no key is kept anywhere

A key of the operator (`operatorSecretName`) is another matter: with it the operator itself looks after the storage.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .markers import Cel, ObjectModel, RuledModel
from .resource import ObjectName, SecretName

DEFAULT_AUDIENCE = "sts.amazonaws.com"
"""Audience of tokens for AWS, and what EKS takes by default."""


class AmbientIdentity(ObjectModel):
    """Credentials that the platform gives to the pods of a service account."""

    service_account_name: ObjectName
    """ServiceAccount in the Recording's namespace that its pods run as. It must exist, set up as the platform asks (on EKS: annotated with
    a role, or associated with one)."""


class WebIdentity(ObjectModel):
    """A role that the pods of a service account may take on at a security token service (AssumeRoleWithWebIdentity)."""

    service_account_name: ObjectName
    """ServiceAccount in the Recording's namespace that its pods run as. It must exist; the role trusts it by the subject
    system:serviceaccount:<namespace>:<name> of its tokens."""
    role_arn: Annotated[str, Field(min_length=20, max_length=2048, pattern=r"^arn:[^\x00-\x20\x7f]+$")]
    """ARN of the role."""
    audience: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x20\x7f]+$")] | None = None
    """For whom tokens are, as the role's trust expects it. Not the audience of the API server: whoever gets a token could come here with
    it. Absent = sts.amazonaws.com."""
    sts_endpoint: (
        Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\x00-\x20/?#@\x7f]+(/[^\x00-\x20?#\x7f]*)?$")]
        | None
    ) = None
    """URL of the security token service. Absent = that of AWS in the storage's region."""


def _is_one_place(value: Any) -> bool:
    return (value.config_map_name is None) is not (value.secret_name is None)


class CaCertificate(RuledModel):
    """Where the certificates of an authority of one's own lie, in the Recording's namespace: one of configMapName and secretName."""

    cel_rules = (
        Cel(
            "has(self.configMapName) != has(self.secretName)",
            "give exactly one of configMapName and secretName",
            _is_one_place,
        ),
    )

    config_map_name: ObjectName | None = None
    """ConfigMap, as trust-manager puts it into every namespace."""
    secret_name: SecretName | None = None
    """Secret that need hold nothing else, as cert-manager makes it."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] | None = None
    """Key with one or more certificates, PEM. Absent = ca.crt."""


def _is_one_way(value: Any) -> bool:
    return sum(way is not None for way in (value.secret_name, value.ambient, value.web_identity)) == 1


class StorageCredentials(RuledModel):
    """Who recorder pods are to the storage: one of secretName, ambient and webIdentity."""

    cel_rules = (
        Cel(
            "[has(self.secretName), has(self.ambient), has(self.webIdentity)].filter(given, given).size() == 1",
            "give exactly one of secretName, ambient and webIdentity",
            _is_one_way,
        ),
    )

    secret_name: SecretName | None = None
    """Secret in the Recording's namespace with the keys accessKeyId and secretAccessKey, optionally sessionToken and ca.crt (see also
    caCertificate)."""
    ambient: AmbientIdentity | None = None
    """No Secret: the platform gives credentials to the pods of a service account."""
    web_identity: WebIdentity | None = None
    """No Secret: the agent takes on a role with a token of its pod's service account."""
    operator_secret_name: SecretName | None = None
    """Secret in the operator's namespace with the keys of secretName. With it the operator checks the storage (status.storages), looks
    through it and finishes recordings whose Recording or namespace was deleted before they were. Absent = nobody checks it before a
    recording starts, and those wait for `isotrack finalise`."""

    @property
    def service_account_name(self) -> str | None:
        """ServiceAccount that the class chose for pods; None = each Recording has one of its own."""
        identity = self.ambient or self.web_identity
        return identity.service_account_name if identity else None
