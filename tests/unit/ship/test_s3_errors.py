"""What answers of S3 servers lead to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.errors import StorageError, StorageRefusedError
from isotrack_recorder.ship.s3_errors import Answer, Consequence, advice, clean, consequence_of, error_of
from isotrack_recorder.ship.store import UploadLostError


@pytest.mark.parametrize(
    ("answer", "consequence"),
    [
        pytest.param(Answer("NoSuchBucket", 404), Consequence.REFUSED, id="no-bucket"),
        pytest.param(Answer("AccessDenied", 403), Consequence.CREDENTIALS, id="denied"),
        pytest.param(Answer("403", 403), Consequence.CREDENTIALS, id="denied-without-body"),
        pytest.param(Answer("XAdminUserNotFound", 404), Consequence.CREDENTIALS, id="versitygw-unknown-key"),
        pytest.param(Answer("ExpiredToken", 400), Consequence.EXPIRED, id="expired-token"),
        pytest.param(Answer("RequestTimeTooSkewed", 403), Consequence.SKEWED, id="skewed-clock"),
        pytest.param(Answer("SlowDown", 503), Consequence.RETRY, id="slow-down"),
        pytest.param(Answer("", 500), Consequence.RETRY, id="unknown-5xx"),
        pytest.param(Answer("BadDigest", 400), Consequence.DAMAGED, id="damaged-on-the-way"),
        pytest.param(Answer("EntityTooSmall", 400), Consequence.TOO_SMALL, id="part-below-the-minimum"),
        pytest.param(Answer("QuotaExceeded", 403), Consequence.REFUSED, id="ceph-bucket-is-full"),
        pytest.param(Answer("KMS.NotFoundException", 400), Consequence.REFUSED, id="aws-no-such-kms-key"),
        pytest.param(Answer("404", 404), Consequence.MISSING, id="head-of-nothing"),
        pytest.param(Answer("NoSuchUpload", 404), Consequence.UPLOAD_LOST, id="lost-upload"),
        pytest.param(Answer("InvalidPart", 400), Consequence.UPLOAD_LOST, id="lost-part"),
        pytest.param(Answer("PreconditionFailed", 412), Consequence.EXISTS, id="exists"),
        pytest.param(Answer("NotImplemented", 501), Consequence.UNSUPPORTED, id="unsupported"),
        pytest.param(Answer("InvalidArgument", 400), Consequence.FAILED, id="our-mistake"),
    ],
)
def test_consequence_of_an_answer(answer: Answer, consequence: Consequence) -> None:
    assert consequence_of(answer) is consequence


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("NoSuchBucket", 404, "create it"),
        ("InvalidAccessKeyId", 403, "correct accessKeyId"),
        ("SignatureDoesNotMatch", 403, "correct secretAccessKey"),
        ("ExpiredToken", 400, "renew sessionToken"),
        ("PermanentRedirect", 301, "set the storage's region"),
        ("RequestTimeTooSkewed", 403, "set the clock"),
        ("AccessDenied", 403, "denies PutObject"),
        ("403", 403, "correct the keys in the storage's secret, or give them that right"),
    ],
)
def test_advice_says_what_to_do(code: str, status: int, words: str) -> None:
    text = advice(Answer(code, status, "foreign words"), "PutObject", "calls", "https://s3.example.org")
    assert words in text
    assert "calls" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer("AccessDenied", 403), StorageRefusedError),
        (Answer("NoSuchBucket", 404), StorageRefusedError),
        (Answer("NoSuchUpload", 404), UploadLostError),
        (Answer("SlowDown", 503), StorageError),
    ],
)
def test_error_of_our_tree(answer: Answer, error: type[StorageError]) -> None:
    assert type(error_of(answer, "text")) is error


@given(st.text(max_size=2000))
def test_foreign_text_becomes_one_short_printable_line(text: str) -> None:
    line = clean(text)
    assert len(line) <= 160
    assert line.isprintable()
