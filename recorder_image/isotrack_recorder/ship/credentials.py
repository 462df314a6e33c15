"""Where storage credentials come from: a folder of files (a mounted Secret), or whatever the environment offers.

Files are read again whenever the storage refuses us, so a rotated Secret takes effect without a restart. Their content goes
to the client library and nowhere else: `Credentials` shows nothing of itself in logs and tracebacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from isotrack_recorder.errors import StorageRefusedError

ACCESS_KEY_FILE: Final = "accessKeyId"
SECRET_KEY_FILE: Final = "secretAccessKey"  # noqa: S105 - a file name
SESSION_TOKEN_FILE: Final = "sessionToken"  # noqa: S105 - a file name
CA_FILE: Final = "ca.crt"
AUTHORITY: Final = Path("/etc/isotrack/storage-ca")
MAX_FILE_BYTES: Final = 16 * 1024
MAX_AUTHORITY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of keys."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class CredentialSource(Protocol):
    """Gives the newest credentials."""

    def read(self) -> Credentials | None:
        """The credentials of this moment; None = the client library looks for them itself."""
        ...

    @property
    def ca_file(self) -> Path | None:
        """Certificates to trust instead of the system's."""
        ...


@dataclass(frozen=True, slots=True)
class AmbientCredentials:
    """Environment variables, shared configuration files or the platform's workload identity."""

    ca_file: Path | None = None

    def read(self) -> Credentials | None:
        """None: the client library finds and renews them itself."""
        return None


@dataclass(frozen=True, slots=True)
class FileCredentials:
    """A folder with `accessKeyId`, `secretAccessKey` and, where there is one, `sessionToken` and `ca.crt`."""

    folder: Path
    authority: Path | None = None
    """Folder with a `ca.crt` that goes before the one beside the keys."""

    @property
    def ca_file(self) -> Path | None:
        """`ca.crt`, where there is one."""
        folders = (self.folder,) if self.authority is None else (self.authority, self.folder)
        return next((folder / CA_FILE for folder in folders if (folder / CA_FILE).is_file()), None)

    def read(self) -> Credentials | None:
        """Read the files.

        Raises:
            StorageRefusedError: a file is missing, empty or too large.
        """
        token = self._text(SESSION_TOKEN_FILE) if (self.folder / SESSION_TOKEN_FILE).exists() else ""
        return Credentials(self._needed(ACCESS_KEY_FILE), self._needed(SECRET_KEY_FILE), token or None)

    def _needed(self, name: str) -> str:
        text = self._text(name)
        if not text:
            raise StorageRefusedError(f"the storage's secret has no value for {name!r}: add it")
        return text

    def _text(self, name: str) -> str:
        try:
            with (self.folder / name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise StorageRefusedError(f"{name!r} of the storage's secret is longer than {MAX_FILE_BYTES} bytes")
            return data.decode("ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise StorageRefusedError(
                f"{name!r} of the storage's secret cannot be read: {type(error).__name__}"
            ) from None


def pod_credentials(folder: Path, authority: Path = AUTHORITY) -> CredentialSource:
    """Credentials of a recorder pod: the mounted Secret where there is one, else workload identity.

    Args:
        authority: Folder with a `ca.crt` of its own, where the storage's authority is not public.
    """
    if folder.is_dir():
        return FileCredentials(folder, authority)
    ca_file = authority / CA_FILE
    return AmbientCredentials(ca_file if ca_file.is_file() else None)


def read_authority(source: CredentialSource) -> bytes:
    """Content of the source's `ca.crt`, to notice that it changed; empty without one."""
    if source.ca_file is None:
        return b""
    try:
        with source.ca_file.open("rb") as file:
            return file.read(MAX_AUTHORITY_BYTES)
    except OSError:
        return b""
