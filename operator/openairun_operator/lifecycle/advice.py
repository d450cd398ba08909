"""What a user should know though nothing is wrong: fields that have no effect, and a combination that costs money."""

from typing import Final

from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle.conditions import Extra
from openairun_operator.lifecycle.run import Run

_ENDING: Final = (Reason.REPLACING, Reason.CANCELLING, Reason.DEADLINE_EXCEEDED)
"""Reasons under which a run is being ended already."""


def of(run: Run, status: OpenAIRunStatus, reason: Reason | None = None) -> Extra | None:
    """The condition Advisory, if there is anything to say; `reason` is what Ready bears beside it."""
    spec = run.spec
    if spec is None:
        return None
    said: list[tuple[Reason, str]] = []
    exists = status.runID is not None
    if spec.streamForTool is not None:
        words = "streamForTool has no effect: streaming for tools exists only in the Chat Completions API"
        said.append((Reason.NO_EFFECT, words))
    goes = exists and status.finishedAt is None and reason not in _ENDING
    if spec.suspend and goes and not spec.cancel:
        words = f"suspend has no effect on run {status.runID}, which goes: cancel ends it"
        said.append((Reason.NO_EFFECT, words))
    if spec.runID and exists and spec.runID not in (status.runID, *(status.responseIDs or ())):
        said.append((Reason.NO_EFFECT, f"runID {spec.runID} has no effect: the resource has run {status.runID}"))
    if spec.runID and run.create_again is not None:
        said.append((Reason.NO_EFFECT, "create-again has no effect while spec.runID is set"))
    if spec.ttlAfterFinished and run.applied_by:
        words = (
            f"ttlAfterFinished deletes what {run.applied_by} then applies again, and so runs it again: remove it, and"
            f" let {run.applied_by} prune instead"
        )
        said.append((Reason.TTL_UNDER_GITOPS, words))
    if not said:
        return None
    return Extra("Advisory", "True", said[0][0], "; ".join(words for _, words in said))
