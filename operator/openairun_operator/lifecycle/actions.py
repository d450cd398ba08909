"""What to do next with a run: the vocabulary between deciding and acting."""

from dataclasses import dataclass
from datetime import datetime

from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus


@dataclass(frozen=True, slots=True)
class Claim:
    """Write this new record and the finalizer, only if the object is still as it was seen."""

    record: Record


@dataclass(frozen=True, slots=True)
class Note:
    """Write what became of the attempt into the record on the object. `hold` also sets the finalizer."""

    record: Record
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """Send the create of the claimed attempt, if nobody has."""

    record: Record


@dataclass(frozen=True, slots=True)
class Find:
    """Search OpenAI for the run that bears the record's token."""

    record: Record


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at the run."""

    record: Record


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask OpenAI to cancel the run. Idempotent."""

    record: Record


@dataclass(frozen=True, slots=True)
class Release:
    """Remove the finalizer. `orphan` names what may be left running at OpenAI, for a person to read."""

    orphan: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`; None: before something changes."""

    until: datetime | None = None


Action = Claim | Note | Create | Find | Observe | Cancel | Release | Wait


@dataclass(frozen=True, slots=True)
class Decision:
    """The status that should be shown, and what to do once it is."""

    status: OpenAIRunStatus
    action: Action
    ending: bool = False
    """Whether a run is being ended: the orphan limit counts from the first decision that says so."""
