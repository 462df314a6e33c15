"""Every object that the operator makes, as it goes over the wire."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.conditions import Condition, ConditionStatus
from isotrack_api.credentials import CaCertificate, StorageCredentials
from isotrack_api.intent import Intent
from isotrack_api.manifest import StopReason
from isotrack_api.recording import Phase, Transition
from isotrack_api.recording_class import RecorderPod
from isotrack_operator.builders import names
from isotrack_operator.builders.check import NAME_VARIABLE, build_check
from isotrack_operator.builders.event import build_event, build_warning
from isotrack_operator.builders.job import INTENT_VARIABLE, build_job
from isotrack_operator.builders.lease import build_claim
from isotrack_operator.builders.parts import escaped, unescaped
from isotrack_operator.builders.rbac import build_role, build_role_binding, build_service_account
from isotrack_operator.builders.report import build_report
from isotrack_operator.builders.storage_access import SKIP_CONTAINERS, access_to, annotations_for
from isotrack_operator.builders.token import build_token_secret
from isotrack_operator.builders.worker import build_finaliser, build_sweep
from isotrack_operator.resolve import destination_of, intent_of
from support.golden import Golden
from support.operated import UID, a_class, a_recording

Json = dict[str, Any]
RECORDING = a_recording(participants={"userIds": ["alice", "bob $(HOME)"]}).build()
CLASS = a_class()
CREDENTIALS = StorageCredentials(secret_name="archive")
AMBIENT = StorageCredentials.model_validate({"ambient": {"serviceAccountName": "recorder"}})
ROLE = StorageCredentials.model_validate(
    {
        "webIdentity": {
            "serviceAccountName": "recorder",
            "roleArn": "arn:aws:iam::123456789012:role/recorder",
            "audience": "https://sts.example.com",
            "stsEndpoint": "https://sts.example.com",
        }
    }
)
INTENT = intent_of(RECORDING, CLASS, CLASS.spec.storages[0], 1)
ODD_POD = RecorderPod.model_validate(
    {
        "image": "registry.example.com/recorder@sha256:0123",
        "imagePullPolicy": "Always",
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "2Gi"}},
        "nodeSelector": {"pool": "media"},
        "tolerations": [
            {"key": "media", "operator": "Exists"},
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 5,
            },
        ],
        "priorityClassName": "media",
        "podAnnotations": {"example.com/a": "b", "karpenter.sh/do-not-disrupt": "false"},
        "spool": {"sizeLimit": "50Gi"},
    }
)


def a_built_job(
    pod: RecorderPod | None = None, credentials: StorageCredentials = CREDENTIALS, pull_secrets: tuple[str, ...] = ()
) -> dict[str, object]:
    return build_job(
        RECORDING,
        INTENT,
        pod=pod or RecorderPod(),
        image="isotrack-recorder:1",
        pull_secrets=pull_secrets,
        credentials=credentials,
    )


@pytest.mark.parametrize(("desired", "paused"), [(None, False), ("Running", False), ("Paused", True)])
def test_an_attempt_begins_as_the_recording_wants_it_now(desired: str | None, paused: bool) -> None:
    """Also where the attempt before froze its intent while the recording was still running."""
    spec = {"desiredState": desired} if desired else {}
    recording = a_recording(participants={"userIds": ["alice"]}, **spec).build()
    fresh = intent_of(recording, CLASS, CLASS.spec.storages[0], 1)
    successor = intent_of(recording, CLASS, CLASS.spec.storages[0], 2, previous=INTENT.to_json())
    assert (fresh.paused, successor.paused) == (paused, paused)


def test_job_of_a_plain_class(golden: Golden) -> None:
    golden.check("job.yaml", a_built_job())


def test_older_clusters_get_no_restart_rules() -> None:
    """They would refuse the pod for its container's restartPolicy."""
    job = build_job(
        RECORDING, INTENT, pod=RecorderPod(), image="isotrack-recorder:1", credentials=CREDENTIALS, restart_rules=False
    )
    (agent,) = job["spec"]["template"]["spec"]["containers"]
    assert not {"restartPolicy", "restartPolicyRules"} & agent.keys()


