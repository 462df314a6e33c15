"""Who is in a call, and the ledger of what they sent (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from isotrack_api.base import MediaKind

from .evidence import Published, Source
from .serials import PICTURE_BYTES

SOUND_PER_SECOND: Final = 50
PICTURES_PER_SECOND: Final = 15


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person of a call."""

    identity: str
    kinds: tuple[MediaKind, ...] = (MediaKind.AUDIO, MediaKind.VIDEO)
    picture_bytes: int = PICTURE_BYTES
    """Size of each picture: at 15 a second, 100,000 make a file of several parts within six seconds."""


EVERYBODY: Final = (Somebody("alice"), Somebody("bob", (MediaKind.AUDIO,)))
LARGE: Final = (Somebody("alice", picture_bytes=100_000), Somebody("bob", (MediaKind.AUDIO,)))


def write_people(people: Sequence[Somebody]) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [asdict(person) for person in people]


def read_people(values: Sequence[Mapping[str, Any]]) -> list[Somebody]:
    """What `write_people` wrote."""
    return [Somebody(v["identity"], tuple(map(MediaKind, v["kinds"])), v["picture_bytes"]) for v in values]


@dataclass(slots=True)
class Ledger:
    """What everybody sent."""

    published: dict[Source, Published] = field(default_factory=dict)

    @classmethod
    def of(cls, people: Sequence[Somebody]) -> Self:
        """A ledger in which nobody has sent anything yet."""
        ledger = cls()
        for person in people:
            for kind in person.kinds:
                rate = SOUND_PER_SECOND if kind is MediaKind.AUDIO else PICTURES_PER_SECOND
                ledger.published[Source(person.identity, kind)] = Published(len(ledger.published) + 1, rate)
        return ledger

    @property
    def stamps(self) -> Mapping[int, Source]:
        """Whose number is whose."""
        return {published.stamp: source for source, published in self.published.items()}

    def to_json(self) -> str:
        """For a file."""
        return json.dumps(
            [
                {"who": source.user_id, "kind": source.kind, "stamp": p.stamp, "rate": p.per_second, "sent": p.sent}
                for source, p in self.published.items()
            ]
        )

    def load(self, text: str) -> None:
        """Take over what `to_json` wrote."""
        for row in json.loads(text):
            sent = {int(serial): at for serial, at in row["sent"].items()}
            source = Source(row["who"], MediaKind(row["kind"]))
            self.published[source] = Published(row["stamp"], row["rate"], sent)
