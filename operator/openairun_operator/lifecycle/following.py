"""Following a run that exists: look at it until it is finished, end it at its deadline, notice if it is lost."""

from datetime import datetime

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import ending, phase, polling
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Decision, Note, Observe, Wait
from openairun_operator.lifecycle.conditions import Verdict, ended, going, retrying
from openairun_operator.lifecycle.creating import shown
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import NEEDS_PERSON
from openairun_operator.lifecycle.run import Run

_QUIET_FAILURES = 1
"""Failures in a row that are not worth a word: the next look, 2 s later, mostly succeeds."""


def follow(run: Run, record: Record, facts: Facts) -> Decision:
    """The next step for a run whose id is known."""
    status = shown(run, record, facts)
    if st.finished(status):
        status = _said_again(status, run, facts)
        return Decision(status, Wait() if run.record_annotated else Note(record))
    if not (run.record_annotated and run.has_finalizer):
        return Decision(run.status, Note(record, hold=True))
    status = update(status, record, facts)
    if status.phase in phase.TERMINAL:
        return Decision(st.say(status, run, _final(status, run), facts.now), Wait())
    deadline = polling.deadline(record.recordedAt, st.timeout_of(run.spec, record, facts.policy.timeout))
    if facts.known.gone >= ending.CONFIRMATIONS:
        return _gone(run, record, status, deadline, facts)
    if deadline and facts.now >= deadline and facts.known.looked_at and facts.known.looked_at >= deadline:
        return _at_deadline(run, record, status, facts)
    return _look(run, record, status, deadline, facts)


def _said_again(status: OpenAIRunStatus, run: Run, facts: Facts) -> OpenAIRunStatus:
    """A finished run's status for this generation. Said anew if another definition had the word meanwhile."""
    if st.says_finished(status):
        return st.stamp(status, run)
    given_up = ended(Reason.DEADLINE_EXCEEDED, f"Run {status.runID} had not ended when it was given up")
    verdict = st.verdict_of(status, wait=True) if status.phase in phase.TERMINAL else given_up
    return st.say(status, run, verdict, facts.now)


def update(status: OpenAIRunStatus, record: Record, facts: Facts) -> OpenAIRunStatus:
    """`status` with the last observation of the run, if there is one."""
    seen = ending.seen(record, facts)
    return st.observed(status, seen, facts.now) if seen else status


def _wait(run: Run) -> bool:
    return run.spec is None or run.spec.waitForCompletion


def _final(status: OpenAIRunStatus, run: Run) -> Verdict:
    """The last word. A run that was being cancelled for its deadline ended by it; any other end stands."""
    before = run.status.condition("Ready")
    if status.phase == phase.CANCELLED and before and before.reason == Reason.DEADLINE_EXCEEDED:
        return ended(Reason.DEADLINE_EXCEEDED, f"{_deadline_text(status)} and was cancelled")
    return st.verdict_of(status, wait=_wait(run))


def _deadline_text(status: OpenAIRunStatus) -> str:
    allowed = status.effective.timeout if status.effective else None
    return f"Run {status.runID} was not finished after {allowed}"


def _look(run: Run, record: Record, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts) -> Decision:
    known, now = facts.known, facts.now
    failure = facts.blocked or known.failure
    if status.phase in (None, phase.PENDING) and failure is None:
        said = run.status  # nothing to say before the first look
    elif failure and (failure.reason in NEEDS_PERSON or known.failures > _QUIET_FAILURES):
        said = st.say(status, run, retrying(failure.reason, failure.message, wait=_wait(run)), now)
    else:
        said = st.say(status, run, st.verdict_of(status, wait=_wait(run)), now)
    if known.pausing(now):
        return Decision(said, Wait(known.retry_at))
    if known.look_at is None or now >= known.look_at or (deadline and now >= deadline):
        return Decision(said, Observe(record))
    return Decision(said, Wait(min(known.look_at, deadline) if deadline else known.look_at))


def _gone(run: Run, record: Record, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts) -> Decision:
    """The run is not found. Under another key or address that says little, so it is looked for until the deadline."""
    now, known = facts.now, facts.known
    changed = ending.provider_changed(record, facts)
    if changed is None or (deadline and now >= deadline):
        verdict = ended(Reason.LOST, f"Run {record.id} is no longer known at {record.address}: its answer is lost")
        return Decision(st.say(status, run, verdict, now), Wait())
    text = f"Run {record.id} is not found since the operator's {changed}: restore it, or delete this resource"
    said = st.say(status, run, retrying(Reason.PROVIDER_CHANGED, text, wait=_wait(run)), now)
    if known.pausing(now):
        return Decision(said, Wait(known.retry_at))
    if known.look_at is None or now >= known.look_at:
        return Decision(said, Observe(record))
    return Decision(said, Wait(min(known.look_at, deadline) if deadline else known.look_at))


def _at_deadline(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Decision:
    """The run was looked at after its deadline and still goes: cancel it."""
    text = _deadline_text(status)
    step = ending.end(record, facts)
    if isinstance(step, ending.Over):
        return Decision(st.say(status, run, ended(Reason.DEADLINE_EXCEEDED, text), facts.now), Wait())
    if isinstance(step, ending.Orphaned):
        limit = durations.show(facts.policy.orphan_limit)
        verdict = ended(
            Reason.DEADLINE_EXCEEDED, f"{text}; its cancellation was not confirmed within {limit}: it may still go"
        )
        return Decision(st.say(status, run, verdict, facts.now), Wait())
    verdict = going(Reason.DEADLINE_EXCEEDED, f"{text}: it is being cancelled", wait=_wait(run))
    return Decision(st.say(status, run, verdict, facts.now), step, ending=True)
