"""What the agent reads of its environment."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.pod import agent
from isotrack_recorder.pod.agent_settings import read_bytes, read_settings
from support.shipping import a_shipping_intent
from support.spools import an_intent

INTENT = {"ISOTRACK_INTENT": a_shipping_intent().to_json()}


def test_outside_a_cluster_there_is_no_api_server() -> None:
    assert read_settings(INTENT).kube is None


@pytest.mark.parametrize(
    ("environment", "report"),
    [
        pytest.param({"HOSTNAME": "standup-01234567-a1-x7k2p"}, "standup-01234567-a1", id="pod-of-a-job"),
        pytest.param({"HOSTNAME": "pod", "ISOTRACK_REPORT": "named"}, "named", id="named"),
    ],
)
def test_the_report_is_named_like_the_job(environment: dict[str, str], report: str) -> None:
    settings = read_settings({**INTENT, "KUBERNETES_SERVICE_HOST": "10.0.0.1", **environment})
    assert settings.kube is not None
    assert settings.kube.report == report
    assert settings.kube.server == "https://10.0.0.1:443"


@pytest.mark.parametrize(("text", "port"), [("", 0), ("0", 0), ("9464", 9464), ("65535", 65535)])
def test_the_port_for_metrics_is_read(text: str, port: int) -> None:
    assert read_settings({**INTENT, "ISOTRACK_METRICS_PORT": text}).metrics_port == port


@pytest.mark.parametrize("text", ["65536", "-1", "http", "٣", "1" * 5000])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="ISOTRACK_METRICS_PORT must be a port"):
        read_settings({**INTENT, "ISOTRACK_METRICS_PORT": text})


def test_an_ipv6_api_server_is_bracketed() -> None:
    environment = {**INTENT, "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    kube = read_settings(environment).kube
    assert kube is not None
    assert kube.server == "https://[fd00::1]:6443"


@pytest.mark.parametrize(
    "intent",
    [
        pytest.param("{", id="no-intent"),
        pytest.param(
            a_shipping_intent(storage=S3Destination(bucket="calls", endpoint="ftp://storage")).to_json(), id="endpoint"
        ),
    ],
)
def test_an_agent_that_cannot_start_says_why(
    intent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_logging: None
) -> None:
    monkeypatch.setenv("ISOTRACK_INTENT", intent)
    monkeypatch.setenv("ISOTRACK_TERMINATION_LOG", str(tmp_path / "log"))
    assert agent.main([]) == 64
    message = json.loads((tmp_path / "log").read_text())
    assert message["reason"] == "InvalidConfiguration"
    assert message["message"]


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--fast"], 64)])
def test_the_entry_point_takes_no_options(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.main(arguments) == code
    out, err = capsys.readouterr()
    assert "usage: isotrack-recorder agent" in (err if code else out)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param({}, "ISOTRACK_INTENT is not set", id="no-intent"),
        pytest.param({"ISOTRACK_INTENT": "{"}, "not an intent", id="no-json"),
        pytest.param({"ISOTRACK_INTENT": an_intent().to_json()}, "names no storage", id="no-storage"),
        pytest.param({**INTENT, "ISOTRACK_GRACE_SECONDS": "soon"}, "ISOTRACK_GRACE_SECONDS must be", id="no-number"),
        pytest.param({**INTENT, "ISOTRACK_UPLOAD_SECONDS": "-1"}, "ISOTRACK_UPLOAD_SECONDS must be", id="negative"),
        pytest.param({**INTENT, "ISOTRACK_UPLOAD_SECONDS": "nan"}, "ISOTRACK_UPLOAD_SECONDS must be", id="nan"),
    ],
)
def test_a_wrong_environment_is_a_configuration_error(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings(environment)


@pytest.mark.parametrize(("text", "size"), [("", None), ("1", 1), ("10737418240", 10 * 1024**3)])
def test_a_size_is_a_number_of_bytes(text: str, size: int | None) -> None:
    assert read_bytes({"SIZE": text}, "SIZE") == size


@pytest.mark.parametrize("text", ["0", "10Gi", "-1", "1" * 17, "\N{DIGIT ONE}\N{ARABIC-INDIC DIGIT ONE}"])
def test_another_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="SIZE"):
        read_bytes({"SIZE": text}, "SIZE")
