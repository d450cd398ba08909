"""Events: posted in the background, in order for each resource, and never in the way of the work."""

import asyncio
import logging
from typing import Final

from openairun_operator.kube.cluster import Cluster, ClusterError
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run

logger = logging.getLogger(__name__)

_QUEUE: Final = 1000
_FLUSH: Final = 3.0


class Events:
    """A bounded queue of events to post. A full queue drops the event; its log line stays."""

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self._cluster = cluster
        self._instance = instance
        self._queue: asyncio.Queue[tuple[Run, Event]] = asyncio.Queue(_QUEUE)

    def emit(self, run: Run, event: Event) -> None:
        """Log the event, and post it soon."""
        level = logging.INFO if event.type == "Normal" else logging.WARNING
        logger.log(level, "%s: %s: %s", run.key, event.reason, event.message)
        try:
            self._queue.put_nowait((run, event))
        except asyncio.QueueFull:
            logger.warning("%s: too many events are waiting; this one is not posted", run.key)

    async def run(self) -> None:
        """Post until cancelled; then post what is left, for a few seconds."""
        try:
            while True:
                await self._post(*await self._queue.get())
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(_FLUSH):
                    while not self._queue.empty():
                        await self._post(*self._queue.get_nowait())
            except TimeoutError:
                logger.warning("%d events are not posted", self._queue.qsize())
            raise

    async def _post(self, run: Run, event: Event) -> None:
        try:
            await self._cluster.post_event(run, event, self._instance)
        except ClusterError as error:  # a namespace that is being deleted refuses events
            logger.warning("%s: %s", run.key, error)
