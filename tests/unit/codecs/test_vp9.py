"""VP9: descriptors, layers and superframes, key flag and sizes from the frame headers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.vp9 import Vp9Depacketizer, descriptor_length, frames_of, superframe
from isotrack_recorder.codecs.vp9_header import ColorConfig, SizeTracker, color_config
from isotrack_recorder.errors import ParseError
from support.media import video_frames
from support.payloads import vp9_payloads

# Made by libvpx, 322x182; profiles 0 to 3: 8-bit 4:2:0, 8-bit 4:4:4, 10-bit 4:2:0, 12-bit 4:4:4
KEY_FRAMES = {
    0: bytes.fromhex("824983420014100b5606"),
    1: bytes.fromhex("a2498342000282016ac0"),
    2: bytes.fromhex("92498342000a0805ab03"),
    3: bytes.fromhex("b124c1a14000a0805ab0"),
}


class BitWriter:
    """Writes headers by the syntax tables."""

    def __init__(self) -> None:
        self.bits = ""

    def put(self, value: int, count: int) -> BitWriter:
        self.bits += f"{value:0{count}b}"
        return self

    def bytes(self, rest: bytes = b"") -> bytes:
        bits = self.bits + "0" * (-len(self.bits) % 8)
        return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)) + rest


def key_frame(width: int, height: int, rest: bytes = b"") -> bytes:
    writer = BitWriter().put(0b10, 2).put(0, 2).put(0, 1).put(0, 1).put(1, 1).put(0, 1)
    writer.put(0x498342, 24).put(0, 3).put(0, 1)
    return writer.put(width - 1, 16).put(height - 1, 16).bytes(rest)


def inter_frame(
    *, size: tuple[int, int] | None = None, refresh: int = 1, slots: tuple[int, int, int] = (0, 0, 0), rest: bytes = b""
) -> bytes:
    """`size` absent = that of the first reference."""
    writer = BitWriter().put(0b10, 2).put(0, 2).put(0, 1).put(1, 1).put(1, 1).put(0, 1).put(0, 2).put(refresh, 8)
    for slot in slots:
        writer.put(slot, 3).put(0, 1)
    if size is None:
        writer.put(1, 1)
    else:
        writer.put(0, 3).put(size[0] - 1, 16).put(size[1] - 1, 16)
    return writer.bytes(rest)


@pytest.mark.parametrize(
    ("profile", "config"),
    [
        (0, ColorConfig(0, 8, 1, 1)),
        (1, ColorConfig(1, 8, 0, 0)),
        (2, ColorConfig(2, 10, 1, 1)),
        (3, ColorConfig(3, 12, 0, 0)),
    ],
)
def test_key_frames_tell_size_and_samples_in_every_profile(profile: int, config: ColorConfig) -> None:
    frame = KEY_FRAMES[profile] + bytes(20)
    found = Vp9Depacketizer().frame(vp9_payloads([frame]))
    assert (found.data, found.key, found.width, found.height) == (frame, True, 322, 182)
    assert color_config(frame) == config


@pytest.mark.parametrize("picture_id", [None, 5, 300])
@pytest.mark.parametrize("structure", [b"", bytes.fromhex("18 0280 0168 03 0401 080102 0c010203")])
def test_descriptors_of_every_length_are_stripped(picture_id: int | None, structure: bytes) -> None:
    frame = key_frame(640, 360, bytes(range(200)) * 20)
    payloads = vp9_payloads([frame], picture_id=picture_id, structure=structure, size=700)
    assert len(payloads) > 3
    assert Vp9Depacketizer().frame(payloads).data == frame


@pytest.mark.parametrize("steps", [(1,), (1, 2), (1, 2, 3)])
def test_flexible_mode_lists_references(steps: tuple[int, ...]) -> None:
    payload = vp9_payloads([b"\x86\0\x40\x92\x9c"], inter=True, flexible=steps)[0]
    assert descriptor_length(payload) == 2 + len(steps)


def test_spatial_layers_become_one_superframe() -> None:
    """Key flag of the lowest, size of the largest; each layer as it was."""
    layers = [
        key_frame(320, 180, b"a" * 70),
        inter_frame(size=(640, 360), refresh=2, rest=b"b" * 300),
        inter_frame(size=(1280, 720), refresh=4, slots=(1, 1, 1), rest=b"c" * 70_000),
    ]
    frame = Vp9Depacketizer().frame(vp9_payloads(layers))
    assert (frame.key, frame.width, frame.height) == (True, 1280, 720)
    assert frame.data.startswith(b"".join(layers))
    assert frames_of(frame.data) == layers


def test_an_upper_layer_that_stands_alone_passes_as_it_is() -> None:
    """As an SFU forwards K-SVC between key pictures."""
    depacketizer = Vp9Depacketizer()
    layers = [key_frame(320, 180, b"a" * 70), inter_frame(size=(640, 360), refresh=2, rest=b"b" * 300)]
    depacketizer.frame(vp9_payloads(layers))
    alone = inter_frame(slots=(1, 1, 1), refresh=2, rest=b"d" * 30)
    payloads = vp9_payloads([alone], first_layer=1, inter=True)
    assert depacketizer.starts_frame(payloads[0])
    frame = depacketizer.frame(payloads)
    assert (frame.data, frame.key, frame.width, frame.height) == (alone, False, 640, 360)


def test_sizes_change_between_key_frames() -> None:
    """libvpx scales references: an inter frame may have any size."""
    depacketizer = Vp9Depacketizer()
    sizes = []
    for frame in (
        key_frame(640, 360),
        inter_frame(rest=b"a"),
        inter_frame(size=(320, 180), refresh=1, rest=b"b"),
        inter_frame(rest=b"c"),
        inter_frame(slots=(3, 0, 0), rest=b"d"),
    ):
        found = depacketizer.frame(vp9_payloads([frame]))
        sizes.append((found.width, found.height))
    assert sizes == [(640, 360), (640, 360), (320, 180), (320, 180), (640, 360)]


def test_a_frame_that_only_shows_another_has_its_size() -> None:
    depacketizer = Vp9Depacketizer()
    depacketizer.frame(vp9_payloads([key_frame(640, 360)]))
    found = depacketizer.frame(vp9_payloads([b"\x8a"]))
    assert (found.key, found.width, found.height) == (False, 640, 360)


def test_an_encoders_own_superframe_is_kept_and_taken_apart_among_layers() -> None:
    hidden, shown = key_frame(64, 64, b"h" * 20), inter_frame(rest=b"s" * 20)
    packed = superframe([hidden, shown])
    assert Vp9Depacketizer().frame(vp9_payloads([packed])).data == packed
    above = inter_frame(size=(128, 128), refresh=2, rest=b"u" * 20)
    joined = Vp9Depacketizer().frame(vp9_payloads([packed, above])).data
    assert frames_of(joined) == [hidden, shown, above]


@pytest.mark.parametrize(
    ("payload", "starts"),
    [
        pytest.param(b"\x8c\x01\x82", True, id="whole frame"),
        pytest.param(b"\x84\x01\x82", False, id="end of one"),
        pytest.param(b"\xac\x01\x00\x07\x82", True, id="lowest layer"),
        pytest.param(b"\xac\x01\x03\x07\x82", False, id="layer upon another"),
        pytest.param(b"\xac\x81\x01\x02\x07\x82", True, id="layer by itself"),
        pytest.param(b"\xac", False, id="cut"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_where_a_picture_can_begin(payload: bytes, starts: bool) -> None:
    assert Vp9Depacketizer().starts_frame(payload) is starts


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param([b"\x8c\x01"], id="nothing behind the descriptor"),
        pytest.param([b"\xae\x01\x00\x07\xf8"], id="ends in the scalability structure"),
        pytest.param([b"\xdc\x01\x03\x03\x03\x82"], id="four references"),
        pytest.param([b"\x84\x01\x82\0\0\0"], id="begins in the middle"),
        pytest.param([b"\x8c\x01\x42" + bytes(20)], id="no frame marker"),
        pytest.param([b"\x8c\x01\x82\x49\x83\x43" + bytes(20)], id="wrong sync code"),
        pytest.param([b"\x8c\x01\x82\x49\x83\x42\0"], id="ends in its header"),
        pytest.param(vp9_payloads([key_frame(16, 16)] * 9), id="nine layers"),
        pytest.param(vp9_payloads([b"\x82ab\xc9\x09\x09\xc9", key_frame(16, 16)]), id="index beyond its chunk"),
    ],
)
def test_broken_pictures_are_refused(payloads: list[bytes]) -> None:
    with pytest.raises(ParseError):
        Vp9Depacketizer().frame(payloads)


@given(st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=8))
def test_superframes_come_apart_as_they_were(frames: list[bytes]) -> None:
    packed = superframe(frames)
    assert frames_of(packed) == frames
    assert packed.startswith(b"".join(frames))


def test_real_frames_keep_their_sizes() -> None:
    sizes = SizeTracker()
    headers = [sizes.read(frame) for frame, _ in video_frames(20, "vp9", 322, 182, 10)]
    assert {header.size for header in headers} == {(322, 182)}
    assert [header.key for header in headers] == [key for _, key in video_frames(20, "vp9", 322, 182, 10)]


@given(st.lists(st.binary(max_size=60) | st.builds(lambda head, tail: struct.pack("!B", head) + key_frame(4, 4, tail),
                                                   st.integers(0, 255), st.binary(max_size=30)), min_size=1, max_size=6))  # fmt: skip
def test_junk_raises_parse_errors_only(payloads: list[bytes]) -> None:
    depacketizer = Vp9Depacketizer()
    for payload in payloads:
        depacketizer.starts_frame(payload)
    for _ in range(2):
        try:
            depacketizer.frame(payloads)
        except ParseError:
            continue
