"""Finish a recording from what lies in the bucket, whoever left it there.

    listing ─▶ which attempts left sessions behind? ─▶ their checkpoints ─▶ one spool over all attempts
            ─▶ files of those sessions (the ordinary delivery) ─▶ recovered.json ─▶ recording.json ─▶ checkpoints deleted

An attempt delivers the sessions that end in it. What it leaves behind (sessions that go on when it is drained, everything when
its node dies) is in its checkpoints, and is made into files here: by the agent of the attempt that ends the recording, by
`isotrack finalise`, by a Job. A session that several attempts saw becomes one set of files, as if nothing had happened, with the time
between them declared as a gap; it carries the number of the last of them.

Whoever runs this, and how often: equal checkpoints give equal files. It starts anew when the bucket changed meanwhile, and
deletes checkpoints only behind a `recording.json` that was read back.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.clock import boot_id
from isotrack_recorder.clocks import CallClock
from isotrack_recorder.earlier import read_earlier
from isotrack_recorder.errors import IsotrackError, OutputError, StorageError, StorageRefusedError
from isotrack_recorder.finalise.manifest import build_manifest
from isotrack_recorder.spool.room import Room

from .checkpoint import is_journal
from .checkpoints import sign_of_life_seconds
from .commit import (
    Committed,
    attempt_keys,
    attempt_manifests,
    conclude,
    known_epoch,
    put_attempt,
    put_recovered,
    read_recovered,
)
from .deliver import MOST_ROUNDS, NOBODY, OVER, Delivery, End, Watchers
from .intents import read_intent
from .lanes import Lanes
from .layout import Layout
from .rebuild import Run, fetch, find_runs, follow
from .recovered import Recovered
from .retry import REFUSED_PAUSE_SECONDS, full_jitter
from .stitched import Stitched
from .store import Store, Version, clear_abandoned

log = logging.getLogger(__name__)

ROUNDS: Final = 5
REMOVED_AT_ONCE: Final = 250
"""Of a long call's thousands of checkpoints: some servers take milliseconds for each, and as many requests go side by side as lanes."""
POLL_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 10.0
"""A run whose sign of life is late by more counts as dead."""
LONGEST_WAIT_SECONDS: Final = 90.0
"""An attempt that is still writing when the recording is over is waited for this long, or until it counts as dead if that is later."""
AWAY_SECONDS: Final = 20.0
"""A look that takes longer waited for the storage."""
DISK_SHARE: Final = 0.8
"""Of the scratch folder's room that may be used."""
LOST_WORDS: Final = "the attempt was lost: its media ends with its last checkpoint"
DAMAGED_WORDS: Final = "checkpoints are missing or damaged: what they held is declared as lost"
EPOCH_CHECKPOINTS: Final = 50
"""In the first so many an attempt has become able to capture, or it never does."""


def longest_silence_seconds(interval: int) -> float:
    """For how long an attempt at work may show no sign of life to somebody who comes after an outage: it may have been refused.

    Args:
        interval: Of its checkpoints.
    """
    return sign_of_life_seconds(interval) + REFUSED_PAUSE_SECONDS + GRACE_SECONDS


