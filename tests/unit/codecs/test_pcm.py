"""G.711 and G.722: packets pass, silence is silent."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.pcm import MAX_PACKET_BYTES, SILENCE, PcmDepacketizer
from isotrack_recorder.codecs.registry import find_codec
from isotrack_recorder.errors import ParseError
from support.media import pcm_packets

DECODERS = {"pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "g722": "g722"}


@pytest.mark.parametrize("codec", DECODERS)
def test_packets_pass_untouched(codec: str) -> None:
    spec = find_codec(codec.upper(), MediaKind.AUDIO, 8000, "")
    assert spec is not None
    depacketizer = spec.make("")
    for packet in pcm_packets(10, codec):
        assert len(packet) == 160, "20 ms of 8000 bytes per second"
        assert depacketizer.starts_frame(packet)
        frame = depacketizer.frame([bytearray(packet)])
        assert (frame.data, frame.key, frame.filler) == (packet, True, False)


@pytest.mark.parametrize("codec", DECODERS)
def test_silence_is_silent_right_behind_loud_sound(codec: str) -> None:
    """Below -55 dB of full scale after 20 ms, which lets G.722's predictor calm down."""
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = (16_000 if codec == "g722" else 8000), "mono"

    def decode(data: bytes) -> np.ndarray:
        return np.concatenate([frame.to_ndarray().ravel() for frame in decoder.decode(av.Packet(data))])

    loud = decode(b"".join(pcm_packets(50, codec)))
    assert abs(loud.astype(int)).max() > 6000
    quiet = decode(bytes((SILENCE[codec],)) * 8000)
    assert abs(quiet[len(quiet) // 50 :].astype(int)).max() < 32768 * 10 ** (-55 / 20)


@pytest.mark.parametrize("payloads", [[], [b""], [b"a", b"b"], [bytes(MAX_PACKET_BYTES + 1)]])
def test_anything_but_one_packet_is_refused(payloads: list[bytes]) -> None:
    with pytest.raises(ParseError):
        PcmDepacketizer().frame(payloads)


@given(st.binary(min_size=1, max_size=MAX_PACKET_BYTES))
def test_any_bytes_are_sound(packet: bytes) -> None:
    assert PcmDepacketizer().frame([packet]).data == packet
