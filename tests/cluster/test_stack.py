"""The local stack itself: a real pod of the shape that isotrack uses, and nothing left after `down`.

Has a stack of its own, so that it can run beside any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from isotrack_dev import cgroups, images, network
from isotrack_dev.addresses import Addresses
from isotrack_dev.errors import StartError
from isotrack_dev.namespaces import create
from isotrack_dev.process import Process, wait_until
from isotrack_dev.stack import Stack

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: shape}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
      initContainers:
        - name: recorder
          image: IMAGE
          restartPolicy: Always
          command: [python3, -c, "open('/spool/made','w').write('x'); import time; time.sleep(600)"]
          startupProbe: {exec: {command: [test, -e, /spool/made]}, periodSeconds: 1}
          securityContext: &restricted
            {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          resources: {limits: {memory: 128Mi, cpu: "1"}}
          volumeMounts: [{name: spool, mountPath: /spool}]
      containers:
        - name: agent
          image: IMAGE
          command: [python3, -c, AGENT]
          securityContext: *restricted
          resources: {limits: {memory: 128Mi, cpu: "1"}}
          volumeMounts:
            - {name: spool, mountPath: /spool}
            - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
      volumes:
        - {name: spool, emptyDir: {sizeLimit: 64Mi}}
        - name: token
          projected:
            sources:
              - serviceAccountToken: {path: token, expirationSeconds: 3600}
              - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
"""

AGENT = """
import json, os, ssl, sys, urllib.error, urllib.request
base = "/var/run/secrets/kubernetes.io/serviceaccount/"
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
request = urllib.request.Request(f"https://{host}:{port}/api/v1/namespaces/default/secrets")
request.add_header("Authorization", "Bearer " + open(base + "token").read())
try:
    status = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=base + "ca.crt")).status
except urllib.error.HTTPError as error:
    status = error.code
sizes = [len(urllib.request.urlopen(url).read()) for url in URLS]
facts = {"uid": os.getuid(), "spool": open("/spool/made").read(), "api": status, "servers": len(sizes)}
open("/dev/termination-log", "w").write(json.dumps(facts))
sys.exit(75)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack("test-stack", tmp_path_factory.mktemp("stack") / "state")
    one.up([images.ensure_base().archive])
    yield one
    one.down()


@pytest.fixture(scope="module")
def pod(stack: Stack) -> dict[str, Any]:
    """The finished pod of a Job with a native sidecar, under restricted pod security."""
    environment = stack.info().environment
    urls = [environment["LIVEKIT_URL"].replace("ws://", "http://"), f"{environment['S3_ENDPOINT']}/-/healthy"]
    script = json.dumps(AGENT.replace("URLS", repr(urls)))
    manifest = JOB.replace("IMAGE", images.ensure_base().name).replace("AGENT", script)
    stack.kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    stack.kubectl("apply", "-f", "-", stdin=manifest)
    stack.kubectl("wait", "job/shape", "--for=condition=Failed", "--timeout=120s", seconds=130)
    found: dict[str, Any] = json.loads(stack.kubectl("get", "pods", "-l", "job-name=shape", "-o", "json"))
    assert len(found["items"]) == 1
    pod: dict[str, Any] = found["items"][0]
    return pod


def ended(pod: dict[str, Any], group: str) -> dict[str, Any]:
    state: dict[str, Any] = pod["status"][group][0]["state"]["terminated"]
    return state


def test_exit_code_of_the_main_container_is_reported(pod: dict[str, Any]) -> None:
    assert ended(pod, "containerStatuses")["exitCode"] == 75


def test_pod_reaches_api_server_sfu_and_store_as_an_unprivileged_user(pod: dict[str, Any]) -> None:
    facts = json.loads(ended(pod, "containerStatuses")["message"])
    assert facts == {"uid": 10001, "spool": "x", "api": 403, "servers": 2}


def test_native_sidecar_ends_after_the_main_container(pod: dict[str, Any]) -> None:
    agent, recorder = ended(pod, "containerStatuses"), ended(pod, "initContainerStatuses")
    assert recorder["finishedAt"] >= agent["finishedAt"]


def test_logs_of_containers_can_be_read(stack: Stack, pod: dict[str, Any]) -> None:
    stack.kubectl("logs", pod["metadata"]["name"], "-c", "agent")


def test_host_uses_the_object_store_at_the_address_that_pods_use(stack: Stack) -> None:
    values = stack.info().environment
    client = boto3.client(
        "s3",
        endpoint_url=values["S3_ENDPOINT"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        region_name=values["AWS_REGION"],
    )
    client.put_object(Bucket=values["S3_BUCKET"], Key="probe/object", Body=b"12345")
    assert client.head_object(Bucket=values["S3_BUCKET"], Key="probe/object")["ContentLength"] == 5


def test_starting_a_running_stack_again_changes_nothing(stack: Stack) -> None:
    before = stack.record
    stack.up()
    assert stack.record == before


def test_down_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even of a stack with a running pod: processes, mounts, interfaces, cgroups and files all go."""
    one = Stack("test-down", tmp_path / "state")
    one.up([images.ensure_base().archive])
    record = one.record
    assert record is not None
    arguments = [
        "--image",
        images.ensure_base().name,
        "--restart=Never",
        "--",
        "python3",
        "-c",
        "import time; time.sleep(600)",
    ]
    one.kubectl("run", "sleeper", *arguments)
    one.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=100s")
    assert any("test-down" in cgroup for cgroup in of_processes("cgroup"))

    one.down()

    assert one.remains() == []
    assert not (tmp_path / "state").exists()
    assert not any(process.alive for process in (record.holder, record.parent, *record.servers.values()))
    assert not any(str(tmp_path) in command for command in of_processes("cmdline"))
    assert Addresses(record.slot).interface not in network.interfaces()
    assert Addresses(record.slot).pods not in network.routes()
    assert cgroups.remaining("test-down") == []
    # Of others (tests beside this one mount, too) nothing tells; what is ours lies below our folder or bears our name.
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert not [mount for mount in mounts if str(tmp_path) in mount or "test-down" in mount]


