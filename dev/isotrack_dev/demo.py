"""`make demo`: two people in a real call, recorded by a real Kubernetes into files that one can play.

    place ─ up ─▶ namespace, Secrets, class ─▶ people join ─▶ kubectl apply examples/recording.yaml ─▶ watch
          ─▶ stop ─▶ Uploaded ─▶ files copied, probed, drawn on a timeline ─▶ down (unless --keep)

The people are synthetic (libwebrtc, in a process of their own; `tests/support`): each has a tone and a colour of
their own, and a beep and a flash at each full second. Every command that a user would type is shown as it is run. What
is not the demo's own (addresses, keys, bucket) is put into the examples of `examples/`, which otherwise run as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from isotrack_api.manifest import Manifest

from . import demo_place, demo_view, requirements
from .demo_place import CLASS, LABEL, SFU_SECRET, TEAM, Place
from .errors import DevError
from .paths import REPOSITORY
from .progress import Progress

RECORDING = "standup"
CALL = f"{TEAM}_{RECORDING}"
EXAMPLES = REPOSITORY / "examples"
OUTPUT = REPOSITORY / "build" / "demo"
FINISH_SECONDS = 60


def run(name: str, progress: Progress, *, keep: bool) -> int:
    """Run the demo; returns an exit code.

    Raises:
        DevError: Something did not work; the text says what.
    """
    started = time.monotonic()
    show = Show(started)
    requirements.ensure(["integration"], progress, OUTPUT.parent / "apt.log")
    with demo_place.place(name, progress, keep=keep) as place:
        prepare(place)
        try:
            manifest, folder = play(place, show)
        finally:
            if not place.stack:
                clean_up(place)
        show_files(show, manifest, OUTPUT)
        show_next(show, place, folder, manifest, keep=keep)
    show.line(f"\ndone after {time.monotonic() - started:.0f} s")
    return 0


class Show:
    """What people read, on stdout, with the seconds since the start."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._console = Console(highlight=False, soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """A line as it is."""
        self._console.print(text, style=style or None, markup=False)

    def event(self, text: str) -> None:
        """Something that happens in the call or in the cluster."""
        self.line(f"{time.monotonic() - self._started:6.1f} s  {text}")

    def command(self, text: str) -> None:
        """A command that a user would type."""
        self.line(f"          $ {text}", "bold")


def prepare(place: Place) -> None:
    """Do what an administrator does once: namespace, Secrets, class, from `examples/`."""
    objects = yaml.safe_dump_all(admin_objects(place), sort_keys=False)
    place.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=objects)
    # A demo that was cut off, on a stack that was kept, may have left its Recording.
    place.kubectl("delete", "recording", RECORDING, "-n", TEAM, "--ignore-not-found", seconds=90)


def admin_objects(place: Place) -> list[dict[str, Any]]:
    """The examples, with the place's addresses and keys in them."""
    one = place.environment
    labels = {"isotrack.dev/may-record": "true", LABEL: "true"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM, "labels": labels}}
    sfu, bucket = yaml.safe_load_all((EXAMPLES / "secrets.yaml").read_text())
    sfu["metadata"] |= {"namespace": place.operator_namespace, "labels": {LABEL: "true"}}
    sfu["stringData"] = {"apiKey": one["LIVEKIT_API_KEY"], "apiSecret": one["LIVEKIT_API_SECRET"]}
    bucket["stringData"] = {"accessKeyId": one["AWS_ACCESS_KEY_ID"], "secretAccessKey": one["AWS_SECRET_ACCESS_KEY"]}
    made = yaml.safe_load((EXAMPLES / "recordingclass.yaml").read_text())
    made["metadata"]["labels"] = {LABEL: "true"}
    made["spec"]["source"]["livekit"]["url"] = one["LIVEKIT_URL"]
    made["spec"]["storages"][0]["s3"] |= {
        "bucket": one["S3_BUCKET"],
        "endpoint": one["S3_ENDPOINT"],
        "region": region_of(place),
        "forcePathStyle": True,
    }
    return [namespace, sfu, bucket, made]


