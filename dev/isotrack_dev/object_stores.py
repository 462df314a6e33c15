"""S3 servers with characters of their own, beside the one of `servers`: each for one test run, on loopback
unless said otherwise.

    moto_server    AWS-like, with STS; takes encryption headers, checks no checksum
    rclone_server  the liar: conditions, checksums and encryption are accepted and ignored, a part once sent is final
    ceph_server    Ceph's radosgw over one monitor and one OSD in memory; has a key store of its own for SSE-KMS

As in `servers`, everything that they write lies below `state`, and after the context manager the processes are gone.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import requirements
from .errors import StartError
from .process import spawn, wait_until
from .progress import for_terminal
from .servers import S3Info, answers, free_port, make_bucket, running

ADDRESS = "127.0.0.1"
REGION = "us-east-1"
BUCKET = "recordings"
KMS_KEY = "testkey-1"
"""Name of the key that the Ceph server encrypts with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CephInfo(S3Info):
    """A running radosgw."""

    admin: tuple[str, ...]
    """Beginning of a radosgw-admin command."""
    user: str
    """Whose keys these are."""


@contextmanager
def moto_server(state: Path, address: str = ADDRESS) -> Iterator[S3Info]:
    """Run moto's server on this address of the machine: every service of AWS that it knows at one endpoint."""
    log = state / "moto.log"

    def start() -> tuple[subprocess.Popen[bytes], int]:
        port = free_port(address)
        command = [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]
        return spawn(command, log, die_with_us=True), port

    with running("moto", start, log, lambda at: answers(address, at, "/moto-api/"), retry=True) as (pid, port):
        yield _with_bucket(port, "testing", "testing", pid, address)


@contextmanager
def rclone_server(state: Path) -> Iterator[S3Info]:
    """Run rclone as an S3 server over its memory."""
    log = state / "rclone.log"
    access, secret = f"dev{secrets.token_hex(6)}", secrets.token_urlsafe(24)

    def start() -> tuple[subprocess.Popen[bytes], int]:
        port = free_port(ADDRESS)
        program = Path(sys.executable).with_name("rclone")
        command: list[str | Path] = [program, "serve", "s3", "--config", "", "--addr", f"{ADDRESS}:{port}", ":memory:"]
        environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{access},{secret}"'}  # a list, as CSV
        return spawn(command, log, environment, die_with_us=True), port

    def ready(port: int) -> bool:
        try:
            make_bucket(f"http://{ADDRESS}:{port}", access, secret, REGION, BUCKET)
        except Exception:  # noqa: BLE001 - not there yet; a lasting cause shows in the log
            return False
        return True

    with running("rclone", start, log, ready, retry=True) as (pid, port):
        yield _with_bucket(port, access, secret, pid)


@contextmanager
def ceph_server(state: Path) -> Iterator[CephInfo]:
    """Run radosgw over a Ceph cluster of one monitor and one OSD that keeps its data in memory.

    Raises:
        RequirementError: Ceph is not installed, and cannot be from here.
        StartError: one of the three did not come up.
    """
    state.mkdir(parents=True, exist_ok=True)
    requirements.ensure(["ceph"], for_terminal(), state / "apt.log")
    cluster = _Ceph(state)
    with (
        running("ceph-mon", cluster.start_monitor, state / "mon.log", cluster.monitor_answers, retry=True),
        running("ceph-osd", cluster.start_osd, state / "osd.log", lambda _: True, retry=False),
        running("radosgw", cluster.start_gateway, state / "rgw.log", lambda at: answers(ADDRESS, at), retry=True) as (
            pid,
            port,
        ),
    ):
        access, secret = cluster.make_user("recorder")
        info = _with_bucket(port, access, secret, pid)
        yield CephInfo(
            endpoint=info.endpoint,
            access_key=access,
            secret_key=secret,
            region=info.region,
            bucket=info.bucket,
            pid=pid,
            admin=cluster.command("radosgw-admin", "client.rgw"),
            user="recorder",
        )


def _with_bucket(port: int, access: str, secret: str, pid: int, address: str = ADDRESS) -> S3Info:
    endpoint = f"http://{address}:{port}"
    make_bucket(endpoint, access, secret, REGION, BUCKET)
    return S3Info(endpoint=endpoint, access_key=access, secret_key=secret, region=REGION, bucket=BUCKET, pid=pid)


