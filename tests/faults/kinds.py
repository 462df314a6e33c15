"""The table of what is done to recordings, and what it may cost.

A row says in one sentence what happens (it is printed in docs/reliability.md), its bounds, and how one trial of it is done. A
new fault is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from support.fault_proxy import RESET, SLOW
from support.promises import NODE_LOST_SECONDS, PROCESS_LOST_SECONDS

from .clocks import replace_on_wrong_clock, set_clock
from .evidence import Evidence
from .failing import crash_at, crash_successor
from .finalising import crash_check, crash_finaliser, crash_sweeper
from .operator_evidence import Aftermath
from .operator_stories import kill_operator_at
from .operator_sweeps import kill_sweeping_operator
from .people import EVERYBODY, LARGE
from .plans import random_kills
from .pod_changes import finish_by_hand, hand_over, overlap, replace_lost_pods
from .sites import Failpoint, parse, parse_all
from .standalone import crash_shipper
from .storage_faults import REFUSALS, break_storage, outlast, stop_storage
from .stores import STORES, USUAL
from .trial import Place, kill_at_random
from .validate import NOTHING_LOST, Bounds

PROCESS_DEATH: Final = Bounds(lost_seconds=PROCESS_LOST_SECONDS, gap_seconds=30.0)
"""The promise is the first figure. The second one only tells a slow machine from a recorder that does not come back; what it
really is stands in the report."""

NODE_DEATH: Final = Bounds(lost_seconds=NODE_LOST_SECONDS, gap_seconds=30.0, complete=False)
NODE_DEATH_ELSEWHERE: Final = replace(NODE_DEATH, placed_ms=3000.0)
"""What the storage's clock, in whole seconds, can tell of two others."""
HAND_OVER: Final = Bounds(lost_seconds=0.2, gap_seconds=30.0)
"""Nothing that was captured; what is on its way through the SFU at that instant has no receiver."""
SMALL_SEGMENT_BYTES: Final = 8 * 1024
"""A call's facts fill one within seconds."""
RECLAIM_SECONDS: Final = 42.0
"""Files begin to be made half a minute behind a call's begin, and nothing of it is given back before a whole part is on the disk."""


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to do; the same job does the same again."""

    kind: str
    seed: int
    detail: str = ""
    """Failpoints, for kinds that have some; see `sites`."""
    store: str = USUAL
    """Which S3 server takes the recording."""

    def __str__(self) -> str:
        where = "" if self.store == USUAL else f"/{self.store}"
        return f"{self.kind}{where}#{self.seed}" + (f"@{self.detail}" if self.detail else "")


def parse_job(text: str) -> Job:
    """Read what `str` wrote.

    Raises:
        ValueError: It is none, or of no kind.
    """
    head, _, detail = text.partition("@")
    what, _, seed = head.partition("#")
    kind, _, store = what.partition("/")
    if kind not in KINDS:
        raise ValueError(f"no such kind: {kind}")
    if store and store not in STORES:
        raise ValueError(f"no such S3 server: {store}")
    return Job(kind, int(seed), detail, store or USUAL)


Run = Callable[[Place, str, Job], Evidence | Aftermath]


@dataclass(frozen=True, slots=True)
class Kind:
    """One row."""

    what: str
    bounds: Bounds
    run: Run
    kills: int = 0
    """Of one trial, about."""
    trials: int = 0
    """How often it is done in a whole campaign; 0 = as often as kills are asked for, or once per failpoint."""
    elsewhere: int = 0
    """How often on each further S3 server."""
    fails: tuple[str, ...] = ()
    """Processes of which every failpoint is a trial."""
    scene: str = ""
    """What the report adds to a failpoint's process, where another kind has the same process in other circumstances."""
    media: bool = True
    """Whether anything is recorded."""


def at_failpoints(crash: Callable[[Place, str, Sequence[Failpoint]], Evidence | Aftermath]) -> Run:
    """How a trial is done that needs nothing of its job but where processes die."""
    return lambda place, room, job: crash(place, room, parse_all(job.detail))


