"""Whole lives of a resource, step by step, and each of them again with the operator dying at every step."""

import itertools
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from builders import (
    ASSISTANTS,
    BAD_KEY,
    BAD_REQUEST,
    BUSY,
    NO_ANSWER,
    NO_CREDENTIALS,
    NOT_FOUND,
    RATE_LIMITED,
    RESPONSES,
    START,
    World,
    seen,
)

from openairun_operator.api.names import FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.actions import Create, Wait
from openairun_operator.lifecycle.failure import Failure, Outcome
from openairun_operator.lifecycle.ledger import Ledger
from openairun_operator.lifecycle.observation import Call

UNREACHABLE = Failure(reason=Reason.UNREACHABLE, message="cannot be reached")
WIRES = pytest.mark.parametrize("spec", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])


def running(spec: dict[str, Any] | None = None) -> World:
    """A world in which a run goes, and goes on unless it is stopped."""
    world = World(spec)
    world.server.takes = None
    world.until(lambda w: w.status.phase == "InProgress")
    return world


def unknown(spec: dict[str, Any] | None = None) -> World:
    """A world in which a create got no answer, though it made a run."""
    world = World(spec)
    world.server.creates.append("lost answer")
    world.settle()
    return world


def message(world: World, type_: str = "Ready") -> str:
    condition = world.status.condition(type_)
    return condition.message if condition else ""


# --- creating


@WIRES
def test_a_run_is_created_followed_and_completes(spec: dict[str, Any]) -> None:
    world = World(spec)
    world.settle()
    assert world.said == ["Creating", "Queued", "Running", "Completed"]
    assert len(world.server.sent) == 1
    assert world.status.output
    assert world.status.output.text == "hello"
    assert not world.run.has_finalizer, "a finished run needs no cancelling"
    assert world.status.finishedAt


@WIRES
def test_the_claim_is_written_before_the_create_is_sent_and_shown_in_status(spec: dict[str, Any]) -> None:
    world = World(spec)
    world.until(lambda w: isinstance(w.decide().action, Create))
    world._show(world.decide().status)
    assert world.run.record_annotated
    assert world.run.has_finalizer
    assert world.status.record == world.record
    assert world.server.sent == []


def test_a_claim_is_a_licence_to_send_once() -> None:
    ledger = Ledger()
    assert not ledger.send("token"), "nobody claimed it"
    ledger.claim("token")
    assert ledger.send("token")
    assert not ledger.send("token")
    ledger.claim("token")
    assert not ledger.send("token"), "a second claim gives nothing back"


def test_a_claim_whose_send_never_ended_is_not_sent_again() -> None:
    world = World()
    world.until(lambda w: isinstance(w.decide().action, Create))
    assert world.record
    world.known.ledger.send(world.record.token)  # and then its task died
    world.settle()
    assert world.server.sent == []
    assert world.reason() == "CreateOutcomeUnknown"


@pytest.mark.parametrize("lost", ["annotation", "finalizer"])
def test_a_claim_whose_marks_were_taken_away_is_marked_again_before_it_is_sent(lost: str) -> None:
    world = World()
    world.until(lambda w: isinstance(w.decide().action, Create))
    world._show(world.decide().status)
    if lost == "annotation":
        world.annotate(RECORD_ANNOTATION, None)
    else:
        world.object["metadata"]["finalizers"] = []
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)


def test_a_refused_create_is_failed_and_not_sent_again() -> None:
    world = World()
    world.server.creates.append(BAD_REQUEST)
    world.settle()
    assert (world.status.phase, world.reason()) == ("Failed", "InvalidRequest")
    assert world.status.finishedAt
    assert not world.run.has_finalizer
    for _ in range(3):
        world.restart()
        world.advance(hours=1)
        world.edit(timeout="1h")
        world.settle()
        assert world.status.observedGeneration == world.run.generation
    assert len(world.server.sent) == 1


@pytest.mark.parametrize("way", ["definition", "create-again"])
def test_a_refused_create_goes_on_by_a_new_definition_or_create_again(way: str) -> None:
    world = World()
    world.server.creates.append(BAD_REQUEST)
    world.settle()
    world.edit(input="Say goodbye") if way == "definition" else world.create_again("1")
    world.settle()
    assert world.status.phase == "Completed"
    assert len(world.server.sent) == 2


def test_a_refused_create_stays_refused_when_its_status_is_lost() -> None:
    world = World()
    world.server.creates.append(BAD_REQUEST)
    world.settle()
    world.restart()
    world.lose_status()
    world.settle()
    assert (world.status.phase, world.reason()) == ("Failed", "InvalidRequest")
    assert len(world.server.sent) == 1


@WIRES
@pytest.mark.parametrize("failure", [RATE_LIMITED, BUSY, BAD_KEY, UNREACHABLE], ids=lambda f: f.reason)
def test_a_create_that_surely_made_no_run_is_sent_again_by_a_new_claim(failure: Failure, spec: dict[str, Any]) -> None:
    world = World(spec)
    world.server.creates.extend([failure, failure])
    world.settle()
    assert world.status.phase == "Completed"
    assert len(world.server.sent) == 3
    assert len({sent.token for sent in world.server.sent}) == 3
    assert world.status.history is None, "an attempt that made no run is not worth keeping"


@pytest.mark.parametrize("failure", [RATE_LIMITED, BUSY, BAD_KEY], ids=lambda f: f.reason)
def test_a_restart_does_not_take_a_create_that_was_turned_away_for_unknown(failure: Failure) -> None:
    world = World()
    world.server.creates.append(failure)
    world.until(lambda w: w.record and w.record.state == "released")
    world.restart()
    world.settle()
    assert "CreateOutcomeUnknown" not in world.said
    assert world.status.phase == "Completed"
    assert len(world.server.sent) == 2


