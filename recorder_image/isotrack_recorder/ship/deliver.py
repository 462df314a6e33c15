"""From a spool to a finished recording in the bucket, while the call runs and at its end.

    round()   every session forward:  mux what is due → save its state → send whole parts → finish files that are over
    finish()  capture is over: round over all of it → attempts/<n>/manifest.json → (recording over?) recording.json

The agent, or the command line's shipper, calls `round` while the call runs; the agent, or `standalone`, calls `finish` at its end.
All of it may be repeated at any time, by another process too: what the ledger holds is left alone, and each session goes on from its
saved state.

One Delivery owns its view of the spool. Reading and muxing run in the file lane, one after the other; sessions are saved and their
parts sent in other lanes while others are muxed (`turn`). Of what is muxed no more waits on the disk than there is room for
(`budget`), but for part 1 and the last part of each open file: a storage that is slow makes the spool grow, which holds each frame
once, and not what is muxed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isotrack_api.base import Container, MediaKind
from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest, ManifestFile, StopReason
from isotrack_recorder.errors import IsotrackError, StorageError, StorageRefusedError
from isotrack_recorder.finalise.manifest import build_manifest, manifest_file
from isotrack_recorder.finalise.model import FilePlan, Progress
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts, Walls, by_their_own
from isotrack_recorder.spool.past import EVERYTHING
from isotrack_recorder.spool.reader import Position, Spool
from isotrack_recorder.spool.room import Room

from .bodies import Bodies
from .budget import Budget, budget_of
from .commit import Committed, conclude, is_concluded, put_attempt
from .credentials import CredentialSource
from .lanes import Lanes
from .layout import Layout, layout_of
from .ledger import Ledger
from .preflight import Preflight, check_storage
from .reclaim import reclaim, reclaim_journals, written_behind
from .retry import Patience, full_jitter
from .s3 import S3Store
from .session import Errand, Session, SpentError
from .sessions import SavedSessions
from .store import Heard, Store, UploadLostError, nobody_hears
from .turn import NO_ROOM, Muxed, Turn
from .upload import Sender, Target

log = logging.getLogger(__name__)

LEDGER_FOLDER: Final = "ship"
TRIES_PER_FILE: Final = 3
MOST_ROUNDS: Final = 30
"""In a row that fail though the storage answers: it gives back other bytes than it took, say. Pauses between them are up to 10 s."""
FILES_AT_ONCE: Final = 2
"""Half of the requests that go at once (`lanes`): the others are left to checkpoints, of which a lost node is made good."""
AFTER_STOP_SECONDS: Final = 3600.0
"""How long in a row the storage may fail as a finished call's files are shipped. An hour of outage is worth waiting for; behind it
somebody has to look anyway, and a pod that never ends hides that."""


@dataclass(frozen=True, slots=True)
class End:
    """How capture ended, as its owner knows it."""

    recording_over: bool
    """False: only this attempt; no `recording.json` yet."""
    stop_reason: StopReason | None = None
    """Instead of what the journal says; None where its `stop` line is right."""
    message: str = ""


OVER: Final = End(recording_over=True)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Everything is in the bucket."""

    files: tuple[ManifestFile, ...]
    """Of this attempt."""
    attempt: Committed | None
    """The attempt's manifest; None when nothing was ever captured (no recorder ran)."""
    recording: Committed | None
    """`recording.json`; None while the recording goes on."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Whom to tell; called in worker threads."""

    progress: Progress | None = None
    delivered: Callable[[ManifestFile], None] | None = None
    storage: Heard = nobody_hears


NOBODY: Final = Watchers()


