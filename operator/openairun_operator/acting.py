"""Acting on decisions: each action is done once, and what came of it put where the next decision sees it."""

import asyncio
import contextlib
import dataclasses
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, assert_never

from openairun_operator.api import durations
from openairun_operator.api.base import dump
from openairun_operator.api.names import METADATA_PREFIX, TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Record
from openairun_operator.buckets import Bucket
from openairun_operator.elsewhere import Elsewhere
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.kube.events import Events
from openairun_operator.kube.references import ReferenceFailedError
from openairun_operator.lifecycle import (
    adopting,
    attempts,
    ending,
    parting,
    polling,
    submitting,
    text,
    turns,
    withholding,
)
from openairun_operator.lifecycle import events as ev
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
from openairun_operator.lifecycle.decide import superseded
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure, retry_delay
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.observation import (
    Contents,
    CreateRequest,
    RunObservation,
    RunRef,
    SubmitRequest,
    Target,
)
from openairun_operator.lifecycle.provider import Provider
from openairun_operator.lifecycle.run import Run, dump_record
from openairun_operator.metrics import Metrics
from openairun_operator.store import Entry
from openairun_operator.wires.protocol import Wire

logger = logging.getLogger(__name__)

_TOO_LONG: Final = re.compile(r"too long|must have at most \d+ bytes|too large", re.IGNORECASE)
"""In what the API server says of annotations, or of an object, that are too long for it or for etcd."""
_MAKE_ROOM: Final = (
    "Make room in metadata.annotations: kubectl apply keeps a copy of the object there, kubectl apply --server-side"
    " does not"
)
_LAST_TRY: Final = timedelta(seconds=5)
"""For a run that could not be cancelled before its time to end was over."""
_LOOK: Final = "See there what refuses it: a missing right, an admission webhook or policy, or the API server itself"


class _BrokenOffError(Exception):
    """The resource is deleted: what a look would have shown matters no more."""


