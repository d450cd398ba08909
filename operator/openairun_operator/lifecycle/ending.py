"""Ending a run: cancel, confirm, and after the orphan limit let go. For deletion, replacement and deadline alike."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from openairun_operator.api.record import Record
from openairun_operator.lifecycle import phase, turns
from openairun_operator.lifecycle.actions import Action, Cancel, Find, Note, Observe, Wait
from openairun_operator.lifecycle.facts import Facts, Knowledge
from openairun_operator.lifecycle.observation import RunObservation
from openairun_operator.lifecycle.provider import Provider

CONFIRMATIONS: Final = 2
"""Looks in a row that must find no run before it counts as gone."""
_RETRY: Final = timedelta(seconds=10)
"""The longest pause between two tries to end a run, unless the server asks for more: the orphan limit leaves little."""


@dataclass(frozen=True, slots=True)
class Over:
    """The run is no more: it was seen to be finished, or it is gone."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """The orphan limit is reached and the run may still go."""


def seen(record: Record, known: Knowledge) -> RunObservation | None:
    """The last observation of the record's run."""
    observation = known.observation
    return observation if observation and observation.id == record.followed else None


def changed(record: Record, provider: Provider) -> str | None:
    """What of the provider's address and key is another than when the record was made."""
    return _differs(provider, record.address, record.credential)


def provider_changed(record: Record, facts: Facts) -> str | None:
    """What of them is another than when the run was last seen: a 404 then says little."""
    return _differs(facts.provider, *(facts.known.read_with or (record.address, record.credential)))


def _differs(provider: Provider, address: str, credential: str | None) -> str | None:
    if address != provider.address:
        return f"address changed from {address} to {provider.address}"
    if None not in (credential, provider.credential) and credential != provider.credential:
        return "key changed"
    return None


def end(record: Record, facts: Facts) -> Action | Over | Orphaned:
    """The next step towards a run that is over."""
    known, now = facts.known, facts.now
    last = seen(record, facts.known)
    if (answered := turns.answered(record, last, known)) is not record:
        return Note(answered)
    if last and (last.at_rest or phase.of(last.status) in phase.TERMINAL):
        # A submission without an answer may have made a response that nobody can find.
        return Orphaned() if turns.unknown(record, facts) else Over()
    if known.gone >= CONFIRMATIONS and provider_changed(record, facts) is None:
        return Over()
    limit = known.ending_until(now, facts.policy)
    if now >= limit:
        if not known.cancel_tried:
            return Cancel(record)
        looked = known.looked_at is not None and known.looked_at >= limit
        unsure = looked or known.failure or known.gone or not known.cancelled
        return Orphaned() if unsure else Observe(record)  # it may have waited long for that
    if known.pausing(now) and known.retry_at and known.failed_at:
        asked = timedelta(seconds=known.failure.retry_after or 0.0) if known.failure else timedelta()
        again = min(known.retry_at, known.failed_at + max(_RETRY, asked))
        if now < again:
            return Wait(min(again, limit))
    if known.gone and known.look_at and now < known.look_at:
        return Wait(min(known.look_at, limit))
    if known.cancel_refused and known.look_at and now < known.look_at:
        return Wait(min(known.look_at, limit))
    if not known.cancelled:
        return Cancel(record)
    if known.look_at is None or now >= known.look_at:
        return Observe(record)
    return Wait(min(known.look_at, limit))


def find(record: Record, facts: Facts) -> Action | Over:
    """The next step towards knowing whether an attempt without an answer made a run.

    Over: it surely made none. A create may take effect after it was sent, so a search that finds nothing is
    believed only when another, `create_settles` later, finds nothing either.
    """
    known, now = facts.known, facts.now
    if known.pausing(now):
        return Wait(known.retry_at)
    if known.missed_first is None or known.missed_last is None:
        return Find(record)
    settled = known.missed_first + facts.provider.create_settles
    if known.missed_last >= settled:
        return Over()
    return Find(record) if now >= settled else Wait(settled)