class Delivery:
    """Ships one spool. Used from one event loop, one call at a time.

    Args:
        room: What bounds the volume that the spool lies on; None = what the intent says of it.
        walls: Which wall clock counts for each process.
    """

    def __init__(
        self, spool: Path, intent: Intent, store: Store, lanes: Lanes, watchers: Watchers = NOBODY, *,
        room: Room | None = None, walls: Walls = by_their_own,
    ) -> None:  # fmt: skip
        self._room = room or Room(spool, intent.spool_bytes)
        self._intent = intent
        self._store = store
        self._lanes = lanes
        self._watchers = watchers
        self._layout: Layout = layout_of(intent)
        folder = spool / LEDGER_FOLDER
        self._ledger = Ledger(folder)
        self._spool = Spool(spool, walls)
        self._bodies = Bodies(folder / "parts", watchers.progress)
        self._saved = SavedSessions(folder / "sessions")
        self._sender = Sender(store, self._ledger, self._bodies)
        self._sessions: dict[str, Session] = {}
        self.leaves: Callable[[PeerFacts, SpoolFacts], bool] = lambda _peer, _facts: False
        """Which sessions are not delivered from here: they are made of checkpoints when the recording ends."""
        self.copied: Callable[[], Mapping[str, int] | None] | None = None
        """What of the spool lies in checkpoints (see `reclaim`): where room is tight, it is given back while more is muxed.
        None: not before a round is over."""
        self.known_ns: int | None = None
        """Until when the logs hold all that was captured, where the journals know more: of a spool that is being rebuilt."""
        self._given_up: set[str] = set()
        """Sessions that can be made from here no more (the storage forgot an upload, and the spool has been given back)."""
        self._reclaimed: dict[str, int] = {}
        self._is_tight = False
        self._sends = asyncio.Semaphore(FILES_AT_ONCE)

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """Delivered so far, by name."""
        return tuple(file for _, file in sorted(self._ledger.files.items()))

    @property
    def seen_ns(self) -> int:
        """Time of the newest fact that the last round knew, on the spool's axis."""
        return self._spool.facts.last_ns

    @property
    def gave_up(self) -> bool:
        """Whether some session is left to checkpoints because it can be made from here no more."""
        return bool(self._given_up)

    def _covered(self, without: Collection[str] = ()) -> Mapping[str, Position]:
        """By log: frames before this position are not needed any more, by us or by a successor on the same disk.

        Args:
            without: Sessions that are left out.
        """
        sessions = [session for peer_id, session in self._sessions.items() if peer_id not in without]
        return {key: position for session in sessions for key, position in session.covered.items()}

    async def reclaim(self, checkpointed: Mapping[str, int] | None) -> int:
        """Give back what of the spool is covered and checkpointed (see `reclaim.reclaim`). Bytes that became free.

        Raises:
            OSError: a segment cannot be deleted.
        """
        return await self._lanes.file_job(self._reclaim, checkpointed)

    def _reclaim(self, checkpointed: Mapping[str, int] | None) -> int:
        left = self._left_logs() if checkpointed is not None else {}
        freed = self._reclaim_logs({**self._covered(), **left}, checkpointed)
        spool = self._spool
        taken = {key: row for session in self._sessions.values() for key, row in session.taken.items()}
        taken |= dict.fromkeys(left, EVERYTHING)
        return freed + reclaim_journals(spool.path, spool.journals(), spool.facts.tracks, taken, checkpointed)

    def _reclaim_logs(self, covered: Mapping[str, Position], checkpointed: Mapping[str, int] | None) -> int:
        freed = 0
        news = {key: at for key, at in covered.items() if at.segment > self._reclaimed.get(key, 1)}
        if news:
            freed = reclaim(self._spool.path, news, checkpointed)
            if checkpointed is None:
                self._reclaimed.update((key, at.segment) for key, at in news.items())
        return freed

    def _left_logs(self) -> dict[str, Position]:
        """Logs that files are made of from checkpoints alone: what is in one of them is not needed here."""
        facts = self._spool.facts
        peers = {peer_id for peer_id, peer in facts.peers.items() if self._leaves(peer)}
        tracks = [track for track in facts.tracks.values() if track.peer_id in peers]
        return written_behind(self._spool.path, tracks, facts.last_ns) if tracks else {}

    async def round(self, *, everything: bool = False) -> int:
        """Bring all sessions forward: mux what is due, send whole parts, finish what is over. How many files were finished.

        Args:
            everything: Capture is over: so are all sessions.
        Raises:
            IsotrackError: some file could not be delivered (the others were); a later round tries again.
        """
        self._spool.over = everything
        sessions = await self._lanes.file_job(self._begin_turn, everything)
        if not everything and self._waits_for_storage() and (await self._lanes.file_job(self._budget)).scarce:
            return 0
        turn = Turn(sessions, self._muxing, self._saving, self._sending, self._given_up)
        await turn.run()
        if turn.failures:
            raise _one_of(turn.failures)
        return turn.finished

    async def _muxing(self, sessions: Sequence[Session], sending: Mapping[str, int]) -> Muxed:
        return await self._lanes.file_job(self._mux, sessions, sending)

    async def _saving(self, session: Session) -> Sequence[Errand]:
        return await self._lanes.disk_job(self._save, session)

    def _waits_for_storage(self) -> bool:
        """NB: only where checkpoints ask it again and again. Else nobody would notice that it is back."""
        return self._store.trouble is not None and self.copied is not None and self.copied() is not None

    async def _sending(self, errand: Errand) -> int:
        async with self._sends:
            return await self._lanes.request(self._send, errand)

    async def finish(self, end: End) -> Delivered:
        """Deliver everything and write the manifests. Repeats what fails until the store's patience is over.

        Raises:
            StorageError: patience ended first. What was delivered stays, the ledger knows it.
            IsotrackError: a file cannot be made; the others, and manifests that say so, are in the bucket.
        """
        try:
            failure = await self._round_until_done()
        except StorageError as error:
            await self._lanes.request(self._leave_word, end, str(error))
            raise
        delivered = await self._lanes.request(self._write_manifests, end, str(failure) if failure else "")
        if failure:
            raise failure
        return delivered

    async def _round_until_done(self) -> IsotrackError | None:
        """Rounds over everything. An error that is not the storage's is returned: repeating it changes nothing."""
        failures = 0
        while True:
            try:
                await self.round(everything=True)
                return None
            except StorageRefusedError:
                raise  # where waiting could help, the store has waited
            except StorageError as error:
                failures += 1
                if failures >= MOST_ROUNDS:
                    raise
                if not await self._lanes.request(self._store.patience.pause, full_jitter(failures)):
                    raise error from None
            except IsotrackError as error:
                return error

    # ── in the file lane ─────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_turn(self, everything: bool) -> list[Session]:
        """Sessions that something may be due of."""
        try:
            self._spool.refresh()
        except OSError as error:
            raise IsotrackError(f"the spool cannot be read: {error.strerror}") from error
        for peer_id in self._given_up & self._sessions.keys():
            self._sessions.pop(peer_id).abandon()
        turn = []
        for peer_id, peer in list(self._spool.facts.peers.items()):
            if self._leaves(peer):
                continue
            session = self._sessions.get(peer_id)
            if session is None:
                session = Session(peer_id, self._spool, self._intent, self._saved, self._bodies, self._ledger)
                self._sessions[peer_id] = session
            session.known_ns = self.known_ns
            if session.begin_turn(everything=everything):
                turn.append(session)
        return turn

    def _leaves(self, peer: PeerFacts) -> bool:
        return peer.peer_id in self._given_up or self.leaves(peer, self._spool.facts)

    def _give_up(self, session: Session, error: IsotrackError) -> None:
        """Leave a session to checkpoints, which have what the spool has not.

        Raises:
            IsotrackError: there are none: `error`.
        """
        if self.copied is None or self.copied() is None:
            raise error
        log.warning("session is left to checkpoints", extra={"fields": {"detail": str(error)}})
        self._given_up.add(session.peer_id)

    async def give_back(self) -> None:
        """Delete what of the logs went into files: of a spool that is a copy."""
        await self._lanes.file_job(self._make_room, None)

    def _make_room(self, checkpointed: Mapping[str, int] | None, sending: Collection[str] = ()) -> None:
        """Give back what went into parts. A disk that does not let us stops nothing here: the end of the round tells."""
        # NB: not of sessions that are on their way: what is lost there is made again, of the spool alone where it can be
        with contextlib.suppress(OSError):
            self._reclaim_logs(self._covered(without=sending), checkpointed)

    def _mux(self, sessions: Sequence[Session], sending: Mapping[str, int]) -> Muxed:
        """Bring sessions forward by some seconds each, until there is something to be saved and sent, or no room for more.

        Args:
            sending: Other sessions that are on their way, and how many bytes of each.
        """
        if self._is_tight and self.copied is not None:
            self._make_room(self.copied(), sending)
        budget, begun = self._budget(), self._bodies.written - sum(sending.values())
        self._is_tight = budget.tight
        failures: list[IsotrackError] = []
        for number, session in enumerate(sessions):
            if (number or sending) and not self._has_room(budget, begun):
                return Muxed(failures=failures) if number else NO_ROOM
            before = self._bodies.written
            try:
                try:
                    session.advance(lambda: self._has_room(budget, begun), save=budget.tight)
                except SpentError as spent:
                    self._give_up(session, spent)
                    continue
            except IsotrackError as error:
                failures.append(error)
            except Exception as error:  # one session that cannot be made must not cost the others
                log.exception("session could not be made", extra={"fields": {"peer_id": session.peer_id}})
                failures.append(_unmade(session, error))
            else:
                if session.is_unsaved or session.errands():
                    return Muxed(session, self._bodies.written - before, failures)
        return Muxed(failures=failures)

    def _budget(self) -> Budget:
        try:
            return budget_of(self._room.measure())
        except OSError as error:
            raise IsotrackError(f"the spool cannot be measured: {error.strerror}") from error

    def _has_room(self, budget: Budget, begun: int) -> bool:
        return self._bodies.written - begun < budget.bytes

    # ── in the disk lane ─────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _save(session: Session) -> Sequence[Errand]:
        """Make what was muxed last; what can be sent of it."""
        try:
            session.save()
        except IsotrackError:
            raise
        except Exception as error:
            log.exception("session could not be saved", extra={"fields": {"peer_id": session.peer_id}})
            raise _unmade(session, error) from error
        return session.errands()

    # ── in the request lane ──────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, errand: Errand) -> int:
        """Send one file's parts; finish it if it is whole. 1 for a finished file."""
        session, part, result = errand.session, errand.part, errand.part.result
        target = Target(part.plan.name, self._layout.file(part.plan.name), content_type(part.plan))
        try:
            if result is None:
                self._sender.send_parts(target, errand.numbers)
                return 0
            if not self._store.patience.left():
                raise StorageError(f"time is over before {target.name!r} was sent")
            digest = self._sender.finish(target, result.bytes)
        except StorageRefusedError:
            raise
        except StorageError as error:
            if self._store.patience.left() and session.failed(target.name) < TRIES_PER_FILE:
                log.warning("file is sent again", extra={"fields": {"file": target.name, "detail": str(error)}})
                self._sender.give_up(target)
                try:
                    session.send_again(target.name, result)
                except SpentError as spent:
                    self._give_up(session, spent)
                return 0
            if not (isinstance(error, UploadLostError) and self._store.patience.left()):
                raise
            # NB: else what it muxes from now on stays on the disk, for an upload that is none.
            self._sender.give_up(target)
            self._give_up(session, error)
            return 0
        except OSError as error:
            raise IsotrackError(f"{target.name!r} cannot be read from the disk: {error.strerror or error}") from error
        file = manifest_file(part.plan, result, digest)
        self._ledger.add_file(file)
        session.delivered(target.name)
        fields = {"file": file.name, "bytes": file.bytes, "duration_ms": file.duration_ms}
        log.info("file delivered", extra={"fields": fields})
        if self._watchers.delivered:
            self._watchers.delivered(file)
        return 1

    def _write_manifests(self, end: End, missing: str) -> Delivered:
        number = self._intent.attempt
        attempt = None
        if self._spool.facts.incarnations:
            attempt = put_attempt(self._store, self._layout, number, self._manifest(end, missing))
        else:  # no recorder ever ran, nothing can be missing
            self._store.delete(self._layout.attempt_intent(number))
        # NB: recording.json only behind the attempt's manifest, of which it is made; and behind every file that it names.
        recording = None
        if end.recording_over or (attempt is not None and is_concluded(self._store, self._layout)):
            recording = conclude(self._store, self._layout)
        return Delivered(self.files, attempt, recording)

    def _leave_word(self, end: End, missing: str) -> None:
        """Time is over. Where the storage answers at all, the attempt's manifest tells what did arrive."""
        if self._store.trouble is None and self._spool.facts.incarnations:
            with contextlib.suppress(StorageError):
                put_attempt(self._store, self._layout, self._intent.attempt, self._manifest(end, missing))

    def _manifest(self, end: End, missing: str) -> Manifest:
        manifest = build_manifest(self._spool, self._intent, list(self.files))
        left = tuple(peer.peer_id for peer in self._captured() if self._is_left(peer, missing))
        changes: dict[str, object] = {"unfinished": left or None}
        if end.stop_reason is not None:
            how: dict[str, object] = {"stop_reason": end.stop_reason, "message": end.message or manifest.message}
            changes |= {**how, "attempts": tuple(row.model_copy(update=how) for row in manifest.attempts)}
        if missing:
            changes |= {"complete": False, "message": missing[:512]}
        return manifest.model_copy(update=changes)

    def _is_left(self, peer: PeerFacts, missing: str) -> bool:
        """Whether a session's files are to be made of checkpoints, as far as there are any."""
        session = self._sessions.get(peer.peer_id)
        return self._leaves(peer) or (bool(missing) and (session is None or not session.is_delivered))

    def _captured(self) -> list[PeerFacts]:
        """Sessions of which anything was captured."""
        facts = self._spool.facts
        captured = {track.peer_id for track in facts.tracks.values()}
        return [peer for peer_id, peer in sorted(facts.peers.items()) if peer_id in captured]


