"""The client library: how it is set up, and what it raises. The only module that imports boto3.

botocore's own retries are off (their budget drains in an outage and then fails fast); `s3_requests` repeats calls itself.
Checksums are those that `s3` gives: never a trailer, because servers exist that store the framing of trailers inside the object.

boto3 is imported when the first client is made: it costs half a second and 50 MB, which a recording's start need not wait for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import ConfigError, StorageError, StorageRefusedError

from .credentials import Credentials
from .lanes import READS_AT_ONCE, REQUESTS_AT_ONCE
from .s3_errors import Answer, Consequence, advice, clean, consequence_of, error_of

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS: Final = 3
READ_SECONDS: Final = 20
COMPLETE_SECONDS: Final = 600
"""The same for the completion of an upload: servers that copy its parts into one file answer when that is done."""
_AHEAD: Final = "isotrack_ahead_seconds"
_SHA256: Final = "isotrack_sha256"
_AWAY: Final = "the service that gives them to this pod or machine does not answer"


@dataclass(frozen=True, slots=True)
class Signing:
    """What requests are signed with; asked for each of them, in the thread that sends it."""

    ahead: Callable[[], float]
    """Seconds from now: the time that they are signed for."""
    sha256: Callable[[], bytes | None]
    """Of the body, where it is known already."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Clients of one storage."""

    client: S3Client
    patient: S3Client
    """For the completion of uploads."""
    place: str
    """The endpoint as texts name it."""
    is_aws: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed and what follows."""

    consequence: Consequence
    error: StorageError


def endpoint_of(destination: S3Destination) -> str | None:
    """The endpoint without a slash at its end; None = AWS, or what the environment names.

    Raises:
        ConfigError: it is no URL of a server, or has a user, query or fragment in it.
    """
    if destination.endpoint is None:
        return None
    url = urlsplit(destination.endpoint)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
        raise ConfigError("the storage's endpoint must be http(s)://host[:port], without user, query or fragment")
    return destination.endpoint.rstrip("/")


def place_of(destination: S3Destination) -> str:
    """The endpoint as texts name it before there is a connection."""
    return endpoint_of(destination) or f"AWS ({destination.region})"


def connect(
    destination: S3Destination, credentials: Credentials | None, ca_file: Path | None, signing: Signing
) -> Connection:
    """Make a client; nothing is sent yet.

    Buckets are paths at endpoints of one's own unless the destination says otherwise: few such servers know them as host names.

    Raises:
        ConfigError: the library does not take these settings.
        StorageError: whoever gives out credentials is away.
    """
    endpoint, forced = endpoint_of(destination), destination.force_path_style
    style: Literal["path", "virtual", "auto"] = "path" if forced or (forced is None and endpoint) else "auto"
    if forced is False and endpoint:
        style = "virtual"
    session = _session()
    client = _client(session, destination, credentials, ca_file, style, READ_SECONDS)
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    is_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if not is_aws and style == "auto" and forced is None:  # an endpoint from the environment
        style = "path"
        client = _client(session, destination, credentials, ca_file, style, READ_SECONDS)
    patient = _client(session, destination, credentials, ca_file, style, COMPLETE_SECONDS)
    _sign(client, signing)
    _sign(patient, signing)
    place = place_of(destination) if is_aws else _without_user(client.meta.endpoint_url)
    return Connection(client, patient, place, is_aws)


def _session() -> Session:
    """What clients share: the description of S3, read once.

    Raises:
        ConfigError: the environment names a profile that is not there.
    """
    import boto3.session
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.session.Session()
    except BotoCoreError as error:
        raise ConfigError(f"storage settings are not usable: {type(error).__name__}") from None


def _client(
    session: Session,
    destination: S3Destination,
    credentials: Credentials | None,
    ca_file: Path | None,
    style: Literal["path", "virtual", "auto"],
    read_seconds: int,
) -> S3Client:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, CredentialRetrievalError

    try:
        return session.client(
            "s3",
            region_name=destination.region,
            endpoint_url=endpoint_of(destination),
            verify=str(ca_file) if ca_file else None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=CONNECT_SECONDS,
                read_timeout=read_seconds,
                max_pool_connections=REQUESTS_AT_ONCE * READS_AT_ONCE,
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": style},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
            aws_session_token=credentials.session_token if credentials else None,
        )
    except CredentialRetrievalError:  # some of the library's sources are asked at once, others with the first request
        raise StorageError(_no_credentials(destination.bucket, place_of(destination), _AWAY)) from None
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"storage settings are not usable: {type(error).__name__}") from None


def _no_credentials(bucket: str, place: str, why: str) -> str:
    return f"no credentials for bucket {bucket!r} at {place}: {why}"


def _sign(client: S3Client, signing: Signing) -> None:
    """Have the client sign by what we know (Signature Version 4 holds the time of the request and the SHA-256 of its body)."""
    _use_our_signer()

    def note(request: Any, **_: object) -> None:
        request.context[_AHEAD] = signing.ahead()
        request.context[_SHA256] = signing.sha256()

    client.meta.events.register("before-sign.s3", note)


@functools.cache
def _use_our_signer() -> None:
    """Teach the library's signer: it has no setting for it, reads the clock itself, and takes the sum of each body anew."""
    from botocore import auth

    class Signer(auth.S3SigV4Auth):
        def _modify_request_before_signing(self, request: Any) -> None:
            seconds = request.context.get(_AHEAD, 0.0)
            if seconds:
                now = datetime.strptime(request.context["timestamp"], auth.SIGV4_TIMESTAMP).replace(tzinfo=UTC)
                request.context["timestamp"] = (now + timedelta(seconds=seconds)).strftime(auth.SIGV4_TIMESTAMP)
            super()._modify_request_before_signing(request)  # type: ignore[misc]  # the stubs leave it out

        def payload(self, request: Any) -> str:
            known: bytes | None = request.context.get(_SHA256)
            return super().payload(request) if known is None else known.hex()

    auth.AUTH_TYPE_MAPS["s3v4"] = Signer


