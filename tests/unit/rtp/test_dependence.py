"""Which pictures behind a loss are made from what is missing, held against a model that knows the references of each."""

from __future__ import annotations

import random

import pytest

from isotrack_recorder.codecs.base import Layer, Octets, PictureId
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.rtp.dependence import Dependence

# libvpx's patterns (RFC 7741 section 4.2 names what the bits mean): temporal layer, whether it needs layer 0 alone
PATTERNS = {
    1: [(0, False)],
    2: [(0, False), (1, True), (0, False), (1, False)],
    3: [(0, False), (2, True), (1, True), (2, False), (0, False), (2, False), (1, False), (2, False)],
}


class Publisher:
    """Pictures in temporal layers, each with the earlier ones that it is made from."""

    def __init__(self, layers: int, rng: random.Random, key_every: int) -> None:
        self._pattern = PATTERNS[layers]
        self._rng, self._key_every = rng, key_every
        self._number, self._base = -1, rng.randrange(256)
        self._newest: dict[int, int] = {}

    def next(self) -> tuple[int, bytes, bool, set[int]]:
        """Number, first payload, whether it is a key frame, numbers of the pictures that it is made from."""
        self._number += 1
        number = self._number
        key = number % self._key_every == 0
        temporal, sync = (0, False) if key else self._pattern[number % self._key_every % len(self._pattern)]
        made_from = set() if key else {self._newest[0]}
        if not key and not sync:
            made_from |= {self._newest[layer] for layer in range(temporal + 1) if layer in self._newest}
        if key:
            self._newest = {}
        self._base = (self._base + (temporal == 0)) & 0xFF
        self._newest[temporal] = number
        return number, vp8_payload(number, Layer(temporal, self._base, sync)), key, made_from


def vp8_payload(picture: int, layer: Layer | None) -> bytes:
    """The first payload of a frame."""
    if layer is None:
        return bytes((0x90, 0x80, 0x80 | picture >> 8 & 0x7F, picture & 0xFF)) + b"frame"
    told = bytes((layer.base, layer.temporal << 6 | layer.sync << 5))
    return bytes((0x90, 0xE0, 0x80 | picture >> 8 & 0x7F, picture & 0xFF)) + told + b"frame"


@pytest.mark.parametrize("layers", PATTERNS)
@pytest.mark.parametrize("seed", range(20))
def test_no_picture_that_lacks_something_is_taken_for_good(layers: int, seed: int) -> None:
    rng = random.Random(seed)
    publisher = Publisher(layers, rng, key_every=100)
    dependence, layer_of = Dependence(), CODECS["vp8"].layer
    good: set[int] = set()
    wrong = 0
    for _ in range(3000):
        number, payload, key, made_from = publisher.next()
        if number and rng.random() < 0.02:
            dependence.lose(rng.randrange(1, 4), layer_of)
            continue
        decodes = made_from <= good
        if decodes:
            good.add(number)
        wrong += dependence.take(payload, layer_of, key=key) and not decodes
    assert wrong == 0
    assert len(good) > 300


@pytest.mark.parametrize(("layers", "share"), [(2, 0.65), (3, 0.75)])
def test_lost_pictures_of_higher_layers_spoil_those_layers_alone(layers: int, share: float) -> None:
    """No key frame comes; layer 0 is half or a quarter of all."""
    rng = random.Random(layers)
    publisher = Publisher(layers, rng, key_every=10_000)
    dependence, layer_of = Dependence(), CODECS["vp8"].layer
    taken: list[bool] = []
    for _ in range(3000):
        number, payload, key, _ = publisher.next()
        layer = layer_of(payload)
        assert layer is not None
        if number and layer.temporal and rng.random() < 0.04:
            dependence.lose(1, layer_of)
            continue
        taken.append(dependence.take(payload, layer_of, key=key))
        assert taken[-1] or layer.temporal
    assert sum(taken) > share * 3000


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param([8], [True], id="the-next-of-layer-0"),
        pytest.param([9, 10], [False, False], id="one-of-layer-0-is-missing-and-nothing-helps"),
        pytest.param([9, 8], [False, False], id="not-even-the-right-number-later"),
    ],
)
def test_frames_of_layer_0_follow_each_other(numbers: list[int], expected: list[bool]) -> None:
    dependence, layer_of = Dependence(), CODECS["vp8"].layer
    dependence.take(vp8_payload(0, Layer(0, 7)), layer_of, key=True)
    dependence.lose(1, layer_of)
    found = [dependence.take(vp8_payload(1, Layer(0, number)), layer_of, key=False) for number in numbers]
    assert found == expected