class _MovedError(Exception):
    """Somebody else finished this recording meanwhile: look again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A recording's folder at one moment."""

    begun: frozenset[int]
    manifests: Mapping[int, Manifest]
    runs: tuple[Run, ...]
    """Without those of attempts that left nothing behind: nobody will read them."""
    recovered: Recovered | None
    checkpointed: frozenset[int]
    """Attempts that have checkpoints."""
    probed: frozenset[int]
    """Attempts that were lost as they tried the storage: what they tried it on is still there."""

    @property
    def behind(self) -> tuple[Run, ...]:
        """Runs that hold sessions whose files are not made."""
        covered = self.recovered.checkpoints if self.recovered is not None else {}
        return tuple(run for run in self.runs if self._is_wanted(run.attempt) and run.reach > covered.get(run.name, 0))

    @property
    def is_beyond_help(self) -> bool:
        """Whether somebody has tried to make files of what was left behind, and found that nothing tells what it is."""
        untold = self.recovered.untold if self.recovered is not None else {}
        return bool(self.behind) and all(untold.get(run.name) == run.reach for run in self.behind)

    @property
    def spent(self) -> frozenset[str]:
        """Runs of which checkpoints that were taken into account are gone: what is left of them nobody can use."""
        covered = self.recovered.checkpoints if self.recovered is not None else {}
        return frozenset(name for name, reach in covered.items() if self._unbroken(name) < reach)

    @property
    def out_of_reach(self) -> tuple[int, ...]:
        """Attempts that ended well and left sessions to checkpoints that are of no use: somebody had finished the recording meanwhile."""
        covered = self.recovered.checkpoints if self.recovered is not None else {}
        later = {run.attempt for run in self.runs if run.name in self.spent and max(run.seqs) > covered[run.name]}
        ended = (self.manifests[n] for n in sorted(later & self.manifests.keys()))
        return tuple(manifest.attempts[-1].n for manifest in ended if manifest.unfinished and manifest.complete)

    def is_silent(self, attempt: int) -> bool:
        """Whether it has begun, and has left nothing yet."""
        known = attempt in self.manifests or attempt in self.checkpointed
        return attempt in self.begun and not known

    def _is_wanted(self, attempt: int) -> bool:
        """Whether it leaves sessions behind that can be made of its checkpoints."""
        # NB: where checkpoints that were taken into account are gone, the rest alone would make worse files of the same names. Those of
        # a later attempt have names of their own, also where it goes on with the same sessions.
        if any(name.startswith(f"{attempt}/") for name in self.spent):
            return False
        manifest = self.manifests.get(attempt)
        return manifest is None or bool(manifest.unfinished)

    def _unbroken(self, name: str) -> int:
        return next((run.unbroken for run in self.runs if run.name == name), 0)

    def relevant(self) -> tuple[Run, ...]:
        """All runs that files of left sessions are made of, once any has to be."""
        return tuple(run for run in self.runs if self._is_wanted(run.attempt)) if self.behind else ()

    def alive(self, now: float, patience: float, since: float = -inf) -> frozenset[int]:
        """Attempts that may still be at work.

        Args:
            now: The storage's time, Unix seconds.
            patience: Seconds for which a run at work is silent at most.
            since: From when on the storage has been there without a break, as far as is known: before, every run is silent.
        """
        at_work = {run.attempt for run in self.runs if now - max(run.newest, since) < patience}
        return frozenset(at_work - set(self.manifests))


def look(store: Store, layout: Layout) -> Seen:
    """See what is there.

    Raises:
        StorageError: the storage does not answer.
    """
    keys = attempt_keys(store, layout)
    manifests = {found.attempts[-1].n: found for found in attempt_manifests(store, layout, layout.ended(keys))}
    recovered = read_recovered(store, layout) if layout.recovered in keys else None
    checkpointed = frozenset(layout.checkpointed(keys))
    used = {int(name.partition("/")[0]) for name in (recovered.checkpoints if recovered is not None else ())}
    listed = [n for n in sorted(checkpointed) if n in used or n not in manifests or manifests[n].unfinished]
    runs = find_runs((found for n in listed for found in store.list_objects(layout.checkpoints(n))), layout)
    probed = frozenset(layout.probed(keys))
    return Seen(frozenset(layout.begun(keys)), manifests, runs, recovered, checkpointed, probed)


