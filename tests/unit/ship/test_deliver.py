"""From a spool to a recording in the bucket, whatever happens on the way."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from isotrack_api.intent import Intent, S3Destination
from isotrack_api.manifest import Manifest, StopReason
from isotrack_recorder.errors import ConfigError, IsotrackError, StorageError, StorageRefusedError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.ship.deliver import OVER, Delivery, End
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage, weaknesses
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.store import Capabilities, UploadLostError
from support.media import opus_packets
from support.memory_store import MemoryStore
from support.shipping import ROOT, a_shipping_intent, two_people
from support.spools import Sender, tone


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with closing(Lanes()) as lanes:
        yield lanes


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def a_delivery(spool: Path, store: MemoryStore, lanes: Lanes, *, attempt: int = 1) -> Delivery:
    intent = a_shipping_intent(attempt=attempt, epoch_ms=None if attempt == 1 else 1_760_000_000_000)
    check_storage(store, layout_of(intent), intent)
    return Delivery(spool, intent, store, lanes)


def media(store: MemoryStore) -> dict[str, bytes]:
    """Deliverables by name."""
    return {key.removeprefix(f"{ROOT}/"): body for key, body in store.objects.items() if key.endswith(".mkv")}


def recording(store: MemoryStore) -> Manifest:
    return Manifest.model_validate_json(store.objects[f"{ROOT}/recording.json"])


async def test_everything_is_delivered_and_manifests_come_last(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write(stop=5)
    delivered = await a_delivery(spool, store, lanes).finish(OVER)
    names = [file.name for file in delivered.files]
    assert sorted(media(store)) == names
    assert {file.user_id for file in delivered.files} == {"alice", "bob"}
    for file in delivered.files:
        body = media(store)[file.name]
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file.bytes, file.sha256)
        assert f"{zlib.crc32(body):08x}" == file.crc32
    assert store.puts[-2:] == [f"{ROOT}/attempts/1/manifest.json", f"{ROOT}/recording.json"]
    assert recording(store).stop_reason is StopReason.REQUESTED
    assert recording(store).complete
    assert delivered.recording is not None
    digest = hashlib.sha256(store.objects[f"{ROOT}/recording.json"]).hexdigest()
    assert delivered.recording.digest == f"sha256:{digest}"
    assert delivered.recording.uri == f"s3://memory/{ROOT}/recording.json"


async def test_files_are_those_of_local_finishing(
    spool: Path, store: MemoryStore, lanes: Lanes, tmp_path: Path
) -> None:
    two_people(spool, padding=400_000).write(stop=5)
    await a_delivery(spool, store, lanes).finish(OVER)
    finish_local(spool, a_shipping_intent(), tmp_path / "local")
    local = {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}
    assert media(store) == local
    assert any(len(body) > 16_000_000 for body in local.values()), "no file took several parts"
    assert not store.uploads


async def test_a_second_time_changes_nothing(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write(stop=5)
    first = await a_delivery(spool, store, lanes).finish(OVER)
    before, store.puts = dict(store.objects), []
    again = await Delivery(spool, a_shipping_intent(), store, lanes).finish(OVER)
    assert (store.puts, store.objects) == ([], before)
    assert again == first


async def test_without_its_ledger_the_same_objects_are_made_again(
    spool: Path, store: MemoryStore, lanes: Lanes
) -> None:
    two_people(spool).write(stop=5)
    await a_delivery(spool, store, lanes).finish(OVER)
    before = dict(store.objects)
    (spool / "ship" / "ledger.ndjson").unlink()
    await Delivery(spool, a_shipping_intent(), store, lanes).finish(OVER)
    assert store.objects == before


async def test_a_session_is_delivered_when_it_ends_and_not_before(
    spool: Path, store: MemoryStore, lanes: Lanes
) -> None:
    call = two_people(spool, alice_leaves=3.0)
    call.write(until=2.5)
    delivery = a_delivery(spool, store, lanes)
    assert [await delivery.round(), await delivery.round()] == [0, 0]
    call.write(until=3.5)
    assert [await delivery.round(), await delivery.round(), await delivery.round()] == [0, 1, 0]
    assert [file.user_id for file in delivery.files] == ["alice"]
    early = media(store)
    call.write(stop=5)
    await delivery.finish(OVER)
    assert early.items() < media(store).items()
    assert store.puts.count(f"{ROOT}/{delivery.files[0].name}") == 1


async def test_a_session_that_comes_back_begins_a_further_part(
    spool: Path, store: MemoryStore, lanes: Lanes, tmp_path: Path
) -> None:
    """What was complete stays as it is; made in one go, the files are the same."""
    call = two_people(spool, alice_leaves=2.1)
    call.write(until=4)
    delivery = a_delivery(spool, store, lanes)
    assert [await delivery.round(), await delivery.round()] == [0, 1]
    first = delivery.files[0]
    call.person("PA_a", "alice", 11.0)
    call.track("t0003", "PA_a", "alice", "microphone", "opus", 11.0)
    call.frames("t0003", Sender(), 48_000, tone(opus_packets(100), 11.0))
    call.write(stop=15)
    await delivery.finish(OVER)
    files = {file.part: file for file in delivery.files if file.user_id == "alice"}
    assert files[1] == first
    assert (files[2].start_offset_ms, files[2].duration_ms) == (
        pytest.approx(11_030, abs=10),
        pytest.approx(3970, abs=5),
    )
    assert files[2].reason == "audio_video without video: there was none; the session came back after its end"
    assert store.puts.count(f"{ROOT}/{first.name}") == 1
    finish_local(spool, a_shipping_intent(), tmp_path / "local")
    assert media(store) == {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}


async def test_a_drained_attempt_leaves_its_manifest_only(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write(stop=5, reason="Drained")
    delivered = await a_delivery(spool, store, lanes).finish(End(recording_over=False))
    assert delivered.recording is None
    assert f"{ROOT}/recording.json" not in store.objects
    own = Manifest.model_validate_json(store.objects[f"{ROOT}/attempts/1/manifest.json"])
    assert own.stop_reason is StopReason.DRAINED


async def test_the_last_attempt_merges_all(tmp_path: Path, store: MemoryStore, lanes: Lanes) -> None:
    await drained_attempt(tmp_path / "1", store, lanes)
    two_people(tmp_path / "2", attempt=2, started=10).write(stop=15)
    await a_delivery(tmp_path / "2", store, lanes, attempt=2).finish(OVER)
    whole = recording(store)
    assert [attempt.n for attempt in whole.attempts] == [1, 2]
    assert whole.stop_reason is StopReason.REQUESTED
    assert sorted(file.name for file in whole.files) == sorted(media(store))
    assert len(whole.files) == 4
    assert whole.complete


async def test_an_attempt_that_comes_in_late_is_merged_by_itself(
    tmp_path: Path, store: MemoryStore, lanes: Lanes
) -> None:
    two_people(tmp_path / "1").write(stop=5, reason="Drained")
    late = a_delivery(tmp_path / "1", store, lanes)
    two_people(tmp_path / "2", attempt=2, started=10).write(stop=15)
    await a_delivery(tmp_path / "2", store, lanes, attempt=2).finish(OVER)
    before = recording(store)
    assert not before.complete
    assert "attempt 1 left no manifest" in before.message
    delivered = await late.finish(End(recording_over=False))
    assert delivered.recording is not None
    assert [attempt.n for attempt in recording(store).attempts] == [1, 2]
    assert recording(store).complete
    assert recording(store).stop_reason is StopReason.REQUESTED


async def test_a_manifest_that_arrives_while_merging_is_not_missed(
    tmp_path: Path, store: MemoryStore, lanes: Lanes
) -> None:
    await drained_attempt(tmp_path / "1", store, lanes)
    hidden = {ROOT + "/attempts/1/manifest.json": store.objects.pop(f"{ROOT}/attempts/1/manifest.json")}

    def arrive(operation: str, key: str) -> None:
        if (operation, key) == ("put", f"{ROOT}/recording.json"):
            store.objects.update(hidden)

    store.before = arrive
    two_people(tmp_path / "2", attempt=2, started=10).write(stop=15)
    await a_delivery(tmp_path / "2", store, lanes, attempt=2).finish(OVER)
    assert [attempt.n for attempt in recording(store).attempts] == [1, 2]


async def drained_attempt(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write(stop=5, reason="Drained")
    await a_delivery(spool, store, lanes).finish(End(recording_over=False))


async def test_a_foreign_attempt_manifest_does_not_stop_the_commit(
    spool: Path, store: MemoryStore, lanes: Lanes
) -> None:
    two_people(spool).write(stop=5)
    store.put(f"{ROOT}/attempts/7/manifest.json", b'{"version": 99}', "application/json")
    await a_delivery(spool, store, lanes).finish(OVER)
    assert [attempt.n for attempt in recording(store).attempts] == [1]


async def test_a_recorder_that_died_is_declared(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write()
    await a_delivery(spool, store, lanes).finish(End(True, StopReason.DELETED, "the recorder did not stop"))
    whole = recording(store)
    assert whole.stop_reason is StopReason.DELETED
    assert whole.attempts[0].stop_reason is StopReason.DELETED
    assert whole.message == "the recorder did not stop"
    assert not whole.complete


async def test_an_attempt_that_never_captured_leaves_no_trace_but_the_intent(
    spool: Path, store: MemoryStore, lanes: Lanes
) -> None:
    delivered = await a_delivery(spool, store, lanes).finish(OVER)
    assert (delivered.files, delivered.attempt, delivered.recording) == ((), None, None)
    assert list(store.objects) == [f"{ROOT}/intent.json"]


CALLS = {"put": 3, "head": 2, "create_upload": 1, "upload_part": 3, "complete_upload": 1, "list_uploads": 1, "get": 5}
"""Calls of a delivery, by kind: how many there are at least."""


@pytest.mark.parametrize(
    ("operation", "nth"), [(name, nth) for name, most in CALLS.items() for nth in range(1, most + 1)]
)
async def test_an_agent_killed_at_any_call_goes_on(spool: Path, store: MemoryStore, operation: str, nth: int) -> None:
    """The process dies at the nth call of a kind; its successor finishes, and nothing is left half done."""
    two_people(spool, padding=300_000).write(stop=5)
    with closing(Lanes()) as lanes:
        dying = a_delivery(spool, store, lanes)
        store.before = at_call(operation, nth, Killed())
        with pytest.raises(Killed):
            await dying.finish(OVER)
    store.before = lambda _operation, _key: None
    with closing(Lanes()) as lanes:
        await Delivery(spool, a_shipping_intent(), store, lanes).finish(OVER)
    assert len(media(store)) == 2
    assert {file.name: file.bytes for file in recording(store).files} == {n: len(b) for n, b in media(store).items()}
    assert not store.uploads


@pytest.mark.parametrize("operation", ["upload_part", "complete_upload", "head"])
async def test_a_file_is_sent_again_when_the_storage_loses_it(
    spool: Path, store: MemoryStore, lanes: Lanes, operation: str
) -> None:
    two_people(spool, padding=300_000).write(stop=5)
    delivery = a_delivery(spool, store, lanes)
    store.before = at_call(operation, 2, UploadLostError("forgotten"))
    await delivery.finish(OVER)
    assert len(media(store)) == 2
    assert not store.uploads


async def test_one_file_that_cannot_be_made_does_not_cost_the_others(
    spool: Path, store: MemoryStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_people(spool).write(stop=5)

    advance = SessionStream.advance

    def fail_for_bob(stream: SessionStream, **how: bool) -> bool:
        if stream.state.peer_id == "PA_b":
            raise ZeroDivisionError
        return advance(stream, **how)

    monkeypatch.setattr(SessionStream, "advance", fail_for_bob)
    with pytest.raises(IsotrackError, match="could not be made: ZeroDivisionError"):
        await a_delivery(spool, store, lanes).finish(OVER)
    whole = recording(store)
    assert [file.user_id for file in whole.files] == ["alice"]
    assert not whole.complete
    assert "could not be made" in whole.message


async def test_time_that_is_over_leaves_word_of_what_arrived(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    call = two_people(spool, alice_leaves=1.0)
    call.write(until=1.9)
    delivery = a_delivery(spool, store, lanes)
    assert [await delivery.round(), await delivery.round()] == [0, 1]
    call.write(stop=5, reason="Drained")
    store.patience.end_within(0)
    with pytest.raises(StorageError, match="time is over"):
        await delivery.finish(End(recording_over=True))
    own = Manifest.model_validate_json(store.objects[f"{ROOT}/attempts/1/manifest.json"])
    assert not own.complete
    assert f"{ROOT}/recording.json" not in store.objects


async def test_a_refusal_ends_the_delivery(spool: Path, store: MemoryStore, lanes: Lanes) -> None:
    two_people(spool).write(stop=5)
    delivery = a_delivery(spool, store, lanes)
    store.patience = Patience(60)
    store.before = at_call("put", 1, StorageRefusedError("denied"), always=True)
    with pytest.raises(StorageRefusedError):
        await delivery.finish(OVER)


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


def at_call(operation: str, nth: int, error: BaseException, *, always: bool = False) -> Callable[[str, str], None]:
    count = 0

    def before(name: str, _key: str) -> None:
        nonlocal count
        if name == operation:
            count += 1
            if count == nth or (always and count > nth):
                raise error

    return before


ALL_KEPT = Capabilities(create_once=True, checks_md5=True, etag_is_md5=True, lists_uploads=True, deletes=True)


class TestPreflight:
    """The first second tells whether the storage will take files."""

    def test_it_leaves_the_intent_and_nothing_else(self, store: MemoryStore) -> None:
        intent = a_shipping_intent()
        assert check_storage(store, layout_of(intent), intent).created
        assert sorted(store.objects) == [f"{ROOT}/attempts/1/intent.json", f"{ROOT}/intent.json"]
        assert not store.uploads

    def test_what_a_killed_check_left_is_removed(self, store: MemoryStore) -> None:
        intent = a_shipping_intent()
        store.put(f"{ROOT}/attempts/1/probe-0123", b"", "text/plain")
        store.put(f"{ROOT}/attempts/2/probe-4567", b"", "text/plain")
        check_storage(store, layout_of(intent), intent)
        assert [key for key in store.objects if "probe" in key] == [f"{ROOT}/attempts/2/probe-4567"]

    @pytest.mark.parametrize(
        ("found", "words"),
        [
            pytest.param({}, [], id="all-is-kept"),
            pytest.param({"create_once": False}, ["ignores If-None-Match"], id="conditions"),
            pytest.param({"checks_md5": False}, [], id="etag-tells"),
            pytest.param({"checks_md5": False, "checks_sha256": True, "etag_is_md5": False}, [], id="signature-tells"),
            pytest.param({"checks_md5": False, "etag_is_md5": False}, ["read back"], id="nothing-tells"),
            pytest.param({"checks_md5": False, "checks_crc32": True, "etag_is_md5": False}, [], id="crc-tells"),
            pytest.param({"lists_uploads": False}, ["AbortIncompleteMultipartUpload"], id="uploads"),
            pytest.param({"deletes": False}, ["may not delete"], id="deletion"),
            pytest.param({"retains": True, "deletes": False}, ["may not delete", "locks"], id="locks"),
            pytest.param({"keeps_versions": True}, [], id="versions"),
        ],
    )
    def test_a_storage_that_keeps_less_is_described(self, found: dict[str, bool], words: list[str]) -> None:
        texts = weaknesses(replace(ALL_KEPT, **found))
        assert len(texts) == len(words)
        assert all(word in text for word, text in zip(words, texts, strict=True))

    def test_the_upload_of_a_process_that_died_while_probing_is_dropped(self, store: MemoryStore) -> None:
        intent = a_shipping_intent()
        store.create_upload(f"{layout_of(intent).probe(1)}0123", "application/octet-stream")
        check_storage(store, layout_of(intent), intent)
        assert not store.uploads

    def test_a_later_attempt_finds_the_first_one_s_intent(self, store: MemoryStore) -> None:
        first, second = a_shipping_intent(), a_shipping_intent(attempt=2, epoch_ms=5)
        check_storage(store, layout_of(first), first)
        assert not check_storage(store, layout_of(second), second).created

    def test_a_folder_of_another_recording_is_refused(self, store: MemoryStore) -> None:
        store.put(f"{ROOT}/intent.json", b'{"version": 1}', "application/json")
        intent = a_shipping_intent()
        with pytest.raises(StorageRefusedError, match="belongs to another recording"):
            check_storage(store, layout_of(intent), intent)

    @pytest.mark.parametrize("damage", [b"", b"{"], ids=["empty", "cut"])
    def test_an_intent_that_was_damaged_in_mid_call_is_written_anew(self, store: MemoryStore, damage: bytes) -> None:
        """An agent that began again, and a successor, ended the recording: the folder counted as somebody else's."""
        first, second = a_shipping_intent(), a_shipping_intent(attempt=2, epoch_ms=5)
        for intent in (first, first, second):
            check_storage(store, layout_of(intent), intent)
            store.put(f"{ROOT}/intent.json", damage, "application/json")
        check_storage(store, layout_of(second), second)
        assert Intent.model_validate_json(store.objects[f"{ROOT}/intent.json"]).recording == first.recording

    @pytest.mark.parametrize(("size", "fits"), [(255, True), (256, False)])
    def test_a_folder_whose_files_could_have_no_key_is_refused_at_once(
        self, store: MemoryStore, size: int, fits: bool
    ) -> None:
        """A name of a file has 255 bytes at most, a key 1024; a small object in the same folder may well have one."""
        storage = S3Destination(bucket="memory", prefix="p" * 512)
        intent = a_shipping_intent(storage=storage).model_copy(update={"folder": "f" * size})
        if fits:
            assert check_storage(store, layout_of(intent), intent).created
            return
        with pytest.raises(ConfigError, match="shorten the storage's prefix"):
            check_storage(store, layout_of(intent), intent)
        assert not store.objects

    def test_a_storage_that_gives_nothing_back_is_refused(self, store: MemoryStore) -> None:
        store.put_once = lambda *_: True  # type: ignore[method-assign]
        intent = a_shipping_intent()
        with pytest.raises(StorageRefusedError, match="does not give it back"):
            check_storage(store, layout_of(intent), intent)

    @pytest.mark.parametrize(("skew", "words"), [(0.5, ""), (-59.0, ""), (90.0, "behind"), (-400.0, "ahead of")])
    def test_a_wrong_clock_is_warned_about(self, store: MemoryStore, skew: float, words: str) -> None:
        store.clock_skew_seconds = skew
        intent = a_shipping_intent()
        warning = check_storage(store, layout_of(intent), intent).warning
        assert words in warning
        assert bool(warning) is bool(words)
