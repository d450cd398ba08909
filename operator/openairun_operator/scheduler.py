"""When to work on which run next: by due time, with a bounded crew of workers, of whom some are for what is urgent.

A key is worked on by one worker at a time; what becomes due meanwhile is done right after. Nothing here knows
what the work is.
"""

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

logger = logging.getLogger(__name__)

_FIRST_RETRY: Final = 1.0
_MAX_RETRY: Final = 60.0
_TICK: Final = 0.05
"""Seconds: what becomes due meanwhile is done together, which takes less time than one by one."""
_STALE: Final = 256
"""Times that no longer count, which a heap may keep beside as many as there are keys."""
_URGENT: Final = 128
"""Workers for urgent keys, beside the others: a server that hangs may keep all those."""

Work = Callable[[str], Awaitable[float | None]]
"""Works on a key; the answer is the seconds until it is due again, or None for not before it is woken."""


class TryAgainError(Exception):
    """Raised by work that met a passing obstacle; the message is logged, without a traceback."""


class Scheduler:
    """Keys by due time. All times are seconds of the event loop's clock; `jitter` is in [0, 1)."""

    def __init__(self, work: Work, concurrency: int, jitter: Callable[[], float] = random.random) -> None:
        self._work = work
        self._jitter = jitter
        self._concurrency = concurrency
        self._heaps: dict[bool, list[tuple[float, int, str]]] = {True: [], False: []}
        self._urgent: set[str] = set()
        self._due: dict[str, float] = {}
        self._working: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._count = itertools.count()
        self._wakeup = asyncio.Event()
        self._tasks: dict[bool, set[asyncio.Task[None]]] = {True: set(), False: set()}
        self._moved = 0.0
        """When a worker last became free."""
        self._full = {True: False, False: False}
        """Whether somebody who is due found no worker."""

    def wake(self, key: str, delay: float = 0.0, *, first: bool = False) -> None:
        """Make `key` due in `delay` seconds, if it is not due before.

        `first`: ahead of all that wait their turn, and urgent from then on.
        """
        at = 0.0 if first else asyncio.get_running_loop().time() + delay
        if first:
            self._urgent.add(key)
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._push(key, at)
            self._wakeup.set()

    def _push(self, key: str, at: float) -> None:
        heap = self._heaps[key in self._urgent]
        heapq.heappush(heap, (at, next(self._count), key))
        if len(heap) > 2 * len(self._due) + _STALE:  # older times, some of them of tomorrow
            heap[:] = [each for each in heap if self._due.get(each[2]) == each[0]]
            heapq.heapify(heap)

    def forget(self, key: str) -> None:
        """Drop `key`; work that is under way ends by itself."""
        self._due.pop(key, None)
        self._failures.pop(key, None)
        self._urgent.discard(key)

    def retry(self, key: str) -> None:
        """Have `key` worked on at once if it waits because work on it failed; its back-off begins anew."""
        if self._failures.pop(key, 0):
            self.wake(key)

    def known(self, key: str) -> bool:
        """Whether `key` is due at some time, or being worked on."""
        return key in self._due or key in self._working

    def late(self, least: float) -> Iterator[tuple[str, float]]:
        """Each key that should have been worked on by now, or is being worked on, for more than `least` seconds.

        While no worker is free, those that wait are late since one last became so: there are many before them.
        """
        now = asyncio.get_running_loop().time()
        busy = {urgent: self._moved if full else 0.0 for urgent, full in self._full.items()}
        due = ((key, now - max(at, busy[key in self._urgent])) for key, at in self._due.items() if at > 0)
        working = ((key, now - at) for key, at in self._working.items())
        yield from ((key, late) for key, late in itertools.chain(due, working) if late > least)

    def lag(self) -> float:
        """Seconds by which the most overdue key is late."""
        now = asyncio.get_running_loop().time()
        return max((now - at for at in self._due.values() if at > 0), default=0.0)

    def depth(self) -> int:
        """How many keys wait for their time or for a worker."""
        return len(self._due)

    def hurries(self) -> bool:
        """Whether anything is urgent."""
        return bool(self._urgent)

    async def run(self) -> None:
        """Work until cancelled; then wait for the work under way to be cancelled too."""
        try:
            while True:
                pause = self._start_due()
                self._wakeup.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):  # wait_for of Python 3.11 can swallow a cancellation
                        await self._wakeup.wait()
        finally:
            tasks = [task for each in self._tasks.values() for task in each]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start_due(self) -> float | None:
        """Start what is due and has a worker; the answer is the pause until there is more."""
        now = asyncio.get_running_loop().time()
        pauses = [self._start(urgent, now) for urgent in (True, False)]
        return min((pause for pause in pauses if pause is not None), default=None)

    def _start(self, urgent: bool, now: float) -> float | None:
        heap, tasks = self._heaps[urgent], self._tasks[urgent]
        limit = _URGENT if urgent else self._concurrency
        while heap and len(tasks) < limit and heap[0][0] <= now:
            at, _, key = heapq.heappop(heap)
            if self._due.get(key) != at:
                continue  # an older time of a key that was moved or forgotten
            if key in self._working:
                continue  # put back when its worker ends: here it would hide the keys behind it
            del self._due[key]
            self._working[key] = now
            task = asyncio.create_task(self._do(key), name=f"run {key}")
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(self._done)
        self._full[urgent] = bool(heap) and heap[0][0] <= now
        if not heap or len(tasks) >= limit:
            return None  # a worker that ends, or a new key, wakes us
        pause = heap[0][0] - now
        return pause if pause <= 0 else max(pause, _TICK)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._moved = asyncio.get_running_loop().time()
        self._wakeup.set()

    async def _do(self, key: str) -> None:
        """Work on `key` once. An error that nobody expected is logged and the work tried again: never lost."""
        try:
            pause = await self._work(key)
            self._failures.pop(key, None)
        except Exception as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(_FIRST_RETRY * 2 ** min(count - 1, 10), _MAX_RETRY) * (0.8 + 0.4 * self._jitter())
            if isinstance(error, TryAgainError):
                logger.warning("%s; trying again in %.0f s", error, pause)
            else:
                logger.exception("Work on %s failed; trying again in %.0f s", key, pause)
        except asyncio.CancelledError:
            self.wake(key)  # whoever runs this again goes on with it
            raise
        finally:
            self._working.pop(key, None)
            if key in self._due:
                self._push(key, self._due[key])
        if pause is not None:
            self.wake(key, pause)