def epoch_of(store: Store, layout: Layout, scratch: Path) -> int | None:
    """Zero of the call's timeline as earlier attempts set it, by their manifests or else by their checkpoints.

    Raises:
        StorageError: the storage does not answer.
    """
    known = known_epoch(store, layout)
    if known is not None:
        return known
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for run in find_runs(store.list_objects(layout.attempts), layout):
            place = Path(folder) / run.run
            place.mkdir()
            chain = follow(store, layout, run, place, limit=EPOCH_CHECKPOINTS)
            fetch(store, layout, chain, lambda path, place=place: place / path if is_journal(path) else None)  # type: ignore[misc]
            armed = read_earlier(place).armed_at_ms
            if armed is not None:
                return armed
    return None


def call_clock_of(store: Store, layout: Layout, attempt: int, scratch: Path) -> CallClock | None:
    """The clock that the recording's zero was told by, against this machine's; None where nothing tells.

    Args:
        attempt: Ours; that clock is of an earlier one.
    Raises:
        StorageError: the storage does not answer.
    """
    ours = store.clock
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for run in find_runs(store.list_objects(layout.attempts), layout):
            place = Path(folder) / run.run
            if run.attempt >= attempt or ours is None:
                break
            place.mkdir()
            chain = follow(store, layout, run, place, limit=EPOCH_CHECKPOINTS)
            fetch(store, layout, chain, lambda path, place=place: place / path if is_journal(path) else None)  # type: ignore[misc]
            earlier = read_earlier(place)
            if earlier.armed_at_ms is None or earlier.armed_ns is None:
                continue
            if chain.storage_clock is None:
                break
            wall_offset_ns = earlier.armed_at_ms * 1_000_000 - earlier.armed_ns
            return CallClock(boot_id(), ours.minus(chain.storage_clock.shifted(-wall_offset_ns)))
    return None


