"""Checks each OpenAIProvider's key and address, and writes what came of it into its status."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from openairun_operator.api.base import dump
from openairun_operator.api.provider import OpenAIProviderStatus
from openairun_operator.api.record import API
from openairun_operator.kube.cluster import Cluster, ClusterError, GoneError
from openairun_operator.lifecycle import provider_status
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.failure import NEEDS_PERSON, PERSON_RETRY, Failure
from openairun_operator.providers import Known, Providers
from openairun_operator.shares import Shares
from openairun_operator.wires.clients import Clients
from openairun_operator.wires.probe import probe

logger = logging.getLogger(__name__)

_TICK: Final = 1.0
_GOOD_FOR: Final = 600.0
"""Seconds for which a check that went well counts."""
_TRY_AGAIN: Final = 30.0
_COUNTS: Final = 10.0
"""Seconds between two writes that say no more than how many runs there are."""
_AT_ONCE: Final = 64
_OF_A_NAMESPACE: Final = 8

Counts = Callable[[str, str], tuple[int, int]]
"""How many runs go on the provider of this namespace and name, and how many wait."""


@dataclass(slots=True)
class _Check:
    """The last check of a provider, and for what it was made."""

    of: tuple[Any, ...]
    apis: tuple[API, ...]
    failure: Failure | None
    at: float
    written: float = float("-inf")
    refused: float = float("-inf")
    """When the API server last did not take its status."""
    shown: tuple[Any, ...] | None = None
    """The object and the counts whose status says it all: there is nothing to compare until one of them changes."""

    def due(self, doubted: float) -> float:
        if self.failure is None:
            return self.at + (_TRY_AGAIN if doubted > self.at else _GOOD_FOR)
        return self.at + (PERSON_RETRY if self.failure.reason in NEEDS_PERSON else _TRY_AGAIN)


class Checker:
    """Checks providers in the background. `may_act`: whether this process may write."""

    def __init__(
        self,
        providers: Providers,
        cluster: Cluster,
        clients: Clients,
        counts: Counts,
        may_act: Callable[[], bool],
    ) -> None:
        self._providers = providers
        self._cluster = cluster
        self._clients = clients
        self._counts = counts
        self._may_act = may_act
        self._checks: dict[str, _Check] = {}
        self._shares = Shares(_AT_ONCE, _OF_A_NAMESPACE)

    async def run(self) -> None:
        """Until cancelled."""
        going: dict[str, asyncio.Task[None]] = {}

        async def check(uid: str, known: Known) -> None:
            try:
                await self._check(known)
            except Exception:
                logger.exception("Checking OpenAIProvider %s/%s failed", *known.place)
            finally:
                del going[uid]

        try:
            while True:
                if self._may_act():
                    every = {
                        known.body["metadata"]["uid"]: known for known in self._providers if known.read is not None
                    }
                    for uid, known in every.items():
                        # In a task of its own: a server that hangs keeps no others waiting.
                        if uid not in going and not self._rests(uid, known):
                            going[uid] = asyncio.create_task(check(uid, known), name=f"check {uid}")
                    self._checks = {uid: made for uid, made in self._checks.items() if uid in every}
                await asyncio.sleep(_TICK)
        finally:
            for task in list(going.values()):
                task.cancel()

    def _rests(self, uid: str, known: Known) -> bool:
        """Whether there is nothing to check, and nothing to write."""
        check, now = self._checks.get(uid), asyncio.get_running_loop().time()
        if check is None or check.of != _of(known) or check.due(known.doubted) <= now:
            return False
        if now < check.refused + _COUNTS:
            return True
        return check.shown is not None and check.shown[0] is known.body and check.shown[1] == self._counts(*known.place)

    async def _check(self, known: Known) -> None:
        uid, loop, of = known.body["metadata"]["uid"], asyncio.get_running_loop(), _of(known)
        check = self._checks.get(uid)
        if check is None or check.of != of or check.due(known.doubted) <= loop.time():
            apis: tuple[API, ...] = ()
            failure = known.trouble
            if failure is None and known.credentials is not None:
                bucket = self._providers.bucket(*known.place)
                if bucket and bucket.held():
                    return  # the server asked for patience
                async with self._shares.room(known.place[0]):
                    result = await probe(self._clients, known.credentials)
                apis, failure = tuple(sorted(result.apis, reverse=True)), result.failure
            written = check.written if check and check.of == of else float("-inf")
            check = self._checks[uid] = _Check(of, apis, failure, loop.time(), written)
        now = loop.time()
        try:
            await self._show(known, check, now)
        except GoneError:
            self._providers.saw("DELETED", known.body)  # nobody tells of it if the API server was out of reach then
        except ClusterError as error:
            check.refused = now
            logger.warning("OpenAIProvider %s/%s: %s", *known.place, error)

    async def _show(self, known: Known, check: _Check, now: float) -> None:
        """Write the status if it says anything new."""
        counts = self._counts(*known.place)
        raw = known.body.get("status") or {}
        try:
            before = OpenAIProviderStatus.model_validate(raw)
        except ValidationError:
            before = OpenAIProviderStatus()
        said = provider_status.status(
            known.spec,
            known.declared.address if known.declared else "",
            check.apis,
            check.failure,
            counts,
            before,
            known.body["metadata"].get("generation", 1),
            datetime.now(UTC).replace(microsecond=0),
        )
        difference = st.difference(raw, dump(said))
        if not difference:
            check.shown = (known.body, counts)
            return
        if difference.keys() <= {"runsInFlight", "runsWaiting"} and now < check.written + _COUNTS:
            return
        known.body = await self._cluster.write_provider_status(known.body, difference)
        check.written = now


def _of(known: Known) -> tuple[Any, ...]:
    """What a check is made for. The generation stands for the spec."""
    return known.body["metadata"].get("generation"), known.credentials, known.trouble
