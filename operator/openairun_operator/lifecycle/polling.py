"""When to look at a run next."""

from datetime import datetime, timedelta
from typing import Final

FIRST: Final = 1.0
"""Seconds after a create to the first look: a short run should not wait a whole interval."""
_GROWTH: Final = 4 / 3


def delay(age: timedelta, interval: timedelta, jitter: float, floor: float | None = None) -> float:
    """Seconds until the next look at a run that was created `age` ago.

    Starts at 1 s and grows by a third with each look, up to `interval`, and is never longer than that. `jitter`
    in [0, 1) shortens it by up to 10 %, so that many runs do not march in step. `floor` is what the server
    asked for, and wins.
    """
    # Looks at 1, 2.33, 4.11 … s: the step that follows age a is FIRST + a * (growth - 1).
    grown = FIRST + max(age.total_seconds(), 0.0) * (_GROWTH - 1)
    wanted = min(grown, interval.total_seconds()) * (1 - 0.1 * jitter)
    return max(wanted, floor or 0.0)


def deadline(recorded_at: datetime | None, timeout: timedelta) -> datetime | None:
    """When the run has had its time; None while its id is not known, or if that is beyond the calendar."""
    try:
        return None if recorded_at is None else recorded_at + timeout
    except OverflowError:
        return None
