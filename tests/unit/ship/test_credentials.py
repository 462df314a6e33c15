"""Whom a pod trusts at its storage, and who it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_recorder.ship.credentials import AmbientCredentials, FileCredentials, pod_credentials, read_authority


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    (folder / "accessKeyId").write_text("key")
    (folder / "secretAccessKey").write_text("secret")
    return folder


def an_authority(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_text(text)
    return folder


def test_an_authority_of_its_own_goes_before_the_one_beside_the_key(secret: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert read_authority(pod_credentials(secret, nowhere)) == b""
    an_authority(secret, "beside the key")
    assert read_authority(pod_credentials(secret, nowhere)) == b"beside the key"
    own = an_authority(tmp_path / "ca", "of its own")
    found = pod_credentials(secret, own)
    assert isinstance(found, FileCredentials)
    assert read_authority(found) == b"of its own"
    (own / "ca.crt").write_text("another one")
    assert read_authority(found) == b"another one", "it may be replaced while a recording runs"


def test_a_pod_without_keys_trusts_an_authority_too(tmp_path: Path) -> None:
    nobody, nowhere = tmp_path / "storage", tmp_path / "nowhere"
    assert pod_credentials(nobody, nowhere) == AmbientCredentials(None)
    own = an_authority(tmp_path / "ca", "of its own")
    found = pod_credentials(nobody, own)
    assert found.read() is None
    assert read_authority(found) == b"of its own"
