"""How many requests there are to the API server at once, and whose turn is next."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

_PATIENCE: Final = 4.0
"""Seconds for which one waits for a turn while requests hang."""
_TURNS: Final = 4
"""Of so many turns one is a beginner's, if both wait: what a claim begins takes some three requests more."""


class Room:
    """Turns for so many requests at once, in order; what was begun is finished before more is begun.

    An operator that is killed leaves what was begun for a person to judge.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._lines: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        """Those that begin something, and all others."""
        self._turns = 0
        self._hangs = False
        """Whether the last request got no answer in time."""
        self._waiting: set[asyncio.Timeout] = set()

    @contextlib.asynccontextmanager
    async def turn(self, *, begins: bool = False) -> AsyncIterator[None]:
        """A turn; `begins` something that further requests finish. Raises TimeoutError.

        While the API server lets requests wait, nobody waits long for those before: who waits here keeps a worker, and
        others need one to look at runs and to cancel them.
        """
        async with asyncio.timeout(None) as patience:
            self._waiting.add(patience)
            self._be_patient(patience)
            try:
                await self._wait(begins)
            finally:
                self._waiting.discard(patience)
        try:
            yield
        finally:
            self._pass_on()

    def note_answer(self, *, hangs: bool) -> None:
        """A request was answered, or was not in time."""
        if hangs is not self._hangs:
            self._hangs = hangs
            for patience in self._waiting:
                self._be_patient(patience)

    def _be_patient(self, patience: asyncio.Timeout) -> None:
        if patience.expired():
            return  # just now: its task does not know yet
        patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE if self._hangs else None)

    async def _wait(self, begins: bool) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._lines[begins].append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():
                self._pass_on()  # it came too late
            raise

    def _pass_on(self) -> None:
        """The turn is the next one's. Who waits no longer is still in line, and takes none."""
        self._turns += 1
        beginners = self._turns % _TURNS == 0
        for line in (self._lines[beginners], self._lines[not beginners]):
            while line:
                following = line.popleft()
                if not following.done():
                    following.set_result(None)
                    return
        self._free += 1