def _unmade(session: Session, error: Exception) -> IsotrackError:
    """What failed was ours, or the disk's."""
    return IsotrackError(f"session {session.peer_id!r} could not be made: {type(error).__name__}")


def content_type(plan: FilePlan) -> str:
    """Media type of a file (RFC 9559 for Matroska)."""
    kind = "video" if MediaKind.VIDEO in plan.output_type.media_kinds else "audio"
    return f"{kind}/webm" if plan.container is Container.WEBM else f"{kind}/matroska"


def _one_of(failures: Sequence[BaseException]) -> BaseException:
    """The error that decides what happens next: the storage's (it may pass) before ours, a bug before all."""
    for error in failures:
        if not isinstance(error, IsotrackError):
            return error
    return next((error for error in failures if isinstance(error, StorageError)), failures[0])


async def probe(intent: Intent, credentials: CredentialSource, seconds: float = 10.0) -> Preflight:
    """Find out whether the storage of `intent` will take files; writes `intent.json`.

    Raises:
        ConfigError: the intent names none.
        StorageRefusedError, StorageError: it does not (within `seconds`). The text says what to do.
    """
    with closing(Lanes()) as lanes:
        layout = layout_of(intent)  # raises ConfigError without a storage
        assert intent.storage is not None
        store = S3Store(intent.storage, credentials, Patience(seconds))
        return await lanes.request(check_storage, store, layout, intent)
