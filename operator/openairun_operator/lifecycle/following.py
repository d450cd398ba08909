"""Following a run that exists: look at it until it is finished, end it at its deadline, notice if it is lost."""

import contextlib
from dataclasses import replace
from datetime import datetime

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import ending, phase, polling, storing, submitting, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Decision, Note, Observe, Store, Wait
from openairun_operator.lifecycle.attempts import shown
from openairun_operator.lifecycle.conditions import Extra, Verdict, ended, going, retrying
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import NEEDS_PERSON
from openairun_operator.lifecycle.provider import OWN
from openairun_operator.lifecycle.run import Run

_QUIET_FAILURES = 1
"""Failures in a row that are not worth a word: the next look, 2 s later, mostly succeeds."""


def follow(run: Run, record: Record, facts: Facts) -> Decision:
    """The next step for a run whose id is known."""
    status = shown(run, record, facts)
    if st.finished(status):
        return _finished(run, record, status, facts)
    if run.record_annotated and run.has_finalizer:
        return _follow(run, record, status, facts)
    if not facts.known.unrecorded:
        return Decision(run.status, Note(record, hold=True))
    # What cannot be written down is not held up by that: it costs money, and has its deadline.
    decision = _follow(run, record, status, facts)
    note = Note(record, hold=not run.has_finalizer)
    return replace(decision, action=note) if isinstance(decision.action, Wait) else decision


