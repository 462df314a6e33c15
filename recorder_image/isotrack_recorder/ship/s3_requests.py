"""Requests to one bucket: each is sent until it works, is refused for good, or patience ends.

    send ─▶ answer
         └▶ failure ─▶ expected                   the caller's answer
                       may pass                   a pause with full jitter, then again
                       signed for another time    again by the storage's clock
                       refused                    again with credentials and authority as they are now; unchanged: as `retry` says

One Requests is shared by all worker threads. Its connection lives until a refusal finds other credentials, or another authority,
than it was made with; one whose credentials are the environment's, until the next refusal. Each answer tells the storage's time: the
next requests are signed by it where need be, and `clock` is narrowed by it.

What is asked for is in `s3`, the client library behind `s3_client`, what its answers mean in `s3_errors`.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from isotrack_api.intent import S3Destination
from isotrack_recorder.clocks import Bounds, answered
from isotrack_recorder.errors import StorageError, StorageRefusedError

from .credentials import Credentials, CredentialSource, read_authority
from .retry import Patience, full_jitter
from .s3_client import Connection, Failure, Signing, connect, failure_of, place_of
from .s3_errors import Consequence
from .store import Heard, Traffic, Trouble, UploadLostError, nobody_hears

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)
R = TypeVar("R")

FAR_SECONDS: Final = 60.0
"""Clocks that differ by less are not why a request was refused; S3 allows 15 minutes, some servers less."""


@dataclass(frozen=True, slots=True)
class _Secret:
    """What a client was made with."""

    credentials: Credentials | None
    authority: bytes


class Requests:
    """The way to one bucket. Thread-safe."""

    def __init__(
        self, destination: S3Destination, credentials: CredentialSource, patience: Patience, heard: Heard = nobody_hears
    ) -> None:
        self._patience = patience
        self._heard = heard
        self._destination = destination
        self._place = place_of(destination)
        self._source = credentials
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        """Held for as long as it takes to be given credentials: nothing that the event loop asks for waits for it."""
        self._connection: Connection | None = None
        self._secret: _Secret | None = None
        self._is_aws = False
        self._trouble: Trouble | None = None
        self._skew: float | None = None
        self._ahead = 0.0
        """Of our clock, the time that requests are signed for."""
        self._clock: Bounds | None = None
        self._asked = threading.local()
        """`ns`: when this thread's request went out, by CLOCK_MONOTONIC. `sha256`: what its body is signed by."""
        self._traffic = Traffic()

    @property
    def place(self) -> str:
        """The endpoint as texts name it."""
        return self._place

    @property
    def is_aws(self) -> bool:
        """Whether the endpoint is one of AWS; before the first request it is not."""
        return self._is_aws

    @property
    def patience(self) -> Patience:
        """How long failing calls are repeated."""
        return self._patience

    @property
    def trouble(self) -> Trouble | None:
        """What the newest call failed with; None when it succeeded."""
        return self._trouble

    @property
    def traffic(self) -> Traffic:
        """What was sent and what failed so far."""
        with self._lock:
            return replace(self._traffic)

    @property
    def clock_skew_seconds(self) -> float | None:
        """The storage's clock minus ours."""
        return self._skew

    @property
    def clock(self) -> Bounds | None:
        """Between which values the storage's clock minus our CLOCK_MONOTONIC lies, by all answers so far."""
        return self._clock

    @contextlib.contextmanager
    def signed_by(self, sha256: bytes) -> Iterator[None]:
        """In this thread, the body of the next request has this SHA-256: it is signed by it, unread."""
        self._asked.sha256 = sha256
        try:
            yield
        finally:
            self._asked.sha256 = None

    def count_sent(self, size: int) -> None:
        """Add to the traffic what the storage took: a body of `size` bytes."""
        with self._lock:
            self._traffic.bytes_sent += size

    def call(
        self,
        operation: str,
        send: Callable[[S3Client], R],
        expected: Mapping[Consequence, R] | None = None,
        *,
        patient: bool = False,
    ) -> R:
        """Send until it works, an answer is `expected`, refused for good, or patience ends. `patient`: the answer may take minutes."""
        failures = 0
        while True:
            connection = self._connected()
            try:
                value = send(connection.patient if patient else connection.client)
            except Exception as error:  # noqa: BLE001 - sorted by `failure_of`, which raises what it does not know
                failure = self._unless_about_encryption(
                    failure_of(error, operation, self._destination.bucket, self._place), operation
                )
            else:
                self._answered(None)
                return value
            failures += 1
            if expected is not None and failure.consequence in expected:
                self._answered(None)
                return expected[failure.consequence]
            if isinstance(failure.error, UploadLostError):
                raise failure.error
            with self._lock:
                self._traffic.failures += 1
            pause = self._pause_after(failure.consequence, failures)
            self._answered(Trouble(failure.error.reason, str(failure.error)))
            if pause is None or not self._patience.pause(pause):
                raise failure.error

    def _unless_about_encryption(self, failure: Failure, operation: str) -> Failure:
        """Servers without encryption refuse its headers in words of their own."""
        wanted = self._destination.server_side_encryption
        if wanted is None or operation not in ("PutObject", "CreateMultipartUpload"):
            return failure
        if failure.consequence not in (Consequence.FAILED, Consequence.UNSUPPORTED):
            return failure
        text = f"{failure.error}; the storage asks for serverSideEncryption {wanted.mode.value}"
        return Failure(Consequence.REFUSED, StorageRefusedError(text))

    def _pause_after(self, what: Consequence, failures: int) -> float | None:
        """Seconds until the next attempt; None = this answer is final."""
        if what in (Consequence.RETRY, Consequence.DAMAGED):
            return full_jitter(failures)
        # NB: a refused HEAD has no body, so it does not say that it is about the clock.
        if what in (Consequence.SKEWED, Consequence.CREDENTIALS) and self._follow_clock():
            return 0.0
        if what in (Consequence.CREDENTIALS, Consequence.EXPIRED, Consequence.UNTRUSTED) and self._secret_changed():
            return 0.0
        if what in (Consequence.SKEWED, Consequence.UNTRUSTED):
            return full_jitter(failures)
        if what is Consequence.EXPIRED:
            return full_jitter(failures) + 1
        return self._patience.refused_pause_seconds

    def _follow_clock(self) -> bool:
        """Sign by the storage's clock from now on, if what was refused was signed for another time. Somebody set one of the two."""
        with self._lock:
            if self._skew is None or abs(self._skew - self._ahead) < FAR_SECONDS:
                return False
            self._ahead = self._skew
        log.warning("signing by the storage's clock", extra={"fields": {"ahead_s": round(self._ahead)}})
        return True

    def _connected(self) -> Connection:
        """The client. Credentials that cannot be had fail like a request: not whole (a key of the Secret is missing) as if they were
        refused, and where who gives them out is away, that may pass."""
        failures = 0
        while True:
            try:
                return self._connect()
            except StorageError as error:
                failures += 1
                self._answered(Trouble(error.reason, str(error)))
                refused = isinstance(error, StorageRefusedError)
                pause = self._patience.refused_pause_seconds if refused else full_jitter(failures)
                if pause is None or not self._patience.pause(pause):
                    raise

    def _connect(self) -> Connection:
        with self._connecting:
            connection = self._connection
            if connection is None:
                secret = self._read_secret()
                signing = Signing(lambda: self._ahead, lambda: getattr(self._asked, "sha256", None))
                connection = connect(self._destination, secret.credentials, self._source.ca_file, signing)
                for client in (connection.client, connection.patient):
                    client.meta.events.register("before-send.s3", self._note_sent)
                    client.meta.events.register("after-call.s3", self._note_time)
                self._place, self._is_aws = connection.place, connection.is_aws
                self._connection, self._secret = connection, secret
            return connection

    def _secret_changed(self) -> bool:
        """Read credentials and authority again; a new client serves the next call when they differ."""
        try:
            fresh = self._read_secret()
        except StorageRefusedError:  # in the middle of a rotation: the old ones are as good as any
            return False
        with self._connecting:
            is_same = fresh == self._secret
            # NB: those of the environment the library looks for when a client is made, and in some places (a file, the node) never again.
            if not is_same or fresh.credentials is None:
                self._connection = None
        if is_same:
            return False
        log.info("storage credentials read again")
        return True

    def _read_secret(self) -> _Secret:
        return _Secret(self._source.read(), read_authority(self._source))

    def _answered(self, trouble: Trouble | None) -> None:
        before, self._trouble = self._trouble, trouble
        if trouble is None:
            self._patience.answered()
        else:
            self._patience.failed()
        self._heard(trouble)
        if trouble is not None and (before is None or before != trouble):
            log.warning("storage call failed", extra={"fields": {"reason": trouble.reason, "detail": trouble.message}})
        elif trouble is None and before is not None:
            log.info("storage answers again")

    def _note_time(self, parsed: Mapping[str, Any], **_: object) -> None:
        date = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            told = email.utils.parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return
        self._skew = told - time.time()
        sent, self._asked.ns = getattr(self._asked, "ns", None), None
        if sent is not None:
            found = answered(told, sent, time.monotonic_ns())
            with self._lock:
                self._clock = found if self._clock is None else self._clock.narrowed(found)

    def _note_sent(self, **_: object) -> None:
        self._asked.ns = time.monotonic_ns()
