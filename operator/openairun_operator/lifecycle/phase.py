"""Phases: OpenAI's statuses of a run, in CamelCase.

The statuses are those of RunStatus and of a Response's `status` in OpenAI's API description. An unknown
one passes through: a newer server must not stop an older operator.
"""

import re
from typing import Final

PENDING: Final = "Pending"
QUEUED: Final = "Queued"
IN_PROGRESS: Final = "InProgress"
REQUIRES_ACTION: Final = "RequiresAction"
CANCELLING: Final = "Cancelling"
CANCELLED: Final = "Cancelled"
COMPLETED: Final = "Completed"
FAILED: Final = "Failed"
INCOMPLETE: Final = "Incomplete"
EXPIRED: Final = "Expired"

TERMINAL: Final = frozenset({CANCELLED, COMPLETED, FAILED, INCOMPLETE, EXPIRED})
"""Phases that no run leaves again."""

_MAX = 64


def of(status: str) -> str:
    """The phase of OpenAI's `status`: `requires_action` is `RequiresAction`."""
    words = re.split(r"[^A-Za-z0-9]+", status)
    return "".join(word[:1].upper() + word[1:] for word in words if word)[:_MAX] or "Unknown"
