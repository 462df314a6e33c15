"""What a person sees on stderr while a recording runs: a live table on a terminal, one line per change elsewhere.

Both are a Display: `show` takes the newest State as often as it likes to change; `close` leaves the screen in order.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from isotrack_api.base import SpoolLevel
from isotrack_recorder.control import State, TrackState

from .changes import describe, plain, why

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESHES_PER_SECOND = 4
CLOSE_SECONDS: Final = 1.0
"""How long a terminal is waited for at the end."""
_WIDE_COLUMNS: Final = 130
_WIDE_NAMES: Final = ("packets", "late", "key asked", "sizes", "last")


def tell(stream: TextIO, text: str) -> None:
    """Write and flush, if anybody is still there to read: a closed terminal must not cost the recording."""
    with contextlib.suppress(OSError):
        stream.write(text)
        stream.flush()


class Display(Protocol):
    """Takes what is to be seen."""

    def show(self, state: State) -> None:
        """Show the newest state."""

    def say(self, text: str) -> None:
        """Print one line that stays."""

    def close(self) -> None:
        """Stop drawing."""


class LineDisplay:
    """Prints one line per change."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: State | None = None

    def show(self, state: State) -> None:
        """See Display."""
        for line in describe(self._last, state):
            self.say(line)
        self._last = state

    def say(self, text: str) -> None:
        """See Display."""
        tell(self._stream, text + "\n")

    def close(self) -> None:
        """See Display."""


class TableDisplay:
    """Draws a table of tracks in place. rich is loaded here, for terminals only."""

    def __init__(self, stream: TextIO, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._title = title
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, state: State) -> None:
        """See Display."""
        with contextlib.suppress(OSError, SystemExit):  # rich ends the program when its terminal is gone
            table = _table(self._title, state, wide=self._console.width >= _WIDE_COLUMNS)
            self._live.update(table, refresh=True)

    def say(self, text: str) -> None:
        """See Display."""
        with contextlib.suppress(OSError, SystemExit):
            self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """See Display."""
        with contextlib.suppress(OSError, SystemExit):
            self._live.stop()


class DetachedDisplay:
    """Draws on a thread of its own, and whoever shows something never waits for it.

    A terminal that is not read (Ctrl-S, or a connection to it that hangs) stops who writes to it: on the event loop that would be the
    recording. Of states that come faster than they are drawn the newest is drawn; lines are kept.
    """

    def __init__(self, inner: Display) -> None:
        """`inner` is touched by that thread alone from now on."""
        self._inner = inner
        self._news = threading.Condition()
        self._state: State | None = None
        self._lines: list[str] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()

    def show(self, state: State) -> None:
        """See Display."""
        with self._news:
            self._state = state
            self._news.notify()

    def say(self, text: str) -> None:
        """See Display."""
        with self._news:
            self._lines.append(text)
            self._news.notify()

    def close(self) -> None:
        """See Display. A terminal that is not read is left as it is."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._news:
                self._news.wait_for(lambda: self._state or self._lines or self._closing)
                state, lines, closing = self._state, self._lines, self._closing
                self._state, self._lines = None, []
            for line in lines:
                self._inner.say(line)
            if state is not None:
                self._inner.show(state)
        self._inner.close()


def open_display(stream: TextIO, title: str) -> Display:
    """Choose by what `stream` is."""
    return DetachedDisplay(TableDisplay(stream, title) if stream.isatty() else LineDisplay(stream))


def _table(title: str, state: State, *, wide: bool) -> RenderableType:
    """Draw all tracks; `wide` adds what a narrow terminal has no room for."""
    from rich.table import Table
    from rich.text import Text

    hint = "" if state.stop_reason else " · Ctrl-C ends the recording"
    caption = f"{state.phase.lower()} · {state.participants} in the call{_room(state)}{hint}"
    table = Table(title=Text(plain(title, 80)), caption=caption, title_justify="left", caption_justify="left")
    for name in ("who", "what", "codec", "picture"):
        table.add_column(name)
    for name in ("frames", "MB", "lost", "repaired", *(_WIDE_NAMES if wide else ())):
        table.add_column(name, justify="right")
    table.add_column("state")
    left_out = {row.track_id: row for row in state.unrecorded}
    for track in state.tracks:
        picture = f"{track.width}x{track.height}" if track.width else ""
        cells = (plain(track.user_id), str(track.source), track.codec, picture, str(track.frames))
        numbers: tuple[str, ...] = (f"{track.media_bytes / 1e6:.1f}", str(track.lost), str(track.recovered))
        if wide:
            age = "" if track.last_packet_age_ms is None or track.ended else f"{track.last_packet_age_ms / 1000:.1f} s"
            numbers += (str(track.packets), str(track.late), str(track.plis), str(track.size_changes), age)
        row = None if track.frames else left_out.get(track.track_id)
        table.add_row(*(Text(cell) for cell in (*cells, *numbers, why(row) if row else _condition(track))))
    empty = ("",) * (len(table.columns) - 3)
    shown = {track.track_id for track in state.tracks}
    for row in (row for track_id, row in left_out.items() if track_id not in shown):
        table.add_row(*(Text(cell) for cell in (plain(row.user_id), str(row.source), *empty, why(row))))
    return table


def _condition(track: TrackState) -> str:
    if track.ended:
        return "ended"
    if track.shed:
        return "shed"
    return "muted" if track.muted else "live" if track.frames else "waiting"


def _room(state: State) -> str:
    """How full the disk is, once that is worth a word."""
    if state.spool is None or state.spool.level is SpoolLevel.CLEAR or not state.spool.capacity:
        return ""
    return f" · disk {state.spool.used * 100 // state.spool.capacity} % full"
