"""The chart renders what it should, refuses values that mean nothing, and gives the operator no right that it does not need."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from isotrack_api.generate import CHART_FOLDER
from isotrack_api.generate import render as render_models
from support.golden import Golden

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "dev"))

import helm_python as helm  # noqa: E402

from isotrack_dev.chart import CHART, render, render_files  # noqa: E402

ODD: Mapping[str, Any] = {
    "fullnameOverride": "tracks",
    "image": {
        "operator": {"repository": "images.example.com:5000/team/operator", "digest": "sha256:" + "1" * 64},
        "recorder": {"repository": "images.example.com:5000/team/recorder", "tag": "v9"},
    },
    "imagePullSecrets": [{"name": "pull"}],
    "recorder": {"imagePullSecrets": [{"name": "recorder-pull"}, {"name": "mirror"}]},
    "crds": {"keep": False},
    "rbac": {"aggregate": False},
    "warnings": {"enabled": False},
    "metrics": {"podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}},
    "sweep": {"intervalSeconds": 60, "watchSeconds": 120},
    "storageCheck": {"intervalSeconds": 0},
    "log": {"format": "text", "level": "debug"},
    "resources": None,
    "serviceAccountAnnotations": {"example.com/role": "operator"},
    "podAnnotations": {"example.com/scrape": "true"},
    "podLabels": {"team": "media", "app.kubernetes.io/component": "mine"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
}


def objects(values: Mapping[str, Any] | None = None, namespace: str = "isotrack-system") -> list[dict[str, Any]]:
    """All rendered objects."""
    return [document for document in yaml.safe_load_all(render(values or {}, namespace)) if document]


class Unique(yaml.SafeLoader):
    """Refuses a key that comes twice, as kubectl does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


