"""How a storage is reached and who we are there: region, host names, own authorities, identities."""

from __future__ import annotations

import datetime
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from botocore.utils import ContainerMetadataFetcher

from isotrack_dev.object_stores import moto_server
from isotrack_dev.pki import Authority
from isotrack_dev.servers import S3Info, Tls, s3_server
from isotrack_recorder.errors import IsotrackError, StorageError, StorageRefusedError
from isotrack_recorder.ship.credentials import AmbientCredentials
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from support.moto import a_key, a_role, ask_who_comes
from support.shipping import a_shipping_intent
from support.stores import a_store, destination, write_secret

KEYS = ("devaccess", "dev-secret-of-the-server")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "storage", *KEYS)


def signed(folder: Path, authority: Authority) -> Tls:
    """Files of a certificate for loopback."""
    folder.mkdir()
    pair = authority.server("s3", [IPv4Address("127.0.0.1")], ["localhost"])
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate}
    for name, text in files.items():
        (folder / name).write_text(text)
    return Tls(certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "ca.crt")


def test_an_authority_of_ones_own_is_trusted_and_may_change(tmp_path: Path, secret: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    first, second = (signed(tmp_path / name, Authority(now)) for name in ("first", "second"))
    with s3_server(tmp_path / "server", keys=KEYS, tls=first) as server:
        with pytest.raises(StorageError, match=r"certificate at .* is not trusted: name its authority as .* ca\.crt"):
            a_store(server, secret, seconds=0.5).head("a")
        (secret / "ca.crt").write_text(first.authority.read_text())
        store = a_store(server, secret)
        store.put("a", b"hello", "text/plain")
    port = int(server.endpoint.rpartition(":")[2])
    with s3_server(tmp_path / "server", keys=KEYS, tls=second, port=port):
        (secret / "ca.crt").write_text(second.authority.read_text())
        assert store.get("a", 10) == b"hello"


def test_the_environment_may_name_the_authority(tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = signed(tmp_path / "tls", Authority(datetime.datetime.now(datetime.UTC)))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.authority))
    with s3_server(tmp_path / "server", keys=KEYS, tls=tls) as server:
        a_store(server, secret).put("a", b"hello", "text/plain")


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_requests_are_signed_for_the_region_or_the_one_that_the_server_names(
    tmp_path: Path, secret: Path, region: str
) -> None:
    with s3_server(tmp_path / "server", keys=KEYS, region="eu-central-1") as server:
        store = a_store(server, secret, region=region)
        store.put("a", b"hello", "text/plain")
        assert store.get("a", 10) == b"hello"


@pytest.mark.parametrize(
    ("forced", "host"),
    [
        pytest.param(None, "s3.test", id="path-by-default"),
        pytest.param(True, "s3.test", id="path"),
        pytest.param(False, "recordings.s3.test", id="host-name"),
    ],
)
def test_buckets_are_paths_or_host_names(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, forced: bool | None, host: str
) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def loopback(name: Any, *rest: Any, **more: Any) -> Any:
        asked.append(name)
        return resolve("127.0.0.1" if str(name).endswith("s3.test") else name, *rest, **more)

    with s3_server(tmp_path / "server", keys=KEYS, virtual_domain="s3.test") as server:
        monkeypatch.setattr(socket, "getaddrinfo", loopback)
        endpoint = server.endpoint.replace("127.0.0.1", "s3.test")
        store = a_store(server, secret, endpoint=endpoint, forcePathStyle=forced)
        store.put("a/ü b", b"hello", "text/plain")
        assert store.get("a/ü b", 10) == b"hello"
        assert list(store.list("a/")) == ["a/ü b"]
    assert set(asked) == {host}


# ── identities ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Info]:
    """A server that will ask who we are; nothing in our environment says so yet."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with moto_server(tmp_path / "moto") as server:
        yield server


def _ambient(server: S3Info, seconds: float = 60) -> S3Store:
    return S3Store(destination(server), AmbientCredentials(), Patience(seconds))


def test_the_pods_service_account_is_enough(moto: S3Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Web identity: a token file, a role, and the service that gives credentials for them."""
    token = tmp_path / "token"
    token.write_text("token-of-the-service-account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", a_role(moto, "s3:*"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    store = _ambient(moto)
    store.put("a", b"", "text/plain")
    ask_who_comes(moto)
    intent = a_shipping_intent(storage=destination(moto, prefix="mine"))
    assert check_storage(store, layout_of(intent), intent).created


def test_an_identity_without_the_right_is_refused(
    moto: S3Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("token-of-the-service-account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", a_role(moto, "s3:ListBucket"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    store = _ambient(moto)
    list(store.list("a"))
    ask_who_comes(moto)
    with pytest.raises(StorageRefusedError, match="denies PutObject"):
        store.put("a", b"", "text/plain")


def test_an_identity_service_that_knows_no_such_role_is_told(
    moto: S3Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("token-of-the-service-account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "no role at all, and too short")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{moto.endpoint}/nothing-there")
    with pytest.raises(StorageError) as caught:
        _ambient(moto, seconds=1).put("a", b"", "text/plain")
    assert "token-of-the-service-account" not in str(caught.value)


def test_shared_configuration_is_enough(moto: S3Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = a_key(moto, "s3:*")
    (tmp_path / "credentials").write_text(
        f"[recordings]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "recordings")
    ask_who_comes(moto)
    store = _ambient(moto)
    store.put("a", b"hello", "text/plain")
    assert store.get("a", 10) == b"hello"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(IsotrackError):
        _ambient(moto).put("a", b"", "text/plain")


@contextmanager
def node_agent(key: tuple[str, str], refusals: int) -> Iterator[str]:
    """What gives pods of a node their credentials, as that of EKS Pod Identity does; it is not ready for the first requests. Its URL."""
    left = refusals

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal left
            left, ready = left - 1, left <= 0
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=6)
            found = {"AccessKeyId": key[0], "SecretAccessKey": key[1], "Token": "", "Expiration": expires.isoformat()}
            body = json.dumps(found if ready else {}).encode()
            self.send_response(200 if ready else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/credentials"
        finally:
            server.shutdown()
            serving.join()


def test_a_node_that_has_no_credentials_for_the_pod_yet_is_waited_for(
    moto: S3Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod may be there before the agent of its node. It ended the recording, as if its settings were wrong."""
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with node_agent(a_key(moto, "s3:*"), refusals=ContainerMetadataFetcher.RETRY_ATTEMPTS + 1) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        ask_who_comes(moto)
        store = _ambient(moto)
        store.put("a", b"hello", "text/plain")
        assert store.get("a", 10) == b"hello"


def test_a_node_that_gives_no_credentials_is_told(moto: S3Info, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with node_agent(("key", "secret"), refusals=1000) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        store = _ambient(moto, seconds=0.5)
        with pytest.raises(StorageError, match=r"no credentials for bucket .*does not answer") as caught:
            store.put("a", b"", "text/plain")
    assert not isinstance(caught.value, StorageRefusedError)
    assert store.trouble is not None


def test_credentials_that_come_to_the_environment_in_mid_call_are_found(
    moto: S3Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client library looks for them once."""
    key, secret = a_key(moto, "s3:*")
    ask_who_comes(moto)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    patience = Patience(60, refused_pause_seconds=30)
    pauses = iter((True, True, False))

    def written(_seconds: float) -> bool:
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        (tmp_path / "credentials").write_text(text)
        return next(pauses)

    monkeypatch.setattr(patience, "pause", written)
    store = S3Store(destination(moto), AmbientCredentials(), patience)
    store.put("a", b"hello", "text/plain")
    assert store.get("a", 10) == b"hello"
