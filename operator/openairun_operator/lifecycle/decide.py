"""The one level-based function: given the object, its record and what is known, what now?

It is called after every event, every look and every action, and asks nothing of what happened before: no
diff, no cause, no step counter. It is safe to call at any moment and after any crash.
"""

from dataclasses import replace

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import (
    adopting,
    attempts,
    creating,
    digest,
    ending,
    expiry,
    following,
    phase,
    turns,
    withholding,
)
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Action, Decision, Delete, Disown, Note, Release, Wait
from openairun_operator.lifecycle.conditions import Verdict, ended, retrying, stalled, waiting
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import Outcome
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.run import Run


def decide(run: Run, facts: Facts) -> Decision:
    """What `run`'s status should say, and the next action."""
    if run.record and not adopting.confirmed(run, run.record, facts):
        return _unconfirmed(run, run.record, facts)
    if run.deleted_at is not None:
        return _delete(run, facts)
    decision = _decide(run, facts)
    if not isinstance(decision.action, Wait):
        return decision
    if run.has_finalizer and (_finished(run) or (withholding.withheld(run) and _holds_nothing(run))):
        return Decision(decision.status, Release())
    match expiry.next_step(run, decision.status, facts):
        case Delete() | Disown() as action:
            return Decision(decision.status, action)
        case Wait(moment) if moment:
            return Decision(decision.status, Wait(min(moment, decision.action.until or moment)))
    return decision


def _decide(run: Run, facts: Facts) -> Decision:
    record = run.record
    if run.spec is None and not (record and record.state == "created"):
        verdict = stalled(Reason.INVALID_SPEC, f"This operator cannot read the spec: {run.spec_error}")
        phase_ = run.status.phase or phase.PENDING
        return Decision(st.say(run.status, run, verdict, facts.now, phase=phase_), Wait())
    if run.record_garbled:
        return creating.garbled(run, facts)
    if record is None or record.state == "released":
        return creating.start(run, facts)
    if run.spec is None:  # what goes is followed to its end all the same
        return following.follow(run, record, facts)
    if not digest.known(record.digest):
        return Decision(run.status, Note(record.model_copy(update={"digest": run.digest})))
    if _archived(run, record):  # its run was over when suspend held the next one back
        return creating.start(run, facts)
    if superseded(run, record):
        if run.spec.runID and record.state == "created":  # under runID nothing is ever created
            noted = {"digest": run.digest, "createAgain": run.create_again or record.createAgain}
            return Decision(run.status, Note(record.model_copy(update=noted)))
        return _replace(run, record, facts)
    if facts.known.unrecorded and isinstance(made := _resolve(record, facts), Record) and made != record:
        return following.follow(replace(run, record=made, record_annotated=False), made, facts)
    match record.state:
        case "claimed" if run.spec.cancel:
            return _cancel_claim(run, record, facts)
        case "claimed":
            return creating.claimed(run, record, facts)
        case "refused":
            return creating.refused(run, record, facts)
        case "cancelled" if run.spec.runID:
            return adopting.adopt(run, run.spec.runID, facts)
        case "cancelled":
            return withholding.cancelled(run, record, facts)
        case "created":
            return following.follow(run, record, facts)


def _unconfirmed(run: Run, record: Record, facts: Facts) -> Decision:
    """A run that is not ours to touch, for all we know."""
    named = f"run {turns.named(record)}"
    if run.deleted_at is not None:
        orphan = f"{named}, which the annotation {RECORD_ANNOTATION} names and status does not,"
        return Decision(run.status, Release(orphan) if run.has_finalizer else Wait())
    message = (
        f"The annotation {RECORD_ANNOTATION} names {named}, and status does not: under the operator's own key, which"
        f" others share, it is not followed. If it is not yours, remove the annotation: kubectl annotate -n"
        f" {run.namespace} openairun {run.name} {RECORD_ANNOTATION}-"
    )
    return Decision(st.say(run.status, run, stalled(Reason.ID_NOT_ALLOWED, message), facts.now), Wait())


def superseded(run: Run, record: Record) -> bool:
    """Whether the user asks for another run than the record's."""
    again = run.create_again is not None and run.create_again != record.createAgain
    return again or digest.differs(record.digest, run.digest)


def _finished(run: Run) -> bool:
    """Whether the status, as it is written, says that the record's run is over."""
    return run.record is not None and st.shows_end(run.status, run.record)


def _holds_nothing(run: Run) -> bool:
    """Whether nothing is left at OpenAI to cancel."""
    if run.record is None or run.record.state == "released":
        return not run.record_garbled
    return run.record.state in ("refused", "cancelled") or _finished(run) or _archived(run, run.record)


def _archived(run: Run, record: Record) -> bool:
    """Whether the record's run is over and in the history already, while `suspend` holds the next one back."""
    shown = run.status.record is not None and run.status.record.token == record.token
    return not shown and any(past.token == record.token for past in run.status.history or ())


def _resolve(record: Record, facts: Facts) -> Record | Action | ending.Over | ending.Orphaned:
    """What became of an attempt that is no longer wanted, or the next step towards knowing it.

    A record: its run, known to this process if not written down yet. Over: there is no run. Orphaned: there may be
    one, and there is no more to be done.
    """
    known = facts.known
    if record.state != "claimed":
        return turns.answered(record, ending.seen(record, known), known)
    match known.ledger.get(record.token):
        case Claimed():
            return ending.Over()
        case Answered(observation):
            return attempts.created(record, observation, facts.now)
        case Failed(failure) if failure.outcome is Outcome.NOT_CREATED:
            return ending.Over()
    if record.api not in facts.policy.searchable:
        return ending.Orphaned()
    if known.found:
        return attempts.created(record, known.found, facts.now)
    limit = known.ending_until(facts.now, facts.policy)
    if facts.now >= limit:
        return ending.Orphaned()
    step = ending.find(record, facts)
    return Wait(min(step.until, limit)) if isinstance(step, Wait) and step.until else step


