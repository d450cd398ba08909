"""Looks that show nothing new: they are most of what an operator does, and change no decision."""

from datetime import datetime, timedelta
from typing import Final

from openairun_operator.lifecycle import phase, polling, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.observation import RunObservation
from openairun_operator.lifecycle.run import Run

_SURE: Final = timedelta(minutes=1)
"""For so long nothing is decided. Whatever matters ends that by itself; this is in case something did not."""


def calm(known: Knowledge) -> bool:
    """Whether the last call succeeded, and nothing is being ended, searched for, or still to be written down."""
    return not (known.failure or known.gone or known.ending_since or known.unrecorded)


def until(run: Run, before: RunObservation | None, known: Knowledge, now: datetime) -> datetime | None:
    """Until when to look at the run again and again, as was decided, as long as looks show what this one did.

    None: this look has to be decided upon. `before` is what was seen when the look was decided; all was `calm` then.
    """
    record, seen = run.record, known.observation
    if seen is None or seen != before or not calm(known) or record is None or turns.pending(record):
        return None
    if run.deleted_at or st.finished(run.status) or phase.of(seen.status) in phase.TERMINAL:
        return None
    deadline = polling.deadline(record.recordedAt, st.timeout_of(run.spec, record))
    moment = now + _SURE
    if deadline is not None:
        moment = min(moment, deadline)
    return moment if now < moment else None
