"""The bench's own way to the API server: raw requests, so that what is measured is not its own work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any

import aiohttp
from contestants import Kind
from meters import api_requests

_AT_ONCE = 16
_PREPARES = 30.0
FINISHED = ("completed", "failed", "cancelled", "incomplete", "expired")
"""Phases that no run leaves again, in lower case: ours are written in CamelCase."""
_FREE = {"metadata": {"finalizers": None}}
_MERGE = {"Content-Type": "application/merge-patch+json"}


class RefusedError(Exception):
    """The API server did not do as it was asked; the message is its own."""


class ClusterClient:
    """Objects of one kind in one namespace, as an administrator."""

    def __init__(self, session: aiohttp.ClientSession, server: str, namespace: str, kind: Kind, counts: bool) -> None:
        self._session = session
        self._server = server
        self._namespace = namespace
        self._kind = kind
        self._counts = counts
        self._some = asyncio.Semaphore(_AT_ONCE)
        self._objects = f"{server}/apis/{kind.api_version}/namespaces/{namespace}/{kind.plural}"

    async def create(self, body: Mapping[str, Any]) -> None:
        """Create it, when it is its turn: a few requests are under way at once."""
        async with self._some, self._session.post(self._objects, json=body) as answer:
            if answer.status != 201:
                raise RefusedError(f"an object was not created: {answer.status} {await answer.text()}")

    async def delete(self, name: str) -> None:
        async with self._some, self._session.delete(f"{self._objects}/{name}") as answer:
            if answer.status not in (200, 404):
                raise RefusedError(f"{name} was not deleted: {answer.status} {await answer.text()}")

    async def objects(self) -> list[dict[str, Any]]:
        """All that there are."""
        return await self._pages(self._objects)

    async def sweep(self, limit: float, prefix: str = "") -> tuple[int, int | None]:
        """Remove all whose names begin so, finalizers or not, within `limit` seconds.

        The answer is how many were found at once, and how many are left; None: the API server did not say.
        """
        most, found, removed = 0, None, set[str]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while found is None or found:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # asked again, while there is time
                        bodies = [body for body in await self.objects() if body["metadata"]["name"].startswith(prefix)]
                        found = [body["metadata"]["name"] for body in bodies]
                        most = max(most, len(found))
                        await together(self._remove(body, removed) for body in bodies)
                    await asyncio.sleep(0.2 if found != [] else 0)
        return most, None if found is None else sum(name not in removed for name in found)

    async def _remove(self, body: Mapping[str, Any], removed: set[str]) -> None:
        """Enter it in `removed`. What is refused is not, and is found again by the next list."""
        name, done = body["metadata"]["name"], True
        for method in removal(body):
            sent: dict[str, Any] = {"json": _FREE, "headers": _MERGE} if method == "PATCH" else {}
            async with self._some, self._session.request(method, f"{self._objects}/{name}", **sent) as answer:
                done = done and answer.status in (200, 404)
        if done:
            removed.add(name)

    async def requests(self) -> Mapping[str, int] | None:
        """What the API server was asked so far; None if it does not count."""
        if not self._counts:
            return None
        async with self._session.get(f"{self._server}/metrics") as answer:
            answer.raise_for_status()
            return api_requests(await answer.text(), (self._kind.plural, "events"))

    async def events(self) -> list[tuple[str, str]]:
        """Every Event in the namespace: the name of its object and its reason."""
        found = await self._pages(f"{self._server}/api/v1/namespaces/{self._namespace}/events")
        return [(item["involvedObject"]["name"], item["reason"]) for item in found]

    async def _pages(self, url: str) -> list[dict[str, Any]]:
        found, query = [], {"limit": "500"}
        while True:
            async with self._session.get(url, params=query) as answer:
                answer.raise_for_status()
                page = await answer.json()
            found += page["items"]
            if not (token := page["metadata"].get("continue")):
                return found
            query["continue"] = token

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Watch the objects; there are none yet."""
        watcher = Watcher(await self._version())
        reading = asyncio.create_task(self._watch(watcher), name="watch")
        watcher.over = reading
        try:
            yield watcher
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _version(self) -> str:
        """From which to watch. While the API server prepares for a new CRD it says 429, for some seconds."""
        deadline = time.monotonic() + _PREPARES
        while True:
            async with self._session.get(self._objects) as answer:
                if answer.status != 429 or time.monotonic() > deadline:
                    answer.raise_for_status()
                    return str((await answer.json())["metadata"]["resourceVersion"])
            await asyncio.sleep(0.1)

    async def _watch(self, watcher: Watcher) -> None:
        while True:
            query = {"watch": "1", "resourceVersion": watcher.version, "timeoutSeconds": "36000"}
            async with self._session.get(self._objects, params=query, timeout=aiohttp.ClientTimeout()) as answer:
                if answer.status != 429:  # so it says while it prepares for a new CRD
                    answer.raise_for_status()
                    await watcher.read(answer.content)
            await asyncio.sleep(0.1)


