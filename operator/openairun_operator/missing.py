"""Those that a list did not show: they are looked for, since a list is not enough to cancel what costs money."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from openairun_operator.kube.cluster import Cluster, ClusterError
from openairun_operator.lifecycle import status as st
from openairun_operator.store import Entry

logger = logging.getLogger(__name__)

_AGAIN: Final = 10.0
"""Seconds until those are looked for again of whom nobody could say whether they are there."""
_AT_ONCE: Final = 8


class Missing:
    """Whom nobody has seen since a list did not show them. Their runs are looked at and ended in time meanwhile."""

    def __init__(
        self, get: Callable[[str], Entry | None], cluster: Cluster, gone: Callable[[str, Entry], None]
    ) -> None:
        """`get` answers with what is known of a uid; `gone` is told who is not there."""
        self._get = get
        self._cluster = cluster
        self._gone = gone
        self._uids: dict[str, None] = {}
        """The first one first."""
        self._news = asyncio.Event()

    def add(self, uids: Iterable[str]) -> None:
        """A list did not show these."""
        self._uids.update(dict.fromkeys(uids))
        self._news.set()

    async def seek(self) -> None:
        """Look for them. Until cancelled."""
        while True:
            self._news.clear()
            if not self._uids:
                await self._news.wait()
            uids = list(self._uids)
            for first in range(0, len(uids), _AT_ONCE):
                await asyncio.gather(*map(self._look_for, uids[first : first + _AT_ONCE]))
            if self._uids:
                await asyncio.sleep(_AGAIN)

    async def look_once_more(self) -> None:
        """Look for all of them once."""
        await asyncio.gather(*map(self._look_for, list(self._uids)))

    def tell(self) -> None:
        """Name those who are left, and their runs: nobody else will."""
        for entry in filter(None, map(self._get, self._uids)):
            run = entry.run
            if run.record and run.record.followed and not st.finished(run.status):
                words = "%s: nobody could say whether it is there; run %s may go on"
                logger.warning(words, run.key, run.record.followed)

    async def _look_for(self, uid: str) -> None:
        """Whoever cannot be looked for stays missing."""
        self._uids.pop(uid, None)
        entry = self._get(uid)
        if entry is None or entry.vanished:
            return
        try:
            body = await self._cluster.find(entry.run)
        except BaseException as error:
            self._uids[uid] = None
            if not isinstance(error, Exception):
                raise
            logger.warning("%s: %s", entry.run.key, error, exc_info=not isinstance(error, ClusterError))
            return
        if body is None:
            self._gone(uid, entry)
