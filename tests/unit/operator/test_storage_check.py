"""What is known of a class's storage, and when it is tried: one row per situation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from isotrack_api.conditions import ConditionStatus
from isotrack_api.recording_class import StorageStatus
from isotrack_operator.builders import names
from isotrack_operator.storage_check import Seen, Step, next_step, state_of, summary
from isotrack_operator.view import AttemptView, view_worker
from support.operated import NOW, JobBody, PodBody, a_job, a_pod, ago

INTERVAL = timedelta(hours=6)
JOB = "isotrack-check-1-2"
SECRET = {"metadata": {"uid": "s", "resourceVersion": "1"}, "data": {"accessKeyId": "YQ==", "secretAccessKey": "Yg=="}}


def a_check(job: JobBody, pod: PodBody | None = None) -> AttemptView:
    """A check's Job, and its pod."""
    job.body["metadata"].update(name=JOB, uid="check")
    if pod is not None:
        pod.with_("metadata.ownerReferences", [{"uid": "check", "controller": True}])
        for container in pod.body["status"].get("containerStatuses", []):
            container["name"] = names.CHECKER
    return view_worker(job.body, [pod.body] if pod else [], names.CHECKER)


def said(reason: str, message: str = "", code: int = 0) -> PodBody:
    """A check's pod that ended with these last words."""
    return a_pod().ended(code, said={"reason": reason, "message": message})


def status(ready: str = "True", **more: Any) -> StorageStatus:
    """What status.storages says, of a check that ended a minute ago."""
    known = {
        "name": "archive",
        "ready": ready,
        "reason": "StorageAvailable",
        "since": ago(60),
        "checkedAt": ago(60),
        "job": JOB,
    }
    return StorageStatus.model_validate({**known, **more})


def step(job: AttemptView | None = None, before: StorageStatus | None = None, secret: Any = SECRET) -> Step:
    seen = Seen(
        name="archive", secret_name="sweeper", namespace="isotrack-system", secret=secret, job_name=JOB, job=job
    )
    return next_step(seen, before, NOW, INTERVAL)


GOOD = said("StorageAvailable")
REFUSED = "bucket 'x' at AWS does not exist: create it, or correct bucket and endpoint of the storage"


@pytest.mark.parametrize(
    ("found", "ready", "reason", "start"),
    [
        pytest.param(step(secret=None), "False", "StorageSecretNotFound", False, id="no-secret"),
        pytest.param(step(secret={"data": {"accessKeyId": "YQ=="}}), "False", "StorageSecretNotFound", False, id="half-a-key"),
        pytest.param(step(secret=None, before=status()), "False", "StorageSecretNotFound", False, id="secret-is-gone"),
        pytest.param(step(), "Unknown", "StorageChecking", True, id="never-tried"),
        pytest.param(step(before=status(job="another")), "Unknown", "StorageChecking", True, id="storage-or-secret-changed"),
        pytest.param(step(before=status()), "True", "StorageAvailable", False, id="tried-a-minute-ago"),
        pytest.param(step(before=status(checkedAt=ago(21601))), "True", "StorageAvailable", True, id="tried-long-ago"),
        pytest.param(step(before=status("False", reason="StorageRefused")), "False", "StorageRefused", True, id="refused-a-minute-ago"),
        pytest.param(step(before=status("False", reason="StorageRefused", checkedAt=ago(5))), "False", "StorageRefused", False, id="refused-just-now"),
        pytest.param(step(before=status("False", reason="StorageRefused", since=ago(9000))), "False", "StorageRefused", False, id="refused-for-long"),
        pytest.param(step(a_check(a_job(created_ago=2))), "Unknown", "StorageChecking", False, id="runs"),
        pytest.param(step(a_check(a_job(created_ago=2)), status()), "True", "StorageAvailable", False, id="runs-again"),
        pytest.param(step(a_check(a_job(), a_pod().waiting("ErrImagePull"))), "Unknown", "ImagePullFailed", False, id="cannot-run"),
        pytest.param(step(a_check(a_job().complete(), GOOD)), "True", "StorageAvailable", False, id="works"),
        pytest.param(step(a_check(a_job().complete(), said("StorageLimited", "no checksum"))), "True", "StorageLimited", False, id="works-with-limits"),
        pytest.param(step(a_check(a_job().failed(), said("StorageRefused", REFUSED, 73))), "False", "StorageRefused", False, id="refused"),
        pytest.param(step(a_check(a_job().failed(), said("StorageUnavailable", "x", 74)), status()), "False", "StorageUnavailable", False, id="unavailable"),
        pytest.param(step(a_check(a_job().complete(300), GOOD), status(checkedAt=ago(300))), "True", "StorageAvailable", False, id="read-already"),
        pytest.param(step(a_check(a_job().complete(), a_pod().running())), "Unknown", "StorageChecking", False, id="last-words-are-on-their-way"),
        pytest.param(step(a_check(a_job().failed(60))), "Unknown", "PodLost", False, id="ended-without-a-word"),
        pytest.param(step(a_check(a_job().failed(60), a_pod().ended(1, said={}))), "Unknown", "PodLost", False, id="crashed"),
        pytest.param(step(a_check(a_job().failed(60)), status(job="another")), "Unknown", "PodLost", False, id="ended-after-a-change"),
    ],
)  # fmt: skip
def test_each_situation_has_its_verdict(found: Step, ready: str, reason: str, start: bool) -> None:
    assert (found.status.ready.value, found.status.reason, found.start) == (ready, reason, start)