def test_a_clock_that_goes_back_does_not_bring_back_an_earlier_attempt() -> None:
    world = World()
    world.settle()
    world.restart()
    world.advance(hours=-1)
    world.edit(input="Say goodbye")
    world.settle()
    assert (world.status.phase, world.status.runID, len(world.server.sent)) == ("Completed", "resp_2", 2)


def test_without_a_model_nothing_is_created() -> None:
    world = World({"input": "Say hello"})
    world.settle()
    assert (world.status.phase, world.reason()) == ("Pending", "ModelNotSet")
    assert "spec.model" in message(world)
    world.provider_is(default_model="gpt-5-mini")
    world.settle()
    assert world.status.phase == "Completed"


def test_without_credentials_nothing_is_created_until_there_are_some() -> None:
    world = World()
    world.blocked = NO_CREDENTIALS
    world.settle()
    assert (world.status.phase, world.reason(), world.server.log) == ("Pending", "NoCredentials", [])
    assert world.record is None
    world.blocked = None
    world.settle()
    assert world.status.phase == "Completed"


def test_credentials_that_go_while_a_create_is_held_back_do_not_make_it_spin() -> None:
    world = World()
    world.server.creates.append(RATE_LIMITED)
    world.until(lambda w: w.reason() == "RateLimited")
    world.blocked = NO_CREDENTIALS
    world.settle()
    assert world.reason() == "NoCredentials"


@pytest.mark.parametrize("value", ["1", "", " "], ids=repr)
def test_create_again_is_honoured_once_for_each_value(value: str) -> None:
    world = World()
    world.settle()
    world.create_again(value)
    world.settle()
    assert len(world.server.sent) == 2
    world.restart()
    world.edit(timeout="1h")
    world.settle()
    assert len(world.server.sent) == 2
    world.annotate("openairun.dev/create-again", None)
    world.settle()
    world.create_again(value)
    world.settle()
    assert len(world.server.sent) == 2
    world.create_again("another")
    world.settle()
    assert len(world.server.sent) == 3
    assert [past.runID for past in world.status.history or ()] == ["resp_2", "resp_1"]


def test_create_again_from_the_start_is_no_reason_for_a_second_run() -> None:
    world = World(annotations={"openairun.dev/create-again": "1"})
    world.settle()
    assert len(world.server.sent) == 1


# --- a create that got no answer


def test_over_responses_a_create_without_an_answer_stops_and_says_how_to_go_on() -> None:
    world = unknown()
    assert (world.status.phase, world.reason()) == ("Pending", "CreateOutcomeUnknown")
    for way in ("definition", "openairun.dev/create-again", "-n team openairun hello"):
        assert way in message(world)
    said = message(world)
    for _ in range(3):
        world.restart()
        world.advance(days=1)
        world.edit(timeout="1h")
        world.settle()
    assert len(world.server.sent) == 1
    assert message(world) == said


@pytest.mark.parametrize("way", ["definition", "create-again"])
def test_an_unknown_create_goes_on_by_a_new_definition_or_create_again_and_stays_in_history(way: str) -> None:
    world = unknown()
    token = world.server.sent[0].token
    world.edit(input="Say goodbye") if way == "definition" else world.create_again("1")
    world.settle()
    assert world.status.phase == "Completed"
    assert world.status.condition("CreateOutcomeUnknown") is None
    past = (world.status.history or [])[0]
    assert (past.token, past.runID, past.reason) == (token, None, "CreateOutcomeUnknown")
    assert past.submittedAt
    world.create_again("2")
    world.settle()
    assert len(world.server.sent) == 3


@pytest.mark.parametrize("when", ["answer lost", "operator died", "status lost too"])
def test_an_unknown_create_stays_in_history_though_the_definition_changed_before_anyone_knew(when: str) -> None:
    world = World()
    world.server.creates.append("lost answer")
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.step()
    token = world.server.sent[0].token
    if when != "answer lost":
        world.restart()
    if when == "status lost too":
        world.lose_status()
    world.edit(input="Say goodbye")
    world.settle()
    assert world.status.phase == "Completed"
    assert [past.token for past in world.status.history or ()] == [token]


def test_a_long_answer_to_a_create_takes_no_room_of_the_request_id() -> None:
    world = World()
    words = f"OpenAI said 500: {'long ' * 100}(request id req_1)"
    world.server.creates.append(Failure(reason=Reason.SERVER_ERROR, message=words, outcome=Outcome.UNKNOWN))
    world.settle()
    assert "… (request id req_1))" in message(world)


def test_a_deletion_tells_when_a_create_of_unknown_outcome_was_sent() -> None:
    world = unknown()
    token = world.server.sent[0].token
    world.advance(seconds=0.25)
    world.delete()
    world.settle()
    sent = "if its create, sent at 2026-11-02T08:00:00Z, took effect"
    assert world.orphan == f"a run with {token} in its metadata ({sent})"


def test_create_again_at_once_where_the_team_prefers_that() -> None:
    world = unknown(RESPONSES | {"onUnknownCreate": "CreateAgain"})
    assert world.status.phase == "Completed"
    assert len(world.server.sent) == 2
    assert [past.token for past in world.status.history or ()] == [world.server.sent[0].token]


