"""Settings, errors, health, logs, credentials, command line: what stands at the border."""

from __future__ import annotations

import base64
import json
import logging

import jwt
import pytest

from isotrack_operator import errors
from isotrack_operator.__main__ import build_parser, main
from isotrack_operator.cluster import version_number
from isotrack_operator.errors import ClusterError, ConfigError, OperatorError, cut
from isotrack_operator.health import Health
from isotrack_operator.kinds import JOB, POD, RECORDING, RECORDING_CLASS, SECRET, Kind
from isotrack_operator.logs import JsonFormatter
from isotrack_operator.settings import load_settings
from isotrack_operator.source import Access, mint_join_token, read_access

SECRET_VALUE = "sekrit-of-at-least-32-characters-xx"


def a_secret(**data: str) -> dict[str, object]:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def test_options_come_before_the_environment() -> None:
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    assert load_settings(environment).recorder_image == "env:1"
    settings = load_settings(environment, recorder_image="option:1", namespace="option")
    assert (settings.recorder_image, settings.namespace) == ("option:1", "option")


@pytest.mark.parametrize(
    ("status", "message", "is_refusal"),
    [
        (403, "exceeded quota", True),
        (422, "invalid", True),
        (409, "the object has been modified", False),
        (429, "too many requests", False),
        (500, "etcdserver: leader changed", False),
        (500, 'Internal error occurred: failed calling webhook "policy.example.com": connection refused', True),
        (0, "does not answer", False),
    ],
)
def test_what_nobody_lets_us_do_is_told_from_what_passes(status: int, message: str, is_refusal: bool) -> None:
    assert ClusterError(message, status).is_refusal is is_refusal


@pytest.mark.parametrize("environment", [{}, {"ISOTRACK_NAMESPACE": "x"}, {"ISOTRACK_RECORDER_IMAGE": "x"}])
def test_missing_setting_says_which_option_gives_it(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"--recorder-image|--namespace"):
        load_settings(environment)


@pytest.mark.parametrize("text", ["-1", "90000", "nan", "soon"])
def test_a_sweep_interval_that_is_none_is_refused(text: str) -> None:
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    assert load_settings(environment | {"ISOTRACK_SWEEP_SECONDS": "0"}).sweep_seconds == 0
    with pytest.raises(ConfigError, match="ISOTRACK_SWEEP_SECONDS"):
        load_settings(environment | {"ISOTRACK_SWEEP_SECONDS": text})


@pytest.mark.parametrize("text", ["-1", "3601", "nan", "soon"])
def test_a_watch_of_sweeps_that_is_none_is_refused(text: str) -> None:
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    assert load_settings(environment).sweep_watch_seconds == 90
    assert load_settings(environment | {"ISOTRACK_SWEEP_WATCH_SECONDS": "30"}).sweep_watch_seconds == 30
    with pytest.raises(ConfigError, match="--sweep-watch-seconds and ISOTRACK_SWEEP_WATCH_SECONDS are seconds"):
        load_settings(environment | {"ISOTRACK_SWEEP_WATCH_SECONDS": text})


@pytest.mark.parametrize("text", ["-1", "700000", "nan", "daily"])
def test_an_interval_of_storage_checks_that_is_none_is_refused(text: str) -> None:
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    assert load_settings(environment).storage_check_seconds == 6 * 3600
    assert load_settings(environment, storage_check_seconds=0).storage_check_seconds == 0
    with pytest.raises(ConfigError, match="--storage-check-seconds and ISOTRACK_STORAGE_CHECK_SECONDS are seconds"):
        load_settings(environment | {"ISOTRACK_STORAGE_CHECK_SECONDS": text})


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("pull", ("pull",)), (" one, two.example.com ,", ("one", "two.example.com"))]
)
def test_pull_secrets_are_names_between_commas(text: str, names: tuple[str, ...]) -> None:
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    assert load_settings(environment | {"ISOTRACK_RECORDER_PULL_SECRETS": text}).recorder_pull_secrets == names
    overruled = environment | {"ISOTRACK_RECORDER_PULL_SECRETS": "other"}
    assert load_settings(overruled, recorder_pull_secrets=text).recorder_pull_secrets == names


@pytest.mark.parametrize("text", ["Pull", "a b", "-a", "a/b", "x" * 254, ",".join(f"s{n}" for n in range(17))])
def test_a_pull_secret_that_no_pod_could_name_is_refused_at_the_start(text: str) -> None:
    """Else no pod would be made for any Job, and each would have to be looked at."""
    environment = {"ISOTRACK_RECORDER_IMAGE": "env:1", "ISOTRACK_NAMESPACE": "env"}
    with pytest.raises(ConfigError, match="--recorder-pull-secrets and ISOTRACK_RECORDER_PULL_SECRETS are"):
        load_settings(environment | {"ISOTRACK_RECORDER_PULL_SECRETS": text})


