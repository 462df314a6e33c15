"""What the recorder loads before it is in the call: each module here costs first words."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import isotrack_recorder.pod.capture, isotrack_recorder.sources.livekit.client, isotrack_recorder.webrtc.session
print("\\n".join(sys.modules))
"""


@pytest.mark.parametrize(
    "heavy", ["boto3", "botocore", "rich", "livekit.api", "jwt", "numpy", "kubernetes", "aiohttp.web"]
)
def test_the_capture_path_loads_nothing_heavy(heavy: str, loaded: frozenset[str]) -> None:
    assert heavy not in loaded


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    """Modules that a recorder has loaded when it joins."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    return frozenset(ended.stdout.split())
