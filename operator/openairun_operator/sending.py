"""Claims, creates and submissions: each is sent once, and the record says so, before and after."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final

from openairun_operator.api.base import dump
from openairun_operator.api.names import METADATA_PREFIX, TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.lifecycle import attempts, ending, submitting, text, turns, withholding
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.decide import superseded
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.observation import Contents, CreateRequest, RunObservation, SubmitRequest, Target
from openairun_operator.lifecycle.run import Run, dump_record
from openairun_operator.looking import Looker
from openairun_operator.metrics import Metrics
from openairun_operator.protocols import Providers
from openairun_operator.store import Entry

logger = logging.getLogger(__name__)

_TOO_LONG: Final = re.compile(r"too long|must have at most \d+ bytes|too large", re.IGNORECASE)
"""In what the API server says of annotations, or of an object, that are too long for it or for etcd."""
_MAKE_ROOM: Final = (
    "Make room in metadata.annotations: kubectl apply keeps a copy of the object there, kubectl apply --server-side"
    " does not"
)
_LOOK: Final = "See there what refuses it: a missing right, an admission webhook or policy, or the API server itself"


class Sender:
    """Sends what costs money, and keeps the records of it. `looker` knows the wires, and notes what they show."""

    def __init__(
        self,
        cluster: Cluster,
        providers: Providers,
        looker: Looker,
        metrics: Metrics,
        clock: Callable[[], datetime],
        may_act: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._providers = providers
        self._looker = looker
        self._metrics = metrics
        self._clock = clock
        self._may_act = may_act
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
            await self.note(entry, record, hold=False)
        except ClusterError as error:
            logger.warning("%s: %s", entry.run.key, error)

    # --- records

    async def claim(self, entry: Entry, record: Record, token: str) -> None:
        """Claim what `token` names. Raises ClusterError."""
        entry.known.ledger.claim(token, keep=entry.known.token)
        # Else a stopping operator could leave a claim that it does not know of, and that was never sent.
        await self._in_a_task(entry, self._claim(entry, record))

    async def _claim(self, entry: Entry, record: Record) -> None:
        try:
            entry.take(await self._cluster.hold(entry.run, dump_record(record)))
        except RefusedError as error:
            entry.hold_back(unclaimed(error), self._clock())

    async def note(self, entry: Entry, record: Record, *, hold: bool) -> None:
        """Write the record; `hold`: the finalizer too. Raises ClusterError."""
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

    async def create(self, entry: Entry, record: Record) -> None:
        """Send what was claimed, once, if it is still what is wanted. Raises ClusterError."""
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
            seen = await self._looker.wire(entry, record.provider, record.api).create(request)
        except CallFailedError as error:
            known.ledger.answer(record.token, Failed(error.failure))
            self._metrics.not_created(record.api, error.failure)
            self._looker.failed(entry, record.provider, record.api, error.failure)
            return
        known.ledger.answer(record.token, Answered(seen))
        self._metrics.created(record.api)
        known.succeeded()
        self._looker.saw(entry, record.provider, seen)
        await self._write_down(entry, attempts.created(record, seen, self._clock()), seen.id)

    async def submit(self, entry: Entry, record: Record) -> None:
        """Likewise, the outputs of tools. Raises ClusterError."""
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
            seen = await self._looker.wire(entry, record.provider, record.api).submit(request)
        except CallFailedError as error:
            known.ledger.answer(token, Failed(error.failure))
            self._metrics.not_submitted(record.api, error.failure)
            self._looker.failed(entry, record.provider, record.api, error.failure)
            return
        known.ledger.answer(token, Answered(seen))
        self._metrics.submitted(record.api)
        known.succeeded()
        made = turns.taken(record, seen, last)
        self._looker.saw(entry, made.provider, seen, Target.of(made).began)
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
            await self.note(entry, record, hold=False)
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


def unclaimed(error: ClusterError) -> Failure:
    """What to say of a claim that the API server does not take."""
    advice = _MAKE_ROOM if _TOO_LONG.search(str(error)) else _LOOK
    words = (
        f"Nothing is created, since the API server does not take the operator's record of it: {error}. {advice}. It is"
        f" tried again within {5 if isinstance(error, RefusedError) else 2} minutes, and at once when the spec changes"
    )
    return Failure(reason=Reason.RECORD_REFUSED, message=text.message(words))
