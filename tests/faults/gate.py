"""Stops an operator at any request that it sends: before the server sees it, after that, and after its answer."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from dataclasses import dataclass

from openairun_devkit.api_proxy import Moment, ProxiedRequest

_NAMES = re.compile(r"(?<=/)(namespaces|openairuns|configmaps|secrets|threads|runs|responses)/[^/]+")
_OURS = ("/apis/openairun.dev/v1alpha1/namespaces/", "/api/v1/namespaces/", "/v1/")


@dataclass(frozen=True)
class Step:
    """A request, as it comes again in every run of a scenario: what it asks, and the how manieth that does so."""

    what: str
    nth: int

    def __str__(self) -> str:
        return self.what if self.nth == 1 else f"{self.what} #{self.nth}"


@dataclass(frozen=True)
class Point:
    """Where to stop."""

    step: Step
    moment: Moment

    def __str__(self) -> str:
        return f"{self.step}, {self.moment}"


def describe(request: ProxiedRequest) -> str | None:
    """`PATCH openairuns/status`; None for what is no step of a run: watches, lists, the Lease."""
    path = _NAMES.sub(r"\1", request.path)
    if request.is_watch or (request.method == "GET" and request.path.endswith(("/openairuns", "/openaiproviders"))):
        return None
    for prefix in _OURS:
        if path.startswith(prefix):
            return f"{request.method} {path.removeprefix(prefix)}"
    return None


class Gate:
    """The observer of the proxies that stand before an operator's two servers. Threads may share it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._steps: list[Step] = []
        self._point: Point | None = None
        self._reached = False
        self._shut = False
        self._held: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def arm(self, point: Point | None) -> None:
        """Count anew, and stop at this point."""
        with self._changed:
            self._counts.clear()
            self._steps = []
            self._point, self._reached = point, False

    @property
    def steps(self) -> list[Step]:
        """All steps since it was armed, in order."""
        with self._changed:
            return list(self._steps)

    def wait_reached(self, timeout: float) -> bool:
        """Whether the point was reached within `timeout` seconds; from then on nothing passes.

        After an answer it waits until the operator, having it, asks for the next thing, or for half a second: that
        may be never.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._reached, timeout):
                return False
            if self._point is not None and self._point.moment == "answered":
                self._changed.wait_for(lambda: self._held, 0.5)
            return True

    def open(self, *, drop: bool = False) -> None:
        """Let everything pass from now on, what is held too; but `drop` that: who sent it is dead."""
        with self._changed:
            self._point, self._shut = None, False
            held, self._held = self._held, []
        for loop, passing in held:
            loop.call_soon_threadsafe(_settle, passing, drop)

    async def passes(self, request: ProxiedRequest, moment: Moment) -> None:
        what = describe(request)
        if what is None:
            return
        if (passing := self._stops(request, what, moment)) is not None:
            await passing

    def _stops(self, request: ProxiedRequest, what: str, moment: Moment) -> asyncio.Future[None] | None:
        with self._changed:
            if moment == "before":
                self._counts[what] += 1
                request.mark = Step(what, self._counts[what])
                self._steps.append(request.mark)
            reached = self._point is not None and Point(request.mark, moment) == self._point  # type: ignore[arg-type]
            if reached:
                self._shut = self._reached = True
            stops = (self._shut and moment == "before") or (reached and moment == "after")
            loop = asyncio.get_running_loop()
            passing = loop.create_future() if stops else None
            if passing is not None:
                self._held.append((loop, passing))
            self._changed.notify_all()
            return passing


def _settle(passing: asyncio.Future[None], drop: bool) -> None:
    """Let it pass, or end it as when its sender goes away: a request that is held must not outlive that."""
    if not passing.done():
        passing.cancel() if drop else passing.set_result(None)
