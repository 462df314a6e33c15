"""A bucket as its owner sees it: list, read, download. Used to check what a recording left there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from isotrack_api.manifest import Manifest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RECORDING_JSON = "recording.json"


class Bucket:
    """One bucket of one S3 server."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, name: str, region: str = "us-east-1") -> None:
        self.name, self.endpoint, self.region = name, endpoint, region
        self.access_key, self.secret_key = access_key, secret_key
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}),
        )

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below a prefix, sorted."""
        return sorted(self._keys(prefix))

    def read(self, key: str) -> bytes:
        """Content of an object."""
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def contents(self, part: str) -> dict[str, bytes]:
        """All objects whose key has this in it, without those that go meanwhile."""
        found: dict[str, bytes] = {}
        for key in self._keys(""):
            if part in key:
                with suppress(self._client.exceptions.NoSuchKey):
                    found[key] = self.read(key)
        return found

    def write(self, key: str, content: bytes) -> None:
        """Put an object."""
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def create(self) -> None:
        """Make the bucket."""
        self._client.create_bucket(Bucket=self.name)

    def begin_upload(self, key: str) -> None:
        """Send the first part of a multipart upload, and leave it at that."""
        upload = self._client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        self._client.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=1, Body=b"a part")

    def remove(self) -> None:
        """Remove the bucket with all that is in it."""
        for key in self.keys():
            self._client.delete_object(Bucket=self.name, Key=key)
        for upload in self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []):
            self._client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        self._client.delete_bucket(Bucket=self.name)

    def uploads(self, prefix: str = "") -> list[str]:
        """Keys of multipart uploads that nobody has completed or aborted."""
        found = self._client.list_multipart_uploads(Bucket=self.name, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def folder_of(self, recording: str) -> str:
        """The one folder that holds `recording.json` and whose path has `recording` in it, with a slash at its end."""
        found = [key for key in self.keys() if recording in key and key.rpartition("/")[2] == RECORDING_JSON]
        assert len(found) == 1, f"recording.json of {recording}: {found}"
        return found[0].removesuffix(RECORDING_JSON)

    def manifest(self, folder: str) -> Manifest:
        """The recording's manifest."""
        return Manifest.model_validate_json(self.read(folder + RECORDING_JSON))

    def download(self, folder: str, to: Path) -> Manifest:
        """Copy the manifest and its files into a local folder."""
        manifest = self.manifest(folder)
        to.mkdir(parents=True, exist_ok=True)
        for name in (RECORDING_JSON, *(file.name for file in manifest.files)):
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(folder + name))
        return manifest

    def _keys(self, prefix: str) -> Iterator[str]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            for found in page.get("Contents", []):
                yield found["Key"]
