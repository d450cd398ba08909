"""Answering tool calls: when all are answered in `spec.toolOutputs`, the outputs are submitted, once."""

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record, Turn
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.api.tools import ToolOutput
from openairun_operator.lifecycle import creating, ending, phase, text, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Claim, Decision, Fetch, Note, Observe, Submit, Wait
from openairun_operator.lifecycle.conditions import Verdict, going, retrying, stalled
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import Failure, Outcome
from openairun_operator.lifecycle.ledger import Answered, Claimed, Failed
from openairun_operator.lifecycle.observation import Call, Contents, RunObservation, ToolResult
from openairun_operator.lifecycle.run import Run

_UNKNOWN = (
    "The tool outputs were sent at {sent} and got no answer{seen}, so a response may go at OpenAI; this API cannot be"
    " searched for it. They are not sent again. To go on, change the definition, or run all of it once more with:"
    " kubectl annotate -n {namespace} openairun {name} openairun.dev/create-again={hint} --overwrite"
)


def outputs(run: Run) -> dict[str, ToolOutput]:
    """The answers in the spec, by the id of the call."""
    return {output.toolCallID: output for output in (run.spec.toolOutputs if run.spec else None) or ()}


def fits(call: Call, output: ToolOutput) -> bool:
    """Whether the answer is of the kind that the call asks for."""
    return (output.approve is not None) == (call.type == "mcp_approval")


def needed(run: Run, calls: tuple[Call, ...]) -> list[ToolOutput]:
    """The answers to `calls` that stand elsewhere."""
    given = outputs(run)
    return [given[call.id] for call in calls if call.id in given and given[call.id].outputFrom]


def results(run: Run, calls: tuple[Call, ...], contents: Contents | None) -> tuple[ToolResult, ...]:
    """What to submit. All calls must be answered, and what stands elsewhere be read."""
    given, elsewhere = outputs(run), (contents.results if contents else None) or {}
    return tuple(
        ToolResult(
            call.id,
            call.type,
            output=elsewhere[call.id] if given[call.id].outputFrom else given[call.id].output or "",
            approve=given[call.id].approve,
        )
        for call in calls
    )


def digest(run: Run, calls: tuple[Call, ...]) -> str:
    """The digest of the answers to `calls`: when it changes, refused outputs may be sent again."""
    given = outputs(run)
    said = {call.id: given[call.id].model_dump(exclude_none=True) for call in calls if call.id in given}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def asked(run: Run, record: Record, seen: RunObservation | None) -> str | None:
    """What is to be said of the answers that are given: which lack, and which belong to no call. None: all is well."""
    if seen is None or not seen.calls:
        return None
    given = outputs(run)
    lacking = [
        f"{call.name} ({call.id}{', by approve' if call.type == 'mcp_approval' else ''})"
        for call in seen.calls
        if call.id not in given
    ]
    wrong = [
        f"{call.id} needs {'approve' if call.type == 'mcp_approval' else 'output or outputFrom'}"
        for call in seen.calls
        if call.id in given and not fits(call, given[call.id])
    ]
    mine = {call.id for call in seen.calls} | set(record.answered or ())
    strange = [id_ for id_ in given if id_ not in mine]
    parts = [f"spec.toolOutputs lacks {', '.join(lacking)}" if lacking else "", *wrong]
    parts.append(f"of no call of this run: {', '.join(strange)}" if strange else "")
    return "; ".join(part for part in parts if part) or None


def step(run: Run, record: Record, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts) -> Decision | None:
    """The next step towards submitting. None: there is nothing to submit now."""
    if turn := turns.pending(record):
        return _claimed(run, record, turn, status, deadline, facts)
    seen, known = ending.seen(record, facts.known), facts.known
    if status.phase != phase.REQUIRES_ACTION or seen is None or not seen.calls:
        return None
    given = outputs(run)
    if not all(call.id in given and fits(call, given[call.id]) for call in seen.calls):
        return None
    due = not seen.at_rest and known.look_at is not None and facts.now >= known.look_at
    if due and not known.pausing(facts.now) and facts.provider.blocked is None:
        return Decision(run.status, Observe(record))  # it may end meanwhile
    ids, mark = [call.id for call in seen.calls], digest(run, seen.calls)
    last = record.turn
    if last and last.state == "refused" and (last.digest, last.calls) == (mark, ids):
        message = f"OpenAI refused the tool outputs for {', '.join(ids)}: change spec.toolOutputs"
        before = status.condition("ActionRequired")
        if before and before.reason == Reason.TOOL_OUTPUTS_REFUSED:
            message = before.message  # it bears OpenAI's own words
        return _wait(run, status, _refused(message, run), deadline, facts)
    if obstacle := facts.obstacle(facts.provider):
        return _wait(run, status, held_up(run, obstacle), deadline, facts, facts.known.retry_at)
    if _unread(run, seen.calls, facts):
        return Decision(run.status, Fetch(results=True))
    again = last.again if last and last.calls == ids else None
    made = Turn(
        token=facts.new_token,
        state="claimed",
        digest=mark,
        calls=ids,
        submittedAt=_moment(record, facts),
        again=again,
    )
    return Decision(run.status, Claim(record.model_copy(update={"turn": made}), made.token))


def _moment(record: Record, facts: Facts) -> datetime:
    """Now; but later than the turn before, whatever the clock of the operator before said."""
    return max(facts.now, record.turn.submittedAt + timedelta(microseconds=1)) if record.turn else facts.now