@pytest.mark.parametrize("late", [0, 20])
def test_over_assistants_a_create_without_an_answer_is_searched_for_and_found(late: int) -> None:
    world = World(ASSISTANTS)
    world.server.late = timedelta(seconds=late)
    world.server.creates.append("lost answer")
    world.settle()
    assert world.status.phase == "Completed"
    assert world.status.runID == "resp_1"
    assert len(world.server.sent) == 1
    assert world.status.history is None


def test_over_assistants_a_create_that_two_searches_do_not_find_is_sent_again() -> None:
    world = World(ASSISTANTS)
    world.server.creates.append(NO_ANSWER)
    world.settle()
    assert world.status.phase == "Completed"
    assert world.server.log.count("find") == 2
    assert len(world.server.sent) == 2
    assert world.known.missed_first is None
    assert world.now - START > world.provider.create_settles


def test_a_search_that_fails_proves_nothing() -> None:
    world = World(ASSISTANTS)
    world.server.creates.append("lost answer")
    world.server.faults.extend([NOT_FOUND, UNREACHABLE, BAD_KEY])
    world.settle()
    assert len(world.server.sent) == 1
    assert world.status.runID == "resp_1"


@pytest.mark.parametrize("spec", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])
def test_the_claim_of_a_process_that_died_may_have_been_sent(spec: dict[str, Any]) -> None:
    world = World(spec)
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.restart()
    world.settle()
    if spec is RESPONSES:
        assert world.reason() == "CreateOutcomeUnknown"
        assert world.server.sent == []
    else:
        assert world.status.phase == "Completed"
        assert len(world.server.sent) == 1


# --- replacing


@WIRES
def test_a_changed_definition_cancels_the_run_confirms_that_and_makes_another(spec: dict[str, Any]) -> None:
    world = running(spec)
    world.edit(instructions="Be short")
    world.server.takes = timedelta(seconds=20)
    world.until(lambda w: len(w.server.sent) == 2)
    assert world.server.going() == ["resp_2"]
    world.settle()
    assert world.status.phase == "Completed"
    assert world.status.runID == "resp_2"
    (past,) = world.status.history or ()
    assert (past.runID, past.phase, past.reason) == ("resp_1", "Cancelled", "Cancelled")
    assert past.finishedAt


@WIRES
def test_the_end_of_a_run_that_makes_way_is_not_shown_as_the_end_of_the_resource(spec: dict[str, Any]) -> None:
    world = running(spec)
    world.edit(instructions="Be short")
    said: list[tuple[str | None, ...]] = []

    def look(world: World) -> bool:
        conditions = {each.type: each.status for each in world.status.conditions}
        if world.status.observedGeneration == world.run.generation:
            said.append((conditions["Ready"], conditions["Reconciling"], conditions["Stalled"], conditions["Finished"]))
        return world.status.runID == "resp_2"

    world.until(look)
    assert set(said) == {("Unknown", "True", "False", "False")}


def test_a_run_that_does_not_end_makes_way_after_the_orphan_limit() -> None:
    world = running()
    world.server.cancel_takes = None
    world.edit(input="Say goodbye")
    before = world.now
    world.until(lambda w: len(w.server.sent) == 2)
    assert timedelta(minutes=2) <= world.now - before < timedelta(minutes=2, seconds=15)
    (past,) = world.status.history or ()
    assert (past.runID, past.reason) == ("resp_1", "Orphaned")


def test_replacing_while_openai_cannot_be_reached_ends_at_the_orphan_limit_too() -> None:
    world = running()
    world.server.down = UNREACHABLE
    world.edit(input="Say goodbye")
    before = world.now
    world.until(lambda w: w.status.history)
    assert timedelta(minutes=2) <= world.now - before < timedelta(minutes=2, seconds=15)
    world.server.down = None
    world.server.takes = timedelta(seconds=20)
    world.settle()
    assert (world.status.phase, world.status.runID) == ("Completed", "resp_2")


def test_replacing_a_create_that_cannot_be_searched_for_ends_at_the_orphan_limit_too() -> None:
    world = World(ASSISTANTS)
    world.server.creates.append(NO_ANSWER)
    world.until(lambda w: "find" in w.server.log)
    world.server.down = UNREACHABLE
    world.edit(instructions="Be short")
    before = world.now
    world.until(lambda w: w.server.log.count("create") == 2)
    assert timedelta(minutes=2) <= world.now - before < timedelta(minutes=2, seconds=15)


def test_a_run_that_is_over_makes_way_at_once() -> None:
    world = World()
    world.settle()
    world.edit(input="Say goodbye")
    before = world.now
    world.until(lambda w: len(w.server.sent) == 2)
    assert world.now == before
    assert "cancel" not in world.server.log
    assert [past.phase for past in world.status.history or ()] == ["Completed"]


def test_edits_during_a_create_collapse_to_the_last() -> None:
    world = World()
    world.server.takes = None
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.step()
    for text in "abc":
        world.edit(input=text)
    world.server.takes = timedelta(seconds=20)
    world.settle()
    assert len(world.server.sent) == 2
    assert world.server.sent[1].digest == world.run.digest
    assert world.server.going() == []


def test_an_edit_between_claim_and_create_sends_only_the_new_definition() -> None:
    world = World()
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.edit(input="Say goodbye")
    world.settle()
    assert [sent.digest for sent in world.server.sent] == [world.run.digest]
    assert world.status.history is None


