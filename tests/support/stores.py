"""Stores on real S3 servers, with credentials from files as a pod has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from isotrack_api.intent import S3Destination
from isotrack_dev.servers import S3Info
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def write_secret(folder: Path, access_key: str, secret_key: str) -> Path:
    """A folder as a mounted Secret has it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accessKeyId").write_text(access_key + "\n")
    (folder / "secretAccessKey").write_text(secret_key)
    return folder


def destination(server: S3Info, **values: Any) -> S3Destination:
    """Where files go on `server`, or what `values` make of it."""
    known = {"bucket": server.bucket, "endpoint": server.endpoint, "region": server.region}
    return S3Destination.model_validate({**known, **values})


def a_store(server: S3Info, secret: Path, *, seconds: float = 60, **values: Any) -> S3Store:
    """A store on `server`, or on what `values` make of the destination."""
    return S3Store(destination(server, **values), FileCredentials(secret), Patience(seconds))


def owner_of(server: S3Info, ca_file: Path | None = None) -> S3Client:
    """A client as the bucket's owner has it, to set things up and to look behind the store."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        verify=str(ca_file) if ca_file else None,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
