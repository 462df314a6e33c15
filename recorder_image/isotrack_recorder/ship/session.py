"""One participant session on its way to the bucket: its stream, what of it is saved, and what is to be sent.

The order makes it safe to die anywhere:

    bytes on the disk, lasting → the state that says so → whole parts are sent → the ledger says so → their bytes go away

So what a saved state relies on is always there: on the disk, or acknowledged. A state of which that is not true (a damaged disk, an
upload that the storage forgot) is thrown away, and the session begins anew from the spool, if the spool still has its beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from isotrack_api.intent import Intent
from isotrack_recorder.errors import IsotrackError, ParseError
from isotrack_recorder.finalise.model import FileResult
from isotrack_recorder.finalise.parts import PartState
from isotrack_recorder.finalise.saved import SessionState
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.spool.past import Taken
from isotrack_recorder.spool.reader import Position, Spool, segment_numbers
from isotrack_recorder.timeline.placement import SECOND

from .bodies import Bodies, part_sizes
from .ledger import Ledger
from .sessions import SavedSessions
from .store import PART_BYTES

log = logging.getLogger(__name__)

GROUPS_AT_ONCE: Final = 12
"""A minute of media at a time at most, then what became due of it is sent. What all sessions together may mux is bounded by
`budget`."""
GROUPS_UNSAVED: Final = 6
"""Half a minute: so much is muxed again by the process after one that was killed."""
GAP_LAG_NS: Final = 60 * SECOND
"""A gap that was journalled so long before the place of the newest frame taken lies before that frame."""


class SpentError(IsotrackError):
    """A session must begin anew, and the spool does not have its beginning any more. `Delivery` leaves it to checkpoints."""


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to be sent of one file: parts that will not change, or with `part.result` all that is left."""

    session: Session
    part: PartState
    numbers: tuple[int, ...]


