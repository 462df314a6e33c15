"""What a person is told of a storage that does not answer."""

from __future__ import annotations

import io

from isotrack_recorder.cli.trouble import QUIET_SECONDS, StorageTrouble
from isotrack_recorder.ship.store import Trouble

AWAY = Trouble("StorageUnavailable", "http://s3.example cannot be reached")


class Told:
    """A StorageTrouble on a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stream = io.StringIO()
        self.trouble = StorageTrouble(self.stream, "trying again", lambda: self.now)

    def after(self, seconds: float, answer: Trouble | None) -> str:
        """What has been said once an answer came so much later."""
        self.now += seconds
        self.trouble(answer)
        return self.stream.getvalue()


def test_an_outage_is_told_once_and_so_is_its_end() -> None:
    told = Told()
    assert told.after(0, AWAY) == "", "what is final at once the command's last line tells"
    said = told.after(QUIET_SECONDS, AWAY)
    assert said == "isotrack: http://s3.example cannot be reached; trying again\n"
    assert told.after(60, AWAY) == said
    assert told.after(1, None) == f"{said}isotrack: the storage answers again\n"
    assert told.after(1, None).count("again\n") == 2


def test_each_outage_is_told() -> None:
    told = Told()
    for _ in range(2):
        for answer in (AWAY, AWAY, None):
            told.after(QUIET_SECONDS, answer)
    assert told.stream.getvalue().count("cannot be reached") == 2


def test_a_hiccup_is_not_worth_a_word() -> None:
    told = Told()
    for _ in range(20):
        told.after(QUIET_SECONDS / 2, AWAY)
        told.after(QUIET_SECONDS, None)
    assert told.stream.getvalue() == ""
