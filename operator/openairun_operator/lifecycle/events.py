"""Which Kubernetes events a change of status is worth: transitions only, since events are not aggregated."""

from dataclasses import dataclass
from typing import Literal

from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import Condition, OpenAIRunStatus, PastRun
from openairun_operator.lifecycle import phase


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be shown with the resource."""

    type: Literal["Normal", "Warning"]
    reason: Reason
    message: str


def _became_true(type_: str, before: OpenAIRunStatus, after: OpenAIRunStatus) -> bool:
    old, new = before.condition(type_), after.condition(type_)
    return bool(new and new.status == "True" and not (old and old.status == "True"))


def _said(status: OpenAIRunStatus, reason: Reason) -> bool:
    ready = status.condition("Ready")
    return ready is not None and ready.reason == reason


def _ended_well(after: OpenAIRunStatus, ready: Condition, *, cancel: bool) -> bool:
    """Whether a run ended as its user wants: it completed, or was cancelled by `cancel`."""
    if ready.reason != Reason.CANCELLED:
        return ready.status == "True"
    # Where OpenAI does not say that it is cancelled, the operator gave up a run that only waited.
    return cancel or after.phase != phase.CANCELLED


def made_way(before: OpenAIRunStatus, after: OpenAIRunStatus) -> PastRun | None:
    """The run that ended in this step, and went into history at once since another one follows."""
    past = after.history[0] if after.history else None
    last = before.record
    if past is None or last is None or past.token != last.token or before.finishedAt:
        return None
    return past if past.finishedAt else None


def events(before: OpenAIRunStatus, after: OpenAIRunStatus, *, cancel: bool) -> list[Event]:
    """The events of the step from `before` to `after`; `cancel` is `spec.cancel`."""
    out: list[Event] = []
    ready = after.condition("Ready")
    if ready is None:
        return out
    if after.runID and after.runID != before.runID and after.record and after.record.adopted:
        out.append(Event("Normal", Reason.ADOPTED, f"Run {after.runID} was taken up over the {after.api} API"))
    elif after.runID and after.runID != before.runID:
        out.append(Event("Normal", Reason.CREATED, f"Run {after.runID} was created over the {after.api} API"))
    if past := made_way(before, after):
        well = past.reason in (Reason.CANCELLED, Reason.COMPLETED)
        out.append(Event("Normal" if well else "Warning", Reason(past.reason or ready.reason), ready.message))
    elif after.finishedAt and not before.finishedAt:
        well = _ended_well(after, ready, cancel=cancel)
        out.append(Event("Normal" if well else "Warning", Reason(ready.reason), ready.message))
    elif _became_true("Stalled", before, after):
        out.append(Event("Warning", Reason(ready.reason), ready.message))
    elif ready.reason == Reason.TOOL_OUTPUTS_REFUSED and not _said(before, Reason.TOOL_OUTPUTS_REFUSED):
        out.append(Event("Warning", Reason.TOOL_OUTPUTS_REFUSED, ready.message))
    elif _became_true("ActionRequired", before, after):
        out.append(Event("Normal", Reason(ready.reason), ready.message))
    else:
        synced, was = after.condition("Synced"), before.condition("Synced")
        if synced and synced.status == "False" and (was is None or was.status == "True"):
            out.append(Event("Warning", Reason(synced.reason), synced.message))
    return out + _beside(before, after)


def _beside(before: OpenAIRunStatus, after: OpenAIRunStatus) -> list[Event]:
    """What the conditions that stand beside the run's own are worth."""
    out: list[Event] = []
    advice, stored = after.condition("Advisory"), after.condition("OutputStored")
    if advice and _became_true("Advisory", before, after):
        type_: Literal["Normal", "Warning"] = "Warning" if advice.reason == Reason.TTL_UNDER_GITOPS else "Normal"
        out.append(Event(type_, Reason(advice.reason), advice.message))
    was = before.condition("OutputStored")
    if stored and (was is None or was.status != stored.status):
        out.append(Event("Normal" if stored.status == "True" else "Warning", Reason(stored.reason), stored.message))
    return out
