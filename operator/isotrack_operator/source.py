"""Questions to the SFU, and join tokens. The only module that imports livekit-api (lazily: half a second of imports).

Tokens carry what LiveKit's own recorder has: kind egress, hidden, recorder, subscribe only; the room closes after its last human left
although such a participant is still in it. The Secret with the credentials never leaves this module's callers in the operator.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp

from .errors import SourceError, SourceRefusedError, cut

KEY, SECRET = "apiKey", "apiSecret"
TOKEN_VALID = timedelta(minutes=10)
"""Long enough to pull an image; the SFU refreshes the token of who is in."""
ANSWER_SECONDS = 10.0
MAX_NAMES = 100
"""Names in one ListRooms request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A LiveKit server and our credentials for it."""

    url: str
    key: str = field(repr=False)
    secret: str = field(repr=False)


def read_access(url: str, secret: Mapping[str, Any]) -> Access | str:
    """Credentials from a Secret object; text that says what is wrong with it."""
    data = secret.get("data") or {}
    found = {}
    for key in (KEY, SECRET):
        try:
            found[key] = base64.b64decode(data.get(key) or "", validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError, TypeError):
            return f"has a value of key {key} that is not text"
        if not found[key]:
            return f"lacks key {key}"
    return Access(url=url, key=found[KEY], secret=found[SECRET])


def mint_join_token(access: Access, *, room: str, identity: str) -> str:
    """A token to join one room as a hidden recorder (JWT)."""
    from livekit import api

    grants = api.VideoGrants(
        room_join=True,
        room=room,
        can_subscribe=True,
        can_publish=False,
        can_publish_data=False,
        hidden=True,
        recorder=True,
    )
    token = api.AccessToken(access.key, access.secret).with_identity(identity).with_kind("egress")
    return token.with_grants(grants).with_ttl(TOKEN_VALID).to_jwt()


async def existing_rooms(access: Access, rooms: Sequence[str]) -> set[str]:
    """Which of these rooms exist now.

    Raises:
        SourceRefusedError: the server does not take our credentials.
        SourceError: it cannot be reached, or does not answer like a LiveKit server.
    """
    from google.protobuf.message import DecodeError
    from livekit import api

    found: set[str] = set()
    try:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        # NB: no failover: it would retry for seconds inside; our own poll comes again.
        async with api.LiveKitAPI(access.url, access.key, access.secret, timeout=timeout, failover=False) as server:
            for start in range(0, max(len(rooms), 1), MAX_NAMES):
                names = rooms[start : start + MAX_NAMES]
                answer = await server.room.list_rooms(api.ListRoomsRequest(names=names))
                found |= {room.name for room in answer.rooms}
    except api.ServerError as error:
        if error.status in (401, 403):
            raise SourceRefusedError(
                f"{access.url} does not take our credentials ({error.code}): check {KEY} and {SECRET}"
            ) from error
        raise SourceError(f"{access.url} answers with an error: {cut(error.code)}: {cut(error.message)}") from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, DecodeError) as error:
        raise SourceError(f"{access.url} cannot be reached: {_explain(error)}") from error
    return found & set(rooms)


def _explain(error: Exception) -> str:
    """Why a connection failed, in a few words: the system's, since a client library's name its own inner life."""
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_SECONDS:.0f} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({cut(error.certificate_error)})"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:  # name resolution has numbers of its own, below zero
        return os.strerror(cause.errno or 0)
    return cut(getattr(cause, "strerror", "") or cause) or type(cause).__name__
