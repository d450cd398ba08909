"""Events: posted in the background, in order for each resource, and never in the way of the work."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from openairun_operator.buckets import Bucket
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, Subject
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run

logger = logging.getLogger(__name__)

_Waiting = tuple[Subject, Event, datetime]
_Line = asyncio.Queue[_Waiting]

_LINES: Final = 4
"""Posted at once: one after another they would come long after what they tell of, when much happens."""
_WAITING: Final = 2500
"""Events that wait in a line."""
_RATE: Final = 20.0
"""Events posted in a second, beyond the burst: when thousands of runs end at once, to end them comes before telling."""
_BURST: Final = 200
_YIELD: Final = 1.0
"""Seconds by which a line waits longer, if more than a few are in it, while runs are being ended: an Event takes of the
API server half of what it takes to end a run.
"""
_FEW: Final = 25
_THERE: Final = "already exists"
"""In what the API server says with 409 of an object's name; it says 409 of a quota too."""
_FLUSH: Final = 3.0
_AGAIN: Final = 1.0, 15.0
"""Seconds until an Event that could not be posted is posted again, at first and at most."""
_OLD: Final = 900.0
"""Seconds after which one is given up while the API server is away."""
_TRIES: Final = 4
"""How often one is posted that the API server answers with trouble: perhaps it has some with this one alone, and others
of other namespaces wait behind it.
"""


class Events:
    """Bounded lines of events to post. A full line drops the event; its log line stays.

    While the API server is away they wait: what may still cost money must not be told to nobody.
    """

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self.busy: Callable[[], bool] = lambda: False
        """Whether runs are being ended."""
        self._cluster = cluster
        self._instance = instance
        self._lines: list[_Line] = [asyncio.Queue(_WAITING) for _ in range(_LINES)]
        self._rate = Bucket(60 * _RATE, _BURST, time.monotonic)
        self._last = datetime.now(UTC)
        """The time of the last Event."""

    def emit(self, run: Run, event: Event) -> None:
        """Log the event, and post it soon."""
        level = logging.INFO if event.type == "Normal" else logging.WARNING
        logger.log(level, "%s: %s: %s", run.key, event.reason, event.message)
        try:
            subject = Subject(run.namespace, run.name, run.uid)  # the run itself takes much more room
            self._lines[hash(run.uid) % _LINES].put_nowait((subject, event, self._moment()))
        except asyncio.QueueFull:
            logger.warning("%s: too many events are waiting; this one is not posted", run.key)

    def _moment(self) -> datetime:
        """Now, and never the same twice: an Event is named by its time. A clock may be set back all the same."""
        now, least = datetime.now(UTC), self._last + timedelta(microseconds=1)
        self._last = least if timedelta(0) <= self._last - now < timedelta(seconds=1) else now
        return self._last

    async def run(self) -> None:
        """Post until cancelled; then post what is left, for a few seconds."""
        async with asyncio.TaskGroup() as tasks:
            for line in self._lines:
                tasks.create_task(self._post_all(line))

    async def _turn(self, line: _Line) -> None:
        """Wait until one more of the line may be posted."""
        await asyncio.sleep(self._rate.due(self._rate.take()))
        if line.qsize() > _FEW and self.busy():
            await asyncio.sleep(_YIELD)

    async def _post_all(self, line: _Line) -> None:
        waiting: _Waiting | None = None
        posting: asyncio.Future[bool] | None = None
        try:
            while True:
                await self._turn(line)
                waiting, posting, tries = await line.get(), None, 1
                pause, most = _AGAIN
                while not await asyncio.shield(posting := asyncio.ensure_future(self._post(waiting, tries))):
                    await asyncio.sleep(pause)
                    pause, tries = min(2 * pause, most), tries + 1
                waiting = None
        except asyncio.CancelledError:
            left = [each for each in (waiting, *(line.get_nowait() for _ in range(line.qsize()))) if each]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH):
                    if waiting and posting and await posting:
                        del left[0]
                    left.sort(key=lambda each: each[1].type == "Normal")  # warnings first: time may be short
                    while left and await self._post(left[0], _TRIES):
                        del left[0]
            with contextlib.suppress(asyncio.QueueFull):
                for each in left:  # kopf may only begin anew
                    line.put_nowait(each)
            if left:
                logger.warning("%d events are not posted yet", len(left))
            raise

    async def _post(self, waiting: _Waiting, tries: int) -> bool:
        """Whether it is done with: posted, refused, or tried for long enough."""
        subject, event, at = waiting
        try:
            await self._cluster.post_event(subject, event, at, self._instance)
        except ClusterError as error:
            if isinstance(error, ConflictError) and _THERE in str(error):
                return True  # it was posted, and the answer got lost
            if error.status in (None, 503):
                again = datetime.now(UTC) - at < timedelta(seconds=_OLD)
            else:  # a namespace that is being deleted answers with 403, and one that has gone with 404
                passing = error.status in (401, 409, 429) or (error.status or 0) >= 500
                again = passing and tries < _TRIES
            if tries == 1 or not again:
                more = "; trying again" if again else ""
                logger.warning("%s/%s: %s%s", subject.namespace, subject.name, error, more)
            return not again
        return True
