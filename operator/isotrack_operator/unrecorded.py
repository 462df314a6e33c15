"""Tracks that cannot be recorded, as reports and last words tell of them: whose, which, why, and what to do. Pure.

While the call runs the reports of its attempts know them; at the end whoever wrote the manifest says what is in no file. All names are
foreign text: cut, on one line, and only the first few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isotrack_api.conditions import Reason
from isotrack_api.recording_report import MAX_REPORT_UNRECORDED

from .errors import cut
from .view import LeftOut, Termination, View

MAX_NAMED: Final = 5
MAX_NAME: Final = 40
MAX_WORD: Final = 24
MAX_DETAIL: Final = 48


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause of the manifest's, in our words."""

    reason: Reason
    words: str
    advice: str


_REFUSED: Final = Cause(Reason.TRACK_REFUSED, "not sent by the SFU", "See the log of the SFU.")
CAUSES: Final[Mapping[str, Cause]] = {
    "Encrypted": Cause(
        Reason.END_TO_END_ENCRYPTED,
        "end-to-end encrypted",
        "The recorder has no key: what is to be recorded must be published without end-to-end encryption.",
    ),
    "CodecUnsupported": Cause(
        Reason.UNSUPPORTED_CODEC,
        "codec not supported",
        "Clients must publish Opus, PCMU, PCMA or G722, and VP8, VP9, AV1, H264 or H265.",
    ),
    "SubscriptionRefused": _REFUSED,
    "NoMedia": Cause(Reason.TRACK_REFUSED, "nothing in it can be decoded", "See recording.json."),
    "Shed": Cause(Reason.TRACK_REFUSED, "the disk was full for as long as it lasted", "See UploadLagging."),
}
"""By the manifest's word, in the order in which they become the reason of the condition."""


def reported(view: View) -> tuple[LeftOut, ...]:
    """What the attempts' reports tell, each track once over all of them."""
    rows = {
        row.id: LeftOut(user_id=row.user_id, source=row.source, reason=row.reason, message=row.message)
        for attempt in view.attempts
        if attempt.report
        for row in attempt.report.status.unrecorded
    }
    return tuple(rows.values())


def reason_of(rows: Sequence[LeftOut]) -> Reason:
    """Of several causes the one that comes first in CAUSES."""
    order = list(CAUSES)
    known = sorted((row.reason for row in rows if row.reason in CAUSES), key=order.index)
    return (CAUSES[known[0]] if known else _REFUSED).reason


def named(rows: Sequence[LeftOut], total: int = 0) -> str:
    """The first few of `rows` in words, and how many more there are of `total`."""
    total = max(total, len(rows))
    text = ", ".join(_words(row) for row in rows[:MAX_NAMED])
    more = total - min(len(rows), MAX_NAMED)
    if more <= 0:
        return text
    return f"{text} and {'at least ' if total >= MAX_REPORT_UNRECORDED else ''}{more} more"


def explained(rows: Sequence[LeftOut]) -> str:
    """Which tracks are left out and what to do about it, for a condition. Recording.status is written anew where this changes."""
    advice = dict.fromkeys(CAUSES[row.reason].advice for row in rows if row.reason in CAUSES)
    return " ".join((f"not recorded: {named(rows)}.", *advice))


def missing(view: View, said: Termination | None) -> str:
    """What is in no file, for a verdict: as `said` by who wrote the manifest, else as reported. Empty where nothing is known."""
    if said is not None and said.unrecorded:
        return named(said.unrecorded, said.unrecorded_tracks)
    rows = reported(view)
    return named(rows) if rows else ""


def _words(row: LeftOut) -> str:
    cause = CAUSES.get(row.reason)
    words = cause.words if cause else cut(row.reason, MAX_WORD)
    # NB: what the recorder adds to Encrypted says the same once more
    detail = cut(row.message, MAX_DETAIL) if row.reason != "Encrypted" else ""
    return f"{cut(row.user_id, MAX_NAME)} {row.source} ({words}{': ' if detail else ''}{detail})"
