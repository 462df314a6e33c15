"""Checkpoints: what a bucket holds of a spool is a spool, whatever is missing or damaged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.intent import Intent
from isotrack_recorder.clocks import Bounds, CallClock
from isotrack_recorder.errors import ParseError
from isotrack_recorder.ship import checkpoint, slices
from isotrack_recorder.ship.checkpoint import (
    FIRST,
    Head,
    Slice,
    choose_slices,
    decode_head,
    digest,
    encode_head,
    follows,
)
from isotrack_recorder.ship.checkpoints import STATE_NAME, Checkpoints, measure, sign_of_life_seconds
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.rebuild import Chain, fetch, find_runs, follow
from isotrack_recorder.spool.journal import encode_line
from support.memory_store import MemoryStore
from support.shipping import a_shipping_intent, two_people

RUN = "0123456789abcdef"
HEAD = Head(1, RUN, 1, FIRST, 1_760_000_000_000, (Slice("i0001/journal.ndjson", 0, 10, 7),))


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def rebuilt(store: MemoryStore, to: Path, intent: Intent | None = None) -> Chain:
    """The spool of the only run in the bucket."""
    layout = layout_of(intent or a_shipping_intent())
    [run] = find_runs(store.list_objects(layout.attempts), layout)
    to.mkdir(parents=True, exist_ok=True)
    chain = follow(store, layout, run, to)
    fetch(store, layout, chain, lambda path: to / path)
    return chain


def files(folder: Path) -> dict[str, bytes]:
    """What checkpoints copy, as it lies in a folder."""
    return {name: (folder / name).read_bytes() for name in measure(folder)}


def bundles(store: MemoryStore) -> list[str]:
    return sorted(key for key in store.objects if key.endswith(".ckpt"))


# ── the format ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_reads_back_whatever_lies_behind_it() -> None:
    assert decode_head(encode_head(HEAD) + b"bytes of slices") == HEAD
    timed = replace(HEAD, storage_clock=Bounds(-5, 7), call_clock=CallClock("b1", Bounds(1, 1)))
    assert decode_head(encode_head(timed)) == timed


@pytest.mark.parametrize(
    "path",
    [
        *("../escape", "/etc/passwd", "i0001/../../x", "i0001/t0001.000001.log/../x", "ship/checkpoints.json"),
        *(
            "i1/journal.ndjson",
            "i0001/journal.ndjson\0",
            "i0001/reserve",
            "",
            "i0001/t0001.1.log",
            "i٠٠٠١/journal.ndjson",
        ),
    ],
)
def test_a_file_that_no_spool_has_makes_a_head_unreadable(path: str) -> None:
    with pytest.raises(ParseError):
        decode_head(encode_head(replace(HEAD, slices=(Slice(path, 0, 1),))))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(replace(HEAD, seq=0), id="number 0"),
        pytest.param(replace(HEAD, attempt=10_001), id="attempt out of bounds"),
        pytest.param(replace(HEAD, run="../../../../etc/"), id="run that is a path"),
        pytest.param(replace(HEAD, previous="x"), id="no digest"),
        pytest.param(replace(HEAD, slices=(Slice("i0002/journal.ndjson", -1, 1),)), id="negative offset"),
        pytest.param(replace(HEAD, slices=(Slice("i0002/journal.ndjson", 0, 0),)), id="empty slice"),
        pytest.param(replace(HEAD, slices=(Slice("i0002/journal.ndjson", 1 << 50, 1),)), id="offset out of bounds"),
        pytest.param(
            replace(HEAD, slices=(Slice("i0002/journal.ndjson", 0, 1), Slice("i0002/journal.ndjson", 1, 1))),
            id="a file twice",
        ),
        pytest.param(replace(HEAD, storage_clock=Bounds(2, 1)), id="a clock between nothing"),
        pytest.param(replace(HEAD, storage_clock=Bounds(0, 1 << 63)), id="a clock out of bounds"),
        pytest.param(replace(HEAD, call_clock=CallClock("b" * 65, Bounds(0, 1))), id="a boot that is none"),
        pytest.param(
            replace(HEAD, slices=tuple(Slice(f"i000{n}/journal.ndjson", 0, 40 << 20) for n in (1, 2))), id="too large"
        ),
    ],
)
def test_a_head_out_of_bounds_is_refused(head: Head) -> None:
    with pytest.raises(ParseError):
        decode_head(encode_head(head))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_damage_to_a_head_is_noticed(junk: bytes, at: int) -> None:
    good = encode_head(HEAD)
    bad = good[: at % len(good)] + junk
    if not bad.startswith(good):
        with pytest.raises(ParseError):
            decode_head(bad)


def test_a_chain_holds_by_number_run_and_digest() -> None:
    first = digest(encode_head(HEAD))
    second = replace(HEAD, seq=2, previous=first)
    assert follows(None, "", HEAD)
    assert follows(HEAD, first, second)
    assert not follows(None, "", second)
    assert not follows(HEAD, first, replace(second, previous="1" * 64))
    assert not follows(HEAD, first, replace(second, seq=3))
    assert not follows(HEAD, first, replace(second, run="f" * 16))


_SIZES = st.dictionaries(
    st.sampled_from(
        [*(f"i0001/t000{n}.000001.log" for n in range(1, 6)), "i0001/journal.ndjson", "i0002/journal.ndjson"]
    ),
    st.integers(0, 1000),
)


@given(_SIZES, _SIZES, st.integers(1, 2000))
def test_slices_go_on_where_they_were_and_nothing_is_forgotten(
    sizes: dict[str, int], sent: dict[str, int], limit: int
) -> None:
    slices, left = choose_slices(sizes, sent, limit)
    assert sum(part.length for part in slices) <= limit
    assert all(part.offset == sent.get(part.path, 0) and part.end <= sizes[part.path] for part in slices)
    new = sum(max(0, size - sent.get(path, 0)) for path, size in sizes.items())
    assert left == new - sum(part.length for part in slices)
    assert not new or slices or limit < len(sizes)


def test_after_an_outage_no_track_waits_for_another() -> None:
    """Sound, which is little, goes whole; pictures share the rest."""
    logs = {f"i0001/t000{n}.000001.log": size for n, size in ((1, 50), (2, 9000), (3, 9000))}
    slices, left = choose_slices({**logs, "i0001/journal.ndjson": 100}, {}, 1150)
    assert [part.length for part in slices] == [100, 50, 500, 500]
    assert left == 17_000


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("held", [0, 1 << 30], ids=["streamed", "in-memory"])
def test_checkpoints_are_the_spool(
    spool: Path, store: MemoryStore, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether their bytes are read again while they are sent, or held since their sums were made."""
    monkeypatch.setattr(slices, "_IN_MEMORY_BYTES", held)
    call, copy = two_people(spool), Checkpoints(spool, a_shipping_intent(), store)
    for until in (0.5, 1.0, 2.0, 3.5):
        call.write(until=until)
        assert copy.ship() == 0
    chain = rebuilt(store, tmp_path / "again")
    assert chain.length == copy.seq == 4
    assert files(tmp_path / "again") == files(spool)
    assert copy.sent == measure(spool)