def test_a_refusal_says_what_to_do_and_whose_key_it_was() -> None:
    found = step(a_check(a_job().failed(), said("StorageRefused", REFUSED, 73))).status
    assert found.message == f"{REFUSED} (Secret sweeper of namespace isotrack-system)"
    missing = step(secret=None).status
    assert missing.message == (
        "Secret sweeper in namespace isotrack-system does not exist: create it with the keys accessKeyId and secretAccessKey"
    )


def test_what_was_found_is_remembered_with_its_time() -> None:
    found = step(a_check(a_job().complete(3), GOOD), status("False", since=ago(600), checkedAt=ago(60))).status
    assert (found.checked_at, found.job, found.since) == (ago(3), JOB, ago(0))
    again = step(a_check(a_job().complete(3), GOOD), status(since=ago(600), checkedAt=ago(60))).status
    assert again.since == ago(600), "ready did not change"


@pytest.mark.parametrize(
    ("before", "seconds"),
    [
        (status(), 21600 - 60),
        (status("False", since=ago(4), checkedAt=ago(4)), 1),
        (status("False", checkedAt=ago(4)), 1.6),
        (status("False", since=ago(1000), checkedAt=ago(40)), 56),
        (status("False", since=ago(10**6), checkedAt=ago(40)), 560),
    ],
)
def test_what_works_is_tried_seldom_and_what_does_not_soon(before: StorageStatus, seconds: float) -> None:
    assert step(before=before).again_after == pytest.approx(seconds, abs=0.1)


def test_a_short_interval_is_one_for_what_does_not_work_too() -> None:
    seen = Seen(name="a", secret_name="s", namespace="n", secret=SECRET, job_name=JOB)
    before = status("False", since=ago(10**6), checkedAt=ago(10))
    assert next_step(seen, before, NOW, timedelta(seconds=30)).again_after == pytest.approx(20, abs=0.1)


def test_a_secret_that_changes_is_another_state() -> None:
    changed = {**SECRET, "metadata": {"uid": "s", "resourceVersion": "2"}}
    replaced = {**SECRET, "metadata": {"uid": "t", "resourceVersion": "1"}}
    assert len({state_of(one) for one in (SECRET, changed, replaced, None)}) == 4


@pytest.mark.parametrize(
    ("storages", "expected"),
    [
        ([], None),
        ([status()], (ConditionStatus.TRUE, "StorageAvailable", "")),
        (
            [status(), status(name="b", reason="StorageLimited", message="no checksum")],
            (ConditionStatus.TRUE, "StorageLimited", "storage b: no checksum"),
        ),
        (
            [status(), status("Unknown", name="b", reason="StorageChecking")],
            (ConditionStatus.UNKNOWN, "StorageChecking", ""),
        ),
        (
            [
                status("Unknown", reason="StorageChecking"),
                status("False", name="b", reason="StorageRefused", message="no bucket"),
                status("False", name="c", reason="StorageUnavailable", message="no answer"),
            ],
            (ConditionStatus.FALSE, "StorageRefused", "storage b: no bucket; storage c: no answer"),
        ),
    ],
)
def test_the_class_is_as_ready_as_the_least_of_its_storages(
    storages: list[StorageStatus], expected: tuple[ConditionStatus, str, str] | None
) -> None:
    assert summary(storages) == expected