def test_the_last_five_runs_stay_in_history() -> None:
    world = World()
    for i in range(8):
        world.edit(input=f"Say {i}")
        world.settle()
    assert [past.runID for past in world.status.history or ()] == [f"resp_{i}" for i in range(7, 2, -1)]


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": "1h"},
        {"pollingInterval": "1m"},
        {"metadata": {"a": "b"}},
        {"waitForCompletion": False},
        {"onUnknownCreate": "CreateAgain"},
        {"fieldOfTheFuture": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_define_the_run_applies_in_place(change: dict[str, Any]) -> None:
    world = running()
    world.edit(**change)
    world.server.takes = timedelta(seconds=20)
    world.settle()
    assert "cancel" not in world.server.log
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)


def test_another_operator_with_other_defaults_replaces_nothing() -> None:
    world = running()
    world.restart()
    world.policy_is(holder="operator-2")
    world.provider_is(timeout=timedelta(seconds=1), polling_interval=timedelta(minutes=1))
    world.provider_is(default_model="gpt-6", name="another")
    world.server.takes = timedelta(seconds=20)
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)
    assert world.status.effective
    assert world.status.effective.timeout == "10m", "fixed when the run was created"


# --- the deadline


def at_deadline(world: World) -> None:
    world.now = START + timedelta(minutes=10, seconds=1)


@WIRES
def test_a_run_that_takes_too_long_is_cancelled(spec: dict[str, Any]) -> None:
    world = World(spec)
    world.server.takes = None
    world.settle()
    assert (world.status.phase, world.reason()) == ("Cancelled", "DeadlineExceeded")
    assert "10m" in message(world)
    assert timedelta(minutes=10) <= world.now - START < timedelta(minutes=10, seconds=30)
    assert world.server.going() == []


def test_at_the_deadline_the_run_is_read_once_more_and_a_finished_answer_wins() -> None:
    world = running()
    world.server.takes = timedelta(minutes=10)
    at_deadline(world)
    world.settle()
    assert (world.status.phase, world.reason()) == ("Completed", "Completed")
    assert "cancel" not in world.server.log


def test_a_completion_that_wins_the_race_with_the_cancel_stands() -> None:
    world = running()
    world.server.takes = timedelta(minutes=10, seconds=2)
    world.server.cancel_takes = None
    world.settle()
    assert "cancel" in world.server.log
    assert (world.status.phase, world.reason()) == ("Completed", "Completed")


def test_a_cancellation_that_is_not_confirmed_ends_at_the_orphan_limit() -> None:
    world = running()
    world.server.cancel_takes = None
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    assert world.status.phase == "InProgress"
    assert "not seen to end within 2m" in message(world)
    assert timedelta(minutes=12) <= world.now - START < timedelta(minutes=12, seconds=30)


def test_while_openai_cannot_be_reached_the_verdict_waits() -> None:
    world = running()
    world.server.down = UNREACHABLE
    with pytest.raises(AssertionError, match="not settled"):
        world.settle(timedelta(hours=1))
    assert world.status.finishedAt is None
    assert world.reason() == "Unreachable"
    world.server.down = None
    back = world.now
    world.settle()
    assert (world.status.phase, world.reason()) == ("Cancelled", "DeadlineExceeded")
    assert world.now - back <= timedelta(minutes=3)


def test_a_new_timeout_applies_to_a_run_that_goes_and_not_to_one_that_is_over() -> None:
    world = running()
    world.edit(timeout="30m")
    world.settle()
    assert timedelta(minutes=30) <= world.now - START < timedelta(minutes=31)
    finished_at = world.status.finishedAt
    world.edit(timeout="2h")
    world.settle()
    assert (world.status.finishedAt, world.reason()) == (finished_at, "DeadlineExceeded")


def test_an_ending_that_was_called_off_is_begun_anew() -> None:
    world = running()
    world.server.takes = world.server.cancel_takes = None
    world.until(lambda w: w.reason() == "DeadlineExceeded")
    world.until(lambda w: "cancel" in w.server.log)
    world.edit(timeout="5h")
    world.until(lambda w: w.reason() == "Running")
    world.advance(hours=1)
    world.server.cancel_takes = timedelta(seconds=1)
    world.delete()
    world.settle()
    assert world.body is None
    assert world.orphan is None
    assert world.server.going() == []


def test_a_run_whose_spec_can_no_longer_be_read_is_followed_to_its_end() -> None:
    world = running()
    world.server.takes = timedelta(minutes=2)
    world.edit(input={"of": "a newer version"})
    world.settle()
    assert world.status.phase == "Completed"


def test_the_deadline_counts_from_the_moment_the_id_was_known_and_holds_over_a_restart() -> None:
    world = World()
    world.server.takes = None
    world.blocked = NO_CREDENTIALS
    world.settle()
    world.advance(hours=5)
    world.blocked = None
    begun = world.now
    world.until(lambda w: w.status.phase == "InProgress")
    world.advance(minutes=5)
    world.restart()
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    assert timedelta(minutes=10) <= world.now - begun < timedelta(minutes=11)


def test_the_deadline_holds_for_a_run_that_nobody_waits_for() -> None:
    world = World(RESPONSES | {"waitForCompletion": False})
    world.server.takes = None
    world.settle()
    assert world.reason() == "DeadlineExceeded"


def test_not_waiting_ready_is_true_while_the_run_goes_and_when_it_completes() -> None:
    world = World(RESPONSES | {"waitForCompletion": False})
    ready: list[str] = []
    for _ in range(100):
        step = world.step()
        condition = world.status.condition("Ready")
        if condition and (not ready or ready[-1] != condition.status):
            ready.append(condition.status)
        if step is False:
            break
        if step is not True:
            world.now = step
    assert ready == ["Unknown", "True"]
    assert world.status.phase == "Completed"


