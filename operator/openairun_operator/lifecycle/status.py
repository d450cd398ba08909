"""Building `status`: from what it was, the record and what was observed. Terminal is final."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import (
    MAX_ALL_ARGUMENTS,
    MAX_ARGUMENTS,
    MAX_DETAILS,
    MAX_FILES,
    MAX_HISTORY,
    MAX_OUTPUT_BYTES,
    MAX_RESPONSE_IDS,
    MAX_STEPS,
    MAX_TOOL_CALLS,
    Effective,
    IncompleteDetails,
    LastError,
    OpenAIRunStatus,
    Output,
    PastRun,
    RequiredAction,
    Step,
    ToolCall,
)
from openairun_operator.lifecycle import advice, phase, text, turns
from openairun_operator.lifecycle.conditions import BESIDE, Extra, Verdict, beside, conditions, ended, going, succeeded
from openairun_operator.lifecycle.observation import RunObservation, SeenStep
from openairun_operator.lifecycle.provider import POLLING_INTERVAL, TIMEOUT, Provider
from openairun_operator.lifecycle.run import Run


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _time(seconds: float | None) -> datetime | None:
    """A time that a server gave. Some give milliseconds; what is no time at all is left out."""
    if seconds is None or not seconds > 0:
        return None
    try:
        return _second(datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC))
    except (OverflowError, OSError, ValueError):
        return None


def finished(status: OpenAIRunStatus) -> bool:
    """Whether the run that `status` speaks of is over for good."""
    return status.finishedAt is not None


def shows_end(status: OpenAIRunStatus, record: Record) -> bool:
    """Whether it speaks of the record's run, and that is over for good."""
    return finished(status) and status.record is not None and status.record.token == record.token


def tells_end(status: OpenAIRunStatus, record: Record) -> bool:
    """Whether it tells that the record's run is over, or did before that made way for another."""
    return shows_end(status, record) or any(past.token == record.token for past in status.history or ())


def says_finished(status: OpenAIRunStatus) -> bool:
    """Whether the conditions say so too: while another definition is held up, they speak of that one."""
    condition = status.condition("Finished")
    return finished(status) and condition is not None and condition.status == "True"


def stamp(status: OpenAIRunStatus, run: Run, now: datetime, *extras: Extra | None) -> OpenAIRunStatus:
    """`status`, unchanged in what it says of the run, for the object's generation; with what stands beside that."""
    said = [
        c.model_copy(update={"observedGeneration": run.generation}) for c in status.conditions if c.type not in BESIDE
    ]
    said += beside(_extras(run, status, extras), status.conditions, run.generation, _second(now))
    return status.model_copy(update={"observedGeneration": run.generation, "conditions": said})


def _extras(
    run: Run, status: OpenAIRunStatus, extras: Iterable[Extra | None], reason: Reason | None = None
) -> list[Extra]:
    return [extra for extra in (*extras, advice.of(run, status, reason)) if extra]


def archive(status: OpenAIRunStatus) -> OpenAIRunStatus:
    """A fresh status for the next run, with the last one in its history."""
    record = status.record
    history = list(status.history or [])
    if status.runID or record:
        ready = status.condition("Ready")
        reason = ready.reason if ready else None
        if record and record.state == "claimed":
            reason = Reason.CREATE_OUTCOME_UNKNOWN
        history.insert(
            0,
            PastRun(
                runID=status.runID,
                lastResponseID=record.current if record else None,
                api=status.api,
                phase=status.phase,
                reason=reason,
                token=record.token if record else None,
                submittedAt=_second(record.submittedAt) if record else None,
                finishedAt=status.finishedAt,
                usage=status.usage,
            ),
        )
    return OpenAIRunStatus(history=history[:MAX_HISTORY] or None, conditions=status.conditions)


def for_attempt(status: OpenAIRunStatus, record: Record) -> OpenAIRunStatus:
    """`status` as far as it speaks of `record`'s attempt; what it says of an earlier one goes into history.

    An attempt that surely made no run (`released`) leaves nothing worth keeping.
    """
    last = status.record
    if last is not None and last.token != record.token:
        if status.runID is None and last.state == "released":
            return OpenAIRunStatus(history=status.history, conditions=status.conditions)
        return archive(status)
    return status


def timeout_of(spec: OpenAIRunSpec | None, record: Record | None) -> timedelta:
    """How long the run may take: as the spec says now, else as its provider's default was at its creation."""
    if spec and spec.limit:
        return spec.limit
    return durations.parse(record.timeout) if record and record.timeout else TIMEOUT


def interval_of(spec: OpenAIRunSpec | None, record: Record | None) -> timedelta:
    """How long between two looks, likewise."""
    text_ = (spec.pollingInterval if spec else None) or (record.pollingInterval if record else None)
    return durations.parse(text_) if text_ else POLLING_INTERVAL


