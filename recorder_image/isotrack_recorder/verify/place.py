"""Where a finished recording lies, a folder or a bucket: read its manifest and its files, bounded.

File names come from the manifest, which anybody may have written: a name is one component of a path, and what is opened is
a regular file. A file in a bucket is copied to a temporary folder for as long as it is looked at.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from pydantic import ValidationError

from isotrack_api.base import Container
from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.checksums import FileDigest, FileSums
from isotrack_recorder.errors import ConfigError, OutputError, StorageRefusedError
from isotrack_recorder.matroska.muxer import HEAD_BYTES
from isotrack_recorder.ship.address import folder_of

if TYPE_CHECKING:
    from isotrack_recorder.ship.store import Store

MANIFEST_NAME: Final = "recording.json"
MAX_MANIFEST_BYTES: Final = 256 * 1024 * 1024
PATIENCE_SECONDS: Final = 60.0
"""How long a storage that fails is tried, in a row: the files of a day take hours, and one refused request is no end of them."""
_CHUNK: Final = 1024 * 1024
_RANGE: Final = 8 * 1024 * 1024
_NO_COPY: Final = "a file of {} bytes cannot be copied to {} (TMPDIR names another place): {}"


class MissingFileError(Exception):
    """A file of the manifest is not there, or cannot be read. The text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file at hand."""

    path: Path
    size: int
    digest: FileDigest


class Place(Protocol):
    """Where one recording lies."""

    def manifest(self) -> bytes:
        """Read the manifest.

        Raises:
            ConfigError: There is none.
            OutputError, StorageError, StorageRefusedError: It cannot be read.
        """
        ...

    @contextmanager
    def file(self, entry: ManifestFile) -> Iterator[Copy]:
        """Have a file at hand for the length of a `with`.

        Raises:
            MissingFileError: It is not there, or cannot be read.
            StorageError, StorageRefusedError: The bucket does not answer, or refuses us.
            OutputError: There is no room for a copy of it.
        """
        ...

    def others(self, known: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Media files that lie beside the manifest and are none of those `known`: their names, and how each begins.

        Raises:
            OutputError, StorageError: It cannot be told.
        """
        ...


def find_place(text: str, environ: Mapping[str, str]) -> Place:
    """The place that a person named: a folder, a manifest, or `s3://bucket/prefix[/recording.json]`.

    Raises:
        ConfigError: This names no such thing.
    """
    return _bucket(text, environ) if "://" in text else LocalPlace(Path(text))


def parse_manifest(data: bytes, place: str) -> Manifest:
    """Read a manifest.

    Raises:
        ConfigError: This is not one.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))  # names of unknown members are the file's own
        what = f"{where[:100]}: {first['msg'][:200]}" if where else first["msg"][:200]
        text = f"{place[:200]} is not a recording's manifest: {what}"
        raise ConfigError(
            "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
        ) from None


class LocalPlace:
    """A folder, or a manifest in it."""

    def __init__(self, path: Path) -> None:
        self._manifest = path / MANIFEST_NAME if path.is_dir() else path

    def manifest(self) -> bytes:
        """See Place."""
        try:
            with self._manifest.open("rb") as stream:
                data = stream.read(MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            raise ConfigError(
                f"{self._manifest} is not there: name a recording's folder or its {MANIFEST_NAME}"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot read {self._manifest}: {error.strerror}") from error
        if len(data) > MAX_MANIFEST_BYTES:
            raise ConfigError(f"{self._manifest} is longer than any manifest")
        return data

    @contextmanager
    def file(self, entry: ManifestFile) -> Iterator[Copy]:
        """See Place."""
        path = self._manifest.parent / _component(entry.name)
        try:
            with _open_regular(path) as stream:
                sums = _measure(stream, entry.part_bytes)
        except OSError as error:
            raise MissingFileError(f"cannot be read: {error.strerror}") from error
        yield Copy(path.resolve(), sums.size, sums.digest())

    def others(self, known: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """See Place."""
        try:
            for path in sorted(self._manifest.parent.iterdir()):
                if _is_other(path.name, known):
                    with suppress(MissingFileError), _open_regular(path) as stream:
                        yield path.name, stream.read(HEAD_BYTES)
        except OSError as error:
            raise OutputError(f"cannot read {self._manifest.parent}: {error.strerror}") from error


class BucketPlace:
    """A recording's folder in a bucket."""

    def __init__(self, store: Store, folder: str) -> None:
        """`folder` is the key prefix of everything, without a slash at its end."""
        self.store = store
        self._folder = folder

    def manifest(self) -> bytes:
        """See Place."""
        key = f"{self._folder}/{MANIFEST_NAME}"
        data = self.store.get(key, MAX_MANIFEST_BYTES)
        if data is None:
            raise ConfigError(f"s3://{self.store.bucket}/{key} is not there: the recording may not be finished yet")
        return data

    @contextmanager
    def file(self, entry: ManifestFile) -> Iterator[Copy]:
        """See Place."""
        key = f"{self._folder}/{_component(entry.name)}"
        found = self.store.head(key)
        if found is None:
            raise MissingFileError("is not in the bucket")
        if found.size != entry.bytes:  # not worth its transfer, and of a length that nobody vouched for
            raise MissingFileError(f"has {found.size} bytes in the bucket, the manifest says {entry.bytes}")
        with _folder() as folder:
            path = folder / "file"
            sums = self._fetch(key, found.size, path, entry.part_bytes)
            yield Copy(path, sums.size, sums.digest())

    def others(self, known: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """See Place. Who may read and not list is not told."""
        try:
            keys = list(self.store.list_level(f"{self._folder}/"))
        except StorageRefusedError:
            return
        for key in keys:
            name = key.rpartition("/")[2]
            if _is_other(name, known):
                yield name, self.store.get_range(key, 0, HEAD_BYTES)

    def _fetch(self, key: str, size: int, path: Path, part_bytes: int | None) -> FileSums:
        sums = FileSums(part_bytes)
        try:
            with path.open("wb") as stream:
                while sums.size < size and (data := self.store.get_range(key, sums.size, _RANGE)):
                    stream.write(data)
                    sums.update(data)
        except OSError as error:
            raise OutputError(_NO_COPY.format(size, path.parent.parent, error.strerror)) from error
        return sums


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="isotrack-verify-")
    except OSError as error:
        raise OutputError(f"no temporary folder can be made (TMPDIR says where): {error.strerror}") from error
    with folder as path:
        yield Path(path)


def _is_other(name: str, known: Collection[str]) -> bool:
    return name not in known and not name.startswith(".") and name.endswith(tuple(f".{kind}" for kind in Container))


def _bucket(text: str, environ: Mapping[str, str]) -> BucketPlace:
    """Reach a bucket with the settings that the AWS tools use."""
    from isotrack_recorder.ship.credentials import AmbientCredentials  # object storage is loaded when it is needed
    from isotrack_recorder.ship.retry import Patience
    from isotrack_recorder.ship.s3 import S3Store

    destination, folder = folder_of(text, environ)
    return BucketPlace(S3Store(destination, AmbientCredentials(), Patience(in_a_row=PATIENCE_SECONDS)), folder)


def _component(name: str) -> str:
    """A name that stays inside its folder."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise MissingFileError("has a name that leads out of the recording's folder")
    return name


@contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file, not a pipe or a device, which could keep us for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise MissingFileError("is no regular file")
        yield stream


def _measure(stream: BinaryIO, part_bytes: int | None) -> FileSums:
    sums = FileSums(part_bytes)
    while data := stream.read(_CHUNK):
        sums.update(data)
    return sums
