"""What of a spool is in the bucket already: so that an agent that was killed goes on where it was.

One line per fact, `<crc32 as 8 hex digits> <JSON>`, appended and fsynced after the storage acknowledged it:

    {"upload": {"name", "id"}}       a multipart upload was begun; what was known of an earlier one of this name counts no more
    {"part": {"name", "number", "etag", "size", "md5", "crc32", "sha256"}}
    {"file": {…}}                    the file was verified in the bucket (ManifestFile); its upload is over

A torn or damaged line means that a part, or a file, is made and sent again, which yields the same object. The ledger lies beside
the spool and goes with it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from isotrack_api.manifest import ManifestFile

from .store import MAX_PARTS, PART_BYTES, Part

log = logging.getLogger(__name__)

LEDGER_NAME: Final = "ledger.ndjson"
MAX_LINE_BYTES: Final = 8 * 1024 * 1024


@dataclass(slots=True)
class Upload:
    """A multipart upload that is not complete."""

    upload_id: str
    parts: dict[int, Part] = field(default_factory=dict)
    through: int = 1
    """Parts 2 to this one are all here. (Part 1 comes last.)"""


class Ledger:
    """Owns one ledger file. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LEDGER_NAME
        self._files: dict[str, ManifestFile] = {}
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        self._read()

    @property
    def files(self) -> Mapping[str, ManifestFile]:
        """Files that are in the bucket, by name."""
        with self._lock:
            return dict(self._files)

    def upload(self, name: str) -> Upload | None:
        """The upload of a file, as far as it went."""
        with self._lock:
            upload = self._uploads.get(name)
            return None if upload is None else Upload(upload.upload_id, dict(upload.parts), upload.through)

    def has_part(self, name: str, number: int) -> bool:
        """Whether the storage has acknowledged a part."""
        with self._lock:
            upload = self._uploads.get(name)
            return upload is not None and number in upload.parts

    def first_missing(self, name: str) -> int:
        """Number of the first part from 2 on that the storage has not acknowledged. A day's file has thousands that it has."""
        with self._lock:
            upload = self._uploads.get(name)
            return 2 if upload is None else upload.through + 1

    def has_file(self, name: str) -> bool:
        """Whether a file is in the bucket."""
        with self._lock:
            return name in self._files

    def add_file(self, file: ManifestFile) -> None:
        """Note a file, durably where the disk has room; else for as long as this process lives."""
        self._add({"file": json.loads(file.to_json())})

    def add_upload(self, name: str, upload_id: str) -> None:
        """Note that an upload was begun."""
        self._add({"upload": {"name": name, "id": upload_id}})

    def add_part(self, name: str, part: Part) -> None:
        """Note a part."""
        row = {"name": name, "number": part.number, "etag": part.etag, "size": part.size, "md5": part.md5.hex()}
        self._add({"part": {**row, "crc32": part.crc32, "sha256": part.sha256.hex()}})

    def forget_upload(self, name: str) -> None:
        """The storage has lost an upload, or it is not wanted any more."""
        if self.upload(name) is not None:
            self._add({"upload": {"name": name, "id": ""}})

    def _add(self, fact: dict[str, Any]) -> None:
        text = json.dumps(fact, separators=(",", ":"))
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        with self._lock:
            self._apply(fact)
            try:
                self._append(line)
            except OSError as error:
                log.warning("ledger was not written", extra={"fields": {"why": error.strerror}})

    def _append(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            if file.tell() and not _ends_with_newline(self._path):
                line = b"\n" + line  # a torn line must not swallow this one
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _apply(self, fact: Mapping[str, Any]) -> None:
        """Take in one fact. KeyError, TypeError, ValueError, OverflowError, ValidationError: it is none."""
        if "file" in fact:
            file = ManifestFile.model_validate(fact["file"])
            self._files[file.name] = file
            self._uploads.pop(file.name, None)
        elif "upload" in fact:
            name, upload_id = str(fact["upload"]["name"]), str(fact["upload"]["id"])
            self._uploads.pop(name, None)
            if upload_id:
                self._uploads[name] = Upload(upload_id)
        elif "part" in fact:
            row = fact["part"]
            number, size = int(row["number"]), int(row["size"])
            md5, sha256 = bytes.fromhex(row["md5"]), bytes.fromhex(row["sha256"])
            is_part = 1 <= number <= MAX_PARTS and 1 <= size <= PART_BYTES
            if not is_part or len(md5) not in (0, 16) or len(sha256) != 32:
                raise ValueError("no part has such a number, size or sum")
            part = Part(number, str(row["etag"]), size, md5, int(row["crc32"]) & 0xFFFFFFFF, sha256)
            upload = self._uploads[str(row["name"])]
            upload.parts[number] = part
            while upload.through + 1 in upload.parts:
                upload.through += 1

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                while line := file.readline(MAX_LINE_BYTES):
                    self._take_line(line)
        except FileNotFoundError:
            return

    def _take_line(self, line: bytes) -> None:
        crc, _, text = line.rstrip(b"\n").partition(b" ")
        if crc != b"%08x" % zlib.crc32(text):
            return
        try:
            self._apply(json.loads(text))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ValidationError):
            return


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
