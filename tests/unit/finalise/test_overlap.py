"""Two pods record the same call for a while: files hold each frame once, and none is missing between the two."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from isotrack_api.manifest import ManifestFile
from isotrack_recorder.finalise.lanes import Placed
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.overlap import Seam, Shift, seam
from isotrack_recorder.finalise.session import SessionState, SessionStream
from isotrack_recorder.matroska.reader import blocks, read_file
from isotrack_recorder.spool.reader import Spool
from support.files import MemoryFiles
from support.media import opus_packets, video_frames
from support.spools import Call, Sender, an_intent, steady, tone

# ── where to cut ─────────────────────────────────────────────────────────────────────────────────────────────────────

STEP = 20_000_000


def frames(text: str, *, at: int = 0, ticks: int = 0, log: str = "i0001/t0001", span: int = 0) -> list[Placed]:
    """One frame for each letter, 20 ms and 960 ticks apart: capitals are key frames, `_` never came."""
    return [
        Placed(at + n * STEP, log, ticks + n * 960, span, letter.encode(), letter.isupper(), 0, False, 0, 1, n)
        for n, letter in enumerate(text)
        if letter != "_"
    ]


def newer(text: str, *, at: int = 0, ticks: int = 0, span: int = 0) -> list[Placed]:
    return frames(text, at=at, ticks=ticks, log="i0002/t0001", span=span)


@pytest.mark.parametrize(
    ("older", "other", "pictures", "kept", "skipped"),
    [
        pytest.param(frames("abcdefgh"), newer("defghij", at=3 * STEP), False, 3, 0, id="sound-at-its-first-packet"),
        pytest.param(frames("abcdefgh"), newer("defghij", at=9 * STEP), False, 3, 0, id="whatever-the-places"),
        pytest.param(frames("abc_efgh"), newer("defghij", at=3 * STEP), False, 3, 0, id="that-the-older-one-missed"),
        pytest.param(frames("defgh", at=3 * STEP), newer("abcdefgh"), False, 0, 3, id="not-what-is-written-already"),
        pytest.param(frames("a.......b"), newer(".......b", at=STEP), False, 1, 0, id="silence-is-alike-everywhere"),
        pytest.param(frames("abcdef...."), newer("....xyz", at=10 * STEP), False, 10, 0, id="and-proves-nothing"),
        pytest.param(frames("............"), newer("........", at=STEP + 9), False, 1, 0, id="so-the-nearest-counts"),
        pytest.param(frames("abcKefgh"), newer("Kefghij", at=3 * STEP), True, 3, 0, id="pictures-at-a-key-frame"),
        pytest.param(frames("abcKefgh"), newer("XYKefgh", at=STEP), True, 3, 2, id="that-both-have"),
        pytest.param(frames("abc_efgh"), newer("Kefghij", at=3 * STEP), True, 3, 0, id="or-the-older-one-missed"),
        pytest.param(frames("efgNh", at=4 * STEP), newer("KefgNh", at=3 * STEP), True, 3, 4, id="not-one-of-the-past"),
        pytest.param(frames("abcdefgh"), newer("KLmno", at=3 * STEP + 9), True, 3, 0, id="of-two-layers-by-place"),
        pytest.param(frames("abcdefgh"), newer("KLmno", at=3 * STEP - 9), True, 3, 0, id="to-half-a-frame"),
        pytest.param(frames("abxbcxbc"), newer("xbcyz", at=6 * STEP), False, 5, 0, id="what-both-have-is-alike"),
        pytest.param(frames("abc"), newer("Klm", at=9 * STEP), True, 3, 0, id="behind-its-end-nothing-is-left-out"),
    ],
)
def test_the_newer_one_takes_over(
    older: list[Placed], other: list[Placed], pictures: bool, kept: int, skipped: int
) -> None:
    found = seam(older, other, pictures=pictures)
    assert found is not None
    assert (found.kept, found.skipped) == (kept, skipped)


def test_ticks_of_the_two_count_from_different_bases() -> None:
    """An SFU renumbers for each receiver."""
    found = seam(frames("abcdefgh", ticks=50_000, span=2), newer("defgh", ticks=700, span=1), pictures=False)
    assert found == Seam(3, 0, Shift(50_000 + 3 * 960 - 700, 2, 1))


@pytest.mark.parametrize(
    ("older", "other"),
    [([], newer("abc")), (frames("abc"), []), (frames("efgh", at=9 * STEP), newer("Kl"))],
    ids=["nothing-older", "nothing-newer", "all-of-the-past"],
)
def test_or_it_is_not_known_yet(older: list[Placed], other: list[Placed]) -> None:
    assert seam(older, other, pictures=True) is None


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

PACKETS = opus_packets(1500)
PICTURES = [*video_frames(300), *video_frames(480)]
"""Somebody asks for a key frame at 10.5 s."""
ASKED = 300


def pod(
    path: Path, attempt: int, begin: float, end: float, *, pictures: list[tuple[bytes, bool]], first_picture: int = 0,
    transit: float = 0.03, reports: bool = True, base: int = 100_000, lost: Iterable[int] = (),
    talks_from: float = 0.0,
) -> None:  # fmt: skip
    """One pod that is in the call from `begin` to `end`, with what Alice sends meanwhile."""
    call = Call(path, incarnation=attempt, attempt=attempt, started=begin)
    call.person("PA_a", "alice", begin)
    sender = Sender(transit=transit, jitter=lambda n: (n * (5 + attempt) % 11) * 0.0007)
    told = [begin + 1 + 5 * n for n in range(int((end - begin) / 5))] if reports else []
    call.track("t0001", "PA_a", "alice", "microphone", "opus", max(begin + 0.1, talks_from),
               track_id="TR_m")  # fmt: skip
    call.track("t0002", "PA_a", "alice", "camera", "vp8", begin + 0.1, track_id="TR_c")
    call.event("size", begin + 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    sound = [row for row in tone(PACKETS, 0.5) if max(begin + 0.3, talks_from) <= row[0] < end]
    call.frames("t0001", sender, 48_000, sound, reports=told, base=base, lost=lost)
    film = steady(pictures, 0.5, 1 / 30)[first_picture:]
    shown = [row for row in film if begin + 0.3 <= row[0] < end - 0.2]  # sound lasts longer: the file ends with it
    call.frames("t0002", sender, 90_000, shown, reports=[at + 0.2 for at in told], base=base // 7)
    call.write(stop=end + 0.1, reason="CallEnded" if attempt > 1 else "Drained")


def made(tmp_path: Path) -> tuple[ManifestFile, list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """The one file, and times (ms) and content of its sound and of its pictures."""
    intent = an_intent(attempt=2, epoch_ms=1_760_000_000_000)
    [file] = finish_local(tmp_path / "spool", intent, tmp_path / "out").files
    content = (tmp_path / "out" / file.name).read_bytes()
    every = list(blocks(content, read_file(content)))
    sound, film = ([(block.time_ms, block.data) for block in every if block.track == n] for n in (1, 2))
    return file, sound, film


@pytest.mark.parametrize("reports", [True, False], ids=["reports", "arrival-alone"])
@pytest.mark.parametrize("transit", [0.03, 0.0, 0.045], ids=["same-way", "shorter-way", "longer-way"])
def test_each_frame_is_there_once_and_sound_goes_on_without_a_step(
    tmp_path: Path, transit: float, reports: bool
) -> None:
    """Whatever the two pods' ways to the sender take."""
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES, reports=reports)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED, transit=transit, reports=reports,
        base=900_000)  # fmt: skip
    file, sound, film = made(tmp_path)
    assert [data for _, data in sound] == list(PACKETS[:1275])
    assert len(film) == 759
    assert [data for _, data in film] == [data for data, _ in PICTURES[:759]]
    around = [time for time, _ in sound if time < 15_000]  # what the second way costs more or less is made up for later
    assert {later - earlier for earlier, later in pairwise(around)} <= {19, 20, 21}
    assert all(0 < later - earlier < 70 for (earlier, _), (later, _) in pairwise(film))
    assert [gap for track in file.tracks for gap in track.gaps] == []
    assert sum(track.silence_ms for track in file.tracks) == 0
    assert sum(track.overlap_ms for track in file.tracks) <= (30 if reports and transit < 0.03 else 0)