def _unread(run: Run, calls: tuple[Call, ...], facts: Facts) -> bool:
    if not creating.references(run) and not needed(run, calls):
        return False
    return facts.known.read_for(purpose(run, calls), facts.now) is None


def purpose(run: Run, calls: tuple[Call, ...]) -> str:
    """What the contents are read for, when the answers to `calls` are submitted."""
    return f"submit {run.digest} {digest(run, calls)}"


def _refused(message: str, run: Run) -> Verdict:
    return going(Reason.TOOL_OUTPUTS_REFUSED, text.message(message), wait=run.waits, action_required=True)


def _wait(
    run: Run, status: OpenAIRunStatus, verdict: Verdict, deadline: datetime | None, facts: Facts, *more: datetime | None
) -> Decision:
    record = run.record
    seen = ending.seen(record, facts.known) if record else None
    look = facts.known.look_at if seen and not seen.at_rest else None
    moments = [moment for moment in (deadline, look, *more) if moment and moment > facts.now]
    return Decision(st.say(status, run, verdict, facts.now), Wait(min(moments, default=None)))


def held_up(run: Run, failure: Failure) -> Verdict:
    """What to say while the tool outputs cannot be sent because of `failure`."""
    words = f"The tool outputs cannot be sent. {failure.message}"
    return replace(retrying(failure.reason, words, wait=run.waits), action_required=True)


def _claimed(
    run: Run, record: Record, turn: Turn, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts
) -> Decision | None:
    match turns.entry(turn, facts):
        case Claimed():
            return _send(run, record, turn, status, deadline, facts)
        case Answered(observation):
            return Decision(run.status, Note(turns.taken(record, observation, ending.seen(record, facts.known))))
        case Failed(failure) if failure.outcome is Outcome.NOT_CREATED:
            if failure.reason is Reason.INVALID_REQUEST:
                said = st.say(status, run, _refused(failure.message, run), facts.now)
                return Decision(said, Note(turns.became(record, "refused")))
            return Decision(run.status, Note(turns.became(record, "released")))
    if record.api in facts.policy.searchable:
        return _look_whether_taken(run, record, turn, facts)
    return _unknown(run, record, turn, status, deadline, facts)


def _send(
    run: Run, record: Record, turn: Turn, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts
) -> Decision | None:
    seen = ending.seen(record, facts.known)
    if seen is None:
        return None  # after a restart: the next look tells what it asks for
    still = [call.id for call in seen.calls] == turn.calls
    if not still or digest(run, seen.calls) != turn.digest:
        return Decision(run.status, Note(turns.became(record, "released")))  # the answers changed meanwhile
    if not (run.record_annotated and run.has_finalizer):
        return Decision(run.status, Note(record, hold=True))
    if _unread(run, seen.calls, facts):
        if facts.known.failure and facts.known.pausing(facts.now):
            return _wait(run, status, held_up(run, facts.known.failure), deadline, facts, facts.known.retry_at)
        return Decision(run.status, Fetch(results=True))
    words = f"Run {record.id}: submitting the outputs of {len(turn.calls)} tool calls"
    verdict = going(Reason.SUBMITTING, words, wait=run.waits, action_required=True)
    return Decision(st.say(status, run, verdict, facts.now), Submit(record))


def _look_whether_taken(run: Run, record: Record, turn: Turn, facts: Facts) -> Decision | None:
    """The submission got no answer; a run that still asks for the same calls, long after, has not got it.

    Not long after the claim, which may be another clock's and was written before anything was sent: like a create
    that is searched for, it has `create_settles` from the first look that did not show it.
    """
    known, seen = facts.known, ending.seen(record, facts.known)
    if seen is None or known.turn != turn.token:
        return None  # the next look tells
    if not turns.asked_for(turn, seen):
        return Decision(run.status, Note(turns.became(record, "taken")))
    if known.untaken_first is None or known.untaken_last is None:
        return None
    if known.untaken_last >= known.untaken_first + facts.provider.create_settles:
        return Decision(run.status, Note(turns.became(record, "released")))
    return None


def _unknown(
    run: Run, record: Record, turn: Turn, status: OpenAIRunStatus, deadline: datetime | None, facts: Facts
) -> Decision:
    again = run.spec is not None and run.spec.onUnknownCreate == "CreateAgain"
    if again and not turn.again:  # once, not without end
        update = {"token": facts.new_token, "submittedAt": _moment(record, facts), "again": True}
        made = turn.model_copy(update=update)
        return Decision(run.status, Claim(record.model_copy(update={"turn": made}), made.token))
    last = turns.entry(turn, facts)
    message = _UNKNOWN.format(
        sent=turn.submittedAt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seen=f" ({text.brief(last.failure.message, 300)})" if isinstance(last, Failed) else "",
        namespace=run.namespace,
        name=run.name,
        hint=facts.now.strftime("%Y%m%d-1"),
    )
    before = status.condition("CreateOutcomeUnknown")
    if before and before.reason == Reason.CREATE_OUTCOME_UNKNOWN:  # else another's words stand there
        message = before.message  # its hint bears the day it was first given
    verdict = stalled(Reason.CREATE_OUTCOME_UNKNOWN, message, outcome_unknown=True)
    return _wait(run, status, verdict, deadline, facts)


def unanswered(seen: RunObservation, record: Record) -> RunObservation:
    """`seen` as it is without the calls that were answered: a server may show them for a while longer."""
    answered = set(record.answered or ())
    if seen.at_rest or not seen.calls or not {call.id for call in seen.calls} <= answered:
        return seen
    return replace(seen, status="in_progress", calls=())
