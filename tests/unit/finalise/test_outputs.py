"""Which file each frame of a session goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from isotrack_api.base import Container, MediaKind, OutputType, StreamKind, TrackSource
from isotrack_api.intent import OutputLayer
from isotrack_recorder.finalise.outputs import FULL, Lane, PartDraft, Router, Stage, ready
from isotrack_recorder.media import CodecInfo

SECOND = 1_000_000_000
BOTH = (OutputType.AUDIO_VIDEO, OutputType.SCREENSHARE_AUDIO_VIDEO)
ALL = (OutputType.AUDIO_ONLY, OutputType.VIDEO_ONLY, OutputType.AUDIO_VIDEO)


def a_lane(source: str, codec: str = "", number: int = 1) -> Lane:
    kind = MediaKind.AUDIO if source in ("microphone", "screenshare_audio") else MediaKind.VIDEO
    name = codec or ("opus" if kind is MediaKind.AUDIO else "vp8")
    return Lane(kind, number, TrackSource(source), CodecInfo(name, 90_000), f"TR_{source}", f"i0001/{source}{number}")


@dataclass
class Files:
    """Notes what is opened and cut."""

    drafts: dict[str, PartDraft] = field(default_factory=dict)
    cuts: dict[str, float] = field(default_factory=dict)
    dead: set[MediaKind] = field(default_factory=set)

    def open_part(self, layer: int, draft: PartDraft) -> str:
        name = f"{draft.output_type}_t{draft.number}_p{draft.part}" + (f"_l{layer}" if layer else "")
        assert name not in self.drafts
        self.drafts[name] = draft
        return name

    def cut_part(self, name: str, at_ns: int) -> None:
        self.cuts[name] = at_ns / SECOND

    def is_alive(self, lane: Lane, at_ns: int) -> bool:
        return at_ns > 0 and lane.kind not in self.dead


class Session:
    """A stage that frames are sent through."""

    def __init__(
        self,
        *sources: str,
        wanted: Sequence[OutputType] = BOTH,
        container: Container = Container.MKV,
        kind: StreamKind = StreamKind.PEER,
    ) -> None:
        self.files = Files()
        layer = OutputLayer(output_types=tuple(wanted), container=container)
        self.stage = Stage()
        self.router = Router(kind, self.stage, [layer], self.files)
        self.lanes = {source: a_lane(source) for source in sources}
        self.router.open(list(self.lanes.values()), {lane.kind: SECOND for lane in self.lanes.values()})

    def frame(self, source: str, at: float, *, key: bool = False) -> list[str]:
        lane = self.lanes.get(source)
        if lane is None:
            lane = self.lanes[source] = a_lane(source)
            self.router.add_lane(lane)
        return self.router.parts_of(lane, round(at * SECOND), key=key or lane.kind is MediaKind.AUDIO)

    def reason(self, name: str) -> str | None:
        return self.files.drafts[name].reason


@pytest.mark.parametrize(
    ("wanted", "first", "seen", "kinds"),
    [
        pytest.param(BOTH, {}, 500, "", id="nothing-came"),
        pytest.param(BOTH, {"audio": 1, "video": 9}, 10, "audio video", id="both-came"),
        pytest.param(BOTH, {"audio": 1}, 61, "", id="the-other-may-come"),
        pytest.param(BOTH, {"audio": 1}, 62, "audio", id="a-minute-passed"),
        pytest.param(BOTH, {"video": 1}, None, "video", id="nothing-follows"),
        pytest.param(BOTH, {"audio": 1, "video": 61}, 62, "audio video", id="within-the-minute"),
        pytest.param(BOTH, {"audio": 1, "video": 62}, 65, "audio", id="too-late"),
        pytest.param((OutputType.AUDIO_ONLY,), {"audio": 1}, 2, "audio", id="nobody-wants-both"),
        pytest.param(ALL, {"audio": 1}, 2, "", id="somebody-wants-both"),
    ],
)
def test_files_open_when_both_kinds_were_seen_or_a_minute_passed(
    wanted: tuple[OutputType, ...], first: dict[str, int], seen: int | None, kinds: str
) -> None:
    first_ns = {MediaKind(kind): at * SECOND for kind, at in first.items()}
    assert ready(wanted, first_ns, None if seen is None else seen * SECOND) == tuple(map(MediaKind, kinds.split()))


@pytest.mark.parametrize(
    ("wanted", "sources", "expected"),
    [
        pytest.param(BOTH, ["microphone", "camera"], ["audio_video_t1_p1"], id="both-kinds"),
        pytest.param(BOTH, ["microphone"], ["audio_only_t1_p1"], id="fallback-to-sound"),
        pytest.param(BOTH, ["camera"], ["video_only_t1_p1"], id="fallback-to-pictures"),
        pytest.param(
            (OutputType.AUDIO_ONLY, OutputType.AUDIO_VIDEO),
            ["microphone"],
            ["audio_only_t1_p1"],
            id="no-fallback-beside-the-same-file",
        ),
        pytest.param(
            ALL, ["microphone", "camera"], ["audio_only_t1_p1", "video_only_t1_p1", "audio_video_t1_p1"], id="all-three"
        ),
        pytest.param((OutputType.AUDIO_ONLY,), ["camera"], [], id="not-asked-for"),
        pytest.param((OutputType.SCREENSHARE_AUDIO_ONLY,), ["microphone"], [], id="of-the-screen-only"),
    ],
)
def test_files_that_a_session_begins_with(
    wanted: tuple[OutputType, ...], sources: list[str], expected: list[str]
) -> None:
    assert list(Session(*sources, wanted=wanted).files.drafts) == expected


def test_a_screen_falls_back_like_a_person() -> None:
    assert list(Session("screenshare", kind=StreamKind.SCREENSHARE).files.drafts) == ["screenshare_video_only_t1_p1"]


def test_a_second_camera_has_a_file_of_its_own() -> None:
    session = Session("microphone", "camera")
    second = a_lane("camera", number=2)
    session.router.add_lane(second)
    assert session.router.parts_of(second, 5 * SECOND, key=True) == ["video_only_t2_p1"]
    assert session.reason("video_only_t2_p1") == "track 2 of the same source has a file of its own"
    assert session.frame("camera", 5.1) == ["audio_video_t1_p1"]


def test_a_second_camera_and_a_second_microphone_have_a_file_each() -> None:
    """One each, from the first frame to the last: frames of the one end nothing of the other."""
    session = Session("microphone", "camera")
    sound, picture = a_lane("microphone", number=2), a_lane("camera", number=2)
    session.router.add_lane(sound)
    session.router.add_lane(picture)
    again = Router(StreamKind.PEER, session.stage, [OutputLayer(output_types=BOTH)], session.files)
    for number, router in enumerate([session.router, session.router, session.router, again, again]):
        at = (5 + number) * SECOND
        assert router.parts_of(sound, at, key=True) == ["audio_only_t2_p1"]
        assert router.parts_of(picture, at + 1, key=number in (0, 2)) == ["video_only_t2_p1"]


def test_a_late_camera_begins_the_next_part_with_the_sound_from_then_on() -> None:
    session = Session("microphone")
    assert session.frame("microphone", 74.9) == ["audio_only_t1_p1"]
    assert session.frame("camera", 75, key=True) == ["audio_video_t1_p2"]
    assert session.frame("microphone", 75.1) == ["audio_video_t1_p2"]
    assert session.reason("audio_video_t1_p2") == "video began 74 s after audio"
    assert session.files.drafts["audio_video_t1_p2"].zero_ns == 75 * SECOND
    assert session.files.cuts == {"audio_only_t1_p1": 75}


def test_a_late_microphone_leaves_pictures_where_they_are_until_their_next_key_frame() -> None:
    session = Session("camera")
    assert session.frame("microphone", 75) == ["audio_video_t1_p2"]
    assert session.frame("camera", 75.1) == ["video_only_t1_p1"]
    assert session.stage.outputs[0].open_parts() == {"video_only_t1_p1", "audio_video_t1_p2"}
    assert session.frame("camera", 76, key=True) == ["audio_video_t1_p2"]
    assert session.frame("camera", 76.1) == ["audio_video_t1_p2"]
    assert session.stage.outputs[0].open_parts() == {"audio_video_t1_p2"}


def test_a_late_kind_makes_the_first_part_where_the_other_has_a_file_of_its_own() -> None:
    session = Session("microphone", wanted=(OutputType.AUDIO_ONLY, OutputType.AUDIO_VIDEO))
    assert session.frame("camera", 75, key=True) == ["audio_video_t1_p1"]
    assert session.frame("microphone", 76) == ["audio_only_t1_p1", "audio_video_t1_p1"]
    assert session.reason("audio_video_t1_p1") is None


def test_kinds_that_never_met_share_no_part() -> None:
    session = Session("microphone")
    session.files.dead.add(MediaKind.AUDIO)
    assert session.frame("camera", 100, key=True) == ["video_only_t1_p2"]
    assert session.stage.outputs[0].open_parts() == {"video_only_t1_p2"}


def test_a_change_of_codec_begins_the_next_part() -> None:
    session = Session("microphone", "camera")
    session.lanes["camera"].codec = CodecInfo("h264", 90_000)
    assert session.frame("camera", 20, key=True) == ["audio_video_t1_p2"]
    assert session.frame("microphone", 20.1) == ["audio_video_t1_p2"]
    assert session.reason("audio_video_t1_p2") == "the video codec changed from vp8 to h264"


def test_sound_that_changes_its_codec_waits_for_no_key_frame() -> None:
    session = Session("microphone", "camera")
    session.lanes["microphone"].codec = CodecInfo("pcmu", 8000)
    assert session.frame("microphone", 20) == ["audio_video_t1_p2"]
    assert session.frame("camera", 20.1) == ["audio_video_t1_p1"]
    session.lanes["camera"].codec = CodecInfo("h264", 90_000)
    assert session.frame("camera", 21, key=True) == ["audio_video_t1_p3"]
    assert session.frame("microphone", 21.1) == ["audio_video_t1_p3"]


@pytest.mark.parametrize(
    ("sources", "steps"),
    [
        (["microphone", "camera"], [("microphone", False, 1), ("camera", False, 1), ("camera", True, 2), ("microphone", False, 2)]),
        (["camera"], [("camera", False, 1), ("camera", True, 2), ("camera", True, 2)]),
        (["microphone"], [("microphone", False, 2), ("microphone", False, 2)]),
    ],
    ids=["both", "pictures", "sound"],
)  # fmt: skip
def test_a_full_part_is_followed_at_the_next_key_frame(sources: list[str], steps: list[tuple[str, bool, int]]) -> None:
    session = Session(*sources)
    session.stage.outputs[0].full = True
    parts = [session.frame(source, 30 + n, key=key)[0].rpartition("p")[2] for n, (source, key, _) in enumerate(steps)]
    assert parts == [str(part) for _, _, part in steps]
    last = session.frame(steps[-1][0], 99)[0]
    assert (session.reason(last) or "").endswith(FULL)


@pytest.mark.parametrize(
    ("codec", "container", "reason"),
    [("vp8", Container.WEBM, None), ("h264", Container.MKV, "h264 is not allowed in WebM")],
)
def test_webm_only_where_it_is_legal(codec: str, container: Container, reason: str | None) -> None:
    session = Session(container=Container.WEBM)
    lanes = [a_lane("microphone"), a_lane("camera", codec)]
    session.router.open(lanes, {lane.kind: SECOND for lane in lanes})
    (draft,) = session.files.drafts.values()
    assert (draft.container, draft.reason) == (container, reason)


def test_a_restored_router_goes_on() -> None:
    session = Session("camera")
    session.frame("microphone", 75)
    layer = OutputLayer(output_types=BOTH)
    again = Router(StreamKind.PEER, session.stage, [layer], session.files)
    assert again.parts_of(session.lanes["camera"], 76 * SECOND, key=False) == ["video_only_t1_p1"]
    assert again.parts_of(session.lanes["camera"], 77 * SECOND, key=True) == ["audio_video_t1_p2"]
