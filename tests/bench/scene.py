"""Where one operator is measured: a namespace, a stand-in, a watch, and what a flight does with them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace

import world
from cluster_client import ClusterClient, together
from contestants import Contestant
from limits import Limits
from meters import Meter, Reading
from world import BenchError, World

from openairun_devkit.controlplane import die_with_parent
from openairun_devkit.kubectl import read_cluster, write_kubeconfig

_WARM = 10


class Scene:
    """`async with scene._ground():` has all but the operator, which `_launch` starts."""

    def __init__(self, place: World, contestant: Contestant, limits: Limits) -> None:
        self._place = place
        self._contestant = contestant
        self._limits = limits
        self._count = limits.count
        self._interval = limits.interval
        self._starts = itertools.count(1)
        self._missed: list[str] = []
        self._made: defaultdict[str, list[str]] = defaultdict(list)
        """The names of all that were created, by their prefix."""
        self._began = time.monotonic()

    @contextlib.asynccontextmanager
    async def _ground(self) -> AsyncIterator[None]:
        """A namespace, a stand-in and a watch of its own, and the operator, once it is started."""
        self._began = time.monotonic()
        place, cluster = self._place, self._place.cluster
        self._directory = place.directory / f"{self._contestant.name}-{self._count}"
        self._directory.mkdir(parents=True)
        self._namespace = cluster.create_namespace()
        kind = self._contestant.kind
        self._client = ClusterClient(place.session, place.server, self._namespace, kind, place.counts)
        async with world.openai(self._directory) as self._openai, self._client.watching() as self._watcher:
            self._meter = Meter({**place.pids, "openai": self._openai.pid, "bench": os.getpid()})
            machine = asyncio.create_task(self._meter.watch_the_machine())
            try:
                yield
            finally:
                machine.cancel()
                await asyncio.gather(machine, return_exceptions=True)
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
        """All meters. What reading costs the servers counts for no window: it is read last, or first where one ends.

        The API server's answer takes longest, and comes furthest from the window.
        """
        if ending:
            early, stats = self._meter.read({}, None), await self._openai.stats()
            return replace(early, openai=stats["requests"], api=await self._client.requests())
        api, stats = await self._client.requests(), await self._openai.stats()
        return self._meter.read(stats["requests"], api)

    async def _until(
        self, what: str, limit: float, missing: Callable[[], Awaitable[int]], since: float | None = None
    ) -> bool:
        """Wait until nothing is missing; else it is said, and written down, and the bench goes on.

        The limit counts from now on, or from `since` (`time.time()`).
        """
        since = time.time() if since is None else since
        while (left := await missing()) > 0:
            self._check()
            if time.time() > since + limit:
                self._miss(f"{what}: {left} still to come after {limit:.0f} s")
                return False
            await asyncio.sleep(0.1)
        return True

    def _check(self) -> None:
        """Raise if the operator has died or nobody watches: then nothing more can be measured."""
        if not self._operator.killed and self._operator.ended is not None:
            log = self._operator.log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self._contestant.name} ended with {self._operator.ended}:\n{log}")
        if self._watcher.over and self._watcher.over.done():
            raise BenchError("the bench cannot watch any more") from self._watcher.over.exception()

    def _miss(self, what: str) -> None:
        self._missed.append(what)
        self._say(f"MISSED: {what}")

    async def _unshown(self, names: list[str]) -> int:
        return sum(name not in self._watcher.run_ids for name in names)

    async def _unfinished(self, ids: list[str]) -> int:
        return sum(id not in self._watcher.finished for id in ids)

    async def _ungone(self, names: list[str]) -> int:
        return sum(name not in self._watcher.gone for name in names)

    def _last_gone(self, names: Iterable[str]) -> float:
        return max((self._watcher.gone.get(name, 0.0) for name in names), default=0.0)

    async def _unpolled(self) -> int:
        return (await self._openai.stats())["unpolled"]

    async def _quiet(self, what: str, *kinds: str) -> None:
        """Wait until the API server gets no more requests of these kinds: what comes late counts for no window."""
        before = -1

        async def more() -> int:
            nonlocal before
            await asyncio.sleep(3)
            asked = await self._client.requests() or {}
            now = sum(count for kind, count in asked.items() if kind.startswith(kinds))
            before, new = now, now - before
            return new

        await self._until(what, self._limits.quiet, more)

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {self._contestant.name}, N={self._count}: {text}", flush=True)

    # Objects

    async def _make(self, prefix: str, count: int) -> list[str]:
        """Create so many at once; the answer is their names."""
        await together(self._make_one(prefix, number) for number in range(count))
        return self._made[prefix]

    async def _make_one(self, prefix: str, number: int) -> None:
        name = f"{prefix}-{number:05}"
        await self._client.create(self._contestant.kind.body(name, self._interval, {"bench": prefix}))
        self._made[prefix].append(name)

    async def _sweep(self, prefix: str = "") -> int:
        """Remove what is left over; the answer is how many they were. It is no figure, but must disturb none."""
        limit = self._limits.swept
        there, left = await self._client.sweep(limit, prefix)
        if there:
            self._say(f"{there} were left over; the bench removed them")
        if left != 0:
            self._miss(f"removal by the bench: {'all' if left is None else left} are left after {limit:.0f} s")
        return there

    async def _delete_by_kubectl(self, limit: float, which: str) -> tuple[float, float | None]:
        """`kubectl delete … --wait=false`: when it began and how long it took; None: too long, or it failed."""
        began = time.time()
        process = await asyncio.create_subprocess_exec(
            self._place.kubectl,
            f"--kubeconfig={self._place.cluster.kubeconfig}",
            f"--namespace={self._namespace}",
            "delete",
            self._contestant.kind.plural,
            which,
            "--wait=false",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            preexec_fn=die_with_parent(),
        )
        try:
            async with asyncio.timeout(limit):
                if code := await process.wait():
                    self._miss(f"kubectl delete ended with {code}; what it said is above")
        except TimeoutError:
            self._miss(f"kubectl delete took more than {limit:.0f} s, and was ended")
        finally:
            if process.returncode is None:
                process.kill()
        return began, time.time() - began if process.returncode == 0 else None

    async def _warm_up(self, prefix: str) -> bool:
        """A few short lives: what is loaded at first use is no run's. Whether the operator works."""
        await self._openai.lives((0.5, 1.0))
        limit, names = self._limits.first, await self._make(prefix, _WARM)
        works = await self._until("the first runs", limit, lambda: self._unshown(names))
        ids = [self._watcher.run_ids[name] for name in names if name in self._watcher.run_ids]
        await self._until("the end of the first runs", limit, lambda: self._unfinished(ids))
        await together(map(self._client.delete, names))
        await self._until("the deletion of the first runs", limit, lambda: self._ungone(names))
        return works
