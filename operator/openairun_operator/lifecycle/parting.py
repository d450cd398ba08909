"""What is said of a resource that is deleted and let go."""

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle import phase, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.ledger import Claimed
from openairun_operator.lifecycle.run import Run


def words(run: Run, known: Knowledge, orphan: str | None, *, vanished: bool) -> Event | None:
    """The event; `orphan` names what may be left at OpenAI, `vanished` is whether the object has gone already."""
    if run.deleted_at is None and not vanished:
        return None
    if orphan:
        message = f"The resource is deleted, and its end was not seen: {orphan} may still go at OpenAI"
        return Event("Warning", Reason.ORPHANED, message)
    seen = known.observation
    if run.record and seen and not st.tells_end(run.status, run.record):
        named = turns.named(run.record) if run.record.id else seen.id  # it may never have been written down
        if (how := phase.of(seen.status)) in phase.TERMINAL - {phase.CANCELLED}:
            words = f"Run {named} was over ({how}) when its resource was deleted: what it made is at OpenAI"
            return Event("Normal", Reason(how), words)
        if known.cancelled:
            return Event("Normal", Reason.CANCELLED, f"Run {named} was cancelled")
    if run.record and _left_alone(run, known):
        named, token = turns.named(run.record), run.record.token
        what = f"run {named}" if run.record.id else f"a run with {token} in its metadata"
        message = f"The resource is deleted, and {what} left alone, as deletionPolicy asks"
        return Event("Normal", Reason.ORPHANED, message)
    return None


def _left_alone(run: Run, known: Knowledge) -> bool:
    """Whether the resource leaves behind a run that goes, as its user wants."""
    record = run.record
    if record is None or isinstance(known.ledger.get(record.token), Claimed):
        return False
    orphaned = run.spec is not None and run.spec.deletionPolicy == "Orphan"
    return orphaned and record.state in ("claimed", "created") and not st.tells_end(run.status, record)
