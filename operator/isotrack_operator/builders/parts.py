"""Small pieces of pods that several builders use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def escaped(value: str) -> str:
    """Keep the kubelet from expanding `$(NAME)` in a value that comes from users: `$$` is a literal dollar sign."""
    return value.replace("$", "$$")


def unescaped(value: str) -> str:
    """What a container sees of an `escaped` value."""
    return value.replace("$$", "$")


def variable(name: str, value: str) -> dict[str, Any]:
    """A variable in a container's environment."""
    return {"name": name, "value": value}


def mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    """A volume's place in a container."""
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    return mount | {"readOnly": True} if read_only else mount


def pull_secrets_of(names: Iterable[str]) -> dict[str, Any]:
    """What a pod says of Secrets to pull its images with: nothing without any."""
    secrets = [{"name": name} for name in names]
    return {"imagePullSecrets": secrets} if secrets else {}
