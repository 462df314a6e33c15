"""Write checkpoints: every few seconds, copy to the bucket what the spool holds that is not there yet.

    spool files ─ sizes ─▶ slices ─ checksums ─▶ head + bytes, streamed from the disk ─▶ …/checkpoints/<run>/<seq>.ckpt
                                                                                        └▶ state, fsynced

One is on its way at a time; when the storage is slow or away, the next one takes whatever accumulated (64 MiB at most, and
then the next follows at once). A run is one spool: its id is made with the first start of an agent on it and kept beside it,
so an agent that was killed goes on with its chain, and the pod of another spool never writes the same key.

What is sent is what the kernel holds of the files, behind the recorder's back: a torn record at a slice's end is completed
by the next slice. What a spool promises (a reader stops at the last whole record) holds for its copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Final

from isotrack_api.intent import Intent
from isotrack_recorder.clocks import CallClock
from isotrack_recorder.errors import IsotrackError, ParseError

from . import checkpoint
from .checkpoint import Head, behind, choose_slices, decode_head, digest, encode_head, head_bytes
from .lanes import Lanes
from .layout import Layout, layout_of
from .retry import full_jitter
from .slices import SpoolChangedError, streamed, summed
from .store import Store

log = logging.getLogger(__name__)

STATE_NAME: Final = "ship/checkpoints.json"
CONTENT_TYPE: Final = "application/octet-stream"
MAX_STATE_BYTES: Final = 16 * 1024 * 1024
SHORTEST_SIGN_SECONDS: Final = 15
LONGEST_SIGN_SECONDS: Final = 60
FLUSH_TRIES: Final = 5
_SLACK_SECONDS: Final = 0.5
"""A timer that comes a little early must not lose a whole round."""


def sign_of_life_seconds(interval: int) -> int:
    """How often a run shows in the bucket that it lives, however little it captures."""
    return min(max(interval, SHORTEST_SIGN_SECONDS), LONGEST_SIGN_SECONDS)


@dataclass(frozen=True, slots=True)
class State:
    """How far the chain of a run has come."""

    run: str
    seq: int = 0
    digest: str = checkpoint.FIRST
    sent: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """File below the spool → bytes of it that are in the bucket."""


class Checkpoints:
    """The chain of one spool. Thread-safe."""

    def __init__(self, spool: Path, intent: Intent, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._attempt = intent.attempt
        self._store = store
        self._layout: Layout = layout_of(intent)
        assert intent.storage is not None
        self._interval = intent.storage.checkpoint_seconds
        self._clock = clock
        self._state = _load(spool / STATE_NAME) or _begin(spool / STATE_NAME)
        self.call_clock: CallClock | None = None
        """For heads: see there."""
        self._closed = False
        self._lock = threading.Lock()
        """One checkpoint at a time."""
        self._shipped_at = -inf
        """By our clock."""
        self._copied_at = -inf
        """When everything was in the bucket."""

    @property
    def run(self) -> str:
        """Id of this spool's run."""
        return self._state.run

    @property
    def seq(self) -> int:
        """Number of the newest checkpoint; 0 before the first."""
        return self._state.seq

    @property
    def enabled(self) -> bool:
        """Whether the storage is to have checkpoints."""
        return self._interval > 0

    @property
    def sent(self) -> Mapping[str, int]:
        """File below the spool → bytes of it that the bucket holds in checkpoints."""
        return self._state.sent

    @property
    def age_seconds(self) -> float | None:
        """Since the moment up to which everything is in the bucket: what the pod's death would cost. None before the first."""
        return None if self._copied_at == -inf else max(0.0, self._clock() - self._copied_at)

    async def keep(self, lanes: Lanes) -> None:
        """Write checkpoints until cancelled. Failures are repeated: the spool keeps everything meanwhile."""
        failures = 0
        tick = min(self._interval, sign_of_life_seconds(self._interval))
        while True:
            began = self._clock()
            pause: float
            try:
                left = await lanes.request(self.ship, patient=True)
                failures = 0
                pause = 0.0 if left else max(0.0, tick - (self._clock() - began))
            except Exception as error:
                # NB: a bug, too. Nobody waits for this task; without it a lost node would cost all that comes from now on.
                failures += 1
                pause = self._interval + full_jitter(failures)
                if failures == 1 and isinstance(error, IsotrackError):
                    log.warning("checkpoint failed for now", extra={"fields": {"detail": str(error)}})
                elif failures == 1:
                    log.exception("checkpoint failed")
            await asyncio.sleep(pause)

    async def flush(self, lanes: Lanes) -> None:
        """Write checkpoints until everything that is in the spool now is in the bucket.

        Raises:
            StorageError: the store's patience ended first.
        """
        tries = FLUSH_TRIES
        while True:
            try:
                if not await lanes.request(self.ship):
                    return
            except SpoolChangedError:
                tries -= 1
                if not tries:
                    raise

    def ship(self, *, patient: bool = False) -> int:
        """Write one checkpoint if there is anything new, or if it is time for a sign of life.

        Args:
            patient: What is new may wait until the interval since the last copy is over.
        Returns:
            Bytes that were left for the next one.
        Raises:
            IsotrackError: it is not in the bucket; call again.
        """
        with self._lock:
            return 0 if self._closed else self._ship(patient=patient)

    def close(self) -> None:
        """No more checkpoints. Returns when none is on its way."""
        with self._lock:
            self._closed = True

    def _ship(self, *, patient: bool) -> int:
        now = self._clock()
        waits = patient and now - self._copied_at < self._interval - _SLACK_SECONDS
        slices, left = ((), 0) if waits else choose_slices(measure(self._spool), self._state.sent)
        if not slices and now - self._shipped_at < sign_of_life_seconds(self._interval) - _SLACK_SECONDS:
            self._copied_at = self._copied_at if waits else now
            return 0
        slices, data = summed(self._spool, slices)
        state = self._state
        at_ms = time.time_ns() // 1_000_000
        clocks = self._store.clock, self.call_clock
        head = Head(self._attempt, state.run, state.seq + 1, state.digest, at_ms, slices, *clocks)
        self._put(head, data)
        self._shipped_at = now
        if not left and not waits:
            self._copied_at = now
        return left

    def _put(self, head: Head, data: bytes | None) -> None:
        encoded = encode_head(head)
        key = self._layout.checkpoint(head.attempt, head.run, head.seq)
        body = streamed(self._spool, encoded, head.slices) if data is None else encoded + data
        if not self._store.put_once(key, body, CONTENT_TYPE):
            found = self._found(key)
            if found is not None and found[1] != encoded:
                # An earlier process of this pod sent it and died before it could note so.
                head, encoded = found
                log.info("checkpoint was there already", extra={"fields": {"seq": head.seq}})
            elif found is None:
                self._store.put(key, body, CONTENT_TYPE)
        # What was given back never comes again, and in a long call is most. NB: only now: a checkpoint that was there already may
        # hold bytes of what is gone, and is held against what was sent before it.
        sent = {
            name: end for name, end in behind(self._state.sent, head.slices).items() if _is_there(self._spool / name)
        }
        self._state = State(head.run, head.seq, digest(encoded), sent)
        _save(self._spool / STATE_NAME, self._state)

    def _found(self, key: str) -> tuple[Head, bytes] | None:
        """What lies at `key`, where it is the next of our chain; else None."""
        state = self._state
        try:
            start = self._store.get_range(key, 0, checkpoint.PREAMBLE_BYTES)
            encoded = self._store.get_range(key, 0, head_bytes(start))
            head = decode_head(encoded)
        except ParseError:
            return None
        ours = (head.attempt, head.run, head.seq) == (self._attempt, state.run, state.seq + 1)
        fits = all(part.offset == state.sent.get(part.path, 0) for part in head.slices)
        return (head, encoded) if ours and fits and head.previous == state.digest else None