def _follow(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Decision:
    status = update(status, record, facts)
    if status.phase in phase.TERMINAL:
        return _ended(run, record, status, facts)
    deadline = polling.deadline(record.recordedAt, st.timeout_of(run.spec, record))
    if facts.known.gone >= ending.CONFIRMATIONS:
        return _gone(run, record, status, deadline, facts)
    if run.spec and run.spec.cancel:
        return _cancel(run, record, status, facts)
    if deadline is None or facts.now < deadline:
        submission = submitting.step(run, record, status, deadline, facts)
        return submission or _look(run, record, status, deadline, facts)
    if facts.known.looked_at and facts.known.looked_at >= deadline:
        return _at_deadline(run, record, status, facts)
    return _look(run, record, status, deadline, facts)


def _ended(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Decision:
    """The run is over: its answer is stored first, if it can be, so that who waits for the run finds it."""
    status = storing.with_stored(run, status, facts)
    if facts.known.store_failure is None:
        action = storing.store(run, record, status, facts)
        if isinstance(action, Store):
            return Decision(run.status, action)
    extra = storing.condition(run, record, status, facts)
    return Decision(st.say(status, run, _final(status, run), facts.now, extra), Wait())


def _finished(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Decision:
    """It is over and said to be so. What is left is an answer that could not be stored yet."""
    status = storing.with_stored(run, status, facts)
    status = _said_again(status, run, record, storing.condition(run, record, status, facts), facts)
    if not run.record_annotated:
        return Decision(status, Note(record))
    step = storing.store(run, record, status, facts)
    return Decision(status, step or Wait(storing.again(run, status, record, facts)))


def _said_again(
    status: OpenAIRunStatus, run: Run, record: Record, extra: Extra | None, facts: Facts
) -> OpenAIRunStatus:
    """A finished run's status for this generation. Said anew if another definition had the word meanwhile."""
    if st.says_finished(status):
        return st.stamp(status, run, facts.now, extra)
    over = status.phase in phase.TERMINAL
    verdict = st.verdict_of(status, wait=True) if over else _given_up(status, record, facts)
    return st.say(status, run, verdict, facts.now, extra)


def _given_up(status: OpenAIRunStatus, record: Record, facts: Facts) -> Verdict:
    """What is known of a run whose end nobody saw, when its last word is lost: it was lost, or ran into its deadline,
    or `spec.cancel` did not end it.
    """
    if facts.known.gone >= ending.CONFIRMATIONS:
        return _lost(record)
    deadline = None
    with contextlib.suppress(ValueError):  # a status can be edited too
        timeout = status.effective.timeout if status.effective else None
        deadline = polling.deadline(record.recordedAt, durations.parse(timeout)) if timeout else None
    if deadline and status.finishedAt and status.finishedAt >= deadline:
        verdict = ended(Reason.DEADLINE_EXCEEDED, _deadline_text(status))
    else:
        words = f"Run {_name(status)} was not seen to end before it was given up: it may still go"
        verdict = ended(Reason.ORPHANED, words)
    return replace(verdict, outcome_unknown=turns.unknown(record, facts))


def _lost(record: Record) -> Verdict:
    words = f"Run {turns.named(record)} is no longer known at {record.address}: its answer is lost"
    return ended(Reason.LOST, words)


def update(status: OpenAIRunStatus, record: Record, facts: Facts) -> OpenAIRunStatus:
    """`status` with the last observation of the run, if there is one."""
    seen = ending.seen(record, facts.known)
    return st.observed(status, submitting.unanswered(seen, record), facts.now) if seen else status


def _final(status: OpenAIRunStatus, run: Run) -> Verdict:
    """The last word. A run that was being cancelled for its deadline ended by it; any other end stands."""
    before = run.status.condition("Ready")
    if status.phase == phase.CANCELLED and before and before.reason == Reason.DEADLINE_EXCEEDED:
        return ended(Reason.DEADLINE_EXCEEDED, f"{_deadline_text(status)} and was cancelled")
    return st.verdict_of(status, wait=run.waits)


def _deadline_text(status: OpenAIRunStatus) -> str:
    allowed = status.effective.timeout if status.effective else None
    return f"Run {_name(status)} was not finished after {allowed}"


def _name(status: OpenAIRunStatus) -> str:
    return turns.named(status.record) if status.record else f"{status.runID}"


def _look(run: Run, record: Record, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts) -> Decision:
    known, now = facts.known, facts.now
    failure = facts.provider.blocked or known.failure
    if (status.phase in (None, phase.PENDING) or known.looked_at is None) and failure is None:
        said = run.status  # nothing to say before the first look; what was said before a restart stands until then
    elif failure and (failure.reason in NEEDS_PERSON or known.failures > _QUIET_FAILURES):
        said = st.say(status, run, retrying(failure.reason, failure.message, wait=run.waits), now)
    else:
        lacking = submitting.asked(run, record, ending.seen(record, facts.known))
        said = st.say(status, run, st.verdict_of(status, wait=run.waits, lacking=lacking), now)
    if known.pausing(now):
        return Decision(said, Wait(known.retry_at))
    last = ending.seen(record, facts.known)
    if last and last.at_rest and known.look_at and not (deadline and now >= deadline):
        return Decision(said, Wait(deadline))  # nothing goes on at OpenAI before the tool outputs are there
    if known.look_at is None or now >= known.look_at or (deadline and now >= deadline):
        return Decision(said, Observe(record))
    return Decision(said, Wait(min(known.look_at, deadline) if deadline else known.look_at))


def orphaned(record: Record, facts: Facts) -> Verdict:
    """The run was to end, and nobody saw it end."""
    if turns.unknown(record, facts):
        words = f"Run {turns.named(record)}: a submission of its tool outputs got no answer, so a response may still go"
        return replace(ended(Reason.ORPHANED, words), outcome_unknown=True)
    limit = durations.show(facts.policy.orphan_limit)
    return ended(Reason.ORPHANED, f"Run {turns.named(record)} was not seen to end within {limit}: it may still go")


def _cancel(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Decision:
    """spec.cancel is set."""
    step = ending.end(record, facts)
    match step:
        case ending.Over():
            moment = facts.now.replace(microsecond=0)
            verdict = ended(
                Reason.CANCELLED, f"Run {turns.named(record)} was cancelled: it waits for tool results no longer"
            )
            fields = {"phase": phase.CANCELLED, "cancelledAt": moment, "requiredAction": None}
            return Decision(st.say(status, run, verdict, facts.now, **fields), Wait())
        case ending.Orphaned():
            return Decision(st.say(status, run, orphaned(record, facts), facts.now), Wait())
    failure = facts.known.failure
    if failure and facts.known.failures > _QUIET_FAILURES:
        verdict = retrying(failure.reason, f"spec.cancel is set: cannot cancel. {failure.message}", wait=run.waits)
    else:
        verdict = going(Reason.CANCELLING, f"spec.cancel is set: cancelling run {turns.named(record)}", wait=run.waits)
    return Decision(st.say(status, run, verdict, facts.now), step, ending=True)


def _gone(run: Run, record: Record, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts) -> Decision:
    """The run is not found. Under another key or address that says little, so it is looked for until the deadline."""
    now, known = facts.now, facts.known
    changed = ending.provider_changed(record, facts)
    if changed is None or (deadline and now >= deadline):
        return Decision(st.say(status, run, _lost(record), now), Wait())
    whose = "the operator" if facts.provider.name == OWN else facts.provider.said
    text = f"Run {turns.named(record)} is not found since {whose}'s {changed}: restore it, or delete this resource"
    said = st.say(status, run, retrying(Reason.PROVIDER_CHANGED, text, wait=run.waits), now)
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
        over = ended(Reason.DEADLINE_EXCEEDED, text)
        return Decision(st.say(status, run, over, facts.now, requiredAction=None), Wait())
    if isinstance(step, ending.Orphaned):
        limit = durations.show(facts.policy.orphan_limit)
        unknown = turns.unknown(record, facts)
        why = "the submission of tool outputs got no answer" if unknown else f"it was not seen to end within {limit}"
        verdict = replace(ended(Reason.DEADLINE_EXCEEDED, f"{text}; {why}: it may still go"), outcome_unknown=unknown)
        return Decision(st.say(status, run, verdict, facts.now), Wait())
    verdict = going(Reason.DEADLINE_EXCEEDED, f"{text}: it is being cancelled", wait=run.waits)
    return Decision(st.say(status, run, verdict, facts.now), step, ending=True)
