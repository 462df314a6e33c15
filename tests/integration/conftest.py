"""Integration tests run on a real LiveKit server, real libwebrtc publishers and a real S3 server, without a cluster.

Servers live for the session (one set per xdist worker); each test has a room and a bucket of its own, so tests never meet.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isotrack_dev.servers import LiveKitInfo, S3Info, livekit_server, s3_server
from support.bucket import Bucket
from support.call import Call, a_call


@pytest.fixture(scope="session")
def livekit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitInfo]:
    """A LiveKit server on loopback."""
    with livekit_server(tmp_path_factory.mktemp("livekit")) as server:
        yield server


@pytest.fixture(scope="session")
def running_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Info]:
    """An S3 server on loopback."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Info) -> S3Info:
    """The server with a bucket of the test's own: one that is repeated must not find what it left there before."""
    own = replace(running_s3, bucket=f"test-{secrets.token_hex(8)}")
    _bucket(own).create()
    return own


@pytest.fixture
def bucket(s3: S3Info) -> Bucket:
    """The bucket, as its owner sees it."""
    return _bucket(s3)


def _bucket(s3: S3Info) -> Bucket:
    return Bucket(s3.endpoint, s3.access_key, s3.secret_key, s3.bucket, s3.region)


@pytest.fixture
def call(ffmpeg: None, livekit: LiveKitInfo, s3: S3Info, tmp_path: Path, request: pytest.FixtureRequest) -> Call:
    """A call named after the test."""
    return a_call(request.node.name, tmp_path, livekit, s3)