@pytest.mark.parametrize("credentials", [CREDENTIALS, AMBIENT, ROLE], ids=["key", "ambient", "web-identity"])
@pytest.mark.parametrize(
    ("ca", "source"),
    [
        (
            CaCertificate(config_map_name="internal-ca"),
            {"configMap": {"name": "internal-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ),
        (
            CaCertificate(secret_name="internal-ca", key="tls-ca.pem"),
            {"secret": {"secretName": "internal-ca", "items": [{"key": "tls-ca.pem", "path": "ca.crt"}]}},
        ),
    ],
    ids=["config-map", "secret"],
)
def test_an_authority_of_ones_own_is_a_file_of_the_agent_alone(
    credentials: StorageCredentials, ca: CaCertificate, source: dict[str, Any]
) -> None:
    """However the agent proves who it is; the pod is otherwise the same."""
    built = build_job(RECORDING, INTENT, pod=RecorderPod(), image="isotrack-recorder:1", credentials=credentials, ca=ca)
    finaliser = build_finaliser(
        RECORDING, INTENT, StopReason.REQUESTED, pod=RecorderPod(), image="x", credentials=credentials, ca=ca
    )
    for job in (built, finaliser):
        spec = job["spec"]["template"]["spec"]
        [volume] = [one for one in spec["volumes"] if one["name"] == "storage-ca"]
        [(kind, found)] = [(kind, found) for kind, found in volume.items() if kind != "name"]
        assert {kind: {key: value for key, value in found.items() if key != "defaultMode"}} == source
        [container] = spec["containers"]
        [mounted] = [one for one in container["volumeMounts"] if one["name"] == "storage-ca"]
        assert (mounted["mountPath"], mounted["readOnly"]) == ("/etc/isotrack/storage-ca", True)
        for recorder in spec.get("initContainers", ()):
            assert "storage-ca" not in {one["name"] for one in recorder["volumeMounts"]}
        told = {one["name"]: one["value"] for one in container["env"]}.get("AWS_CA_BUNDLE")
        assert told == ("/etc/isotrack/storage-ca/ca.crt" if credentials is ROLE else None)


def test_the_token_service_of_aws_is_trusted_as_ever() -> None:
    """Its certificate is a public one, whatever signs the bucket's."""
    identity = {"serviceAccountName": "recorder", "roleArn": "arn:aws:iam::123456789012:role/recorder"}
    access = access_to(
        StorageCredentials.model_validate({"webIdentity": identity}), "s", CaCertificate(secret_name="a")
    )
    assert "AWS_CA_BUNDLE" not in {one["name"] for one in access.environment}


@pytest.mark.parametrize(("name", "credentials"), [("job-ambient.yaml", AMBIENT), ("job-web-identity.yaml", ROLE)])
def test_job_of_a_class_without_keys(golden: Golden, name: str, credentials: StorageCredentials) -> None:
    golden.check(name, a_built_job(credentials=credentials))


@pytest.mark.parametrize(
    ("name", "pod", "credentials", "pull_secrets"),
    [
        ("finaliser.yaml", RecorderPod(), CREDENTIALS, ()),
        ("finaliser-odd.yaml", ODD_POD, CREDENTIALS, ("pull", "pull-2")),
        ("finaliser-web-identity.yaml", RecorderPod(), ROLE, ()),
    ],
)
def test_finaliser(
    golden: Golden, name: str, pod: RecorderPod, credentials: StorageCredentials, pull_secrets: tuple[str, ...]
) -> None:
    built = build_finaliser(
        RECORDING,
        INTENT,
        StopReason.REQUESTED,
        pod=pod,
        image="isotrack-recorder:1",
        pull_secrets=pull_secrets,
        credentials=credentials,
    )
    golden.check(name, built)


def test_sweep(golden: Golden) -> None:
    destination = destination_of(CLASS.spec.storages[0])
    built = build_sweep(
        destination,
        "sweeper",
        namespace="isotrack-system",
        image="recorder:1",
        pull_secrets=["pull"],
        interval_seconds=600.0,
        watch_seconds=90.0,
    )
    golden.check("sweep.yaml", built)


def test_check_of_a_storage(golden: Golden) -> None:
    golden.check("check.yaml", a_check())


def a_check(storage: str = "archive", bucket: str = "recordings", key: str = "sweeper", state: str = "s/1") -> Json:
    destination = destination_of(CLASS.spec.storages[0]).model_copy(update={"bucket": bucket})
    return build_check(
        CLASS,
        storage,
        destination,
        key,
        state=state,
        namespace="isotrack-system",
        image="recorder:1",
        pull_secrets=["pull"],
    )


def test_a_check_is_named_for_what_it_tries() -> None:
    """So a change asks for another Job, and equal ones are made once."""
    odd = [a_check(), a_check("b"), a_check(bucket="other"), a_check(key="other"), a_check(state="s/2")]
    found = [job["metadata"]["name"] for job in odd]
    assert len(set(found)) == len(found)
    assert a_check()["metadata"]["name"] == found[0]
    assert all(len(name) + 6 <= 63 for name in found)


def test_a_check_cleans_up_after_the_one_before() -> None:
    """Its objects in the bucket are named for the storage of the class, whatever became of the Secret."""

    def place(job: Json) -> str:
        environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
        return str(next(one["value"] for one in environment if one["name"] == NAME_VARIABLE))

    assert place(a_check()) == place(a_check(key="other", state="s/2"))
    assert place(a_check()) != place(a_check("b"))


def test_names_of_finalisers_and_their_pods_are_labels() -> None:
    assert len(names.finaliser_name("x" * 200, UID)) <= 63


def test_job_of_a_class_that_sets_everything(golden: Golden) -> None:
    golden.check("job-odd.yaml", a_built_job(ODD_POD, pull_secrets=("pull", "pull-2")))


@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("service-account.yaml", build_service_account(RECORDING)),
        ("role.yaml", build_role(RECORDING, [1, 2])),
        ("role-binding.yaml", build_role_binding(RECORDING)),
        ("role-binding-chosen.yaml", build_role_binding(RECORDING, "recorder")),
        ("token-secret.yaml", build_token_secret(RECORDING, 2, "job-2", "a.b.c")),
        ("report.yaml", build_report(RECORDING, 2)),
        ("claim.yaml", build_claim(RECORDING, "isotrack-system")),
        ("claim-take-over.yaml", build_claim(RECORDING, "isotrack-system", "42")),
        (
            "event.yaml",
            build_event(
                RECORDING,
                Transition(seq=3, phase=Phase.RECORDING, time="2026-11-21T12:00:00Z", reason="Capturing"),
                "media is being captured",
                warning=False,
                instance="operator-0",
            ),
        ),
        (
            "event-unrecorded.yaml",
            build_warning(
                RECORDING,
                Condition(
                    type="TracksUnrecorded",
                    status=ConditionStatus.TRUE,
                    last_transition_time="2026-11-21T12:00:00Z",
                    reason="EndToEndEncrypted",
                    message="not recorded: alice camera (end-to-end encrypted).",
                ),
                "2026-11-21T12:00:01Z",
                instance="operator-0",
            ),
        ),
    ],
)
def test_objects_beside_the_job(golden: Golden, name: str, built: dict[str, object]) -> None:
    golden.check(name, built)


def test_equal_input_gives_equal_bytes() -> None:
    assert json.dumps(a_built_job(ODD_POD)) == json.dumps(a_built_job(ODD_POD))


def containers_of(job: dict[str, object]) -> dict[str, dict[str, object]]:
    spec = json.loads(json.dumps(job))["spec"]["template"]["spec"]
    return {c["name"]: c for c in spec["initContainers"] + spec["containers"]}


@pytest.mark.parametrize("credentials", [CREDENTIALS, AMBIENT, ROLE], ids=["secret", "ambient", "web-identity"])
def test_recorder_sees_neither_storage_nor_the_api_server(credentials: StorageCredentials) -> None:
    """It parses bytes from the network, so there must be nothing to steal."""
    recorder = containers_of(a_built_job(credentials=credentials))["recorder"]
    assert {mount["name"] for mount in recorder["volumeMounts"]} == {"spool", "run", "tmp", "source"}  # type: ignore[attr-defined]
    assert [variable["name"] for variable in recorder["env"]] == [INTENT_VARIABLE]  # type: ignore[attr-defined]


def test_no_token_is_for_the_api_server_by_accident() -> None:
    """A token service sees what it is sent: an audience of its own makes it worthless elsewhere."""
    access = access_to(StorageCredentials.model_validate(
        {"webIdentity": {"serviceAccountName": "a", "roleArn": "arn:aws:iam::123456789012:role/a"}}
    ), "session")  # fmt: skip
    ((source,),) = [volume["projected"]["sources"] for volume in access.volumes]
    assert source["serviceAccountToken"]["audience"] == "sts.amazonaws.com"


@pytest.mark.parametrize(
    ("told", "skipped"),
    [("", "recorder"), ("recorder", "recorder"), ("proxy, recorder", "proxy,recorder"), ("proxy", "proxy,recorder")],
)
def test_the_platform_is_told_to_leave_the_recorder_alone(told: str, skipped: str) -> None:
    """Whatever else the class tells it."""
    own = {SKIP_CONTAINERS: told} if told else {}
    assert annotations_for(AMBIENT, {"a": "b", **own}) == {"a": "b", SKIP_CONTAINERS: skipped}
    assert annotations_for(CREDENTIALS, {"a": "b", **own}) == {"a": "b", **own}


def test_agent_does_not_see_the_join_token() -> None:
    mounts = {mount["name"] for mount in containers_of(a_built_job())["agent"]["volumeMounts"]}  # type: ignore[attr-defined]
    assert mounts == {"spool", "run", "tmp", "storage", "kube-api-access"}


def test_kubelet_expands_nothing_in_what_users_wrote() -> None:
    """`$(HOME)` in a user id must reach the recorder as it is (Kubernetes, dependent environment variables)."""
    environment = {e["name"]: e["value"] for e in containers_of(a_built_job())["agent"]["env"]}  # type: ignore[attr-defined]
    assert "$$(HOME)" in environment[INTENT_VARIABLE]
    assert Intent.model_validate_json(unescaped(environment[INTENT_VARIABLE])).user_ids == ("alice", "bob $(HOME)")


@pytest.mark.parametrize(
    ("size", "told"),
    [(None, 10 * 2**30), ("50Gi", 50 * 2**30), (1_000_000, 1_000_000), ("1G", 10**9), ("0", None), ("999999Pi", 2**53)],
)
def test_recorder_is_told_the_size_of_its_spool(size: str | int | None, told: int | None) -> None:
    """Of this attempt's volume, whatever an earlier attempt had: beyond it the kubelet evicts the pod."""
    pod = RecorderPod() if size is None else RecorderPod.model_validate({"spool": {"sizeLimit": size}})
    earlier = INTENT.model_copy(update={"spool_bytes": 7})
    job = build_job(RECORDING, earlier, pod=pod, image="isotrack-recorder:1", credentials=CREDENTIALS)
    for container in containers_of(job).values():
        environment = {e["name"]: e["value"] for e in container["env"]}  # type: ignore[attr-defined]
        assert Intent.model_validate_json(unescaped(environment[INTENT_VARIABLE])).spool_bytes == told


@given(st.text(max_size=40))
def test_escaping_is_undone_by_unescaping(text: str) -> None:
    assert unescaped(escaped(text)) == text


@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True), st.integers(1, 10_000))
def test_names_and_labels_are_legal_for_any_recording(name: str, n: int) -> None:
    """Pods get six characters more than their Job and still must fit a label value (63)."""
    job = names.attempt_name(name, UID, n)
    assert len(job) + 6 <= 63
    assert job == job.lower()
    assert "." not in job
    assert job[0].isalnum()
    label = names.label_value(name)
    assert len(label) <= 63
    assert label[:1].isalnum()
    assert label[-1:].isalnum()


def test_claims_of_different_calls_differ_even_if_their_texts_join_alike() -> None:
    assert names.claim_name("a", "bc") != names.claim_name("ab", "c")


def test_token_secret_is_immutable_and_dies_with_its_job() -> None:
    secret = build_token_secret(RECORDING, 1, "job-1", "a.b.c")
    assert secret["immutable"] is True
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "job-1"
    assert base64.b64decode(secret["data"]["token"]) == b"a.b.c"