def of_processes(file: str) -> list[str]:
    """What /proc says of each process; others come and go meanwhile."""
    texts: list[str] = []
    for path in Path("/proc").glob(f"[0-9]*/{file}"):
        with suppress(OSError):
            texts.append(path.read_text(errors="replace"))
    return texts


def test_failed_start_is_explained_and_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot start is named, with its own words, and what had been started is gone."""
    one = Stack("test-broken", tmp_path / "state")
    monkeypatch.setattr("isotrack_dev.config.versitygw", lambda *_, **__: ["--no-such-flag"])
    with pytest.raises(StartError, match="no-such-flag"):
        one.up()
    assert wait_until(lambda: one.remains() == [], 60)
    assert one.log("s3").exists()
    one.down()


def test_start_that_was_killed_before_it_wrote_anything_down_leaves_nothing_either(tmp_path: Path) -> None:
    one = Stack("test-killed", tmp_path / "state")
    orphan = create(one.layout.state, "test-killed")
    assert orphan.alive
    one.down()
    assert not orphan.alive
    assert not orphan.parent.alive


def test_dead_stack_does_not_take_the_slot_of_a_living_one_along(stack: Stack, tmp_path: Path) -> None:
    """Its processes died with the machine's last boot, say, and its slot has been given away since."""
    living = stack.record
    assert living is not None
    one = Stack("test-dead", tmp_path / "state")
    gone = Process(2**22 + 1, 1)  # above the largest pid
    replace(living, name="test-dead", holder=gone, parent=gone, servers={}).write(one.layout.record)
    one.down()
    assert not one.layout.state.exists()
    assert Addresses(living.slot).interface in network.interfaces()