def removal(body: Mapping[str, Any]) -> list[str]:
    """The requests that remove an object whoever holds it: DELETE first, for after that no finalizer can be added."""
    metadata = body["metadata"]
    return ["DELETE"] * (not metadata.get("deletionTimestamp")) + ["PATCH"] * bool(metadata.get("finalizers"))


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it all at once; when one fails, or this is cancelled, nothing of it goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


_GONE: dict[str, Any] = {"metadata": {}}


class Watcher:
    """What a person who watches has seen, and when it arrived (`time.time()`)."""

    def __init__(self, version: str) -> None:
        self.version = version
        """The last resourceVersion that was seen."""
        self.run_ids: dict[str, str] = {}
        """Names whose status shows a run, and which."""
        self.shown_at = 0.0
        """When the last of them appeared."""
        self.finished: dict[str, float] = {}
        """Runs whose status says that they have finished."""
        self.gone: dict[str, float] = {}
        """Names of objects that are no more."""
        self.histories: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        """Every version of the objects that are entered here, by their names."""
        self.finishes: asyncio.Queue[str] = asyncio.Queue()
        """Names of objects in the order in which they finished."""
        self.over: asyncio.Task[None] | None = None
        """Reads; it ends when it fails."""

    async def read(self, stream: aiohttp.StreamReader) -> None:
        """Until the stream ends."""
        rest = b""
        async for chunk in stream.iter_any():
            now = time.time()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._saw(json.loads(line), now)

    def _saw(self, event: dict[str, Any], now: float) -> None:
        body = event["object"]
        if event["type"] == "ERROR":
            raise RuntimeError(f"the watch failed: {body}")
        self.version = body["metadata"]["resourceVersion"]
        name, status = body["metadata"]["name"], body.get("status") or {}
        if (history := self.histories.get(name)) is not None:
            history.append((now, body if event["type"] != "DELETED" else _GONE))
        if event["type"] == "DELETED":
            self.gone[name] = now
            return
        run_id = status.get("runID")
        if run_id and name not in self.run_ids:
            self.run_ids[name] = run_id
            self.shown_at = now
        if run_id and run_id not in self.finished and status.get("phase", "").lower() in FINISHED:
            self.finished[run_id] = now
            self.finishes.put_nowait(name)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a write changed, for a person: `+finalizer …`, `annotation …`, `status.phase`."""
    if after is _GONE:
        held = before["metadata"].get("finalizers") or ()
        return [*(f"-finalizer {name}" for name in held), "gone"]
    said = []
    was, now = before["metadata"], after["metadata"]
    old, new = set(was.get("finalizers") or ()), set(now.get("finalizers") or ())
    said += [f"+finalizer {name}" for name in sorted(new - old)] + [f"-finalizer {name}" for name in sorted(old - new)]
    said += [f"annotation {name}" for name in _changed(was.get("annotations"), now.get("annotations"))]
    said += [f"status.{name}" for name in _changed(before.get("status"), after.get("status"))]
    said += ["deletion asked for"] if now.get("deletionTimestamp") and not was.get("deletionTimestamp") else []
    return said


def kind_of_write(said: list[str]) -> str:
    """One word for what `changes` says: which parts of the object were written."""
    parts = {each.lstrip("+-").split(" ")[0].split(".")[0] for each in said}
    return " and ".join(sorted(parts)) or "nothing"


def _changed(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    before, after = before or {}, after or {}
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