def _end(made: Record, facts: Facts, *, written: bool, hold: bool = False) -> Action | ending.Over | ending.Orphaned:
    """The next step towards the end of a run.

    It does not wait for its record, whose write may be refused: that is for when there is nothing else to do.
    """
    step = ending.end(made, facts)
    return Note(made, hold) if isinstance(step, Wait) and not written else step


def _cancel_claim(run: Run, record: Record, facts: Facts) -> Decision:
    """spec.cancel is set while a create is under way, or its answer unknown."""
    match _resolve(record, facts):
        case ending.Over():
            return Decision(run.status, Note(record.model_copy(update={"state": "cancelled"})))
        case Record() as made:
            return Decision(run.status, Note(made, hold=not run.has_finalizer))
    # Searched for, or said to be unknown, as without cancel: nothing has to be over in a certain time.
    return creating.claimed(run, record, facts)


def _delete(run: Run, facts: Facts) -> Decision:
    """Cancel, confirm, go; and go in any case after the orphan limit."""
    record, status = run.record, run.status
    if not run.has_finalizer:
        return Decision(status, Wait())
    if run.record_garbled:
        return Decision(status, Release(f"a run that the annotation {RECORD_ANNOTATION}, which cannot be read, is of"))
    if record is None or _holds_nothing(run):
        return Decision(status, Release())
    if run.spec and run.spec.deletionPolicy == "Orphan":
        return Decision(status, Release(_unaccounted(record, facts)))
    step, orphan = _resolve(record, facts), _unaccounted(record, facts)
    if isinstance(step, Record):
        made, orphan = step, _left(step, facts)
        step = _end(made, facts, written=made == record)
    match step:
        case ending.Over():
            return Decision(status, Release())
        case ending.Orphaned():
            return Decision(status, Release(orphan))
    failure = facts.known.failure
    if failure and facts.known.failures > 1:
        status = st.say(status, run, retrying(failure.reason, f"Deleting: cannot cancel. {failure.message}"), facts.now)
    return Decision(status, step, ending=True)


def left_behind(run: Run, facts: Facts) -> str | None:
    """What may go at OpenAI if nobody follows `run` any more, for a person to read."""
    if run.record is None or _holds_nothing(run):
        return None
    made = _resolve(run.record, facts)
    return _left(made, facts) if isinstance(made, Record) else _unaccounted(run.record, facts)


def _left(made: Record, facts: Facts) -> str:
    on = f" on thread {made.thread}" if made.thread else ""
    return _unaccounted(made, facts) or f"run {turns.named(made)}{on}"


def _unaccounted(record: Record, facts: Facts) -> str | None:
    """What may go at OpenAI under an id that nobody knows, for a person to read."""
    if turn := turns.pending(record):
        sent = f"{turn.submittedAt:%Y-%m-%dT%H:%M:%SZ}"
        follows = f"a response that follows run {turns.named(record)} (if the tool outputs sent at {sent} arrived)"
        return follows if turns.unknown(record, facts) else None
    if record.state != "claimed":
        return None
    if isinstance(answer := facts.known.ledger.get(record.token), Answered):
        return f"run {answer.observation.id}"
    if not facts.known.ledger.unknown(record.token):
        return None
    sent = f"{record.submittedAt:%Y-%m-%dT%H:%M:%SZ}"
    return f"a run with {record.token} in its metadata (if its create, sent at {sent}, took effect)"


def _replace(run: Run, record: Record, facts: Facts) -> Decision:
    """End the old run, put it into history, and start anew."""
    if _holds_nothing(run):
        return creating.start(run, facts)
    match _resolve(record, facts):
        case ending.Over():
            return creating.release(run, record, facts)
        case ending.Orphaned():
            return creating.start_beside_unknown(run, record, facts)
        case Record() as made:
            written = made == record and run.record_annotated and run.has_finalizer
        case search:
            verdict = waiting(Reason.REPLACING, "The definition changed: finding out what became of the last create")
            return Decision(st.say(run.status, run, verdict, facts.now), search, ending=True)
    status = following.update(attempts.shown(run, made, facts), made, facts)
    step = _end(made, facts, written=written, hold=True)
    match step:
        case ending.Over():
            return _make_way(run, status, _last_word(status, made, facts), facts)
        case ending.Orphaned():
            return _make_way(run, status, following.orphaned(made, facts), facts)
    verdict = waiting(Reason.REPLACING, f"The definition changed: cancelling run {turns.named(made)}")
    return Decision(st.say(status, run, verdict, facts.now), step, ending=True)


def _make_way(run: Run, status: OpenAIRunStatus, last_word: Verdict, facts: Facts) -> Decision:
    """Put a run that is over into history. It is not shown as finished: who waits for the next one would be misled."""
    past = st.archive(st.say(status, run, last_word, facts.now))
    past = past.model_copy(update={"conditions": status.conditions})
    verdict = waiting(Reason.REPLACING, f"{last_word.message}; what is defined now is run next")
    return Decision(st.say(past, run, verdict, facts.now, phase=phase.PENDING, api=run.api), Wait())


def _last_word(status: OpenAIRunStatus, record: Record, facts: Facts) -> Verdict:
    """What to say of a run that is over and makes way for another."""
    if status.phase in phase.TERMINAL:
        return st.verdict_of(status, wait=True)
    if facts.known.gone:
        return ended(Reason.LOST, f"Run {turns.named(record)} is no longer known at {record.address}")
    return ended(Reason.CANCELLED, f"Run {turns.named(record)} no longer waits for the results of tool calls")
