"""What can go wrong with a call to OpenAI, and what that means for the run.

What counts as created or not follows `Creating once`: a create that surely did not happen may be sent again,
one whose outcome is unknown may not.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from openairun_operator.api.reasons import Reason


class Outcome(Enum):
    """What a failed create left behind."""

    NOT_CREATED = "not created"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A call that failed. `message` is for a person: clean and redacted."""

    reason: Reason
    message: str
    outcome: Outcome = Outcome.NOT_CREATED
    retry_after: float | None = None
    """Seconds that the server asks to wait."""


class CallFailedError(Exception):
    """Raised by wires for every call that did not do what was asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.reason}: {failure.message}")
        self.failure = failure


NEEDS_PERSON: Final = frozenset(
    {
        Reason.RECORD_REFUSED,
        Reason.NO_CREDENTIALS,
        Reason.INVALID_CREDENTIALS,
        Reason.PERMISSION_DENIED,
        Reason.ADDRESS_REFUSED,
        Reason.QUOTA_EXCEEDED,
        Reason.API_NOT_SERVED,
        Reason.MODEL_NOT_SET,
        Reason.MODEL_NOT_ACCESSIBLE,
        Reason.RUN_NOT_FOUND,
        Reason.REFERENCE_FORBIDDEN,
        Reason.PROVIDER_NOT_FOUND,
        Reason.API_NOT_ALLOWED,
        Reason.ID_NOT_ALLOWED,
    }
)
"""Reasons that pass only when somebody does something. Looked at again every `PERSON_RETRY` seconds."""

AWAY: Final = frozenset({Reason.UNREACHABLE, Reason.TIMED_OUT, Reason.SERVER_ERROR})
"""Reasons that say that nobody is there to do it."""

PERSON_RETRY: Final = 300.0
_FIRST_RETRY: Final = 2.0
_MAX_RETRY: Final = 60.0
_BEYOND: Final = 9.4


def retry_delay(failure: Failure, failures: int, jitter: float, interval: float = _MAX_RETRY) -> float:
    """Seconds until the next try after `failures` in a row (at least 1).

    Exponential from 2 s to 60 s, `jitter` in [0, 1) spreading it by ±20 %. `Retry-After` is a floor, and what waits
    for it is spread behind it: servers tell all who ask the same end of their patience. A server that is away is tried
    again within the polling `interval` and 10 s: once it is back, all that ended meanwhile is soon known.
    """
    longest = min(_MAX_RETRY, (interval + _BEYOND) / 1.2) if failure.reason in AWAY else _MAX_RETRY
    base = PERSON_RETRY if failure.reason in NEEDS_PERSON else min(longest, _FIRST_RETRY * 2 ** min(failures - 1, 10))
    return max(base * (0.8 + 0.4 * jitter), (failure.retry_after or 0.0) * (1 + 0.2 * jitter))
