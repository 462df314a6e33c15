"""Where things lie in the bucket. Pure.

    <prefix>/<folder>/intent.json                    create-once: what the recording was to be
    <prefix>/<folder>/<file name>                    deliverables
    <prefix>/<folder>/attempts/<n>/intent.json       attempt n began, and what it was told
    <prefix>/<folder>/attempts/<n>/claim.json        create-once: which spool (run) is that of attempt n
    <prefix>/<folder>/attempts/<n>/checkpoints/<run>/<seq>.ckpt
                                                     what attempt n captured, until recording.json is there
    <prefix>/<folder>/attempts/<n>/manifest.json     attempt n ended, and what it brought
    <prefix>/<folder>/attempts/recovered.json        files that were made of checkpoints
    <prefix>/<folder>/recording.json                 everything, last

`folder` is `<namespace>/<recording>-<uid8>`; attempts never share the key of a deliverable (their names differ).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from isotrack_api.intent import Intent
from isotrack_recorder.errors import ConfigError

_ATTEMPT = re.compile(r"attempts/([1-9][0-9]{0,4})/(intent|manifest)\.json")
_CHECKPOINTS = re.compile(r"attempts/([1-9][0-9]{0,4})/checkpoints/")
_PROBE = re.compile(r"attempts/([1-9][0-9]{0,4})/probe-[^/]*")
_CHECKPOINT = re.compile(r"attempts/([1-9][0-9]{0,4})/checkpoints/([0-9a-f]{16})/([0-9]{8})\.ckpt")


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one recording."""

    bucket: str
    root: str
    """Key prefix of everything, without a slash at its end."""

    @property
    def intent(self) -> str:
        """Key of `intent.json`."""
        return f"{self.root}/intent.json"

    @property
    def recording(self) -> str:
        """Key of `recording.json`."""
        return f"{self.root}/recording.json"

    @property
    def attempts(self) -> str:
        """What all keys of attempts begin with."""
        return f"{self.root}/attempts/"

    def attempt_manifest(self, attempt: int) -> str:
        """Key of the manifest of one attempt."""
        return f"{self.attempts}{attempt}/manifest.json"

    def attempt_intent(self, attempt: int) -> str:
        """Key of the intent of one attempt."""
        return f"{self.attempts}{attempt}/intent.json"

    def begun(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the attempts that `keys` show to have begun."""
        return self._numbers(keys, "intent")

    def ended(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the attempts that `keys` hold a manifest of."""
        return self._numbers(keys, "manifest")

    def _numbers(self, keys: Iterable[str], what: str) -> set[int]:
        matches = (_ATTEMPT.fullmatch(key.removeprefix(f"{self.root}/")) for key in keys)
        return {int(match[1]) for match in matches if match and match[2] == what}

    def checkpointed(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the attempts that `keys` (of `commit.attempt_keys`) show to have checkpoints."""
        matches = (_CHECKPOINTS.fullmatch(key.removeprefix(f"{self.root}/")) for key in keys)
        return {int(match[1]) for match in matches if match}

    def probed(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the attempts of which `keys` hold what they try the storage on."""
        matches = (_PROBE.fullmatch(key.removeprefix(f"{self.root}/")) for key in keys)
        return {int(match[1]) for match in matches if match}

    def claim(self, attempt: int) -> str:
        """Key of the claim of one attempt."""
        return f"{self.attempts}{attempt}/claim.json"

    def checkpoints(self, attempt: int) -> str:
        """What all keys of checkpoints of one attempt begin with."""
        return f"{self.attempts}{attempt}/checkpoints/"

    def checkpoint(self, attempt: int, run: str, seq: int) -> str:
        """Key of one checkpoint."""
        return f"{self.checkpoints(attempt)}{run}/{seq:08}.ckpt"

    def checkpoint_of(self, key: str) -> tuple[int, str, int] | None:
        """Attempt, run and number of the checkpoint at `key`; None where that is the key of something else."""
        match = _CHECKPOINT.fullmatch(key.removeprefix(f"{self.root}/"))
        return (int(match[1]), match[2], int(match[3])) if match else None

    @property
    def recovered(self) -> str:
        """Key of the list of files that were made of checkpoints."""
        return f"{self.attempts}recovered.json"

    def probe(self, attempt: int) -> str:
        """What the keys begin with on which an attempt tries the storage: each process adds something of its own."""
        return f"{self.attempts}{attempt}/probe-"

    def file(self, name: str) -> str:
        """Key of a deliverable."""
        return f"{self.root}/{name}"

    def uri(self, key: str) -> str:
        """The `s3://` URI of `key`."""
        return f"s3://{self.bucket}/{key}"


def layout_of(intent: Intent) -> Layout:
    """Keys of the recording that `intent` describes.

    Raises:
        ConfigError: the intent names no storage.
    """
    if intent.storage is None:
        raise ConfigError("the intent names no storage: there is nowhere to ship files to")
    parts = (intent.storage.prefix.strip("/"), intent.folder.strip("/"))
    return Layout(intent.storage.bucket, "/".join(part for part in parts if part))