class Session:
    """One session in this process. Used by one thread at a time, but for errands of different files."""

    def __init__(
        self, peer_id: str, spool: Spool, intent: Intent, saved: SavedSessions, bodies: Bodies, ledger: Ledger
    ) -> None:
        self.peer_id = peer_id
        self.more = False
        """Whether there is more to do at once."""
        self.is_unsaved = False
        """Whether what was muxed is worth to be saved: to be sent, for example."""
        self.covered: Mapping[str, Position] = {}
        """By log: what lies before is not needed any more."""
        self.taken: Mapping[str, Taken] = {}
        """By log: what the journal says of times before is not needed any more."""
        self.known_ns: int | None = None
        """See `SessionStream.known_ns`."""
        self._spool = spool
        self._intent = intent
        self._saved = saved
        self._bodies = bodies
        self._ledger = ledger
        self._stream: SessionStream | None = None
        self._over_at: tuple[int | None, int] | None = None
        """End and number of the spell that is over and delivered."""
        self._again = False
        """What this process has read is read again: from the saved state on, or from the beginning."""
        self._whole = False
        self._everything = False
        self._seen = ""
        self._settled: dict[str, int] = {}
        """By open file: bytes that the saved state relies on."""
        self._unsaved = 0
        self._failures: dict[str, int] = {}

    @property
    def is_delivered(self) -> bool:
        """Whether all its files are in the bucket, as far as is known."""
        return self._over_at is not None

    def begin_turn(self, *, everything: bool) -> bool:
        """Find out whether something may be due."""
        peer = self._spool.facts.peers[self.peer_id]
        ended = (peer.left_ns, len(peer.ends))
        if self._over_at == ended and not everything:
            return False
        self._whole = everything
        if peer.left_ns is not None and not everything:
            self._whole = self._is_written(peer.left_ns)
        self._everything, self.more = everything, True
        return True

    def advance(self, goes_on: Callable[[], bool], *, save: bool) -> None:
        """Mux what is due.

        Args:
            goes_on: Whether there is room for more; asked between some seconds and the next.
            save: Save it, too, however little it is: the spool is to be given back.
        Raises:
            IsotrackError: its beginning is in the spool no more, and the state that would go on is damaged.
            OSError: the disk is full, or damaged.
        """
        try:
            self._advance(goes_on, save=save)
        except ParseError as error:
            log.warning("a saved state is of no use", extra={"fields": {"peer_id": self.peer_id, "why": str(error)}})
            self._start_over()
            self.more = True

    def _advance(self, goes_on: Callable[[], bool], *, save: bool) -> None:
        stream = self._stream
        try:
            if stream is None:
                stream = self._stream = self._load()
            if stream.state.over and not self._come_back(stream):
                self.more = False
                return
            group = stream.state.group
            came_back = stream.state.spell < len(self._spool.facts.peers[self.peer_id].ends)
            whole = self._whole or came_back
            stream.known_ns = self.known_ns
            self.more = stream.advance(whole=whole, most_groups=GROUPS_AT_ONCE, goes_on=goes_on)
            self._unsaved += 0 if group is None or stream.state.group is None else stream.state.group - group
            self.is_unsaved = self._is_worth_saving(stream)
            if save and (self._unsaved or self.is_unsaved):
                self._save(stream)
        except BaseException:
            self._fall_back()
            raise
        self.more = self.more or stream.state.over

    def save(self) -> None:
        """Make what was muxed last, and the state that tells of it. Before that nothing of it is sent.

        Raises:
            OSError: the disk is full, or damaged.
        """
        if self._stream is None or not self.is_unsaved:
            return
        try:
            self._save(self._stream)
        except BaseException:
            self._fall_back()
            raise

    def _fall_back(self) -> None:
        """What was done since it was saved is done again."""
        self._stream, self._again, self.more = None, True, False

    def errands(self) -> list[Errand]:
        """What can be sent now."""
        if self._stream is None:
            return []
        found = []
        for part in self._stream.state.parts:
            name = part.plan.name
            if self._ledger.has_file(name):
                continue
            whole = range(self._ledger.first_missing(name), self._settled.get(name, 0) // PART_BYTES + 1)
            numbers = tuple(number for number in whole if not self._ledger.has_part(name, number))
            if part.result is not None or numbers:
                found.append(Errand(self, part, numbers))
        return found

    def delivered(self, name: str) -> None:
        """A file is in the bucket, and the ledger says so."""
        self._bodies.drop_all(name)
        self._settled.pop(name, None)
        self._failures.pop(name, None)

    def failed(self, name: str) -> int:
        """Note that a file could not be sent as it should; how often that was."""
        self._failures[name] = self._failures.get(name, 0) + 1
        return self._failures[name]

    def send_again(self, name: str, result: FileResult | None) -> None:
        """What was sent of a file is lost: send it again, or make it again where it is not here any more.

        Raises:
            IsotrackError: neither is possible.
        """
        self.more = True
        if not self._has_bytes(name, result):
            self._start_over()

    def abandon(self) -> None:
        """Throw away what was muxed: somebody else makes its files."""
        for part in self._stream.state.parts if self._stream is not None else ():
            self._bodies.drop_all(part.plan.name)
            self._ledger.forget_upload(part.plan.name)
        self._saved.drop(self.peer_id)
        self._stream = None

    def _has_bytes(self, name: str, result: FileResult | None) -> bool:
        size = self._settled.get(name, 0) if result is None else result.bytes
        return all(self._bodies.size(name, number) >= part_size for number, part_size in part_sizes(size))

    def _start_over(self) -> None:
        """Throw away what was muxed: with the next turn all of it is made again, the same, from the spool.

        Raises:
            IsotrackError: the spool does not have its beginning any more.
        """
        self._require_beginning()
        if self._stream is not None:
            for part in self._stream.state.parts:
                self._bodies.drop_all(part.plan.name)
                self._ledger.forget_upload(part.plan.name)
        self._again = True
        self._saved.drop(self.peer_id)
        self._stream, self._over_at, self._settled = None, None, {}

    # ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _load(self) -> SessionStream:
        if self._again:
            self._spool.restore_taken(track.key for track in self._spool.facts.tracks_of(self.peer_id))
            self._again = False
        saved = self._saved.load(self.peer_id)
        if saved is not None:
            try:
                stream = SessionStream.restore(self._spool, self._intent, saved, self._bodies)
            except ParseError:
                stream = None
            if stream is not None and stream.state.peer_id == self.peer_id and self._is_founded(stream.state):
                self._note_saved(stream)
                return stream
        self._require_beginning()
        return SessionStream(self._spool, self._intent, SessionState(self.peer_id), self._bodies)

    def _is_founded(self, state: SessionState) -> bool:
        """Whether all that a state relies on is there."""
        known = {part.plan.name: part for part in state.parts}
        for name in state.names:
            if self._ledger.has_file(name):
                continue
            part = known.get(name)
            if part is None:
                return False
            size = part.mux.offset if part.result is None else part.result.bytes
            for number, part_size in part_sizes(size):
                acknowledged = number > 1 and self._ledger.has_part(name, number)
                if not acknowledged and self._bodies.size(name, number) < part_size:
                    return False
        return True

    def _require_beginning(self) -> None:
        for track in self._spool.facts.tracks_of(self.peer_id):
            folder, _, log_name = track.key.partition("/")
            if track.abridged or min(segment_numbers(self._spool.path / folder, log_name), default=1) > 1:
                raise SpentError(f"session {self.peer_id!r} cannot begin anew: the spool has been reclaimed")

    def _come_back(self, stream: SessionStream) -> bool:
        """A spell is over: whether another one begins, if all files of this one were delivered."""
        news = self._forget_delivered(stream)
        if stream.state.parts:
            return False
        peer = self._spool.facts.peers[self.peer_id]
        if (self._everything or stream.state.spell < len(peer.ends) or peer.left_ns is None) and stream.goes_on():
            stream.come_back()
            return True
        if news:
            self._save(stream)
        if stream.state.spell >= len(peer.ends):
            self._over_at = (peer.left_ns, len(peer.ends))
            self._stream, self._again = None, True  # should it come back: it has taken what is told of that already
        return False

    def _is_worth_saving(self, stream: SessionStream) -> bool:
        """A whole part, a finished file, or half a minute."""
        return (
            self._unsaved >= GROUPS_UNSAVED
            or stream.state.over
            or any(
                part.result is not None
                or stream.settled(part.plan.name) // PART_BYTES > self._settled.get(part.plan.name, 0) // PART_BYTES
                for part in stream.state.parts
            )
        )

    def _forget_delivered(self, stream: SessionStream) -> bool:
        finished = {part.plan.name for part in stream.state.parts if part.result is not None}
        names = {name for name in finished if self._ledger.has_file(name)}
        for name in names:
            stream.forget(name)
        return bool(names)

    def _save(self, stream: SessionStream) -> None:
        self._forget_delivered(stream)
        for part in stream.state.parts:
            self._bodies.sync(part.plan.name)
        # NB: behind the bytes: a state that lasts promises them; before the parts: what is sent goes away here.
        self._saved.save(self.peer_id, stream.save())
        self._note_saved(stream)

    def _note_saved(self, stream: SessionStream) -> None:
        self._unsaved, self.is_unsaved = 0, False
        self._settled = {
            part.plan.name: stream.settled(part.plan.name) for part in stream.state.parts if part.result is None
        }
        tracks = self._spool.facts.tracks
        over = stream.state.over
        self.covered = {
            # A log that nobody writes any more, of a spell that is over, is not needed at all.
            key: Position(position.segment + 1) if over and tracks[key].ended_ns is not None else position
            for key, position in stream.positions().items()
            if key in tracks
        }
        self.taken = {
            key: Taken(
                (log.reported + 1) * SECOND - tracks[key].shift_ns, log.last_ns - GAP_LAG_NS - tracks[key].shift_ns
            )
            for key, log in stream.state.logs.items()
            if key in tracks
        }

    def _is_written(self, left_ns: int) -> bool:
        """Whether all frames from before a moment are in the spool: they reach the disk behind the journal's line about it."""
        facts = self._spool.facts
        if facts.tells_written:
            return facts.written_ns > left_ns
        before, self._seen = self._seen, self._fingerprint()  # of a recorder of an earlier version
        return before == self._seen

    def _fingerprint(self) -> str:
        """Changes when more was captured."""
        sizes = []
        for track in self._spool.facts.tracks_of(self.peer_id):
            folder, _, log_name = track.key.partition("/")
            numbers = segment_numbers(self._spool.path / folder, log_name)
            if numbers:
                path = self._spool.path / folder / f"{log_name}.{numbers[-1]:06}.log"
                sizes.append((track.key, numbers[-1], path.stat().st_size))
        return repr(sizes)
