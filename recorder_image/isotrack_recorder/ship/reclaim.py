"""Give back the spool's disk: segments that nobody will read again, of logs and of journals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from isotrack_recorder.spool.facts import TrackFacts
from isotrack_recorder.spool.journal_files import journal_numbers, journal_path
from isotrack_recorder.spool.past import Taken, give_back_journal
from isotrack_recorder.spool.reader import Position, segment_numbers, segment_path

from .checkpoint import is_log

log = logging.getLogger(__name__)

ENDED_FOR_NS: Final = 30 * 1_000_000_000
"""Frames of a track that ended reach the disk sooner."""


def written_behind(spool: Path, tracks: Sequence[TrackFacts], now_ns: int) -> dict[str, Position]:
    """By log: its first segment that may still be written; behind all of them where the track ended long ago.

    Args:
        now_ns: Time of the journal's newest line.
    """
    newest: dict[str, int] = {}
    for path in spool.glob("i*/t*.log"):
        name = f"{path.parent.name}/{path.name}"
        if is_log(name):
            key, number, _ = name.split(".")
            newest[key] = max(newest.get(key, 0), int(number))
    over = {track.key for track in tracks if track.ended_ns is not None and track.ended_ns + ENDED_FOR_NS < now_ns}
    return {track.key: Position(newest.get(track.key, 0) + (track.key in over)) for track in tracks}


def reclaim(spool: Path, covered: Mapping[str, Position], checkpointed: Mapping[str, int] | None) -> int:
    """Delete whole segments that are not needed any more.

    Args:
        covered: By log (`i0001/t0001`): frames before this position are not needed (`Delivery.covered`).
        checkpointed: By file (`i0001/t0001.000001.log`): how many of its bytes lie in the bucket for whoever goes on in our place.
            None: nobody could, for no checkpoints are made.
    Returns:
        Bytes that were given back.
    Raises:
        OSError: A segment cannot be deleted.
    """
    freed = 0
    for key, position in covered.items():
        folder, _, track = key.partition("/")
        for number in segment_numbers(spool / folder, track):
            if number >= position.segment:
                break
            path = segment_path(spool / folder, track, number)
            size = path.stat().st_size
            if checkpointed is not None and checkpointed.get(f"{folder}/{path.name}", 0) < size:
                break
            path.unlink()
            freed += size
    return freed


def reclaim_journals(
    spool: Path,
    read: Mapping[str, int],
    tracks: Mapping[str, TrackFacts],
    taken: Mapping[str, Taken],
    checkpointed: Mapping[str, int] | None,
) -> int:
    """Replace segments of journals that were read by what still matters of them.

    Args:
        read: By folder (`i0001`): the segment that is read now (`Spool.journals`).
        tracks: By log; those whose reports may be gone afterwards are marked.
        taken: By log: what nobody needs of its facts.
        checkpointed: As for `reclaim`.
    Returns:
        Bytes that were given back.
    """
    freed = 0
    for name, present in read.items():
        folder, through = spool / name, 0
        for number in journal_numbers(folder)[:-1]:  # the newest may still grow
            path = journal_path(folder, number)
            copied = checkpointed is None or checkpointed.get(f"{name}/{path.name}", 0) >= path.stat().st_size
            if number >= present or not copied:
                break
            through = number
        mine = {key.partition("/")[2]: row for key, row in taken.items() if key.partition("/")[0] == name}
        try:
            gain = give_back_journal(folder, through, mine) if through else 0
        except OSError as error:  # a full disk has no room for what is kept of it: frames go first, then this
            log.warning("journal was not given back for now", extra={"fields": {"why": error.strerror}})
            continue
        for track in mine if gain else ():
            tracks[f"{name}/{track}"].abridged = True
        freed += gain
    return freed
