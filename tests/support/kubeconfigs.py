"""What a kubeconfig says about its cluster, for clients that take address and authority one by one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml


def server_of(kubeconfig: Path) -> str:
    """URL of the API server."""
    return str(_cluster(kubeconfig)["server"])


def authority_of(kubeconfig: Path) -> str:
    """Certificates that sign the API server's, PEM."""
    cluster = _cluster(kubeconfig)
    if "certificate-authority-data" in cluster:
        return str(base64.b64decode(cluster["certificate-authority-data"]), "utf-8")
    return (kubeconfig.parent / str(cluster["certificate-authority"])).read_text()


def _cluster(kubeconfig: Path) -> dict[str, Any]:
    config = yaml.safe_load(kubeconfig.read_text())
    context = next(entry["context"] for entry in config["contexts"] if entry["name"] == config["current-context"])
    found: dict[str, Any] = next(
        entry["cluster"] for entry in config["clusters"] if entry["name"] == context["cluster"]
    )
    return found
