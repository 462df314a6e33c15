"""A LiveKit server and an S3 server for one test run, without a cluster.

Each is a context manager: inside it the server answers, after it the process is gone; if the test run itself is killed,
the kernel takes the server along. Ports are free ones unless given; keys are made fresh each time. Everything they
write (configuration with keys, objects, log) lies in the `state` folder of the caller, who also removes it.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import config, tools
from .errors import StartError
from .paths import write_private
from .process import Process, await_ready, spawn

START_ATTEMPTS = 3
"""Between our look for a free port and the server's bind somebody else may take it; then we look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitInfo:
    """A running LiveKit server."""

    url: str
    """For clients: `ws://address:port`."""
    http_url: str
    """For the server API (rooms, tokens): `http://address:port`."""
    api_key: str
    api_secret: str = field(repr=False)
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Info:
    """A running S3 server with one bucket."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str
    bucket: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of a server's certificate (all PEM)."""

    certificate: Path
    key: Path
    authority: Path
    """What clients are to trust."""


@contextmanager
def livekit_server(
    state: Path,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    udp_port: int = 0,
    keys: tuple[str, str] | None = None,
) -> Iterator[LiveKitInfo]:
    """Run a LiveKit server; media goes through one UDP port.

    Args:
        state: Folder for its configuration and `livekit.log`; made when missing.
        address: An address of this machine; the only one that signalling listens on and media is offered at.
        port: For signalling and the API; 0 takes a free one.
        udp_port: For media; 0 takes a free one.
        keys: API key and secret, for a server that comes back; absent makes fresh ones.
    Raises:
        StartError: It did not answer within 60 s.
        RequirementError, BuildError: The server is not built yet and cannot be.
    """
    program = tools.ensure(["livekit-server"])["livekit-server"]
    key, secret = keys or (f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32))
    log = state / "livekit.log"

    def start() -> tuple[subprocess.Popen[bytes], int]:
        http_port, media_port = port or free_port(address), udp_port or free_port(address, socket.SOCK_DGRAM)
        text = config.livekit(addresses=[address], port=http_port, udp_port=media_port, key=key, secret=secret)
        command: list[str | Path] = [program, "--config", write_private(state / "livekit.yaml", text)]
        return spawn(command, log, die_with_us=True), http_port

    with running("livekit-server", start, log, lambda at: answers(address, at), retry=not (port and udp_port)) as (
        pid,
        at,
    ):
        yield LiveKitInfo(
            url=f"ws://{address}:{at}", http_url=f"http://{address}:{at}", api_key=key, api_secret=secret, pid=pid
        )


@contextmanager
def s3_server(
    state: Path,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    bucket: str = "recordings",
    keys: tuple[str, str] | None = None,
    region: str = "us-east-1",
    read_only: bool = False,
    tls: Tls | None = None,
    virtual_domain: str = "",
) -> Iterator[S3Info]:
    """Run an S3 server (versitygw) over a folder, with a bucket in it.

    Args:
        state: Folder for objects and `s3.log`; made when missing. Objects of an earlier run in it are served again.
        address: An address of this machine to listen on.
        port: 0 takes a free one.
        bucket: Made unless it is there.
        keys: Access and secret key of its only user; fresh ones when absent.
        region: That requests must be signed for.
        read_only: Refuse everything that changes something. The bucket must be there.
        tls: Speak HTTPS.
        virtual_domain: Take `bucket.<virtual_domain>` as host name, beside paths.
    Raises:
        StartError: It did not answer within 60 s.
        RequirementError, BuildError: The server is not built yet and cannot be.
    """
    program = tools.ensure(["versitygw"])["versitygw"]
    access, secret = keys or (f"dev{secrets.token_hex(6)}", secrets.token_urlsafe(24))
    log = state / "s3.log"
    options = ["--readonly"] if read_only else []
    options += ["--virtual-domain", virtual_domain] if virtual_domain else []
    options += ["--cert", str(tls.certificate), "--key", str(tls.key)] if tls else []

    def start() -> tuple[subprocess.Popen[bytes], int]:
        listen = port or free_port(address)
        command: list[str | Path] = [
            program,
            *options,
            *config.versitygw(s3_folders(state), address=address, port=listen, region=region),
        ]
        environment = {**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
        return spawn(command, log, environment, die_with_us=True), listen

    def healthy(at: int) -> bool:
        return answers(address, at, config.S3_HEALTH_PATH, authority=tls.authority if tls else None)

    with running("versitygw", start, log, healthy, retry=not port) as (pid, at):
        endpoint = f"{'https' if tls else 'http'}://{address}:{at}"
        if not read_only:
            make_bucket(endpoint, access, secret, region, bucket, authority=tls.authority if tls else None)
        yield S3Info(endpoint=endpoint, access_key=access, secret_key=secret, region=region, bucket=bucket, pid=pid)


@contextmanager
def running(
    name: str,
    start: Callable[[], tuple[subprocess.Popen[bytes], int]],
    log: Path,
    ready: Callable[[int], bool],
    *,
    retry: bool,
) -> Iterator[tuple[int, int]]:
    """Start until ready, yield (pid, port), and end it by its id."""
    for attempt in range(1, START_ATTEMPTS + 1):
        child, port = start()
        known = Process.of(child.pid)
        try:
            await_ready(name, child, log, lambda at=port: ready(at))  # type: ignore[misc]
            break
        except StartError:
            _end(child, known)
            if attempt == START_ATTEMPTS or not retry:
                raise
        except BaseException:
            _end(child, known)
            raise
    try:
        yield child.pid, port
    finally:
        _end(child, known)


def _end(child: subprocess.Popen[bytes], known: Process) -> None:
    known.stop()
    child.wait()  # reap it, or it stays a zombie of the test run


def s3_folders(state: Path) -> config.S3Folders:
    """Make the folders of an S3 server; metadata goes to a folder of its own where the file system has no user xattrs."""
    objects, sidecar = state / "s3", state / "s3-meta"
    objects.mkdir(parents=True, exist_ok=True)
    try:
        os.setxattr(objects, "user.isotrack.probe", b"1")
        os.removexattr(objects, "user.isotrack.probe")
    except OSError:
        sidecar.mkdir(exist_ok=True)
        return config.S3Folders(objects, sidecar)
    return config.S3Folders(objects, None)


def make_bucket(
    endpoint: str, access_key: str, secret_key: str, region: str, bucket: str, *, authority: Path | None = None
) -> None:
    """Create a bucket unless it is there already."""
    import boto3  # 0.3 s that only those who start an S3 server should pay
    from botocore.config import Config

    settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3})
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        verify=str(authority) if authority else None,
        config=settings,
    )
    try:
        client.create_bucket(Bucket=bucket)
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        return


def free_port(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Find a port of `address` that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def answers(address: str, port: int, path: str = "/", *, authority: Path | None = None) -> bool:
    """Whether an HTTP server (HTTPS with an `authority` to trust) says 200 to a GET within five seconds."""
    connection = (
        http.client.HTTPSConnection(address, port, timeout=5, context=ssl.create_default_context(cafile=str(authority)))
        if authority
        else http.client.HTTPConnection(address, port, timeout=5)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
