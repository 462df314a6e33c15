"""Install the operator as its users do: the rendered chart, applied, in a namespace of its own."""

from __future__ import annotations

import json

from . import chart
from .errors import DevError, UsageError
from .kubectl import Kubectl
from .progress import Progress, Silent

NAMESPACE = "isotrack-system"
DEPLOYMENT = f"deployment/{chart.RELEASE}-operator"
SWEEP_WATCH_SECONDS = 30
"""A third of the default: here checkpoints come every few seconds, and tests wait for it."""


def deploy_operator(
    kubectl: Kubectl, operator: str, recorder: str, progress: Progress | None = None, namespace: str = NAMESPACE
) -> None:
    """Install or update CRDs and operator, and wait until the operator says that it is ready.

    Args:
        kubectl: The cluster.
        operator: Image of the operator, with a tag.
        recorder: Image of recorder and agent, with a tag, for classes that name none.
        progress: Where to show it.
        namespace: Made when missing.
    Raises:
        UsageError: An image has neither a tag nor a digest.
        DevError: The cluster refused something, or the operator did not become ready within two minutes.
    """
    shown = progress or Silent()
    with shown.step("operator: custom resources, roles, deployment"):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl("apply", "--server-side", "-f", "-", stdin=_namespace(namespace, labels))
        text = chart.render(values(operator, recorder), namespace)
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        kubectl("wait", "crd", "--for=condition=Established", "-l", f"app.kubernetes.io/instance={chart.RELEASE}")
    with shown.step("operator ready"):
        try:
            kubectl("rollout", "status", DEPLOYMENT, "--namespace", namespace, "--timeout=240s", seconds=250)
        except DevError as error:
            raise DevError(f"{error}\n{_last_words(kubectl, namespace)}") from error


def _last_words(kubectl: Kubectl, namespace: str) -> str:
    """Why the operator is not ready, as far as the cluster knows."""
    try:
        pods = kubectl("get", "pods", "--namespace", namespace)
        return pods + kubectl("logs", "--namespace", namespace, DEPLOYMENT, "--tail=15")
    except DevError as error:
        return str(error)


def values(operator: str, recorder: str) -> dict[str, object]:
    """Values of the chart for two images.

    Raises:
        UsageError: One of them has neither a tag nor a digest.
    """
    return {
        "image": {
            "operator": {**image_values(operator), "pullPolicy": "IfNotPresent"},
            "recorder": image_values(recorder),
        },
        "sweep": {"watchSeconds": SWEEP_WATCH_SECONDS},
    }


def image_values(reference: str) -> dict[str, str]:
    """`registry:5000/team/name:tag@digest` in the chart's words. Tag or digest may be absent, not both.

    Raises:
        UsageError: Both are: an image without a tag may be another one tomorrow.
    """
    name, _, digest = reference.partition("@")
    registry, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    if not last or not (tag or digest):
        raise UsageError(
            f"image {reference[:200]!r} has no tag: name it as registry.example.com/isotrack/recorder:0.1.0"
        )
    return {"repository": f"{registry}{slash}{last}", "tag": tag, **({"digest": digest} if digest else {})}


def _namespace(name: str, labels: dict[str, str]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
