"""What a decision rests on beside the object: the operator's policy, and what this process knows of the run."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from openairun_operator.api.record import API
from openairun_operator.lifecycle.actions import Decision, Observe, Wait
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.ledger import Ledger
from openairun_operator.lifecycle.observation import Contents, RunObservation
from openairun_operator.lifecycle.provider import Provider

_FRESH: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How this operator treats runs, whatever their provider."""

    holder: str
    orphan_limit: timedelta = timedelta(minutes=2)
    """How long deletion, replacement and the deadline wait for a cancel to be confirmed."""
    request_timeout: timedelta = timedelta(seconds=30)
    """How long one call of an ending may take, whatever a provider gives its requests."""
    searchable: frozenset[API] = frozenset({"Assistants"})


@dataclass(slots=True, kw_only=True)
class Knowledge:
    """What this process knows of one resource. Lost at a restart; every decision must be safe without it."""

    ledger: Ledger = field(default_factory=Ledger)
    awaits_default: bool = False
    """Whether the next run was the namespace's default's when it was last decided upon: status may not say so yet."""
    token: str | None = None
    """The attempt that the fields below speak of; another attempt starts them afresh."""
    observation: RunObservation | None = None
    look_at: datetime | None = None
    """When to look at the run next; None: now."""
    looked_at: datetime | None = None
    """When the run was last seen."""
    cancelled: bool = False
    """Whether OpenAI took our cancel."""
    read_with: tuple[str, str | None] | None = None
    """The address and the mark of the key with which the run was last seen."""
    called_with: str | None = None
    """The mark of the key of the last call."""
    gone: int = 0
    """How many looks in a row found no run, where it is looked for now."""
    looked_in: tuple[str, str | None] | None = None
    """The address and the mark of the key with which it is looked for."""
    found: RunObservation | None = None
    """The run that a search for the token found."""
    missed_first: datetime | None = None
    missed_last: datetime | None = None
    """When searches for the token found nothing, first and last."""
    turn: str | None = None
    """The submission without an answer since which the run was looked at."""
    untaken_first: datetime | None = None
    untaken_last: datetime | None = None
    """When looks since then showed the run still asking for the same calls, first and last."""
    contents: Contents | None = None
    """What references lead to: read for the next create or submission, and forgotten when that was sent."""
    stored: tuple[str, str] | None = None
    """The ConfigMap that the answer was written to, and its SHA-256."""
    left_out: str | None = None
    """What was not written for want of room."""
    disowned: str | None = None
    """The ConfigMap that does not go with the resource, as this process saw to."""
    store_failure: Failure | None = None
    store_failures: int = 0
    store_at: datetime | None = None
    """When to try again to store the answer."""
    cancel_tried: bool = False
    """Whether a cancel was sent, or could not be, in this ending: no run is given up before."""
    cancel_refused: bool = False
    """Whether OpenAI refused the last cancel: it is asked again."""
    unrecorded: int = 0
    """How many times in a row a record could not be written: what is known counts meanwhile, not what is written."""
    ending_since: datetime | None = None
    """Since when this process tries to end the run."""
    unclaimed: int = 0
    """How many claims in a row the API server did not take, and may take soon."""
    failure: Failure | None = None
    """The last call's failure, until a call succeeds."""
    failures: int = 0
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    decided_at: datetime | None = None
    """The moment of the last decision."""

    def turn_back(self, now: datetime) -> None:
        """Note the moment of a decision. If the clock was set back, nothing waits for what it now calls the future."""
        if self.decided_at is not None and now < self.decided_at:
            self.look_at = self.retry_at = self.store_at = self.turn = None
            self.ending_since = min(self.ending_since, now) if self.ending_since else None
        self.decided_at = now

    def turn_to(self, token: str | None) -> None:
        """Forget what was known of another attempt. Failures stay: they are the server's, not the attempt's."""
        if token != self.token:
            self.token = token
            self.observation = self.look_at = self.looked_at = self.ending_since = None
            self.found = self.missed_first = self.missed_last = None
            self.turn = self.untaken_first = self.untaken_last = None
            self.cancelled, self.gone, self.cancel_tried, self.cancel_refused = False, 0, False, False
            self.read_with = None
            self.stored = self.disowned = self.store_failure = self.store_at = None
            self.store_failures = 0

    def turn_to_provider(self, provider: Provider) -> None:
        """Forget how often a run was not found elsewhere: an address or a key that comes back may know it again."""
        where = (provider.address, provider.credential)
        if where != self.looked_in:
            self.looked_in, self.gone = where, 0

    def ending_until(self, now: datetime, policy: Policy) -> datetime:
        """When the time to end the run is over; it begins at the latest now."""
        return (self.ending_since or now) + policy.orphan_limit

    def turn_to_ending(self, decision: Decision, now: datetime) -> None:
        """Note whether the run is being ended. An ending that was called off, say by a longer timeout, is forgotten."""
        if decision.ending:
            self.ending_since = self.ending_since or now
        elif isinstance(decision.action, Observe | Wait):
            self.ending_since, self.cancelled, self.cancel_tried, self.cancel_refused = None, False, False, False

    def succeeded(self) -> None:
        """A call succeeded: what failed before holds nothing back."""
        self.failure = self.failed_at = self.retry_at = None
        self.failures = 0

    def read_for(self, purpose: str, now: datetime) -> Contents | None:
        """The contents that were read for `purpose`, just now: what stands elsewhere may have changed since."""
        contents = self.contents
        fresh = contents is not None and contents.purpose == purpose and now - contents.read_at < _FRESH
        return contents if fresh else None

    def pausing(self, now: datetime) -> bool:
        """Whether the last failure still holds the next call back."""
        return self.retry_at is not None and now < self.retry_at

    def storing_pauses(self, now: datetime) -> bool:
        """Whether the last failure to store the answer still holds the next try back."""
        return self.store_at is not None and now < self.store_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it, at one moment."""

    now: datetime
    policy: Policy
    known: Knowledge
    new_token: str
    provider: Provider
    """Whose run it is; while there is none, the one that is asked for."""
    wanted: Provider
    """Whose the next run will be."""
    admitted: bool = True
    """Whether another run may go on the wanted provider."""

    def obstacle(self, provider: Provider) -> Failure | None:
        """Why `provider` cannot be called now: not at all, or it is too soon after the last failure."""
        return provider.blocked or (self.known.failure if self.known.pausing(self.now) else None)