class Providers(Protocol):
    """What is needed of the world outside: who makes a run, and a wire to it."""

    def wanted(self, run: Run) -> Provider:
        """The provider of the next run."""
        ...

    def of(self, namespace: str, name: str) -> Provider:
        """The provider that a record names."""
        ...

    def where(self, namespace: str, name: str) -> tuple[str, str | None]:
        """The address and the mark of the key of the provider that a record names."""
        ...

    async def confirm(self, run: Run, name: str) -> bool:
        """Whether `name` is surely the provider that `run` asks for. Raises ClusterError."""
        ...

    def wire(self, namespace: str, name: str, api: API, *, ending: bool) -> Wire:
        """The wire to it for `api`; `ending` a run may use the last key there was. Raises CallFailedError."""
        ...

    def refused(self, namespace: str, name: str, failure: Failure) -> None:
        """A call to it failed."""
        ...

    def bucket(self, namespace: str, name: str) -> Bucket | None:
        """The rate of requests to it; None: any."""
        ...


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
        self._policy = policy
        self._cluster = cluster
        self._providers = providers
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._may_act = may_act
        self._in_flight = in_flight
        self._elsewhere = Elsewhere(cluster, clock)
        self._sending: set[asyncio.Task[None]] = set()

    async def drain(self, limit: float) -> None:
        """Wait for claims and creates that were sent: what came of them is written down. At most `limit` seconds."""
        if self._sending:
            logger.info("Waiting for %d claims and creates that were sent", len(self._sending))
            await asyncio.wait(self._sending, timeout=limit)

    def unwritten(self, entry: Entry) -> Record | None:
        """The record of what OpenAI answered to a create or a submission, if it is not written yet."""
        record, known = entry.run.record, entry.known
        if record is None:
            return None
        match known.ledger.get(record.token):
            case Answered(observation) if record.state == "claimed":
                return attempts.created(record, observation, self._clock())
        answered = turns.answered(record, ending.seen(record, known), known)
        return None if answered is record else answered

    async def unclaim(self, entry: Entry) -> None:
        """Let go of a claim that was never sent: the next operator must not take it for one without an answer."""
        record = entry.run.record
        if record is None:
            return
        turn = turns.pending(record)
        if record.state == "claimed" and isinstance(entry.known.ledger.get(record.token), Claimed):
            record = attempts.released(record)
        elif turn and isinstance(entry.known.ledger.get(turn.token), Claimed):
            record = turns.became(record, "released")
        else:
            return
        try:
            await self._note(entry, record, hold=False)
        except ClusterError as error:
            logger.warning("%s: %s", entry.run.key, error)

    async def act(self, entry: Entry, action: Action) -> None:
        """Do it. Raises ClusterError when the API server did not do what was asked."""
        with contextlib.suppress(_BrokenOffError):
            await self._act(entry, action)

    async def _act(self, entry: Entry, action: Action) -> None:
        match action:
            case Claim(record, token):
                if token == record.token and not await self._providers.confirm(entry.run, record.provider):
                    return  # it asks for another: decide again
                entry.known.ledger.claim(token, keep=entry.known.token)
                # Else a stopping operator could leave a claim that it does not know of, and that was never sent.
                await self._in_a_task(entry, self._claim(entry, record))
            case Note(record, hold):
                await self._note(entry, record, hold=hold)
            case Fetch(results):
                try:
                    await self._elsewhere.fetch(entry, results=results)
                except ReferenceFailedError as error:
                    self._hold_back(entry, error.failure)
            case Adopt(ref):
                if await self._providers.confirm(entry.run, self._providers.wanted(entry.run).name):
                    await self._adopt(entry, ref)
            case Create(record):
                await self._create(entry, record)
            case Submit(record):
                await self._submit(entry, record)
            case Observe(record):
                if seen := await self._observe(entry, Target.of(record)):
                    turns.note_look(record, seen, entry.known, self._clock())
            case Cancel(record):
                await self._cancel(entry, record)
            case Find(record):
                await self._find(entry, record)
            case Store():
                await self._elsewhere.store(entry, action)
            case Disown(name):
                await self._elsewhere.disown(entry, name)
            case Wait() | Release() | Delete():
                raise AssertionError(action)
            case never:
                assert_never(never)

    # --- records

    async def _claim(self, entry: Entry, record: Record) -> None:
        try:
            entry.take(await self._cluster.hold(entry.run, dump_record(record)))
        except RefusedError as error:
            self._hold_back(entry, unclaimed(error))

    async def _note(self, entry: Entry, record: Record, *, hold: bool) -> None:
        if entry.vanished:
            entry.note(record)
            return
        try:
            if hold:
                body = await self._cluster.hold(entry.run, dump_record(record))
            else:
                body = await self._cluster.annotate(entry.run, dump_record(record))
        except (ConflictError, GoneError):
            raise
        except ClusterError:
            entry.known.unrecorded += 1
            raise
        entry.known.unrecorded = 0
        entry.take(body)

    # --- what costs money

    async def _create(self, entry: Entry, record: Record) -> None:
        run = entry.run
        if superseded(run, record) or run.deleted_at or withholding.withheld(run) or not self._may_act():
            return  # it changed while the status was written: decide again
        if ending.changed(record, self._providers.of(run.namespace, record.provider)):
            return
        if entry.known.ledger.send(record.token):
            await self._in_a_task(entry, self._send(entry, record))

    async def _send(self, entry: Entry, record: Record) -> None:
        run, known = entry.run, entry.known
        request = self._definition(run, record, known.contents)
        known.contents = None
        try:
            seen = await self._wire(entry, record.provider, record.api).create(request)
        except CallFailedError as error:
            known.ledger.answer(record.token, Failed(error.failure))
            self._metrics.not_created(record.api, error.failure)
            self._failed(entry, record.provider, record.api, error.failure)
            return
        known.ledger.answer(record.token, Answered(seen))
        self._metrics.created(record.api)
        self._succeeded(entry)
        self._take_observation(entry, record.provider, seen)
        await self._write_down(entry, attempts.created(record, seen, self._clock()), seen.id)

    async def _submit(self, entry: Entry, record: Record) -> None:
        run, known, turn = entry.run, entry.known, turns.pending(record)
        last = ending.seen(record, known)
        if turn is None or last is None or run.deleted_at or not self._may_act():
            return
        if superseded(run, record) or run.spec is None or run.spec.cancel:
            return
        if submitting.digest(run, last.calls) != turn.digest:
            return
        if known.ledger.send(turn.token):
            await self._in_a_task(entry, self._send_outputs(entry, record, turn.token, last))

    async def _send_outputs(self, entry: Entry, record: Record, token: str, last: RunObservation) -> None:
        run, known = entry.run, entry.known
        results = submitting.results(run, last.calls, known.contents)
        request = SubmitRequest(
            Target.of(record).ref, results, self._definition(run, record, known.contents, last.model)
        )
        known.contents = None
        try:
            seen = await self._wire(entry, record.provider, record.api).submit(request)
        except CallFailedError as error:
            known.ledger.answer(token, Failed(error.failure))
            self._metrics.not_submitted(record.api, error.failure)
            self._failed(entry, record.provider, record.api, error.failure)
            return
        known.ledger.answer(token, Answered(seen))
        self._metrics.submitted(record.api)
        self._succeeded(entry)
        made = turns.taken(record, seen, last)
        self._take_observation(entry, made.provider, seen, Target.of(made).began)
        await self._write_down(entry, made, seen.id)

    async def _in_a_task(self, entry: Entry, sending: Coroutine[Any, Any, None]) -> None:
        """Send in a task of its own, which a stopping operator waits for."""
        task = asyncio.create_task(sending, name=f"claim or create for {entry.run.key}")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        await asyncio.shield(task)

    async def _write_down(self, entry: Entry, record: Record, run_id: str) -> None:
        """Write the id down at once; where that fails it is decided upon anew, from the ledger, until it is done."""
        await self._confirm(entry, record)
        try:
            await self._note(entry, record, hold=False)
        except (GoneError, RefusedError):
            return  # decided upon next
        except ClusterError as error:
            logger.warning("%s: run %s is created, and not recorded yet: %s", entry.run.key, run_id, error)

    async def _confirm(self, entry: Entry, record: Record) -> None:
        """Have status name the id first, where only what it names is followed: who comes next may know no more."""
        run, shown = entry.run, entry.run.status.record
        provider = self._providers.of(entry.namespace, record.provider)
        if not provider.confirmed_only or not shown or shown.token != record.token:
            return
        said = dump(run.status.model_copy(update={"record": record}))
        with contextlib.suppress(ClusterError):  # the annotation is better than nothing
            entry.take(await self._cluster.write_status(run, st.difference(dict(run.raw_status), said)))

    def _definition(
        self, run: Run, record: Record, contents: Contents | None, default_model: str | None = None
    ) -> CreateRequest:
        assert run.spec is not None
        own = {"namespace": run.namespace, "name": run.name, "uid": run.uid}
        mine = {f"{METADATA_PREFIX}{key}": value for key, value in own.items()} | {TOKEN_KEY: record.token}
        return CreateRequest(
            spec=run.spec,
            default_model=default_model or self._providers.of(run.namespace, record.provider).default_model,
            metadata={**(run.spec.metadata or {}), **mine},
            input=contents.input if contents else None,
            authorizations=contents.authorizations if contents else {},
        )

    # --- looking

    def _wire(self, entry: Entry, provider: str, api: API) -> Wire:
        _, entry.known.called_with = self._providers.where(entry.namespace, provider)
        return self._providers.wire(entry.namespace, provider, api, ending=entry.ending)

    @contextlib.asynccontextmanager
    async def _looking(self, entry: Entry) -> AsyncIterator[None]:
        """Within it a run is looked at, cancelled or searched for. An ending waits no longer than our own requests may
        take, and a deletion not long for a look that began before it. Raises CallFailedError and _BrokenOffError.
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
                raise _BrokenOffError from None
            message = f"No answer within {durations.show(limit)}, which is all that an ending waits for"
            raise CallFailedError(Failure(reason=Reason.TIMED_OUT, message=message)) from None
        finally:
            entry.looking = None

    async def look(self, entry: Entry, target: Target) -> None:
        """Look at a run of which nothing is to be decided."""
        with contextlib.suppress(_BrokenOffError):
            await self._observe(entry, target)

    async def _observe(self, entry: Entry, target: Target) -> RunObservation | None:
        seen = await self._look(entry, target, lambda wire: wire.observe(target.ref))
        if seen:
            self._metrics.polled(target.ref.api)
        return seen

    async def _cancel(self, entry: Entry, record: Record) -> None:
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
            wire = self._wire(entry, target.provider, ref.api)
            async with self._looking(entry):
                seen = dataclasses.replace(await call(wire), id=ref.id)
        except CallFailedError as error:
            if error.failure.reason is Reason.NOT_FOUND:
                self._succeeded(entry)
                entry.known.gone += 1
                entry.known.look_at = self._clock() + timedelta(seconds=min(2.0 * entry.known.gone, 30.0))
            else:
                self._failed(entry, target.provider, ref.api, error.failure)
            return None
        self._succeeded(entry)
        self._take_observation(entry, target.provider, seen, target.began)
        return seen

    def _take_observation(
        self, entry: Entry, provider: str, seen: RunObservation, began: datetime | None = None
    ) -> None:
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

    async def _find(self, entry: Entry, record: Record) -> None:
        known = entry.known
        try:
            wire = self._wire(entry, record.provider, record.api)
            async with self._looking(entry):
                found = await wire.find(record.thread, record.token, record.submittedAt)
        except CallFailedError as error:
            self._failed(entry, record.provider, record.api, error.failure)
            return
        self._succeeded(entry)
        now = self._clock()
        if found is None:
            known.missed_first, known.missed_last = known.missed_first or now, now
        else:
            known.found = found
            self._take_observation(entry, record.provider, found)

    async def _adopt(self, entry: Entry, ref: RunRef) -> None:
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
            self._failed(entry, wanted.name, ref.api, failure)
            return
        self._succeeded(entry)
        entry.known.found = dataclasses.replace(found, id=ref.id)

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

    # --- failures

    def _failed(self, entry: Entry, provider: str, api: API, failure: Failure) -> None:
        self._metrics.failed(api, failure)
        self._providers.refused(entry.namespace, provider, failure)
        another = self._providers.where(entry.namespace, provider)[1] != entry.known.called_with
        if another and failure.reason is Reason.INVALID_CREDENTIALS:
            return  # the key was replaced while it was on its way: at once with the new one
        self._hold_back(entry, failure)

    def _hold_back(self, entry: Entry, failure: Failure) -> None:
        known, now = entry.known, self._clock()
        known.failure, known.failed_at = failure, now
        known.failures += 1
        interval = st.interval_of(entry.run.spec, entry.run.record).total_seconds()
        known.retry_at = now + timedelta(seconds=retry_delay(failure, known.failures, random.random(), interval))

    @staticmethod
    def _succeeded(entry: Entry) -> None:
        known = entry.known
        known.failure = known.failed_at = known.retry_at = None
        known.failures = 0


def unclaimed(error: ClusterError) -> Failure:
    """What to say of a claim that the API server does not take."""
    advice = _MAKE_ROOM if _TOO_LONG.search(str(error)) else _LOOK
    words = (
        f"Nothing is created, since the API server does not take the operator's record of it: {error}. {advice}. It is"
        f" tried again within {5 if isinstance(error, RefusedError) else 2} minutes, and at once when the spec changes"
    )
    return Failure(reason=Reason.RECORD_REFUSED, message=text.message(words))