@pytest.mark.parametrize(("text", "number"), [("35", 35), ("35+", 35), ("", 0), (None, 0), ("x1", 0)])
def test_versions_of_kubernetes_may_carry_a_plus(text: object, number: int) -> None:
    assert version_number(text) == number


def test_each_error_has_an_exit_code() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OperatorError)]
    assert len(tree) >= 8
    assert all(isinstance(kind.exit_code, int) and kind.exit_code > 0 for kind in tree)


@pytest.mark.parametrize(("text", "expected"), [("a\nb\x00c", "a b?c"), ("x" * 500, "x" * 299 + "…"), (None, "None")])
def test_foreign_text_becomes_one_short_line(text: object, expected: str) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (a_secret(apiKey="k"), "lacks key apiSecret"),
        (a_secret(apiSecret="s"), "lacks key apiKey"),
        ({}, "lacks key apiKey"),
        ({"data": {"apiKey": "%%%", "apiSecret": "eA=="}}, "has a value of key apiKey that is not text"),
        ({"data": {"apiKey": "/w==", "apiSecret": "eA=="}}, "has a value of key apiKey that is not text"),
    ],
)
def test_unusable_credentials_say_what_is_wrong(secret: dict[str, object], problem: str) -> None:
    assert read_access("ws://x", secret) == problem


def test_credentials_never_show_in_text() -> None:
    access = read_access("ws://x", a_secret(apiKey="the-key", apiSecret=SECRET_VALUE + "\n"))
    assert isinstance(access, Access)
    assert access.secret == SECRET_VALUE
    assert SECRET_VALUE not in repr(access)
    assert "the-key" not in str(access)


def test_join_token_opens_one_room_for_a_hidden_recorder_for_ten_minutes() -> None:
    """Kind egress makes the room close after its last human left although the recorder is in it."""
    token = mint_join_token(
        Access(url="ws://x", key="k", secret=SECRET_VALUE), room="team-a_standup", identity="isotrack-1"
    )
    claims = jwt.decode(token, SECRET_VALUE, algorithms=["HS256"])
    assert claims["sub"] == "isotrack-1"
    assert claims["kind"] == "egress"
    assert claims["exp"] - claims["nbf"] <= 600
    assert claims["video"] == {
        "roomJoin": True,
        "room": "team-a_standup",
        "canPublish": False,
        "canSubscribe": True,
        "canPublishData": False,
        "hidden": True,
        "recorder": True,
    }


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (RECORDING, "/apis/isotrack.dev/v1alpha1/namespaces/a/recordings/b/status"),
        (RECORDING_CLASS, "/apis/isotrack.dev/v1alpha1/recordingclasses/b/status"),
        (SECRET, "/api/v1/namespaces/a/secrets/b/status"),
    ],
)
def test_paths(kind: Kind, path: str) -> None:
    assert kind.path("a", "b", "status") == path


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert RECORDING.path("a", "../../secrets").endswith("/recordings/..%2F..%2Fsecrets")


def test_watch_that_lags_behind_a_list_is_dead_after_a_minute() -> None:
    now = 0.0
    health = Health(lambda: now)
    health.saw(JOB, 10)
    health.listed(JOB, 10)
    health.listed(POD, 12)
    now = 61.0
    assert health.dead_watches() == ["Pod"]
    health.saw(POD, 13)
    assert health.dead_watches() == []


def test_quiet_cluster_is_healthy() -> None:
    now = 0.0
    health = Health(lambda: now)
    health.listed(JOB, 0)
    now = 10_000.0
    assert health.dead_watches() == []


def test_metrics_are_prometheus_text() -> None:
    health = Health(lambda: 0.0)
    health.counters['isotrack_events_total{kind="Job"}'] += 2
    text = health.metrics({"isotrack_queue_depth": 1})
    assert '# TYPE isotrack_events_total counter\nisotrack_events_total{kind="Job"} 2\n' in text
    assert "# TYPE isotrack_queue_depth gauge\nisotrack_queue_depth 1\n" in text


def test_log_line_is_json_with_its_fields() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "attempt started", None, None)
    record.fields = {"recording": "standup", "attempt": 1}
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["recording"], line["attempt"], line["level"]) == (
        "attempt started",
        "standup",
        1,
        "info",
    )


@pytest.mark.parametrize("argv", [["run"], ["run", "--recorder-image", "x"]])
def test_wrong_options_end_with_64_and_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISOTRACK_RECORDER_IMAGE", raising=False)
    monkeypatch.delenv("ISOTRACK_NAMESPACE", raising=False)
    assert main(argv) == 64
    assert capsys.readouterr().err.startswith("isotrack-operator: no ")


def test_no_cluster_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    argv = [
        "run",
        "--recorder-image",
        "x",
        "--namespace",
        "y",
        "--kubeconfig",
        f"{tmp_path}/none",
        "--liveness-port",
        "0",
    ]
    assert main(argv) == 64
    assert "no access to Kubernetes" in capsys.readouterr().err


def test_help_has_examples() -> None:
    assert "isotrack-operator run --kubeconfig" in build_parser().format_help()
