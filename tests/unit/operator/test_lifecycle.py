"""Histories: two Recordings of one call, pods and nodes that misbehave, users who stop and delete, an operator that may die anywhere.

The world below is the API server reduced to dictionaries; the operator's part is the real `plan` and `build_status`, carried out one
effect at a time, with nothing remembered in between.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isotrack_api.recording import Phase, Recording
from isotrack_api.recording_report import RecordingReport
from isotrack_operator import attempts as judge
from isotrack_operator.attempts import Stage
from isotrack_operator.builders import names
from isotrack_operator.decision import Plan
from isotrack_operator.gather import is_finished
from isotrack_operator.plan import plan
from isotrack_operator.status import build_status, dump
from isotrack_operator.view import Call, Claim, ClaimState, Secret, View, format_time, view_attempts, view_finaliser
from support.operated import NOW, a_class, a_finaliser, a_job, a_pod, a_recording

UIDS = ("aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002")
EXIT_CODES = (0, 1, 64, 66, 69, 73, 74, 75, 77, 137)
BACK = st.sampled_from([0, 0, 0, 1])
"""Which attempt something happens to: mostly the newest."""
EVENTS = (
    *("pod runs",) * 5,
    *("agent Armed", "agent Capturing", "agent Capturing", "agent Uploading"),
    *("end",) * 3,
    *("pod is_evicted",) * 2,
    *("pod vanishes", "job"),
    *("finaliser ends",) * 2,
    "finaliser vanishes",
    *("wait 1", "wait 30", "wait 600", "wait 5000"),
    *("room opens", "room closes"),
    *("edit Paused", "edit Running", "edit Stopped", "delete"),
    "nothing",
)
"""What may happen, the usual more often."""
Json = dict[str, Any]


class Lifecycle(RuleBasedStateMachine):
    """Whatever happens, the promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.room = True
        self.holder: str | None = None
        self.recordings: dict[str, Json] = {}
        self.jobs: dict[str, dict[int, Json]] = {uid: {} for uid in UIDS}
        self.pods: dict[str, dict[int, Json]] = {uid: {} for uid in UIDS}
        self.reports: dict[str, dict[int, Json]] = {uid: {} for uid in UIDS}
        self.finalisers: dict[str, Json] = {}
        self.ends: dict[str, Json] = {}
        for number, uid in enumerate(UIDS):
            body = a_recording().body
            body["metadata"].update(uid=uid, name=f"r{number}", creationTimestamp=format_time(NOW))
            self.recordings[uid] = body

    @rule(
        event=st.sampled_from(EVENTS),
        uid=st.sampled_from(UIDS),
        back=BACK,
        code=st.sampled_from(EXIT_CODES),
        dies_after=st.sampled_from([99, 99, 99, 0, 1, 2, 3, 4]),
    )
    def something_happens(self, event: str, uid: str, back: int, code: int, dies_after: int) -> None:
        """And then the operator looks at both Recordings; it may die after any of its writes."""
        what, _, how = event.partition(" ")
        match what:
            case "pod":
                getattr(self, f"pod_{how}")(uid, back)
            case "agent":
                self.agent_reports(uid, back, how)
            case "end":
                self.agent_ends(uid, back, code)
            case "finaliser":
                getattr(self, f"finaliser_{how}")(uid, code)
            case "wait":
                self.now += timedelta(seconds=int(how))
            case "room":
                self.room = how == "opens"
            case "edit":
                self.user_edits(uid, how)
            case "delete":
                self.user_deletes(uid)
            case "job":
                self.somebody_deletes_the_job(uid, back)
        for other in UIDS:
            self.operator_runs(other, dies_after)

    # -- the operator -----------------------------------------------------------------------------------------------------

    def view(self, uid: str) -> View:
        body = self.recordings[uid]
        recording = Recording.from_object(body)
        finaliser = [self.finalisers[uid]] if uid in self.finalisers else []
        state = ClaimState.FREE
        if self.holder == uid:
            state = ClaimState.OURS
        elif self.holder is not None:
            other = self.recordings.get(self.holder)
            state = ClaimState.TAKEN if other and not is_finished(other) else ClaimState.ABANDONED
        return View(
            recording=recording,
            recording_class=a_class(),
            attempts=view_attempts(
                recording,
                list(self.jobs[uid].values()),
                list(self.pods[uid].values()),
                [RecordingReport.from_object(report) for report in self.reports[uid].values()],
            ),
            finaliser=view_finaliser(recording, finaliser, []),
            source_secret=Secret(name="livekit", namespace="isotrack-system"),
            storage_secret=Secret(name="archive", namespace="team-a"),
            claim=Claim(state=state, holder_namespace="team-a", holder_name="other"),
            call=Call(exists=self.room),
        )

    def operator_runs(self, uid: str, dies_after: int) -> None:
        """Reconcile; the operator may die after any of its writes."""
        writes = 0
        for _ in range(8):
            if uid not in self.recordings:
                return
            view = self.view(uid)
            decided = plan(view, self.now)
            for write in self._writes(uid, view, decided):
                if writes == dies_after:
                    return
                writes += 1
                write()
            if not decided.take_claim and decided.start is None and decided.finalise is None:
                return
        raise AssertionError("the operator found no rest")

    def _writes(self, uid: str, view: View, decided: Plan) -> list[Any]:
        if decided.take_claim:
            return [lambda: setattr(self, "holder", uid)]
        if decided.start is not None:
            n = decided.start
            return [lambda: self._hold(uid), lambda: self._make(uid, n)]
        if decided.finalise is not None:
            return [lambda: self._finalise(uid, view)]
        gone = {*decided.delete_jobs}
        writes = [lambda: self._delete_jobs(uid, gone)] if gone else []
        writes.append(lambda: self._write_status(uid, view, decided))
        if decided.verdict is not None or decided.release:
            writes += [lambda: self._release_claim(uid), lambda: self._let_go(uid)]
        return writes

    def _hold(self, uid: str) -> None:
        assert self.holder == uid, "an attempt is made by the holder of the claim only"
        self.recordings[uid]["metadata"]["finalizers"] = [names.FINALIZER]

    def _make(self, uid: str, n: int) -> None:
        body = self.recordings[uid]
        assert "deletionTimestamp" not in body["metadata"], "nothing is made anew under a deletion"
        assert not is_finished(body), "nothing is made after the end"
        assert n not in self.jobs[uid], "no attempt is made twice"
        recorded = [a["n"] for a in body.get("status", {}).get("attempts", [])]
        assert n == max([*recorded, *self.jobs[uid]], default=0) + 1, "numbers of attempts have no holes"
        job = copy.deepcopy(a_job(n).body)
        job["metadata"].update(
            name=names.attempt_name(body["metadata"]["name"], uid, n),
            uid=f"{uid}-{n}",
            creationTimestamp=format_time(self.now),
            ownerReferences=[{"uid": uid, "controller": True}],
        )
        self.jobs[uid][n] = job

    def _finalise(self, uid: str, view: View) -> None:
        assert self.holder == uid, "who may write the manifest holds the claim"
        assert not is_finished(self.recordings[uid]), "nothing is made after the end"
        assert uid not in self.finalisers, "no finaliser is made twice"
        stages = {judge.stage(attempt) for attempt in view.attempts}
        assert not stages & {Stage.PENDING, Stage.RUNNING}, "no attempt is at work"
        told = {transition.reason for transition in view.recording.status.transitions}
        assert "Capturing" in told or any(judge.captured(attempt) for attempt in view.attempts), (
            "there is something to finish"
        )
        job = copy.deepcopy(a_finaliser().body)
        job["metadata"].update(
            name=names.finaliser_name(self.recordings[uid]["metadata"]["name"], uid),
            creationTimestamp=format_time(self.now),
            ownerReferences=[{"uid": uid, "controller": True}],
        )
        self.finalisers[uid] = job

    def _delete_jobs(self, uid: str, gone: set[str]) -> None:
        for n, job in list(self.jobs[uid].items()):
            if job["metadata"]["name"] in gone:
                del self.jobs[uid][n]
                self.pods[uid].pop(n, None)

    def _write_status(self, uid: str, view: View, decided: Plan) -> None:
        status = build_status(view, decided, self.now)
        seqs = [transition.seq for transition in status.transitions]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
        if decided.verdict is not None:
            assert status.phase in (Phase.UPLOADED, Phase.PARTIALLY_UPLOADED, Phase.ERRORED)
            finished = judge.ending(view.attempts[-1]) if view.attempts else None
            if any(judge.captured(attempt) for attempt in view.attempts) and finished and finished.result != "Finished":
                assert uid in self.finalisers, "media that an attempt left behind is finished before the end"
        self.recordings[uid]["status"] = dump(status)

    def _release_claim(self, uid: str) -> None:
        if self.holder == uid:
            self.holder = None

    def _let_go(self, uid: str) -> None:
        body = self.recordings.get(uid)
        if body is None:
            return
        body["metadata"]["finalizers"] = []
        if "deletionTimestamp" in body["metadata"]:
            self._vanish(uid)

    def _vanish(self, uid: str) -> None:
        del self.recordings[uid]
        self.jobs[uid].clear()
        self.pods[uid].clear()
        self.finalisers.pop(uid, None)

    # -- the world --------------------------------------------------------------------------------------------------------

    def user_edits(self, uid: str, state: str) -> None:
        if uid in self.recordings:
            self.recordings[uid]["spec"]["desiredState"] = state
            self.recordings[uid]["metadata"]["generation"] += 1

    def user_deletes(self, uid: str) -> None:
        body = self.recordings.get(uid)
        if body is None:
            return
        body["metadata"].setdefault("deletionTimestamp", format_time(self.now))
        if not body["metadata"].get("finalizers"):
            self._vanish(uid)

    def _number(self, uid: str, back: int) -> int:
        return max(self.jobs[uid], default=0) - back

    def pod_runs(self, uid: str, back: int) -> None:
        n = self._number(uid, back)
        if n in self.jobs[uid] and n not in self.pods[uid]:
            pod = copy.deepcopy(a_pod(n).running().body)
            pod["metadata"].update(uid=f"pod-{uid}-{n}", ownerReferences=[{"uid": f"{uid}-{n}", "controller": True}])
            self.pods[uid][n] = pod

    def _pod(self, uid: str, n: int) -> Json | None:
        pod = self.pods[uid].get(n)
        return pod if pod and pod["status"]["phase"] in ("Pending", "Running") else None

    def agent_reports(self, uid: str, back: int, phase: str) -> None:
        n = self._number(uid, back)
        if self._pod(uid, n) is None or uid not in self.recordings:
            return
        moment = int(self.now.timestamp() * 1000)
        name = names.attempt_name(self.recordings[uid]["metadata"]["name"], uid, n)
        status: Json = {"phase": phase, "armedAtMs": moment, "lastUpdate": format_time(self.now)}
        if phase == "Capturing":
            status["firstPacketAtMs"] = moment
        self.reports[uid][n] = {
            "apiVersion": "isotrack.dev/v1alpha1",
            "kind": "RecordingReport",
            "metadata": {"name": name, "namespace": "team-a"},
            "spec": {"recordingUid": uid, "attempt": n},
            "status": status,
        }

    def agent_ends(self, uid: str, back: int, code: int) -> None:
        n = self._number(uid, back)
        pod = self._pod(uid, n)
        if pod is None:
            return
        ended = a_pod(n).ended(code).body["status"]
        pod["status"] = pod["status"] | copy.deepcopy(ended)
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = format_time(self.now)
        kind = "Complete" if code == 0 else "Failed"
        times = {"lastTransitionTime": format_time(self.now)}
        self.jobs[uid].get(n, {}).setdefault("status", {})["conditions"] = [{"type": kind, "status": "True", **times}]

    def pod_is_evicted(self, uid: str, back: int) -> None:
        n = self._number(uid, back)
        pod = self._pod(uid, n)
        if pod is not None:
            pod["metadata"]["deletionTimestamp"] = format_time(self.now)

    def pod_vanishes(self, uid: str, back: int) -> None:
        """Its node died and somebody removed it by force."""
        n = self._number(uid, back)
        if self.pods[uid].pop(n, None) is not None and not self.jobs[uid][n]["status"].get("conditions"):
            times = {"lastTransitionTime": format_time(self.now)}
            self.jobs[uid][n]["status"]["conditions"] = [{"type": "Failed", "status": "True", **times}]

    def somebody_deletes_the_job(self, uid: str, back: int) -> None:
        n = self._number(uid, back)
        recorded = [a["n"] for a in self.recordings.get(uid, {}).get("status", {}).get("attempts", [])]
        if n in recorded and self.jobs[uid].pop(n, None) is not None:
            self.pods[uid].pop(n, None)

    def finaliser_ends(self, uid: str, code: int) -> None:
        job = self.finalisers.get(uid)
        if job is not None and not job["status"].get("conditions"):
            times = {"lastTransitionTime": format_time(self.now)}
            kind = "Failed" if code else "Complete"
            job["status"]["conditions"] = [{"type": kind, "status": "True", **times}]

    def finaliser_vanishes(self, uid: str, code: int) -> None:
        self.finalisers.pop(uid, None)

    # -- the promises -----------------------------------------------------------------------------------------------------

    @invariant()
    def terminal_is_terminal(self) -> None:
        for uid, body in self.recordings.items():
            if not is_finished(body):
                assert uid not in self.ends
                continue
            end = {key: body["status"].get(key) for key in ("phase", "stopReason", "stoppedAt")}
            end["conditions"] = {c["type"]: (c["status"], c["reason"]) for c in body["status"]["conditions"]}
            assert self.ends.setdefault(uid, end) == end

    @invariant()
    def one_undisturbed_attempt_at_most(self) -> None:
        for uid in self.recordings:
            stages = [judge.stage(attempt) for attempt in self.view(uid).attempts]
            assert sum(stage in (Stage.PENDING, Stage.RUNNING) for stage in stages) <= 1

    @invariant()
    def who_has_attempts_has_the_claim_until_the_end(self) -> None:
        active = [uid for uid, body in self.recordings.items() if self.jobs[uid] and not is_finished(body)]
        assert all(self.holder == uid for uid in active)

    def teardown(self) -> None:
        """From any state: stop everything, let pods finish, and every Recording ends and lets go of the call."""
        for uid in list(self.recordings):
            self.user_edits(uid, "Stopped")
        for _ in range(14):
            for uid in list(self.recordings):
                self.operator_runs(uid, dies_after=99)
            for uid in UIDS:
                for back in range(len(self.jobs[uid])):
                    self.pod_runs(uid, back)
                    self.agent_ends(uid, back, 0)
                self.finaliser_ends(uid, 0)
            self.now += timedelta(seconds=120)
        assert all(is_finished(body) for body in self.recordings.values())
        assert self.holder is None or self.holder not in self.recordings


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
