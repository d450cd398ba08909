"""Who counts among the runs that go on a provider, and who waits to be one of them."""

from datetime import datetime, timedelta
from typing import Final

from openairun_operator.api.record import Record
from openairun_operator.lifecycle import polling
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Claim, Decision, Fetch
from openairun_operator.lifecycle.run import Run

_AHEAD: Final = timedelta(minutes=5)


def has_provider(record: Record | None) -> bool:
    """Whether the record's run goes, or may go: it belongs to the provider that the record names."""
    return record is not None and record.state in ("claimed", "created")


def goes(run: Run, now: datetime) -> bool:
    """Whether a run goes, as far as anybody knows, one that waits for tool outputs too.

    A create without an answer counts for as long as its run might take.
    """
    record, status = run.record, run.status
    if record is None or not has_provider(record):
        return False
    if st.tells_end(status, record):
        return False
    unknown = status.condition("CreateOutcomeUnknown")
    if record.submittedAt > now + _AHEAD:
        return False  # no clock is that fast: somebody wrote it
    if record.state == "claimed" and unknown is not None and unknown.status == "True":
        end = over(run, record)
        return end is None or now < end
    return True


def over(run: Run, record: Record) -> datetime | None:
    """When the run of a create without an answer would have had its time; None: never."""
    return polling.deadline(record.submittedAt, st.timeout_of(run.spec, record))


def waits(decision: Decision) -> bool:
    """Whether a run is to be created, and nothing but room may be lacking."""
    match decision.action:
        case Claim(record, token):
            return token == record.token
        case Fetch(results):
            return not results
    return decision.queued
