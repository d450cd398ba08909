"""Acting on decisions: for each resource, decide, write the status, do the next thing, and again.

What comes by the watch can be old, so a resource is kept as the newest version seen, by the watch or in the
answer to a write. What must not happen twice does not rest on it at all: see lifecycle/ledger.py.
"""

import asyncio
import dataclasses
import logging
import random
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, assert_never

from openairun_operator.api.names import METADATA_PREFIX, TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.kube.events import Events
from openairun_operator.lifecycle import creating, polling, text
from openairun_operator.lifecycle import events as ev
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Action, Cancel, Claim, Create, Find, Note, Observe, Release, Wait
from openairun_operator.lifecycle.decide import decide
from openairun_operator.lifecycle.facts import Facts, Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure, retry_delay
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef
from openairun_operator.lifecycle.run import Run, dump_record
from openairun_operator.metrics import Metrics
from openairun_operator.scheduler import Scheduler, TryAgainError
from openairun_operator.store import Entry, Store
from openairun_operator.wires.protocol import Wire

logger = logging.getLogger(__name__)

_STEPS: Final = 30
"""Steps in a row for one resource before others get their turn."""
_CONFLICT_PAUSE: Final = 1.0
_SWEEP: Final = 60.0
_STUCK: Final = 60.0
_NOTE_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the first tries to write an id down: a stopping operator waits for them."""
_CONCURRENCY: Final = 128


class Wires(Protocol):
    """What the reconciler needs of the world outside: a wire for an API, and whether there can be one."""

    def blocked(self) -> Failure | None:
        """Why no call can be made now."""
        ...

    def credential(self) -> str | None:
        """A mark of the key in use."""
        ...

    def wire(self, api: API, *, ending: bool) -> Wire:
        """The wire for `api`; `ending` a run may use the last key there was. Raises CallFailedError."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Keeps each resource and its run at OpenAI in step."""

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        wires: Wires,
        events: Events,
        metrics: Metrics,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._policy = policy
        self._cluster = cluster
        self._wires = wires
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._store = Store()
        self._creating: set[asyncio.Task[None]] = set()
        self.scheduler = Scheduler(self.work, _CONCURRENCY)
        metrics.watch(self._store.states, self.scheduler.depth, self.scheduler.lag)

    # --- what comes in

    def saw(self, type_: str | None, body: Mapping[str, Any]) -> None:
        """Take in an event of the watch; `type_` is None for an object that was listed."""
        uid, listed = body["metadata"]["uid"], type_ is None
        entry = self._store.get(uid)
        if type_ == "DELETED":
            self._saw_deleted(uid, entry)
            return
        if not self._store.is_news(body, listed=listed):
            return  # our own write, or older
        if entry is None:
            entry = Entry.of(body)
            if self._at_rest(entry):
                self._store.rest(uid, entry)
                return
            self._store.keep(uid, entry)
            self._spread(entry)
        else:
            generation, key = entry.run.generation, entry.run.create_again
            entry.take(body, listed=listed)
            if (entry.run.generation, entry.run.create_again) != (generation, key):
                entry.known.retry_at = None  # a person acted: at once
        self.scheduler.wake(uid, first=entry.run.deleted_at is not None)

    def _saw_deleted(self, uid: str, entry: Entry | None) -> None:
        if entry is None or not entry.run.record or st.finished(entry.run.status):
            self._forget(uid)
            return
        entry.vanished = True
        self.scheduler.wake(uid, first=True)

    def _at_rest(self, entry: Entry) -> bool:
        """Whether a resource needs nothing: finished, seen in this generation, and not held by us."""
        run = entry.run
        if run.has_finalizer or run.deleted_at or not st.finished(run.status):
            return False
        return (
            isinstance(decide(run, self._facts(entry)).action, Wait) and run.status.observedGeneration == run.generation
        )

    def _spread(self, entry: Entry) -> None:
        """After a restart, look at the runs that go over one interval, not all at once."""
        run = entry.run
        if run.record and run.record.state == "created" and not run.deleted_at:
            entry.known.turn_to(run.record.token)
            interval = st.interval_of(run.spec, run.record, self._policy.polling_interval)
            entry.known.look_at = self._clock() + interval * random.random()

    def credentials_changed(self) -> None:
        """Try again at once whatever failed."""
        for uid, entry in self._store:
            if entry.known.failure or self._says_blocked(entry):
                entry.known.retry_at = None
                self.scheduler.wake(uid)

    @staticmethod
    def _says_blocked(entry: Entry) -> bool:
        synced = entry.run.status.condition("Synced")
        return synced is not None and synced.status == "False"

    async def sweep(self) -> None:
        """The safety net: hand every resource that nobody has in mind back to the scheduler. Until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP)
            for uid, _ in self._store:
                if not self.scheduler.known(uid):
                    self.scheduler.wake(uid)
            self._store.prune()

    def stuck(self) -> str | None:
        """What should have been attempted long ago: three intervals and a minute. None if all is well.

        A server that cannot be reached, or asks for patience, moves the time of the next attempt, and is no such case.
        """
        for uid, late in self.scheduler.late():
            entry = self._store.get(uid)
            if entry is None:
                continue
            interval = st.interval_of(entry.run.spec, entry.run.record, self._policy.polling_interval)
            if late > 3 * interval.total_seconds() + _STUCK:
                return f"{entry.run.key} was due {late:.0f} s ago"
        return None

    async def drain(self, limit: float) -> None:
        """Wait for creates that were sent: their ids must be written down. At most `limit` seconds."""
        if self._creating:
            logger.info("Waiting for %d creates that were sent", len(self._creating))
            await asyncio.wait(self._creating, timeout=limit)
        for _, entry in self._store:
            record = entry.run.record
            if record and isinstance(entry.known.ledger.get(record.token), Claimed) and record.state == "claimed":
                try:  # never sent: the next operator must not take it for a create without an answer
                    await self._note(entry, creating.released(record), hold=False)
                except ClusterError as error:
                    logger.warning("%s: %s", entry.run.key, error)

    def _forget(self, uid: str) -> None:
        self._store.forget(uid)
        self.scheduler.forget(uid)

    # --- working on one resource

    def _facts(self, entry: Entry) -> Facts:
        return Facts(
            now=self._clock(),
            policy=self._policy,
            known=entry.known,
            new_token=secrets.token_hex(12),
            credential=self._wires.credential(),
            blocked=self._wires.blocked(),
        )

    async def work(self, uid: str) -> float | None:
        """Bring the resource as far as it goes now; the answer is when to come back, in seconds."""
        for _ in range(_STEPS):
            entry = self._store.get(uid)
            if entry is None:
                return None
            try:
                pause = await self._step(uid, entry)
            except ConflictError:
                return _CONFLICT_PAUSE  # the watch brings the newer version, mostly sooner
            except GoneError:
                entry.vanished = True
                continue
            except ClusterError as error:
                raise TryAgainError(f"{entry.run.key}: {error}") from error
            if pause is not None:
                return pause if pause >= 0 else None
        return 0.0

    async def _step(self, uid: str, entry: Entry) -> float | None:
        """One decision and its action. None: decide again; negative: wait for an event; else seconds to wait."""
        run = entry.run
        if entry.vanished:
            run = dataclasses.replace(run, deleted_at=run.deleted_at or self._clock(), has_finalizer=True)
        entry.known.turn_to(run.record.token if run.record else None)
        facts = self._facts(entry)
        decision = decide(run, facts)
        entry.ending = decision.ending
        entry.known.turn_to_ending(decision, facts.now)
        logger.debug("%s: %s", run.key, decision.action)
        wrote = await self._show(entry, decision.status)
        match decision.action:
            case Wait(until):
                if wrote:
                    return None
                if self._at_rest(entry):
                    self._store.rest(uid, entry)
                    self.scheduler.forget(uid)
                    return -1
                return -1 if until is None else max((until - self._clock()).total_seconds(), 0.01)
            case Release(orphan):
                await self._release(uid, entry, orphan)
                return None
            case action:
                await self._act(entry, action)
                return None

    async def _show(self, entry: Entry, status: OpenAIRunStatus) -> bool:
        """Write the status if it says anything new; the answer is whether it did."""
        if entry.vanished:
            return False
        before, said = entry.run, st.dump(status)
        difference = st.difference(dict(before.raw_status), said)
        if not difference or entry.settled == (said, before.raw_status):
            return False
        entry.take(await self._cluster.write_status(before, difference))
        entry.settled = (said, entry.run.raw_status)
        for event in ev.events(before.status, status):
            self._events.emit(entry.run, event)
        if status.finishedAt and not before.status.finishedAt and status.api and status.usage:
            self._metrics.used(status.api, status.usage)
        return True

    async def _act(self, entry: Entry, action: Action) -> None:
        match action:
            case Claim(record):
                entry.known.ledger.claim(record.token, keep=entry.known.token)
                await self._claim(entry, record)
            case Note(record, hold):
                await self._note(entry, record, hold=hold)
            case Create(record):
                await self._create(entry, record)
            case Observe(record):
                if await self._look(entry, record, lambda wire, ref: wire.observe(ref)):
                    self._metrics.polled(record.api)
            case Cancel(record):
                logger.info("%s: cancelling run %s", entry.run.key, record.id)
                if await self._look(entry, record, lambda wire, ref: wire.cancel(ref)):
                    known = entry.known
                    known.cancel_refused = known.observation is not None and known.observation.cancel_refused
                    known.cancelled = not known.cancel_refused
                    if known.cancelled:
                        self._metrics.cancelled(record.api)
            case Find(record):
                await self._find(entry, record)
            case Wait() | Release():
                raise AssertionError(action)
            case never:
                assert_never(never)

    async def _claim(self, entry: Entry, record: Record) -> None:
        try:
            entry.take(await self._cluster.hold(entry.run, entry.body, dump_record(record)))
        except RefusedError as error:
            words = (
                f"Nothing is created, since the API server does not take the operator's record of it: {error}. Make"
                " room in metadata.annotations: kubectl apply keeps a copy of the object there, kubectl apply"
                " --server-side does not"
            )
            self._hold_back(entry, Failure(reason=Reason.RECORD_REFUSED, message=text.message(words)))

    async def _note(self, entry: Entry, record: Record, *, hold: bool) -> None:
        if entry.vanished:
            entry.run = dataclasses.replace(entry.run, record=record)
        elif hold:
            entry.take(await self._cluster.hold(entry.run, entry.body, dump_record(record)))
        else:
            entry.take(await self._cluster.annotate(entry.run, dump_record(record)))

    async def _create(self, entry: Entry, record: Record) -> None:
        """Send the create in a task of its own, which a stopping operator waits for."""
        if entry.run.digest != record.digest or entry.run.deleted_at:
            return  # it changed while the status was written: decide again
        if not entry.known.ledger.send(record.token):
            return
        task = asyncio.create_task(self._send(entry, record), name=f"create for {entry.run.key}")
        self._creating.add(task)
        task.add_done_callback(self._creating.discard)
        await asyncio.shield(task)

    async def _send(self, entry: Entry, record: Record) -> None:
        run, known = entry.run, entry.known
        assert run.spec is not None
        request = CreateRequest(run.spec, self._policy.default_model, self._metadata(run, record))
        try:
            seen = await self._wires.wire(record.api, ending=False).create(request)
        except CallFailedError as error:
            known.ledger.answer(record.token, Failed(error.failure))
            self._metrics.not_created(record.api, error.failure)
            self._failed(entry, record.api, error.failure)
            return
        known.ledger.answer(record.token, Answered(seen))
        self._metrics.created(record.api)
        self._succeeded(entry)
        self._take_observation(entry, record, seen)
        made = creating.created(record, seen, self._facts(entry))
        for pause in (*_NOTE_PAUSES, None):
            try:
                await self._note(entry, made, hold=False)
                return
            except (GoneError, RefusedError):
                return  # decided upon next
            except ClusterError as error:
                logger.warning("%s: run %s is created; trying again to record it: %s", run.key, seen.id, error)
            if pause is not None:
                await asyncio.sleep(pause)

    @staticmethod
    def _metadata(run: Run, record: Record) -> dict[str, str]:
        own = {"namespace": run.namespace, "name": run.name, "uid": run.uid}
        mine = {f"{METADATA_PREFIX}{key}": value for key, value in own.items()} | {TOKEN_KEY: record.token}
        return {**((run.spec.metadata if run.spec else None) or {}), **mine}

    async def _look(self, entry: Entry, record: Record, call: Callable[[Wire, RunRef], Any]) -> bool:
        """Observe or cancel; the answer is whether the run was seen."""
        assert record.id is not None
        ref = RunRef(record.api, record.id, record.thread)
        try:
            seen: RunObservation = await call(self._wires.wire(record.api, ending=entry.ending), ref)
        except CallFailedError as error:
            if error.failure.reason is Reason.NOT_FOUND:
                self._succeeded(entry)
                entry.known.gone += 1
                entry.known.look_at = self._clock() + timedelta(seconds=min(2.0 * entry.known.gone, 30.0))
            else:
                self._failed(entry, record.api, error.failure)
            return False
        self._succeeded(entry)
        self._take_observation(entry, record, seen)
        return True

    def _take_observation(self, entry: Entry, record: Record, seen: RunObservation) -> None:
        known, now = entry.known, self._clock()
        known.observation, known.looked_at, known.gone = seen, now, 0
        interval = st.interval_of(entry.run.spec, record, self._policy.polling_interval)
        since = known.ending_since if entry.ending and known.ending_since else record.recordedAt or now
        known.look_at = now + timedelta(seconds=polling.delay(now - since, interval, random.random(), seen.poll_after))

    async def _find(self, entry: Entry, record: Record) -> None:
        known = entry.known
        try:
            wire = self._wires.wire(record.api, ending=entry.ending)
            found = await wire.find(record.thread, record.token, record.submittedAt)
        except CallFailedError as error:
            self._failed(entry, record.api, error.failure)
            return
        self._succeeded(entry)
        now = self._clock()
        if found is None:
            known.missed_first, known.missed_last = known.missed_first or now, now
        else:
            known.found = found
            self._take_observation(entry, record, found)

    async def _release(self, uid: str, entry: Entry, orphan: str | None) -> None:
        run = entry.run
        deleting = run.deleted_at is not None or entry.vanished
        if orphan and deleting:
            message = (
                f"The resource is deleted, but its cancellation was not confirmed: {orphan} may still go at OpenAI"
            )
            self._events.emit(run, ev.Event("Warning", Reason.ORPHANED, message))
            self._metrics.orphaned(run.record.api if run.record else run.api)
        elif deleting and entry.known.cancelled and run.record:
            self._events.emit(run, ev.Event("Normal", Reason.CANCELLED, f"Run {run.record.id} was cancelled"))
        if entry.vanished:
            self._forget(uid)
        else:
            entry.take(await self._cluster.release(run, entry.body))
            if deleting:
                self._store.leave(uid, entry)
                self.scheduler.forget(uid)

    def _failed(self, entry: Entry, api: API, failure: Failure) -> None:
        self._metrics.failed(api, failure)
        self._hold_back(entry, failure)

    def _hold_back(self, entry: Entry, failure: Failure) -> None:
        known, now = entry.known, self._clock()
        known.failure, known.failed_at = failure, now
        known.failures += 1
        known.retry_at = now + timedelta(seconds=retry_delay(failure, known.failures, random.random()))

    @staticmethod
    def _succeeded(entry: Entry) -> None:
        known = entry.known
        known.failure = known.failed_at = known.retry_at = None
        known.failures = 0