def failure_of(error: Exception, operation: str, bucket: str, place: str) -> Failure:
    """Translate what the client library raised; raises `error` itself when it is not the library's."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    if isinstance(error, boto.ClientError) and error.operation_name == operation:
        told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        answer = Answer(str(told.get("Code", "")), int(meta.get("HTTPStatusCode", 0)), str(told.get("Message", "")))
        return Failure(consequence_of(answer), error_of(answer, advice(answer, operation, bucket, place)))
    where = f"bucket {bucket!r} at {place}"
    if isinstance(error, boto.ClientError):  # of the service that gives out credentials, asked on the way
        code = clean(str(error.response.get("Error", {}).get("Code", "")), 60)
        text = (
            f"no credentials for {where}: {error.operation_name} answered {code}: check role and trust of the identity"
        )
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status >= 500:
            return Failure(Consequence.RETRY, StorageError(text))
        return Failure(Consequence.CREDENTIALS, StorageRefusedError(text))
    if isinstance(error, boto.CredentialRetrievalError):
        return Failure(Consequence.RETRY, StorageError(_no_credentials(bucket, place, _AWAY)))
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        why = "give the storage a secret or an identity, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return Failure(Consequence.CREDENTIALS, StorageRefusedError(_no_credentials(bucket, place, why)))
    if isinstance(error, boto.ParamValidationError):
        text = f"{operation} to {where} is not a legal request: check the storage's bucket and prefix"
        return Failure(Consequence.REFUSED, StorageRefusedError(text))
    if isinstance(error, boto.SSLError):
        text = f"the certificate at {place} is not trusted: name its authority as the storage's caCertificate, or ca.crt of its secret"
        return Failure(Consequence.UNTRUSTED, StorageError(text))
    if isinstance(error, ResponseParserError):
        # The page of a proxy in between. NB: it is no BotoCoreError.
        text = f"{place} answered {operation} with something that is not S3: check the storage's endpoint"
        return Failure(Consequence.RETRY, StorageError(text))
    if isinstance(error, boto.BotoCoreError | OSError):
        text = f"{place} cannot be reached ({type(error).__name__}): check the storage's endpoint and the network"
        return Failure(Consequence.RETRY, StorageError(text))
    raise error


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
