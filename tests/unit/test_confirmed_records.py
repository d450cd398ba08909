"""Whose runs the operator's own key follows: users may write the annotation that records a run, and not its status."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openairun_operator.api.names import FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.lifecycle import run as runs
from openairun_operator.lifecycle.actions import Decision, Release, Wait
from openairun_operator.lifecycle.decide import decide
from openairun_operator.lifecycle.facts import Facts, Knowledge, Policy
from openairun_operator.lifecycle.ledger import Answered
from openairun_operator.lifecycle.observation import RunObservation
from openairun_operator.lifecycle.provider import OWN, Provider
from openairun_operator.lifecycle.run import Run, dump_record

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BOUNDED = Provider(name=OWN, address="https://api.openai.com/v1", confirmed_only=True)


def record(**more: Any) -> Record:
    own = {"object": "team/run", "uid": "uid-1", "digest": "", "token": "token-1", "holder": "operator"}
    made = {"provider": OWN, "address": BOUNDED.address, "submittedAt": NOW - timedelta(minutes=1)}
    return Record.model_validate(own | made | {"recordedAt": NOW - timedelta(minutes=1)} | more)


def parsed(annotated: Record, shown: Record | None = None) -> Run:
    annotations = {RECORD_ANNOTATION: dump_record(annotated)}
    meta = {"namespace": "team", "name": "run", "uid": "uid-1", "annotations": annotations, "finalizers": [FINALIZER]}
    status = {"observedGeneration": 1} | ({"record": json.loads(dump_record(shown))} if shown else {})
    return runs.parse({"metadata": meta, "spec": {"model": "m", "input": "x"}, "status": status})


def decided(run: Run, known: Knowledge | None = None, provider: Provider = BOUNDED) -> Decision:
    policy = Policy(holder="operator", orphan_limit=timedelta(minutes=2))
    known = known or Knowledge()
    known.turn_to("token-1")
    facts = Facts(now=NOW, policy=policy, known=known, new_token="token-2", provider=provider, wanted=provider)
    return decide(run, facts)


def is_followed(decision: Decision) -> bool:
    ready = decision.status.condition("Ready")
    return not (ready and ready.reason == Reason.ID_NOT_ALLOWED)


RECORDS: dict[str, dict[str, Any]] = {
    "a run": {"state": "created", "api": "Responses", "id": "resp_other"},
    "a run on a thread": {"state": "created", "api": "Assistants", "id": "run_other", "thread": "thread_other"},
    "a thread to search": {"state": "claimed", "api": "Assistants", "thread": "thread_other", "recordedAt": None},
}
each_record = pytest.mark.parametrize("what", RECORDS)


@each_record
def test_what_the_annotation_alone_names_is_not_followed_nor_gets_into_status(what: str) -> None:
    """In status it would count as the operator's own."""
    decision = decided(parsed(record(**RECORDS[what])))
    assert not is_followed(decision)
    assert decision.status.record is None
    assert decision.action == Wait()


@each_record
def test_its_deletion_touches_nothing_and_ends_at_once(what: str) -> None:
    decision = decided(replace(parsed(record(**RECORDS[what])), deleted_at=NOW))
    assert isinstance(decision.action, Release)
    assert decision.action.orphan
    assert "status does not" in decision.action.orphan


@each_record
def test_what_status_names_too_is_followed(what: str) -> None:
    made = record(**RECORDS[what])
    assert is_followed(decided(parsed(made, made)))


@each_record
def test_without_such_a_bound_it_is_followed(what: str) -> None:
    """A restored backup has lost the status: the run in the annotation is still its own."""
    assert is_followed(decided(parsed(record(**RECORDS[what])), provider=replace(BOUNDED, confirmed_only=False)))


def test_an_id_that_is_written_while_the_create_is_under_way_is_not_followed() -> None:
    """The token, which status shows, proves nothing."""
    claimed = record(api="Responses", state="claimed", recordedAt=None)
    forged = record(api="Responses", state="created", id="resp_other")
    assert not is_followed(decided(parsed(forged, claimed)))


def test_what_this_process_was_answered_is_followed_before_status_shows_it() -> None:
    known = Knowledge()
    known.ledger.claim("token-1")
    known.ledger.answer("token-1", Answered(RunObservation(id="resp_own", status="queued")))
    made = record(state="created", api="Responses", id="resp_own")
    assert is_followed(decided(parsed(made), known))
    assert not is_followed(decided(parsed(made.model_copy(update={"current": "resp_other"})), known))


def test_a_create_that_was_just_claimed_is_not_held_up() -> None:
    assert is_followed(decided(parsed(record(state="claimed", api="Responses", recordedAt=None))))
