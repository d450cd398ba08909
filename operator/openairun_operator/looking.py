"""Looking at runs: what a server says of one, and how it fails, is put where the next decision sees it."""

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Record
from openairun_operator.lifecycle import adopting, polling, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.lifecycle.observation import RunObservation, RunRef, Target
from openairun_operator.metrics import Metrics
from openairun_operator.protocols import Providers
from openairun_operator.store import Entry
from openairun_operator.wires.protocol import Wire

logger = logging.getLogger(__name__)

_LAST_TRY: Final = timedelta(seconds=5)
"""For a run that could not be cancelled before its time to end was over."""


class BrokenOffError(Exception):
    """The resource is deleted: what a look would have shown matters no more."""


class Looker:
    """Looks at runs, cancels them and searches for them. `in_flight` says how many go on a provider."""

    def __init__(
        self,
        policy: Policy,
        providers: Providers,
        metrics: Metrics,
        clock: Callable[[], datetime],
        in_flight: Callable[[str, str], int],
    ) -> None:
        self._policy = policy
        self._providers = providers
        self._metrics = metrics
        self._clock = clock
        self._in_flight = in_flight

    def wire(self, entry: Entry, provider: str, api: API) -> Wire:
        """The wire for the next call for `entry`. Raises CallFailedError."""
        _, entry.known.called_with = self._providers.where(entry.namespace, provider)
        return self._providers.wire(entry.namespace, provider, api, ending=entry.ending)

    @contextlib.asynccontextmanager
    async def _looking(self, entry: Entry) -> AsyncIterator[None]:
        """Within it a run is looked at, cancelled or searched for. An ending waits no longer than our own requests may
        take, and a deletion not long for a look that began before it. Raises CallFailedError and BrokenOffError.
        """
        ends = entry.ending or entry.vanished or entry.deleted  # seen since this was decided
        limit = self._policy.request_timeout if ends else None
        now = self._clock()
        if limit and now >= entry.known.ending_until(now, self._policy):
            limit = min(limit, _LAST_TRY)  # many may have waited for it
        try:
            async with asyncio.timeout(limit.total_seconds() if limit else None) as entry.looking:
                yield
        except TimeoutError:
            if limit is None:
                raise BrokenOffError from None
            message = f"No answer within {durations.show(limit)}, which is all that an ending waits for"
            raise CallFailedError(Failure(reason=Reason.TIMED_OUT, message=message)) from None
        finally:
            entry.looking = None

    async def look(self, entry: Entry, target: Target) -> None:
        """Look at a run of which nothing is to be decided."""
        with contextlib.suppress(BrokenOffError):
            await self.observe(entry, target)

    async def observe(self, entry: Entry, target: Target) -> RunObservation | None:
        """Look at a run; None: it was not seen. Raises BrokenOffError, as all that follow."""
        seen = await self._look(entry, target, lambda wire: wire.observe(target.ref))
        if seen:
            self._metrics.polled(target.ref.api)
        return seen

    async def cancel(self, entry: Entry, record: Record) -> None:
        """Cancel a run."""
        logger.info("%s: cancelling run %s", entry.run.key, record.followed)
        entry.known.cancel_tried = True
        target = Target.of(record)
        if seen := await self._look(entry, target, lambda wire: wire.cancel(target.ref)):
            known = entry.known
            turns.note_look(record, seen, known, self._clock())
            known.cancel_refused = seen.cancel_refused
            known.cancelled = not known.cancel_refused
            if known.cancelled:
                self._metrics.cancelled(record.api)

    async def _look(
        self, entry: Entry, target: Target, call: Callable[[Wire], Awaitable[RunObservation]]
    ) -> RunObservation | None:
        """Observe or cancel; None: the run was not seen. It is the one asked for, whatever id it bears."""
        ref = target.ref
        try:
            wire = self.wire(entry, target.provider, ref.api)
            async with self._looking(entry):
                seen = dataclasses.replace(await call(wire), id=ref.id)
        except CallFailedError as error:
            if error.failure.reason is Reason.NOT_FOUND:
                entry.known.succeeded()
                entry.known.gone += 1
                entry.known.look_at = self._clock() + timedelta(seconds=min(2.0 * entry.known.gone, 30.0))
            else:
                self.failed(entry, target.provider, ref.api, error.failure)
            return None
        entry.known.succeeded()
        self.saw(entry, target.provider, seen, target.began)
        return seen

    async def find(self, entry: Entry, record: Record) -> None:
        """Search for the run that a create without an answer may have made."""
        known = entry.known
        try:
            wire = self.wire(entry, record.provider, record.api)
            async with self._looking(entry):
                found = await wire.find(record.thread, record.token, record.submittedAt)
        except CallFailedError as error:
            self.failed(entry, record.provider, record.api, error.failure)
            return
        entry.known.succeeded()
        now = self._clock()
        if found is None:
            known.missed_first, known.missed_last = known.missed_first or now, now
        else:
            known.found = found
            self.saw(entry, record.provider, found)

    async def adopt(self, entry: Entry, ref: RunRef) -> None:
        """Look whether there is the run that is to be taken up."""
        run, wanted = entry.run, self._providers.wanted(entry.run)
        try:
            entry.known.called_with = wanted.credential
            wire = self._providers.wire(run.namespace, wanted.name, ref.api, ending=False)
            async with self._looking(entry):
                found = await wire.observe(ref)
        except CallFailedError as error:
            failure = error.failure
            if failure.reason in (Reason.NOT_FOUND, Reason.REFUSED):
                failure = adopting.not_found(ref, wanted.address)
            self.failed(entry, wanted.name, ref.api, failure)
            return
        entry.known.succeeded()
        entry.known.found = dataclasses.replace(found, id=ref.id)

    # --- what came of a call

    def failed(self, entry: Entry, provider: str, api: API, failure: Failure) -> None:
        """A call for `entry` failed."""
        self._metrics.failed(api, failure)
        self._providers.refused(entry.namespace, provider, failure)
        another = self._providers.where(entry.namespace, provider)[1] != entry.known.called_with
        if another and failure.reason is Reason.INVALID_CREDENTIALS:
            return  # the key was replaced while it was on its way: at once with the new one
        entry.hold_back(failure, self._clock())

    def saw(self, entry: Entry, provider: str, seen: RunObservation, began: datetime | None = None) -> None:
        """A call showed the run, which `began` then, or just now."""
        known, now = entry.known, self._clock()
        if seen != known.observation:  # else the one that is kept in other places too
            known.observation = seen
        known.looked_at, known.gone = now, 0
        known.read_with = self._providers.where(entry.namespace, provider)
        interval = entry.calm.interval if entry.calm else st.interval_of(entry.run.spec, entry.run.record)
        if bucket := self._providers.bucket(entry.namespace, provider):  # many runs are looked at less often
            least = bucket.interval(self._in_flight(entry.namespace, provider))
            interval = max(interval, timedelta(seconds=least))
        since = began or now
        if entry.ending and known.ending_since:
            since = max(since, known.ending_since)
        known.look_at = now + timedelta(seconds=polling.delay(now - since, interval, random.random(), seen.poll_after))
