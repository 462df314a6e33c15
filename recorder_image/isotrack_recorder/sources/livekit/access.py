"""What needs an API key: minting join tokens, and asking whether a room exists. For the command line only.

The pod never has an API key: the operator mints its token. This is the recorder's one module that imports `livekit.api`.
"""

from __future__ import annotations

import asyncio
import warnings
from datetime import timedelta

import aiohttp
from livekit import api

from isotrack_recorder.errors import CallNotFoundError, SourceError, SourceRefusedError

from .signalling import explain, host_of

TOKEN_LIFETIME = timedelta(minutes=10)
"""LiveKit refreshes it over the wire while we are connected; a rejoin gets a new one."""
LOOK_UP_SECONDS = 10.0

# The secret's length is for the server's owner to choose (LiveKit's development mode has one of six characters); two lines
# about RFC 7518 on the recorder's stderr help nobody.
warnings.filterwarnings("ignore", message="The HMAC key is")


class MintedTokens:
    """Join tokens made from an API key, a fresh one for each join.

    They are what LiveKit's own recorders join with: hidden, kind egress, may subscribe and nothing else.
    """

    def __init__(self, key: str, secret: str, room: str, identity: str) -> None:
        self._key = key
        self._secret = secret
        self._room = room
        self._identity = identity

    def current(self) -> str:
        """See Tokens."""
        grants = api.VideoGrants(
            room_join=True,
            room=self._room,
            can_subscribe=True,
            can_publish=False,
            can_publish_data=False,
            hidden=True,
            recorder=True,
        )
        token = api.AccessToken(self._key, self._secret).with_identity(self._identity).with_kind("egress")
        return token.with_grants(grants).with_ttl(TOKEN_LIFETIME).to_jwt()

    def refreshed(self, token: str) -> None:
        """See Tokens. Nothing to keep: the next one is minted."""


async def find_room(url: str, key: str, secret: str, room: str) -> str:
    """Ask the server for a room, since joining an unknown one would create it; returns its session id.

    Raises:
        SourceRefusedError: Key or secret are wrong.
        CallNotFoundError: There is no such room now.
        SourceError: The server cannot be reached.
    """
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS), api.LiveKitAPI(url, key, secret) as client:
            found = await client.room.list_rooms(api.ListRoomsRequest(names=[room]))
    except api.TwirpError as error:
        if error.status in (401, 403):
            raise SourceRefusedError(
                f"LiveKit at {host_of(url)} refuses the API key or secret: check LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
            ) from error
        raise SourceError(f"LiveKit at {host_of(url)} cannot list rooms: {str(error.message)[:200]}") from error
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SourceError(f"cannot reach LiveKit at {host_of(url)}: {explain(error)}") from error
    for candidate in found.rooms:
        if candidate.name == room:
            return candidate.sid
    raise CallNotFoundError(f"there is no room {room[:100]!r} on {host_of(url)} now: is somebody in the call?")
