"""Turns: submissions of tool outputs. What the record says of the last one, and what came of it.

Over the Assistants API the run itself tells whether outputs were taken. Over the Responses API a submission is
a create of its own, which cannot be searched for: of one without an answer nobody knows whether a response goes.
"""

from datetime import datetime
from typing import Final

from openairun_operator.api.record import Record, Turn, TurnState, Usage
from openairun_operator.lifecycle import phase
from openairun_operator.lifecycle.facts import Facts, Knowledge
from openairun_operator.lifecycle.ledger import Answered, Entry
from openairun_operator.lifecycle.observation import RunObservation

_KEPT: Final = 128
_MAX_COUNT: Final = 2**63 - 1
"""The greatest number that the API server takes."""


def pending(record: Record) -> Turn | None:
    """The turn that was claimed, and of which the record does not yet say what came of it."""
    return record.turn if record.turn and record.turn.state == "claimed" else None


def entry(turn: Turn, facts: Facts) -> Entry | None:
    """What this process knows of the turn."""
    return facts.known.ledger.get(turn.token)


def named(record: Record) -> str:
    """The run as a person finds it at OpenAI: of one made of several responses, only the last may still go."""
    return f"{record.id} (last response {record.current})" if record.current else f"{record.id}"


def unknown(record: Record, facts: Facts) -> bool:
    """Whether a response may go that no record names."""
    turn = pending(record)
    if turn is None or record.api in facts.policy.searchable:
        return False
    return facts.known.ledger.unknown(turn.token)


def asked_for(turn: Turn, seen: RunObservation) -> bool:
    """Whether the run, as it was seen, asks for the calls that the turn answers."""
    return phase.of(seen.status) == phase.REQUIRES_ACTION and [call.id for call in seen.calls] == turn.calls


def note_look(record: Record, seen: RunObservation, known: Knowledge, now: datetime) -> None:
    """Note what a look tells of a turn that was sent, perhaps by another process, and got no answer."""
    turn = pending(record)
    if turn is None or not known.ledger.unknown(turn.token):
        return
    if known.turn != turn.token:
        known.turn, known.untaken_first, known.untaken_last = turn.token, None, None
    if asked_for(turn, seen):
        known.untaken_first, known.untaken_last = known.untaken_first or now, now


def became(record: Record, state: TurnState) -> Record:
    """The record, with what came of its turn."""
    assert record.turn is not None
    turn = record.turn.model_copy(update={"state": state})
    update: dict[str, object] = {"turn": turn}
    if state == "taken":
        before = record.answered or []
        update["answered"] = [*before, *(call for call in turn.calls if call not in before)][-_KEPT:]
    return record.model_copy(update=update)


def taken(record: Record, seen: RunObservation, last: RunObservation | None) -> Record:
    """The record of a run that went on as `seen`, after `last`."""
    record = became(record, "taken")
    if seen.id == record.followed:
        return record
    return record.model_copy(
        update={
            "current": seen.id,
            "responses": (record.responses or 1) + 1,
            "spent": add(record.spent, last.usage if last else None),
        }
    )


def answered(record: Record, last: RunObservation | None, known: Knowledge) -> Record:
    """The record with its turn taken, if this process saw the answer: perhaps it could not be written down yet."""
    turn = pending(record)
    match turn and known.ledger.get(turn.token):
        case Answered(observation):
            return taken(record, observation, last)
    return record


def add(one: Usage | None, other: Usage | None) -> Usage | None:
    """Both together. What neither tells stays unknown."""
    if one is None or other is None:
        return one or other
    mine, theirs = one.model_dump(), other.model_dump()
    both = {
        name: min((mine[name] or 0) + (theirs[name] or 0), _MAX_COUNT)
        for name in mine
        if (mine[name], theirs[name]) != (None, None)
    }
    return Usage(**both)