def say(
    status: OpenAIRunStatus, run: Run, verdict: Verdict, now: datetime, *extras: Extra | None, **fields: Any
) -> OpenAIRunStatus:
    """`status` with `verdict` in its conditions, `fields` set, and stamped with the generation."""
    if verdict.finished and status.finishedAt is None:
        fields.setdefault("finishedAt", _second(now))
    status = status.model_copy(update=fields | {"observedGeneration": run.generation})
    beside_it = _extras(run, status, extras, verdict.reason)
    said = conditions(verdict, status.conditions, run.generation, _second(now), beside_it)
    return status.model_copy(update={"conditions": said})


def awaiting(status: OpenAIRunStatus, provider: Provider) -> Effective:
    """The values that hold, with the provider that a run which is to be created waits for."""
    return (status.effective or Effective()).model_copy(update={"provider": provider.name})


def identify(status: OpenAIRunStatus, record: Record, timeout: timedelta, interval: timedelta) -> OpenAIRunStatus:
    """`status` with what the record alone tells. What held for a run that is over stays."""
    return status.model_copy(
        update={
            "record": record,
            "api": record.api,
            "runID": record.id,
            "threadID": record.thread,
            "effective": status.effective.model_copy(update={"provider": record.provider})
            if finished(status) and status.effective
            else Effective(
                timeout=durations.show(timeout), pollingInterval=durations.show(interval), provider=record.provider
            ),
        }
    )


def _output(answer: str | None) -> Output | None:
    if answer is None:
        return None
    answer = text.clean(answer)
    shown = text.cut_bytes(answer, MAX_OUTPUT_BYTES)
    return Output(text=shown, bytes=len(answer.encode()), truncated=len(shown) < len(answer))


def _stamps(status: OpenAIRunStatus, seen: RunObservation, phase_: str, now: datetime) -> dict[str, Any]:
    """Timestamps: OpenAI's where it gives them, else the moment first seen. Once set they do not move."""
    moment = _second(now)
    wanted = {
        "createdAt": _time(seen.created_at),
        "startedAt": _time(seen.started_at) or (moment if phase_ == phase.IN_PROGRESS else None),
        "completedAt": _time(seen.completed_at) or (moment if phase_ == phase.COMPLETED else None),
        "failedAt": _time(seen.failed_at) or (moment if phase_ == phase.FAILED else None),
        "cancelledAt": _time(seen.cancelled_at) or (moment if phase_ == phase.CANCELLED else None),
        "expiresAt": _time(seen.expires_at),
    }
    return {name: value for name, value in wanted.items() if value and getattr(status, name) is None}


def observed(status: OpenAIRunStatus, seen: RunObservation, now: datetime) -> OpenAIRunStatus:
    """`status` with all that `seen` tells of the run. A finished run's status stays as it is."""
    if finished(status):
        return status
    phase_ = phase.of(seen.status)
    if phase_ == phase.QUEUED and status.startedAt is not None and status.phase:
        # No phase goes backwards: it is a late answer, or the run goes on with its tool outputs.
        phase_ = phase.IN_PROGRESS if status.phase == phase.REQUIRES_ACTION else status.phase
    record = status.record
    spent = record.spent if record else None
    return status.model_copy(
        update={
            "phase": phase_,
            "object": _said(seen.object, status.object),
            "model": _said(seen.model, status.model),
            "threadID": seen.thread or status.threadID,
            "conversationID": seen.conversation or status.conversationID,
            **_responses(status, seen),
            "lastError": LastError(code=text.message(seen.error[0]), message=text.message(seen.error[1]))
            if seen.error
            else None,
            "incompleteDetails": IncompleteDetails(reason=text.message(seen.incomplete_reason))
            if seen.incomplete_reason
            else None,
            "requiredAction": _required(seen) if seen.calls and phase_ == phase.REQUIRES_ACTION else None,
            "fileIDs": _files(status, seen),
            "usage": turns.add(spent, seen.usage) if seen.usage else status.usage,
            "output": _output(seen.text) or status.output,
        }
        | _steps(status, seen)
        | _stamps(status, seen, phase_, now)
    )


def _said(seen: str | None, shown: str | None) -> str | None:
    """What is to be shown of what was `seen`, which mostly is what is `shown` already."""
    return shown if not seen or seen == shown else text.message(seen)


def _responses(status: OpenAIRunStatus, seen: RunObservation) -> dict[str, Any]:
    """The responses that make up the run; there are none over the Assistants API."""
    if (status.api or "Responses") != "Responses":
        return {"responseIDs": None, "responseCount": None}
    record, ids = status.record, list(status.responseIDs or ())
    count = (record.responses if record else None) or 1
    if not ids and count > 1 and status.runID:
        ids = [status.runID]  # the status was lost, and the ids between with it
    ids += [] if seen.id in ids else [seen.id]
    return {"responseIDs": ids[-MAX_RESPONSE_IDS:], "responseCount": count}


