"""A reconciler with all that it needs: an API server with one object, a wire with one run, a clock that stands."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from openairun_operator import store
from openairun_operator.api.names import FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.record import API, Usage
from openairun_operator.buckets import Bucket
from openairun_operator.kube.cluster import ClusterError, ConflictError, GoneError
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef
from openairun_operator.lifecycle.provider import Provider
from openairun_operator.lifecycle.run import Run
from openairun_operator.metrics import Metrics
from openairun_operator.reconciler import Reconciler
from openairun_operator.wires.protocol import Wire

Body = dict[str, Any]
UID = "uid-1"


class ApiServer:
    """One object, with the API server's manners; `sent` is the history that a watch would bring."""

    def __init__(self) -> None:
        self.version = 100
        self.unanswered = float("-inf")
        self.writes: list[str] = []
        self.refuse: list[ClusterError] = []
        self.body: Body | None = {
            "metadata": {"name": "run", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "100"},
            "spec": {"model": "m", "input": "x"},
            "status": {"observedGeneration": -1},
        }
        self.sent: list[Body] = [copy.deepcopy(self.body)]

    def change(self, change: Callable[[Body], None]) -> Body:
        if self.body is None:
            raise GoneError("write", 404, "not found")
        change(self.body)
        self.version += 1
        self.body["metadata"]["resourceVersion"] = str(self.version)
        self.sent.append(copy.deepcopy(self.body))
        return copy.deepcopy(self.body)

    def _write(self, name: str, change: Callable[[Body], None]) -> Body:
        self.writes.append(name)
        if self.refuse:
            raise self.refuse.pop(0)
        return self.change(change)

    async def find(self, run: Run) -> Body | None:
        return copy.deepcopy(self.body)

    async def hold(self, run: Run, record: str) -> Body:
        if self.body and run.version != self.body["metadata"]["resourceVersion"]:
            raise ConflictError("claim", 409, "changed")

        def change(body: Body) -> None:
            body["metadata"]["finalizers"] = [FINALIZER]
            body["metadata"].setdefault("annotations", {})[RECORD_ANNOTATION] = record

        return self._write("hold", change)

    async def annotate(self, run: Run, record: str) -> Body:
        return self._write(
            "annotate", lambda body: body["metadata"].setdefault("annotations", {}).update({RECORD_ANNOTATION: record})
        )

    async def release(self, run: Run) -> Body:
        body = self._write("release", lambda body: body["metadata"].pop("finalizers"))
        if self.body and "deletionTimestamp" in self.body["metadata"]:
            self.body = None
        return body

    async def write_status(self, run: Run, difference: Body) -> Body:
        return self._write("status", lambda body: _merge(body["status"], difference))


def _merge(target: Body, patch: Body) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


class FakeWire:
    """A wire on which one run goes as `status` says. What is set of `gate`, `looking` and `cancelling` holds back
    creates, looks and cancels."""

    api = "Responses"
    searchable = False

    def __init__(self) -> None:
        self.created: list[CreateRequest] = []
        self.observed: list[RunRef] = []
        self.cancelled: list[RunRef] = []
        self.status = "in_progress"
        self.refuse_cancels = 0
        self.fail: list[Failure] = []
        self.gate: asyncio.Event | None = None
        self.looking: asyncio.Event | None = None
        self.cancelling: asyncio.Event | None = None
        self.sending = asyncio.Event()

    async def create(self, request: CreateRequest) -> RunObservation:
        self._maybe_fail()
        self.created.append(request)
        self.sending.set()
        if self.gate:
            await self.gate.wait()
        return RunObservation(id=f"resp_{len(self.created)}", status="queued")

    async def observe(self, ref: RunRef) -> RunObservation:
        self.observed.append(ref)
        if self.looking:
            await self.looking.wait()
        self._maybe_fail()
        if self.status != "completed":
            return RunObservation(id=ref.id, status=self.status)
        usage = Usage(promptTokens=3, completionTokens=4, totalTokens=7)
        return RunObservation(id=ref.id, status=self.status, text="done", usage=usage)

    async def cancel(self, ref: RunRef) -> RunObservation:
        self.cancelled.append(ref)
        if self.cancelling:
            await self.cancelling.wait()
        self._maybe_fail()
        if self.refuse_cancels:
            self.refuse_cancels -= 1
            return RunObservation(id=ref.id, status="in_progress", cancel_refused=True)
        return RunObservation(id=ref.id, status="cancelled")

    async def find(self, thread: str | None, token: str, since: datetime) -> RunObservation | None:
        raise AssertionError("not searchable")

    def _maybe_fail(self) -> None:
        if self.fail:
            raise CallFailedError(self.fail.pop(0))


class Providers:
    """Always the world's own wire, unless there is no key; a test may put another provider in the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def wanted(self, run: Run) -> Provider:
        return replace(self._world.provider, blocked=self._world.no_key)

    def of(self, namespace: str, name: str) -> Provider:
        return replace(self._world.provider, name=name, blocked=self._world.no_key)

    def where(self, namespace: str, name: str) -> tuple[str, str | None]:
        provider = self.of(namespace, name)
        return provider.address, provider.credential

    async def confirm(self, run: Run, name: str) -> bool:
        return self._world.confirms

    def wire(self, namespace: str, name: str, api: API, *, ending: bool) -> Wire:
        return cast(Wire, self._world.wire)

    def refused(self, namespace: str, name: str, failure: Failure) -> None:
        self._world.refused.append(failure)

    def bucket(self, namespace: str, name: str) -> Bucket | None:
        return self._world.bucket


class World:
    """A reconciler with all that it needs; time stands still unless a test moves it."""

    def __init__(self, cluster: Any = None) -> None:
        """`cluster` takes the place of an API server that has one object."""
        self.api, self.wire, self.metrics = ApiServer(), FakeWire(), Metrics()
        self.now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
        self.events: list[Event] = []
        self.no_key: Failure | None = None
        self.provider = Provider(name="operator", address="http://openai/v1", credential="mark")
        self.confirms = True
        self.refused: list[Failure] = []
        self.bucket: Bucket | None = None
        self.reconciler = Reconciler(
            Policy(holder="me"),
            cluster or cast(Any, self.api),
            Providers(self),
            cast(Any, self),
            self.metrics,
            clock=lambda: self.now,
        )
        self.reconciler.open()

    def emit(self, run: Run, event: Event) -> None:
        self.events.append(event)

    async def work(self) -> float | None:
        return await self.reconciler.work(UID)

    async def show(self, *indexes: int) -> None:
        """Bring these versions by the watch, and work after each."""
        for index in indexes:
            self.reconciler.saw("MODIFIED", self.api.sent[index])
            await self.work()

    @property
    def entry(self) -> store.Entry:
        entry = self.reconciler._store.get(UID)
        assert entry is not None
        return entry

    @property
    def status(self) -> Body:
        assert self.api.body is not None
        return cast(Body, self.api.body["status"])