def of_kind(kind: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rendered objects of one kind."""
    return [item for item in objects(values) if item["kind"] == kind]


def rules(kind: str) -> Iterator[tuple[str, str, str]]:
    """(group, resource, verb) of the operator's roles of this kind."""
    for role in of_kind(kind):
        if role["metadata"]["name"].endswith("-operator"):
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        yield from ((group, resource, verb) for verb in rule["verbs"])


@pytest.mark.parametrize("values", [{}, ODD], ids=["default", "odd"])
def test_chart_lints(values: Mapping[str, Any]) -> None:
    report = helm.lint(CHART, dict(values), strict=True, kube_version="v1.32.0")
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("values", [{}, ODD], ids=["default", "odd"])
def test_no_key_comes_twice(values: Mapping[str, Any]) -> None:
    assert list(yaml.load_all(render(values, "n"), Unique))


@pytest.mark.parametrize(("name", "values"), [("default", {}), ("odd", ODD)])
def test_chart_matches_golden(golden: Golden, name: str, values: Mapping[str, Any]) -> None:
    """Without the CRDs: those have golden files of their own, crds/*.yaml."""
    files = render_files(values, "isotrack-system")
    text = "".join(
        f"# {path}\n{files[path]}\n" for path in sorted(files) if not path.startswith("crds/") and files[path].strip()
    )
    golden.check(f"{name}.yaml", text)


def test_every_object_has_a_home_and_labels() -> None:
    cluster_wide = {
        "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip
    for item in objects(namespace="elsewhere"):
        metadata = item["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "isotrack", metadata["name"]
        assert ("namespace" in metadata) == (item["kind"] not in cluster_wide), metadata["name"]
        assert metadata.get("namespace", "elsewhere") == "elsewhere"


def test_two_releases_share_nothing_but_the_crds() -> None:
    def names(release: str, namespace: str) -> set[tuple[str, str, str]]:
        documents = yaml.safe_load_all(render({}, namespace, release))
        return {
            (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
            for item in documents
            if item and item["kind"] != "CustomResourceDefinition"
        }

    assert names("one", "a") & names("two", "b") == set()


def test_longest_release_name_fits() -> None:
    for item in yaml.safe_load_all(render({}, "n", "x" * 53)):
        if item:
            assert len(item["metadata"]["name"]) <= 63
            assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())


def test_crds_are_those_of_the_models_and_outlive_the_release() -> None:
    plain = [yaml.safe_load(text) for path, text in render_models().items() if re.fullmatch(r"crds/.*\.yaml", path)]
    rendered = {item["metadata"]["name"]: item for item in of_kind("CustomResourceDefinition")}
    assert {item["metadata"]["name"]: item["spec"] for item in plain} == {
        name: item["spec"] for name, item in rendered.items()
    }
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in rendered.values())
    assert all(
        "annotations" not in item["metadata"] for item in of_kind("CustomResourceDefinition", {"crds": {"keep": False}})
    )
    assert of_kind("CustomResourceDefinition", {"crds": {"enabled": False}}) == []
    assert len(list((ROOT / CHART_FOLDER).glob("*.yaml"))) == len(rendered)


def test_chart_installs_no_class() -> None:
    """Nobody may record anything until an administrator says so."""
    assert of_kind("RecordingClass") == []


def test_operator_pod_passes_the_restricted_pod_security_standard() -> None:
    """Kubernetes documentation, "Pod Security Standards", profile Restricted."""
    pod = of_kind("Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(set(volume) - {"name"} <= {"emptyDir", "projected", "configMap", "secret"} for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert all("hostPort" not in port for port in container["ports"])


def test_pod_labels_cannot_break_the_selector() -> None:
    deployment = of_kind("Deployment", ODD)[0]["spec"]
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()


def test_operator_understands_what_its_pod_is_told() -> None:
    """Arguments and variables of the Deployment go through the operator's own parser."""
    from isotrack_operator.__main__ import build_parser

    container = of_kind("Deployment", ODD)[0]["spec"]["template"]["spec"]["containers"][0]
    options = build_parser().parse_args(container["args"])
    assert options.liveness_port == container["ports"][0]["containerPort"]
    source = "".join(file.read_text() for file in (ROOT / "operator/isotrack_operator").glob("*.py"))
    assert all(variable["name"] in source for variable in container["env"])


def test_digest_decides_over_the_tag() -> None:
    container = of_kind("Deployment", ODD)[0]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "images.example.com:5000/team/operator:0.1.0@sha256:" + "1" * 64
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables["ISOTRACK_RECORDER_IMAGE"] == "images.example.com:5000/team/recorder:v9"


def test_pull_secrets_of_recorders_reach_the_operator_as_it_reads_them() -> None:
    """They are not those of the operator's own pod, which may come from elsewhere."""
    from isotrack_operator.settings import load_settings

    pod = of_kind("Deployment", ODD)[0]["spec"]["template"]["spec"]
    told = {one["name"]: one.get("value", "isotrack-system") for one in pod["containers"][0]["env"]}
    assert load_settings(told).recorder_pull_secrets == ("recorder-pull", "mirror")
    assert pod["imagePullSecrets"] == [{"name": "pull"}]


def test_operator_has_exactly_these_rights(golden: Golden) -> None:
    golden.check(
        "rights.yaml",
        {
            "cluster": sorted(
                " ".join((group or "core", resource, verb)) for group, resource, verb in rules("ClusterRole")
            ),
            "own namespace": sorted(
                " ".join((group or "core", resource, verb)) for group, resource, verb in rules("Role")
            ),
        },
    )


def test_operator_has_no_wildcard_and_cannot_read_secrets_of_others() -> None:
    everywhere = set(rules("ClusterRole"))
    assert not any("*" in part for rule in (*everywhere, *rules("Role")) for part in rule)
    assert {verb for group, resource, verb in everywhere if (group, resource) == ("", "secrets")} == {"create"}
    assert {verb for group, resource, verb in rules("Role") if resource == "secrets"} == {"get"}
    assert not {"escalate", "bind", "impersonate"} & {verb for _, _, verb in everywhere}
    assert not any(resource in ("pods/exec", "pods/attach", "serviceaccounts/token") for _, resource, _ in everywhere)


def test_operator_holds_every_right_that_it_gives_to_agents() -> None:
    """Kubernetes refuses to create a Role with more than its creator has."""
    given = {
        ("isotrack.dev", "recordings", "get"),
        ("isotrack.dev", "recordings", "watch"),
        ("isotrack.dev", "recordingreports/status", "patch"),
    }
    assert given <= set(rules("ClusterRole"))


def test_people_write_specs_only() -> None:
    for role in of_kind("ClusterRole"):
        if role["metadata"]["name"].endswith("-operator"):
            continue
        for rule in role["rules"]:
            assert not any("/" in resource for resource in rule["resources"])
            if "recordingreports" in rule["resources"]:
                assert set(rule["verbs"]) == {"get", "list", "watch"}


def test_warnings_refuse_nothing() -> None:
    """What was once valid in Git stays appliable."""
    assert [item["spec"]["validationActions"] for item in of_kind("ValidatingAdmissionPolicyBinding")] == [["Warn"]]
    assert [item["spec"]["failurePolicy"] for item in of_kind("ValidatingAdmissionPolicy")] == ["Ignore"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"image": {"operator": {"repository": "a b"}}}, "/image/operator/repository"),
        ({"image": {"operator": {"digest": "latest"}}}, "/image/operator/digest"),
        ({"log": {"level": "loud"}}, "/log/level"),
        ({"crds": {"enabled": "yes"}}, "/crds/enabled"),
        ({"fullnameOverride": "Isotrack"}, "/fullnameOverride"),
        ({"podAnnotations": {"a": 1}}, "/podAnnotations/a"),
        ({"recorder": {"imagePullSecrets": [{"name": "A b"}]}}, "/recorder/imagePullSecrets/0/name"),
        ({"recorder": {"imagePullSecrets": ["pull"]}}, "/recorder/imagePullSecrets/0"),
    ],
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        render(values, "n")


def test_every_value_has_a_rule_and_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load(text)
    assert set(values) == set(schema["properties"]) - {"global"}
    placement = {"nodeSelector", "tolerations", "affinity"}  # words of Kubernetes, which need none of ours
    for key in set(values) - placement:
        block = re.search(rf"(?:^# --.*\n)?^{key}:.*\n(?:  .*\n)*", text, re.MULTILINE)
        assert block, key
        assert "# --" in block[0], key


def test_notes_name_the_next_commands() -> None:
    notes = render_files({}, "media")["NOTES.txt"]
    assert "kubectl -n media rollout status deployment/isotrack-operator" in notes
    assert "kubectl apply -f recordingclass.yaml" in notes
