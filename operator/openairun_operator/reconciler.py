"""Acting on decisions: for each resource, decide, write the status, do the next thing, and again.

What comes by the watch can be old, so a resource is kept as the newest version seen, by the watch or in the
answer to a write. What must not happen twice does not rest on it at all: see lifecycle/ledger.py.
"""

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from openairun_operator.acting import Actor
from openairun_operator.admission import Admission
from openairun_operator.api.base import dump
from openairun_operator.api.names import DEFAULT_PROVIDER, FINALIZER
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.departures import Departures
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError
from openairun_operator.kube.events import Events
from openairun_operator.lifecycle import creating, glancing, resting, submitting, turns
from openairun_operator.lifecycle import events as ev
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import (
    Adopt,
    Cancel,
    Claim,
    Delete,
    Note,
    Observe,
    Release,
    Wait,
)
from openairun_operator.lifecycle.decide import decide, left_behind, superseded
from openairun_operator.lifecycle.facts import Facts, Policy
from openairun_operator.lifecycle.provider import OWN, Provider, deleted_default
from openairun_operator.lifecycle.queueing import has_provider, waits
from openairun_operator.metrics import Metrics
from openairun_operator.missing import Missing
from openairun_operator.protocols import Providers
from openairun_operator.scheduler import Scheduler, TryAgainError
from openairun_operator.sending import unclaimed
from openairun_operator.store import Entry, Store

logger = logging.getLogger(__name__)

_SPREAD: Final = timedelta(seconds=4)
"""Over so long the first looks after a restart are spread, or over an interval; who is not due sooner is folded."""
_STEPS: Final = 30
"""Steps in a row for one resource before others get their turn."""
_CONFLICT_PAUSE: Final = 1.0
_WORTH_SAYING: Final = 2.0
"""Seconds: who is created sooner is not worth a write more."""
_LAST_WRITES: Final = 5.0
_STANDSTILL: Final = 1.0
"""Seconds until it is tried again, while this process may not act."""
_SWEEP: Final = 60.0
_DEPARTURES: Final = 0.5
_STUCK: Final = 60.0
_CONCURRENCY: Final = 128


def always() -> bool:
    """Whether an operator may act that has no other beside it."""
    return True


def _seconds() -> float:
    """Only their differences mean anything."""
    return asyncio.get_running_loop().time()


def _now() -> datetime:
    return datetime.now(UTC)


async def _within(seconds: float, *work: Coroutine[Any, Any, None]) -> None:
    """Do it all at once, and end what takes longer."""
    tasks = [asyncio.create_task(each) for each in work]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            logger.error("Something failed as the operator stopped", exc_info=outcome)