# --- lost


def test_one_404_is_not_lost() -> None:
    world = running()
    world.server.faults.append(NOT_FOUND)
    world.server.takes = timedelta(minutes=1)
    world.settle()
    assert world.status.phase == "Completed"
    assert "Lost" not in world.said


def test_404s_that_do_not_follow_each_other_are_not_lost() -> None:
    world = running()
    for _ in range(3):
        world.server.faults.append(NOT_FOUND)
        world.until(lambda w: not w.server.faults)
        looks = len(world.server.log)
        world.until(lambda w, looks=looks: len(w.server.log) > looks)
    assert world.reason() == "Running"


def test_two_404s_in_a_row_are_lost() -> None:
    world = running()
    world.server.runs.clear()
    world.settle()
    assert (world.status.phase, world.reason()) == ("InProgress", "Lost")
    assert world.status.finishedAt
    assert not world.run.has_finalizer


@pytest.mark.parametrize("moved", ["key", "address"])
def test_under_another_key_or_address_a_run_is_not_lost_before_its_deadline(moved: str) -> None:
    world = running()
    world.restart()
    if moved == "key":
        world.credential = "key-2"
    else:
        world.provider_is(address="https://elsewhere.example/v1")
    world.server.runs.clear()
    world.until(lambda w: w.reason() == "ProviderChanged")
    synced = world.status.condition("Synced")
    assert synced
    assert synced.status == "False"
    world.settle()
    assert world.reason() == "Lost"
    assert timedelta(minutes=10) <= world.now - START < timedelta(minutes=11)


@pytest.mark.parametrize("moved", ["key", "address"])
def test_once_it_was_seen_under_another_key_or_address_that_is_what_it_is_looked_for_with(moved: str) -> None:
    world = running()
    if moved == "key":
        world.credential = "key-2"
    else:
        world.provider_is(address="https://elsewhere.example/v1")
    seen = world.known.looked_at
    world.until(lambda w: w.known.looked_at != seen)
    world.server.runs.clear()
    world.settle()
    assert world.reason() == "Lost"
    assert world.now - START < timedelta(minutes=1)


def test_a_failing_server_at_another_address_is_not_hammered() -> None:
    world = running()
    world.provider_is(address="https://elsewhere.example/v1")
    world.server.runs.clear()
    world.until(lambda w: w.reason() == "ProviderChanged")
    world.server.down = RATE_LIMITED
    calls, before = len(world.server.log), world.now
    with pytest.raises(AssertionError, match="not settled"):
        world.settle(timedelta(minutes=5))
    assert len(world.server.log) - calls <= (world.now - before).total_seconds() / 2


# --- terminal is final


@pytest.mark.parametrize("status", ["in_progress", "failed", "cancelled", "completed"])
def test_a_late_observation_changes_nothing_of_a_finished_run(status: str) -> None:
    world = World()
    world.settle()
    before, written = world.status, world.writes
    world.advance(minutes=1)
    world.known.observation = seen(
        status, id="resp_1", text="another", completed_at=1.8e9, failed_at=1.8e9, error=("a", "b")
    )
    world.known.look_at = None
    world.known.gone = 2
    world.settle()
    assert (world.status, world.writes) == (before, written)


def test_nothing_is_written_or_asked_of_a_run_that_is_over() -> None:
    world = World()
    world.settle()
    asked, written = len(world.server.log), world.writes
    for _ in range(3):
        world.advance(hours=1)
        world.restart()
        world.settle()
    assert (len(world.server.log), world.writes) == (asked, written)


def test_a_status_is_written_when_something_changed_not_because_time_passed() -> None:
    world = running()
    written, asked = world.writes, len(world.server.log)
    world.until(lambda w: len(w.server.log) >= asked + 60)
    assert world.writes == written


def given_up(how: str) -> World:
    """A world in which a run is finished whose end nobody saw."""
    world = running()
    world.server.cancel_takes = None
    match how:
        case "lost":
            world.server.runs.clear()
        case "orphaned":
            world.edit(cancel=True)
        case _:
            world.advance(minutes=11)
    world.settle()
    return world


@pytest.mark.parametrize("known", ["lost", "lost, and a restart", "orphaned", "at its deadline", "late, and garbled"])
def test_of_a_run_that_was_given_up_nothing_untrue_is_said_when_its_last_word_is_lost(known: str) -> None:
    how, _, restarted = known.partition(",")
    going = [c.model_dump(mode="json") for c in running().status.conditions]
    world = given_up(how)
    reason, said, finished = world.reason(), message(world), world.status.finishedAt
    world.object["status"] = world.object["status"] | {"conditions": going}
    if "garbled" in known:
        world.object["status"]["effective"] = {"timeout": "soon"}
    if restarted or how == "orphaned":
        world.restart()
    world.settle()
    assert (world.status.finishedAt, world.status.phase) == (finished, "InProgress")
    match known:
        case "lost":
            assert (world.reason(), message(world)) == (reason, said)
        case "at its deadline":
            assert (world.reason(), message(world)) == (reason, "Run resp_1 was not finished after 10m")
        case _:
            words = "Run resp_1 was not seen to end before it was given up: it may still go"
            assert (world.reason(), message(world)) == ("Orphaned", words)


def test_a_response_that_may_still_go_is_told_of_again_when_the_last_word_is_lost() -> None:
    world = World(RESPONSES)
    world.server.asks.append((Call("call_1", "add", "{}"),))
    world.until(lambda w: w.status.phase == "RequiresAction")
    going = [c.model_dump(mode="json") for c in world.status.conditions]
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=[{"toolCallID": "call_1", "output": "2"}])
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    world.restart()
    world.object["status"] = world.object["status"] | {"conditions": going}
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    assert world.status.condition("CreateOutcomeUnknown")


