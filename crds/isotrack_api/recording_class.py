"""RecordingClass: where calls live, who may record which of them, where files go. Cluster-scoped, owned by administrators.

Recordings take what they need from their class once, when they start; an edit of a class reaches later recordings only (the image
and credentials reach later attempts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Container, EncryptionMode, Quality, Timestamp
from .conditions import Condition, ConditionStatus
from .credentials import CaCertificate, StorageCredentials
from .markers import NO_NULLS, WHOLE, Cel, ListMap, ListSet, ObjectModel, RuledModel, size_rule
from .recording import Layers, OutputTypes, RecordingLimits
from .resource import (
    Annotations,
    Boolean,
    DnsLabel,
    Integer,
    KubernetesObject,
    LabelValues,
    ObjectName,
    Quantity,
    SecretName,
)
from .templates import FileNameTemplate

MAX_STORAGES = 16


class ClassMode(StrEnum):
    """Whether recordings may start."""

    AVAILABLE = "available"
    """Whenever a Recording asks."""
    DISABLED = "disabled"
    """Never; running ones go on."""


class ImagePullPolicy(StrEnum):
    """As in a container."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class NamespaceLabels(ObjectModel):
    """Namespaces by their labels."""

    match_labels: LabelValues | None = None
    """Labels that a namespace must all have. Absent or empty = every namespace."""


def _selects_something(value: Any) -> bool:
    return value.names is not None or value.selector is not None


class NamespaceChoice(RuledModel):
    """A set of namespaces: those named and those selected."""

    cel_rules = (
        Cel(
            "has(self.names) || has(self.selector)",
            "name namespaces in names, or select them by selector.matchLabels (selector: {} means every namespace)",
            _selects_something,
        ),
    )

    names: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=100), ListSet()] | None = None
    """By name."""
    selector: NamespaceLabels | None = None
    """By labels. Prefer labels that only administrators can set."""

    def contains(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a namespace with these labels belongs to the set."""
        if self.names is not None and namespace in self.names:
            return True
        if self.selector is None:
            return False
        return all(labels.get(key) == value for key, value in (self.selector.match_labels or {}).items())


CALL_GLOB_PATTERN = r"^(?:\{namespace\}|[^{}\x00-\x1f\x7f])+$"
CallGlob = Annotated[
    str,
    Field(min_length=1, max_length=256),
    Cel(
        r"self.matches(r'" + CALL_GLOB_PATTERN + "')",
        "a call id pattern may hold *, ?, {namespace} and any other character except braces and control characters",
        lambda value: re.fullmatch(CALL_GLOB_PATTERN, value) is not None,
    ),
]
"""Pattern over call ids."""


def glob_matches(pattern: str, namespace: str, call_id: str) -> bool:
    """Whether a pattern of `calls[].ids` covers a call id for a namespace. `*` is any run of characters, `?` is one."""
    # NB: greedy with one resume point, so at worst pattern × id steps: a regular expression could be made to backtrack for ever.
    glob = pattern.replace("{namespace}", namespace)
    g = i = 0
    resume_g, resume_i = -1, 0
    while i < len(call_id):
        if g < len(glob) and glob[g] == "*":
            resume_g, resume_i = g, i
            g += 1
        elif g < len(glob) and glob[g] in ("?", call_id[i]):
            g, i = g + 1, i + 1
        elif resume_g >= 0:
            resume_i += 1
            g, i = resume_g + 1, resume_i
        else:
            return False
    return all(char == "*" for char in glob[g:])


class CallGrant(ObjectModel):
    """Which namespaces may record which calls."""

    namespaces: NamespaceChoice
    """Whose Recordings this is about."""
    ids: Annotated[tuple[CallGlob, ...], Field(min_length=1, max_length=50), ListSet()]
    """Patterns of call ids: * is any run of characters, ? is one, {namespace} the Recording's namespace. Put a character after
    {namespace} that no namespace name has ("{namespace}_*"), or namespace a reaches the calls of a-b."""

    def allows(self, namespace: str, labels: Mapping[str, str], call_id: str) -> bool:
        """Whether a Recording of this namespace (with these labels) may record this call."""
        return self.namespaces.contains(namespace, labels) and any(
            glob_matches(pattern, namespace, call_id) for pattern in self.ids
        )


class LiveKitServer(ObjectModel):
    """A LiveKit server."""

    url: Annotated[
        str, Field(max_length=2048, pattern=r"^(ws|wss|http|https)://[^\x00-\x20/?#@\x7f]+(/[^\x00-\x20?#\x7f]*)?$")
    ]
    """Base URL, as operator and recorder pods reach it: wss://livekit.example.com."""
    quality: Quality | None = None
    """Layer of simulcast pictures to receive: high, medium or low. A publisher keeps sending the layer that somebody receives, so high
    costs each publisher the upload of its best one for as long as the recording lasts. Absent = high."""
    credentials_secret_name: SecretName
    """Secret in the operator's namespace with the keys apiKey and apiSecret. It never reaches a pod: recorders get a join token."""


class ClassSource(ObjectModel):
    """The SFU whose calls this class records."""

    livekit: LiveKitServer
    """A LiveKit server."""


def _key_has_its_mode(value: Any) -> bool:
    return value.kms_key_id is None or value.mode is EncryptionMode.KMS


class ServerSideEncryption(RuledModel):
    """Encryption at rest."""

    cel_rules = (
        Cel(
            "!has(self.kmsKeyId) || self.mode == 'aws:kms'",
            "kmsKeyId belongs to mode aws:kms: set that, or take the key away",
            _key_has_its_mode,
        ),
    )

    mode: EncryptionMode
    """AES256 (SSE-S3: with keys of the service), or aws:kms (SSE-KMS)."""
    kms_key_id: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[A-Za-z0-9:/_.-]+$")] | None = None
    """Id, alias or ARN of the key. Absent = the service's default key. The credentials need kms:GenerateDataKey and kms:Decrypt."""


class S3Storage(ObjectModel):
    """A bucket of an S3 service."""

    bucket: Annotated[str, Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$")]
    """Name of the bucket. It must exist."""
    prefix: (
        Annotated[
            str,
            Field(
                max_length=512,
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9!_.'()=@+,-]*(/[A-Za-z0-9_][A-Za-z0-9!_.'()=@+,-]*)*/?$",
            ),
        ]
        | None
    ) = None
    """Folder for all recordings. Absent = the top of the bucket."""
    region: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """Region of the bucket. Default: us-east-1."""
    endpoint: (
        Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\x00-\x20/?#@\x7f]+(/[^\x00-\x20?#\x7f]*)?$")]
        | None
    ) = None
    """URL of the service. Absent = AWS."""
    force_path_style: Boolean | None = None
    """true = address the bucket as a path, false = as a host name. Absent = a path where an endpoint is given, else a host name."""
    server_side_encryption: ServerSideEncryption | None = None
    """How the service is to encrypt objects. Absent = as the bucket is set up to. A service that ignores the wish is refused."""
    checkpoint_seconds: Annotated[int, Field(strict=True, ge=0, le=300), WHOLE] | None = None
    """How often a running recording copies to the bucket what it has captured since the last time. The death of a node loses at most
    this much and three seconds. The copies are deleted when the recording's files are complete. 0 = no copies: a lost node loses what its
    pod had not yet uploaded. Absent = 5."""
    credentials: StorageCredentials
    """Who recorder pods are to the service."""
    ca_certificate: CaCertificate | None = None
    """Whom recorder pods trust at the endpoint, and at credentials.webIdentity.stsEndpoint where that is given, instead of the public
    authorities that the image knows. Absent = those, or ca.crt of the Secret credentials.secretName. The operator's own Jobs take ca.crt of
    operatorSecretName."""


