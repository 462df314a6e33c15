"""What the agent tells Prometheus, as text (exposition format 0.0.4). Pure: facts in, text out.

Labels name tracks as the SFU and the spool do, never people: whoever may scrape a pod need not know who is in the call. Numbers of
series are bounded by the State, which forgets the oldest tracks that ended. Namespace and name of the Recording are the pod's labels.
`docs/metrics.md` has one row for each family here; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, get_args

from isotrack_recorder.control import Phase, State, TrackState
from isotrack_recorder.finalise.manifest import lost_ms
from isotrack_recorder.ship.store import Traffic

from .agent_report import Facts

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABEL: Final = 128
PHASES: Final[tuple[str, ...]] = get_args(Phase)

Sample = tuple[Sequence[tuple[str, str]], float]


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str


class _OfTrack(NamedTuple):
    """One metric with a sample per track; None = this track has no value."""

    family: Family
    value: Callable[[TrackState], float | None]


def _age_seconds(track: TrackState) -> float | None:
    if track.ended or track.last_packet_age_ms is None:
        return None
    return track.last_packet_age_ms / 1000


_TRACK: Final = (
    _OfTrack(Family("isotrack_track_packets_total", "counter", "RTP packets received."), lambda t: t.packets),
    _OfTrack(
        Family(
            "isotrack_track_packets_lost_total", "counter", "RTP packets that never came, although asked for again."
        ),
        lambda t: t.lost,
    ),
    _OfTrack(
        Family("isotrack_track_packets_recovered_total", "counter", "RTP packets that came by retransmission."),
        lambda t: t.recovered,
    ),
    _OfTrack(
        Family("isotrack_track_packets_late_total", "counter", "RTP packets that came after they were given up on."),
        lambda t: t.late,
    ),
    _OfTrack(Family("isotrack_track_frames_total", "counter", "Frames written to the spool."), lambda t: t.frames),
    _OfTrack(Family("isotrack_track_media_bytes_total", "counter", "Bytes of these frames."), lambda t: t.media_bytes),
    _OfTrack(
        Family("isotrack_track_key_frame_requests_total", "counter", "Key frames asked for (PLI or FIR)."),
        lambda t: t.plis,
    ),
    _OfTrack(
        Family("isotrack_track_size_changes_total", "counter", "Changes of the picture's size."),
        lambda t: t.size_changes,
    ),
    _OfTrack(
        Family("isotrack_track_muted", "gauge", "1 while the SFU says that the track is muted."), lambda t: t.muted
    ),
    _OfTrack(
        Family("isotrack_track_shed", "gauge", "1 while the track is not received because the spool is nearly full."),
        lambda t: t.shed,
    ),
    _OfTrack(
        Family(
            "isotrack_track_last_packet_age_seconds", "gauge", "Time since the newest packet of a track that lasts."
        ),
        _age_seconds,
    ),
)

_UNRECORDED: Final = Family(
    "isotrack_track_unrecorded",
    "gauge",
    "1 for a track that is wanted and cannot be recorded. It stays for the attempt.",
)
_RECORDER_UP: Final = Family("isotrack_recorder_up", "gauge", "1 while the agent hears the recorder.")
_PHASE: Final = Family("isotrack_recorder_phase", "gauge", "1 for the recorder's present phase, 0 for the others.")
_RESTARTS: Final = Family("isotrack_recorder_restarts_total", "counter", "Times the recorder had to begin again.")
_PARTICIPANTS: Final = Family("isotrack_participants", "gauge", "People in the call, recorded or not.")
_TRACKS: Final = Family("isotrack_tracks", "gauge", "Tracks that are being captured.")
_FILES: Final = Family("isotrack_files_total", "counter", "Files of this attempt that are verified in the bucket.")
_FILE_BYTES: Final = Family("isotrack_file_bytes_total", "counter", "Size of these files.")
_LOST: Final = Family("isotrack_lost_seconds_total", "counter", "Media that these files lack, summed over tracks.")
_SENT: Final = Family(
    "isotrack_upload_bytes_total", "counter", "Bytes that the storage acknowledged, manifests included."
)
_FAILURES: Final = Family(
    "isotrack_upload_failures_total", "counter", "Storage requests that failed and were repeated or given up."
)
_READY: Final = Family(
    "isotrack_storage_ready", "gauge", "1 while the storage answers as it should. Absent before the first answer."
)
_SPOOL: Final = Family("isotrack_spool_bytes", "gauge", "Bytes in the spool: what was captured, shipped or not.")
_CAPACITY: Final = Family(
    "isotrack_spool_capacity_bytes", "gauge", "Bytes that fit into the spool. Absent while the recorder is silent."
)
_CHECKPOINT: Final = Family(
    "isotrack_checkpoint_age_seconds",
    "gauge",
    "What the death of the pod would cost: time since everything captured was in the bucket. Absent without checkpoints.",
)

FAMILIES: Final = (
    *(row.family for row in _TRACK),
    *(_UNRECORDED, _RECORDER_UP, _PHASE, _RESTARTS, _PARTICIPANTS, _TRACKS),
    *(_FILES, _FILE_BYTES, _LOST, _SENT, _FAILURES, _READY, _SPOOL, _CAPACITY, _CHECKPOINT),
)


def metrics_text(facts: Facts, traffic: Traffic, spool_bytes: int, *, recorder_up: bool) -> str:
    """All metrics of one attempt."""
    return "".join(_lines(facts, traffic, spool_bytes, recorder_up=recorder_up))


def _lines(facts: Facts, traffic: Traffic, spool_bytes: int, *, recorder_up: bool) -> Iterator[str]:
    state = facts.state
    tracks = state.tracks if state else ()
    for family, value in _TRACK:
        found = ((_labels(track), value(track)) for track in tracks)
        yield from _family(family, ((labels, number) for labels, number in found if number is not None))
    yield from _family(_UNRECORDED, ((labels, 1) for labels in _left_out(state)))
    yield from _one(_RECORDER_UP, recorder_up)
    yield from _family(_PHASE, (((("phase", phase),), state is not None and state.phase == phase) for phase in PHASES))
    yield from _one(_RESTARTS, facts.restarts)
    yield from _one(_PARTICIPANTS, state.participants if state else 0)
    yield from _one(_TRACKS, sum(not track.ended for track in tracks))
    yield from _one(_FILES, len(facts.files))
    yield from _one(_FILE_BYTES, sum(file.bytes for file in facts.files))
    yield from _one(_LOST, lost_ms(facts.files) / 1000)
    yield from _one(_SENT, traffic.bytes_sent)
    yield from _one(_FAILURES, traffic.failures)
    yield from _family(_READY, [((), facts.storage.ready)] if facts.storage else [])
    yield from _one(_SPOOL, spool_bytes)
    yield from _family(_CAPACITY, [((), state.spool.capacity)] if state and state.spool else [])
    age = facts.checkpoint_age_seconds
    yield from _family(_CHECKPOINT, [] if age is None else [((), age)])


def _labels(track: TrackState) -> Sequence[tuple[str, str]]:
    # NB: the log's name makes series unique: a person who is excluded and admitted again has one track id twice
    return (("track", track.track), ("track_id", track.track_id), ("source", track.source.value))


def _left_out(state: State | None) -> Iterable[Sequence[tuple[str, str]]]:
    rows = state.unrecorded if state else ()
    # NB: by what the labels are cut to, or two rows could make one series, and Prometheus refuse the whole scrape
    told = {_legal(row.track_id): row for row in rows}
    return [(("track_id", key), ("source", row.source.value), ("reason", row.reason)) for key, row in told.items()]


def _one(family: Family, value: float) -> Iterator[str]:
    return _family(family, [((), value)])


def _family(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in samples:
        inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        number = int(value) if value == int(value) else round(value, 3)
        yield f"{family.name}{{{inner}}} {number}\n" if inner else f"{family.name} {number}\n"


def _legal(text: str) -> str:
    """Foreign text, cut; what is no legal Unicode is replaced."""
    return text[:MAX_LABEL].encode("utf-8", "replace").decode()


def _escaped(text: str) -> str:
    """A label's value: foreign text, cut, with what would end it escaped."""
    return _legal(text).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
