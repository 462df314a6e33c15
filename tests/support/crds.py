"""Put the checked-in CustomResourceDefinitions into a cluster, and wait until the API server serves them."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from .rawkube import APPLY_PATCH, RawKube

CRDS = Path(__file__).resolve().parents[2] / "crds"
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def install_crds(kube: RawKube, seconds: float = 60) -> None:
    """Apply all of them; installing what is installed changes nothing.

    Raises:
        AssertionError: one is refused, or not served in time.
    """
    documents = [yaml.safe_load(file.read_text()) for file in sorted(CRDS.glob("*.yaml"))]
    for document in documents:
        target = f"{_PATH}/{document['metadata']['name']}"
        answer = kube.request(
            "PATCH", target, document, content_type=APPLY_PATCH, fieldManager="isotrack-tests", force="true"
        )
        assert answer.ok, answer.message
    deadline = time.monotonic() + seconds
    for document in documents:
        spec = document["spec"]
        served = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        while not kube.request("GET", served, limit="1").ok:
            assert time.monotonic() < deadline, f"{served} is not served"
            time.sleep(0.1)
