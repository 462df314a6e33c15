"""Where the demo runs: a stack of its own, or the cluster that $KUBECONFIG names.

Both give the same: a kubectl, addresses and keys of an SFU and a bucket, and the operator installed. Of a given cluster
the demo owns what carries its label, and nothing else; a namespace or class of the same name without the label stops it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import images, requirements
from .deploy import DEPLOYMENT, NAMESPACE, deploy_operator
from .errors import DevError, RequirementError, UsageError
from .kubectl import Kubectl
from .progress import Progress
from .stack import Stack

LABEL = "isotrack.dev/demo"
TEAM, CLASS, SFU_SECRET = "team-a", "default", "livekit"
"""What the demo makes in a cluster, apart from the operator; named as in `examples/`."""
GIVEN = (
    *("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"),
    *("S3_ENDPOINT", "S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("ISOTRACK_RECORDER_IMAGE", "ISOTRACK_OPERATOR_IMAGE"),
)
"""What must be given along with KUBECONFIG."""
MAY_BE_GIVEN = ("AWS_REGION",)


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with the operator in it, an SFU and a bucket."""

    kubectl: Kubectl
    environment: Mapping[str, str] = field(repr=False)
    """LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, S3_ENDPOINT, S3_BUCKET, AWS_…"""
    operator_namespace: str
    stack: Stack | None
    """None when the cluster was given."""


@contextmanager
def own_stack(name: str, progress: Progress, *, keep: bool) -> Iterator[Place]:
    """Start a stack (or use the one of this name), install the operator, and take it down afterwards unless `keep`."""
    requirements.require_root("a cluster of the demo's own (KUBECONFIG names one of yours)", ["images", "cluster"])
    stack = Stack(name, progress=progress)
    try:
        built = images.ensure(list(images.KINDS), progress)
        info = stack.up([image.archive for image in built.values()])
        deploy_operator(stack.kubectl, built["operator"].name, built["recorder"].name, progress)
        yield Place(stack.kubectl, info.environment, NAMESPACE, stack)
    finally:
        if not (keep and stack.running):
            stack.down()


@contextmanager
def given_cluster(kubeconfig: Path, environment: Mapping[str, str], progress: Progress) -> Iterator[Place]:
    """Install the operator into somebody's cluster; it stays there, the demo's own objects go.

    Raises:
        UsageError: A variable is missing, or objects of the demo's names belong to somebody else.
        RequirementError: There is no kubectl.
    """
    lacking = [name for name in GIVEN if not environment.get(name)]
    if lacking:
        raise UsageError(
            f"KUBECONFIG is set, so the demo uses that cluster; it also needs {', '.join(lacking)} (images that its nodes "
            "can pull; an SFU and a bucket that pods and this machine reach). Without KUBECONFIG it makes a cluster itself"
        )
    program = shutil.which("kubectl")
    if program is None:
        raise RequirementError("kubectl is not on the PATH: a cluster of your own needs it")
    kubectl = Kubectl(Path(program), kubeconfig, ours=False)
    check_nobody_is_disturbed(kubectl)
    deploy_operator(kubectl, environment["ISOTRACK_OPERATOR_IMAGE"], environment["ISOTRACK_RECORDER_IMAGE"], progress)
    values = {name: environment[name] for name in (*GIVEN, *MAY_BE_GIVEN) if environment.get(name)}
    yield Place(kubectl, values, NAMESPACE, None)


@contextmanager
def place(name: str, progress: Progress, *, keep: bool) -> Iterator[Place]:
    """Choose by $KUBECONFIG."""
    given = os.environ.get("KUBECONFIG")
    if given:
        with given_cluster(Path(given.split(os.pathsep)[0]), os.environ, progress) as found:
            yield found
    else:
        with own_stack(name, progress, keep=keep) as found:
            yield found


def check_nobody_is_disturbed(kubectl: Kubectl) -> None:
    """Look at a given cluster before anything of it is changed.

    Raises:
        UsageError: The operator there, or an object of a name that the demo uses, is somebody else's.
    """
    release = "{.metadata.annotations.meta\\.helm\\.sh/release-name}"
    if _found(kubectl, DEPLOYMENT, release, "-n", NAMESPACE):
        raise UsageError(
            f"{DEPLOYMENT} in {NAMESPACE} is a Helm release: the demo would replace it. Make a Recording of your own "
            "there (docs/install.md), or run the demo without KUBECONFIG"
        )
    label = "{.metadata.name}/{.metadata.labels.isotrack\\.dev/demo}"
    for kind, name, *options in (
        ("namespace", TEAM),
        ("recordingclass", CLASS),
        ("secret", SFU_SECRET, "-n", NAMESPACE),
    ):
        found = _found(kubectl, f"{kind}/{name}", label, *options)
        if found and not found.endswith("/true"):
            raise UsageError(
                f"{kind} {name} exists and is not the demo's: remove it, or leave this cluster to its work"
            )


def _found(kubectl: Kubectl, what: str, template: str, *options: str) -> str:
    """What a jsonpath gives of an object; empty where there is no such object, or no such kind yet."""
    try:
        return kubectl("get", what, *options, "--ignore-not-found", "-o", f"jsonpath={template}")
    except DevError as error:
        if "doesn't have a resource type" in str(error):
            return ""
        raise
