"""Taking up a run that exists: `spec.runID`. It is looked at first, so that a wrong id becomes no record."""

from dataclasses import replace

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle import withholding
from openairun_operator.lifecycle.actions import Adopt, Decision, Note, Wait
from openairun_operator.lifecycle.attempts import created, new_record
from openairun_operator.lifecycle.conditions import Verdict, retrying, stalled, waiting
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import NEEDS_PERSON, Failure
from openairun_operator.lifecycle.ledger import Answered
from openairun_operator.lifecycle.observation import RunRef
from openairun_operator.lifecycle.phase import PENDING
from openairun_operator.lifecycle.provider import refusal
from openairun_operator.lifecycle.run import Run


def adopt(run: Run, run_id: str, facts: Facts, unknown: Record | None = None) -> Decision:
    """Take up the run, once it was seen. It becomes what `unknown`, a create without an answer, came to."""
    known, now = facts.known, facts.now
    if known.found and known.found.id == run_id:
        record = created(unknown or new_record(run, facts), known.found, now)
        return Decision(run.status, Note(record.model_copy(update={"adopted": True}), hold=True))
    obstacle = refusal(run, facts.wanted) or facts.obstacle(facts.wanted)
    if obstacle is None:
        return Decision(run.status, Adopt(RunRef(run.api, run_id, run.spec.threadID if run.spec else None)))
    if obstacle.reason is Reason.RUN_NOT_FOUND and unknown is None and run.spec and run.spec.cancel:
        noted = run.record if run.record and run.record.state == "cancelled" else None
        return withholding.cancelled(run, noted, facts) if noted else withholding.cancel(run, facts)
    fields = {} if run.status.runID else {"phase": PENDING, "api": run.api}
    if obstacle.reason is Reason.RUN_NOT_FOUND:
        obstacle = replace(obstacle, message=f"{obstacle.message}. {_advice(run, run_id, unknown)}")
    verdict = _not_seen(run_id, obstacle)
    if unknown is not None:
        verdict = replace(verdict, outcome_unknown=True)
    until = known.retry_at if known.pausing(now) else None
    effective = st.awaiting(run.status, facts.wanted)
    return Decision(st.say(run.status, run, verdict, now, effective=effective, **fields), Wait(until))


def confirmed(run: Run, record: Record, facts: Facts) -> bool:
    """Whether it was the operator that wrote what this record names, where only that is followed.

    Annotations are for every user to edit, status is not. What this process itself claimed needs no status yet.
    """
    if not facts.provider.confirmed_only or not (record.followed or record.thread):
        return True
    shown, ledger = run.status.record, facts.known.ledger
    if shown and (shown.token, shown.followed, shown.thread) == (record.token, record.followed, record.thread):
        return True
    if ledger.get(record.token) is None:
        return False
    tokens = [record.token, *([record.turn.token] if record.turn else [])]
    seen = {entry.observation.id for entry in map(ledger.get, tokens) if isinstance(entry, Answered)}
    return record.followed is None or record.followed in seen | {facts.known.found.id if facts.known.found else None}


def _not_seen(run_id: str, failure: Failure) -> Verdict:
    if failure.reason is Reason.BUSY:
        return waiting(failure.reason, failure.message)
    words = f"Run {run_id} cannot be taken up. {failure.message}"
    return stalled(failure.reason, words) if failure.reason in NEEDS_PERSON else retrying(failure.reason, words)


def not_found(ref: RunRef, address: str) -> Failure:
    """What to say of an id that the server does not know."""
    where = f" on thread {ref.thread}" if ref.thread else ""
    return Failure(
        reason=Reason.RUN_NOT_FOUND,
        message=f"{address} knows no run {ref.id}{where}, at least with the key in use",
    )


def _advice(run: Run, run_id: str, unknown: Record | None) -> str:
    """What to do about an id that is not found."""
    spec = run.spec
    on_thread = spec is not None and spec.threadID is not None
    words = "Correct spec.runID or spec.threadID" if on_thread else "Correct spec.runID"
    if run_id.startswith("run_") and not on_thread:
        words = "A run on a thread needs spec.threadID beside it. Else correct spec.runID"
    if unknown is not None:
        return f"{words}. Removing it creates nothing: the create that was sent before may have made a run"
    if spec is None or not spec.defines:
        return words
    return f"{words}, or remove {'spec.runID' if on_thread else 'it'} to have a run created"
