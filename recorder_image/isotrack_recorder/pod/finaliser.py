"""`isotrack-recorder finalise` and `isotrack-recorder sweep`: finish recordings whose pods are gone, from the bucket alone.

    finalise   one recording: ISOTRACK_INTENT says which and where, ISOTRACK_STOP_REASON why it is over. An attempt that wrote a
               checkpoint within ISOTRACK_SILENCE_SECONDS is waited for
    sweep      every abandoned recording of a storage (ISOTRACK_SWEEP, an S3Destination as JSON): those to which nothing has come for
               ISOTRACK_SWEEP_SECONDS, nor comes while they are watched for ISOTRACK_SWEEP_WATCH_SECONDS. Those whose folders end
               with one of ISOTRACK_SWEEP_AT_WORK are somebody's, however silent

Both run as Jobs, with the storage's credentials mounted as for the agent, and end as it does: an exit code of `errors` and a
termination message. Rebuilt spools go to the temporary folder (TMPDIR), which may hold ISOTRACK_SCRATCH_BYTES. They may be killed and repeated at any time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isotrack_api.conditions import Reason
from isotrack_api.intent import S3Destination
from isotrack_api.manifest import StopReason
from isotrack_recorder.errors import ConfigError, IsotrackError, StorageError, StorageRefusedError
from isotrack_recorder.logs import configure_logging
from isotrack_recorder.settings import read_intent
from isotrack_recorder.ship.abandoned import ABANDONED_SECONDS, Folder, find_folders, open_folder, quiet_seconds
from isotrack_recorder.ship.commit import Committed
from isotrack_recorder.ship.credentials import pod_credentials
from isotrack_recorder.ship.deliver import AFTER_STOP_SECONDS, Delivered, End
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.recover import Recovery, longest_silence_seconds, look
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.store import Store, clear_abandoned
from isotrack_recorder.ship.watch import WATCH_SECONDS, AtWorkError, Clock, look_again, watch
from isotrack_recorder.spool.room import Room

from .agent_report import Ending
from .agent_settings import TERMINATION_LOG, read_bytes, read_destination, read_seconds
from .termination import write_termination

log = logging.getLogger(__name__)

SIGTERM_SECONDS: Final = 10.0
"""After SIGTERM requests are given up that late; what is not done the next run does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process reads and tells."""

    credentials: Path
    termination_log: Path
    scratch: Path
    scratch_bytes: int | None
    """What the volume of `scratch` may hold; None = as much as the disk has."""
    patience: Patience

    @property
    def room(self) -> Room:
        """What bounds that volume."""
        return Room(self.scratch, self.scratch_bytes)


def main(command: str, environ: Mapping[str, str]) -> int:
    """Entry point of both commands. Exit code of `errors`."""
    configure_logging(environ, sys.stderr)
    termination_log = Path(environ.get("ISOTRACK_TERMINATION_LOG") or TERMINATION_LOG)
    try:
        place = Place(
            credentials=Path(environ.get("ISOTRACK_STORAGE_CREDENTIALS") or "/etc/isotrack/storage"),
            termination_log=termination_log,
            scratch=Path(tempfile.gettempdir()),
            scratch_bytes=read_bytes(environ, "ISOTRACK_SCRATCH_BYTES"),
            patience=Patience(in_a_row=read_seconds(environ, "ISOTRACK_UPLOAD_SECONDS", AFTER_STOP_SECONDS)),
        )
        ending = asyncio.run(_finalise(place, environ) if command == "finalise" else _sweep(place, environ))
    except IsotrackError as error:
        log.error("not finished", extra={"fields": {"reason": error.reason, "detail": str(error)}})
        write_termination(termination_log, _ending(error.reason, str(error), None))
        return error.exit_code
    write_termination(termination_log, ending)
    return 0


async def _finalise(place: Place, environ: Mapping[str, str]) -> Ending:
    intent = read_intent(environ)
    if intent.storage is None:
        raise ConfigError("ISOTRACK_INTENT names no storage: there is nothing to finalise")
    usual = longest_silence_seconds(intent.storage.checkpoint_seconds)
    silence = read_seconds(environ, "ISOTRACK_SILENCE_SECONDS", usual)
    end = End(True, _stop_reason(environ))
    _end_with_sigterm(place.patience)
    with closing(Lanes()) as lanes:
        try:
            store = S3Store(intent.storage, pod_credentials(place.credentials), place.patience)
            recovery = Recovery(store, lanes, layout_of(intent), place.scratch, intent, end=end, room=place.room)
            committed = await finish_quiet(recovery, silence)
        finally:
            place.patience.end_within(0)
    log.info("recording finished", extra={"fields": {"files": len(committed.manifest.files)}})
    return _ending(Reason.UPLOADED, committed.manifest.message, committed)


async def finish_quiet(recovery: Recovery, silence: float) -> Committed:
    """Finish a recording, unless an attempt is at work that its cluster takes for gone: on a node that nobody hears any more, say.

    Args:
        silence: For how long such an attempt shows no sign of life at most, in seconds.
    Raises:
        StorageError: one is, and did not end by itself in a time. Nothing was written.
        IsotrackError: it could not be finished.
    """
    if not await recovery.wait_until_quiet(silence=silence):
        raise StorageError(
            "an attempt still writes to the bucket, on a node out of reach: it will end the recording itself"
        )
    committed = await recovery.finalise()
    if committed is None:
        raise StorageError("no attempt left anything in the bucket: no manifest and no checkpoint")
    return committed


async def _sweep(place: Place, environ: Mapping[str, str]) -> Ending:
    destination = read_destination(environ, "ISOTRACK_SWEEP")
    minimum = read_seconds(environ, "ISOTRACK_SWEEP_SECONDS", ABANDONED_SECONDS)
    watched = read_seconds(environ, "ISOTRACK_SWEEP_WATCH_SECONDS", min(WATCH_SECONDS, minimum))
    at_work = frozenset(filter(None, environ.get("ISOTRACK_SWEEP_AT_WORK", "").split(",")))
    _end_with_sigterm(place.patience)
    with closing(Lanes()) as lanes:
        try:
            store = S3Store(destination, pod_credentials(place.credentials), place.patience)
            finished, failures = await sweep(
                store, lanes, destination, place, minimum=minimum, watched=watched, at_work=at_work
            )
        finally:
            place.patience.end_within(0)
    text = f"{finished} abandoned recordings finished, {len(failures)} not"
    log.info("swept", extra={"fields": {"finished": finished, "failed": len(failures)}})
    if failures:
        raise type(failures[0])(f"{text}: {failures[0]}")
    return _ending(Reason.UPLOADED, text, None)


async def sweep(
    store: Store, lanes: Lanes, destination: S3Destination, place: Place, *,
    minimum: float, watched: float, at_work: Collection[str] = (), clock: Clock = time.monotonic,
) -> tuple[int, list[IsotrackError]]:  # fmt: skip
    """Finish the abandoned recordings of a storage: how many that were, and why others could not be finished.

    Args:
        minimum: For how long nobody may have written to them, in seconds.
        watched: For how long nobody may write to them now, in seconds.
        at_work: What folders end with (eight digits of the uid) that are left alone.
    Raises:
        StorageError: the storage does not answer.
    """
    finished, failures = 0, list[IsotrackError]()
    for folder in await lanes.request(abandoned, store, destination, minimum, watched, at_work, clock):
        try:
            finished += await _finish(store, lanes, destination, folder, place)
        except AtWorkError:
            log.info("left alone: somebody is at work", extra={"fields": {"folder": folder.root}})
        except IsotrackError as error:  # one that cannot be finished must not keep the others
            log.error("not finished", extra={"fields": {"folder": folder.root, "detail": str(error)}})
            failures.append(error)
    return finished, failures


def abandoned(
    store: Store,
    destination: S3Destination,
    minimum: float,
    watched: float,
    at_work: Collection[str] = (),
    clock: Clock = time.monotonic,
) -> tuple[Folder, ...]:
    """Folders that hold something unfinished, uploads included, that nobody has written to for long enough, nor while we watched.

    Args:
        minimum: How old everything in them must be, in seconds.
        watched: How long they are watched, all at once, in seconds.
        at_work: What those end with that are left alone.
    """
    old = [folder for folder in _old(store, destination, minimum) if folder.root.rpartition("-")[2] not in at_work]
    return watch(store, old, watched, clock)


def _old(store: Store, destination: S3Destination, minimum: float) -> list[Folder]:
    prefix = destination.prefix.strip("/")
    below = f"{prefix}/" if prefix else ""
    uploading = _uploading(store, below)
    folders = find_folders(store.list_objects(below))
    unfinished = [folder for folder in folders if folder.is_unfinished or folder.root in uploading]
    now = time.time() + (store.clock_skew_seconds or 0.0)
    found = []
    for folder in unfinished:
        if now - folder.newest < minimum:
            continue
        try:
            layout, intent = open_folder(store, destination, folder.root)
        except ConfigError:
            continue  # somebody else's objects
        if now - folder.newest < quiet_seconds(intent, minimum, uploads_only=not folder.is_unfinished):
            continue
        if folder.root in uploading or not look(store, layout).is_beyond_help:
            found.append(folder)
    return found


def _uploading(store: Store, prefix: str) -> set[str]:
    """Folders with unfinished uploads, as far as we may know."""
    try:
        return {upload.key.rpartition("/")[0] for upload in store.unfinished(prefix)}
    except StorageRefusedError as error:
        log.warning("unfinished uploads are not looked for", extra={"fields": {"detail": str(error)}})
        return set()


async def _finish(store: Store, lanes: Lanes, destination: S3Destination, folder: Folder, place: Place) -> int:
    layout, intent = await lanes.request(open_folder, store, destination, folder.root)
    if not folder.is_unfinished or (await lanes.request(look, store, layout)).is_beyond_help:
        await lanes.request(look_again, store, folder)
        aborted = await lanes.request(clear_abandoned, store, f"{folder.root}/")
        log.info("unfinished uploads taken back", extra={"fields": {"folder": folder.root, "uploads": aborted}})
        return 0

    def allow() -> None:
        look_again(store, folder)

    committed = await Recovery(store, lanes, layout, place.scratch, intent, room=place.room, allow=allow).finalise()
    log.info("recording finished", extra={"fields": {"folder": folder.root, "made": committed is not None}})
    return int(committed is not None)


def _end_with_sigterm(patience: Patience) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, patience.end_within, SIGTERM_SECONDS)


def _stop_reason(environ: Mapping[str, str]) -> StopReason | None:
    text = environ.get("ISOTRACK_STOP_REASON", "")
    if not text:
        return None
    if text not in tuple(StopReason):
        raise ConfigError(f"ISOTRACK_STOP_REASON must be one of {', '.join(StopReason)}")
    return StopReason(text)


def _ending(reason: str, message: str, committed: Committed | None) -> Ending:
    manifest = committed.manifest if committed is not None else None
    delivered = Delivered(manifest.files, None, committed) if manifest is not None else None
    stop_reason = manifest.stop_reason if manifest is not None else None
    return Ending(reason, message, stop_reason, delivered, (), None, "", 0)
