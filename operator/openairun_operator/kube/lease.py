"""One active operator: a Lease of coordination.k8s.io, held by renewing it, as Kubernetes' own controllers do.

The rules are those of client-go's leader election: who holds the Lease renews it every few seconds; another may take
it once it was seen unchanged for its whole duration, by the observer's own monotonic clock, since clocks differ. A
holder that cannot renew stops acting before that. It goes on when it can renew again and nobody took the Lease.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from openairun_operator.kube.cluster import Body, Cluster, ClusterError, ConflictError, GoneError

logger = logging.getLogger(__name__)

DURATION: Final = 15.0
"""Seconds for which the Lease is another's once it was last seen to be renewed."""
_MARGIN: Final = 5.0
"""Seconds before the end of that time in which the holder does nothing any more: what it began may still arrive."""
_PERIOD: Final = 3.0
_GIVEN_UP: Final = 1
"""The duration, in seconds, of a Lease whose holder gave it up. client-go writes the same."""
_MOST_CHANGES: Final = 2**31 - 1
"""It is an int32: with a greater one, which takes a person's hand, every write would be refused."""


class Lease:
    """The Lease `namespace`/`name`, as `holder` sees it."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        holder: str,
        clock: Callable[[], float] = time.monotonic,
        period: float = _PERIOD,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._clock = clock
        self._period = period
        self._renewed: float | None = None
        self._seen: tuple[Any, float] | None = None
        self._told: str | None = None

    def held(self) -> bool:
        """Whether this process may act now."""
        return self._renewed is not None and self._clock() < self._renewed + DURATION - _MARGIN

    async def acquire(self) -> None:
        """Wait until the Lease is ours. Until cancelled."""
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._period)
        logger.info("this operator holds the Lease %s/%s", self._namespace, self._name)

    async def keep(self) -> str:
        """Renew it until it is another's: the answer is whose. Until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            if not await self._try() and self._told is not None:
                return self._told

    async def release(self) -> None:
        """Give it up, so that another need not wait for its end."""
        self._renewed = None
        try:
            there = await self._cluster.read_lease(self._namespace, self._name)
            if there.get("spec", {}).get("holderIdentity") == self._holder:
                spec = {**there["spec"], "holderIdentity": "", "leaseDurationSeconds": _GIVEN_UP}
                await self._cluster.replace_lease({**there, "spec": spec})
        except ClusterError as error:
            logger.warning("%s", error)  # it ends by itself

    async def _try(self) -> bool:
        """Take or renew it; the answer is whether it is ours, for another while."""
        try:
            try:
                return await self._take()
            except (ConflictError, GoneError):
                self._renewed = None  # it is not as it was read, and may be another's: look again at once
                return await self._take()
        except ClusterError as error:
            logger.warning("%s", error)
            return False

    async def _take(self) -> bool:
        began = self._clock()
        try:
            there = await self._cluster.read_lease(self._namespace, self._name)
        except GoneError:
            there = {}
        spec = there.get("spec") or {}
        other = spec.get("holderIdentity") or ""
        if other != self._holder:
            self._renewed = None
            if not self._is_free(spec):
                if other and self._told != other:
                    self._told = other
                    logger.info("operator %s holds the Lease %s/%s: waiting", other, self._namespace, self._name)
                return False
        if there:
            await self._cluster.replace_lease({**there, "spec": self._spec(spec)})
        else:
            metadata = {"name": self._name, "namespace": self._namespace}
            await self._cluster.create_lease(
                {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": self._spec({})}
            )
        self._renewed = began
        self._seen = self._told = None  # whose it was before is of no meaning any more
        return True

    def _is_free(self, spec: Body) -> bool:
        """Whether a Lease that is not ours, or none (an empty `spec`), is nobody's.

        One that was another's, and names nobody now or is missing, was not given up unless it says so: a person did
        that, and its holder acts until it looks. So that, too, must be seen for as long as the Lease lasts.
        """
        if not spec.get("holderIdentity") and (self._seen is None or spec.get("leaseDurationSeconds") == _GIVEN_UP):
            return True
        mark = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, self._clock())
        return self._clock() - self._seen[1] >= float(spec.get("leaseDurationSeconds") or DURATION)

    def _spec(self, before: Body) -> Body:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = before.get("holderIdentity") == self._holder
        changes = int(before.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": changes if ours or not before else min(changes + 1, _MOST_CHANGES),
        }