def test_numbers_that_may_have_come_round_prove_nothing() -> None:
    dependence, layer_of = Dependence(), CODECS["vp8"].layer
    dependence.take(vp8_payload(0, Layer(0, 7)), layer_of, key=True)
    dependence.lose(200, layer_of)
    dependence.lose(56, layer_of)
    assert not dependence.take(vp8_payload(1, Layer(0, 8)), layer_of, key=False)
    assert dependence.take(vp8_payload(2, Layer(0, 9)), layer_of, key=True)
    assert dependence.take(vp8_payload(3, Layer(0, 10)), layer_of, key=False)


def test_a_stream_that_tells_no_layers_waits_for_a_key_frame() -> None:
    dependence, layer_of = Dependence(), CODECS["vp8"].layer
    assert dependence.take(vp8_payload(0, None), layer_of, key=True)
    dependence.lose(1, layer_of)
    assert not dependence.take(vp8_payload(1, None), layer_of, key=False)
    assert not dependence.take(vp8_payload(2, Layer(0, 1)), layer_of, key=False)
    assert dependence.take(vp8_payload(3, None), layer_of, key=True)


@pytest.mark.parametrize(
    ("codec", "payload", "layer"),
    [
        pytest.param("vp8", "90e0 8005 07 60 aa", Layer(1, 7, sync=True), id="vp8"),
        pytest.param("vp8", "90e0 05 07 80 aa", Layer(2, 7), id="vp8-short-picture-id"),
        pytest.param("vp8", "9060 07 40 aa", Layer(1, 7), id="vp8-no-picture-id"),
        pytest.param("vp8", "9040 07 aa aa", None, id="vp8-no-temporal-layer"),
        pytest.param("vp8", "90a0 05 40 aa", None, id="vp8-no-number"),
        pytest.param("vp8", "10aa aaaa aaaa", None, id="vp8-no-extension"),
        pytest.param("vp8", "90e0 8005 07", None, id="vp8-too-short"),
        pytest.param("vp9", "a8 8005 31 07 aa", Layer(1, 7, opens=True), id="vp9-switching-up"),
        pytest.param("vp9", "28 40 07 aa", Layer(2, 7), id="vp9-no-picture-id"),
        pytest.param("vp9", "b8 8005 31 07 aa", None, id="vp9-flexible"),
        pytest.param("vp9", "88 8005 aaaa aa", None, id="vp9-no-layers"),
        pytest.param("h264", "41aa aaaa aaaa", None, id="h264"),
    ],
)
def test_the_payload_descriptor_tells_the_layer(codec: str, payload: str, layer: Layer | None) -> None:
    data: Octets = bytes.fromhex(payload)
    assert CODECS[codec].layer(data) == layer
    for length in range(len(data)):
        CODECS[codec].layer(data[:length])


@pytest.mark.parametrize(
    ("codec", "payload", "picture_id"),
    [
        pytest.param("vp8", "90e0 8205 07 60 aa", PictureId(0x205, 1 << 15), id="vp8"),
        pytest.param("vp8", "9080 05 aa aa", PictureId(5, 1 << 7), id="vp8-short"),
        pytest.param("vp8", "9060 07 40 aa", None, id="vp8-no-picture-id"),
        pytest.param("vp8", "10aa aaaa aaaa", None, id="vp8-no-extension"),
        pytest.param("vp9", "88 8205 aaaa aa", PictureId(0x205, 1 << 15), id="vp9"),
        pytest.param("vp9", "88 05 aaaa aa", PictureId(5, 1 << 7), id="vp9-short"),
        pytest.param("vp9", "28 40 07 aa", None, id="vp9-no-picture-id"),
        pytest.param("h264", "41aa aaaa aaaa", None, id="h264"),
    ],
)
def test_the_payload_descriptor_numbers_the_picture(codec: str, payload: str, picture_id: PictureId | None) -> None:
    data: Octets = bytes.fromhex(payload)
    assert CODECS[codec].picture_id(data) == picture_id
    for length in range(len(data)):
        CODECS[codec].picture_id(data[:length])


def test_vp9_opens_its_higher_layers_again() -> None:
    """A frame of layer 0 that is a switching point: what follows needs nothing from before it."""
    dependence, layer_of = Dependence(), CODECS["vp9"].layer

    def frame(temporal: int, base: int, *, opens: bool = False, key: bool = False) -> bool:
        return dependence.take(bytes((0x28, temporal << 5 | opens << 4, base, 0xAA)), layer_of, key=key)

    assert frame(0, 1, key=True)
    assert frame(2, 1)
    dependence.lose(1, layer_of)
    assert not frame(2, 1)
    assert frame(0, 2)
    assert not frame(1, 2)
    assert frame(0, 3, opens=True)
    assert frame(2, 3)
    assert frame(1, 3)
