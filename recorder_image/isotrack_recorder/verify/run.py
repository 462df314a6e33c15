"""All files of a recording, some at once, in the order of the manifest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from isotrack_api.manifest import Manifest, ManifestFile

from .child import decode
from .judge import Verdict, judge, judge_missing
from .place import MissingFileError, Place

MAX_JOBS: Final = 4
"""Each may hold a file of a bucket on the disk."""


def verify_files(place: Place, manifest: Manifest) -> Iterator[Verdict]:
    """Judge every file.

    Raises:
        StorageError, StorageRefusedError: The bucket does not answer, or refuses us.
    """
    jobs = min(MAX_JOBS, os.cpu_count() or 1)
    with ThreadPoolExecutor(jobs, thread_name_prefix="verify") as pool:
        pending: deque[Future[Verdict]] = deque()
        for file in manifest.files:
            pending.append(pool.submit(_verify, place, file))
            if len(pending) > 2 * jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _verify(place: Place, file: ManifestFile) -> Verdict:
    try:
        with place.file(file) as copy:
            return judge(file, copy.size, copy.digest, decode(copy.path, file.duration_ms / 1000))
    except MissingFileError as error:
        return judge_missing(file, str(error))
