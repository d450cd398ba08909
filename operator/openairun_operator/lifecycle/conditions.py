"""The conditions of a run: the contract with users, kstatus, Argo CD and `kubectl wait`.

Each `Verdict` is a row of one table; what stands in a row, and the order of the list, is what tools judge by:
the first of Reconciling=True and Stalled=True decides for kstatus, so the two are never both True.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import MAX_CONDITION_MESSAGE, Condition
from openairun_operator.lifecycle import text

Tri = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be said of a run, in the terms of its conditions."""

    ready: Tri
    reconciling: bool
    stalled: bool
    finished: bool
    succeeded: Tri
    reason: Reason
    message: str
    synced: bool = True
    action_required: bool = False
    outcome_unknown: bool = False
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Extra:
    """A condition that stands beside the verdict: it says nothing of how the run goes."""

    type: str
    status: Tri
    reason: Reason
    message: str


def waiting(reason: Reason, message: str) -> Verdict:
    """No run yet; it goes on by itself."""
    return Verdict(
        ready="Unknown",
        reconciling=True,
        stalled=False,
        finished=False,
        succeeded="Unknown",
        reason=reason,
        message=message,
    )


def suspended(message: str) -> Verdict:
    """No run yet, and none until a person says so."""
    return replace(waiting(Reason.SUSPENDED, message), suspended=True)


def going(reason: Reason, message: str, *, wait: bool, action_required: bool = False) -> Verdict:
    """The run exists and is not finished. `wait` is `spec.waitForCompletion`."""
    return Verdict(
        ready="Unknown" if wait else "True",
        reconciling=wait or action_required,
        stalled=False,
        finished=False,
        succeeded="Unknown",
        reason=reason,
        message=message,
        action_required=action_required,
    )


def retrying(reason: Reason, message: str, *, wait: bool = True) -> Verdict:
    """OpenAI cannot be asked for the moment. A run that nobody waits for (`wait` False) stays ready."""
    return Verdict(
        ready="False" if wait else "True",
        reconciling=wait,
        stalled=False,
        finished=False,
        succeeded="Unknown",
        reason=reason,
        message=message,
        synced=False,
    )


def stalled(reason: Reason, message: str, *, outcome_unknown: bool = False) -> Verdict:
    """There is no run, and a person must act."""
    return Verdict(
        ready="False",
        reconciling=False,
        stalled=True,
        finished=False,
        succeeded="Unknown",
        reason=reason,
        message=message,
        synced=False,
        outcome_unknown=outcome_unknown,
    )


def succeeded(message: str) -> Verdict:
    """The run completed."""
    return Verdict(
        ready="True",
        reconciling=False,
        stalled=False,
        finished=True,
        succeeded="True",
        reason=Reason.COMPLETED,
        message=message,
    )


def ended(reason: Reason, message: str) -> Verdict:
    """It is over, and it did not complete."""
    return Verdict(
        ready="False",
        reconciling=False,
        stalled=True,
        finished=True,
        succeeded="False",
        reason=reason,
        message=message,
    )


def conditions(
    verdict: Verdict, before: Sequence[Condition], generation: int, now: datetime, extras: Sequence[Extra] = ()
) -> list[Condition]:
    """The list that says `verdict`, with `extras` behind. lastTransitionTime moves only where the status does."""

    def make(type_: str, status: Tri, reason: Reason = verdict.reason, message: str = "") -> Condition:
        return condition(before, type_, status, reason, message, generation, now)

    def truth(value: bool) -> Tri:
        return "True" if value else "False"

    words = verdict.message
    out = [
        make("Ready", verdict.ready, message=words),
        make("Reconciling", truth(verdict.reconciling)),
        make("Stalled", truth(verdict.stalled), message=words if verdict.stalled else ""),
        make("Finished", truth(verdict.finished)),
        make("Succeeded", verdict.succeeded),
        make("Synced", "True", Reason.IN_SYNC) if verdict.synced else make("Synced", "False", message=words),
    ]
    if verdict.action_required:
        out.append(make("ActionRequired", "True", message=words))
    if verdict.outcome_unknown:
        out.append(make("CreateOutcomeUnknown", "True", message=words))
    if verdict.suspended:
        out.append(make("Suspended", "True", message=words))
    return out + beside(extras, before, generation, now)


BESIDE: Final = ("OutputStored", "Advisory")
"""The types of conditions that stand beside the verdict."""


def beside(extras: Sequence[Extra], before: Sequence[Condition], generation: int, now: datetime) -> list[Condition]:
    """The conditions that stand beside the verdict."""
    return [
        condition(before, extra.type, extra.status, extra.reason, extra.message, generation, now) for extra in extras
    ]


def condition(
    before: Sequence[Condition], type_: str, status: Tri, reason: Reason, message: str, generation: int, now: datetime
) -> Condition:
    last = next((condition for condition in before if condition.type == type_), None)
    message = text.cut(message, MAX_CONDITION_MESSAGE)  # the last resort: what comes from outside is bounded there
    if last and (last.status, last.reason, last.message, last.observedGeneration) == (
        status,
        reason,
        message,
        generation,
    ):
        return last  # as it is at most looks
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        lastTransitionTime=last.lastTransitionTime if last and last.status == status else now,
        observedGeneration=generation,
    )
