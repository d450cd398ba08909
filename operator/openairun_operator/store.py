"""What is known of each resource: the newest version seen, by the watch or in the answer to a write.

The watch can be slow, and then brings what is long past: versions are compared, and the past changes nothing.
"""

import asyncio
import dataclasses
import json
import random
import sys
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from openairun_operator.api.record import Record
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.failure import Failure, retry_delay
from openairun_operator.lifecycle.glancing import Calm
from openairun_operator.lifecycle.run import Run, parse

_REMEMBERED: Final = 600.0
"""Seconds for which the version of a deleted object is kept: its last events may come late."""
_LIST_LAG: Final = 60.0
"""Seconds after which a list that shows an older version is believed: etcd was restored from a backup."""
_SOON: Final = 5.0
_MOST_PARSED: Final = 500


State = tuple[str, str | None]
"""The phase and the API of a resource; an empty phase where it has none yet."""


def _read(body: Mapping[str, Any]) -> tuple[Run, bytes]:
    """An object parsed, and packed."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return parse(body), zlib.compress(json.dumps({**body, "metadata": metadata}, separators=(",", ":")).encode(), 1)


def _state(phase: str | None, api: str | None) -> State:
    return sys.intern(phase or ""), sys.intern(api) if api else None


@dataclass(frozen=True, slots=True)
class Version:
    """The newest version seen of an object, and when; of one that was let go, when that was."""

    number: int
    at: float = field(default_factory=time.monotonic)

    def covers(self, number: int, *, listed: bool) -> bool:
        """Whether `number` is no news. An old number in a fresh list is some, once ours is no longer fresh."""
        if number == self.number:
            return True
        return number < self.number and not (listed and time.monotonic() - self.at > _LIST_LAG)


def number(version: str) -> int:
    """resourceVersions are comparable whole numbers (Kubernetes API conventions, since 1.35 by contract)."""
    return int(version) if version.isdigit() else 0


def version_number(body: Mapping[str, Any]) -> int:
    """That of an object's resourceVersion."""
    return number(str(body["metadata"].get("resourceVersion", "")))


class Parsed:
    """Who was parsed last, by uid. Parsed, one takes ten times the room, and thousands can come at once."""

    def __init__(self, get: Callable[[str], "Entry | None"], most: int = _MOST_PARSED) -> None:
        self._get = get
        self._most = most
        self._uids: OrderedDict[str, None] = OrderedDict()

    def add(self, uid: str) -> None:
        """This one was parsed just now; whichever was parsed longest ago is folded."""
        self._uids[uid] = None
        self._uids.move_to_end(uid)
        if len(self._uids) > self._most:
            oldest, _ = self._uids.popitem(last=False)
            if entry := self._get(oldest):
                entry.fold()

    def discard(self, uid: str) -> None:
        """It was folded, or is not needed."""
        self._uids.pop(uid, None)


