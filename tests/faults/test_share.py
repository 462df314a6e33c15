"""A small share of `make faults`, with every test run: about ten kills, some failpoints, a storage that breaks."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from faults.__main__ import main
from faults.kinds import KINDS

LEFT_OUT: Final = (
    "failpoint-large",
    "failpoint-reclaim",
    "failpoint-sweeper",
    "storage-away-long",
    "storage-slow",
    *(f"operator-{story}" for story in ("recorded", "deleted", "stopped-early", "agent-lost")),
)
"""Kinds of which another one is as good a share."""
SHARE: Final = ("--kills=10", "--failpoints=2", "--trials=1", "--stores=versitygw")


@pytest.mark.realtime
@pytest.mark.timeout(900)  # of a busy machine; it takes a minute or two
def test_recordings_survive_a_share_of_the_campaign() -> None:
    kinds = [kind for kind in KINDS if kind not in LEFT_OUT]
    # Not below pytest's own folder: the path of a unix socket takes 107 bytes at most (unix(7)).
    with TemporaryDirectory(prefix="faults-") as folder:
        said = io.StringIO()  # which trial it was, and why: a rerun shows nothing but the assertion
        with redirect_stdout(said):
            code = main([*kinds, *SHARE, "--folder", str(Path(folder, "run"))])
    assert code == 0, said.getvalue()
