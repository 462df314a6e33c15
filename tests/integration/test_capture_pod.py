"""`isotrack-recorder capture` as the kubelet runs it: joins with a token, survives kill -9 in place, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from livekit import api
from livekit.protocol import models, rtc

from isotrack_api.intent import Intent, LiveKitSource, RecordingRef
from isotrack_api.manifest import StopReason
from isotrack_recorder.control import SOCKET_NAME, Command, Hello, State, decode, encode
from isotrack_recorder.sources.livekit.access import MintedTokens
from isotrack_recorder.spool.journal import decode_journal
from support.call import Call
from support.path import path_to
from support.people import Person
from support.waiting import until

RECORDER = Path(sys.executable).with_name("isotrack-recorder")
IDENTITY = "isotrack-pod"
LEEWAY_SECONDS = 60


class Agent:
    """The agent's end of the control socket."""

    def __init__(self, run: Path) -> None:
        def connect() -> socket.socket | None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(run / SOCKET_NAME))
            except OSError:
                connection.close()
                return None
            return connection

        self._socket = until(connect, "the control socket answers")
        self._socket.settimeout(60)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(encode(Hello(role="agent")))
        hello = decode(self._lines.readline())
        assert isinstance(hello, Hello)
        self.incarnation = hello.incarnation

    def command(self, command: Command) -> None:
        """Say what is wanted."""
        self._socket.sendall(encode(command))

    def state(self, *phases: str) -> State:
        """Wait for one of these phases."""
        while True:
            state = decode(self._lines.readline())
            assert isinstance(state, State), "the recorder hung up"
            if state.phase in phases:
                return state

    def close(self) -> None:
        self._socket.close()