@dataclass(slots=True)
class Entry:
    """One resource: the newest version seen, and what this process knows of its run."""

    uid: str
    namespace: str
    version: Version
    _packed: bytes
    _run: Run | None
    _parsed: Parsed
    _noted: Record | None = None
    """The record of an object that vanished, which no version shows."""
    _state: State | None = None
    known: Knowledge = field(default_factory=Knowledge)
    ending: bool = False
    vanished: bool = False
    """The object went without waiting for us: somebody removed the finalizer."""
    settled: tuple[Any, Any] | None = None
    """A status that was written, and what the API server made of it: not to be written again."""
    place: float | None = None
    """Its place in its provider's line of requests; None: it has none."""
    calm: Calm | None = None
    """As long as it lasts looks are not decided upon; None: each is."""
    looking: asyncio.Timeout | None = None
    """The time that the look under way has; None: there is none."""
    farewell: Event | None = None
    """What was said of its end: not to be said again when its finalizer cannot be removed at once."""

    @classmethod
    def of(cls, body: Mapping[str, Any], parsed: Parsed) -> "Entry":
        """A resource that was not known before."""
        run, packed = _read(body)
        entry = cls(run.uid, sys.intern(run.namespace), Version(version_number(body)), packed, run, parsed)
        parsed.add(entry.uid)
        return entry

    @property
    def run(self) -> Run:
        """The newest version seen."""
        if self._run is None:
            run = parse(json.loads(zlib.decompress(self._packed)))
            self._run = dataclasses.replace(run, record=self._noted) if self._noted else run
            self._parsed.add(self.uid)
        return self._run

    def fold(self) -> None:
        """Keep it packed alone. Whoever asks for `run` has it parsed anew."""
        if self._run is not None:
            self._state = self.state
            self._run = None
        self._parsed.discard(self.uid)

    def note(self, record: Record) -> None:
        """Note the record of an object that vanished."""
        assert self.vanished
        self._run = dataclasses.replace(self.run, record=record)
        self._noted = record

    @property
    def state(self) -> State:
        """The phase and API of `run`."""
        if self._run is None and self._state is not None:
            return self._state
        return _state(self.run.status.phase, self.run.status.api)

    @property
    def deleted(self) -> bool:
        """Whether the resource is being deleted; there is no calm then."""
        return self.calm is None and self.run.deleted_at is not None

    def take(self, body: Mapping[str, Any], *, listed: bool = False) -> None:
        """Go on from this version, unless a newer one came meanwhile."""
        number = version_number(body)
        if self.version.covers(number, listed=listed) and number != self.version.number:
            return
        self._run, self._packed = _read(body)
        self._noted = None
        self._parsed.add(self.uid)
        self.version = Version(number)
        self.calm = None

    def pass_over(self, body: Mapping[str, Any]) -> None:
        """This version is the last: it is known, and need not be read."""
        number = version_number(body)
        if number > self.version.number:
            self.version = Version(number)

    def hold_back(self, failure: Failure, now: datetime) -> None:
        """What failed is tried again, later each time."""
        known = self.known
        known.failure, known.failed_at = failure, now
        known.failures += 1
        interval = st.interval_of(self.run.spec, self.run.record).total_seconds()
        known.retry_at = now + timedelta(seconds=retry_delay(failure, known.failures, random.random(), interval))

    def break_off(self) -> None:
        """Break off the look under way, unless it is soon over: the run is to be ended."""
        if self.looking and self.looking.when() is None:
            self.looking.reschedule(asyncio.get_running_loop().time() + _SOON)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is kept of a resource that needs no work; `state` is None for one that is leaving."""

    namespace: str
    version: Version
    state: State | None


class Store:
    """The resources that need work, by uid; of those that need none, no more than the version."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._resting: dict[str, _Rest] = {}
        self._parsed = Parsed(self.get)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """The resources that need work, as they are now."""
        return iter(list(self._entries.items()))

    def states(self) -> Iterator[State]:
        """That of every resource there is."""
        for entry in self._entries.values():
            yield entry.state
        yield from (rest.state for rest in self._resting.values() if rest.state)

    def get(self, uid: str) -> Entry | None:
        """The resource, if it needs work."""
        return self._entries.get(uid)

    def is_news(self, body: Mapping[str, Any], *, listed: bool) -> bool:
        """Whether `body` is newer than what was seen of it."""
        uid = body["metadata"]["uid"]
        entry = self._entries.get(uid)
        rest = self._resting.get(uid)
        version = entry.version if entry else rest.version if rest else None
        return version is None or not version.covers(version_number(body), listed=listed)

    def read(self, body: Mapping[str, Any]) -> Entry:
        """A resource that was not known before. It is not kept yet."""
        return Entry.of(body, self._parsed)

    def keep(self, uid: str, entry: Entry) -> None:
        """The resource needs work."""
        self._entries[uid] = entry
        self._resting.pop(uid, None)

    def rest(self, uid: str, entry: Entry) -> None:
        """It needs none. Its version is kept: older events of the watch may still be on their way."""
        self._drop(uid)
        self._resting[uid] = _Rest(entry.namespace, entry.version, entry.state)

    def rest_unread(self, body: Mapping[str, Any]) -> None:
        """Likewise, of one that was not read."""
        uid, status = body["metadata"]["uid"], body["status"]
        version, state = Version(version_number(body)), _state(status.get("phase"), status.get("api"))
        self._resting[uid] = _Rest(sys.intern(body["metadata"]["namespace"]), version, state)

    def leave(self, uid: str, entry: Entry) -> None:
        """It was let go, and is deleted any moment."""
        self._drop(uid)
        self._resting[uid] = _Rest(entry.namespace, Version(entry.version.number), None)

    def forget(self, uid: str) -> None:
        """It is deleted: nothing more comes."""
        self._drop(uid)
        self._resting.pop(uid, None)

    def missing(self, namespace: str | None, uids: Collection[str]) -> list[str]:
        """These are all that there are in `namespace`, or everywhere. The answer is others that need work; those that
        need none have left.
        """
        for uid, rest in list(self._resting.items()):
            if rest.state and namespace in (None, rest.namespace) and uid not in uids:
                self._resting[uid] = _Rest(rest.namespace, Version(rest.version.number), None)
        return [uid for uid, entry in self if namespace in (None, entry.namespace) and uid not in uids]

    def prune(self) -> None:
        """Forget what was let go long ago and whose deletion the watch did not bring."""
        then = time.monotonic() - _REMEMBERED
        for uid in [uid for uid, rest in self._resting.items() if rest.state is None and rest.version.at < then]:
            del self._resting[uid]

    def _drop(self, uid: str) -> None:
        self._entries.pop(uid, None)
        self._parsed.discard(uid)
