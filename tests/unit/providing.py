"""Namespaces with their providers and runs: the real reconciler and its providers between an API server and servers
that note who asked them with which key. Time passes at once whenever all wait for it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from reconciling import _merge

from openairun_operator import checking, providers
from openairun_operator.api.names import FINALIZER, PLURAL, RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.buckets import Buckets
from openairun_operator.checking import Checker
from openairun_operator.config import Settings
from openairun_operator.kube.cluster import ClusterError, ConflictError, GoneError
from openairun_operator.kube.credentials import OperatorKey
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef
from openairun_operator.lifecycle.run import Run
from openairun_operator.metrics import Metrics
from openairun_operator.providers import Own, Providers
from openairun_operator.reconciler import Reconciler
from openairun_operator.wires.clients import Credentials
from openairun_operator.wires.probe import Probe

Body = dict[str, Any]
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OWN = "https://own/v1"
OWN_KEY = "own-key"
RED = "https://red/v1"
BLUE = "https://blue/v1"
RUNS, PROVIDERS, SECRETS, CONFIG_MAPS = "openairuns", "openaiproviders", "Secret", "ConfigMap"
NO_ANSWER = Failure(reason=Reason.TIMED_OUT, message="no answer in time", outcome=Outcome.UNKNOWN)
DOWN = ClusterError("ask", 503, "503 away")


def slow_down(seconds: float) -> Failure:
    return Failure(reason=Reason.RATE_LIMITED, message="OpenAI said 429: slow down", retry_after=seconds)


class Clock:
    """The event loop's time, which jumps to the next moment that anybody waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.began = self.seconds = loop.time()
        self._loop = cast(Any, loop)
        self._select = self._loop._selector.select
        self._loop.time = self._tell
        self._loop._selector.select = self._jump

    def _tell(self) -> float:
        self.seconds += 1e-7  # time never stands: who wakes a rounding error too early would wait for ever
        return self.seconds

    def _jump(self, timeout: float | None) -> Any:
        ready = self._select(0)
        if not ready:
            assert timeout is not None, "all wait, and nothing will come"
            self.seconds += timeout
        return ready

    def stop(self) -> None:
        del self._loop.time
        del self._loop._selector.select

    @property
    def passed(self) -> float:
        return self.seconds - self.began

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)


