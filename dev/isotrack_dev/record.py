"""What is written down about a running stack: its processes and slot, for whoever ends it, and its addresses and keys.

`stack.json` is written before the first resource is taken, and again whenever there is more to clean up.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .namespaces import Namespaces
from .paths import write_private
from .process import Process

NO_SLOT = -1
"""Slot of a stack that has no network yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackInfo:
    """A running stack, for those who use it."""

    name: str
    state: Path
    kubeconfig: Path
    kubectl: Path
    node: str
    address: str
    """Of the node: SFU, object store and API server, for pods and for the host."""
    host_address: str
    """Of the host, as pods reach it."""
    environment: Mapping[str, str] = field(repr=False)
    """KUBECONFIG, LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, S3_ENDPOINT, S3_BUCKET, AWS_*: with secrets."""


@dataclass(frozen=True, slots=True)
class Record:
    """Contents of `stack.json`."""

    name: str
    slot: int
    holder: Process
    parent: Process
    started: float
    """Seconds since the epoch."""
    servers: Mapping[str, Process]
    """Component → its process, as the host numbers it."""

    @property
    def namespaces(self) -> Namespaces:
        """The namespaces that the holder keeps."""
        return Namespaces(self.holder, self.parent)

    def write(self, path: Path) -> None:
        """Replace the file at once."""
        write_private(path, json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record of a stack, None where there is none."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        servers = {name: Process(**one) for name, one in found.pop("servers").items()}
        holder, parent = Process(**found.pop("holder")), Process(**found.pop("parent"))
        return cls(**found, holder=holder, parent=parent, servers=servers)


def read_environment(path: Path) -> dict[str, str]:
    """Parse what `config.environment_file` wrote."""
    words = (word for word in shlex.split(path.read_text()) if word != "export")
    return dict(word.split("=", 1) for word in words)