# --- deletion


def test_before_anything_deleting_is_at_once() -> None:
    world = World()
    world.blocked = NO_CREDENTIALS
    world.settle()
    assert not world.run.has_finalizer
    world.delete()
    assert (world.body, world.server.sent) == (None, [])


@WIRES
def test_a_create_that_was_claimed_and_never_sent_is_let_go(spec: dict[str, Any]) -> None:
    world = World(spec)
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.delete()
    world.settle()
    assert (world.body, world.orphan, world.server.log) == (None, None, [])


def test_deleting_over_responses_an_unknown_create_names_what_may_be_left() -> None:
    world = unknown()
    world.delete()
    before = world.now
    world.settle()
    assert world.body is None
    assert world.now == before
    assert world.orphan
    assert world.server.sent[0].token in world.orphan


def test_deleting_over_assistants_an_unknown_create_finds_and_cancels_it() -> None:
    world = World(ASSISTANTS)
    world.server.takes = None
    world.server.creates.append("lost answer")
    world.until(lambda w: w.server.sent)
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)
    assert world.server.going() == []


def test_deleting_over_assistants_a_create_that_surely_made_no_run_needs_no_word() -> None:
    world = World(ASSISTANTS)
    world.server.creates.append(NO_ANSWER)
    world.until(lambda w: w.server.sent)
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)


@WIRES
def test_deleting_cancels_confirms_and_goes(spec: dict[str, Any]) -> None:
    world = running(spec)
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)
    assert world.server.going() == []


@pytest.mark.parametrize("spec", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])
@pytest.mark.parametrize("trouble", [UNREACHABLE, RATE_LIMITED, BAD_KEY, None], ids=["down", "limited", "key", "deaf"])
def test_deleting_ends_at_the_orphan_limit_whatever_openai_does(trouble: Failure | None, spec: dict[str, Any]) -> None:
    world = running(spec)
    world.server.down = trouble
    world.server.cancel_takes = None
    before = world.now
    world.delete()
    world.settle()
    assert world.body is None
    assert timedelta(minutes=2) <= world.now - before <= timedelta(minutes=2, seconds=1)
    assert world.orphan
    assert "resp_1" in world.orphan


@pytest.mark.parametrize("end", ["deletion", "replacement"])
def test_no_run_is_called_an_orphan_before_a_cancel_was_tried(end: str) -> None:
    world = running()
    world.server.cancel_takes = None
    world.edit(input="Say goodbye") if end == "replacement" else world.delete()
    world.known.ending_since = world.now - timedelta(minutes=3)  # as when the record could not be written so long
    world.settle()
    assert world.server.runs["resp_1"].cancelled_at
    assert world.orphan or (world.status.history and world.status.history[0].reason == "Orphaned")


@pytest.mark.parametrize("end", ["deletion", "replacement"])
def test_a_run_whose_cancel_was_taken_is_looked_at_once_more_before_it_is_called_an_orphan(end: str) -> None:
    world = running(ASSISTANTS)
    world.edit(instructions="another") if end == "replacement" else world.delete()
    world.until(lambda w: w.server.log[-1] == "cancel")
    world.step()
    world.now += timedelta(minutes=3)  # as when many waited for a call
    world.settle()
    assert world.orphan is None
    assert world.body is None or (world.status.history and world.status.history[0].reason == "Cancelled")


@pytest.mark.parametrize("end", ["deletion", "replacement"])
def test_a_run_that_is_found_when_it_is_no_longer_wanted_is_cancelled_first(end: str) -> None:
    world = World(ASSISTANTS)
    world.server.takes = None
    world.server.creates.append("lost answer")
    world.until(lambda w: w.server.sent)
    world.edit(instructions="another") if end == "replacement" else world.delete()
    world.until(lambda w: w.server.log[-1] == "find")
    world.step()
    assert world.server.log[-2:] == ["find", "cancel"]


@pytest.mark.parametrize(("asks", "waits"), [(None, 10), (45, 45)])
def test_a_cancel_that_failed_is_tried_again_soon_unless_the_server_asks_for_patience(
    asks: float | None, waits: float
) -> None:
    world = running()
    world.delete()
    world.known.failures = 10
    world.server.down = Failure(reason=Reason.RATE_LIMITED, message="slow down", retry_after=asks)
    tries: list[datetime] = []
    count = len(world.server.log)
    while world.body is not None:
        match world.step():
            case True | False:
                pass
            case moment:
                world.now = moment
        if len(world.server.log) > count:
            count = len(world.server.log)
            tries.append(world.now)
    pauses = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] == pytest.approx(waits, rel=0.21)


def test_a_search_that_cannot_be_made_ends_at_the_orphan_limit_too() -> None:
    world = World(ASSISTANTS)
    world.server.creates.append("lost answer")
    world.until(lambda w: w.server.sent)
    world.server.down = UNREACHABLE
    before = world.now
    world.delete()
    world.settle()
    assert world.body is None
    assert world.now - before <= timedelta(minutes=2, seconds=1)
    assert world.orphan


def test_deleting_a_run_that_is_gone_needs_no_word() -> None:
    world = running()
    world.server.runs.clear()
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)


