"""Edits of a Recording that come too late are taken, have no effect, and the API server says so. None is ever refused."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from support.crds import install_crds
from support.rawkube import APPLY_PATCH, MERGE_PATCH, Answer, RawKube

ROOT = Path(__file__).resolve().parents[2]
NOW = "2026-11-21T06:30:00Z"
FINISHED = {"type": "Finished", "status": "True", "lastTransitionTime": NOW, "reason": "Uploaded", "message": ""}
STOPPED = {"stopRequest": {"time": NOW, "by": "desiredState"}}
OVER = {"conditions": [FINISHED]}
STARTED = {
    "effective": {
        "layers": [
            {
                "name": "default",
                "fileNamePrefix": "default",
                "outputTypes": ["audio_video"],
                "container": "mkv",
                "fileNameTemplate": "{peer_id}{media_kind}{stream_kind}",
            }
        ],
        "storage": "archive",
        "limits": {"maxDurationSeconds": 60, "emptyTimeoutSeconds": 60, "startTimeoutSeconds": 60},
    }
}


class Cluster(Protocol):
    """What this test needs of the running stack."""

    kubeconfig: Path


class Late:
    """Recordings of this test in a given state."""

    def __init__(self, kube: RawKube, path: str) -> None:
        self.kube, self.path = kube, path

    def edit(self, spec: Mapping[str, Any], status: Mapping[str, Any], patch: Mapping[str, Any]) -> Answer:
        """Edit a recording that is in this state; the answer is that of the edit.

        An operator may be running and move the recording on before the edit arrives: then the edit is made again on a fresh one.
        """
        for _ in range(20):
            answer = self._edit_once(spec, status, patch)
            if _state(answer.body.get("status", {})) == _state(status):
                return answer
        raise AssertionError(f"the recording never kept the state {status}")

    def _edit_once(self, spec: Mapping[str, Any], status: Mapping[str, Any], patch: Mapping[str, Any]) -> Answer:
        name = f"late-{uuid.uuid4().hex[:8]}"
        target = f"{self.path}/{name}"
        manifest: dict[str, Any] = {
            "apiVersion": "isotrack.dev/v1alpha1",
            "kind": "Recording",
            "metadata": {"name": name},
            "spec": {"className": "none-of-this-name", "call": {"id": name}, **spec},
        }
        assert self.kube.request("POST", self.path, manifest).ok
        try:
            answer = self.kube.request("PATCH", f"{target}/status", {"status": status}, content_type=MERGE_PATCH)
            assert answer.ok, answer.message
            return self.kube.request("PATCH", target, {"spec": patch}, content_type=MERGE_PATCH)
        finally:
            self.kube.request("DELETE", target)


def _state(status: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """What the policy looks at: over, stopped, started."""
    over = any(item["type"] == "Finished" and item["status"] == "True" for item in status.get("conditions", ()))
    return over, "stopRequest" in status, "effective" in status


@pytest.fixture(scope="module")
def late(cluster: Cluster) -> Iterator[Late]:
    """A namespace, and the policy under a name of its own, so that it does not depend on what is installed."""
    sys.path.insert(0, str(ROOT / "dev"))
    from isotrack_dev.chart import render_files

    namespace = f"late-{uuid.uuid4().hex[:8]}"
    documents = list(yaml.safe_load_all(render_files({"fullnameOverride": namespace}, namespace)["warnings.yaml"]))
    group = "/apis/admissionregistration.k8s.io/v1"
    paths = {
        "ValidatingAdmissionPolicy": f"{group}/validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding": f"{group}/validatingadmissionpolicybindings",
    }
    with RawKube(cluster.kubeconfig) as kube:
        install_crds(kube)
        assert kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).ok
        try:
            for document in documents:
                target = f"{paths[document['kind']]}/{document['metadata']['name']}"
                applied = kube.request(
                    "PATCH", target, document, content_type=APPLY_PATCH, fieldManager="test", force="true"
                )
                assert applied.ok, applied.message
            late = Late(kube, f"/apis/isotrack.dev/v1alpha1/namespaces/{namespace}/recordings")
            _wait_until_in_force(late)
            yield late
        finally:
            for document in documents:
                kube.request("DELETE", f"{paths[document['kind']]}/{document['metadata']['name']}")
            kube.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _wait_until_in_force(late: Late) -> None:
    """The API server compiles policies in the background and offers no sign of it but their effect."""
    deadline = time.monotonic() + 60
    while not late.edit({}, STOPPED, {"desiredState": "Paused"}).warnings:
        assert time.monotonic() < deadline, "the policy never came into force"
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("spec", "status", "patch", "warning"),
    [
        pytest.param({}, {}, {"desiredState": "Paused"}, None, id="pause in time"),
        pytest.param({}, STARTED, {"desiredState": "Stopped"}, None, id="stop in time"),
        pytest.param({}, {}, {"outputTypes": ["audio_only"]}, None, id="other outputs before the start"),
        pytest.param({}, {}, {"limits": {"maxDurationSeconds": 7200}}, None, id="limits before the start"),
        pytest.param({}, STARTED, {"participants": {"userIds": ["alice"]}}, None, id="allowlist while running"),
        pytest.param({}, STARTED, {"limits": {"maxDurationSeconds": 7200}}, "were taken when this recording started", id="limits while running"),
        pytest.param({}, STARTED, {"outputTypes": ["audio_only"]}, "were taken when this recording started", id="outputs while running"),
        pytest.param({}, STARTED, {"layers": [{"name": "speech"}]}, "were taken when this recording started", id="layers while running"),
        pytest.param({}, STARTED, {"storage": "other"}, "were taken when this recording started", id="storage while running"),
        pytest.param({"desiredState": "Stopped"}, STOPPED, {"desiredState": "Running"},
                     f"desiredState: Running has no effect: this recording was stopped at {NOW}", id="run again after a stop"),
        pytest.param({"desiredState": "Stopped"}, STOPPED, {"desiredState": None}, "a stop is final", id="take the stop back"),
        pytest.param({"desiredState": "Stopped"}, STOPPED, {"desiredState": "Paused"}, "a stop is final", id="pause after a stop"),
        pytest.param({}, OVER, {"desiredState": "Stopped"}, "desiredState: Stopped has no effect: this recording is not running",
                     id="stop what is over"),
        pytest.param({}, OVER, {"desiredState": "Paused"}, "desiredState: Paused has no effect: this recording is not running",
                     id="pause what is over"),
        pytest.param({}, OVER, {"limits": {"maxDurationSeconds": 7200}}, "the recording is over", id="edit what is over"),
        pytest.param({"desiredState": "Stopped"}, {**OVER, **STOPPED}, {"desiredState": "Running"}, "the recording is over",
                     id="run again what is over"),
        pytest.param({"desiredState": "Stopped"}, {**OVER, **STOPPED, **STARTED}, {"desiredState": "Stopped"}, None,
                     id="the same manifest again"),
    ],
)  # fmt: skip
def test_edit_is_taken_and_warned_about_when_it_comes_too_late(
    late: Late, spec: dict[str, Any], status: dict[str, Any], patch: dict[str, Any], warning: str | None
) -> None:
    answer = late.edit(spec, status, patch)
    assert answer.ok, answer.message
    if warning is None:
        assert answer.warnings == ()
    else:
        assert len(answer.warnings) >= 1
        assert all(any(part in text for part in (warning, "late-edits")) for text in answer.warnings)
        assert any(warning in text for text in answer.warnings), answer.warnings