def test_bytes_are_sent_once(spool: Path, store: MemoryStore) -> None:
    call, copy = two_people(spool, padding=10_000), Checkpoints(spool, a_shipping_intent(), store)
    for until in (1.0, 2.0, 3.0, 4.0):
        call.write(until=until)
        copy.ship()
    assert sum(len(store.objects[key]) for key in bundles(store)) < sum(measure(spool).values()) + 4 * 1000


def test_what_was_given_back_is_forgotten(spool: Path, store: MemoryStore, tmp_path: Path) -> None:
    """Notes grow with what lies on the disk, not with the call; the chain is as it was."""
    call, copy = two_people(spool), Checkpoints(spool, a_shipping_intent(), store)
    call.write(until=3.0)
    copy.ship()
    everything = files(spool)
    gone = spool / "i0001" / "t0001.000001.log"
    gone.unlink()
    journal = spool / "i0001" / "journal.ndjson"
    journal.write_bytes(journal.read_bytes() + encode_line("muted", 1, {"track": "t0002"}))
    again = Checkpoints(spool, a_shipping_intent(), store)
    again.ship()
    assert again.sent == measure(spool)
    assert "i0001/t0001.000001.log" not in (spool / STATE_NAME).read_text()
    rebuilt(store, tmp_path / "again")
    assert files(tmp_path / "again") == {**everything, "i0001/journal.ndjson": journal.read_bytes()}


