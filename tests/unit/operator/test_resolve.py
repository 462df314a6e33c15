"""What a Recording comes to: its own word, then its class's, then what is built in."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_api.base import DEFAULT_FILE_NAME_TEMPLATE, Container, OutputType, Quality
from isotrack_api.recording import EffectiveLayer
from isotrack_api.recording_class import S3Storage
from isotrack_operator.builders import names
from isotrack_operator.resolve import effective_of, identity_of, intent_of
from support.operated import a_class, a_recording

AUDIO, VIDEO, BOTH = OutputType.AUDIO_ONLY, OutputType.VIDEO_ONLY, OutputType.AUDIO_VIDEO
TEMPLATE = "{peer_id}.{stream_kind}.{media_kind}"
OTHER = "{layer}.{peer_id}.{stream_kind}.{media_kind}"
WEBM = {"container": "webm"}
SPEECH = {"name": "speech", "outputTypes": ["audio_only"]}
TWO = [{"name": "a"}, {"name": "b"}]


def layers(spec: dict[str, Any], defaults: dict[str, Any]) -> tuple[EffectiveLayer, ...]:
    owner = a_class(defaults=defaults)
    return effective_of(a_recording(**spec).build(), owner, owner.spec.storages[0]).layers


@pytest.mark.parametrize(
    ("spec", "defaults", "names"),
    [
        pytest.param({}, {}, ["default"], id="nobody says anything"),
        pytest.param({"layers": TWO}, {}, ["a", "b"], id="the recording's own"),
        pytest.param({}, {"layers": TWO}, ["a", "b"], id="the class's"),
        pytest.param({"layers": [SPEECH]}, {"layers": TWO}, ["speech"], id="the recording's own go before the class's"),
        pytest.param({"outputTypes": ["audio_only"]}, {"layers": TWO}, ["default"], id="output types ask for one set"),
        pytest.param({"container": "webm"}, {"layers": TWO}, ["a", "b"], id="another container is no other set"),
    ],
)
def test_layers_come_from_the_nearest(spec: dict[str, Any], defaults: dict[str, Any], names: list[str]) -> None:
    assert [layer.name for layer in layers(spec, defaults)] == names


@pytest.mark.parametrize(
    ("spec", "defaults", "outputs"),
    [
        pytest.param({"layers": [SPEECH], "outputTypes": ["video_only"]}, {"outputTypes": ["audio_video"]}, (AUDIO,), id="layer"),
        pytest.param({"layers": TWO, "outputTypes": ["video_only"]}, {"outputTypes": ["audio_video"]}, (VIDEO,), id="recording"),
        pytest.param({"layers": TWO}, {"outputTypes": ["audio_video"]}, (BOTH,), id="class"),
        pytest.param({}, {"layers": [SPEECH], "outputTypes": ["audio_video"]}, (AUDIO,), id="layer of the class"),
        pytest.param({"layers": TWO}, {}, (BOTH, OutputType.SCREENSHARE_AUDIO_VIDEO), id="built in"),
    ],
)  # fmt: skip
def test_output_types_come_from_the_nearest(spec: dict[str, Any], defaults: dict[str, Any], outputs: tuple[OutputType, ...]) -> None:  # fmt: skip
    assert layers(spec, defaults)[0].output_types == outputs


@pytest.mark.parametrize(
    ("spec", "defaults", "container"),
    [
        pytest.param({"layers": [{"name": "a", **WEBM}], "container": "mkv"}, {}, Container.WEBM, id="layer"),
        pytest.param({"layers": TWO, **WEBM}, {}, Container.WEBM, id="recording"),
        pytest.param({"container": "mkv"}, {"layers": [{"name": "a", **WEBM}]}, Container.MKV, id="recording before the class's layer"),
        pytest.param({}, {"layers": [{"name": "a", **WEBM}], "container": "mkv"}, Container.WEBM, id="layer of the class"),
        pytest.param({"layers": TWO}, WEBM, Container.WEBM, id="class"),
    ],
)  # fmt: skip
def test_container_comes_from_the_nearest(spec: dict[str, Any], defaults: dict[str, Any], container: Container) -> None:
    assert layers(spec, defaults)[0].container is container


@pytest.mark.parametrize(
    ("spec", "defaults", "template"),
    [
        pytest.param({"layers": [{"name": "a", "fileNameTemplate": OTHER}], "fileNameTemplate": TEMPLATE}, {}, OTHER, id="layer"),
        pytest.param({"layers": TWO, "fileNameTemplate": TEMPLATE}, {}, TEMPLATE, id="recording"),
        pytest.param({}, {"layers": [{"name": "a", "fileNameTemplate": OTHER}], "fileNameTemplate": TEMPLATE}, OTHER, id="layer of the class"),
        pytest.param({}, {"layers": TWO, "fileNameTemplate": TEMPLATE}, TEMPLATE, id="class"),
        pytest.param({}, {"layers": TWO}, DEFAULT_FILE_NAME_TEMPLATE, id="built in"),
    ],
)  # fmt: skip
def test_template_comes_from_the_nearest(spec: dict[str, Any], defaults: dict[str, Any], template: str) -> None:
    assert layers(spec, defaults)[0].file_name_template == template


def test_prefix_is_the_name_unless_the_layer_says_otherwise() -> None:
    own = layers({"layers": [{"name": "a"}, {"name": "b", "fileNamePrefix": "x"}]}, {})
    theirs = layers({}, {"layers": [{"name": "a"}, {"name": "b", "fileNamePrefix": "x"}]})
    assert [layer.file_name_prefix for layer in own] == [layer.file_name_prefix for layer in theirs] == ["a", "x"]


def test_pod_is_told_of_every_layer() -> None:
    owner = a_class()
    intent = intent_of(a_recording(layers=[SPEECH, {"name": "b", **WEBM}]).build(), owner, owner.spec.storages[0], 1)
    told = [(layer.name, layer.file_name_prefix, layer.output_types[0], layer.container) for layer in intent.layers]
    assert told == [("speech", "speech", AUDIO, Container.MKV), ("b", "b", BOTH, Container.WEBM)]


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        pytest.param({}, 20, id="the class says nothing"),
        pytest.param({"keyFrameIntervalSeconds": 7}, 7, id="the class's"),
        pytest.param({"keyFrameIntervalSeconds": 0}, 0, id="never by the clock"),
    ],
)
def test_pod_is_told_how_often_to_ask_for_key_frames(spec: dict[str, Any], seconds: int) -> None:
    owner = a_class(**spec)
    intent = intent_of(a_recording().build(), owner, owner.spec.storages[0], 1)
    assert intent.key_frame_interval_seconds == seconds


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        pytest.param({}, 5, id="the class says nothing"),
        pytest.param({"checkpointSeconds": 60}, 60, id="the class's"),
        pytest.param({"checkpointSeconds": 0}, 0, id="never"),
    ],
)
def test_pod_is_told_how_often_to_write_checkpoints(spec: dict[str, Any], seconds: int) -> None:
    owner = a_class()
    storage = owner.spec.storages[0]
    storage = storage.model_copy(update={"s3": S3Storage.model_validate({**storage.s3.model_dump(), **spec})})
    told = intent_of(a_recording().build(), owner, storage, 1).storage
    assert told is not None
    assert told.checkpoint_seconds == seconds


@pytest.mark.parametrize(
    ("beside", "others"),
    [
        pytest.param((), (), id="the first"),
        pytest.param((False, False), ("", ""), id="in the place of lost ones"),
        pytest.param((True,), ("-2",), id="beside one that hands over"),
        pytest.param((True, True), ("-2", ""), id="beside that one"),
        pytest.param((True, False, True), ("-2", "-2", ""), id="in its place"),
    ],
)
def test_a_successor_takes_the_other_identity_only_beside_a_pod_that_hands_over(
    beside: tuple[bool, ...], others: tuple[str, ...]
) -> None:
    """In the place of one that is lost it has the same: the SFU puts out who may record on."""
    recording, owner = a_recording().build(), a_class()
    intent = intent_of(recording, owner, owner.spec.storages[0], 1)
    first, found = intent.source.identity, []
    for n, planned in enumerate(beside, 2):
        intent = intent_of(recording, owner, owner.spec.storages[0], n, intent.to_json(), beside=planned)
        found.append(intent.source.identity)
    assert found == [first + other for other in others]
    assert identity_of(intent.to_json(), names.uid_of(recording)) == intent.source.identity
    assert identity_of("", names.uid_of(recording)) == first


def test_without_checkpoints_pods_do_not_record_side_by_side() -> None:
    """What two of them have could not be made into one file."""
    recording, owner = a_recording().build(), a_class()
    s3 = owner.spec.storages[0].s3.model_copy(update={"checkpoint_seconds": 0})
    storage = owner.spec.storages[0].model_copy(update={"s3": s3})
    first = intent_of(recording, owner, storage, 1)
    assert intent_of(recording, owner, storage, 2, first.to_json(), beside=True).source == first.source


@pytest.mark.parametrize(("word", "quality"), [({}, Quality.HIGH), ({"quality": "low"}, Quality.LOW)])
def test_pod_is_told_which_layer_to_receive(word: dict[str, str], quality: Quality) -> None:
    server = {"url": "wss://livekit.example.com", "credentialsSecretName": "livekit", **word}
    owner = a_class(source={"livekit": server})
    assert intent_of(a_recording().build(), owner, owner.spec.storages[0], 1).source.quality is quality


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param({}, id="as the bucket does it"),
        pytest.param({"forcePathStyle": False, "serverSideEncryption": {"mode": "AES256"}}, id="keys of the service"),
        pytest.param({"serverSideEncryption": {"mode": "aws:kms", "kmsKeyId": "alias/recordings"}}, id="a key of ours"),
    ],
)
def test_the_storage_reaches_the_pod_as_the_class_has_it(wish: dict[str, Any]) -> None:
    s3 = {"bucket": "recordings", "endpoint": "https://s3.example.com", "region": "eu-central-1", **wish}
    owner = a_class(storages=[{"name": "archive", "s3": {**s3, "credentials": {"secretName": "archive"}}}])
    intent = intent_of(a_recording().build(), owner, owner.spec.storages[0], 1)
    assert intent.storage is not None
    told = intent.storage.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert {key: value for key, value in told.items() if key in s3} == s3
    assert {"forcePathStyle", "serverSideEncryption"} & told.keys() == set(wish)
