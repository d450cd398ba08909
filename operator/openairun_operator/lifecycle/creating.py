"""From a definition to a run: claim, send once, and know what came of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import adopting, ending, queueing, text, withholding
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Claim, Create, Decision, Fetch, Note, Wait
from openairun_operator.lifecycle.attempts import created, new_record, released, shown
from openairun_operator.lifecycle.conditions import Verdict, ended, retrying, stalled, waiting
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import NEEDS_PERSON, Failure, Outcome
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.phase import FAILED, PENDING
from openairun_operator.lifecycle.provider import Provider, refusal
from openairun_operator.lifecycle.run import Run

_SEEN: Final = 300
"""Characters of what was seen in place of an answer: how to go on stands behind it."""
UNKNOWN_CREATE = (
    "The create was sent at {sent} and got no answer{seen}, so a run may exist at OpenAI; this API cannot be searched"
    " for it. Nothing more is created. To go on, write its id, if you find it, into spec.runID, or change"
    " the definition, or create once more with: kubectl annotate"
    " -n {namespace} openairun {name} openairun.dev/create-again={hint} --overwrite"
)


def start(run: Run, facts: Facts, *, pauses: bool = True) -> Decision:
    """Claim an attempt, unless there is to be none, or something stands in the way.

    `pauses`: whether the last failure holds it back, too.
    """
    now, known = facts.now, facts.known
    if run.spec and run.spec.runID:
        return adopting.adopt(run, run.spec.runID, facts)
    if run.spec and run.spec.cancel:
        return withholding.cancel(run, facts)
    if run.spec and run.spec.suspend:
        return withholding.suspend(run, facts)
    provider = facts.wanted
    obstacle = refusal(run, provider) or provider.blocked or _no_model(run, provider)
    if obstacle is None and pauses and known.pausing(now):
        obstacle = known.failure
    if obstacle is None and not facts.admitted:
        words = (
            f"{provider.said} lets {provider.most_runs} runs go at once: waiting for one of them to end (a create"
            " without an answer counts for as long as its run might take)"
        )
        verdict = waiting(Reason.CONCURRENCY_LIMIT, words[:1].upper() + words[1:])
        return Decision(_say_pending(run, verdict, facts), Wait(), queued=True)
    if obstacle is None and provider.patience:  # it keeps its place: nobody else may be created either
        over = now + timedelta(seconds=provider.patience.retry_after or 0.0)
        return Decision(held_up(run, provider.patience, facts), Wait(over), queued=True)
    if obstacle is None and unread(run, facts):
        return Decision(run.status, Fetch())
    if obstacle is None:
        record = new_record(run, facts)
        return Decision(run.status, Claim(record, record.token))
    until = known.retry_at if known.pausing(now) else None
    return Decision(held_up(run, obstacle, facts), Wait(until))


def held_up(run: Run, failure: Failure, facts: Facts) -> OpenAIRunStatus:
    """What to show while nothing is claimed because of `failure`."""
    return _say_pending(run, not_created(failure), facts)


def in_line(run: Run, facts: Facts) -> OpenAIRunStatus:
    """What to show while a place in the line of the provider's requests is not due."""
    provider = facts.wanted
    words = f"{provider.said} takes {provider.requests_per_minute} requests a minute: waiting in line for one of them"
    return _say_pending(run, waiting(Reason.RATE_LIMITED, words[:1].upper() + words[1:]), facts)


def _say_pending(run: Run, verdict: Verdict, facts: Facts) -> OpenAIRunStatus:
    record = run.record
    if record and record.state == "claimed" and facts.known.ledger.unknown(record.token):
        verdict = replace(verdict, outcome_unknown=True)  # until the next claim it is the only word of that create
    # A run that is to be replaced is still shown until the next one is claimed.
    fields = {} if run.status.runID else {"phase": PENDING, "api": run.api}
    effective = st.awaiting(run.status, facts.wanted)
    return st.say(run.status, run, verdict, facts.now, effective=effective, **fields)


def references(run: Run) -> bool:
    """Whether the definition refers to what stands elsewhere."""
    spec = run.spec
    return spec is not None and (spec.inputFrom is not None or any(tool.authorizationFrom for tool in spec.tools or ()))


def unread(run: Run, facts: Facts) -> bool:
    """Whether what the definition refers to is still to be read."""
    return references(run) and facts.known.read_for(purpose(run), facts.now) is None


def purpose(run: Run) -> str:
    """What the contents are read for, when the run is created."""
    return f"create {run.digest}"


def start_beside_unknown(run: Run, record: Record, facts: Facts) -> Decision:
    """Start anew, though `record`'s attempt may have made a run: it goes into history."""
    # What failed last is the search for it. It has had its time, and to pause now would give it that time again.
    return start(replace(run, status=shown(run, record, facts)), facts, pauses=False)


def _no_model(run: Run, provider: Provider) -> Failure | None:
    if run.api == "Assistants" or (run.spec and run.spec.model) or provider.default_model:
        return None
    message = f"spec.model is not set, and {provider.said} has no default: write spec.model, such as gpt-5-mini"
    return Failure(reason=Reason.MODEL_NOT_SET, message=message)


def not_created(failure: Failure) -> Verdict:
    """What to say while there is no run because of `failure`."""
    if failure.reason in NEEDS_PERSON:
        return stalled(failure.reason, failure.message)
    if failure.reason in (Reason.BUSY, Reason.CREATING):
        return waiting(failure.reason, failure.message)
    return retrying(failure.reason, failure.message)


