"""What the stand-in was asked, in order, and waiting for it to be asked."""

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEPT = 200_000
"""Requests remembered; older ones are forgotten, their numbers stay used."""

HEADERS = ("api-key", "openai-organization", "openai-project", "openai-beta", "user-agent")
"""The headers written down besides authorization; lower case."""


@dataclass(slots=True)
class RecordedRequest:
    """One request to the API, from the moment its body had arrived."""

    n: int
    """Counts from 1, also across a clearing."""
    at: float
    """By the stand-in's clock, epoch seconds."""
    method: str
    path: str
    """With ``/v1``, without the query."""
    query: str
    authorization: str | None
    headers: dict[str, str]
    body: Any
    """The JSON sent; None where there was none or it could not be parsed."""
    status: int | None = None
    """The answer's; None while it is held, and for good where the connection was dropped."""


class Pattern:
    """A method (``*`` or None: any) and a regular expression that is searched in the path."""

    def __init__(self, method: str | None = None, path: str = "") -> None:
        self._method = None if method in (None, "", "*") else method.upper()
        self._path = re.compile(path)

    def matches(self, method: str, path: str) -> bool:
        return (self._method is None or self._method == method) and self._path.search(path) is not None


class _Waiter:
    def __init__(self, pattern: Pattern, missing: int) -> None:
        self.pattern = pattern
        self.missing = missing
        self.arrived = asyncio.get_running_loop().create_future()


class Recorder:
    """The list of requests."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=KEPT)
        self._count = 0
        self._waiters: set[_Waiter] = set()

    def record(
        self, *, at: float, method: str, path: str, query: str, headers: Mapping[str, str], body: Any
    ) -> RecordedRequest:
        """Write one down and wake who waited for it."""
        self._count += 1
        request = RecordedRequest(
            self._count,
            at,
            method,
            path,
            query,
            headers.get("authorization"),
            {name: value for name in HEADERS if (value := headers.get(name)) is not None},
            body,
        )
        self._requests.append(request)
        for waiter in self._waiters:
            if waiter.pattern.matches(method, path):
                waiter.missing -= 1
                if waiter.missing <= 0 and not waiter.arrived.done():
                    waiter.arrived.set_result(None)
        return request

    def find(self, pattern: Pattern) -> list[RecordedRequest]:
        return [request for request in self._requests if pattern.matches(request.method, request.path)]

    def clear(self) -> None:
        self._requests.clear()

    async def wait_for(self, pattern: Pattern, count: int, timeout: float) -> list[RecordedRequest]:
        """The matching requests as soon as there are `count`, earlier ones included.

        TimeoutError after `timeout` seconds.
        """
        found = self.find(pattern)
        if len(found) >= count:
            return found
        waiter = _Waiter(pattern, count - len(found))
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter.arrived
        finally:
            self._waiters.discard(waiter)
        return self.find(pattern)