class Storage(ObjectModel):
    """A place for files."""

    name: DnsLabel
    """What Recordings call it."""
    s3: S3Storage
    """A bucket of an S3 service."""


class ClassDefaults(ObjectModel):
    """What Recordings get that do not say otherwise."""

    output_types: OutputTypes | None = None
    """Files per participant session. Absent = audio_video and screenshare_audio_video."""
    container: Container | None = None
    """Container of the files. Absent = mkv."""
    file_name_template: FileNameTemplate | None = None
    """Template of file names. Absent = {prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}_{started_ms}."""
    layers: Layers | None = None
    """Named sets of files, for Recordings that name neither layers nor outputTypes. A Recording's container and fileNameTemplate
    go before those of these layers. Absent = one layer "default"."""
    storage: DnsLabel | None = None
    """Name of a storage. Absent = the first."""
    limits: RecordingLimits | None = None
    """When recordings end by themselves."""


class ClassLimits(ObjectModel):
    """Maxima. A Recording that asks for more gets the maximum; its status.effective shows it."""

    max_duration_seconds: Annotated[int, Field(strict=True, ge=1, le=604800), WHOLE] | None = None
    """Maximum of limits.maxDurationSeconds. Absent = no maximum."""
    empty_timeout_seconds: Annotated[int, Field(strict=True, ge=1, le=86400), WHOLE] | None = None
    """Maximum of limits.emptyTimeoutSeconds (0 = without end counts as more). Absent = no maximum."""
    start_timeout_seconds: Annotated[int, Field(strict=True, ge=1, le=604800), WHOLE] | None = None
    """Maximum of limits.startTimeoutSeconds (0 = without end counts as more). Absent = no maximum."""
    concurrent_per_namespace: Annotated[int, Field(strict=True, ge=1, le=100_000), WHOLE] | None = None
    """How many recordings of this class a namespace may have running. Absent = no maximum."""


ResourceAmounts = Annotated[
    dict[str, Quantity],
    Field(max_length=16),
    size_rule(253, "names of resources have at most 253 characters"),
    NO_NULLS,
]


class ContainerResources(ObjectModel):
    """As in a container."""

    requests: ResourceAmounts | None = None
    """What the scheduler sets aside: cpu, memory, ephemeral-storage."""
    limits: ResourceAmounts | None = None
    """What the container may use at most. A CPU limit throttles, and throttling loses packets."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ObjectModel):
    """As in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint. Absent = every key (with operator Exists)."""
    operator: TolerationOperator | None = None
    """How key and value compare. Absent = Equal."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint. Absent = every effect."""
    toleration_seconds: Integer | None = None
    """How long a NoExecute taint is tolerated. Absent = for ever."""