def test_a_restarted_agent_goes_on_with_its_chain(spool: Path, store: MemoryStore, tmp_path: Path) -> None:
    call = two_people(spool)
    call.write(until=1.0)
    first = Checkpoints(spool, a_shipping_intent(), store)
    first.ship()
    call.write(until=3.0)
    second = Checkpoints(spool, a_shipping_intent(), store)
    second.ship()
    assert (second.run, second.seq) == (first.run, 2)
    rebuilt(store, tmp_path / "again")
    assert files(tmp_path / "again") == files(spool)


def test_a_checkpoint_whose_acknowledgement_was_lost_is_not_sent_again(
    spool: Path, store: MemoryStore, tmp_path: Path
) -> None:
    """The agent dies between the storage's answer and its own note: the object that is there counts."""
    call = two_people(spool)
    call.write(until=1.0)
    Checkpoints(spool, a_shipping_intent(), store).ship()
    before = (spool / STATE_NAME).read_bytes()
    call.write(until=2.0)
    Checkpoints(spool, a_shipping_intent(), store).ship()
    (spool / STATE_NAME).write_bytes(before)
    held = dict(store.objects)
    call.write(until=3.0)
    again = Checkpoints(spool, a_shipping_intent(), store)
    again.ship()
    assert store.objects == held
    again.ship()
    assert again.seq == 3
    rebuilt(store, tmp_path / "again")
    assert files(tmp_path / "again") == files(spool)


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b'{"run": "../x", "seq": 1, "digest": "", "sent": {}}', b"\xff"])
def test_a_state_that_is_none_begins_another_run(spool: Path, store: MemoryStore, junk: bytes) -> None:
    """The volume is shared with the process that parses hostile bytes."""
    two_people(spool).write(until=1.0)
    first = Checkpoints(spool, a_shipping_intent(), store)
    (spool / STATE_NAME).write_bytes(junk)
    second = Checkpoints(spool, a_shipping_intent(), store)
    assert second.run != first.run
    assert second.seq == 0


def test_a_quiet_run_shows_that_it_lives(spool: Path, store: MemoryStore) -> None:
    two_people(spool).write(until=1.0)
    time = Time()
    copy = Checkpoints(spool, a_shipping_intent(), store, time)
    copy.ship(patient=True)
    for _ in range(60):
        time.now += 1
        copy.ship(patient=True)
    assert copy.seq == 1 + 60 // sign_of_life_seconds(5)


def test_what_is_new_waits_for_its_interval(spool: Path, store: MemoryStore) -> None:
    call, time = two_people(spool), Time()
    call.write(until=1.0)
    copy = Checkpoints(spool, a_shipping_intent(), store, time)
    copy.ship(patient=True)
    call.write(until=2.0)
    time.now += 2
    copy.ship(patient=True)
    assert copy.seq == 1
    time.now += 3
    copy.ship(patient=True)
    assert copy.seq == 2


def test_the_age_is_what_a_death_would_cost(spool: Path, store: MemoryStore) -> None:
    call, time = two_people(spool), Time()
    copy = Checkpoints(spool, a_shipping_intent(), store, time)
    assert copy.age_seconds is None
    call.write(until=1.0)
    copy.ship()
    time.now += 4
    assert copy.age_seconds == 4
    time.now += 2
    copy.ship(patient=True)
    assert copy.age_seconds == 0, "there was nothing new"