KINDS: Final[Mapping[str, Kind]] = {
    "recorder-killed": Kind(
        "kill -9 of the recorder at random times, again while it comes back, and while files are shipped",
        PROCESS_DEATH,
        lambda place, room, job: kill_at_random(place, room, random_kills(job.seed, ("capture",), 6, 1)),
        kills=7,
    ),
    "agent-killed": Kind(
        "kill -9 of the agent at random times of the call, and again and again while it ships",
        NOTHING_LOST,
        lambda place, room, job: kill_at_random(place, room, random_kills(job.seed, ("agent",), 3, 4)),
        kills=6,
        elsewhere=2,
    ),
    "both-killed": Kind(
        "kill -9 of either process at random times",
        PROCESS_DEATH,
        lambda place, room, job: kill_at_random(place, room, random_kills(job.seed, ("capture", "agent"), 6, 2)),
        kills=8,
    ),
    "failpoint": Kind(
        "death of recorder, agent or both, each before, after or within one call that changes files, objects or the API server; small files",
        PROCESS_DEATH,
        lambda place, room, job: crash_at(place, room, parse_all(job.detail), EVERYBODY),
        fails=("capture", "agent"),
    ),
    "failpoint-large": Kind(
        "the same where files of several parts are uploaded",
        PROCESS_DEATH,
        lambda place, room, job: crash_at(place, room, parse_all(job.detail), LARGE, seconds=7.0),
        fails=("capture", "agent"),
    ),
    "failpoint-reclaim": Kind(
        "the same where the spool is given back while the call goes on: segments of frames and of facts that are shipped",
        PROCESS_DEATH,
        lambda place, room, job: crash_at(
            place, room, parse_all(job.detail), LARGE, seconds=RECLAIM_SECONDS, segment_bytes=SMALL_SEGMENT_BYTES
        ),
        fails=("capture", "agent"),
    ),
    "failpoint-successor": Kind(
        "the same in the second attempt, which goes on from what the first one had copied before it was lost with its spool",
        NODE_DEATH,
        at_failpoints(crash_successor),
        fails=("agent",),
        scene="second attempt",
    ),
    "failpoint-shipper": Kind(
        "death of what ships beside `isotrack record --output s3://…`, before, after or within a call that changes files or objects",
        NOTHING_LOST,
        at_failpoints(crash_shipper),
        fails=("shipper",),
    ),
    "failpoint-finaliser": Kind(
        "death of the finaliser before or after one of its S3 calls, as it finishes what a lost pod had copied",
        NODE_DEATH,
        at_failpoints(crash_finaliser),
        fails=("finalise",),
    ),
    "failpoint-sweeper": Kind(
        "the same of a sweep, which has to find that recording, and an upload that nobody completes, first",
        NODE_DEATH,
        at_failpoints(crash_sweeper),
        fails=("sweep",),
    ),
    "failpoint-check": Kind(
        "death of the Job that tries a class's storage before or after one of its calls; the next one finds a storage that works, and leaves nothing",
        NOTHING_LOST,
        at_failpoints(crash_check),
        fails=("check",),
        media=False,
    ),
    "pod-lost": Kind(
        "loss of the pod with its spool at random times, the next attempt begins at once; twice in each recording",
        NODE_DEATH,
        lambda place, room, job: replace_lost_pods(place, room, job.seed),
        trials=8,
        elsewhere=1,
    ),
    "abandoned": Kind(
        "loss of the only pod with its spool; `isotrack finalise s3://…` by hand, twice",
        NODE_DEATH,
        lambda place, room, job: finish_by_hand(place, room, job.seed),
        trials=6,
    ),
    "handed-over": Kind(
        "SIGTERM of a pod while its successor begins in its place, in either order; twice in each recording",
        HAND_OVER,
        lambda place, room, job: hand_over(place, room, job.seed),
        trials=6,
    ),
    "overlapping": Kind(
        "SIGTERM of a pod whose successor joins beside it; twice in each recording",
        NOTHING_LOST,
        lambda place, room, job: overlap(place, room, job.seed),
        trials=6,
    ),
    "storage-breaks": Kind(
        "an S3 server whose connections are reset, cut within request or answer, late, slow, or answered with 500 and 503",
        NOTHING_LOST,
        lambda place, room, job: break_storage(place, room, job.seed),
        trials=12,
        elsewhere=2,
    ),
    "storage-away": Kind(
        "an S3 server that cannot be reached for seconds in the middle of a call, and as it ends",
        NOTHING_LOST,
        lambda place, room, job: stop_storage(place, room, job.seed),
        trials=4,
        elsewhere=1,
    ),
    "storage-away-long": Kind(
        "an S3 server that cannot be reached for one to two minutes in the middle of a call that goes on",
        NOTHING_LOST,
        lambda place, room, job: outlast(place, room, job.seed, (RESET,), (60.0, 120.0)),
        trials=3,
    ),
    "storage-slow": Kind(
        "an S3 server that takes 64 KiB a second per connection for half a minute in the middle of a call",
        NOTHING_LOST,
        lambda place, room, job: outlast(place, room, job.seed, (SLOW,), (30.0, 30.0)),
        trials=3,
    ),
    "storage-refuses": Kind(
        "an S3 server that refuses us (403), or has no such bucket any more (404), for a while in the middle of a call",
        NOTHING_LOST,
        lambda place, room, job: outlast(place, room, job.seed, REFUSALS, (5.0, 20.0)),
        trials=4,
    ),
    "clock-set": Kind(
        "the wall clock of the pod is set by an hour and by two the other way, with a kill of neither, recorder or agent after each",
        PROCESS_DEATH,
        lambda place, room, job: set_clock(place, room, job.seed),
        trials=6,
    ),
    "clock-differs": Kind(
        "loss of the pod with its spool; the next attempt runs on a node whose clock is three hours off, and is lost in turn",
        NODE_DEATH_ELSEWHERE,
        lambda place, room, job: replace_on_wrong_clock(place, room, job.seed),
        trials=4,
    ),
    **{
        f"operator-{story}": Kind(
            f"death of the operator before or after one of its writes to the API server; a Recording {what}",
            NOTHING_LOST,
            lambda place, room, job, story=story: kill_operator_at(  # type: ignore[misc]
                place, room, story, parse(job.detail) if job.detail else None
            ),
            fails=("operator",),
            scene=story,
            media=False,
        )
        for story, what in (
            ("recorded", "that is recorded, stopped and uploaded"),
            ("lost", "whose pods are lost, and which a Job finishes"),
            ("deleted", "that is deleted in mid-call"),
            ("stopped-early", "that is stopped before its pod runs"),
            ("agent-lost", "whose agent does not come back, so that its pod is deleted for another one"),
        )
    },
    "operator-sweeps": Kind(
        "death of the operator before or after one of its writes to the API server; Jobs that try and sweep a storage",
        NOTHING_LOST,
        lambda place, room, job: kill_sweeping_operator(place, room, parse(job.detail) if job.detail else None),
        fails=("operator",),
        scene="sweeps",
        media=False,
    ),
}
