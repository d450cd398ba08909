"""Where one operator is measured: a namespace, a stand-in, a watch, and what a flight does with them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import world
from cluster_client import ClusterClient
from contestants import Contestant
from meters import Meter, Reading
from world import BenchError, World

from openairun_devkit.controlplane import die_with_parent
from openairun_devkit.kubectl import read_cluster, write_kubeconfig

_WARM = 10


class Scene:
    """`async with scene._ground():` has all but the operator, which `_launch` starts."""

    def __init__(self, place: World, contestant: Contestant, count: int, interval: float) -> None:
        self._place = place
        self._contestant = contestant
        self._count = count
        self._interval = interval
        self._starts = itertools.count(1)
        self._missed: list[str] = []
        self._made = 0
        self._began = time.monotonic()

    @contextlib.asynccontextmanager
    async def _ground(self) -> AsyncIterator[None]:
        """A namespace, a stand-in and a watch of its own, and the operator, once it is started."""
        place, cluster = self._place, self._place.cluster
        self._directory = place.directory / f"{self._contestant.name}-{self._count}"
        self._directory.mkdir(parents=True)
        self._namespace = cluster.create_namespace()
        kind = self._contestant.kind
        self._client = ClusterClient(place.session, place.server, self._namespace, kind, place.counts)
        async with world.openai(self._directory) as self._openai, self._client.watching() as self._watcher:
            self._meter = Meter({**place.pids, "openai": self._openai.pid, "bench": os.getpid()})
            try:
                yield
            finally:
                if "operator" in self._meter.pids:
                    self._operator.kill()

    def _launch(self) -> None:
        """Start the operator, after killing the one that runs."""
        directory = self._directory / f"operator-{next(self._starts)}"
        directory.mkdir()
        server, authority = read_cluster(self._place.cluster.kubeconfig)
        token = self._place.cluster.operator_token
        write_kubeconfig(directory / "kubeconfig", server=server, token=token, certificate_authority=authority)
        self._operator = self._contestant.start(directory, self._namespace, self._openai.url, self._interval)
        self._meter.pids["operator"] = self._operator.pid

    # Reading and waiting

    async def _read(self, *, ending: bool = False) -> Reading:
        """All meters. What reading costs the servers counts for no window: it is read last, or first where one ends."""
        if ending:
            early = self._meter.read({}, None)
        stats, api = await self._openai.stats(), await self._client.requests()
        late = self._meter.read(stats["requests"], api)
        return Reading(early.at, early.cpu, early.machine, early.rss, late.openai, late.api) if ending else late

    async def _until(self, what: str, limit: float, missing: Callable[[], Awaitable[int]]) -> bool:
        """Wait until nothing is missing; else it is said, and written down, and the bench goes on."""
        deadline = time.monotonic() + limit
        while left := await missing():
            if self._operator.ended is not None:
                log = self._operator.log.read_text(errors="replace")[-2000:]
                raise BenchError(f"{self._contestant.name} ended with {self._operator.ended}:\n{log}")
            if self._watcher.over and self._watcher.over.done():
                raise BenchError("the bench cannot watch any more") from self._watcher.over.exception()
            if time.monotonic() > deadline:
                self._miss(f"{what}: {left} are missing after {limit:.0f} s")
                return False
            await asyncio.sleep(0.1)
        return True

    def _miss(self, what: str) -> None:
        self._missed.append(what)
        self._say(f"MISSED: {what}")

    async def _unshown(self, names: list[str]) -> int:
        return sum(name not in self._watcher.run_ids for name in names)

    async def _unfinished(self, ids: list[str]) -> int:
        return sum(id not in self._watcher.finished for id in ids)

    def _remaining(self, kept: int) -> Callable[[], Awaitable[int]]:
        """How many are still to go until `kept` are left of all that were made."""

        async def missing() -> int:
            return max(self._made - self._watcher.gone - kept, 0)

        return missing

    async def _unpolled(self) -> int:
        return (await self._openai.stats())["unpolled"]

    async def _events_posted(self) -> None:
        """Wait for Events that come late, since to post them is no polling; for two minutes at most."""
        before, now = -1, 0
        for _ in range(40):
            if now == before:
                return
            await asyncio.sleep(3)
            before, now = now, ((await self._client.requests()) or {}).get("POST events", 0)

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {self._contestant.name}, N={self._count}: {text}", flush=True)

    # Objects

    async def _make(self, prefix: str, count: int) -> list[str]:
        """Create so many at once; the answer is their names."""
        names = [f"{prefix}-{number:05}" for number in range(count)]
        bodies = (self._contestant.kind.body(name, self._interval, {"bench": prefix}) for name in names)
        await asyncio.gather(*(self._client.create(body) for body in bodies))
        self._made += count
        return names

    async def _delete_by_kubectl(self, *which: str) -> tuple[float, float]:
        """`kubectl delete … --wait=false`: when it began and how long it took."""
        began = time.time()
        process = await asyncio.create_subprocess_exec(
            self._place.kubectl,
            f"--kubeconfig={self._place.cluster.kubeconfig}",
            f"--namespace={self._namespace}",
            "delete",
            self._contestant.kind.plural,
            *which,
            "--wait=false",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            preexec_fn=die_with_parent(),
        )
        limit = 120 + 0.2 * self._count
        try:
            if await asyncio.wait_for(process.wait(), limit):
                raise BenchError(f"kubectl delete ended with {process.returncode}; what it said is above")
        except TimeoutError:
            self._miss(f"kubectl delete took more than {limit:.0f} s, and was ended")
        finally:
            if process.returncode is None:
                process.kill()
        return began, time.time() - began

    async def _warm_up(self, prefix: str) -> None:
        """A few short lives: what is loaded at first use is no run's."""
        await self._openai.lives((0.5, 1.0))
        there = self._made - self._watcher.gone
        names = await self._make(prefix, _WARM)
        if not await self._until("the first runs", 60, lambda: self._unshown(names)):
            raise BenchError(f"{self._contestant.name} does not work: see {self._operator.log}")
        ids = [self._watcher.run_ids[name] for name in names]
        await self._until("the end of the first runs", 60, lambda: self._unfinished(ids))
        await asyncio.gather(*map(self._client.delete, names))
        await self._until("the deletion of the first runs", 60, self._remaining(there))
