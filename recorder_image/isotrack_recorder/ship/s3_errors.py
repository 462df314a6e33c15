"""What an answer of an S3 server means for us. Pure: error code and HTTP status in, consequence and advice out.

Servers differ in their codes for the same thing, so the status decides where the code is unknown. Texts name bucket, key
prefix and what to do; they hold no header, no query and no credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from isotrack_recorder.errors import StorageError, StorageRefusedError

from .store import UploadLostError


class Consequence(Enum):
    """What the caller does next."""

    RETRY = "retry"
    CREDENTIALS = "credentials"
    """Read the credentials again; when they are the same, refused."""
    EXPIRED = "expired"
    """Read the credentials again; when they are the same, wait for new ones."""
    SKEWED = "skewed"
    """Signed for a time that is not the storage's: sign again by its clock."""
    UNTRUSTED = "untrusted"
    """Read the authority that we trust again; it may pass by itself, too."""
    REFUSED = "refused"
    MISSING = "missing"
    EXISTS = "exists"
    UPLOAD_LOST = "upload lost"
    UNSUPPORTED = "unsupported"
    DAMAGED = "damaged"
    """What arrived is not what the checksum says: send it again."""
    TOO_SMALL = "too small"
    """A part that is not the last is below the server's minimum."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """An error answer."""

    code: str
    status: int
    message: str = ""


_BY_CODE: Final = {
    "NoSuchBucket": Consequence.REFUSED,
    "InvalidBucketName": Consequence.REFUSED,
    "PermanentRedirect": Consequence.REFUSED,
    "AuthorizationHeaderMalformed": Consequence.REFUSED,
    "IllegalLocationConstraintException": Consequence.REFUSED,
    "AllAccessDisabled": Consequence.REFUSED,
    "AccountProblem": Consequence.REFUSED,
    "QuotaExceeded": Consequence.REFUSED,
    "UserSuspended": Consequence.CREDENTIALS,
    "AccessDenied": Consequence.CREDENTIALS,
    "InvalidAccessKeyId": Consequence.CREDENTIALS,
    "SignatureDoesNotMatch": Consequence.CREDENTIALS,
    "InvalidToken": Consequence.CREDENTIALS,
    "XAdminUserNotFound": Consequence.CREDENTIALS,  # versitygw says so of an unknown access key
    "ExpiredToken": Consequence.EXPIRED,
    "ExpiredTokenException": Consequence.EXPIRED,
    "TokenRefreshRequired": Consequence.EXPIRED,
    "400": Consequence.CREDENTIALS,  # an answer without a body, as to a HEAD: of AWS mostly a session token that has expired
    "RequestTimeTooSkewed": Consequence.SKEWED,
    "RequestTimeout": Consequence.RETRY,
    "BadDigest": Consequence.DAMAGED,
    "XAmzContentChecksumMismatch": Consequence.DAMAGED,
    "XAmzContentSHA256Mismatch": Consequence.DAMAGED,
    "EntityTooSmall": Consequence.TOO_SMALL,
    "IncompleteBody": Consequence.RETRY,
    "OperationAborted": Consequence.RETRY,
    "ConditionalRequestConflict": Consequence.RETRY,
    "NoSuchKey": Consequence.MISSING,
    "NoSuchUpload": Consequence.UPLOAD_LOST,
    "InvalidPart": Consequence.UPLOAD_LOST,  # a part that it had acknowledged is not there, or another: no repetition brings it back
    "PreconditionFailed": Consequence.EXISTS,
    "NotImplemented": Consequence.UNSUPPORTED,
}
_BY_STATUS: Final = {
    401: Consequence.CREDENTIALS,
    403: Consequence.CREDENTIALS,
    404: Consequence.MISSING,
    408: Consequence.RETRY,
    409: Consequence.RETRY,
    412: Consequence.EXISTS,
    416: Consequence.MISSING,  # a range behind the end of an object
    425: Consequence.RETRY,
    429: Consequence.RETRY,
    501: Consequence.UNSUPPORTED,
}


def consequence_of(answer: Answer) -> Consequence:
    """Decide what an error answer leads to."""
    if answer.code.startswith("KMS."):  # AWS: KMS.NotFoundException, KMS.DisabledException …
        return Consequence.REFUSED
    known = _BY_CODE.get(answer.code) or _BY_STATUS.get(answer.status)
    return known or (Consequence.RETRY if answer.status >= 500 else Consequence.FAILED)


def clean(text: str, limit: int = 160) -> str:
    """Foreign text for our messages: one line, printable, cut."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def advice(answer: Answer, operation: str, bucket: str, endpoint: str) -> str:
    """One line for the user: what happened and what to do about it. `endpoint` is shown as given (no credentials in it)."""
    place = f"bucket {bucket!r} at {endpoint}"
    match answer.code:
        case "NoSuchBucket":
            return f"{place} does not exist: create it, or correct bucket and endpoint of the storage"
        case "InvalidBucketName":
            return f"{bucket!r} is no legal bucket name: correct the storage's bucket"
        case "InvalidAccessKeyId" | "InvalidToken" | "XAdminUserNotFound":
            return f"{place} does not know the access key: correct accessKeyId in the storage's secret"
        case "SignatureDoesNotMatch":
            return f"{place} rejects the signature: correct secretAccessKey in the storage's secret"
        case "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired":
            return f"the session token for {place} has expired: renew sessionToken in the storage's secret"
        case "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException":
            return f"{place} is in another region: set the storage's region"
        case "400":
            return f"{place} refuses {operation} without a word: renew keys and sessionToken in the storage's secret, or correct its region"
        case "403":  # of a HEAD, which says no more: a key that was changed looks like a right that is missing
            return f"{place} refuses {operation} without a word: correct the keys in the storage's secret, or give them that right for the prefix of the recording"
        case "QuotaExceeded":
            return f"{place} is full: raise its quota, or make room"
        case "RequestTimeTooSkewed":
            return f"this machine's clock and the one of {place} differ by more than 15 minutes: set the clock"
    if answer.code.startswith("KMS."):
        return f"{place} cannot use the KMS key ({clean(answer.code, 60)}): correct the storage's kmsKeyId or the key's policy"
    if answer.status in (401, 403):
        return f"{place} denies {operation}: give the credentials that right for the prefix of the recording"
    detail = clean(answer.message)
    return f"{place} answered {operation} with {answer.status} {clean(answer.code, 60)}" + (
        f": {detail}" if detail else ""
    )


def error_of(answer: Answer, text: str) -> StorageError:
    """The error of our tree for an answer that will not be repeated."""
    match consequence_of(answer):
        case Consequence.REFUSED | Consequence.CREDENTIALS:
            return StorageRefusedError(text)
        case Consequence.UPLOAD_LOST:
            return UploadLostError(text)
    return StorageError(text)
