"""The list of harnesses. A codec that is added to `codecs.registry` is in it without a further line."""

from __future__ import annotations

from fuzz.harness import Harness

from . import codecs, files, messages, rtp, session, states


def all_harnesses() -> dict[str, Harness]:
    """Every harness by name, in the order in which bytes travel through a recorder."""
    found = (
        *rtp.harnesses(),
        *codecs.harnesses(),
        *session.harnesses(),
        *messages.harnesses(),
        *files.harnesses(),
        *states.harnesses(),
    )
    return {harness.name: harness for harness in found}