class Reconciler:
    """Keeps each resource and its run at OpenAI in step."""

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        providers: Providers,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], datetime] = _now,
        may_act: Callable[[], bool] = always,
    ) -> None:
        self._policy = policy
        self._cluster = cluster
        self._providers = providers
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._may_act = may_act
        self._store = Store()
        self.scheduler = Scheduler(self.work, _CONCURRENCY)
        self._admission = Admission(providers, self.scheduler.wake, _seconds)
        self._departures = Departures(_seconds)
        self._settling: float | None = None
        self._missing = Missing(self._store.get, cluster, self._saw_deleted)
        self.seek = self._missing.seek
        self._actor = Actor(policy, cluster, providers, events, metrics, clock, may_act, self._admission.in_flight)
        metrics.watch(self._store.states, self.scheduler.depth, self.scheduler.lag)

    # --- what comes in

    def saw(self, type_: str | None, body: Mapping[str, Any]) -> None:
        """Take in an event of the watch; `type_` is None for an object that was listed."""
        uid, listed = body["metadata"]["uid"], type_ is None
        entry = self._store.get(uid)
        if listed:
            self.scheduler.retry(uid)  # the API server is there, perhaps again
        if type_ == "DELETED":
            self._saw_deleted(uid, entry)
            return
        if not self._store.is_news(body, listed=listed):
            return  # our own write, or older
        delay, deleted = 0.0, entry is not None and entry.deleted
        if entry is None:
            if resting.surely(body):
                self._store.rest_unread(body)
                return
            entry = self._store.read(body)
            if self._at_rest(entry):
                self._store.rest(uid, entry)
                return
            self._store.keep(uid, entry)
            delay = self._spread(entry) if listed else 0.0
            self._line_up(entry, always=entry.run.record is not None)  # before others that were created later
        else:
            waits = entry.known.retry_at or entry.known.store_at
            before = (entry.run.generation, entry.run.create_again) if waits else None
            entry.take(body, listed=listed)
            if before and (entry.run.generation, entry.run.create_again) != before:
                entry.known.retry_at = entry.known.store_at = None  # a person acted: at once
        if entry.run.deleted_at:
            if not deleted:
                self._departures.deleted(entry.namespace)
            entry.break_off()
        self.scheduler.wake(uid, delay, first=entry.run.deleted_at is not None and entry.run.has_finalizer)

    def listed(self, namespace: str | None, uids: Collection[str]) -> None:
        """These are all that there are in `namespace`, or everywhere: others may have gone while nobody watched."""
        self._missing.add(self._store.missing(namespace, uids))

    def _saw_deleted(self, uid: str, entry: Entry | None) -> None:
        if entry is None or not entry.run.record or st.finished(entry.run.status):
            self._forget(uid)
            return
        entry.vanished = True
        entry.break_off()
        self.scheduler.wake(uid, first=True)

    def _at_rest(self, entry: Entry) -> bool:
        """Whether a resource needs nothing: finished, seen in this generation, and not held by us."""
        run = entry.run
        if run.has_finalizer or run.deleted_at or not st.says_finished(run.status):
            return False
        return decide(run, self._facts(entry)).action == Wait() and run.status.observedGeneration == run.generation

    def _spread(self, entry: Entry) -> float:
        """After a start, work on the runs that go over some seconds, not on all at once; in how many on this one."""
        run = entry.run
        if run.record is None or run.record.state != "created" or run.deleted_at:
            return 0.0
        entry.known.turn_to(run.record.token)
        wait = min(st.interval_of(run.spec, run.record), _SPREAD) * random.random()
        entry.known.look_at = self._clock() + wait
        return wait.total_seconds()

    def open(self) -> None:
        """All runs are known: create more."""
        self._admission.open()

    def counts(self, namespace: str, provider: str) -> tuple[int, int]:
        """How many runs go on an OpenAIProvider, and how many wait for room there."""
        return self._admission.counts(namespace, provider)

    def provider_changed(self, namespace: str | None) -> None:
        """Try again at once whatever failed, and whoever waits: in `namespace`, or everywhere."""
        with self._admission.together():
            for uid, entry in self._store:
                if namespace not in (None, entry.namespace):
                    continue
                if entry.calm:
                    entry.calm = None  # it goes well: it is decided upon when it is looked at
                    continue
                idle = not has_provider(entry.run.record)
                if entry.known.failure or self._says_blocked(entry):
                    entry.known.retry_at = None
                elif not idle:
                    entry.fold()
                    continue
                self.scheduler.wake(uid)
                if idle:
                    self._line_up(entry)

    def _line_up(self, entry: Entry, *, always: bool = False) -> None:
        """Have it take the room that it needs, or its place among those that wait, before it is worked on.

        Where room is not bounded that matters to nobody, unless `always`.
        """
        facts = self._facts(entry)
        if (always or facts.wanted.most_runs is not None) and not self._admission.surely_goes(entry.run, facts):
            self._admission.note(entry.run, decide(entry.run, facts), facts)

    @staticmethod
    def _says_blocked(entry: Entry) -> bool:
        synced = entry.run.status.condition("Synced")
        return synced is not None and synced.status == "False"

    async def sweep(self) -> None:
        """The safety net: hand every resource that nobody has in mind back to the scheduler. Until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP)
            for uid, _ in self._store:
                if not (self.scheduler.known(uid) or self._departures.waits(uid)):
                    self.scheduler.wake(uid)
            self._store.prune()

    async def let_go(self) -> None:
        """Let go those that were held back while others were deleted. Until cancelled."""
        while True:
            await asyncio.sleep(_DEPARTURES)
            for uid in self._departures.due():
                self.scheduler.wake(uid)

    def stuck(self) -> str | None:
        """What should have been attempted three intervals, a minute and the time of a request ago. None if all is well.

        A server that cannot be reached, or asks for patience, moves the time of the next attempt, and is no such case;
        nor is one that lets a call wait, which has a time-out. Nor is an API server that answers nothing, and for which
        hundreds stand in line: to start anew would not help.
        """
        if time.monotonic() < self._cluster.unanswered + _STUCK:
            return None
        for uid, late in self.scheduler.late(_STUCK):
            entry = self._store.get(uid)
            if entry is None or self._admission.is_calling(uid):
                continue
            interval = entry.calm.interval if entry.calm else st.interval_of(entry.run.spec, entry.run.record)
            if late > (3 * interval + self._policy.request_timeout).total_seconds() + _STUCK:
                return f"{entry.run.key} was due {late:.0f} s ago"
        return None

    async def settle(self, limit: float) -> None:
        """Wait for what was sent, at most `limit` seconds: whoever ends it loses its answer. Work may go on then."""
        self._settling = _seconds()
        await self._actor.sender.drain(limit)

    async def drain(self, limit: float) -> None:
        """The last of all: wait for what was sent, have its ids recorded, look for those that are missing, let go of
        claims that were not sent, and of those that were held back: nobody else knows that their runs are over.

        At most `limit` seconds since it was last begun to settle, or now, but 5 s in any case.
        """
        end = (self._settling or _seconds()) + limit
        await self._actor.sender.drain(max(end - _seconds(), 0.0))
        end = max(end, _seconds() + _LAST_WRITES)
        writing = [self._write_down(entry) for _, entry in self._unsettled() if self._actor.sender.unwritten(entry)]
        await _within((end - _seconds()) * 3 / 4, self._missing.look_once_more(), *writing)
        self._missing.tell()
        for uid, entry in self._unsettled():
            if entry.vanished:  # the next operator knows nothing of it
                await self._release(uid, entry, left_behind(entry.run, self._facts(entry)))
        unclaiming = [self._actor.sender.unclaim(entry) for _, entry in self._unsettled()]
        await _within(end - _seconds(), *unclaiming, *map(self._let_go, self._departures.all_free()))

    async def _let_go(self, uid: str) -> None:
        try:
            await self.work(uid)
        except TryAgainError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("%s cannot be let go", uid)

    def _unsettled(self) -> list[tuple[str, Entry]]:
        """Those of which something may still have to be written."""
        return [(uid, entry) for uid, entry in self._store if entry.vanished or not entry.calm]

    async def _write_down(self, entry: Entry) -> None:
        """Have an answer recorded that a restart would lose."""
        while record := self._actor.sender.unwritten(entry):
            try:
                try:
                    await self._actor.act(entry, Note(record))
                except GoneError as error:
                    await self._gone(entry, error)
            except (ClusterError, TryAgainError) as error:
                logger.warning("%s: %s", entry.run.key, error)
                await asyncio.sleep(_CONFLICT_PAUSE)

    def _forget(self, uid: str) -> None:
        self._store.forget(uid)
        self._drop(uid)

    # --- working on one resource

    def _facts(self, entry: Entry) -> Facts:
        run = entry.run
        wanted, record = self._wanted(entry), run.record
        return Facts(
            now=self._clock(),
            policy=self._policy,
            known=entry.known,
            new_token=secrets.token_hex(12),
            provider=self._providers.of(run.namespace, record.provider) if record and has_provider(record) else wanted,
            wanted=wanted,
            admitted=self._admission.admitted(run, wanted),
        )

    def _wanted(self, entry: Entry) -> Provider:
        """The provider of the next run. Never the operator's own after the namespace's: whose it is was settled."""
        run, known = entry.run, entry.known
        wanted = self._providers.wanted(run)
        if wanted.name == OWN and known.awaits_default:
            wanted = deleted_default(run.namespace)
        to_come = run.record is None or run.record.state == "released" or superseded(run, run.record)
        known.awaits_default = to_come and wanted.name == DEFAULT_PROVIDER
        return wanted

    async def work(self, uid: str) -> float | None:
        """Bring the resource as far as it goes now; the answer is when to come back, in seconds."""
        for _ in range(_STEPS):
            entry = self._store.get(uid)
            if entry is None:
                return None
            if not self._may_act():
                return _STANDSTILL
            try:
                pause = await self._glance(entry)
                if pause is None:
                    pause = await self._step(uid, entry)
            except ConflictError:
                return _CONFLICT_PAUSE  # the watch brings the newer version, mostly sooner
            except GoneError as error:
                await self._gone(entry, error)
                continue
            except ClusterError as error:
                raise TryAgainError(f"{entry.run.key}: {error}") from error
            if pause is not None:
                return pause if pause >= 0 else None
        return 0.0

    async def _gone(self, entry: Entry, error: GoneError) -> None:
        """Believe it only when it was looked for: its run is going to be cancelled. Raises TryAgainError."""
        try:
            body = await self._cluster.find(entry.run)
        except ClusterError as trouble:
            raise TryAgainError(f"{entry.run.key}: {trouble}") from error
        if body is not None:
            entry.take(body)
            raise TryAgainError(f"{entry.run.key}: {error}; but it is there") from error
        entry.vanished = True

    async def _glance(self, entry: Entry) -> float | None:
        """Look again at a run of which nothing new was seen. The answer is the pause; None: decide.

        To decide, and to say nothing, would take longer than the look itself.
        """
        calm, known = entry.calm, entry.known
        if calm is None or entry.vanished:
            return None
        known.turn_back(now := self._clock())
        if known.look_at is None or not known.look_at <= now < calm.until:
            return None
        if pause := self._admission.in_line(entry, calm.target.provider):
            return pause
        with self._admission.asking(entry, calm.target.provider):
            await self._actor.looker.look(entry, calm.target)
        if entry.calm is not calm or entry.vanished or not calm.lasts(known):
            entry.calm = None
            return None
        return max((min(known.look_at, calm.until) - self._clock()).total_seconds(), 0.01)

    async def _step(self, uid: str, entry: Entry) -> float | None:
        """One decision and its action. None: decide again; negative: wait for an event; else seconds to wait."""
        run = entry.run
        if entry.vanished:
            run = dataclasses.replace(run, deleted_at=run.deleted_at or self._clock(), finalizers=(FINALIZER,))
        entry.known.turn_to(run.record.token if run.record else None)
        facts = self._facts(entry)
        entry.known.turn_back(facts.now)
        entry.known.turn_to_provider(facts.provider)
        decision = decide(run, facts)
        self._admission.note(run, decision, facts)
        if (admitted := self._admission.admitted(run, facts.wanted)) != facts.admitted:
            decision = decide(run, dataclasses.replace(facts, admitted=admitted))
        entry.ending = decision.ending
        if not isinstance(decision.action, Release):
            self._departures.gone(uid)
        entry.known.turn_to_ending(decision, facts.now)
        logger.debug("%s: %s", run.key, decision.action)
        try:
            wrote = await self._show(entry, decision.status)
        except (ConflictError, GoneError):
            raise
        except ClusterError:
            # A run that goes costs money, shown or not: it is looked at, and cancelled at its deadline.
            look = isinstance(decision.action, Observe | Cancel)
            if look and not self._admission.pause(entry, decision.action, facts):
                with self._admission.calling(run, decision.action, facts, ending=decision.ending):
                    await self._actor.act(entry, decision.action)
            raise
        match decision.action:
            case Wait(until):
                if wrote:
                    return None
                if self._at_rest(entry):
                    self._store.rest(uid, entry)
                    self._drop(uid)
                    return -1
                entry.calm = glancing.calm(run, decision, entry.known, facts.now)
                if entry.calm or until is None or until - facts.now > _SPREAD:
                    entry.fold()
                return -1 if until is None else max((until - self._clock()).total_seconds(), 0.01)
            case Release(orphan):
                if run.deleted_at and not orphan:
                    self._admission.leaves(uid)  # its run is over
                    if not entry.vanished and self._departures.held(uid, run.namespace):
                        entry.fold()
                        return -1
                await self._release(uid, entry, orphan)
                return None
            case Delete(message):
                await self._actor.delete(entry, message)
                self._leave(uid, entry)
                return -1
            case action:
                if pause := self._admission.pause(entry, action, facts):
                    if pause >= _WORTH_SAYING and (waits(decision) or isinstance(action, Adopt)):
                        await self._show(entry, creating.in_line(run, facts))
                    return pause
                with self._admission.calling(run, action, facts, ending=decision.ending):
                    await (self._claim(entry, action) if isinstance(action, Claim) else self._actor.act(entry, action))
                return None

    async def _claim(self, entry: Entry, claim: Claim) -> None:
        """Claim. A claim that fails again is shown: else a resource that is never claimed would say nothing at all."""
        try:
            await self._actor.act(entry, claim)
        except (ConflictError, GoneError):
            raise
        except ClusterError as error:
            entry.known.unclaimed += 1
            self._admission.leaves(entry.run.uid)  # whoever is next may try
            if entry.known.unclaimed > 1:
                run, failure, facts = entry.run, unclaimed(error), self._facts(entry)
                if turns.pending(claim.record):
                    status = st.say(run.status, run, submitting.held_up(run, failure), facts.now)
                else:
                    status = creating.held_up(run, failure, facts)
                with contextlib.suppress(ClusterError):
                    await self._show(entry, status)
            raise
        entry.known.unclaimed = 0

    async def _show(self, entry: Entry, status: OpenAIRunStatus) -> bool:
        """Write the status if it says anything new; the answer is whether it did."""
        if entry.vanished:
            return False
        before = entry.run
        if before.odd_status is None and status == before.status:
            return False
        raw, said = before.raw_status, dump(status)
        difference = st.difference(dict(raw), said)
        if not difference or entry.settled == (said, raw):
            return False
        entry.take(await self._cluster.write_status(before, difference))
        made = entry.run.raw_status
        entry.settled = (said, made) if made != said else None
        for event in ev.events(before.status, status, cancel=before.spec is not None and before.spec.cancel):
            self._events.emit(entry.run, event)
        over = ev.made_way(before.status, status) or (None if before.status.finishedAt else status)
        if over and over.finishedAt and over.api and over.usage:
            self._metrics.used(over.api, over.usage)
        return True

    async def _release(self, uid: str, entry: Entry, orphan: str | None) -> None:
        deleting = entry.run.deleted_at is not None
        await self._actor.release(entry, orphan)
        if entry.vanished:
            self._forget(uid)
        elif deleting:
            self._leave(uid, entry)

    def _leave(self, uid: str, entry: Entry) -> None:
        self._store.leave(uid, entry)
        self._drop(uid)

    def _drop(self, uid: str) -> None:
        """It needs no more work, and no room."""
        self.scheduler.forget(uid)
        self._admission.leaves(uid)
        self._departures.gone(uid)