def region_of(place: Place) -> str:
    """What requests to the bucket are signed for."""
    return place.environment.get("AWS_REGION") or "us-east-1"


def play(place: Place, show: Show) -> tuple[Manifest, str]:
    """Play the call, record it, and copy the files; returns the manifest and the folder in the bucket."""
    from botocore.exceptions import BotoCoreError, ClientError  # with the test tools below, too slow for --help

    from support.people import PeopleError

    try:
        record(place, show)
        return copy_files(place)
    except PeopleError as error:
        raise DevError(f"the synthetic people failed at {place.environment['LIVEKIT_URL']}: {error}") from error
    except (BotoCoreError, ClientError) as error:
        raise DevError(f"the bucket at {place.environment['S3_ENDPOINT']} cannot be read: {error}") from error


def record(place: Place, show: Show) -> None:
    """Have two people talk, record them, and wait until everything is in the bucket."""
    from support.people import Action, Person, Picture, environment_of_publishers, people

    one = place.environment
    publishers = environment_of_publishers(one["LIVEKIT_URL"], one["LIVEKIT_API_KEY"], one["LIVEKIT_API_SECRET"])
    cast = [
        Person(identity="alice", name="Alice", camera=Picture(width=640, height=360, bitrate=600_000)),
        Person(identity="bob", name="Bob", camera=Picture(codec="h264", width=640, height=360, bitrate=600_000)),
    ]
    fresh_output()
    with people(CALL, cast, OUTPUT / "sent", publishers) as call:
        show.line()
        call.join("alice")
        show.event("alice joins the call with microphone and camera (Opus, VP8)")
        show.command(f"kubectl apply -n {TEAM} -f examples/recording.yaml")
        place.kubectl("apply", "-n", TEAM, "-f", str(EXAMPLES / "recording.yaml"))
        show.command(f"kubectl get recordings -n {TEAM} -w")
        with watching(place, show):
            await_condition(place, "Capturing")
            call.play(4)
            call.join("bob")
            show.event("bob joins (Opus, H264)")
            call.play(2)
            call.do(Action(who="alice", do="share"))
            call.wait("published", "alice", "screenshare_audio")
            show.event("alice shares her screen, with sound")
            call.play(3)
            call.do(Action(who="bob", do="mute", what="microphone"))
            show.event("bob mutes his microphone")
            call.play(3)
            call.do(Action(who="bob", do="unmute", what="microphone"))
            show.event("bob speaks again")
            call.play(2)
            call.do(Action(who="alice", do="unshare"))
            show.event("alice stops sharing")
            call.play(2)
            patch = '{"spec":{"desiredState":"Stopped"}}'
            show.command(f"kubectl patch recording {RECORDING} -n {TEAM} --type=merge -p '{patch}'")
            place.kubectl("patch", "recording", RECORDING, "-n", TEAM, "--type=merge", "-p", patch)
            await_condition(place, "Finished")


def copy_files(place: Place) -> tuple[Manifest, str]:
    """Copy the recording out of the bucket.

    Raises:
        DevError: It is not all there.
    """
    from support.bucket import Bucket

    one = place.environment
    status = json.loads(place.kubectl("get", "recording", RECORDING, "-n", TEAM, "-o", "json"))["status"]
    if status["phase"] != "Uploaded":
        raise DevError(f"the recording ended as {status['phase']}: {json.dumps(status['conditions'])[:2000]}")
    keys = one["AWS_ACCESS_KEY_ID"], one["AWS_SECRET_ACCESS_KEY"]
    bucket = Bucket(one["S3_ENDPOINT"], *keys, one["S3_BUCKET"], region_of(place))
    folder = status["manifest"]["uri"].removeprefix(f"s3://{bucket.name}/").removesuffix("recording.json")
    return bucket.download(folder, OUTPUT), f"s3://{bucket.name}/{folder}"