def _required(seen: RunObservation) -> RequiredAction:
    calls, room = [], MAX_ALL_ARGUMENTS
    for call in seen.calls[:MAX_TOOL_CALLS]:
        arguments = text.clean(call.arguments)
        shown = arguments[: min(MAX_ARGUMENTS, room)]
        room -= len(shown)
        calls.append(
            ToolCall(
                id=text.clean(call.id),
                type=call.type,
                name=text.message(call.name)[:256],
                arguments=shown,
                truncated=True if len(shown) < len(arguments) else None,
                serverLabel=text.message(call.server)[:256] if call.server else None,
            )
        )
    return RequiredAction(toolCalls=calls, total=len(seen.calls) if len(seen.calls) > MAX_TOOL_CALLS else None)


def _files(status: OpenAIRunStatus, seen: RunObservation) -> list[str] | None:
    known = list(status.fileIDs or ())
    known += [name for name in (text.message(id_) for id_ in seen.files) if name not in known]
    return list(dict.fromkeys(known))[:MAX_FILES] or None


def _steps(status: OpenAIRunStatus, seen: RunObservation) -> dict[str, Any]:
    """The steps so far. A run of several responses has the steps of all of them."""
    if seen.steps is None:
        return {}
    old = {step.id: step for step in status.steps or ()}
    new = {step.id: _step(step) for step in seen.steps}
    added = sum(1 for id_ in new if id_ not in old)
    if status.api == "Assistants":
        total = max(seen.step_count, len(seen.steps))
    else:
        total = (status.stepCount or 0) + max(added, seen.step_count - (len(new) - added))
    return {"steps": list((old | new).values())[-MAX_STEPS:] or None, "stepCount": total or None}


def _step(step: SeenStep) -> Step:
    return Step(
        id=text.message(step.id),
        object=text.message(step.object) if step.object else None,
        type=text.message(step.type),
        status=text.message(step.status) if step.status else None,
        createdAt=_time(step.created_at),
        details=text.redact(text.clean(step.details))[:MAX_DETAILS] if step.details else None,
    )


def verdict_of(status: OpenAIRunStatus, *, wait: bool, lacking: str | None = None) -> Verdict:
    """What is to be said of a run that was observed, by its phase; `lacking` is what is wrong with spec.toolOutputs."""
    run_id = status.runID
    match status.phase:
        case phase.COMPLETED:
            tokens = f", {status.usage.totalTokens} tokens" if status.usage and status.usage.totalTokens else ""
            return succeeded(f"Run {run_id} completed{tokens}")
        case phase.FAILED:
            why = f": {status.lastError.code}: {status.lastError.message}" if status.lastError else ""
            return ended(Reason.FAILED, text.message(f"Run {run_id} failed{why}"))
        case phase.INCOMPLETE:
            why = f": {status.incompleteDetails.reason}" if status.incompleteDetails else ""
            return ended(Reason.INCOMPLETE, f"Run {run_id} is incomplete{why}")
        case phase.EXPIRED:
            return ended(Reason.EXPIRED, f"Run {run_id} expired at OpenAI")
        case phase.CANCELLED:
            return ended(Reason.CANCELLED, f"Run {run_id} was cancelled")
        case phase.REQUIRES_ACTION:
            calls = status.requiredAction.toolCalls if status.requiredAction else []
            names = ", ".join(dict.fromkeys(call.name for call in calls))
            approvals = [call.type == "mcp_approval" for call in calls]
            what = "leave to make tool calls" if approvals and all(approvals) else "the results of tool calls"
            how = "Answer them in spec.toolOutputs" + (", MCP approvals by approve" if any(approvals) else "")
            return going(
                Reason.ACTION_REQUIRED,
                text.message(
                    f"Run {run_id} waits for {what}: {names or 'see status.requiredAction'}. {lacking or how}"
                ),
                wait=wait,
                action_required=True,
            )
        case phase.QUEUED:
            return going(Reason.QUEUED, f"Run {run_id} is queued at OpenAI", wait=wait)
        case phase.CANCELLING:
            return going(Reason.CANCELLING, f"Run {run_id} is being cancelled", wait=wait)
        case other:
            return going(
                Reason.RUNNING, f"Run {run_id} is {'running' if other == phase.IN_PROGRESS else other}", wait=wait
            )


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) from `before` to `after`, with explicit nulls for what went. Empty: no change."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            patch[key] = difference(old, value)
        else:
            patch[key] = value
    return patch
