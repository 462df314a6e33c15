"""File names from what strangers chose."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from isotrack_api.base import DEFAULT_FILE_NAME_TEMPLATE
from isotrack_recorder.finalise.names import MAX_NAME_BYTES, MAX_VALUE_BYTES, encode_value, file_name

text = st.text(st.characters(codec=None), max_size=400)


def name(
    user: str = "alice", peer: str = "PA_1", template: str = DEFAULT_FILE_NAME_TEMPLATE, suffixes: str = ""
) -> str:
    values = {"prefix": "default", "user_id": user, "peer_id": peer, "stream_kind": "peer", "media_kind": "audio",
              "started_ms": "1760000000000"}  # fmt: skip
    return file_name(template, values, suffixes, "mkv")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        pytest.param("alice", "default_alice_PA_1_peer_audio_1760000000000.mkv", id="plain"),
        pytest.param("../../etc", "default_..%2F..%2Fetc_PA_1_peer_audio_1760000000000.mkv", id="path"),
        pytest.param("a b\n", "default_a%20b%0A_PA_1_peer_audio_1760000000000.mkv", id="space-and-control"),
        pytest.param("", "default__PA_1_peer_audio_1760000000000.mkv", id="empty"),
    ],
)
def test_names_are_what_the_template_says(user: str, expected: str) -> None:
    assert name(user) == expected


@given(text, text, text)
def test_a_name_is_always_harmless(user: str, peer: str, prefix: str) -> None:
    made = file_name("{prefix}{user_id}_{peer_id}", {"prefix": prefix, "user_id": user, "peer_id": peer}, "_p2", "mkv")
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+_p2\.mkv", made)
    assert not made.startswith(".")
    assert len(made) <= MAX_NAME_BYTES


@given(text, text)
def test_different_people_never_share_a_name(one: str, other: str) -> None:
    assume(one != other)
    assert name(one) != name(other)


@given(text)
def test_a_value_is_bounded_and_no_triplet_is_split(value: str) -> None:
    encoded = encode_value(value)
    assert len(encoded) <= MAX_VALUE_BYTES
    assert re.fullmatch(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})*", encoded)


def test_three_hundred_emoji_are_told_apart_from_three_hundred_and_one() -> None:
    assert name("\U0001f600" * 300) != name("\U0001f600" * 301)
    assert len(name("\U0001f600" * 300)) <= MAX_NAME_BYTES


def test_two_spellings_of_one_name_stay_apart() -> None:
    """NFC makes them look alike; the identities differ all the same."""
    composed, decomposed = "Am\u00e9lie", "Ame\u0301lie"
    assert unicodedata.normalize("NFC", decomposed) == composed
    assert name(composed) != name(decomposed)
    assert name(composed).startswith("default_Am%C3%A9lie_PA_1")


@given(st.text(max_size=600), st.sampled_from(["", "_p2", "_t2_p13_a4"]))
def test_suffixes_and_extension_survive_any_length(long: str, suffixes: str) -> None:
    template = "{prefix}{prefix}{prefix}{user_id}"
    made = file_name(template, {"prefix": long, "user_id": "x"}, suffixes, "webm")
    assert made.endswith(f"{suffixes}.webm")
    assert len(made) <= MAX_NAME_BYTES