def fresh_output() -> None:
    """Begin with an empty folder for the copies."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)


def await_condition(place: Place, condition: str) -> None:
    """Wait for a condition of the Recording; a recording that is stuck ends the wait with what its conditions say."""
    wait = ("wait", "recording", RECORDING, "-n", TEAM, f"--for=condition={condition}")
    try:
        place.kubectl(*wait, f"--timeout={FINISH_SECONDS}s", seconds=FINISH_SECONDS + 5)
    except DevError:
        found = json.loads(place.kubectl("get", "recording", RECORDING, "-n", TEAM, "-o", "json"))
        told = [one["message"] for one in found.get("status", {}).get("conditions", []) if one["message"]]
        raise DevError(
            f"the recording does not get to {condition} within {FINISH_SECONDS} s: {'; '.join(dict.fromkeys(told))}"
        ) from None


@contextmanager
def watching(place: Place, show: Show) -> Iterator[None]:
    """Show what `kubectl get recordings -w` prints, until the block ends."""
    kubectl = place.kubectl
    command = [str(kubectl.program), "--kubeconfig", str(kubectl.kubeconfig), "get", "recordings", "-n", TEAM, "-w"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    lines = process.stdout

    def copy() -> None:
        for line in lines:
            show.line(f"            {line.rstrip()}", "cyan")

    reader = threading.Thread(target=copy, name="watch", daemon=True)
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        reader.join()
        lines.close()


def show_files(show: Show, manifest: Manifest, output: Path) -> None:
    """List the files with what ffprobe says, and draw them."""
    from support.media_check import ffmpeg_errors, ffprobe  # test tools, see above

    show.line(f"\n{len(manifest.files)} files, one per person and kind, nothing decoded or mixed:\n")
    for file in sorted(manifest.files, key=lambda file: (file.user_id, file.start_offset_ms)):
        path = output / file.name
        faults = ffmpeg_errors(path)
        if faults:
            raise DevError(f"ffmpeg does not like {path}: {faults[:500]}")
        show.line(f"  {file.name}")
        show.line(f"      {demo_view.file_facts(file, ffprobe(path))}; ffmpeg decodes all of it without an error")
    show.line("\nThe call's timeline (┄ is silence that recording.json declares):\n")
    for line in demo_view.timeline(manifest):
        show.line(f"  {line}")
    show.line(f"\n  {demo_view.missing(manifest)}")


def show_next(show: Show, place: Place, folder: str, manifest: Manifest, *, keep: bool) -> None:
    """Say where everything lies and what to try next."""
    output = os.path.relpath(OUTPUT)
    show.line("\nWhere they lie")
    gone = " (which goes with the stack)" if place.stack and not keep else ""
    show.line(f"  in the bucket{gone}: {folder}")
    show.line(f"  copied here: {output}{os.sep}")
    show.line("\nWhat to try next")
    show.line(f"  .venv/bin/isotrack inspect {output}")
    show.line(f"  ffplay {output}{os.sep}{manifest.files[0].name}")
    if place.stack and keep:
        show.line("  the stack goes on running; in a shell:")
        show.line(f"    source {place.stack.layout.environment}")
        show.line(f"    {place.kubectl.program} describe recording {RECORDING} -n {TEAM}")
        show.line(f"    .venv/bin/python -m isotrack_dev down --name {place.stack.name}")
    elif place.stack:
        show.line("  make demo ARGS=--keep       the same, and the cluster stays up for you to play with")
    else:
        show.line("  the operator stays in your cluster: docs/install.md tells how to use and how to remove it")
    show.line("  docs/install.md             your own SFU, bucket and cluster")


def clean_up(place: Place) -> None:
    """Take the demo's own objects out of a cluster that was given to it."""
    place.kubectl("delete", "namespace", TEAM, "--ignore-not-found", "--timeout=90s", seconds=100)
    place.kubectl("delete", "recordingclass", CLASS, "--ignore-not-found")
    place.kubectl("delete", "secret", SFU_SECRET, "-n", place.operator_namespace, "--ignore-not-found")
