"""Our copies of what is watched, and which Recording each object is about. In memory, rebuilt by every resync.

Copies come from three sides: watch events, answers to our own writes, and lists. An older copy never replaces a newer one (resource
versions of one kind are comparable numbers since Kubernetes 1.35 by contract, and before in practice), so what we wrote is seen by the
next reconcile at once. A deletion is final for its uid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from .builders import names
from .kinds import JOB, POD, RECORDING, RECORDING_CLASS, RECORDING_REPORT, WATCHED, Kind
from .view import Object

MAX_TOMBSTONES = 10_000

Place = tuple[str, str]
"""Namespace (empty for cluster-scoped objects) and name."""


def place_of(body: Object) -> Place:
    """Where an object is."""
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def version_of(body: Object) -> int:
    """The resource version as a number; 0 when it is none."""
    text = str(body["metadata"].get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() else 0


class Store:
    """Copies of all watched objects."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Place, dict[str, Any]]] = {kind: {} for kind in WATCHED}
        self._by_recording: dict[Kind, dict[str, set[Place]]] = {kind: {} for kind in (JOB, POD, RECORDING_REPORT)}
        self._recordings: dict[str, Place] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def put(self, kind: Kind, body: dict[str, Any]) -> bool:
        """Keep a copy; False when ours is newer or the object is gone."""
        place, uid = place_of(body), body["metadata"]["uid"]
        if uid in self._gone:
            return False
        old = self._objects[kind].get(place)
        if old is not None:
            same = old["metadata"]["uid"] == uid
            if same and version_of(old) > version_of(body):
                return False
            self._unindex(kind, old)
        self._objects[kind][place] = body
        self._index(kind, body)
        return True

    def drop(self, kind: Kind, body: Object) -> None:
        """The object was deleted."""
        place, uid = place_of(body), body["metadata"]["uid"]
        self._gone[uid] = None
        while len(self._gone) > MAX_TOMBSTONES:
            self._gone.popitem(last=False)
        old = self._objects[kind].get(place)
        if old is not None and old["metadata"]["uid"] == uid:
            del self._objects[kind][place]
            self._unindex(kind, old)

    def keep_only(self, kind: Kind, before: Iterable[str], listed: set[str]) -> list[dict[str, Any]]:
        """Drop what was here `before` a list was made and is not in it; returns what was dropped. Both are uids."""
        lost = set(before) - listed
        stale = [body for body in self._objects[kind].values() if body["metadata"]["uid"] in lost]
        for body in stale:
            self.drop(kind, body)
        return stale

    def uids(self, kind: Kind) -> set[str]:
        """Uids of all copies of a kind."""
        return {body["metadata"]["uid"] for body in self._objects[kind].values()}

    def get(self, kind: Kind, place: Place) -> dict[str, Any] | None:
        """A copy."""
        return self._objects[kind].get(place)

    def all(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """All copies of a kind."""
        return iter(tuple(self._objects[kind].values()))

    def of_recording(self, kind: Kind, uid: str, namespace: str) -> list[dict[str, Any]]:
        """Jobs, pods or reports that carry a Recording's uid as label, in its namespace."""
        places = self._by_recording[kind].get(uid, set())
        return [self._objects[kind][place] for place in sorted(places) if place[0] == namespace]

    def recording_of(self, body: Object) -> Place | None:
        """The Recording that a Job, pod or report is about."""
        return self._recordings.get(_uid_label(body))

    def class_of(self, body: Object) -> str | None:
        """The class that a Job or pod is about."""
        uid = (body["metadata"].get("labels") or {}).get(names.CLASS_LABEL)
        known = self._objects[RECORDING_CLASS]
        return next((place[1] for place, one in known.items() if uid and one["metadata"]["uid"] == uid), None)

    def recordings_of_class(self, name: str) -> list[Place]:
        """Recordings that name a class."""
        return [
            place
            for place, body in self._objects[RECORDING].items()
            if (body.get("spec") or {}).get("className") == name
        ]

    def _index(self, kind: Kind, body: dict[str, Any]) -> None:
        if kind is RECORDING:
            self._recordings[body["metadata"]["uid"]] = place_of(body)
        elif kind is not RECORDING_CLASS and (uid := _uid_label(body)):
            self._by_recording[kind].setdefault(uid, set()).add(place_of(body))

    def _unindex(self, kind: Kind, body: dict[str, Any]) -> None:
        if kind is RECORDING:
            self._recordings.pop(body["metadata"]["uid"], None)
        elif kind is not RECORDING_CLASS and (uid := _uid_label(body)):
            places = self._by_recording[kind].get(uid, set())
            places.discard(place_of(body))
            if not places:
                self._by_recording[kind].pop(uid, None)


def _uid_label(body: Object) -> str:
    return str((body["metadata"].get("labels") or {}).get(names.UID_LABEL) or "")
