"""Acting on decisions: each action is done once, and what came of it put where the next decision sees it."""

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from openairun_operator.api.reasons import Reason
from openairun_operator.elsewhere import Elsewhere
from openairun_operator.kube.cluster import Cluster
from openairun_operator.kube.events import Events
from openairun_operator.kube.references import ReferenceFailedError
from openairun_operator.lifecycle import events as ev
from openairun_operator.lifecycle import parting, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import (
    Action,
    Adopt,
    Cancel,
    Claim,
    Create,
    Delete,
    Disown,
    Fetch,
    Find,
    Note,
    Observe,
    Release,
    Store,
    Submit,
    Wait,
)
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.observation import Target
from openairun_operator.looking import BrokenOffError, Looker
from openairun_operator.metrics import Metrics
from openairun_operator.protocols import Providers
from openairun_operator.sending import Sender
from openairun_operator.store import Entry


class Actor:
    """Does what was decided. Every method leaves the entry as the world is then."""

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        providers: Providers,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], datetime],
        may_act: Callable[[], bool],
        in_flight: Callable[[str, str], int],
    ) -> None:
        self.looker = Looker(policy, providers, metrics, clock, in_flight)
        self.sender = Sender(cluster, providers, self.looker, metrics, clock, may_act)
        self._cluster = cluster
        self._providers = providers
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._elsewhere = Elsewhere(cluster, clock)

    async def act(self, entry: Entry, action: Action) -> None:
        """Do it. Raises ClusterError when the API server did not do what was asked."""
        with contextlib.suppress(BrokenOffError):
            await self._act(entry, action)

    async def _act(self, entry: Entry, action: Action) -> None:
        match action:
            case Claim(record, token):
                if token == record.token and not await self._providers.confirm(entry.run, record.provider):
                    return  # it asks for another: decide again
                await self.sender.claim(entry, record, token)
            case Note(record, hold):
                await self.sender.note(entry, record, hold=hold)
            case Fetch(results):
                try:
                    await self._elsewhere.fetch(entry, results=results)
                except ReferenceFailedError as error:
                    entry.hold_back(error.failure, self._clock())
            case Adopt(ref):
                if await self._providers.confirm(entry.run, self._providers.wanted(entry.run).name):
                    await self.looker.adopt(entry, ref)
            case Create(record):
                await self.sender.create(entry, record)
            case Submit(record):
                await self.sender.submit(entry, record)
            case Observe(record):
                if seen := await self.looker.observe(entry, Target.of(record)):
                    turns.note_look(record, seen, entry.known, self._clock())
            case Cancel(record):
                await self.looker.cancel(entry, record)
            case Find(record):
                await self.looker.find(entry, record)
            case Store():
                await self._elsewhere.store(entry, action)
            case Disown(name):
                await self._elsewhere.disown(entry, name)
            case Wait() | Release() | Delete():
                raise AssertionError(action)
            case never:
                assert_never(never)

    # --- the resource itself

    async def release(self, entry: Entry, orphan: str | None) -> None:
        """Remove the finalizer, and say what is left at OpenAI."""
        run = entry.run
        farewell = parting.words(run, entry.known, orphan, vanished=entry.vanished)
        if farewell and farewell != entry.farewell:  # else it is said, and the finalizer could not be removed yet
            entry.farewell = farewell
            self._events.emit(run, farewell)
            if orphan:
                self._metrics.orphaned(run.record.api if run.record else run.api)
        if entry.vanished:
            self._count_tokens(entry)
            return
        if not (body := await self._cluster.release(run)):
            return
        if run.deleted_at:
            self._count_tokens(entry)
            entry.pass_over(body)
        else:
            entry.take(body)

    def _count_tokens(self, entry: Entry) -> None:
        """Those of a run that has gone with its resource, as far as they were seen: no status tells of them."""
        record, seen = entry.run.record, entry.known.observation
        if record is None or seen is None or st.tells_end(entry.run.status, record):
            return
        if usage := turns.add(record.spent, seen.usage):
            self._metrics.used(record.api, usage)

    async def delete(self, entry: Entry, message: str) -> None:
        """Delete the resource itself."""
        await self._cluster.delete(entry.run)
        self._events.emit(entry.run, ev.Event("Normal", Reason.EXPIRED_TTL, message))
