"""One operator with N runs, from its start to the last of them deleted; then whole lives of short runs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

from cluster_client import changes, kind_of_write
from contestants import Contestant
from scene import Scene
from world import World

PHASES = ("hold", "finish", "restart", "delete", "lives")
"""What can be left out; `start` and `create` cannot."""

_IDLE = 3.0
_INTERVALS = 3
"""How long runs are held, in polling intervals."""
_AFTER_RESTART = 15.0
"""Seconds in which nothing must be written after all was polled again."""
_LIVES = 300
_RATE = 5.0
"""Lives that begin in a second: the baseline must be able to carry them."""
FINISHES = 25.0
"""Runs that finish in a second, at most: no API server on two cores carries the writes of more."""
SHORT = (1.0, 10.0)
"""Seconds that a short run lasts."""


def quantile(values: list[float], part: float) -> float | None:
    """The value below which `part` of the sorted `values` lie, by nearest rank."""
    return values[min(int(part * len(values)), len(values) - 1)] if values else None


class Flight(Scene):
    """`await Flight(…).fly()` gives its figures, as they go into the JSON file."""

    def __init__(
        self, place: World, contestant: Contestant, count: int, interval: float, finishes: float = FINISHES
    ) -> None:
        super().__init__(place, contestant, count, interval)
        self._over = max(2 * interval, count / finishes)
        self._finished = False

    async def fly(self, phases: tuple[str, ...]) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "operator": self._contestant.name,
            "n": self._count,
            "interval": self._interval,
            "missed": self._missed,
        }
        async with self._ground():
            for phase in ("start", "create", *(each for each in PHASES if each in phases)):
                figures[phase] = await getattr(self, f"_{phase}")()
        figures["seconds"] = time.monotonic() - self._began
        return figures

    async def _crowd(self, prefix: str) -> tuple[list[str], dict[str, Any]]:
        """N runs that never end, and what it took until each shows its run."""
        await self._openai.lives(None)
        before, began = await self._read(), time.time()
        names = await self._make(prefix, self._count)
        created = time.time()
        whole = await self._until("run ids", 60 + 0.3 * self._count, lambda: self._unshown(names))
        window = before.until(await self._read(ending=True))
        took = self._watcher.shown_at - began
        self._say(f"{self._count} created in {took:.1f} s ({created - began:.1f} s to apply them)")
        return names, {"window": window, "whole": whole, "took": took, "applied": created - began}

    # Phases

    async def _start(self) -> dict[str, Any]:
        self._launch()
        await self._warm_up("first")
        took = time.time() - self._operator.started
        await asyncio.sleep(2)
        before = await self._read()
        await asyncio.sleep(_IDLE)
        window = before.until(await self._read(ending=True))
        self._idle = window["cpu_s"]["operator"] / window["seconds"]
        self._say(f"at work after {took:.1f} s")
        return {"window": window, "took": took}

    async def _create(self) -> dict[str, Any]:
        self._names, figures = await self._crowd("one")
        return figures

    async def _hold(self) -> dict[str, Any]:
        await asyncio.sleep(self._interval)
        await self._events_posted()
        before = await self._read()
        await asyncio.sleep(_INTERVALS * self._interval)
        window = before.until(await self._read(ending=True))
        polls = window["openai"].get("retrieve", 0)
        spent = window["cpu_s"]["operator"]
        self._say(
            f"{polls / window['seconds']:.0f} polls/s ({self._count / self._interval:.0f} wanted),"
            f" {1000 * spent / max(polls, 1):.2f} ms CPU a poll"
        )
        return {"window": window, "wanted_polls": self._count * window["seconds"] / self._interval}

    async def _finish(self) -> dict[str, Any]:
        over, self._finished = self._over, True
        before = await self._read()
        await self._openai.finish(over)
        ids = [self._watcher.run_ids[name] for name in self._names if name in self._watcher.run_ids]
        whole = await self._until("finished runs", over + 60 + 0.3 * self._count, lambda: self._unfinished(ids))
        await asyncio.sleep(2)
        window = before.until(await self._read(ending=True))
        return {"window": window, "whole": whole, "over": over, **await self._delays(ids, f"ends within {over:.0f} s")}

    async def _delays(self, ids: list[str], of: str) -> dict[str, Any]:
        """How long after the end of each run its status said so."""
        ends = await self._openai.ends()
        seen = self._watcher.finished
        delays = sorted(seen[id] - ends[id] for id in ids if id in seen and id in ends)
        figures = {"median": quantile(delays, 0.5), "p99": quantile(delays, 0.99)}
        self._say(f"{of}: seen after {figures['median'] or 0:.2f} s (median), {figures['p99'] or 0:.2f} s (p99)")
        return {**figures, "delays": [round(each, 3) for each in delays]}

    async def _restart(self) -> dict[str, Any]:
        """Once with N finished, for the memory; then with as many in flight."""
        self._operator.kill()
        self._launch()
        await self._warm_up("again")
        await asyncio.sleep(2)
        rested = self._meter.read({}, None).rss["operator"]
        _, crowd = await self._crowd("two")
        self._operator.kill()
        before = (await self._openai.stats())["requests"]
        api = await self._client.requests()
        await self._openai.mark()
        self._launch()
        began = self._operator.started
        whole = await self._until("polls after the restart", 60 + 0.2 * self._count, self._unpolled)
        caught_up = await self._openai.stats()
        spent = self._meter.read({}, None).cpu["operator"]
        first, took = (at - began for at in caught_up["polled"])
        self._say(f"after the restart the first poll came after {first:.1f} s, the last after {took:.1f} s")
        await asyncio.sleep(_AFTER_RESTART)
        memory = self._meter.read({}, None).rss
        after = await self._openai.stats()
        then = await self._client.requests()
        return {
            "rss_finished": rested,
            "second_crowd": crowd,
            "whole": whole,
            "first": first,
            "took": took,
            "cpu_s": spent,
            "rss": memory,
            "created": after["requests"]["create"] - before["create"],
            "idle_polls": after["idle_polls"],
            "api": None if api is None or then is None else dict(Counter(then) - Counter(api)),
        }

    async def _delete(self) -> dict[str, Any]:
        """The finished ones first, so that `--all` is those that run."""
        figures = {}
        if self._finished:
            began, command = await self._delete_by_kubectl("--selector=bench=one")
            await self._until("deletions of finished runs", 60 + 0.1 * self._count, self._remaining(self._count))
            figures["finished"] = {"took": self._watcher.gone_at - began, "command": command}
        await self._openai.mark()
        stats = await self._openai.stats()
        running, cancelled = stats["unpolled"], stats["cancelled"]

        async def uncancelled() -> int:
            return cancelled + running - (await self._openai.stats())["cancelled"]

        before = await self._read()
        began, command = await self._delete_by_kubectl("--all")
        await self._until("cancels", 120 + 0.2 * self._count, uncancelled)
        await self._until("deletions", 60 + 0.2 * self._count, self._remaining(0))
        window = before.until(await self._read(ending=True))
        took = (await self._openai.stats())["cancelled_at"] - began
        self._say(f"{running} runs cancelled {took:.1f} s after kubectl began, which took {command:.1f} s itself")
        await asyncio.sleep(3)
        return {
            **figures,
            "window": window,
            "running": running,
            "took": took,
            "gone": self._watcher.gone_at - began,
            "command": command,
            "rss": self._meter.read({}, None).rss,
        }

    async def _lives(self) -> dict[str, Any]:
        """Short runs, each deleted as soon as it is seen to have finished."""
        count, watcher = min(self._count, _LIVES), self._watcher
        names = [f"life-{number:05}" for number in range(count)]
        await self._openai.lives(SHORT)
        watcher.histories = {name: [] for name in names}
        watcher.finishes = asyncio.Queue()
        before, began = await self._read(), time.monotonic()
        deleting = asyncio.create_task(self._delete_finished())
        try:
            for number, name in enumerate(names):
                await asyncio.sleep(began + number / _RATE - time.monotonic())
                await self._client.create(self._contestant.kind.body(name, self._interval, {"bench": "life"}))
                self._made += 1
            await self._until("lives", 120, self._remaining(0))
        finally:
            deleting.cancel()
            await asyncio.gather(deleting, return_exceptions=True)
        await asyncio.sleep(2)  # Events may come late
        window = before.until(await self._read(ending=True))
        spent = window["cpu_s"]["operator"] - self._idle * window["seconds"]
        ids = [watcher.run_ids[name] for name in names if name in watcher.run_ids]
        writes = {name: _writes(history) for name, history in watcher.histories.items()}
        kinds = Counter(kind_of_write(changed) for written in writes.values() for _, changed in written)
        reasons = Counter(reason for name, reason in await self._client.events() if name in writes)
        self._say(f"{count} lives, {1000 * spent / count:.1f} ms CPU each")
        return {
            "window": window,
            "count": count,
            "rate": _RATE,
            "cpu_ms": 1000 * spent / count,
            "writes": dict(kinds.most_common()),
            "events": dict(reasons.most_common()),
            "one": writes[names[count // 2]],
            **await self._delays(ids, "short runs"),
        }

    async def _delete_finished(self) -> None:
        while True:
            await self._client.delete(await self._watcher.finishes.get())


def _writes(history: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, list[str]]]:
    """The writes of one object: seconds since it was there, and what changed."""
    return [(round(at - history[0][0], 3), changes(old, new)) for (_, old), (at, new) in itertools.pairwise(history)]