def test_what_the_older_one_missed_at_its_end_costs_nothing(tmp_path: Path) -> None:
    """It leaves while packets are on their way."""
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES, lost=range(560, 700))
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED)
    file, sound, film = made(tmp_path)
    assert (len(sound), len(film)) == (1275, 759)
    assert [gap for track in file.tracks for gap in track.gaps] == []


def test_a_third_pod_goes_on_where_the_second_one_is_about_to_begin(tmp_path: Path) -> None:
    """Nodes are drained one after the other."""
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES)
    pod(tmp_path / "spool", 2, 10.0, 14.5, pictures=PICTURES, first_picture=ASKED)
    pod(tmp_path / "spool", 3, 10.1, 26.0, pictures=PICTURES, first_picture=ASKED, base=7_000)
    file, sound, film = made(tmp_path)
    assert [data for _, data in sound] == list(PACKETS[:1275])
    assert [data for _, data in film] == [data for data, _ in PICTURES[:759]]
    assert [gap for track in file.tracks for gap in track.gaps] == []


def test_pictures_of_another_layer_go_on_with_their_key_frame(tmp_path: Path) -> None:
    """The SFU sends the newcomer smaller pictures: nothing that both have tells where to cut."""
    small = list(video_frames(780, width=80, height=60))
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=small, first_picture=ASKED)
    file, _, film = made(tmp_path)
    assert [data for _, data in film] == [data for data, _ in [*PICTURES[:ASKED], *small[ASKED:759]]]
    assert [gap for track in file.tracks for gap in track.gaps] == []


