"""What a recorder container reads, keeps and tells."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Self

import pytest

from isotrack_recorder.control import MAX_LINE_BYTES, SOCKET_NAME, Command, Hello, State, decode, encode
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.pod import main
from isotrack_recorder.pod.control_server import ControlServer
from isotrack_recorder.pod.kept import KeptCommand, KeptTokens
from isotrack_recorder.settings import MAX_SOCKET_BYTES, read_intent, read_paths
from support.shipping import a_shipping_intent


def test_the_newest_token_wins_over_the_mounted_one(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.write_text("mounted\n")
    tokens = KeptTokens(mounted, tmp_path)
    assert tokens.current() == "mounted"
    tokens.refreshed("newer")
    tokens.refreshed("")
    tokens.refreshed("x" * 100_000)
    assert KeptTokens(mounted, tmp_path).current() == "newer", "over a restart"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mounted", "token"]


def test_no_token_at_all_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="token-file"):
        KeptTokens(tmp_path / "token-file", tmp_path).current()


def test_a_folder_that_cannot_be_written_costs_the_kept_token_only(tmp_path: Path) -> None:
    KeptTokens(tmp_path, tmp_path / "missing").refreshed("newer")


def test_the_newest_command_is_kept_over_a_restart(tmp_path: Path) -> None:
    assert KeptCommand(tmp_path).read() is None
    KeptCommand(tmp_path).keep(Command(desired="Paused", user_ids=("alice",)))
    assert KeptCommand(tmp_path).read() == Command(desired="Paused", user_ids=("alice",))
    (tmp_path / "command").write_bytes(b"torn {")
    assert KeptCommand(tmp_path).read() is None


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}'])
def test_a_bad_intent_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="ISOTRACK_INTENT") as error:
        read_intent({"ISOTRACK_INTENT": text})
    assert "\n" not in str(error.value)


def test_an_intent_of_a_later_operator_is_read_as_far_as_it_is_known() -> None:
    """A class may name an image of its own, which is not upgraded with the operator."""
    intent = a_shipping_intent()
    newer = json.loads(intent.to_json()) | {"news": 1}
    newer["layers"][0]["news"] = 2
    assert read_intent({"ISOTRACK_INTENT": json.dumps(newer)}) == intent
    with pytest.raises(ConfigError, match="version"):
        read_intent({"ISOTRACK_INTENT": json.dumps(newer | {"version": 2})})


def test_paths_can_be_moved() -> None:
    assert read_paths({}).spool == Path("/var/lib/isotrack/spool")
    assert read_paths({"ISOTRACK_RUN": "/x"}).run == Path("/x")


@pytest.mark.parametrize("command", ["capture", "agent"])
def test_a_folder_that_no_socket_fits_into_is_told_at_the_start(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    longest = tmp_path / ("x" * (MAX_SOCKET_BYTES - len(str(tmp_path / SOCKET_NAME)) - 1))
    assert read_paths({"ISOTRACK_RUN": str(longest)}).run == longest
    with socket.socket(socket.AF_UNIX) as server:
        longest.mkdir()
        server.bind(str(longest / SOCKET_NAME))
    monkeypatch.setenv("ISOTRACK_INTENT", a_shipping_intent().to_json())
    monkeypatch.setenv("ISOTRACK_RUN", f"{longest}yy")
    monkeypatch.setenv("ISOTRACK_TERMINATION_LOG", str(tmp_path / "termination"))
    assert main([command]) == 64
    told = capfd.readouterr().err
    assert "ISOTRACK_RUN is too long" in told
    assert "2 bytes shorter" in told


@pytest.mark.parametrize(("arguments", "code"), [([], 64), (["nonsense"], 64), (["--help"], 0)])
def test_the_entry_point_names_its_commands(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert "capture|agent|finalise|sweep" in (shown.out if code == 0 else shown.err)


class Server:
    """A control server whose state the test sets."""

    def __init__(self, run: Path) -> None:
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.state = State(phase="Joining")
        self.server = ControlServer(run, 7, lambda: self.state, self.commands.put_nowait)
        self.path = run / SOCKET_NAME

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)


async def test_an_agent_is_told_hello_state_and_each_change(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        reader, writer = await server.connect()
        assert decode(await reader.readline()) == Hello(role="recorder", incarnation=7)
        assert decode(await reader.readline()) == State(phase="Joining")
        server.state = State(phase="Armed")
        server.server.changed()
        assert decode(await reader.readline()) == State(phase="Armed")
        writer.close()


async def test_commands_arrive_whatever_stands_between_them(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        _, writer = await server.connect()
        writer.write(encode(Hello(role="agent")) + b'{"type":"newer"}\n' + encode(Command(desired="Paused")))
        assert (await server.commands.get()).desired == "Paused"
        writer.close()


@pytest.mark.parametrize("junk", [b"not json\n", b"x" * (MAX_LINE_BYTES + 10) + b"\n"], ids=["no json", "endless"])
async def test_a_peer_that_talks_nonsense_is_dropped_and_the_next_is_served(tmp_path: Path, junk: bytes) -> None:
    async with Server(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(junk)
        async with asyncio.timeout(60):
            await reader.read()
            _, second = await server.connect()
            second.write(encode(Command(desired="Stopped")))
            assert (await server.commands.get()).desired == "Stopped"
        writer.close()
        second.close()


async def test_a_socket_of_an_earlier_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_text("left behind")
    async with Server(tmp_path) as server:
        reader, writer = await server.connect()
        assert await reader.readline()
        assert server.path.stat().st_mode & 0o777 == 0o600
        writer.close()


def test_a_state_of_an_older_recorder_and_one_of_a_newer_are_read() -> None:
    older = decode(b'{"type":"state","phase":"Capturing","tracks":[]}')
    assert older == State(phase="Capturing")
    row = {"trackId": "TR", "userId": "alice", "source": "camera", "reason": "Encrypted", "since": 5}
    newer = decode(json.dumps({"type": "state", "phase": "Capturing", "unrecorded": [row], "more": 1}).encode())
    assert isinstance(newer, State)
    assert [(seen.user_id, seen.reason) for seen in newer.unrecorded] == [("alice", "Encrypted")]
    assert decode(encode(newer)) == newer
