"""The termination message on its way to the kubelet."""

from __future__ import annotations

import logging
from pathlib import Path

from .agent_report import Ending, termination_message

log = logging.getLogger(__name__)


def write_termination(path: Path, ending: Ending) -> None:
    """Leave the termination message. The kubelet reads the file after our exit; without a kubelet there may be none."""
    try:
        path.write_text(termination_message(ending))
    except OSError as error:
        log.warning("termination message was not written", extra={"fields": {"why": error.strerror}})
