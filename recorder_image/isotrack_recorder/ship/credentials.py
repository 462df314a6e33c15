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

    @property
    def ca_file(self) -> Path | None:
        """`ca.crt` of the folder, where there is one."""
        path = self.folder / CA_FILE
        return path if path.is_file() else None

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


def pod_credentials(folder: Path) -> CredentialSource:
    """Credentials of a recorder pod: the mounted Secret where there is one, else workload identity."""
    return FileCredentials(folder) if folder.is_dir() else AmbientCredentials()


def read_authority(source: CredentialSource) -> bytes:
    """Content of the source's `ca.crt`, to notice that it changed; empty without one."""
    if source.ca_file is None:
        return b""
    try:
        with source.ca_file.open("rb") as file:
            return file.read(MAX_AUTHORITY_BYTES)
    except OSError:
        return b""
