"""Looks that show nothing new: they are most of what an operator does, and change no decision."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from openairun_operator.lifecycle import phase, polling, turns
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Decision, Wait
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.observation import RunObservation, Target
from openairun_operator.lifecycle.run import Run

_LONGEST: Final = timedelta(minutes=1)
"""For so long nothing is decided. Whatever matters ends a calm by itself; this is in case something did not."""


@dataclass(frozen=True, slots=True)
class Calm:
    """A run of which nothing was decided but to look at it again: as long as looks show what was seen then."""

    seen: RunObservation
    until: datetime
    target: Target
    interval: timedelta
    """Between two looks."""

    def lasts(self, known: Knowledge) -> bool:
        """Whether the last look showed nothing else, and went well."""
        return _quiet(known) and known.observation == self.seen


def calm(run: Run, decision: Decision, known: Knowledge, now: datetime) -> Calm | None:
    """Whether looks need no decision after this one, and how long. It was shown already; None: each needs one."""
    record, seen = run.record, known.observation
    if record is None or seen is None or known.look_at is None or not _quiet(known):
        return None
    if decision.ending or run.deleted_at or turns.pending(record):
        return None
    synced = run.status.condition("Synced")
    if synced and synced.status == "False":
        return None  # once it is well again, that is to be said
    if st.finished(run.status) or phase.of(seen.status) in phase.TERMINAL:
        return None
    deadline = polling.deadline(record.recordedAt, st.timeout_of(run.spec, record))
    if decision.action != Wait(min(known.look_at, deadline or known.look_at)):
        return None  # it waits for something else
    longest = now + _LONGEST
    return Calm(seen, min(longest, deadline or longest), Target.of(record), st.interval_of(run.spec, record))


def _quiet(known: Knowledge) -> bool:
    """Whether the last call succeeded, and nothing is being ended, searched for, or still to be written down."""
    return not (known.failure or known.gone or known.ending_since or known.unrecorded)