class _Ceph:
    """Files and commands of one small cluster. Nothing of it is meant to last or to be fast."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._conf = state / "ceph.conf"
        self._fsid = str(uuid.uuid4())
        self._kms_key = base64.b64encode(secrets.token_bytes(32)).decode()

    def command(self, program: str, name: str) -> tuple[str, ...]:
        """Beginning of a command that acts as `name`."""
        return (self._program(program), "-c", str(self._conf), "-n", name)

    def start_monitor(self) -> tuple[subprocess.Popen[bytes], int]:
        port = free_port(ADDRESS)
        self._write_conf(port)
        monitor = self._state / "mon"
        keyring = self._state / "mon.keyring"
        self._make_keys(keyring)
        there = f"[v2:{ADDRESS}:{port}]"
        self._run(
            "monmaptool", "--create", "--clobber", "--fsid", self._fsid, "--addv", "a", there, self._state / "monmap"
        )
        mkfs: list[str | Path] = ["--mkfs", "--monmap", self._state / "monmap", "--keyring", keyring]
        monitor.mkdir(exist_ok=True)
        self._run("ceph-mon", "-c", self._conf, "-i", "a", *mkfs)
        return self._daemon("ceph-mon", "-i", "a", log="mon.log"), port

    def monitor_answers(self, _: int) -> bool:
        return self._try(*self.command("ceph", "client.admin"), "--connect-timeout", "3", "mon", "stat")

    def start_osd(self) -> tuple[subprocess.Popen[bytes], int]:
        number = str(uuid.uuid4())
        if not wait_until(lambda: self._try(*self.command("ceph", "client.admin"), "osd", "new", number), 60.0):
            raise StartError("the Ceph monitor takes no OSD")
        (self._state / "osd").mkdir(exist_ok=True)
        self._run("ceph-osd", "-c", self._conf, "-i", "0", "--mkfs", "--osd-uuid", number)
        return self._daemon("ceph-osd", "-i", "0", log="osd.log"), 0

    def start_gateway(self) -> tuple[subprocess.Popen[bytes], int]:
        port = free_port(ADDRESS)
        frontend = f"--rgw-frontends=beast endpoint={ADDRESS}:{port}"
        return self._daemon("radosgw", "-n", "client.rgw", frontend, log="rgw.log"), port

    def make_user(self, name: str) -> tuple[str, str]:
        """Access and secret key of a new user."""
        access, secret = f"dev{secrets.token_hex(6)}", secrets.token_hex(20)
        admin = self.command("radosgw-admin", "client.rgw")
        keys = [f"--access-key={access}", f"--secret-key={secret}"]
        self._run(*admin, "user", "create", f"--uid={name}", f"--display-name={name}", *keys)
        return access, secret

    def _make_keys(self, monitor: Path) -> None:
        caps = {
            "client.admin": {"mon": "allow *", "osd": "allow *"},
            "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
        }
        make = ["--create-keyring", "--gen-key"]
        self._run("ceph-authtool", monitor, *make, "-n", "mon.", "--cap", "mon", "allow *")
        for name, rights in caps.items():
            keyring = self._state / f"{name}.keyring"
            words = [word for kind, right in rights.items() for word in ("--cap", kind, right)]
            self._run("ceph-authtool", keyring, *make, "-n", name, *words)
            self._run("ceph-authtool", monitor, "--import-keyring", keyring)
        (self._state / "mon.a.keyring").write_bytes(monitor.read_bytes())

    def _write_conf(self, port: int) -> None:
        self._conf.write_text(
            f"""[global]
fsid = {self._fsid}
mon host = v2:{ADDRESS}:{port}/0
mon initial members = a
mon data = {self._state}/mon
osd data = {self._state}/osd
keyring = {self._state}/$name.keyring
log file = {self._state}/$name.log
admin socket =
pid file =
run dir = {self._state}
crash dir = {self._state}
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
[client.rgw]
rgw thread pool size = 32
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {KMS_KEY}={self._kms_key}
"""
        )

    def _daemon(self, program: str, *words: str, log: str) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [self._program(program), "-c", self._conf, *words, "-f"]
        return spawn(command, self._state / log, die_with_us=True)

    def _run(self, program: str, *words: str | Path) -> None:
        done = self._call(program, words)
        if done.returncode:
            raise StartError(f"{program} said: {done.stderr[-500:]}")

    def _try(self, program: str, *words: str | Path) -> bool:
        return self._call(program, words).returncode == 0

    def _call(self, program: str, words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        command = [self._program(program), *(str(word) for word in words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self._state)

    def _program(self, name: str) -> str:
        return str(requirements.find(name) or name)
