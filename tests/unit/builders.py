"""Objects as the API server would return them, and a world in which they live: one resource, one server, one clock."""

import copy
import itertools
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from openairun_operator.api.base import dump
from openairun_operator.api.names import CREATE_AGAIN_ANNOTATION, FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import (
    adopting,
    attempts,
    creating,
    digest,
    ending,
    phase,
    polling,
    storing,
    submitting,
    turns,
)
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import (
    Action,
    Adopt,
    Cancel,
    Claim,
    Create,
    Decision,
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
from openairun_operator.lifecycle.decide import decide
from openairun_operator.lifecycle.facts import Facts, Knowledge, Policy
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome, retry_delay
from openairun_operator.lifecycle.ledger import Answered, Failed
from openairun_operator.lifecycle.observation import Call, Contents, RunObservation, RunRef, ToolResult
from openairun_operator.lifecycle.provider import Provider
from openairun_operator.lifecycle.run import Run, dump_record, parse

START = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
UID = "6f0e7c1e-0000-4000-8000-000000000001"
RESPONSES: dict[str, Any] = {"input": "Say hello", "model": "gpt-5-mini"}
ASSISTANTS: dict[str, Any] = {"assistantID": "asst_1", "threadID": "thread_1"}
POLICY = Policy(holder="operator-1")
PROVIDER = Provider(name="operator", address="https://api.openai.com/v1")

RATE_LIMITED = Failure(reason=Reason.RATE_LIMITED, message="OpenAI said 429: slow down")
BAD_REQUEST = Failure(reason=Reason.INVALID_REQUEST, message="OpenAI said 400: no such model")
BAD_KEY = Failure(reason=Reason.INVALID_CREDENTIALS, message="OpenAI said 401: wrong key")
BUSY = Failure(reason=Reason.BUSY, message="OpenAI said 400: conversation_locked")
NO_ANSWER = Failure(reason=Reason.TIMED_OUT, message="no answer in time", outcome=Outcome.UNKNOWN)
NO_CREDENTIALS = Failure(reason=Reason.NO_CREDENTIALS, message="there is no key: create the Secret")
NOT_FOUND = Failure(reason=Reason.NOT_FOUND, message="OpenAI said 404: no such run")


def record(**fields: Any) -> Record:
    """The record of a run that goes."""
    return Record.model_validate(
        {
            "object": "team/hello",
            "uid": UID,
            "digest": digest.of(RESPONSES),
            "token": "token-0",
            "holder": "operator-1",
            "state": "created",
            "api": "Responses",
            "provider": "operator",
            "address": PROVIDER.address,
            "id": "resp_0",
            "submittedAt": START,
            "recordedAt": START,
            "timeout": "10m",
            "pollingInterval": "5s",
        }
        | fields
    )


def body(
    spec: dict[str, Any] | None = None,
    *,
    annotation: Record | str | None = None,
    status: OpenAIRunStatus | dict[str, Any] | None = None,
    **meta: Any,
) -> dict[str, Any]:
    """An OpenAIRun as the API server returns it."""
    annotations = dict(meta.pop("annotations", {}))
    if annotation is not None:
        annotations[RECORD_ANNOTATION] = annotation if isinstance(annotation, str) else dump_record(annotation)
    return {
        "metadata": {
            "namespace": "team",
            "name": "hello",
            "uid": UID,
            "generation": 1,
            "annotations": annotations,
            **meta,
        },
        "spec": copy.deepcopy(RESPONSES if spec is None else spec),
        "status": dump(status) if isinstance(status, OpenAIRunStatus) else status or {"observedGeneration": -1},
    }


def seen(status: str, **fields: Any) -> RunObservation:
    """An observation of the run `resp_0`."""
    return RunObservation(**{"id": "resp_0", "status": status} | fields)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


@dataclass(slots=True)
class ServedRun:
    """A run at the server."""

    id: str
    token: str
    thread: str | None
    made_at: datetime
    cancelled_at: datetime | None = None
    end: str | None = None
    """An end that it has come to whatever the clock says."""
    asks: tuple[Call, ...] = ()
    """The calls that it asks for once it has run for 5 s; a run on a thread goes on when they are answered."""
    answered_at: datetime | None = None


@dataclass(slots=True)
class Sent:
    """A create that reached the server."""

    digest: str
    create_again: str | None
    token: str
    made: bool
    answers: tuple[str, ...] = ()
    """The calls that it answers, if it goes on from another response."""


class DiedError(Exception):
    """The operator's process died."""


@dataclass
class Server:
    """OpenAI, as far as it matters here. Runs are queued for 2 s and complete after `takes`; None: never."""

    clock: Callable[[], datetime]
    takes: timedelta | None = timedelta(seconds=20)
    ends_as: str = "completed"
    cancel_takes: timedelta | None = timedelta(seconds=3)
    """None: a cancel is taken and has no effect."""
    down: Failure | None = None
    """Every call fails so."""
    faults: deque[Failure] = field(default_factory=deque)
    """The next calls fail so, one each."""
    creates: deque[Failure | Literal["lost answer"]] = field(default_factory=deque)
    """What becomes of the next creates; the answer of a run that was made may be lost."""
    late: timedelta = timedelta()
    """How long a create whose answer is lost takes to have its effect."""
    runs: dict[str, ServedRun] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    asks: deque[tuple[Call, ...]] = field(default_factory=deque)
    """The calls that the next runs ask for."""
    submitted: list[tuple[ToolResult, ...]] = field(default_factory=list)
    answer: str = "hello"
    log: list[str] = field(default_factory=list)
    """Calls, in short."""

    def _fail(self) -> None:
        if self.down:
            raise CallFailedError(self.down)
        if self.faults:
            raise CallFailedError(self.faults.popleft())

    def create(self, rec: Record, kind: str = "create") -> RunObservation:
        self.log.append(kind)
        fault = self.creates.popleft() if self.creates else self.down
        made = fault is None or fault == "lost answer"
        answers = tuple(rec.turn.calls) if kind == "submit" and rec.turn else ()
        self.sent.append(Sent(rec.digest, rec.createAgain, rec.token, made, answers))
        if isinstance(fault, Failure):
            raise CallFailedError(fault)
        made_at = self.clock() + (self.late if fault else timedelta())
        asks = self.asks.popleft() if self.asks else ()
        run = ServedRun(f"resp_{len(self.runs) + 1}", rec.token, rec.thread, made_at, asks=asks)
        self.runs[run.id] = run
        if fault:
            raise CallFailedError(NO_ANSWER)
        return self._look(run)

    def submit(self, rec: Record, results: tuple[ToolResult, ...]) -> RunObservation:
        """A run on a thread goes on; a response is followed by another."""
        last = self.runs[rec.followed or ""]
        assert [result.id for result in results] == [call.id for call in last.asks], "answers to other calls"
        if rec.api == "Responses":
            seen = self.create(rec, "submit")
            self.submitted.append(results)
            return seen
        self.log.append("submit")
        fault = self.creates.popleft() if self.creates else self.down
        if isinstance(fault, Failure):
            raise CallFailedError(fault)
        if last.answered_at is not None:
            raise CallFailedError(BAD_REQUEST)
        self.submitted.append(results)
        last.answered_at = self.clock()
        if fault:
            raise CallFailedError(NO_ANSWER)
        return self._look(last)

    def _look(self, run: ServedRun) -> RunObservation:
        now = self.clock()
        asking = run.asks and run.answered_at is None and run.end is None and run.cancelled_at is None
        if asking and now - run.made_at >= timedelta(seconds=5):
            return RunObservation(
                id=run.id, status="requires_action", thread=run.thread, calls=run.asks, at_rest=run.thread is None
            )
        age = now - (run.answered_at or run.made_at)
        status = "queued" if age < timedelta(seconds=2) else "in_progress"
        if self.takes is not None and age >= self.takes and run.end is None:
            run.end = self.ends_as
        if run.cancelled_at and self.cancel_takes is not None and run.end is None:
            status = "cancelling"
            if now - run.cancelled_at >= self.cancel_takes:
                run.end = "cancelled"
        return RunObservation(
            id=run.id, status=run.end or status, thread=run.thread, created_at=run.made_at.timestamp(), text=self.answer
        )

    def observe(self, id_: str) -> RunObservation:
        self.log.append("observe")
        self._fail()
        if id_ not in self.runs:
            raise CallFailedError(NOT_FOUND)
        return self._look(self.runs[id_])

    def cancel(self, id_: str) -> RunObservation:
        self.log.append("cancel")
        self._fail()
        if id_ not in self.runs:
            raise CallFailedError(NOT_FOUND)
        run = self.runs[id_]
        self._look(run)
        run.cancelled_at = run.cancelled_at or self.clock()
        return self._look(run)

    def find(self, token: str) -> RunObservation | None:
        self.log.append("find")
        self._fail()
        for run in self.runs.values():
            if run.token == token and run.made_at <= self.clock():
                return self._look(run)
        return None

    def going(self) -> list[str]:
        """Runs that cost money now."""
        looks = [self._look(run) for run in self.runs.values()]
        return [seen.id for seen in looks if not seen.at_rest and phase.of(seen.status) not in phase.TERMINAL]


class World:
    """One resource, the operator's process, the server and the clock. Acts on decisions as the reconciler does."""

    def __init__(self, spec: dict[str, Any] | None = None, **meta: Any) -> None:
        self.now = START
        self.policy, self.provider = POLICY, PROVIDER
        self.admitted = True
        self.body: dict[str, Any] | None = body(spec, **meta)
        self.known = Knowledge()
        self.server = Server(lambda: self.now)
        self.blocked: Failure | None = None
        self.credential = "key-1"
        self.orphan: str | None = None
        self.steps = 0
        self.writes = 0
        self.crash: tuple[int, str] | None = None
        """At which step the process dies: `before` its action, or `after` what it does outside, unrecorded."""
        self.said: list[str] = []
        """The Ready reasons, in turn."""
        self.texts: set[tuple[str, str]] = set()
        """ConfigMap and Secret keys that exist."""
        self.reads = 0
        self.config_maps: dict[str, tuple[dict[str, str], bool]] = {}
        self.store_faults: deque[Failure] = deque()
        self._tokens = itertools.count(1)
        self._parsed: tuple[str, Any, Any, Run] | None = None

    # --- what a user and the outside do

    @property
    def object(self) -> dict[str, Any]:
        assert self.body is not None, "the object is gone"
        return self.body

    @property
    def run(self) -> Run:
        meta, spec, status = (self.object[part] for part in ("metadata", "spec", "status"))
        marks = str(meta)
        if (
            self._parsed is None
            or self._parsed[0] != marks
            or self._parsed[1] is not spec
            or self._parsed[2] is not status
        ):
            self._parsed = (marks, spec, status, parse(self.object))
        return self._parsed[3]

    @property
    def status(self) -> OpenAIRunStatus:
        return self.run.status

    @property
    def record(self) -> Record | None:
        return self.run.record

    def reason(self) -> str | None:
        conditions = self.object["status"].get("conditions", [])
        return next((c["reason"] for c in conditions if c["type"] == "Ready"), None)

    def edit(self, **fields: Any) -> None:
        self.object["spec"] = {k: v for k, v in (self.object["spec"] | fields).items() if v is not None}
        self.object["metadata"]["generation"] += 1
        self.known.retry_at = self.known.store_at = None

    def annotate(self, name: str, value: str | None) -> None:
        annotations = self.object["metadata"]["annotations"]
        if value is None:
            annotations.pop(name, None)
        else:
            annotations[name] = value
        if name == CREATE_AGAIN_ANNOTATION:
            self.known.retry_at = self.known.store_at = None

    def create_again(self, value: str) -> None:
        self.annotate(CREATE_AGAIN_ANNOTATION, value)

    def delete(self) -> None:
        if FINALIZER in self.object["metadata"].get("finalizers", []):
            self.object["metadata"]["deletionTimestamp"] = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            self.body = None

    def lose_status(self) -> None:
        self.object["status"] = {"observedGeneration": -1}

    def restart(self) -> None:
        self.known = Knowledge()

    def policy_is(self, **fields: Any) -> None:
        self.policy = replace(self.policy, **fields)

    def provider_is(self, **fields: Any) -> None:
        self.provider = replace(self.provider, **fields)

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    # --- the operator

    def facts(self) -> Facts:
        provider = replace(self.provider, credential=self.credential, blocked=self.blocked)
        return Facts(
            now=self.now,
            policy=self.policy,
            known=self.known,
            new_token=f"token-{next(self._tokens)}",
            provider=provider,
            wanted=provider,
            admitted=self.admitted,
        )

    def decide(self) -> Decision:
        run = self.run
        self.known.turn_to(run.record.token if run.record else None)
        facts = self.facts()
        self.known.turn_to_provider(facts.provider)
        return decide(run, facts)

    def step(self) -> datetime | bool:
        """One decision and its action. True: at once again; False: nothing to do; else when to come back."""
        decision = self.decide()
        self.known.turn_to_ending(decision, self.now)
        wrote = self._show(decision.status)
        self.steps += 1
        dies = self.crash[1] if self.crash and self.crash[0] == self.steps else None
        try:
            if dies == "before":
                raise DiedError
            match decision.action:
                case Wait(until):
                    if dies:
                        raise DiedError
                    if wrote:
                        return True
                    assert until is None or until > self.now, f"a wait that is over already spins: {until}"
                    return until or False
                case action:
                    self._act(action, decision, dies == "after")
        except DiedError:
            self.restart()
        return True

    def settle(self, limit: timedelta = timedelta(hours=2), steps: int = 2000) -> None:
        """Go on, moving the clock, until there is nothing to do. It must come to rest within `limit`."""
        end = self.now + limit
        for _ in range(steps):
            if self.body is None:
                return
            match self.step():
                case True:
                    continue
                case False:
                    return
                case until:
                    assert until <= end, f"not settled after {limit}: {self.status}"
                    self.now = until
        raise AssertionError(f"not settled after {steps} steps: {self.status}")

    def go_on(self, steps: int) -> None:
        """So many steps, each at the moment that the one before it waited for."""
        for _ in range(steps):
            if isinstance(moment := self.step(), datetime):
                self.now = moment

    def until(self, condition: Callable[["World"], object], steps: int = 300) -> None:
        """Go on until `condition` holds."""
        for _ in range(steps):
            if condition(self):
                return
            match self.step():
                case True:
                    continue
                case False:
                    break
                case moment:
                    self.now = moment
        assert condition(self), f"never came: {self.status}"

    def _show(self, status: OpenAIRunStatus) -> bool:
        before, after = self.object["status"], dump(status)
        patch = st.difference(before, after)
        if not patch:
            return False
        written = json.loads(json.dumps(merge(before, patch)))
        assert written == after
        assert_sound(before, after)
        self.object["status"] = written
        self.writes += 1
        if (reason := self.reason()) and (not self.said or self.said[-1] != reason):
            self.said.append(reason)
        return True

    def _write(self, rec: Record, *, hold: bool) -> None:
        meta = self.object["metadata"]
        meta["annotations"] = meta["annotations"] | {RECORD_ANNOTATION: dump_record(rec)}
        if hold:
            assert not meta.get("deletionTimestamp") or FINALIZER in meta.get("finalizers", [])
            meta["finalizers"] = [FINALIZER]

    def _act(self, action: Action, decision: Decision, dies: bool) -> None:
        known = self.known
        match action:
            case Claim(rec, token):
                known.ledger.claim(token, keep=known.token)
                self._write(rec, hold=True)
            case Fetch(results):
                self._fetch(results)
            case Adopt(ref):
                self._adopt(ref.id)
            case Submit(rec):
                self._submit(rec, dies)
            case Store(_, name, data, owned, left_out):
                self._store(name, dict(data), owned, left_out)
            case Disown(name):
                self.config_maps[name] = (self.config_maps[name][0], False)
                known.disowned = name
            case Delete():
                self.delete()
            case Note(rec, hold):
                self._write(rec, hold=hold)
            case Create(rec):
                self._create(rec, dies)
            case Observe(rec):
                self._look(rec, decision, self.server.observe)
            case Cancel(rec):
                known.cancel_tried = True
                known.cancelled = self._look(rec, decision, self.server.cancel) or known.cancelled
            case Find(rec):
                self._find(rec)
            case Release(orphan):
                self._release(orphan)
            case Wait():
                raise AssertionError(action)
        if dies:
            raise DiedError

    def _create(self, rec: Record, dies: bool) -> None:
        if not self.known.ledger.send(rec.token):
            return
        run = self.run
        assert run.record_annotated, "sent before the claim was written"
        assert run.record
        assert run.record.token == rec.token
        assert run.has_finalizer, "sent before the finalizer was written"
        try:
            answer = self.server.create(rec)
        except CallFailedError as error:
            if dies:
                raise DiedError from None
            self.known.ledger.answer(rec.token, Failed(error.failure))
            self._failed(error.failure)
            return
        if dies:
            raise DiedError
        self.known.ledger.answer(rec.token, Answered(answer))
        self._succeeded()
        self._take(answer, self.now)
        self._write(attempts.created(rec, answer, self.now), hold=False)

    def _submit(self, rec: Record, dies: bool) -> None:
        turn = turns.pending(rec)
        assert turn is not None
        if not self.known.ledger.send(turn.token):
            return
        run, last = self.run, ending.seen(rec, self.known)
        assert last is not None
        assert run.record == rec, "sent before the claim was written"
        assert run.record_annotated
        try:
            answer = self.server.submit(rec, submitting.results(run, last.calls, self.known.contents))
        except CallFailedError as error:
            if dies:
                raise DiedError from None
            self.known.ledger.answer(turn.token, Failed(error.failure))
            self._failed(error.failure)
            return
        if dies:
            raise DiedError
        self.known.ledger.answer(turn.token, Answered(answer))
        self._succeeded()
        self._take(answer, self.now)
        self._write(turns.taken(rec, answer, last), hold=False)

    def _fetch(self, results: bool) -> None:
        run, calls = self.run, ()
        assert run.spec is not None
        if results and run.record and (seen_ := ending.seen(run.record, self.known)):
            calls = seen_.calls
        needs = [run.spec.inputFrom] if run.spec.inputFrom and not results else []
        needs += [output.outputFrom for output in submitting.needed(run, calls)]
        for need in needs:
            ref = need.configMapKeyRef or need.secretKeyRef
            if ref is None or (ref.name, ref.key) not in self.texts:
                self._failed(Failure(reason=Reason.REFERENCE_NOT_FOUND, message=f"there is no {need}"))
                return
        self.reads += 1
        self.known.contents = Contents(
            purpose=submitting.purpose(run, calls) if results else creating.purpose(run),
            read_at=self.now,
            input="read" if run.spec.inputFrom else None,
            results={output.toolCallID: "read" for output in submitting.needed(run, calls)},
        )

    def _adopt(self, run_id: str) -> None:
        try:
            self.known.found = replace(self.server.observe(run_id), id=run_id)
        except CallFailedError as error:
            failure = error.failure
            if failure.reason is Reason.NOT_FOUND:
                failure = adopting.not_found(RunRef("Responses", run_id), self.provider.address)
            self._failed(failure)
            return
        self._succeeded()

    def _store(self, name: str, data: dict[str, str], owned: bool, left_out: str | None) -> None:
        known = self.known
        if self.store_faults:
            known.store_failure, known.store_failures = self.store_faults.popleft(), known.store_failures + 1
            known.store_at = self.now + timedelta(seconds=retry_delay(known.store_failure, known.store_failures, 0.5))
            return
        self.config_maps[name] = (data, owned)
        known.stored, known.store_failure, known.store_at = (name, storing.checksum(data)), None, None
        known.left_out = left_out

    def _look(self, rec: Record, decision: Decision, call: Callable[[str], RunObservation]) -> bool:
        assert rec.followed is not None
        known = self.known
        try:
            answer = replace(call(rec.followed), id=rec.followed)
        except CallFailedError as error:
            if error.failure.reason is Reason.NOT_FOUND:
                self._succeeded()
                known.gone += 1
                known.look_at = self.now + timedelta(seconds=min(2.0 * known.gone, 30.0))
            else:
                self._failed(error.failure)
            return False
        self._succeeded()
        since = known.ending_since if decision.ending and known.ending_since else rec.recordedAt or self.now
        self._take(answer, since)
        turns.note_look(rec, answer, known, self.now)
        return True

    def _take(self, answer: RunObservation, since: datetime) -> None:
        known = self.known
        known.observation, known.looked_at, known.gone = answer, self.now, 0
        known.read_with = (self.provider.address, self.credential)
        run = self.run
        interval = st.interval_of(run.spec, run.record)
        known.look_at = self.now + timedelta(seconds=polling.delay(self.now - since, interval, 0.5))

    def _find(self, rec: Record) -> None:
        known = self.known
        try:
            found = self.server.find(rec.token)
        except CallFailedError as error:
            self._failed(error.failure)
            return
        self._succeeded()
        if found is None:
            known.missed_first, known.missed_last = known.missed_first or self.now, self.now
        else:
            known.found = found
            self._take(found, self.now)

    def _release(self, orphan: str | None) -> None:
        meta = self.object["metadata"]
        meta["finalizers"] = []
        self.orphan = orphan
        if meta.get("deletionTimestamp"):
            self.body = None

    def _failed(self, failure: Failure) -> None:
        known = self.known
        known.failure, known.failed_at, known.failures = failure, self.now, known.failures + 1
        known.retry_at = self.now + timedelta(seconds=retry_delay(failure, known.failures, 0.5))

    def _succeeded(self) -> None:
        known = self.known
        known.failure = known.failed_at = known.retry_at = None
        known.failures = 0


def assert_sound(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What holds of every status that is written after another one."""
    old = {c["type"]: c for c in before.get("conditions", [])}
    new = {c["type"]: c for c in after.get("conditions", [])}
    assert list(new)[:6] in ([], ["Ready", "Reconciling", "Stalled", "Finished", "Succeeded", "Synced"])
    assert not (new and new["Reconciling"]["status"] == new["Stalled"]["status"] == "True")
    for type_ in new.keys() & old.keys():
        same = new[type_]["status"] == old[type_]["status"]
        assert same == (new[type_]["lastTransitionTime"] == old[type_]["lastTransitionTime"]) or not same
    if before.get("finishedAt") and before.get("runID") and before["runID"] == after.get("runID"):
        for name in ("phase", "finishedAt", "completedAt", "failedAt", "cancelledAt", "lastError"):
            assert before.get(name) == after.get(name), f"a finished run's {name} changed"
        assert before.get("output", {}).get("text") == after.get("output", {}).get("text")
