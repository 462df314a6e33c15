"""Places at which a process can be made to die: before and after each call that leaves something behind (pure).

A site is named by what it does, not by where it stands in the code: `s3 PutObject attempts/N/intent.json`,
`rename run/token`. So no code of the product is touched for it, and a site survives every rewrite that keeps its effect. Which
sites there are is found by recording runs that write down all that they pass; see `runner`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from itertools import zip_longest
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

SIDES: Final = ("before", "after")
TORN: Final = "torn"
"""In the middle of a write: half of it is there."""
WRITES: Final = ("writev", "write")
OCCURRENCES: Final = 2
"""Of a site that is passed often, how many are tried: the first, and one that finds something already there."""
MARK: Final = "mark"
"""A line of a trace: what is passed before it is passed by another scenario, too."""
_EVENTS: Final = "api POST events"
_DELIVERABLE: Final = re.compile(r"\.(mkv|webm)$")
_ID: Final = re.compile(
    r"(?<=probe-)[0-9a-f]+|(?:(?<=/tmp)|(?<=recovery-))[a-z0-9_]{8}(?=/|$)|[0-9a-f]{12,}(?:-[0-9a-f]+)*"
)
"""Probes, temporary folders (tempfile's names), checkpoint runs and sessions."""
_NUMBER: Final = re.compile(r"\d+")
_WRITES: Final = ("PATCH", "POST", "PUT", "DELETE")


class Failpoint(NamedTuple):
    """Where one process is to die."""

    command: str
    """`capture`, `agent`, `finalise`, `sweep`, `check`, `shipper` or `operator`."""
    side: str
    nth: int
    """Which passage of the site, from 1."""
    site: str

    def __str__(self) -> str:
        return f"{self.command}:{self.side}:{self.nth}:{self.site}"


def parse(text: str) -> Failpoint:
    """Read what `str` wrote.

    Raises:
        ValueError: It is none.
    """
    command, side, nth, site = text.split(":", 3)
    return Failpoint(command, side, int(nth), site)


AND: Final = " + "


def parse_all(text: str) -> tuple[Failpoint, ...]:
    """Failpoints of one trial, each of another process; the empty text has none.

    Raises:
        ValueError: One of them is none.
    """
    return tuple(map(parse, text.split(AND))) if text else ()


def side_by_side(*lists: Sequence[Failpoint]) -> list[str]:
    """Failpoints of several processes, so that each dies once in a trial: the trials' details, as `parse_all` reads them."""
    return [AND.join(str(one) for one in row if one) for row in zip_longest(*lists)]


def plain(path: str) -> str:
    """A path or key without what differs from run to run: numbers, ids and the names of deliverables."""
    if _DELIVERABLE.search(path):
        return "FILE"
    return _NUMBER.sub("N", _ID.sub("ID", path))


def write_of(method: str, url: str) -> str:
    """How a site names a request that writes to an API server; empty for one that writes nothing, or goes elsewhere."""
    parts = urlsplit(url)
    words = parts.path.strip("/").split("/")
    if method not in _WRITES or words[0] not in ("api", "apis") or "dryRun" in parse_qs(parts.query):
        return ""
    words = words[2:] if words[0] == "api" else words[3:]
    if words[0] == "namespaces" and len(words) > 2:
        words = words[2:]
    return f"api {method} {'/'.join([words[0], *words[2:]])}"


def failpoints(command: str, passed: Iterable[str]) -> list[Failpoint]:
    """All failpoints of the sites that a process passed, in order of their first passage."""
    found: list[Failpoint] = []
    for site, count in Counter(passed).items():
        sides = (*SIDES, TORN) if site.split(" ", 1)[0] in WRITES else SIDES
        found += [
            Failpoint(command, side, nth, site) for nth in range(1, min(count, OCCURRENCES) + 1) for side in sides
        ]
    return found


def new_failpoints(command: str, passed: Sequence[str], known: Container[Failpoint]) -> list[Failpoint]:
    """Those that no other scenario has, and those of sites that are passed behind the mark only: there they do something else."""
    begin = passed.index(MARK) if MARK in passed else len(passed)
    before, behind = passed[:begin], passed[begin + 1 :]
    other = set(behind) - set(before)
    return [one for one in failpoints(command, [*before, *behind]) if one not in known or one.site in other]


def operator_failpoints(passed: Sequence[str]) -> list[Failpoint]:
    """Both sides of every write of the operator that comes after the mark, or of all where there is none.

    Each passage counts: the first write of a status says something else than the third. Events are all alike.
    """
    begin = passed.index(MARK) if MARK in passed else 0
    seen = Counter[str]()
    found: list[Failpoint] = []
    for number, site in enumerate(passed):
        seen[site] += site != MARK
        if site != MARK and number >= begin and not (site == _EVENTS and seen[site] > OCCURRENCES):
            found += [Failpoint("operator", side, seen[site], site) for side in SIDES]
    return found
