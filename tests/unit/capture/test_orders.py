"""What a recorder reads of its Intent by itself is what the model reads, and nothing that the model refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isotrack_api.base import OutputType, Quality
from isotrack_api.intent import Intent, IntentLimits, LiveKitSource, OutputLayer, RecordingRef
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.orders import OPTIONAL, REQUIRED, orders_of, read_as_written, read_orders
from support.shipping import a_shipping_intent

LEAST = Intent(
    recording=RecordingRef(namespace="n", name="r", uid="12345678"),
    call_id="call",
    source=LiveKitSource(url="ws://sfu", identity="i"),
    folder="n/r",
)
MOST = a_shipping_intent().model_copy(
    update={
        "attempt": 10_000,
        "call_id": "ç" * 256,
        "call_sid": "RM_1",
        "source": LiveKitSource(url="https://sfu/base", identity="i", quality=Quality.LOW),
        "layers": (OutputLayer(output_types=(OutputType.AUDIO_ONLY,)),),
        "user_ids": ("alice", "ålice" * 40),
        "paused": True,
        "limits": IntentLimits(max_duration_seconds=7 * 86400, empty_timeout_seconds=0),
        "key_frame_interval_seconds": 3600,
        "spool_bytes": 2**53,
        "epoch_ms": 0,
    }
)


@pytest.mark.parametrize("intent", [LEAST, MOST, a_shipping_intent()], ids=["least", "most", "shipping"])
def test_what_the_model_writes_is_read_without_it(intent: Intent) -> None:
    assert read_as_written(json.loads(intent.to_json())) == orders_of(intent)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("version", 2, id="another-version"),
        pytest.param("attempt", 0, id="too-small"),
        pytest.param("attempt", 10_001, id="too-large"),
        pytest.param("attempt", True, id="flag-for-a-number"),
        pytest.param("attempt", "2", id="number-as-text"),
        pytest.param("attempt", 2.0, id="number-with-a-point"),
        pytest.param("attempt", 2.5, id="half-a-number"),
        pytest.param("attempt", None, id="null-for-a-number"),
        pytest.param("callId", "", id="empty"),
        pytest.param("callId", "x" * 257, id="too-long"),
        pytest.param("callId", 7, id="number-for-a-text"),
        pytest.param("callId", "\ud800", id="half-a-character"),
        pytest.param("callSid", None, id="null-for-nothing"),
        pytest.param("userIds", [], id="nobody"),
        pytest.param("userIds", ["a"] * 101, id="too-many"),
        pytest.param("userIds", [""], id="nameless"),
        pytest.param("userIds", "alice", id="text-for-a-list"),
        pytest.param("paused", 1, id="number-for-a-flag"),
        pytest.param("paused", "no", id="text-for-a-flag"),
        pytest.param("limits", None, id="null-for-members"),
        pytest.param("limits", [], id="list-for-members"),
        pytest.param("limits.maxDurationSeconds", 0, id="no-time"),
        pytest.param("limits.maxDurationSeconds", 604_801, id="too-much-time"),
        pytest.param("limits.emptyTimeoutSeconds", 86_401, id="too-much-patience"),
        pytest.param("limits.unknown", 1, id="unknown-limit"),
        pytest.param("keyFrameIntervalSeconds", 3601, id="too-rare-key-frames"),
        pytest.param("spoolBytes", 0, id="no-room"),
        pytest.param("epochMs", -1, id="before-1970"),
        pytest.param("source.kind", "janus", id="another-source"),
        pytest.param("source.url", "ftp://sfu", id="another-scheme"),
        pytest.param("source.url", " ws://sfu", id="space-before-the-scheme"),
        pytest.param("source.identity", "", id="nobody-joins"),
        pytest.param("source.quality", "best", id="another-quality"),
        pytest.param("source.key", "secret", id="unknown-of-the-source"),
        pytest.param("recording.uid", "short", id="short-uid"),
        pytest.param("recording.namespace", "x" * 64, id="long-namespace"),
        pytest.param("recording", "r", id="text-for-members"),
        pytest.param("folder", "x" * 513, id="long-folder"),
        pytest.param("call_id", "other", id="two-names-of-one"),
        pytest.param("more", 1, id="unknown"),
    ],
)
def test_whatever_else_is_judged_by_the_model(path: str, value: object) -> None:
    intent: dict[str, Any] = json.loads(LEAST.to_json())
    *above, name = path.split(".")
    place = intent
    for member in above:
        place = place.setdefault(member, {})
    place[name] = value
    text = json.dumps(intent)
    try:
        expected = orders_of(Intent.from_json(text))
    except ValueError:
        with pytest.raises(ConfigError, match="is not an intent"):
            read_orders({"ISOTRACK_INTENT": text})
    else:
        assert read_orders({"ISOTRACK_INTENT": text}) == expected


def test_an_intent_by_the_names_of_its_fields_is_one_too() -> None:
    intent = LEAST.model_dump(mode="json", by_alias=False)
    assert read_orders({"ISOTRACK_INTENT": json.dumps(intent)}) == orders_of(LEAST)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_member_is_named(name: str) -> None:
    intent = json.loads(LEAST.to_json())
    del intent[name]
    with pytest.raises(ConfigError, match=name):
        read_orders({"ISOTRACK_INTENT": json.dumps(intent)})


def test_every_member_of_the_model_is_known() -> None:
    """An intent with a new one would be read, but late."""
    known = {field.alias: field.is_required() for field in Intent.model_fields.values()}
    assert {name for name, required in known.items() if required} == REQUIRED
    assert known.keys() == REQUIRED | OPTIONAL