class Recovery:
    """Finishes one recording. Used from one event loop, once.

    Args:
        scratch: Folder for rebuilt spools; made where it is missing.
        intent: The recording's, with the storage and folder that `layout` was made of.
        end: How the last attempt ended, where it left no word itself.
        room: What bounds the volume that `scratch` lies on, where that is not the disk alone.
        allow: Called once, right before the first write, and may raise; in a thread.
        clock: Seconds, steadily.
    """

    def __init__(
        self, store: Store, lanes: Lanes, layout: Layout, scratch: Path, intent: Intent, *,
        end: End = OVER, watchers: Watchers = NOBODY, room: Room | None = None, allow: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._store = store
        self._lanes = lanes
        self._layout = layout
        self._scratch = scratch
        self._intent = intent
        self._end = end
        self._watchers = watchers
        self._room = room
        self._allow = allow
        self._clock = clock
        self.made: tuple[ManifestFile, ...] = ()
        """Files that were made of checkpoints, now or before; known after `finalise`."""

    async def finalise(self) -> Committed | None:
        """Make `recording.json` true; None when nobody ever captured anything.

        Raises:
            StorageError: the storage failed, and the store's patience is over.
            IsotrackError: some file could not be made. The others, and a `recording.json` that says so, are in the bucket.
            Exception: what `allow` raises. Nothing was written.
        """
        committed: Committed | None = None
        for _ in range(ROUNDS):
            seen = await self._lanes.request(look, self._store, self._layout)
            try:
                failure = await self._recover(seen) if seen.behind else None
            except _MovedError:
                continue
            await self._ask_leave()
            await self._lanes.request(self._tell_what_is_missing, seen)
            await self._lanes.request(self._tell_why)
            committed = await self._lanes.request(conclude, self._store, self._layout)
            if failure is not None:
                raise failure
            again = await self._lanes.request(look, self._store, self._layout)
            self.made = again.recovered.files if again.recovered is not None else ()
            if not again.behind:
                if committed is not None:
                    await self._tidy(again)
                return committed
        raise StorageError(
            f"{self._layout.uri(self._layout.root)} kept changing while it was being finished: run it again"
        )

    async def wait_until_quiet(
        self, *, at_once: bool = False, silence: float | None = None, beside: int | None = None
    ) -> bool:
        """Wait until no attempt without a manifest shows signs of life, for a bounded time. False when one does, or may.

        Args:
            beside: An attempt that may just have begun: it counts as at work before its first checkpoint, too.
            at_once: Return False with the first new sign, instead of waiting for the attempt to end.
            silence: Seconds for which an attempt at work is silent at most; absent = with a storage that was there all the time.
        """
        assert self._intent.storage is not None
        interval = self._intent.storage.checkpoint_seconds
        patience = sign_of_life_seconds(interval) + GRACE_SECONDS if silence is None else silence
        longest = max(LONGEST_WAIT_SECONDS, patience + GRACE_SECONDS)
        first: Seen | None = None
        since, until = -inf, inf
        began = self._clock()
        while True:
            asked = self._clock()
            seen = await self._lanes.request(look, self._store, self._layout)
            now, answered = time.time() + (self._store.clock_skew_seconds or 0.0), self._clock()
            if answered - asked > AWAY_SECONDS:
                since, until = now, inf  # NB: nobody could write meanwhile, so that nobody did says nothing
            until = min(until, answered + longest)
            alive = seen.alive(now, patience, since)
            if beside is not None and seen.is_silent(beside) and answered - began < patience:
                alive |= {beside}
            first = first or seen
            if not alive:
                return True
            if answered > until or (at_once and seen.runs != first.runs):
                return False
            if not await self._lanes.request(self._store.patience.pause, POLL_SECONDS):
                return False

    async def _ask_leave(self) -> None:
        if self._allow is not None:
            await self._lanes.request(self._allow)
            self._allow = None  # NB: what is there from now on may be our own

    # ── files of what was left behind ────────────────────────────────────────────────────────────────────────────────

    async def _recover(self, seen: Seen) -> IsotrackError | None:
        """Make files of all sessions that were left behind; an error that is not the storage's is returned."""
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="recovery-", dir=self._scratch) as folder:
                return await self._recover_in(Path(folder), seen)
        except OSError as error:
            raise OutputError(f"cannot write to {self._scratch}: {error.strerror}") from error

    async def _recover_in(self, folder: Path, seen: Seen) -> IsotrackError | None:
        runs = seen.relevant()
        chains = await asyncio.gather(
            *(self._lanes.request(follow, self._store, self._layout, run, folder) for run in runs)
        )
        stitched = Stitched(folder / "spool", chains)
        journals, room = await self._lanes.request(lambda: stitched.journal_bytes), await self._room_left()
        if journals > room:
            raise OutputError(f"journals of {journals} bytes have no room on the disk: {int(room)} are left")
        await self._lanes.request(stitched.fetch_journals, self._store, self._layout)
        await self._check_still(seen, stitched)
        intents = await self._lanes.request(self._intents, sorted({run.attempt for run in runs}))
        await self._ask_leave()
        unknown = await self._lanes.request(stitched.unknown_logs) if stitched.is_short else []
        # NB: an attempt with a manifest that leaves nobody counts as done, and its checkpoints go.
        told = {n: intent for n, intent in intents.items() if not any(name.startswith(f"{n}/") for name in unknown)}
        await self._lanes.request(self._write_missing_manifests, stitched, told, seen)
        failure: IsotrackError | None = None
        files: dict[tuple[int, str], ManifestFile] = {}
        for attempt, peers in stitched.sessions(seen.manifests):
            epoch_ms = await self._lanes.request(known_epoch, self._store, self._layout)
            intent = intents[attempt].model_copy(update={"epoch_ms": epoch_ms})
            for batch in stitched.batches(peers, await self._room_left() / 2):
                delivery = Delivery(
                    stitched.path,
                    intent,
                    self._store,
                    self._lanes,
                    self._watchers,
                    room=self._room or Room(folder),
                    walls=stitched.walls,
                )
                chosen = frozenset(batch)
                delivery.leaves = lambda peer, _facts, chosen=chosen: peer.peer_id not in chosen  # type: ignore[misc]
                failure = await self._make(stitched, batch, delivery, seen) or failure
                files |= {(file.attempt, file.name): file for file in delivery.files}
                await self._lanes.request(stitched.drop_logs)
        reached = {run.name: run.reach for run in runs}
        untold = reached if failure is None and unknown else {}
        if untold:
            failure = IsotrackError(
                f"checkpoints are missing or damaged: nothing tells what {len(unknown)} tracks are, and they are in no file"
            )
        # NB: what was made counts; but as long as something is missing the checkpoints stay, and another run tries again.
        covered = reached if failure is None else {}
        old = seen.recovered
        before = {(file.attempt, file.name): file for file in old.files} if old is not None else {}
        recovered = Recovered(
            stop_reason=old.stop_reason if old is not None else None,
            message=old.message if old is not None else "",
            checkpoints={**(old.checkpoints if old is not None else {}), **covered},
            untold=untold,
            files=tuple(file for _, file in sorted({**before, **files}.items())),
            missing=str(failure)[:256] if failure is not None else DAMAGED_WORDS if stitched.is_short else "",
        )
        await self._lanes.request(put_recovered, self._store, self._layout, recovered)
        return failure

    async def _make(
        self, stitched: Stitched, batch: Sequence[str], delivery: Delivery, seen: Seen
    ) -> IsotrackError | None:
        """Make the files of some sessions, piece by piece where their logs do not fit on the disk at once."""
        feed = await self._lanes.request(stitched.feed, batch, seen.manifests)
        while True:
            await self._lanes.request(feed.fetch, self._store, self._layout, await self._room_left())
            await self._check_still(seen, stitched)
            if feed.is_whole:
                delivery.known_ns = None
                return await self._deliver(delivery, everything=True)
            delivery.known_ns, delivery.copied = feed.known_ns, lambda: None
            failure = await self._deliver(delivery, everything=False)
            if failure is not None:
                return failure
            await delivery.give_back()

    async def _room_left(self) -> float:
        """Bytes that what is rebuilt, and files made of it, may take."""
        usage = await self._lanes.request((self._room or Room(self._scratch)).measure)
        return (usage.capacity - usage.used) * DISK_SHARE

    async def _check_still(self, seen: Seen, stitched: Stitched) -> None:
        """Find out whether checkpoints that could not be read were deleted by somebody who is done with them.

        NB: else what is left of them would replace the files that they were made into.
        """
        if stitched.is_short:
            again = await self._lanes.request(look, self._store, self._layout)
            if (again.runs, again.recovered) != (seen.runs, seen.recovered):
                raise _MovedError

    async def _deliver(self, delivery: Delivery, *, everything: bool) -> IsotrackError | None:
        """Deliver what the spool holds; repeats what the storage failed at until its patience is over."""
        failures = 0
        while True:
            try:
                await delivery.round(everything=everything)
                return None
            except StorageRefusedError:
                raise
            except StorageError as error:
                failures += 1
                if failures >= MOST_ROUNDS:
                    raise
                if not await self._lanes.request(self._store.patience.pause, full_jitter(failures)):
                    raise error from None
            except IsotrackError as error:
                return error

    def _intents(self, attempts: Sequence[int]) -> dict[int, Intent]:
        """Intent of each attempt, pointing to where we found it."""
        where = {"storage": self._intent.storage, "folder": self._intent.folder}
        found = {attempt: read_intent(self._store, self._layout, attempt) or self._intent for attempt in attempts}
        return {n: intent.model_copy(update={**where, "attempt": n}) for n, intent in found.items()}

    def _write_missing_manifests(self, stitched: Stitched, intents: Mapping[int, Intent], seen: Seen) -> None:
        """Tell for attempts that died what they captured."""
        for attempt, intent in sorted(intents.items()):
            if attempt in seen.manifests:
                continue
            spool = stitched.spool_of(attempt)
            if not spool.facts.incarnations:
                continue  # NB: its intent stays, and tells: it may have captured for as long as a checkpoint takes to come
            epoch_ms = intent.epoch_ms or known_epoch(self._store, self._layout)
            manifest = build_manifest(spool, intent.model_copy(update={"epoch_ms": epoch_ms}), [])
            left = sorted({track.peer_id for track in spool.facts.tracks.values()})
            changes: dict[str, object] = {"unfinished": tuple(left) or None}
            if spool.facts.stop is None:
                how = {"message": "; ".join(filter(None, (LOST_WORDS, spool.damage())))[:512]}
                changes |= {**how, "attempts": tuple(row.model_copy(update=how) for row in manifest.attempts)}
            put_attempt(self._store, self._layout, attempt, manifest.model_copy(update=changes))

    def _tell_what_is_missing(self, seen: Seen) -> None:
        """NB: before the checkpoints that tell of it are deleted."""
        if seen.recovered is None or not seen.out_of_reach:
            return
        numbers = ", ".join(map(str, seen.out_of_reach))
        text = f"the recording was finished while attempt {numbers} was at work: what it captured of some sessions after that is missing"
        put_recovered(self._store, self._layout, seen.recovered.model_copy(update={"missing": text[:256]}))

    def _tell_why(self) -> None:
        """Note why the recording is over, where its pods could not know."""
        if self._end.stop_reason is None:
            return
        old = read_recovered(self._store, self._layout) or Recovered()
        changes = {"stop_reason": self._end.stop_reason, "message": self._end.message[:512]}
        put_recovered(self._store, self._layout, old.model_copy(update=changes))

    async def _tidy(self, seen: Seen) -> None:
        """Behind a verified recording.json: take back what nobody will complete, delete the checkpoints that it is made of."""
        # NB: checkpoints last. As long as some are there the folder is unfinished, and whoever comes after us clears up.
        refused: StorageRefusedError | None = None
        try:
            await self._lanes.request(clear_abandoned, self._store, f"{self._layout.root}/")
        except StorageRefusedError as error:
            refused = error  # whoever comes is refused, too; a second copy of private media must not stay for that
        done = await self._lanes.request(self._done_with, seen)
        pieces = [done[at : at + REMOVED_AT_ONCE] for at in range(0, len(done), REMOVED_AT_ONCE)]
        stayed = sum(await asyncio.gather(*(self._lanes.request(self._store.remove, piece) for piece in pieces)))
        if stayed:
            log.warning("storage keeps checkpoints", extra={"fields": {"objects": stayed}})
        if refused is not None:
            raise refused

    def _done_with(self, seen: Seen) -> list[Version]:
        """Checkpoints that nobody will read any more, and what else attempts that were lost could not delete."""
        covered = seen.recovered.checkpoints if seen.recovered is not None else {}
        found: list[Version] = []
        for attempt in sorted(seen.checkpointed):
            done = {name: reach for name, reach in covered.items() if name.startswith(f"{attempt}/")}
            # NB: without a manifest it is still at work, or was lost before its checkpoints held anything: what is covered goes.
            finished = attempt in seen.manifests and not seen.manifests[attempt].unfinished
            spent = seen.spent if attempt in seen.manifests else frozenset[str]()  # of an agent that began again since
            below = self._store.versions(self._layout.checkpoints(attempt))
            found += [version for version in below if finished or self._is_done_with(version.key, done, spent)]
        for attempt in sorted(seen.probed):
            found += self._store.versions(self._layout.probe(attempt))
        return found

    def _is_done_with(self, key: str, covered: Mapping[str, int], spent: Collection[str]) -> bool:
        place = self._layout.checkpoint_of(key)
        if place is None:
            return False
        attempt, run, seq = place
        return f"{attempt}/{run}" in spent or seq <= covered.get(f"{attempt}/{run}", 0)