class Pod:
    """The folders of a pod and its recorder container."""

    def __init__(self, call: Call, url: str = "") -> None:
        self.spool, self.run, self._token = call.folder / "spool", call.folder / "run", call.folder / "token"
        self.run.mkdir()
        tokens = MintedTokens(call.server.api_key, call.server.api_secret, call.room, IDENTITY)
        self._token.write_text(tokens.current())
        self.intent = Intent(
            recording=RecordingRef(namespace="test", name="pod", uid=str(uuid.uuid4())),
            call_id=call.room,
            source=LiveKitSource(url=url or call.server.url, identity=IDENTITY),
            folder="test/pod",
        )
        self._log = call.folder / "recorder.log"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def shorten_token(self, call: Call, seconds: float) -> None:
        """Let the mounted token be of no use in so many seconds; LiveKit takes one for a minute longer than it says."""
        claims = jwt.decode(self._token.read_text(), call.server.api_secret, ["HS256"], {"verify_exp": False})
        claims["exp"] = time.time() - LEEWAY_SECONDS + seconds
        self._token.write_text(jwt.encode(claims, call.server.api_secret, "HS256"))

    def is_refused(self, call: Call, token: Path | None = None) -> bool:
        """Whether the SFU refuses a token now: the mounted one, or that in a file."""
        query = urllib.parse.urlencode({"access_token": (token or self._token).read_text()})
        with closing(http.client.HTTPConnection(call.server.http_url.removeprefix("http://"), timeout=60)) as server:
            server.request("GET", f"/rtc/validate?{query}")
            status = server.getresponse().status
        assert status in (200, 401)
        return status == 401

    def forget_mounted_token(self) -> None:
        """As if it had expired: only what the server sent later is of use."""
        self._token.write_text("expired")

    def journals(self, *names: str) -> list[dict[str, Any]]:
        """Facts of all incarnations."""
        files = sorted(self.spool.glob("i*/journal.ndjson"))
        events = [event for file in files for event in decode_journal(file.read_bytes())]
        return [event for event in events if event["e"] in names]

    @contextmanager
    def recorder(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the container's command; it is gone afterwards."""
        environment = {
            "PATH": os.environ["PATH"],
            "ISOTRACK_INTENT": self.intent.to_json(),
            "ISOTRACK_TOKEN_FILE": str(self._token),
            "ISOTRACK_SPOOL": str(self.spool),
            "ISOTRACK_RUN": str(self.run),
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen([RECORDER, "capture"], env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_recorder_killed_in_the_middle_goes_on_in_place(call: Call) -> None:
    """Kill -9, with the mounted token expired meanwhile; then stop, an idle end, a restart that only tells, SIGTERM."""
    pod = Pod(call)
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        with pod.recorder() as process:
            agent = Agent(pod.run)
            assert agent.state("Capturing").incarnation == 1
            until(lambda: (pod.run / "token").exists(), "the server's newer token is kept")
            assert (pod.run / "token").stat().st_mode & 0o777 == 0o600
            process.kill()
        pod.forget_mounted_token()

        with pod.recorder() as process:
            agent = Agent(pod.run)
            assert agent.incarnation == 2
            state = agent.state("Capturing")
            assert state.call_sid
            agent.command(Command(desired="Stopped", stop_reason=StopReason.DELETED))
            state = agent.state("Stopped")
            assert state.stop_reason is StopReason.DELETED
            assert process.poll() is None, "it idles: the agent needs the spool"
            process.kill()

        with pod.recorder() as process:
            agent = Agent(pod.run)
            assert agent.state("Stopped").stop_reason is StopReason.DELETED, "what is over stays over"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert len(pod.journals("start")) == 2
    assert [event["reason"] for event in pod.journals("stop")] == ["Deleted"]
    assert len({event["call_sid"] for event in pod.journals("call")}) == 1
    token = (pod.run / "token").read_text()
    assert token not in pod.log


@pytest.mark.realtime
def test_a_call_outlives_the_token_it_was_joined_with(call: Call) -> None:
    """As over hours: the first token has expired when the SFU's node fails, and when the recorder is killed after that.

    LiveKit sends a new one at the join, and every five minutes, which is good for ten.
    """
    with call.people([Person(identity="alice", camera=None)]) as people, path_to(call.server.url) as path:
        people.join("alice")
        pod = Pod(call, path.url)
        pod.shorten_token(call, 8)
        with pod.recorder() as process:
            agent = Agent(pod.run)
            agent.state("Capturing")
            until(lambda: pod.is_refused(call), "the first token has expired")
            assert not pod.is_refused(call, pod.run / "token")
            path.say(rtc.SignalRequest(simulate=rtc.SimulateScenario(node_failure=True)))
            until(lambda: pod.journals("reconnected"), "joined again with the newer token")
            more_media(agent)
            process.kill()
        with pod.recorder():
            agent = Agent(pod.run)
            agent.state("Capturing")
            more_media(agent)
            seen = asyncio.run(participants(call))
            assert agent.incarnation == 2
    recorder = next(person for person in seen if person.identity == IDENTITY)
    assert recorder.kind == models.ParticipantInfo.EGRESS
    assert recorder.permission.hidden
    assert recorder.permission.recorder
    assert not recorder.permission.can_publish, "with a newer token, too, it is nobody in the call"


def more_media(agent: Agent) -> None:
    """Wait until a second more was recorded."""
    before = sum(track.frames for track in agent.state("Capturing").tracks)
    while sum(track.frames for track in agent.state("Capturing").tracks) < before + 50:
        pass


async def participants(call: Call) -> Sequence[models.ParticipantInfo]:
    """Everybody in the room, hidden or not."""
    async with api.LiveKitAPI(call.server.http_url, call.server.api_key, call.server.api_secret) as client:
        found = await client.room.list_participants(api.ListParticipantsRequest(room=call.room))
    return list(found.participants)


def test_a_restart_keeps_to_the_newest_command_before_any_agent_is_there(call: Call) -> None:
    """Otherwise a crash would record what was paused, or whom the allowlist had come to exclude."""
    pod = Pod(call)
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        with pod.recorder() as process:
            agent = Agent(pod.run)
            agent.state("Capturing")
            agent.command(Command(desired="Paused"))
            agent.state("Paused")
            process.kill()
        with pod.recorder():
            until(lambda: len(pod.journals("armed")) == 2, "joined again")
            agent = Agent(pod.run)
            state = agent.state("Paused")
            assert state.incarnation == 2
            assert sum(track.frames for track in state.tracks) == 0
            agent.command(Command(desired="Running"))
            agent.state("Capturing")


def test_sigterm_in_the_middle_flushes_says_goodbye_and_ends_at_once(call: Call) -> None:
    pod = Pod(call)
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        with pod.recorder() as process:
            Agent(pod.run).state("Capturing")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert time.monotonic() - began < 10, "nobody is waited for"
    assert [event["reason"] for event in pod.journals("stop")] == ["Drained"]


def test_a_refused_token_is_told_on_the_socket_and_keeps_the_process(call: Call) -> None:
    """The agent decides the attempt's fate; an exit here would only be restarted."""
    pod = Pod(call)
    pod.forget_mounted_token()
    with call.people([Person(identity="alice", camera=None)]) as people, pod.recorder() as process:
        people.join("alice")
        state = Agent(pod.run).state("Failed")
        assert (state.error_reason, state.error_exit_code) == ("SourceRefused", 77)
        assert process.poll() is None


def test_a_pod_without_an_intent_says_what_is_missing() -> None:
    environment = {"PATH": os.environ["PATH"]}
    ended = subprocess.run([RECORDER, "capture"], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 64
    assert "ISOTRACK_INTENT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.realtime
def test_the_recorder_is_in_the_call_soon_after_its_start(call: Call) -> None:
    """First words matter. The aim is one second on a quiet machine; here others compile beside us."""
    pod = Pod(call)
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        began_ms = time.time() * 1000
        with pod.recorder():
            state = Agent(pod.run).state("Capturing")
    assert state.armed_at_ms is not None
    took_ms = state.armed_at_ms - began_ms
    print(f"recorder start to joined: {took_ms:.0f} ms")
    assert took_ms < 5000