class ApiServer:
    """Objects by kind, namespace and name; `watches` are told of each change."""

    def __init__(self) -> None:
        self.unanswered = float("-inf")
        self.objects: dict[tuple[str, str, str], Body] = {}
        self.watches: dict[str, Callable[[str | None, Body], None]] = {}
        self.reads: list[str] = []
        self.writes: list[tuple[str, str]] = []
        self.statuses: list[tuple[str, Body]] = []
        """What was written into status, by the object's name."""
        self.down: set[str] = set()
        """What fails: verbs, such as read and status."""
        self._count = itertools.count(1)

    def put(self, kind: str, namespace: str, name: str, body: Body) -> Body:
        """As a user: create it, or change its spec or data."""
        old = self.objects.get((kind, namespace, name))
        new = copy.deepcopy(old) if old else {"metadata": {"namespace": namespace, "name": name}}
        new |= copy.deepcopy(body)
        number, meta = next(self._count), new["metadata"]
        meta.setdefault("uid", f"uid-{namespace}-{name}-{number}")
        meta.setdefault("creationTimestamp", f"{START + timedelta(seconds=number):%Y-%m-%dT%H:%M:%SZ}")
        meta["generation"] = meta.get("generation", 0) + 1
        new.setdefault("status", {"observedGeneration": -1})
        return self._keep(kind, new, "MODIFIED" if old else "ADDED")

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """As a user: delete it, once its finalizers are gone."""
        body = self.objects[kind, namespace, name]
        if body["metadata"].get("finalizers"):
            body["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
            self._keep(kind, body, "MODIFIED")
            return
        del self.objects[kind, namespace, name]
        self._tell(kind, "DELETED", body)

    def _keep(self, kind: str, body: Body, type_: str) -> Body:
        body["metadata"]["resourceVersion"] = str(next(self._count))
        self.objects[kind, body["metadata"]["namespace"], body["metadata"]["name"]] = body
        self._tell(kind, type_, body)
        return copy.deepcopy(body)

    def _tell(self, kind: str, type_: str, body: Body) -> None:
        if told := self.watches.get(kind):
            told(type_, copy.deepcopy(body))

    def _get(self, verb: str, kind: str, namespace: str, name: str) -> Body:
        if verb in self.down:
            raise DOWN
        if (kind, namespace, name) not in self.objects:
            raise GoneError(verb, 404, "not found")
        return self.objects[kind, namespace, name]

    # --- as the operator calls it

    async def read(self, kind: str, namespace: str, name: str) -> Body:
        self.reads.append(f"{kind} {namespace}/{name}")
        return copy.deepcopy(self._get("read", kind, namespace, name))

    async def read_provider(self, namespace: str, name: str) -> Body:
        return copy.deepcopy(self._get("read_provider", PROVIDERS, namespace, name))

    async def every(
        self, plural: str, namespaces: Iterable[str], versions: dict[str | None, str] | None = None
    ) -> AsyncIterator[Body]:
        for kind, namespace, name in sorted(self.objects):
            if kind == plural:
                yield copy.deepcopy(self._get("list", kind, namespace, name))

    def _write(self, verb: str, run: Run, change: Callable[[Body], None]) -> Body:
        self.writes.append((verb, run.name))
        body = self._get(verb, RUNS, run.namespace, run.name)
        change(body)
        return self._keep(RUNS, body, "MODIFIED")

    async def hold(self, run: Run, record: str) -> Body:
        there = self._get("hold", RUNS, run.namespace, run.name)
        if run.version != there["metadata"]["resourceVersion"]:
            raise ConflictError("claim", 409, "changed")

        def change(body: Body) -> None:
            body["metadata"]["finalizers"] = [FINALIZER]
            body["metadata"].setdefault("annotations", {})[RECORD_ANNOTATION] = record

        return self._write("hold", run, change)

    async def annotate(self, run: Run, record: str) -> Body:
        annotation = {RECORD_ANNOTATION: record}
        return self._write(
            "annotate", run, lambda body: body["metadata"].setdefault("annotations", {}).update(annotation)
        )

    async def release(self, run: Run) -> Body:
        body = self._write("release", run, lambda body: body["metadata"].pop("finalizers"))
        if "deletionTimestamp" in body["metadata"]:
            self.remove(RUNS, run.namespace, run.name)
        return body

    async def write_status(self, run: Run, difference: Body) -> Body:
        self.statuses.append((run.name, difference))
        return self._write("status", run, lambda body: _merge(body["status"], difference))

    async def write_provider_status(self, body: Body, difference: Body) -> Body:
        meta = body["metadata"]
        self.statuses.append((meta["name"], difference))
        there = self._get("provider_status", PROVIDERS, meta["namespace"], meta["name"])
        _merge(there["status"], difference)
        return self._keep(PROVIDERS, there, "MODIFIED")


@dataclass(frozen=True)
class Asked:
    """A request that a server got."""

    doing: str
    address: str
    key: str
    run: str | None = None
    """The resource's name, for a create; else the run's id."""
    at: float = 0.0


class Servers:
    """OpenAI at each address. A run is known to the account that made it: a key's own, unless `accounts` says more."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[Asked] = []
        self.runs: dict[str, tuple[str, str, str]] = {}
        """Address, account and status, by id."""
        self.accounts: dict[str, str] = {}
        self.wrong_keys: set[str] = set()
        self.faults: dict[str, list[Failure]] = {}
        """The next answers of a server, by its address."""
        self.hang: dict[str, asyncio.Event] = {}
        """Servers that do not answer before."""
        self.going = 0
        self.most = 0
        """The most runs that went at once."""

    def wire(self, api: API, clients: Any, credentials: Credentials, spend: Any) -> Any:
        return Wire(self, api, credentials)

    def end(self, id_: str, status: str = "completed") -> None:
        address, account, before = self.runs[id_]
        self.going -= before == "in_progress"
        self.runs[id_] = (address, account, status)

    def creates(self) -> list[str | None]:
        return [asked.run for asked in self.asked if asked.doing == "create"]

    def of(self, doing: str) -> list[tuple[str, str]]:
        """Address and key of all such requests."""
        return [(asked.address, asked.key) for asked in self.asked if asked.doing == doing]


class Wire:
    def __init__(self, servers: Servers, api: API, credentials: Credentials) -> None:
        self.servers, self.api, self.credentials = servers, api, credentials

    async def _ask(self, doing: str, run: str | None) -> None:
        servers, address, key = self.servers, self.credentials.base_url, self.credentials.key
        servers.asked.append(Asked(doing, address, key, run, servers.clock.passed))
        if address in servers.hang:
            await servers.hang[address].wait()
        if key in servers.wrong_keys:
            raise CallFailedError(Failure(reason=Reason.INVALID_CREDENTIALS, message="OpenAI said 401: wrong key"))
        if faults := servers.faults.get(address):
            raise CallFailedError(faults.pop(0))

    @property
    def account(self) -> str:
        return self.servers.accounts.get(self.credentials.key, self.credentials.key)

    async def create(self, request: CreateRequest) -> RunObservation:
        servers = self.servers
        name = request.metadata["openairun_name"]
        await self._ask("create", name)
        id_ = f"resp_{len(servers.runs) + 1}_{name}"
        servers.runs[id_] = (self.credentials.base_url, self.account, "in_progress")
        servers.going += 1
        servers.most = max(servers.most, servers.going)
        return RunObservation(id=id_, status="queued")

    def _found(self, ref: RunRef) -> str:
        address, account, status = self.servers.runs.get(ref.id, ("", "", ""))
        if (address, account) != (self.credentials.base_url, self.account):
            raise CallFailedError(Failure(reason=Reason.NOT_FOUND, message="OpenAI said 404: no such run"))
        return status

    async def observe(self, ref: RunRef) -> RunObservation:
        await self._ask("look", ref.id)
        return RunObservation(id=ref.id, status=self._found(ref))

    async def cancel(self, ref: RunRef) -> RunObservation:
        await self._ask("cancel", ref.id)
        if self._found(ref) == "in_progress":
            self.servers.end(ref.id, "cancelled")
        return RunObservation(id=ref.id, status=self._found(ref))

    async def find(self, thread: str | None, token: str, since: datetime) -> RunObservation | None:
        await self._ask("find", thread)
        return None


class Clients:
    """Makes no clients; refuses what cannot be used, as the real ones do."""

    def __init__(self) -> None:
        self.forgotten: list[Credentials] = []

    def client(self, credentials: Credentials) -> None:
        credentials.check()
        if credentials.ca_bundle is not None:
            credentials.trust.context()

    def forget(self, credentials: Credentials) -> None:
        self.forgotten.append(credentials)


class Town:
    """All of it. A user's change is seen at once, unless `unseen`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock(asyncio.get_running_loop())
        self.api, self.servers, self.clients = ApiServer(), Servers(self.clock), Clients()
        self.settings = Settings(holder="me", base_url=OWN, api_key=OWN_KEY)
        self.key = OperatorKey(None, OWN_KEY)
        self.events: list[tuple[str, Event]] = []
        self.probes: dict[str, Probe] = {}
        self.probed: list[Credentials] = []
        self._tasks: list[asyncio.Task[None]] = []
        monkeypatch.setattr(providers, "wire", self.servers.wire)
        monkeypatch.setattr(checking, "probe", self._probe)
        self._build()

    def _build(self) -> None:
        cluster, buckets = cast(Any, self.api), Buckets(lambda: self.clock.seconds)
        clients = cast(Any, self.clients)
        self.providers = Providers(Own(self.settings, self.key), clients, cluster, _buckets=buckets)
        self.reconciler = Reconciler(
            Policy(holder="me"), cluster, self.providers, cast(Any, self), Metrics(), clock=self.clock.now
        )
        self.providers.changed = self.reconciler.provider_changed
        self.checker = Checker(self.providers, cluster, clients, self.reconciler.counts, lambda: True)
        self.api.watches = {RUNS: self.reconciler.saw, PROVIDERS: self.providers.saw}

    def operator(self, **settings: Any) -> None:
        """Start it anew with these settings; it is not running yet."""
        self.settings = replace(self.settings, **settings)
        self._build()

    def emit(self, run: Run, event: Event) -> None:
        self.events.append((run.name, event))

    async def _probe(self, clients: Any, credentials: Credentials) -> Probe:
        self.probed.append(credentials)
        if credentials.base_url in self.servers.hang:
            await self.servers.hang[credentials.base_url].wait()
        return self.probes.get(credentials.base_url, Probe(frozenset({"Responses", "Assistants"}), None))

    # --- the operator

    def spawn(self, *runs: Coroutine[Any, Any, None]) -> None:
        self._tasks += [asyncio.create_task(run) for run in runs]

    async def start(self, *, checks: bool = False) -> None:
        """Know all that there is, and go on in the background."""
        async for body in self.api.every(PROVIDERS, ()):
            self.providers.saw(None, body)
        await self.providers.read_due(10)
        async for body in self.api.every(PLURAL, ()):
            self.reconciler.saw(None, body)
        self.reconciler.open()
        going = self.reconciler
        self.spawn(going.scheduler.run(), going.sweep(), going.let_go(), going.seek(), self.providers.watch())
        if checks:
            self.spawn(self.checker.run())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def restart(self) -> None:
        """Stop the operator, and start another."""
        await self.stop()
        await self.reconciler.drain(5)
        self._build()
        await self.start()

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(self, happened: Callable[[], object], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not happened():  # noqa: ASYNC110 - a fake has no event to wait for
                await asyncio.sleep(0.05)

    # --- users

    @contextlib.contextmanager
    def unseen(self, kind: str) -> Any:
        """The watch of this kind lags behind."""
        watch = self.api.watches.pop(kind)
        yield
        self.api.watches[kind] = watch

    def secret(self, namespace: str, name: str, key: str | bytes) -> None:
        data = base64.b64encode(key if isinstance(key, bytes) else key.encode()).decode()
        self.api.put(SECRETS, namespace, name, {"data": {"api-key": data}})

    def provider(self, namespace: str, name: str, url: str, key: str | None = None, **spec: Any) -> Body:
        """Write it, and with `key` its Secret."""
        if key is not None:
            self.secret(namespace, name, key)
        reference = {"apiKeySecretRef": {"name": name, "key": "api-key"}}
        return self.api.put(PROVIDERS, namespace, name, {"spec": {"baseURL": url, **reference, **spec}})

    def run(self, namespace: str, name: str, provider: str | None = None, **spec: Any) -> Body:
        spec = {"model": "m", "input": "x", "timeout": "1h", **spec}
        if provider:
            spec["providerRef"] = {"name": provider}
        return self.api.put(RUNS, namespace, name, {"spec": spec})

    def edit(self, namespace: str, name: str, **spec: Any) -> None:
        body = self.api.objects[RUNS, namespace, name]
        self.api.put(RUNS, namespace, name, {"spec": {k: v for k, v in (body["spec"] | spec).items() if v is not None}})

    def delete(self, namespace: str, name: str, kind: str = RUNS) -> None:
        self.api.remove(kind, namespace, name)

    # --- what is seen

    def status(self, namespace: str, name: str, kind: str = RUNS) -> Body:
        return cast(Body, self.api.objects[kind, namespace, name]["status"])

    def condition(self, namespace: str, name: str, type_: str = "Ready", kind: str = RUNS) -> Body:
        return next((c for c in self.status(namespace, name, kind).get("conditions", ()) if c["type"] == type_), {})

    def reason(self, namespace: str, name: str, kind: str = RUNS) -> str | None:
        return self.condition(namespace, name, kind=kind).get("reason")

    def id(self, namespace: str, name: str) -> str:
        return cast(str, self.status(namespace, name)["runID"])

    def there(self, namespace: str, name: str) -> bool:
        return (RUNS, namespace, name) in self.api.objects


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    town = Town(monkeypatch)
    try:
        yield town
    finally:
        await town.stop()
        town.clock.stop()