class SpoolVolume(ObjectModel):
    """The volume that captured media waits on until it is in the bucket."""

    size_limit: Quantity | None = None
    """Largest size. Absent = 10Gi."""


class RecorderPod(ObjectModel):
    """How recorder pods are built."""

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$")] | None = None
    """Image of both containers. Absent = the one that the operator was installed with."""
    image_pull_policy: ImagePullPolicy | None = None
    """When to pull it. Absent = IfNotPresent."""
    resources: ContainerResources | None = None
    """Of the container recorder, which captures. Absent = the operator's defaults."""
    agent_resources: ContainerResources | None = None
    """Of the container agent, which uploads. Absent = the operator's defaults."""
    node_selector: LabelValues | None = None
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that do not keep the pod away."""
    priority_class_name: SecretName | None = None
    """PriorityClass of the pod: a preempted recorder loses what the call says meanwhile."""
    pod_annotations: Annotations | None = None
    """Further annotations of the pod."""
    spool: SpoolVolume | None = None
    """The volume for captured media."""


def _default_storage_exists(value: Any) -> bool:
    wanted = value.defaults.storage if value.defaults else None
    return wanted is None or any(storage.name == wanted for storage in value.storages)


class RecordingClassSpec(RuledModel):
    """Where calls live, who may record them, where files go. Administrators own it."""

    cel_rules = (
        Cel(
            "!has(self.defaults) || !has(self.defaults.storage) "
            "|| self.storages.exists(storage, storage.name == self.defaults.storage)",
            "defaults.storage must be the name of one of storages",
            _default_storage_exists,
        ),
    )

    mode: ClassMode = ClassMode.AVAILABLE
    """available, or disabled: no recording starts, running ones go on."""
    calls: Annotated[tuple[CallGrant, ...], Field(max_length=64)] = ()
    """Which namespaces may record which calls. Absent = nobody may record anything."""
    source: ClassSource
    """The SFU whose calls this class records."""
    storages: Annotated[tuple[Storage, ...], Field(min_length=1, max_length=MAX_STORAGES), ListMap("name")]
    """Places for files; the first one is the default unless defaults.storage names another."""
    defaults: ClassDefaults | None = None
    """What Recordings get that do not say otherwise."""
    key_frame_interval_seconds: Annotated[int, Field(strict=True, ge=0, le=3600), WHOLE] | None = None
    """Longest time between two key frames of a picture track. Files can be cut and sought at key frames only, and publishers make them
    on request; each costs its publisher bandwidth for a moment, so tracks are asked one after another. 0 = only when one is needed.
    Absent = 20."""
    recorder: RecorderPod | None = None
    """How recorder pods are built."""
    limits: ClassLimits | None = None
    """Maxima for Recordings."""

    def allows(self, namespace: str, labels: Mapping[str, str], call_id: str) -> bool:
        """Whether a Recording of this namespace (with these labels) may record this call."""
        return any(grant.allows(namespace, labels, call_id) for grant in self.calls)

    @property
    def looks_at_labels(self) -> bool:
        """Whether labels of a namespace decide about its Recordings."""
        return any(grant.namespaces.selector is not None for grant in self.calls)

    def storage_named(self, name: str | None) -> Storage | None:
        """The storage of this name; without a name the default one; None when there is none of this name."""
        wanted = name or (self.defaults.storage if self.defaults else None)
        if wanted is None:
            return self.storages[0]
        return next((storage for storage in self.storages if storage.name == wanted), None)


class StorageStatus(ObjectModel):
    """What the operator found of a storage that it has a Secret for."""

    name: DnsLabel
    """Name of the storage."""
    ready: ConditionStatus
    """Whether everything that shipping a recording takes worked there. Unknown while nobody could try."""
    reason: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Cause in one CamelCase word, for scripts."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Cause and what to do, for people; what the storage keeps less than S3 promises."""
    since: Timestamp
    """When `ready` last changed."""
    checked_at: Timestamp | None = None
    """When the newest check ended. It is repeated when the storage or the Secret changes, every few hours, and sooner while it fails."""
    job: ObjectName | None = None
    """Job in the operator's namespace that checks; it is there for five minutes afterwards. The name stands for the storage and its
    Secret as they were."""


class RecordingClassStatus(ObjectModel):
    """Whether the class works. The operator owns it."""

    observed_generation: Integer | None = None
    """metadata.generation that this status answers."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = ()
    """Ready, SourceReady; StorageReady where the operator has a Secret for a storage."""
    storages: Annotated[tuple[StorageStatus, ...], Field(max_length=MAX_STORAGES), ListMap("name")] = ()
    """Storages that the operator has a Secret for."""


class RecordingClass(KubernetesObject):
    """Where calls live, who may record which of them, and where files go."""

    kind: Literal["RecordingClass"] = "RecordingClass"
    spec: RecordingClassSpec
    status: RecordingClassStatus = RecordingClassStatus()