def test_under_another_key_a_run_that_is_not_found_when_it_is_deleted_is_an_orphan() -> None:
    world = running()
    world.restart()
    world.credential = "key-2"
    world.server.runs.clear()
    before, calls = world.now, len(world.server.log)
    world.delete()
    world.settle()
    assert world.body is None
    assert world.orphan
    assert "resp_1" in world.orphan
    assert world.now - before <= timedelta(minutes=2, seconds=1)
    assert len(world.server.log) - calls < 30


@pytest.mark.parametrize("how", ["completed", "refused"])
def test_deleting_what_is_over_is_at_once(how: str) -> None:
    world = World()
    if how == "refused":
        world.server.creates.append(BAD_REQUEST)
    world.until(lambda w: w.status.finishedAt)
    world.object["metadata"]["finalizers"] = [FINALIZER]
    asked = len(world.server.log)
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)
    assert len(world.server.log) == asked


def test_a_deletion_that_does_not_wait_for_us_is_left_alone() -> None:
    world = running()
    world.object["metadata"]["finalizers"] = ["another.example/finalizer"]
    world.object["metadata"]["deletionTimestamp"] = "2026-11-02T08:00:00Z"
    assert world.decide().action == Wait()


def test_a_deletion_amid_a_replacement_leaves_nothing_running() -> None:
    world = running()
    world.edit(input="Say goodbye")
    world.step()
    world.delete()
    world.settle()
    assert (world.body, world.orphan) == (None, None)
    assert world.server.going() == []
    assert len(world.server.sent) == 1


# --- a restart at every step


def life_completes(world: World) -> None:
    world.settle()


def life_refused(world: World) -> None:
    world.server.creates.append(BAD_REQUEST)
    world.settle()


def life_turned_away(world: World) -> None:
    world.server.creates.extend([RATE_LIMITED, BAD_KEY])
    world.settle()


def life_unknown(world: World) -> None:
    world.server.creates.append("lost answer")
    world.settle()
    world.create_again("1")
    world.settle()


def life_unknown_not_made(world: World) -> None:
    world.server.creates.append(NO_ANSWER)
    world.settle()
    world.edit(instructions="Be short")
    world.settle()


def life_late(world: World) -> None:
    world.server.late = timedelta(seconds=20)
    world.server.creates.append("lost answer")
    world.settle()


def life_replaced(world: World) -> None:
    world.until(lambda w: w.server.sent or w.reason() == "CreateOutcomeUnknown")
    world.edit(instructions="Be short")
    world.settle()
    world.edit(instructions="Be long")
    world.settle()


def life_deadline(world: World) -> None:
    world.server.takes = None
    world.edit(timeout="20s")
    world.settle()


def life_deleted(world: World) -> None:
    world.server.takes = None
    world.until(lambda w: w.status.phase in ("InProgress", "Completed") or w.reason() == "CreateOutcomeUnknown")
    world.delete()
    world.settle()


def life_lost(world: World) -> None:
    world.until(lambda w: w.status.phase in ("InProgress", "Completed") or w.reason() == "CreateOutcomeUnknown")
    world.server.runs.clear()
    world.settle()


LIVES = [
    life_completes,
    life_refused,
    life_turned_away,
    life_unknown,
    life_unknown_not_made,
    life_late,
    life_replaced,
    life_deadline,
    life_deleted,
    life_lost,
]


def assert_created_once(world: World) -> None:
    """For one definition and create-again there is at most one create that made a run, and none after an unknown."""
    searchable = "assistantID" in (world.body or {"spec": ASSISTANTS})["spec"]
    for first, sent in enumerate(world.server.sent):
        later = [s for s in world.server.sent[first + 1 :]]
        again = [
            s for s in later if (s.digest, s.create_again, s.answers) == (sent.digest, sent.create_again, sent.answers)
        ]
        assert not (sent.made and again), f"a second run: {world.server.sent}"
    assert searchable or len({(s.token, s.answers) for s in world.server.sent}) == len(world.server.sent)


def at_rest(world: World) -> bool:
    stalled = world.body is not None and world.reason() in ("CreateOutcomeUnknown", "Suspended")
    return world.body is None or world.status.finishedAt is not None or stalled


@WIRES
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_a_restart_at_any_step_never_sends_a_second_create(life: Callable[[World], None], spec: dict[str, Any]) -> None:
    baseline = World(spec)
    life(baseline)
    assert_created_once(baseline)
    assert at_rest(baseline)
    for step in range(1, baseline.steps + 1):
        for point in ("before", "after"):
            world = World(spec)
            world.crash = (step, point)
            life(world)
            assert_created_once(world)
            assert at_rest(world), (step, point, world.status)
            if world.body is None:
                assert world.orphan or not world.server.going(), (step, point)


