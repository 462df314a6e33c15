"""What we use of aiortc, aioice and pylibsrtp without its being public is still there and works as we take it."""

from __future__ import annotations

import asyncio
import inspect
from importlib import import_module

import aioice
import aiortc
import pylibsrtp
import pytest
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from pylibsrtp import _binding

from isotrack_recorder.webrtc import transport
from isotrack_recorder.webrtc.transport import PRIVATE_NAMES


async def instances() -> dict[str, object]:
    gatherer = RTCIceGatherer(iceServers=[])
    dtls = RTCDtlsTransport(RTCIceTransport(gatherer), [RTCCertificate.generateCertificate()])
    return {
        "aiortc.RTCIceGatherer": gatherer,
        "aiortc.RTCDtlsTransport": dtls,
        "aioice.Connection": aioice.Connection(ice_controlling=False),
        "pylibsrtp.Session": pylibsrtp.Session(),
    }


async def test_private_names_exist() -> None:
    made = await instances()
    assert made.keys() == PRIVATE_NAMES.keys()
    for owner, names in PRIVATE_NAMES.items():
        for name in names:
            assert hasattr(made[owner], name), f"{owner}.{name}"


def test_hooks_of_the_dtls_transport_take_what_we_take() -> None:
    assert [*inspect.signature(RTCDtlsTransport._handle_rtp_data).parameters] == ["self", "data", "arrival_time_ms"]
    assert [*inspect.signature(RTCDtlsTransport._handle_rtcp_data).parameters] == ["self", "data"]
    source = inspect.getsource(RTCDtlsTransport._recv_next)
    assert "await self._handle_rtp_data(data, arrival_time_ms=arrival_time_ms)" in source
    assert "await self._handle_rtcp_data(data)" in source


def test_candidates_are_gathered_on_given_addresses() -> None:
    parameters = inspect.signature(aioice.Connection.get_component_candidates).parameters
    assert [*parameters][:3] == ["self", "component", "addresses"]


def test_libsrtp_is_called_as_it_is_declared() -> None:
    signature = str(_binding.ffi.typeof(_binding.lib.srtp_unprotect))
    assert signature == "<ctype 'srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)'>"
    assert _binding.lib.srtp_err_status_ok == 0


def test_asyncio_gives_its_socket_away() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert hasattr(loop, "_remove_reader")
    finally:
        loop.close()


@pytest.mark.parametrize("module", ["isotrack_recorder.rtp.plane", "isotrack_recorder.webrtc.answer"])
def test_only_the_transport_knows_aiortc(module: str) -> None:
    source = inspect.getsource(import_module(module))
    assert "aiortc" not in source
    assert aiortc.__name__ in inspect.getsource(transport)