def test_nothing_is_written_behind_the_end(spool: Path, store: MemoryStore) -> None:
    """It would lie in the bucket for ever: whoever deletes checkpoints is done."""
    call, copy = two_people(spool), Checkpoints(spool, a_shipping_intent(), store)
    call.write(until=1.0)
    copy.ship()
    copy.close()
    call.write(until=2.0)
    assert copy.ship() == 0
    assert len(bundles(store)) == 1


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Shipped:
    """A run of ten checkpoints and the spool that they copy."""

    objects: dict[str, bytes] = field(repr=False)
    files: dict[str, bytes] = field(repr=False)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    spool, store = tmp_path_factory.mktemp("spool"), MemoryStore()
    call, copy = two_people(spool), Checkpoints(spool, a_shipping_intent(), store)
    for number in range(1, 11):
        call.write(until=number * 0.3)
        copy.ship()
    return Shipped(store.objects, files(spool))


def _damage(objects: dict[str, bytes], number: int, how: str, at: int) -> None:
    """Damage one checkpoint."""
    key = sorted(objects)[number]
    body = objects[key]
    match how:
        case "missing":
            del objects[key]
        case "cut":
            objects[key] = body[: at % len(body)]
        case "flipped":
            at %= len(body)
            objects[key] = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        case "another":
            objects[key] = objects[sorted(objects)[(number + 1) % len(objects)]]
        case "empty":
            objects[key] = b""


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 9), st.sampled_from(["missing", "cut", "flipped", "another", "empty"]), st.integers(0, 1 << 20))
def test_a_damaged_checkpoint_costs_what_it_held_and_no_more(
    shipped: Shipped, tmp_path_factory: pytest.TempPathFactory, number: int, how: str, at: int
) -> None:  # fmt: skip
    objects, original = dict(shipped.objects), shipped.files
    held = decode_head(objects[sorted(objects)[number]]).slices
    _damage(objects, number, how, at)
    store = MemoryStore()
    store.objects = objects
    folder = tmp_path_factory.mktemp("again")
    layout = layout_of(a_shipping_intent())
    for run in find_runs(store.list_objects(layout.attempts), layout):
        chain = follow(store, layout, run, folder)
        assert chain.length in (9, 10), "a body that is damaged is noticed when it is read"
        whole = fetch(store, layout, chain, lambda path: folder / path)
        assert not whole or chain.is_short or (how == "missing" and number == 9)
    got = files(folder)
    assert got.keys() <= original.keys()
    for name, content in original.items():
        rebuilt_content = bytearray(got.get(name, b"").ljust(len(content), b"\0"))
        for part in held:
            if part.path == name:
                stretch = slice(part.offset, part.offset + part.length)
                rebuilt_content[stretch] = content[stretch]
        assert rebuilt_content == content


def test_bytes_that_skip_are_not_taken(store: MemoryStore, tmp_path: Path) -> None:
    """A checkpoint that anybody made cannot make a file that is larger than what was sent."""
    layout = layout_of(a_shipping_intent())
    head = replace(HEAD, slices=(Slice("i0001/journal.ndjson", 1 << 39, 1, 0xE8B7BE43),))
    store.put(layout.checkpoint(1, RUN, 1), encode_head(head) + b"a", "x")
    rebuilt(store, tmp_path / "again")
    assert not any(files(tmp_path / "again").values())


def test_names_of_other_objects_are_no_runs(store: MemoryStore) -> None:
    layout = layout_of(a_shipping_intent())
    for name in ("1/checkpoints/x/00000001.ckpt", f"0/checkpoints/{RUN}/00000001.ckpt", f"1/checkpoints/{RUN}/1.ckpt"):
        store.put(f"{layout.attempts}{name}", b"", "x")
    assert find_runs(store.list_objects(layout.attempts), layout) == ()


def test_limits_fit_each_other() -> None:
    longest = Slice("i9999/t999999.999999.log", 1 << 39, 1, 0xFFFFFFFF)
    row = len(encode_head(replace(HEAD, slices=(longest, replace(longest, path="i9998/t999999.999999.log")))))
    single = len(encode_head(replace(HEAD, slices=(longest,))))
    assert single + (row - single) * checkpoint.MAX_SLICES < checkpoint.MAX_HEAD_BYTES
