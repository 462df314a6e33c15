"""What a saved state may say: nothing that leads out of its session, its call or its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuzz.targets.states import Extent, spool, states
from isotrack_recorder.errors import ParseError
from isotrack_recorder.finalise.session import SessionStream
from support.spools import an_intent

State = dict[str, Any]
Restore = Callable[[State], SessionStream]
SAVED = dict(states())
"""By when it was saved."""


@pytest.fixture(name="restored")
def restorer() -> Iterator[Restore]:
    """Goes on from a state."""
    with spool() as call:
        yield lambda state: SessionStream.restore(call, an_intent(), json.dumps(state).encode(), Extent())


def renamed(state: State, name: str) -> None:
    """Call the first file something else, everywhere."""
    (old,) = state["names"]
    text = json.dumps(state).replace(json.dumps(old), json.dumps(name))
    state.clear()
    state.update(json.loads(text))


def test_what_was_saved_is_restored(restored: Restore) -> None:
    for saved in SAVED.values():
        assert restored(json.loads(saved)).save() == saved


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda s: renamed(s, "../../recording.json"), "a name is none of a file", id="path"),
        pytest.param(lambda s: renamed(s, "recording.json"), "another name", id="manifest"),
        pytest.param(lambda s: renamed(s, "a\n.mkv"), "a name is none of a file", id="line-end"),
        pytest.param(lambda s: renamed(s, "x" * 300 + ".mkv"), "a name is none of a file", id="long-name"),
        pytest.param(lambda s: s["names"].clear(), "another name", id="name-that-is-not-listed"),
        pytest.param(lambda s: s.update(peer_id="PA_b"), "unknown", id="unknown-session"),
        pytest.param(lambda s: s["parts"][0]["plan"].update(user_id="bob"), "none of its session", id="of-another"),
        pytest.param(lambda s: s["parts"][0]["plan"].update(zero_ns=1 << 80), "outside of the call", id="zero"),
        pytest.param(lambda s: s["parts"][0].update(cut_ns=-1), "outside of the call", id="cut"),
        pytest.param(lambda s: s["parts"][0]["sound"].update(last_ns=1), "outside of the call", id="last-sound"),
        pytest.param(lambda s: s["parts"][0]["picture"].update(usual_ns=1 << 60), "outside of the call", id="picture"),
        pytest.param(lambda s: s["parts"][0]["picture"].update(damaged_ns=1), "outside of the call", id="damage"),
        pytest.param(lambda s: s["parts"][0]["sound"]["at"].update(position=-(1 << 50)), "longer", id="sound"),
        pytest.param(lambda s: s["parts"][0]["sound"]["at"].update(hole_end=1 << 50), "longer", id="hole"),
        pytest.param(lambda s: s["parts"][0]["mux"].update(offset=1 << 50), "no such size", id="offset"),
        pytest.param(lambda s: s["parts"][0]["mux"].update(offset=0), "no such size", id="offset-in-the-head"),
        pytest.param(lambda s: s["parts"][0]["mux"].update(cluster=1 << 40), "outside of its file", id="cluster"),
        pytest.param(lambda s: s.update(group=-(1 << 40)), "group of seconds", id="group-before"),
        pytest.param(lambda s: s.update(group=1 << 40), "group of seconds", id="group-behind"),
        pytest.param(lambda s: s.update(spell=1), "came back", id="spell"),
        pytest.param(lambda s: s["logs"].update({"i0009/t0001": s["logs"]["i0001/t0001"]}), "a log", id="log"),
        pytest.param(lambda s: s["logs"]["i0001/t0001"].update(key="i0001/t0002"), "a log", id="key"),
        pytest.param(lambda s: s["logs"]["i0001/t0001"]["timeline"].update(clock_rate=0), "rate", id="rate"),
        pytest.param(
            lambda s: s["logs"]["i0001/t0001"]["timeline"]["indexer"].update(second=1 << 60), "a second", id="second"
        ),
        pytest.param(lambda s: s["logs"]["i0001/t0001"].update(reported=1 << 60), "a second", id="reported"),
        pytest.param(lambda s: s["logs"]["i0001/t0001"].update(behind=[1, -8]), "position", id="position"),
        pytest.param(lambda s: s["logs"]["i0001/t0001"].update(last_ns=7), "a frame", id="last-frame"),
        pytest.param(
            lambda s: s["logs"]["i0001/t0001"]["timeline"].update(knots=[[0, 0, 0, 0]] * 30_000), "too much", id="knots"
        ),
    ],
)
def test_what_a_state_cannot_say_is_refused(restored: Restore, change: Callable[[State], object], why: str) -> None:
    state = json.loads(SAVED["group-1005"])
    change(state)
    with pytest.raises(ParseError, match=why):
        restored(state)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s["stages"]["peer"]["outputs"][0]["route"].update(audio="other.mkv"), id="no-such-part"),
        pytest.param(lambda s: s["logs"]["i0001/t0001"].update(codec=7), id="no-such-codec"),
    ],
)
def test_a_state_that_contradicts_itself_is_told_as_that(restored: Restore, change: Callable[[State], object]) -> None:
    """It is found when it is gone on from."""
    state = json.loads(SAVED["group-1005"])
    change(state)
    with pytest.raises(ParseError, match="contradicts itself"):
        restored(state).advance(whole=True)


@pytest.mark.parametrize("codec", ["vp8000", "opus"])
def test_a_file_that_cannot_be_is_refused(restored: Restore, codec: str) -> None:
    state = json.loads(SAVED["group-1005"])
    state["parts"][0]["picture"]["codec"]["name"] = codec
    with pytest.raises(ParseError, match="contradicts itself"):
        restored(state)
