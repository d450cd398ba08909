"""One operator with N runs, from its start to the last of them deleted; then whole lives of short runs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from cluster_client import RefusedError, changes, kind_of_write
from contestants import Contestant
from limits import INTERVALS, LIVES, RATE, Limits
from meters import most_rss
from scene import Scene
from world import BenchError, World

PHASES = ("hold", "finish", "restart", "delete", "lives", "again")
"""What can be left out; `start` and `create` cannot."""

_IDLE = 3.0
_AFTER_RESTART = 15.0
"""Seconds in which nothing must be written after all was polled again."""
SHORT = (1.0, 10.0)
"""Seconds that a short run lasts."""


def quantile(values: Sequence[float], part: float, of: int) -> float | None:
    """What `part` of so many are below, by nearest rank; `values` are those that are known, sorted, the others larger.

    None: it is one of the others, or there are none.
    """
    rank = min(int(part * of), of - 1)
    return values[rank] if 0 <= rank < len(values) else None


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


class Flight(Scene):
    """`await Flight(…).fly(…)` fills in `figures`, as they go into the JSON file."""

    def __init__(self, place: World, contestant: Contestant, limits: Limits) -> None:
        super().__init__(place, contestant, limits)
        self._finished = False
        self.figures: dict[str, Any] = {
            "operator": contestant.name,
            "n": limits.count,
            "interval": limits.interval,
            "missed": self._missed,
            "complete": False,
        }
        """A phase enters what it has found as soon as it knows; what was not measured is not there, or None."""

    async def fly(self, phases: Sequence[str], saved: Callable[[], None]) -> None:
        """All of it; `saved` is called before each phase and at the end, for what was found by then."""
        async with self._ground():
            for phase in ("start", "create", *(each for each in PHASES if each in phases)):
                self.figures["during"] = phase
                saved()
                await self._perform(phase)
        del self.figures["during"]
        self.figures |= {"complete": True, "seconds": time.monotonic() - self._began}
        saved()

    async def clean_up(self) -> None:
        """Let nothing be left that the next one would meet; to be called after it has flown, or failed."""
        await self._sweep()

    async def _perform(self, phase: str) -> None:
        """One phase, which is broken off at its limit."""
        if phase != "start" and self._operator.killed:
            self._launch()  # a phase that was broken off has left it so
        limit, found = self._limits.of_phase(phase), self.figures.setdefault(phase, {})
        try:
            async with asyncio.timeout(limit) as scope:
                await getattr(self, f"_{phase}")(found)
        except (aiohttp.ClientError, TimeoutError, RefusedError) as error:
            self._check()
            found["whole"] = False
            why = f"after {limit:.0f} s" if scope.expired() else f"by {error!r}"
            self._miss(f"{phase}: broken off {why}")
            if phase == "start":
                raise BenchError(f"{self._contestant.name} did not come to work") from error
        self._check()

    async def _crowd(self, prefix: str) -> dict[str, Any]:
        """N runs that never end, and what it took until each shows its run."""
        await self._openai.lives(None)
        before, began = await self._read(), time.time()
        names = await self._make(prefix, self._count)
        created = time.time()
        whole = await self._until("run ids", self._limits.crowd, lambda: self._unshown(names), began)
        window = before.until(await self._read(ending=True))
        took = self._watcher.shown_at - began if whole else None
        self._say(f"{self._count} created in {_seconds(took)} s ({created - began:.1f} s to apply them)")
        return {"window": window, "whole": whole, "took": took, "applied": created - began}

    # Phases

    async def _start(self, found: dict[str, Any]) -> None:
        self._launch()
        if not await self._warm_up("first"):
            raise BenchError(f"{self._contestant.name} does not work: see {self._operator.log}")
        found["took"] = time.time() - self._operator.started
        await asyncio.sleep(2)
        before = await self._read()
        await asyncio.sleep(_IDLE)
        window = found["window"] = before.until(await self._read(ending=True))
        self._idle = window["cpu_s"]["operator"] / window["seconds"]
        self._say(f"at work after {found['took']:.1f} s")

    async def _create(self, found: dict[str, Any]) -> None:
        found |= await self._crowd("one")

    async def _hold(self, found: dict[str, Any]) -> None:
        await asyncio.sleep(self._interval)
        await self._quiet("late Events", "POST events")  # to post them is no polling
        before = await self._read()
        await asyncio.sleep(INTERVALS * self._interval)
        window = before.until(await self._read(ending=True))
        polls = window["openai"].get("retrieve", 0)
        spent = window["cpu_s"]["operator"]
        self._say(
            f"{polls / window['seconds']:.0f} polls/s ({self._count / self._interval:.0f} wanted),"
            f" {1000 * spent / max(polls, 1):.2f} ms CPU a poll"
        )
        found |= {"window": window, "wanted_polls": self._count * window["seconds"] / self._interval}

    async def _finish(self, found: dict[str, Any]) -> None:
        over = found["over"] = self._limits.over
        before = await self._read()
        await self._openai.lives((0, over))  # for those that the operator creates late
        await self._openai.finish(over)
        self._finished = True
        ids = self._ids(self._made["one"])
        whole = await self._until("finished runs", self._limits.finished, lambda: self._unfinished(ids))
        await asyncio.sleep(2)
        window = before.until(await self._read(ending=True))
        found |= {"window": window, "whole": whole, **await self._delays(ids, f"ends within {over:.0f} s")}

    def _ids(self, names: list[str]) -> list[str]:
        """Of the runs that are shown."""
        return [self._watcher.run_ids[name] for name in names if name in self._watcher.run_ids]

    async def _delays(self, ids: list[str], of: str) -> dict[str, Any]:
        """How long after the end of each run its status said so."""
        ends = await self._openai.ends()
        seen = self._watcher.finished
        ended = [id for id in ids if id in ends]
        delays = sorted(seen[id] - ends[id] for id in ended if id in seen)
        figures = {name: quantile(delays, part, len(ended)) for name, part in (("median", 0.5), ("p99", 0.99))}
        self._say(f"{of}: seen after {_seconds(figures['median'])} s (median), {_seconds(figures['p99'])} s (p99)")
        return {**figures, "unseen": len(ended) - len(delays), "delays": [round(each, 3) for each in delays]}

    async def _restart(self, found: dict[str, Any]) -> None:
        """Once with N finished, for the memory; then with as many in flight."""
        self._operator.kill()
        self._launch()
        await self._warm_up("again")
        await asyncio.sleep(2)
        if self._finished:
            found["rss_finished"] = self._meter.read({}, None).rss["operator"]
        found["second_crowd"] = await self._crowd("two")
        self._operator.kill()
        before = (await self._openai.stats())["requests"]
        api = await self._client.requests()
        await self._openai.mark()
        self._launch()
        began, started = self._operator.started, self._meter.read({}, None)
        whole = await self._until("polls after the restart", self._limits.polls, self._unpolled)
        polled = self._meter.read({}, None)
        first, last = (await self._openai.stats())["polled"]
        found |= {"window": started.until(polled), "whole": whole}
        found |= {"first": first - began if first else None, "took": last - began if whole and last else None}
        self._say(
            f"after the restart the first poll came after {_seconds(found['first'])} s,"
            f" the last after {_seconds(found['took'])} s"
        )
        await asyncio.sleep(_AFTER_RESTART)
        after = await self._openai.stats()
        then = await self._client.requests()
        await self._warm_up("last")  # as the one before was, that found no run in flight
        memory = self._meter.read({}, None).rss
        found |= {
            "rss": memory,
            "created": after["requests"]["create"] - before["create"],
            "idle_polls": after["idle_polls"],
            "api": None if api is None or then is None else dict(Counter(then) - Counter(api)),
        }

    async def _delete(self, found: dict[str, Any]) -> None:
        """The finished ones first, then those that run."""
        if self._finished:
            found["finished"] = await self._delete_finished(self._made["one"])
        prefixes = [prefix for prefix in (("two",) if self._finished else ("one", "two")) if self._made[prefix]]
        if not prefixes:
            return
        names = [name for prefix in prefixes for name in self._made[prefix]]
        limit = self._limits.gone
        await self._openai.mark()
        stats = await self._openai.stats()
        running, cancelled = stats["unpolled"], stats["cancelled"]

        async def uncancelled() -> int:
            return cancelled + running - (await self._openai.stats())["cancelled"]

        found["running"] = running
        before = await self._read()
        began, command = await self._delete_by_kubectl(limit, "--all")
        all_cancelled = await self._until("cancels", limit, uncancelled, began)
        all_gone = await self._until("deletions", limit, lambda: self._ungone(names), began)
        window = before.until(await self._read(ending=True))
        took = (await self._openai.stats())["cancelled_at"] - began if all_cancelled and running else None
        gone = self._last_gone(names) - began if all_gone else None
        found |= {"window": window, "whole": all_cancelled and all_gone, "took": took, "gone": gone, "command": command}
        self._say(f"{running} runs cancelled within {_seconds(took)} s; kubectl took {_seconds(command)} s itself")
        await asyncio.sleep(3)
        found["rss"] = self._meter.read({}, None).rss

    async def _delete_finished(self, names: list[str]) -> dict[str, Any]:
        """Those that are left at the limit are removed by us: they must not disturb what is measured next."""
        limit = self._limits.finished_gone
        began, command = await self._delete_by_kubectl(limit, "--selector=bench=one")
        whole = await self._until("deletions of finished runs", limit, lambda: self._ungone(names), began)
        took = self._last_gone(names) - began if whole else None
        if not whole:
            await self._sweep("one-")
        return {"whole": whole, "took": took, "command": command}

    async def _lives(self, found: dict[str, Any]) -> None:
        """Short runs, each deleted as soon as it is seen to have finished."""
        await self._sweep()
        await self._quiet("late writes", "POST events", "PATCH")  # Events come last: see docs/performance.md
        found["rss"] = self._meter.read({}, None).rss
        count, watcher = min(self._count, LIVES), self._watcher
        names = [f"life-{number:05}" for number in range(count)]
        await self._openai.lives(SHORT)
        watcher.histories = {name: [] for name in names}
        watcher.finishes = asyncio.Queue()
        before, began = await self._read(), time.monotonic()
        deleting = asyncio.create_task(self._delete_each())
        try:
            for number in range(count):
                await asyncio.sleep(began + number / RATE - time.monotonic())
                await self._make_one("life", number)
            whole = await self._until("lives", self._limits.lives, lambda: self._ungone(names))
        finally:
            deleting.cancel()
            await asyncio.gather(deleting, return_exceptions=True)
        await self._quiet("late Events of lives", "POST events")
        window = before.until(await self._read(ending=True))
        spent = window["cpu_s"]["operator"] - self._idle * window["seconds"]
        writes = {name: _writes(history) for name, history in watcher.histories.items()}
        kinds = Counter(kind_of_write(changed) for written in writes.values() for _, changed in written)
        reasons = Counter(reason for name, reason in await self._client.events() if name in writes)
        self._say(f"{count} lives, {1000 * spent / count:.1f} ms CPU each")
        found |= {
            "window": window,
            "whole": whole,
            "count": count,
            "rate": RATE,
            "cpu_ms": 1000 * spent / count,
            "writes": dict(kinds.most_common()),
            "events": dict(reasons.most_common()),
            "one": writes[names[count // 2]],
            **await self._delays(self._ids(names), "short runs"),
        }

    async def _again(self, found: dict[str, Any]) -> None:
        """N more in the process that had N in flight and N finished: what these took should do for them."""
        found["crowd"] = await self._crowd("more")
        limit, names = self._limits.gone, self._made["more"]
        began, _ = await self._delete_by_kubectl(limit, "--all")
        found["whole"] = await self._until("deletions of as many more", limit, lambda: self._ungone(names), began)
        await asyncio.sleep(3)
        found["rss"] = self._meter.read({}, None).rss
        found["most_rss"] = most_rss(self._operator.pid)

    async def _delete_each(self) -> None:
        while True:
            await self._client.delete(await self._watcher.finishes.get())


def _writes(history: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, list[str]]]:
    """The writes of one object: seconds since it was there, and what changed."""
    return [(round(at - history[0][0], 3), changes(old, new)) for (_, old), (at, new) in itertools.pairwise(history)]
