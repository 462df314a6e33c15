"""S3 servers of a campaign: each has a character of its own, and what holds on one of them need not hold on the next.

The usual trials run on versitygw. A share of those in which the storage or a process fails is repeated on each of the others that
this machine has or can install.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isotrack_dev.errors import RequirementError
from isotrack_dev.object_stores import ceph_server, moto_server, rclone_server
from isotrack_dev.servers import S3Info, s3_server

USUAL: Final = "versitygw"
STORES: Final[Mapping[str, Callable[[Path], AbstractContextManager[S3Info]]]] = {
    USUAL: s3_server,
    "ceph": ceph_server,
    "moto": moto_server,
    "rclone": rclone_server,
}
CHARACTERS: Final[Mapping[str, str]] = {
    USUAL: "as AWS: conditions and checksums are kept",
    "ceph": "Ceph's radosgw over a monitor and an OSD",
    "moto": "checks no checksum",
    "rclone": "ignores conditions; a part once sent is final",
}


@dataclass(frozen=True, slots=True)
class Running:
    """Servers that run, and why others do not."""

    infos: Mapping[str, S3Info]
    missing: Mapping[str, str]


@contextmanager
def running(folder: Path, names: Collection[str]) -> Iterator[Running]:
    """Start these; one that cannot be had here is named with the reason. The usual one has to be there."""
    infos: dict[str, S3Info] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for name in [USUAL, *(name for name in STORES if name in names and name != USUAL)]:
            try:
                infos[name] = stack.enter_context(STORES[name](folder / name))
            except RequirementError as error:
                missing[name] = str(error).splitlines()[0]
        yield Running(infos, missing)
