"""Attempts: each create, each run taken up by its id, has a record of its own, and the status speaks of one of them."""

from datetime import datetime, timedelta

from openairun_operator.api import durations
from openairun_operator.api.record import Record, RecordState
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.observation import RunObservation
from openairun_operator.lifecycle.run import Run


def new_record(run: Run, facts: Facts, state: RecordState = "claimed") -> Record:
    """The record of another attempt."""
    provider, last = facts.wanted, run.record
    # The later attempt is the one that counts, whatever the clock of the one before said.
    submitted = max(facts.now, last.submittedAt + timedelta(microseconds=1)) if last else facts.now
    again = run.create_again if run.create_again is not None else last and last.createAgain
    return Record(
        object=run.key,
        uid=run.uid,
        digest=run.digest,
        token=facts.new_token,
        holder=facts.policy.holder,
        state=state,
        api=run.api,
        provider=provider.name,
        address=provider.address,
        credential=provider.credential,
        thread=run.spec.threadID if run.spec else None,
        submittedAt=submitted,
        timeout=durations.show(provider.timeout),
        pollingInterval=durations.show(provider.polling_interval),
        createAgain=again,
    )


def shown(run: Run, record: Record, facts: Facts) -> OpenAIRunStatus:
    """The status as far as it speaks of `record`'s attempt."""
    status = st.for_attempt(run.status, record)
    return st.identify(status, record, st.timeout_of(run.spec, record), st.interval_of(run.spec, record))


def created(record: Record, observation: RunObservation, now: datetime) -> Record:
    """The record, completed with the run's id."""
    return record.model_copy(
        update={
            "state": "created",
            "id": observation.id,
            "thread": observation.thread or record.thread,
            "recordedAt": now.replace(microsecond=0),
        }
    )


def released(record: Record) -> Record:
    """The record of an attempt that surely made no run."""
    return record.model_copy(update={"state": "released"})