def release(run: Run, record: Record, facts: Facts) -> Decision:
    """Let go of an attempt that surely made no run, in the status too: it is not worth a place in history."""
    record = released(record)
    return Decision(shown(run, record, facts), Note(record))


def claimed(run: Run, record: Record, facts: Facts) -> Decision:
    """A claimed attempt: send it if nobody has, else find out what came of it."""
    now, known = facts.now, facts.known
    match known.ledger.get(record.token):
        case Claimed():
            if withholding.withheld(run) or ending.changed(record, facts.provider):
                return release(run, record, facts)
            if not (run.record_annotated and run.has_finalizer):
                return Decision(run.status, Note(record, hold=True))
            verdict = (
                not_created(known.failure)
                if known.failure
                else waiting(Reason.CREATING, f"Creating a run at {record.address}")
            )
            status = st.say(shown(run, record, facts), run, verdict, now, phase=PENDING)
            if not unread(run, facts):
                return Decision(status, Create(record))
            return Decision(status, Wait(known.retry_at) if known.pausing(now) else Fetch())
        case Answered(observation):
            return Decision(run.status, Note(created(record, observation, now), hold=not run.has_finalizer))
        case Failed(failure) if failure.outcome is Outcome.NOT_CREATED:
            return _not_created(run, record, failure, facts)
        case _:
            return _unknown(run, record, facts)


def _not_created(run: Run, record: Record, failure: Failure, facts: Facts) -> Decision:
    """Nothing was created: say why, and let the claim go, so that a restart does not take it for unknown."""
    if failure.reason is Reason.INVALID_REQUEST:
        record = record.model_copy(update={"state": "refused"})
        verdict, phase = ended(failure.reason, failure.message), FAILED
    else:
        record = released(record)
        verdict, phase = not_created(failure), PENDING
    return Decision(st.say(shown(run, record, facts), run, verdict, facts.now, phase=phase), Note(record))


def refused(run: Run, record: Record, facts: Facts) -> Decision:
    """A definition that OpenAI refused: over, until it is changed."""
    if run.spec and run.spec.runID:
        return adopting.adopt(run, run.spec.runID, facts)
    status = shown(run, record, facts)
    if st.says_finished(status):
        status = st.stamp(status, run, facts.now)
    else:  # it was lost, or another definition had the word meanwhile
        verdict = ended(Reason.INVALID_REQUEST, "OpenAI refused this definition: change it, or annotate create-again")
        status = st.say(status, run, verdict, facts.now, phase=FAILED)
    if not run.record_annotated:
        return Decision(status, Note(record))
    return Decision(status, Wait())


def garbled(run: Run, facts: Facts) -> Decision:
    """The record on the object cannot be read, so there may be a run: it is not for us to make a second one."""
    message = (
        f"The annotation {RECORD_ANNOTATION} cannot be read, so a run may exist at OpenAI. Nothing is created. To go"
        f" on, restore it, or remove it to have a run created: kubectl annotate -n {run.namespace} openairun {run.name}"
        f" {RECORD_ANNOTATION}-"
    )
    verdict = stalled(Reason.CREATE_OUTCOME_UNKNOWN, message, outcome_unknown=True)
    return Decision(st.say(run.status, run, verdict, facts.now, phase=PENDING), Wait())


def _unknown(run: Run, record: Record, facts: Facts) -> Decision:
    """The create may have been sent and nobody knows what came of it."""
    now = facts.now
    if run.spec and run.spec.runID:
        return adopting.adopt(run, run.spec.runID, facts, record)
    if record.api in facts.policy.searchable:
        return _search(run, record, facts)
    history = run.status.history or []
    tried = bool(history) and history[0].reason == Reason.CREATE_OUTCOME_UNKNOWN  # once, not without end
    if run.spec and run.spec.onUnknownCreate == "CreateAgain" and not tried and not withholding.withheld(run):
        return start_beside_unknown(run, record, facts)
    last = facts.known.ledger.get(record.token)
    message = UNKNOWN_CREATE.format(
        seen=f" ({text.brief(last.failure.message, _SEEN)})" if isinstance(last, Failed) else "",
        sent=record.submittedAt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        namespace=run.namespace,
        name=run.name,
        hint=now.strftime("%Y%m%d-1"),
    )
    before = run.status.condition("CreateOutcomeUnknown")
    mine = before is not None and before.reason == Reason.CREATE_OUTCOME_UNKNOWN  # else another's words stand there
    if before and mine and run.status.record and run.status.record.token == record.token:
        message = before.message  # its hint bears the day it was first given
    verdict = stalled(Reason.CREATE_OUTCOME_UNKNOWN, message, outcome_unknown=True)
    over = queueing.over(run, record)  # others wait for its room
    until = over if over and now < over else None
    return Decision(st.say(shown(run, record, facts), run, verdict, now, phase=PENDING), Wait(until))


def _search(run: Run, record: Record, facts: Facts) -> Decision:
    known = facts.known
    if known.found:
        return Decision(run.status, Note(created(record, known.found, facts.now), hold=not run.has_finalizer))
    step = ending.find(record, facts)
    if isinstance(step, ending.Over):
        return release(run, record, facts)
    message = f"The create got no answer: searching thread {record.thread} for the run"
    if known.failure and known.failure.reason in NEEDS_PERSON:
        verdict = stalled(known.failure.reason, known.failure.message)
    elif known.failure:
        verdict = retrying(known.failure.reason, f"{message}. {known.failure.message}")
    else:
        verdict = waiting(Reason.FINDING, message)
    return Decision(st.say(shown(run, record, facts), run, verdict, facts.now, phase=PENDING), step)