def measure(spool: Path) -> dict[str, int]:
    """Sizes of the files of a spool that belong into checkpoints, by their path below it.

    Raises:
        SpoolChangedError: the disk does not tell.
    """
    try:
        return _measure(spool)
    except OSError as error:
        raise SpoolChangedError(f"the spool cannot be measured: {error.strerror or error}") from error


def _measure(spool: Path) -> dict[str, int]:
    # NB: logs before journals: a frame's facts are on the disk before it is, so none is copied without them. And all names before
    # the first size: where a segment has a successor in the list, it was full before it was measured.
    sizes: dict[str, int] = {}
    for pattern in ("i*/t*.log", "i*/journal*.ndjson"):
        for path in list(spool.glob(pattern)):
            name = path.relative_to(spool).as_posix()
            if checkpoint.is_copied(name):
                with contextlib.suppress(FileNotFoundError):  # reclaimed meanwhile
                    sizes[name] = path.stat().st_size
    return sizes


def _is_there(path: Path) -> bool:
    """Whether a file has not been deleted, for sure."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        pass  # NB: a file that comes to light again must not be sent from its beginning
    return True


def _begin(path: Path) -> State:
    """A new run, known before anything of it is in the bucket."""
    state = State(secrets.token_hex(8))
    _save(path, state)
    return state


def _save(path: Path, state: State) -> None:
    """Replace the state in one step. A disk that is full costs nothing but the copying of some bytes twice."""
    beside = path.with_name(f".{path.name}.new")
    text = json.dumps({"run": state.run, "seq": state.seq, "digest": state.digest, "sent": dict(state.sent)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        log.warning("checkpoint state was not written", extra={"fields": {"why": error.strerror}})


def _load(path: Path) -> State | None:
    """The state that an earlier process left; None where there is none that can be used.

    NB: the volume is shared with the process that parses hostile bytes.
    """
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(MAX_STATE_BYTES))
        state = State(fields["run"], fields["seq"], fields["digest"], dict(fields["sent"]))
        head = Head(1, state.run, max(state.seq, 1), state.digest, 0, ())
        decode_head(encode_head(head))  # the same bounds as in the bucket
        fits = all(checkpoint.is_copied(name) and isinstance(size, int) for name, size in state.sent.items())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return state if fits and isinstance(state.seq, int) and state.seq >= 0 else None
