"""`spec.outputTo`: the whole answer goes into a ConfigMap before the run is called completed, or as soon as it can."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.rules import too_deep
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import ending, phase, text, turns
from openairun_operator.lifecycle.actions import Action, Observe, Store
from openairun_operator.lifecycle.conditions import Extra
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.run import Run

TEXT_KEY: Final = "output"
JSON_KEY: Final = "output.json"
MAX_BYTES: Final = 1024 * 1024
"""Bytes of all values of a ConfigMap; its keys do not count (MaxSecretSize in k8s.io/kubernetes/pkg/apis/core)."""
_ANSWERED: Final = (phase.COMPLETED, phase.INCOMPLETE)
"""The ends of a run that leave an answer, whole or in part."""
_AGAIN: Final = timedelta(minutes=1)


def wanted(run: Run, status: OpenAIRunStatus) -> str | None:
    """The ConfigMap that should hold the answer and does not yet, as far as the status says."""
    if run.spec is None or run.spec.outputTo is None or status.phase not in _ANSWERED or status.output is None:
        return None
    name = run.spec.outputTo.configMap
    return None if status.output.configMap == name else name


def data(run: Run, answer: str) -> tuple[dict[str, str], str | None]:
    """What is written: the text, and where JSON was asked for and came, that too; and what is left out.

    A second copy for which there is no room is left out: it must not keep the answer itself out.
    """
    out, left_out = {TEXT_KEY: answer}, None
    if run.spec and run.spec.responseFormat and run.spec.responseFormat.structured:
        with contextlib.suppress(ValueError, RecursionError):  # what is no JSON stands in the text alone
            value = json.loads(answer)
            if not too_deep(value):  # to indent takes time in the square of the depth
                pretty = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
                pretty = text.clean(pretty) + "\n"  # escapes may have stood for what no text may hold
                if len(answer.encode()) + len(pretty.encode()) <= MAX_BYTES:
                    out[JSON_KEY] = pretty
                else:
                    left_out = f"{JSON_KEY} is left out, since there is no room for both"
    return out, left_out


def checksum(data: Mapping[str, str]) -> str:
    """The SHA-256 of the text that is written, in hex."""
    return hashlib.sha256(data[TEXT_KEY].encode()).hexdigest()


def store(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Action | None:
    """The next step towards an answer that stands whole in its ConfigMap. None: there is none, or not yet."""
    name, known = wanted(run, status), facts.known
    if name is None or status.output is None:
        return None
    if lost(record, status, facts) or known.storing_pauses(facts.now):
        return None
    answer = _whole(record, status, facts)
    if answer is None:
        pausing = facts.provider.blocked or known.pausing(facts.now) or (known.look_at and facts.now < known.look_at)
        return None if pausing else Observe(record)
    assert run.spec is not None
    written, left_out = data(run, answer)
    return Store(record, name, written, owned=run.spec.ttlAfterFinished is None, left_out=left_out)


def _whole(record: Record, status: OpenAIRunStatus, facts: Facts) -> str | None:
    if status.output is not None and not status.output.truncated:
        return status.output.text
    seen = ending.seen(record, facts.known)
    return text.clean(seen.text) if seen and seen.text is not None else None


def lost(record: Record, status: OpenAIRunStatus, facts: Facts) -> bool:
    """Whether the answer, of which only the beginning is known, is no longer at OpenAI."""
    gone = facts.known.gone >= ending.CONFIRMATIONS
    return gone and status.output is not None and status.output.truncated and ending.seen(record, facts.known) is None


def again(run: Run, status: OpenAIRunStatus, record: Record, facts: Facts) -> datetime | None:
    """When to try again to store the answer."""
    known = facts.known
    if wanted(run, status) is None or lost(record, status, facts):
        return None
    moments = [m for m in (known.store_at, known.retry_at, known.look_at) if m and m > facts.now]
    return max(moments, default=facts.now + _AGAIN)  # never for good: an answer is not kept for long at OpenAI


def with_stored(run: Run, status: OpenAIRunStatus, facts: Facts) -> OpenAIRunStatus:
    """The status, once the answer is stored."""
    name, stored = wanted(run, status), facts.known.stored
    if stored is None or stored[0] != name or status.output is None:
        return status
    output = status.output.model_copy(update={"configMap": name, "sha256": stored[1]})
    return status.model_copy(update={"output": output})


def condition(run: Run, record: Record, status: OpenAIRunStatus, facts: Facts) -> Extra | None:
    """The condition OutputStored."""
    if run.spec is None or run.spec.outputTo is None:
        return None
    if status.output and status.output.configMap == run.spec.outputTo.configMap:
        return stored(status, facts)
    if wanted(run, status) is None:
        return None
    if lost(record, status, facts):
        where = f"{turns.named(record)} is no longer known at {record.address}"
        words = f"Run {where}: status.output holds the answer's beginning"
        return Extra("OutputStored", "False", Reason.OUTPUT_LOST, words)
    failure: Failure | None = facts.known.store_failure or facts.known.failure or facts.provider.blocked
    if failure is None:
        before = status.condition("OutputStored")  # what was said before a restart stands until it is known better
        return Extra("OutputStored", "False", Reason(before.reason), before.message) if before else None
    return Extra("OutputStored", "False", failure.reason, failure.message)


def stored(status: OpenAIRunStatus, facts: Facts) -> Extra | None:
    """The condition OutputStored, for an answer that is stored."""
    if status.output is None or status.output.configMap is None:
        return None
    words = f"ConfigMap {status.output.configMap} holds the answer, {status.output.bytes} bytes"
    known, before = facts.known, status.condition("OutputStored")
    if known.stored and known.stored[0] == status.output.configMap:
        words = f"{words}; {known.left_out}" if known.left_out else words
    elif before and before.message.startswith(words):
        words = before.message  # what was said before a restart stands
    return Extra("OutputStored", "True", Reason.STORED, words)
