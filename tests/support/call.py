"""A call of a test's own: a room on a real SFU, people in it, and `isotrack` on it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from livekit import api

from isotrack_dev.servers import LiveKitInfo, S3Info

from .command import Ended, RecordCommand, isotrack, record_command
from .environment import of_servers
from .people import Cast, People, Person, environment_of_publishers, people


@dataclass(frozen=True, slots=True)
class Call:
    """A room of the test's own: people can be played in it, and it can be recorded."""

    room: str
    server: LiveKitInfo
    folder: Path
    environment: dict[str, str]
    """What `isotrack` gets: keys of the SFU and of the bucket."""

    @property
    def output(self) -> Path:
        """Where local recordings go."""
        return self.folder / "out"

    def people(
        self,
        cast: Sequence[Person] | Cast,
        *,
        folder: str = "people",
        more: Mapping[str, str] = MappingProxyType({}),
        zero: float | None = None,
    ) -> AbstractContextManager[People]:
        """Play people; see `support.people.people`. `more` goes over the environment of their process."""
        server = self.server
        publishers = environment_of_publishers(server.url, server.api_key, server.api_secret)
        return people(self.room, cast, self.folder / folder, {**publishers, **more}, zero=zero)

    def token(self, identity: str) -> str:
        """To join with as somebody who publishes."""
        grants = api.VideoGrants(room_join=True, room=self.room)
        token = api.AccessToken(self.server.api_key, self.server.api_secret)
        return token.with_identity(identity).with_grants(grants).to_jwt()

    def record(self, *options: str, output: str | None = None) -> AbstractContextManager[RecordCommand]:
        """Run `isotrack record` on this room."""
        where = ["--call", self.room, "--output", output or str(self.output)]
        return record_command(
            *where,
            *options,
            environment=self.environment,
            folder=self.folder,
            output=None if output else self.output,
        )

    @contextmanager
    def recorded(self, people: People, *who: str, options: Sequence[str] = ()) -> Iterator[RecordCommand]:
        """Let people join, record them into `output`, and go on once frames of all of them arrive."""
        people.join(*who)
        with self.record(*options) as recorder:
            for identity in who:
                recorder.recording(identity, *people.cast.sources(identity))
            yield recorder

    def isotrack(self, *arguments: str, **changes: str) -> Ended:
        """Run a command to its end; `changes` go over its environment."""
        return isotrack(*arguments, environment={**self.environment, **changes})

    def end(self) -> None:
        """Have the SFU end the call: everybody is put out."""

        async def delete() -> None:
            async with api.LiveKitAPI(self.server.http_url, self.server.api_key, self.server.api_secret) as client:
                await client.room.delete_room(api.DeleteRoomRequest(room=self.room))

        asyncio.run(delete())

    def mute(self, identity: str, source: int) -> None:
        """Have the SFU mute somebody's tracks of this source."""

        async def mute() -> None:
            async with api.LiveKitAPI(self.server.http_url, self.server.api_key, self.server.api_secret) as client:
                wanted = api.RoomParticipantIdentity(room=self.room, identity=identity)
                for track in (await client.room.get_participant(wanted)).tracks:
                    if track.source == source:
                        await client.room.mute_published_track(
                            api.MuteRoomTrackRequest(room=self.room, identity=identity, track_sid=track.sid, muted=True)
                        )

        asyncio.run(mute())


def a_call(name: str, folder: Path, server: LiveKitInfo, s3: S3Info) -> Call:
    """A call in a room that is called after `name` (of a test, say); nothing of our own environment that is about servers reaches it."""
    room = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LIVEKIT_", "AWS_", "ISOTRACK_"))},
        **of_servers(server, s3),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    return Call(room, server, folder, environment)