@WIRES
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_a_restart_at_every_step_never_sends_a_second_create(
    life: Callable[[World], None], spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that dies after each single step but for the one that follows a claim: else it could never create.
    step = World.step

    def and_die(world: World) -> Any:
        result = step(world)
        if world.body is not None and (world.record is None or world.record.state != "claimed"):
            failures = world.known.failures, world.known.failed_at, world.known.retry_at, world.known.failure
            kept = world.known
            world.restart()
            if kept.failure or kept.gone or kept.ending_since or kept.look_at:  # what makes it wait, not what it knows
                known = world.known
                known.failures, known.failed_at, known.retry_at, known.failure = failures
                known.token, known.gone, known.ending_since = kept.token, kept.gone, kept.ending_since
                known.look_at, known.looked_at, known.observation = kept.look_at, kept.looked_at, kept.observation
                known.cancelled, known.looked_in = kept.cancelled, kept.looked_in
        return result

    monkeypatch.setattr(World, "step", and_die)
    world = World(spec)
    life(world)
    assert_created_once(world)
    assert at_rest(world)


# --- any order of events


SEEDS = 60
FAULTS = [NOT_FOUND, UNREACHABLE, RATE_LIMITED, BAD_KEY, NO_ANSWER]
CREATES: list[Any] = [BAD_REQUEST, RATE_LIMITED, BUSY, BAD_KEY, UNREACHABLE, NO_ANSWER, "lost answer"]


class Fate:
    """Random events for one world. Each edit is a definition that was never seen before."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(self.random.choice([RESPONSES, ASSISTANTS]))
        self.world.server.takes = self.random.choice([None, timedelta(seconds=20), timedelta(minutes=9)])
        self.world.server.cancel_takes = self.random.choice([None, timedelta(seconds=3)])
        self.count = 0
        self.log: list[str] = []

    def step(self) -> None:
        world, rng = self.world, self.random
        for _ in range(rng.randint(1, 8)):
            if world.body is None:
                return
            match world.step():
                case True | False:
                    pass
                case moment if rng.random() < 0.7:
                    world.now = moment

    def edit(self) -> None:
        self.count += 1
        self.world.edit(instructions=f"edit {self.count}")

    def treat(self) -> None:
        self.world.edit(timeout=self.random.choice(["1m", "10m", "1h"]), waitForCompletion=self.random.random() < 0.5)

    def verbs(self) -> None:
        rng = self.random
        self.world.edit(
            **{
                "cancel": rng.choice([None, None, True]),
                "suspend": rng.choice([None, None, True]),
                "deletionPolicy": rng.choice(["Cancel", "Orphan"]),
                "outputTo": rng.choice([None, {"configMap": "answer"}]),
            }
        )

    def adopt(self) -> None:
        ids = [*self.world.server.runs, "resp_none"]
        self.world.edit(runID=self.random.choice([None, *ids]))

    def ask(self) -> None:
        self.count += 1
        self.world.server.asks.append((Call(f"call_{self.count}", "f", "{}"),))

    def answer(self) -> None:
        asked = [call.id for run in self.world.server.runs.values() for call in run.asks]
        outputs = [{"toolCallID": id_, "output": "4"} for id_ in asked if self.random.random() < 0.8]
        self.world.edit(toolOutputs=outputs or None)

    def store_fault(self) -> None:
        self.world.store_faults.append(Failure(reason=Reason.OUTPUT_NOT_ALLOWED, message="may not"))

    def again(self) -> None:
        self.count += 1
        self.world.create_again(str(self.count))

    def restart(self) -> None:
        self.world.restart()

    def crash(self) -> None:
        self.world.crash = (self.world.steps + self.random.randint(1, 4), self.random.choice(["before", "after"]))

    def fault(self) -> None:
        self.world.server.faults.append(self.random.choice(FAULTS))

    def create_fault(self) -> None:
        self.world.server.creates.append(self.random.choice(CREATES))

    def block(self) -> None:
        self.world.blocked = self.random.choice([None, NO_CREDENTIALS])

    def key(self) -> None:
        self.world.credential = self.random.choice(["key-1", "key-2"])

    def wait(self) -> None:
        self.world.advance(seconds=self.random.choice([1, 10, 100, 1000]))

    def lose(self) -> None:
        # Only a run whose id was recorded: one that vanished before that would be searched for in vain, and made again.
        if self.world.record and self.world.record.id and self.random.random() < 0.3:
            self.world.server.runs.pop(self.world.record.id, None)

    def lose_status(self) -> None:
        if self.both_marks():
            self.world.lose_status()

    def lose_annotation(self) -> None:
        if self.both_marks():
            self.world.annotate(RECORD_ANNOTATION, None)

    def both_marks(self) -> bool:
        run = self.world.run
        return run.record_annotated and run.record == run.status.record

    def delete(self) -> None:
        if self.random.random() < 0.2:
            self.world.delete()

    def go(self) -> None:
        events = [
            *([self.step] * 12),
            *([self.edit, self.restart, self.crash, self.fault, self.create_fault, self.wait] * 2),
            *(self.treat, self.again, self.block, self.key, self.lose, self.lose_status, self.lose_annotation),
            *(self.verbs, self.adopt, self.ask, self.answer, self.store_fault),
            self.delete,
        ]
        for _ in range(self.random.randint(5, 60)):
            if self.world.body is None:
                return
            event = self.random.choice(events)
            self.log.append(event.__name__)
            event()

    def heal(self) -> None:
        world = self.world
        world.crash = world.blocked = None
        world.server.asks.clear()
        world.store_faults.clear()
        if world.body is not None:
            world.edit(runID=None)
        if world.body is not None and self.random.random() < 0.5:
            world.edit(suspend=None, cancel=None)
        world.server.faults.clear()
        world.server.creates.clear()
        world.server.cancel_takes = timedelta(seconds=3)
        world.known.retry_at = None  # as when the Secret changes
        world.settle()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_nothing_runs_twice_and_all_comes_to_rest(seed: int) -> None:
    fate = Fate(seed)
    fate.go()
    fate.heal()
    world = fate.world
    assert_created_once(world)
    assert at_rest(world), (fate.log, world.status)
    if world.body is not None:
        assert not world.run.has_finalizer or world.reason() == "CreateOutcomeUnknown"
        assert world.reason() != "CreateOutcomeUnknown" or "input" in world.object["spec"]
        settled, asked = world.status, len(world.server.log)
        world.restart()
        world.settle()
        assert (world.status, len(world.server.log)) == (settled, asked)
