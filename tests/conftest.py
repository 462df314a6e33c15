"""Options and fixtures of all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from isotrack_dev import requirements
from isotrack_dev.progress import for_terminal
from support.golden import Golden

# A busy machine is no fault of the code: neither one example nor their making has to be quick. The same examples each time; for others:
# `pytest --hypothesis-profile=explore`, and `make fuzz`.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("isotrack", settings.get_profile("explore"), derandomize=True)
settings.load_profile("isotrack")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write golden files anew instead of comparing")


class Scheduling(LoadFileScheduling):
    """Files of tests go to workers as a whole, because their servers live as long as a module. Those that share a cluster are as one
    file, in their order: a second cluster would cost more than it gives, and tests of the API alone come before there is an operator.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        shares = file.startswith("tests/cluster/") and not file.endswith("/test_stack.py")
        return "tests/cluster" if shares else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Ours for `--dist loadfile`."""
    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Golden files beside the test module."""
    return Golden(request.path.parent / "golden", request.config.getoption("--rewrite-golden"))


@pytest.fixture(scope="session")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ffmpeg and ffprobe, for the second opinion on every file."""
    requirements.ensure(["integration"], for_terminal(), tmp_path_factory.mktemp("apt") / "apt.log")


@pytest.fixture(scope="session")
def players(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ffmpeg, mkvmerge, mpv and VLC (`support.players`)."""
    requirements.ensure(["integration", "players"], for_terminal(), tmp_path_factory.mktemp("apt") / "apt.log")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Chromium, for the browser's opinion."""
    requirements.ensure(["browser"], for_terminal(), tmp_path_factory.mktemp("apt") / "apt.log")
    return "chromium"
