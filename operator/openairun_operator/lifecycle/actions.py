"""What to do next with a run: the vocabulary between deciding and acting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle.observation import RunRef


@dataclass(frozen=True, slots=True)
class Claim:
    """Write this record, which claims a create or a submission, and the finalizer, only if the object is still as it
    was seen. `token` is what is claimed.
    """

    record: Record
    token: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read what the definition and, for `results`, the tool outputs refer to."""

    results: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """Look at the run that `spec.runID` names, to take it up."""

    ref: RunRef


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
class Submit:
    """Send the tool outputs of the claimed turn, if nobody has."""

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
class Store:
    """Write the answer, whole, to the ConfigMap `name`. `owned`: it goes with the resource."""

    record: Record
    name: str
    data: Mapping[str, str] = field(repr=False)
    owned: bool
    left_out: str | None = None
    """What is not written for want of room, for a person to read."""


@dataclass(frozen=True, slots=True)
class Disown:
    """See to it that the ConfigMap `name` stays when the resource goes."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the resource itself, if it is still as it was seen."""

    message: str


@dataclass(frozen=True, slots=True)
class Release:
    """Remove the finalizer. `orphan` names what may be left running at OpenAI, for a person to read."""

    orphan: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`; None: before something changes."""

    until: datetime | None = None


Action = (
    Claim | Note | Fetch | Adopt | Create | Submit | Find | Observe | Cancel | Store | Disown | Delete | Release | Wait
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The status that should be shown, and what to do once it is."""

    status: OpenAIRunStatus
    action: Action
    ending: bool = False
    """Whether a run is being ended: the orphan limit counts from the first decision that says so."""
    queued: bool = False
    """Whether it waits for room on its provider."""
