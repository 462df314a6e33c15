"""The last report of an attempt is the last one that takes effect."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

from isotrack_api.recording_report import ReportPhase
from isotrack_recorder.control import State
from isotrack_recorder.pod.agent_report import Facts
from isotrack_recorder.pod.reporter import Reporter
from isotrack_recorder.ship.kube import KubeClient
from support.api_server import ApiServer

ARMED = Facts(State(phase="Armed"), epoch_ms=1_760_000_000_000)


async def test_the_last_report_does_not_overtake_one_that_is_on_its_way(tmp_path: Path) -> None:
    """A slow API server may answer them in any order."""
    async with ApiServer(tmp_path / "account") as server, KubeClient(server.settings) as client:
        server.slow = "Armed"
        reporter = Reporter(client, lambda: ARMED, asyncio.Event(), 60)
        running = asyncio.create_task(reporter.run())
        await server.held.wait()
        concluding = asyncio.create_task(reporter.conclude(replace(ARMED, ending=ReportPhase.FINISHED)))
        with contextlib.suppress(TimeoutError):  # one that does not wait comes at once
            await server.reported("Finished", seconds=0.5)
        server.release.set()
        await concluding
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [report["phase"] for report in server.reports] == ["Armed", "Finished"]
