"""Manifests, good and bad, with what must happen to them: one table for pydantic and for the real API server.

A row names what it shows. `field` is where both sides must see the fault, `says` what both must say (rules of our own carry one
message for both; for bounds and patterns each side has its own words, so `says` stays empty).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

API = "isotrack.dev/v1alpha1"
LEGAL_TEMPLATE = "{user_id}-{peer_id}.{stream_kind}.{media_kind}"


@dataclass(frozen=True, slots=True)
class Case:
    """One manifest."""

    name: str
    manifest: Mapping[str, Any]
    accepted: bool = True
    field: str = ""
    """Path at which a refusal must point (a prefix of it is enough for lists)."""
    says: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch on the valid manifest of a kind."""

    name: str
    kind: str
    patch: Mapping[str, Any]
    accepted: bool = True
    says: str = ""


@dataclass(frozen=True, slots=True)
class StatusCase:
    """A status written to the valid manifest of a kind."""

    name: str
    kind: str
    status: Mapping[str, Any]
    accepted: bool = True
    field: str = ""


RECORDING: Mapping[str, Any] = {
    "apiVersion": API,
    "kind": "Recording",
    "metadata": {"name": "standup"},
    "spec": {"className": "default", "call": {"id": "team-a_standup"}},
}
CLASS: Mapping[str, Any] = {
    "apiVersion": API,
    "kind": "RecordingClass",
    "metadata": {"name": "contract-test"},
    "spec": {
        "source": {"livekit": {"url": "wss://livekit.example.com", "credentialsSecretName": "livekit"}},
        "storages": [{"name": "archive", "s3": {"bucket": "recordings", "credentials": {"secretName": "archive"}}}],
    },
}
REPORT: Mapping[str, Any] = {
    "apiVersion": API,
    "kind": "RecordingReport",
    "metadata": {"name": "standup-0f1e2d3c-a1"},
    "spec": {"recordingUid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "attempt": 1},
}
VALID: Mapping[str, Mapping[str, Any]] = {"Recording": RECORDING, "RecordingClass": CLASS, "RecordingReport": REPORT}
ABSENT = object()


def altered(base: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a manifest with one value set (or, with ABSENT, removed). Numbers in the path are list positions."""
    out = copy.deepcopy(dict(base))
    *parents, last = path.split(".")
    node: Any = out
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    if value is ABSENT:
        del node[last]
    elif isinstance(node, list):
        node[int(last) : int(last) + 1] = [value]
    else:
        node[last] = value
    return out


def merged(base: Any, patch: Any) -> Any:
    """RFC 7396: what a merge patch makes of a manifest."""
    if not isinstance(patch, Mapping):
        return patch
    out = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def _good(base: Mapping[str, Any], rows: Sequence[tuple[str, str, Any]]) -> list[Case]:
    return [Case(name, altered(base, path, value)) for name, path, value in rows]


def _bad(base: Mapping[str, Any], rows: Sequence[tuple[str, str, Any, str] | tuple[str, str, Any]]) -> list[Case]:
    return [Case(row[0], altered(base, row[1], row[2]), False, row[1], row[3] if len(row) == 4 else "") for row in rows]


_LAYER = {"name": "pictures"}

_RECORDING_GOOD = [
    Case("recording with the least fields", RECORDING),
    Case(
        "recording with every field",
        altered(
            RECORDING,
            "spec",
            {
                "className": "default",
                "call": {"id": "team-a_standup"},
                "outputTypes": ["audio_only", "screenshare_audio_video"],
                "layers": [
                    _LAYER,
                    {"name": "speech", "fileNamePrefix": "s", "outputTypes": ["audio_only"], "container": "mkv", "fileNameTemplate": LEGAL_TEMPLATE},
                ],
                "participants": {"userIds": ["alice", "bob"]},
                "container": "webm",
                "fileNameTemplate": LEGAL_TEMPLATE,
                "storage": "archive",
                "desiredState": "Paused",
                "limits": {"maxDurationSeconds": 3600, "emptyTimeoutSeconds": 0, "startTimeoutSeconds": 0},
            },
        ),
    ),
    *_good(
        RECORDING,
        [
            ("call id of emoji", "spec.call.id", "🎙️ the big call 🎉"),
            ("call id with quotes, slashes and braces", "spec.call.id", "a/b\\c'\"{x}%00"),
            ("call id of 256 emoji", "spec.call.id", "🎉" * 256),
            ("object name of 253 characters", "metadata.name", ".".join(["a" * 62] * 4) + "b"),
            ("100 userIds", "spec.participants.userIds", [f"user-{n}" for n in range(100)]),
            ("userId that looks like a path", "spec.participants.userIds", ["../../etc/passwd"]),
            ("participants without userIds", "spec.participants", {}),
            ("limits without a limit", "spec.limits", {}),
            ("desiredState Stopped from the start", "spec.desiredState", "Stopped"),
            ("template by user and start", "spec.fileNameTemplate", "{user_id}{started_ms}{media_kind}{stream_kind}"),
            ("template with every placeholder and punctuation", "spec.fileNameTemplate",
             "_{prefix}={user_id}~{peer_id}+{stream_kind}@{media_kind},{started_ms}({layer})-{part}.{call_id}{track_id}{codec}"),
            ("eight layers", "spec.layers", [{"name": f"layer-{n}", "fileNameTemplate": LEGAL_TEMPLATE} for n in range(8)]),
            ("layers that differ in their names only", "spec.layers", [{"name": "a", "fileNamePrefix": "x"}, {"name": "b", "fileNamePrefix": "x"}]),
            ("null means absent in a layer, too", "spec.layers", [{"name": "a", "container": None}]),
            ("null means absent", "spec.storage", None),
            ("null means absent in a list, too", "spec.outputTypes", None),
            ("whole number with a point", "spec.limits.maxDurationSeconds", 60.0),
            ("call id of spaces", "spec.call.id", "   "),
            ("longest duration", "spec.limits.maxDurationSeconds", 604800),
            ("unknown metadata is the API server's business", "metadata.annotations", {"example.com/x": "1"}),
        ],
    ),
]  # fmt: skip

_SYNTAX = "fileNameTemplate may hold letters"
_OUTPUTS = "fileNameTemplate must contain {media_kind} and {stream_kind}"
_SESSIONS = "fileNameTemplate must contain {peer_id}, or {user_id} and {started_ms}"

_RECORDING_BAD = _bad(
    RECORDING,
    [
        ("no spec", "spec", ABSENT),
        ("spec is a text", "spec", "yes"),
        ("className null", "spec.className", None),
        ("userId null", "spec.participants.userIds", ["alice", None]),
        ("no className", "spec.className", ABSENT),
        ("empty className", "spec.className", ""),
        ("className with capitals", "spec.className", "Default"),
        ("className is a number", "spec.className", 5),
        ("className of 254 characters", "spec.className", "a" * 254),
        ("no call", "spec.call", ABSENT),
        ("no call id", "spec.call", {}),
        ("empty call id", "spec.call.id", ""),
        ("call id of 257 emoji", "spec.call.id", "🎉" * 257),
        ("call id with a line break", "spec.call.id", "a\nb"),
        ("call id with a NUL", "spec.call.id", "a\x00b"),
        ("call id with DEL", "spec.call.id", "a\x7f"),
        ("call id of a million characters", "spec.call.id", "x" * 1_000_000),
        ("unknown field in spec", "spec.image", "evil"),
        ("unknown field in call", "spec.call.url", "wss://evil.example.com"),
        ("unknown field in limits", "spec.limits.maxDuration", 5),
        ("unknown field beside spec", "extra", {}),
        ("unknown output type", "spec.outputTypes", ["audio"]),
        ("output type twice", "spec.outputTypes", ["audio_only", "audio_only"]),
        ("no output type", "spec.outputTypes", []),
        ("output types as a text", "spec.outputTypes", "audio_only"),
        ("no layer", "spec.layers", []),
        ("nine layers", "spec.layers", [{"name": f"layer-{n}"} for n in range(9)]),
        ("layer twice", "spec.layers", [_LAYER, _LAYER]),
        ("layer without a name", "spec.layers", [{"container": "mkv"}]),
        ("layer with capitals", "spec.layers", [{"name": "Speech"}]),
        ("layer with an illegal template", "spec.layers", [{"name": "a", "fileNameTemplate": "{user_id}"}], _OUTPUTS),
        ("layer with an empty prefix", "spec.layers", [{"name": "a", "fileNamePrefix": ""}]),
        ("layer with a prefix that is a path", "spec.layers", [{"name": "a", "fileNamePrefix": "a/b"}]),
        ("layer with a prefix that hides the file", "spec.layers", [{"name": "a", "fileNamePrefix": ".a"}]),
        ("layer with a prefix of 101 characters", "spec.layers", [{"name": "a", "fileNamePrefix": "a" * 101}]),
        ("layer without any output type", "spec.layers", [{"name": "a", "outputTypes": []}]),
        ("layer with an unknown field", "spec.layers", [{"name": "a", "storage": "archive"}]),
        ("101 userIds", "spec.participants.userIds", [f"user-{n}" for n in range(101)]),
        ("userId twice", "spec.participants.userIds", ["alice", "bob", "alice"]),
        ("empty allowlist", "spec.participants.userIds", []),
        ("empty userId", "spec.participants.userIds", [""]),
        ("userId of 257 characters", "spec.participants.userIds", ["x" * 257]),
        ("userId is a number", "spec.participants.userIds", [7]),
        ("container mp4", "spec.container", "mp4"),
        ("container is a boolean", "spec.container", True),
        ("desiredState in lower case", "spec.desiredState", "stopped"),
        ("duration as a text", "spec.limits.maxDurationSeconds", "60"),
        ("duration zero", "spec.limits.maxDurationSeconds", 0),
        ("duration negative", "spec.limits.maxDurationSeconds", -1),
        ("duration over a week", "spec.limits.maxDurationSeconds", 604801),
        ("duration with a fraction", "spec.limits.maxDurationSeconds", 1.5),
        ("duration as a boolean", "spec.limits.maxDurationSeconds", True),
        ("duration beyond 64 bits", "spec.limits.maxDurationSeconds", 10**30),
        ("start timeout over a week", "spec.limits.startTimeoutSeconds", 604801),
        ("empty timeout over a day", "spec.limits.emptyTimeoutSeconds", 86401),
        ("storage with an underscore", "spec.storage", "my_archive"),
        ("storage of 64 characters", "spec.storage", "a" * 64),
        ("template with an unknown placeholder", "spec.fileNameTemplate", LEGAL_TEMPLATE + "{nonsense}", _SYNTAX),
        ("template with a path separator", "spec.fileNameTemplate", "a/" + LEGAL_TEMPLATE, _SYNTAX),
        ("template that climbs", "spec.fileNameTemplate", "../" + LEGAL_TEMPLATE, _SYNTAX),
        ("template with a backslash", "spec.fileNameTemplate", "a\\" + LEGAL_TEMPLATE, _SYNTAX),
        ("template that hides the file", "spec.fileNameTemplate", "." + LEGAL_TEMPLATE, _SYNTAX),
        ("template that looks like an option", "spec.fileNameTemplate", "-" + LEGAL_TEMPLATE, _SYNTAX),
        ("template with an open brace", "spec.fileNameTemplate", LEGAL_TEMPLATE + "{", _SYNTAX),
        ("template with an empty placeholder", "spec.fileNameTemplate", LEGAL_TEMPLATE + "{}", _SYNTAX),
        ("template with a space", "spec.fileNameTemplate", "my " + LEGAL_TEMPLATE, _SYNTAX),
        ("template with a line break at its end", "spec.fileNameTemplate", LEGAL_TEMPLATE + "\n", _SYNTAX),
        ("template with emoji", "spec.fileNameTemplate", "🎉" + LEGAL_TEMPLATE, _SYNTAX),
        ("template without media_kind", "spec.fileNameTemplate", "{peer_id}{stream_kind}", _OUTPUTS),
        ("template without stream_kind", "spec.fileNameTemplate", "{peer_id}{media_kind}", _OUTPUTS),
        ("template without a session", "spec.fileNameTemplate", "{user_id}{stream_kind}{media_kind}", _SESSIONS),
        ("template of literal text", "spec.fileNameTemplate", "meeting", _OUTPUTS),
        ("template of 513 characters", "spec.fileNameTemplate", LEGAL_TEMPLATE + "x" * (513 - len(LEGAL_TEMPLATE))),
        ("empty template", "spec.fileNameTemplate", ""),
        ("object name with capitals", "metadata.name", "Standup"),
        ("object name of 254 characters", "metadata.name", "a" * 254),
        ("wrong version", "apiVersion", "isotrack.dev/v9"),
    ],
)  # fmt: skip

_S3 = "spec.storages.0.s3"
_WHO = f"{_S3}.credentials"
_CA = f"{_S3}.caCertificate"
_ROLE = {"serviceAccountName": "recorder", "roleArn": "arn:aws:iam::123456789012:role/recorder"}
_LABELS = {"team": "a"}
_CLASS_GOOD = [
    Case("class with the least fields", CLASS),
    Case(
        "class with every field",
        altered(
            CLASS,
            "spec",
            {
                "mode": "available",
                "calls": [
                    {"namespaces": {"names": ["team-a"]}, "ids": ["{namespace}_*", "demo-?"]},
                    {"namespaces": {"selector": {"matchLabels": _LABELS}}, "ids": ["*"]},
                ],
                "source": {
                    "livekit": {
                        "url": "http://10.0.0.1:7880/base",
                        "credentialsSecretName": "livekit.keys",
                        "quality": "medium",
                    }
                },
                "storages": [
                    {
                        "name": "archive",
                        "s3": {
                            "bucket": "my.recordings-1",
                            "prefix": "prod/2026",
                            "region": "eu-central-1",
                            "endpoint": "https://s3.example.com:9000",
                            "forcePathStyle": True,
                            "serverSideEncryption": {
                                "mode": "aws:kms",
                                "kmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/1a2b-3c",
                            },
                            "credentials": {"secretName": "archive"},
                        },
                    },
                    {"name": "other", "s3": {"bucket": "other", "credentials": {"secretName": "other"}}},
                ],
                "defaults": {
                    "outputTypes": ["audio_video"],
                    "container": "mkv",
                    "fileNameTemplate": LEGAL_TEMPLATE,
                    "layers": [{"name": "whole"}, {"name": "speech", "outputTypes": ["audio_only"]}],
                    "storage": "other",
                    "limits": {"maxDurationSeconds": 7200},
                },
                "keyFrameIntervalSeconds": 10,
                "recorder": {
                    "image": "registry.example.com:5000/isotrack/recorder:1@sha256:" + "0" * 64,
                    "imagePullPolicy": "Always",
                    "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
                    "agentResources": {"requests": {"cpu": 1}},
                    "nodeSelector": {"kubernetes.io/arch": "amd64"},
                    "tolerations": [{"key": "media", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
                    "priorityClassName": "recorders",
                    "podAnnotations": {"example.com/scrape": "true"},
                    "spool": {"sizeLimit": "20Gi"},
                },
                "limits": {
                    "maxDurationSeconds": 14400,
                    "emptyTimeoutSeconds": 600,
                    "startTimeoutSeconds": 3600,
                    "concurrentPerNamespace": 20,
                },
            },
        ),
    ),
    *_good(
        CLASS,
        [
            ("every namespace, every call", "spec.calls", [{"namespaces": {"selector": {}}, "ids": ["*"]}]),
            ("call pattern of emoji", "spec.calls", [{"namespaces": {"names": ["a"]}, "ids": ["🎉*"]}]),
            ("nobody may record", "spec.calls", []),
            ("disabled", "spec.mode", "disabled"),
            ("lowest layer", "spec.source.livekit.quality", "low"),
            ("key frames only when needed", "spec.keyFrameIntervalSeconds", 0),
            ("quantity as a number", "spec.recorder.spool.sizeLimit", 1000000000),
            ("quantity with a fraction", "spec.recorder.spool.sizeLimit", "1.5Gi"),
            ("prefix with a slash at its end", f"{_S3}.prefix", "recordings/"),
            ("null in place of a default", "spec.mode", None),
            ("null in place of a list", "spec.calls", None),
            ("null in place of a boolean", f"{_S3}.forcePathStyle", None),
            ("bucket as a host name", f"{_S3}.forcePathStyle", False),
            ("encryption with keys of the service", f"{_S3}.serverSideEncryption", {"mode": "AES256"}),
            ("encryption with the default key", f"{_S3}.serverSideEncryption", {"mode": "aws:kms"}),
            ("identity of the platform", _WHO, {"ambient": {"serviceAccountName": "recorder"}}),
            (
                "identity beside the operator's key",
                _WHO,
                {"ambient": {"serviceAccountName": "a.b"}, "operatorSecretName": "archive"},
            ),
            ("authority in a ConfigMap", _CA, {"configMapName": "internal-ca"}),
            ("authority in a Secret, under a key of its own", _CA, {"secretName": "internal-ca", "key": "tls-ca.pem"}),
            ("role by web identity", _WHO, {"webIdentity": _ROLE}),
            (
                "role of another service",
                _WHO,
                {
                    "webIdentity": {
                        **_ROLE,
                        "roleArn": "arn:minio:iam:::role/idmp-k8s",
                        "audience": "https://minio.example.com",
                        "stsEndpoint": "https://minio:9000/",
                    }
                },
            ),
            ("null in place of a secret", _WHO, {"secretName": None, "webIdentity": _ROLE}),
            ("null in a map", "spec.recorder.nodeSelector", {"a": None}),
            ("quantity with a point", "spec.recorder.spool.sizeLimit", 1.0),
            ("no toleration", "spec.recorder.tolerations", []),
        ],
    ),
]
_CLASS_BAD = _bad(
    CLASS,
    [
        ("no source", "spec.source", ABSENT),
        ("source without a server", "spec.source", {}),
        ("unknown kind of source", "spec.source.zoom", {"url": "https://zoom.example.com"}),
        ("source url without a scheme", "spec.source.livekit.url", "livekit.example.com"),
        ("source url with a password", "spec.source.livekit.url", "wss://me:secret@livekit.example.com"),
        ("source url with a query", "spec.source.livekit.url", "wss://livekit.example.com?x=1"),
        ("source url with a space", "spec.source.livekit.url", "wss://livekit example"),
        ("source url of a file", "spec.source.livekit.url", "file:///etc/passwd"),
        ("source without credentials", "spec.source.livekit.credentialsSecretName", ABSENT),
        ("secret name with a slash", "spec.source.livekit.credentialsSecretName", "other/livekit"),
        ("no storages", "spec.storages", ABSENT),
        ("empty storages", "spec.storages", []),
        ("storage name twice", "spec.storages", [CLASS["spec"]["storages"][0]] * 2),
        ("17 storages", "spec.storages", [{**CLASS["spec"]["storages"][0], "name": f"s{n}"} for n in range(17)]),
        ("storage without a kind", "spec.storages.0.s3", ABSENT),
        ("bucket of two characters", f"{_S3}.bucket", "ab"),
        ("bucket with a slash", f"{_S3}.bucket", "a/bucket"),
        ("prefix that climbs", f"{_S3}.prefix", "../other"),
        ("prefix that starts with a slash", f"{_S3}.prefix", "/recordings"),
        ("prefix with an empty folder", f"{_S3}.prefix", "a//b"),
        ("endpoint without a scheme", f"{_S3}.endpoint", "s3.example.com"),
        ("forcePathStyle as a text", f"{_S3}.forcePathStyle", "true"),
        ("forcePathStyle as a number", f"{_S3}.forcePathStyle", 1),
        ("encryption without a mode", f"{_S3}.serverSideEncryption", {"kmsKeyId": "alias/a"}),
        ("unknown encryption", f"{_S3}.serverSideEncryption", {"mode": "aws:fsx"}),
        ("key without KMS", f"{_S3}.serverSideEncryption", {"mode": "AES256", "kmsKeyId": "a"}, "kmsKeyId belongs to mode aws:kms"),
        ("key id with a space", f"{_S3}.serverSideEncryption", {"mode": "aws:kms", "kmsKeyId": "a key"}),
        ("checkpointSeconds below 0", f"{_S3}.checkpointSeconds", -1),
        ("checkpointSeconds of six minutes", f"{_S3}.checkpointSeconds", 360),
        ("storage without credentials", f"{_S3}.credentials", ABSENT),
        ("inline credentials", f"{_WHO}.accessKeyId", "AKIA"),
        ("an authority nowhere", _CA, {}, "exactly one of configMapName and secretName"),
        ("an authority at two places", _CA, {"configMapName": "a", "secretName": "b"}, "exactly one of configMapName and secretName"),
        ("nobody in particular", _WHO, {}, "exactly one of secretName, ambient and webIdentity"),
        ("only the operator's key", _WHO, {"operatorSecretName": "archive"}, "exactly one of secretName, ambient and webIdentity"),
        ("a secret and an identity", f"{_WHO}.ambient", {"serviceAccountName": "recorder"}, "exactly one of secretName, ambient and webIdentity"),
        ("two identities", _WHO, {"ambient": {"serviceAccountName": "a"}, "webIdentity": _ROLE}, "exactly one of secretName, ambient and webIdentity"),
        ("identity without an account", _WHO, {"ambient": {}}),
        ("account of another namespace", _WHO, {"ambient": {"serviceAccountName": "team-b/recorder"}}),
        ("web identity without an account", _WHO, {"webIdentity": {"roleArn": _ROLE["roleArn"]}}),
        ("web identity without a role", _WHO, {"webIdentity": {"serviceAccountName": "recorder"}}),
        ("role that is no ARN", _WHO, {"webIdentity": {**_ROLE, "roleArn": "the-role-of-the-recorder"}}),
        ("role with a space", _WHO, {"webIdentity": {**_ROLE, "roleArn": "arn:aws:iam::1:role/a b"}}),
        ("empty audience", _WHO, {"webIdentity": {**_ROLE, "audience": ""}}),
        ("token service with a password", _WHO, {"webIdentity": {**_ROLE, "stsEndpoint": "https://me:secret@sts.example.com"}}),
        ("default storage that does not exist", "spec.defaults", {"storage": "nowhere"}, "defaults.storage must be the name of one"),
        ("illegal default template", "spec.defaults.fileNameTemplate", "{user_id}", _OUTPUTS),
        ("illegal template of a default layer", "spec.defaults.layers", [{"name": "a", "fileNameTemplate": "{user_id}"}], _OUTPUTS),
        ("default layer twice", "spec.defaults.layers", [_LAYER, _LAYER]),
        ("unknown layer", "spec.source.livekit.quality", "best"),
        ("key frame interval over an hour", "spec.keyFrameIntervalSeconds", 3601),
        ("key frame interval negative", "spec.keyFrameIntervalSeconds", -1),
        ("key frame interval as a text", "spec.keyFrameIntervalSeconds", "20s"),
        ("unknown mode", "spec.mode", "on"),
        ("grant without namespaces", "spec.calls", [{"ids": ["*"]}]),
        ("grant to nobody", "spec.calls", [{"namespaces": {}, "ids": ["*"]}], "name namespaces in names"),
        ("grant to an empty list of names", "spec.calls", [{"namespaces": {"names": []}, "ids": ["*"]}]),
        ("grant of nothing", "spec.calls", [{"namespaces": {"names": ["a"]}, "ids": []}]),
        ("grant with an unknown placeholder", "spec.calls", [{"namespaces": {"names": ["a"]}, "ids": ["{user}"]}],
         "a call id pattern may hold"),
        ("grant with a line break", "spec.calls", [{"namespaces": {"names": ["a"]}, "ids": ["a\nb"]}], "a call id pattern may hold"),
        ("namespace with a dot", "spec.calls", [{"namespaces": {"names": ["a.b"]}, "ids": ["*"]}]),
        ("label value of 64 characters", "spec.calls", [{"namespaces": {"selector": {"matchLabels": {"a": "b" * 64}}}, "ids": ["*"]}]),
        ("label key of 318 characters", "spec.calls", [{"namespaces": {"selector": {"matchLabels": {"a" * 318: "b"}}}, "ids": ["*"]}],
         "keys of labels have at most 317 characters"),
        ("image with a space", "spec.recorder.image", "a b"),
        ("pod template", "spec.recorder.podTemplate", {}),
        ("unknown pull policy", "spec.recorder.imagePullPolicy", "Sometimes"),
        ("quantity in words", "spec.recorder.spool.sizeLimit", "ten gigabytes"),
        ("quantity as a float", "spec.recorder.spool.sizeLimit", 0.5),
        ("quantity negative", "spec.recorder.spool.sizeLimit", "-1Gi"),
        ("quantity beyond 64 bits", "spec.recorder.spool.sizeLimit", 2**63),
        ("quantity as a negative number", "spec.recorder.spool.sizeLimit", -5),
        ("quantity in scientific notation", "spec.recorder.spool.sizeLimit", "1e3"),
        ("quantity as a boolean", "spec.recorder.spool.sizeLimit", True),
        ("unknown taint effect", "spec.recorder.tolerations", [{"effect": "NoWay"}]),
        ("33 tolerations", "spec.recorder.tolerations", [{"key": f"k{n}"} for n in range(33)]),
        ("17 resources", "spec.recorder.resources.limits", {f"r{n}": 1 for n in range(17)}),
        ("no recording at all per namespace", "spec.limits.concurrentPerNamespace", 0),
    ],
)  # fmt: skip

_REPORT_CASES = [
    Case("report with the least fields", REPORT),
    *_bad(
        REPORT,
        [
            ("report without a recording", "spec.recordingUid", ABSENT),
            ("report of attempt 0", "spec.attempt", 0),
            ("report with an unknown field", "spec.pod", "x"),
        ],
    ),
]

CASES = (*_RECORDING_GOOD, *_RECORDING_BAD, *_CLASS_GOOD, *_CLASS_BAD, *_REPORT_CASES)

CHANGES = (
    Change("nothing changes", "Recording", {"spec": {"className": "default"}}),
    Change("another class", "Recording", {"spec": {"className": "other"}}, False, "className cannot change"),
    Change("another call", "Recording", {"spec": {"call": {"id": "other"}}}, False, "call.id cannot change"),
    Change("stop", "Recording", {"spec": {"desiredState": "Stopped"}}),
    Change("pause", "Recording", {"spec": {"desiredState": "Paused"}}),
    Change("narrow the allowlist", "Recording", {"spec": {"participants": {"userIds": ["alice"]}}}),
    Change("other outputs, which come too late but stay appliable", "Recording", {"spec": {"outputTypes": ["audio_only"]}}),
    Change("grow a limit", "Recording", {"spec": {"limits": {"maxDurationSeconds": 7200}}}),
    Change("illegal template", "Recording", {"spec": {"fileNameTemplate": "{user_id}"}}, False, _OUTPUTS),
    Change("class gets another server", "RecordingClass", {"spec": {"source": {"livekit": {"url": "ws://10.0.0.2:7880"}}}}),
    Change("report moves to another attempt", "RecordingReport", {"spec": {"attempt": 2}}, False, "attempt cannot change"),
    Change("report moves to another recording", "RecordingReport", {"spec": {"recordingUid": "another-recording"}}, False,
           "recordingUid cannot change"),
)  # fmt: skip

_NOW = "2026-11-21T06:30:00Z"
_FILE = {
    "name": "a.mkv",
    "outputType": "audio_video",
    "userId": "🎉" * 256,
    "peerId": "PA_1",
    "durationMs": 1000,
    "bytes": 12,
    "startOffsetMs": 0,
}
_CONDITION = {"type": "Ready", "status": "True", "lastTransitionTime": _NOW, "reason": "Armed", "message": ""}
_STORED = {"name": "archive", "ready": "True", "reason": "StorageAvailable", "since": _NOW}
_ATTEMPT = {"n": 1, "job": "standup-0f1e2d3c-a1", "startedAt": _NOW}
_TRACK = {"id": "TR_1/1", "trackId": "TR_1", "userId": "alice", "peerId": "PA_1", "source": "camera"}
_UNRECORDED = {"id": "TR_1", "userId": "alice", "source": "camera", "reason": "CodecUnsupported"}

STATUS_CASES = (
    StatusCase("empty status", "Recording", {}),
    StatusCase(
        "full status",
        "Recording",
        {
            "observedGeneration": 1,
            "phase": "Uploaded",
            "conditions": [_CONDITION, {**_CONDITION, "type": "Stalled", "status": "Unknown"}],
            "startedAt": _NOW,
            "stoppedAt": "2026-11-21T06:40:00.123456789Z",
            "durationSeconds": 600,
            "startReason": "Requested",
            "stopReason": {"reason": "CallEnded", "message": "the call ended"},
            "stopRequest": {"time": _NOW, "by": "desiredState"},
            "attempts": [{**_ATTEMPT, "podUid": "x", "endedAt": _NOW, "result": "Finished", "reason": "Uploaded", "message": ""}],
            "effective": {
                "layers": [
                    {
                        "name": "default",
                        "fileNamePrefix": "default",
                        "outputTypes": ["audio_video"],
                        "container": "mkv",
                        "fileNameTemplate": "{peer_id}",
                    }
                ],
                "storage": "archive",
                "limits": {"maxDurationSeconds": 1, "emptyTimeoutSeconds": 0, "startTimeoutSeconds": 0},
            },
            "totals": {"participants": 2, "files": 1, "bytes": 2**50, "lostSeconds": 0},
            "files": [_FILE],
            "transitions": [{"seq": 1, "phase": "Invoked", "time": _NOW, "reason": "Starting"}],
            "manifest": {"uri": "s3://recordings/x/recording.json", "digest": "sha256:" + "0" * 64},
            "callSid": "RM_1",
            "epochMs": 1_795_000_000_000,
        },
    ),
    StatusCase("unknown phase", "Recording", {"phase": "Done"}, False, "status.phase"),
    StatusCase("local time", "Recording", {"startedAt": "2026-11-21T06:30:00+01:00"}, False, "status.startedAt"),
    StatusCase("time in other digits", "Recording", {"startedAt": "２０２６-11-21T06:30:00Z"}, False, "status.startedAt"),
    StatusCase("51 files", "Recording", {"files": [{**_FILE, "name": f"{n}.mkv"} for n in range(51)]}, False, "status.files"),
    StatusCase("file twice", "Recording", {"files": [_FILE, _FILE]}, False, "status.files"),
    StatusCase("condition twice", "Recording", {"conditions": [_CONDITION, _CONDITION]}, False, "status.conditions"),
    StatusCase("reason of two words", "Recording", {"conditions": [{**_CONDITION, "reason": "Not ready"}]}, False, "status.conditions"),
    StatusCase("attempt 0", "Recording", {"attempts": [{**_ATTEMPT, "n": 0}]}, False, "status.attempts"),
    StatusCase("unknown field", "Recording", {"secret": "x"}, False, "status.secret"),
    StatusCase("digest of another kind", "Recording", {"manifest": {"uri": "s3://b/k", "digest": "md5:0"}}, False, "status.manifest"),
    StatusCase("class status", "RecordingClass", {"observedGeneration": 1, "conditions": [_CONDITION]}),
    StatusCase("class status with storages", "RecordingClass", {"storages": [
        {"name": "archive", "ready": "Unknown", "reason": "StorageChecking", "since": _NOW, "job": "isotrack-check-0-0"},
        {"name": "other", "ready": "False", "reason": "StorageRefused", "message": "m", "since": _NOW, "checkedAt": _NOW},
    ]}),
    StatusCase("storage twice", "RecordingClass", {"storages": [_STORED, _STORED]}, False, "status.storages"),
    StatusCase("storage that is perhaps ready", "RecordingClass", {"storages": [{**_STORED, "ready": "Maybe"}]}, False, "status.storages"),
    StatusCase("storage without a reason", "RecordingClass", {"storages": [{**_STORED, "reason": ""}]}, False, "status.storages"),
    StatusCase("full report", "RecordingReport", {
        "phase": "Capturing", "callSid": "RM_1", "armedAtMs": 1, "firstPacketAtMs": 2, "epochMs": 1, "stopReason": "Drained",
        "reason": "Drained", "message": "m", "participants": 3, "totals": {"files": 1}, "lastUpdate": _NOW,
        "tracks": [{**_TRACK, "codec": "vp8", "muted": False, "ended": True, "packets": 1, "width": 1280, "height": 720}],
        "files": [{**_FILE, "layer": "default", "part": 1, "sha256": "0" * 64}],
        "storage": {"ready": False, "reason": "StorageRefused", "message": "no such bucket"},
        "unrecorded": [{**_UNRECORDED, "message": "video offered as H266"}],
    }),
    StatusCase("50 unrecorded tracks", "RecordingReport", {"unrecorded": [{**_UNRECORDED, "id": str(n)} for n in range(50)]}),
    StatusCase("51 unrecorded tracks", "RecordingReport", {"unrecorded": [{**_UNRECORDED, "id": str(n)} for n in range(51)]}, False,
               "status.unrecorded"),
    StatusCase("unrecorded track twice", "RecordingReport", {"unrecorded": [_UNRECORDED, _UNRECORDED]}, False, "status.unrecorded"),
    StatusCase("unrecorded track of nobody", "RecordingReport", {"unrecorded": [{**_UNRECORDED, "userId": ""}]}, False, "status.unrecorded"),
    StatusCase("200 tracks", "RecordingReport", {"tracks": [{**_TRACK, "id": str(n)} for n in range(200)]}),
    StatusCase("201 tracks", "RecordingReport", {"tracks": [{**_TRACK, "id": str(n)} for n in range(201)]}, False, "status.tracks"),
    StatusCase("unknown track source", "RecordingReport", {"tracks": [{**_TRACK, "source": "hologram"}]}, False, "status.tracks"),
)  # fmt: skip