def test_a_track_that_begins_while_both_are_there_is_one_track(tmp_path: Path) -> None:
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES, talks_from=12.0)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED, talks_from=12.0, transit=0.02)
    file, sound, _ = made(tmp_path)
    spoken = [data for _, data in sound if len(data) > 3]
    assert spoken == [packet for at, packet, _ in tone(PACKETS, 0.5) if 12 <= at < 26]
    assert len(file.tracks) == 2


@pytest.mark.parametrize("end", [9.0, 10.35, 10.6], ids=["never", "not-for-this-track", "for-a-moment"])
def test_pods_that_hardly_overlap_lose_nothing_either(tmp_path: Path, end: float) -> None:
    """An SFU that puts the older one out when the newer one joins."""
    pod(tmp_path / "spool", 1, 0.0, end, pictures=PICTURES)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED)
    _, sound, film = made(tmp_path)
    shown = [data for data, _ in steady_until(end)]
    assert [data for _, data in film] == [*shown, *(data for data, _ in PICTURES[ASKED:759])]
    spoken = [packet for at, packet, _ in tone(PACKETS, 0.5) if at < end or 10.3 <= at < 26]
    assert [data for _, data in sound if len(data) > 3] == spoken


def steady_until(end: float) -> list[tuple[bytes, bool]]:
    """Pictures that a pod has that ends then, and the next one has not."""
    return [(data, key) for at, data, key in steady(PICTURES[:ASKED], 0.5, 1 / 30) if at < end - 0.2]


def test_files_that_are_made_in_several_runs_are_the_same(tmp_path: Path) -> None:
    """A saved state may stand between the cut and the change."""
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED, transit=0.02)
    intent, whole, files = an_intent(attempt=2, epoch_ms=1_760_000_000_000), MemoryFiles(), MemoryFiles()
    assert not SessionStream(read(tmp_path), intent, SessionState("PA_a"), whole).advance(whole=True)
    spool = read(tmp_path)
    broken = SessionStream(spool, intent, SessionState("PA_a"), files)
    states = 0
    while broken.advance(whole=True, most_groups=1):
        saved = broken.save()
        states += b'"heir":{' in saved
        broken = SessionStream.restore(spool, intent, saved, files)
    assert files.files == whole.files
    assert states


def read(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.refresh()
    return spool


def test_a_pod_whose_clock_is_wrong_by_seconds_goes_on_in_the_right_place(tmp_path: Path) -> None:
    """What both have tells where that is, the clocks do not."""
    pod(tmp_path / "spool", 1, 0.0, 15.0, pictures=PICTURES)
    pod(tmp_path / "spool", 2, 10.0, 26.0, pictures=PICTURES, first_picture=ASKED, transit=2.5)
    _, sound, film = made(tmp_path)
    assert [data for _, data in sound if len(data) > 3] == list(PACKETS[:1275])
    assert [data for _, data in film] == [data for data, _ in PICTURES[:759]]
