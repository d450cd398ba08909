"""Room for a few at once, of whom no namespace has more than its share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary


class Shares:
    """Room for `most` at once, and for `each` of a namespace: what hangs there holds up its own alone."""

    def __init__(self, most: int, each: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._each = each
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By namespace, while anybody there has room or waits for it."""

    @contextlib.asynccontextmanager
    async def room(self, namespace: str) -> AsyncIterator[None]:
        """Wait for room, and have it for the block."""
        async with self._shares.setdefault(namespace, asyncio.Semaphore(self._each)), self._all:
            yield
