"""The verbs: cancel, suspend, taking up a run by its id, leaving one alone, deleting oneself. And what is advised."""

from datetime import timedelta
from typing import Any

import pytest
from builders import ASSISTANTS, BAD_KEY, BAD_REQUEST, RESPONSES, START, World

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.actions import Create
from openairun_operator.lifecycle.failure import Failure

WIRES = pytest.mark.parametrize("spec", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])
UNREACHABLE = Failure(reason=Reason.UNREACHABLE, message="cannot be reached")


def running(spec: dict[str, Any] | None = None) -> World:
    world = World(spec)
    world.server.takes = None
    world.until(lambda w: w.status.phase == "InProgress")
    return world


def condition(world: World, type_: str) -> str | None:
    found = world.status.condition(type_)
    return f"{found.status} {found.reason}" if found else None


# --- cancel


@WIRES
def test_cancel_ends_a_run_that_goes(spec: dict[str, Any]) -> None:
    world = running(spec)
    world.edit(cancel=True)
    world.settle()
    assert (world.status.phase, world.reason(), world.server.going()) == ("Cancelled", "Cancelled", [])
    assert "Cancelling" in world.said
    assert world.status.cancelledAt
    assert not world.run.has_finalizer


@WIRES
def test_with_cancel_nothing_is_created_and_nothing_revives_it(spec: dict[str, Any]) -> None:
    world = World(spec | {"cancel": True})
    world.settle()
    assert (world.status.phase, world.reason(), world.server.log) == ("Cancelled", "Cancelled", [])
    assert world.status.finishedAt
    for change in ({"cancel": None}, {"cancel": True}, {"cancel": None}):
        world.edit(**change)
        world.settle()
    world.restart()
    world.settle()
    assert (world.status.phase, world.server.sent) == ("Cancelled", [])


@pytest.mark.parametrize("way", ["definition", "create-again"])
def test_after_cancel_a_new_definition_or_create_again_makes_a_run(way: str) -> None:
    world = World(RESPONSES | {"cancel": True})
    world.settle()
    world.edit(cancel=None)
    world.settle()
    if way == "definition":
        world.edit(instructions="Be short")
    else:
        world.create_again("1")
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)


def test_a_definition_that_changes_under_cancel_is_cancelled_too() -> None:
    world = running()
    world.edit(cancel=True)
    world.settle()
    world.edit(instructions="Be short")
    world.settle()
    world.edit(cancel=None)
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Cancelled", 1)
    assert [past.runID for past in world.status.history or ()] == ["resp_1"]


def test_cancel_wins_over_suspend() -> None:
    world = World(RESPONSES | {"cancel": True, "suspend": True})
    world.settle()
    assert (world.status.phase, condition(world, "Suspended")) == ("Cancelled", None)


def test_cancel_that_is_called_off_in_time_lets_the_run_go_on() -> None:
    world = running()
    world.server.down = UNREACHABLE
    world.edit(cancel=True)
    world.until(lambda w: w.known.failures > 1)
    world.server.down = None
    world.server.takes = timedelta(seconds=60)
    world.edit(cancel=None)
    world.settle()
    assert (world.status.phase, "cancel" in world.server.log[-3:]) == ("Completed", False)


def test_a_cancel_that_is_not_confirmed_ends_at_the_orphan_limit() -> None:
    world = running()
    world.server.cancel_takes = None
    world.edit(cancel=True)
    world.settle()
    assert (world.reason(), world.status.phase) == ("Orphaned", "InProgress")
    assert world.status.finishedAt


def test_cancel_while_a_create_cannot_be_searched_for_comes_to_say_so_and_stays_with_it() -> None:
    world = World(ASSISTANTS)
    world.server.takes = None
    world.server.creates.append("lost answer")
    world.until(lambda w: w.known.failure is not None)
    world.server.down = UNREACHABLE
    world.edit(cancel=True)
    world.until(lambda w: w.now > START + timedelta(minutes=5))
    assert condition(world, "Synced") == "False Unreachable"
    said = list(world.said)
    world.until(lambda w: w.now > START + timedelta(minutes=30))
    assert world.said == said
    world.server.down = None
    world.settle()
    assert (world.status.phase, world.server.going()) == ("Cancelled", [])


def test_cancel_during_a_create_without_an_answer_stays_unknown_where_nothing_can_be_searched_for() -> None:
    world = World()
    world.server.creates.append("lost answer")
    world.settle()
    world.edit(cancel=True)
    world.settle()
    assert world.reason() == "CreateOutcomeUnknown", "a run may go that cancel does not reach: not to be hidden"


def test_cancel_during_a_create_without_an_answer_finds_the_run_and_ends_it() -> None:
    world = World(ASSISTANTS)
    world.server.takes = None
    world.server.creates.append("lost answer")
    world.until(lambda w: w.server.sent)
    world.edit(cancel=True)
    world.settle()
    assert (world.status.phase, world.server.going(), len(world.server.sent)) == ("Cancelled", [], 1)


# --- suspend


@WIRES
def test_suspend_holds_back_the_create_until_it_is_removed(spec: dict[str, Any]) -> None:
    world = World(spec | {"suspend": True})
    world.settle()
    assert (world.status.phase, world.reason(), condition(world, "Suspended")) == (
        "Pending",
        "Suspended",
        "True Suspended",
    )
    assert condition(world, "Reconciling") == "True Suspended"
    assert world.server.log == []
    assert world.record is None, "no claim, and no timeout that counts"
    world.edit(suspend=None)
    world.settle()
    assert (world.status.phase, condition(world, "Suspended"), len(world.server.sent)) == ("Completed", None, 1)


def test_suspend_does_nothing_to_a_run_that_goes_and_says_so() -> None:
    world = running()
    world.server.takes = timedelta(seconds=60)
    world.edit(suspend=True)
    world.until(lambda w: w.status.observedGeneration == 2)
    assert condition(world, "Advisory") == "True NoEffect"
    world.settle()
    assert (world.status.phase, condition(world, "Advisory")) == ("Completed", None)


def test_a_definition_that_changes_under_suspend_ends_the_old_run_and_holds_the_new_one() -> None:
    world = running()
    world.edit(suspend=True, instructions="Be short")
    world.settle()
    assert (world.status.phase, world.reason(), world.server.going()) == ("Pending", "Suspended", [])
    assert [(past.runID, past.phase) for past in world.status.history or ()] == [("resp_1", "Cancelled")]
    assert world.status.runID is None
    assert not world.run.has_finalizer, "nothing is held"
    writes = world.writes
    world.restart()
    world.settle()
    assert (world.writes, len(world.server.sent)) == (writes, 1)
    world.server.takes = timedelta(seconds=20)
    world.edit(suspend=None)
    world.settle()
    assert (world.status.phase, world.status.runID, len(world.server.sent)) == ("Completed", "resp_2", 2)
    assert [past.runID for past in world.status.history or ()] == ["resp_1"]


def test_suspend_between_claim_and_create_sends_nothing() -> None:
    world = World()
    world.until(lambda w: w.record)
    world.edit(suspend=True)
    world.settle()
    assert (world.reason(), world.server.sent) == ("Suspended", [])
    world.edit(suspend=None)
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)


# --- taking up a run by its id


def foreign(spec: dict[str, Any], **fields: Any) -> World:
    """A world in which a run goes that another resource, or a person, created."""
    first = World(spec)
    first.server.takes = None
    first.until(lambda w: w.status.phase == "InProgress")
    world = World(fields)
    world.server, first.server.clock = first.server, lambda: world.now
    world.now = first.now
    world.server.log.clear()
    world.server.sent.clear()
    return world


def test_a_run_is_taken_up_by_its_id_and_nothing_is_created() -> None:
    world = foreign(RESPONSES, runID="resp_1")
    world.until(lambda w: w.status.phase == "InProgress")
    assert (world.status.runID, world.server.sent) == ("resp_1", [])
    assert world.record
    assert world.record.adopted
    assert world.record.recordedAt
    assert world.record.recordedAt > START, "its timeout counts from the moment it was taken up"
    world.delete()
    world.settle()
    assert (world.body, world.server.going()) == (None, [])


def test_a_run_on_a_thread_is_taken_up_by_its_id_and_thread() -> None:
    world = foreign(ASSISTANTS, runID="resp_1", threadID="thread_1")
    world.until(lambda w: w.status.phase == "InProgress")
    assert (world.status.api, world.status.threadID) == ("Assistants", "thread_1")


def test_a_wrong_id_is_a_clear_condition_and_correcting_it_works() -> None:
    world = foreign(RESPONSES, runID="resp_7")
    world.until(lambda w: w.reason() == "RunNotFound")
    assert condition(world, "Stalled") == "True RunNotFound"
    assert (world.status.runID, world.record, world.server.sent) == (None, None, [])
    world.edit(runID="resp_1")
    world.until(lambda w: w.status.phase == "InProgress")
    assert (world.status.runID, condition(world, "Stalled")) == ("resp_1", "False Running")


@pytest.mark.parametrize("before", ["refused", "unknown", "cancelled"])
def test_an_id_is_taken_up_where_there_is_no_run(before: str) -> None:
    world = World(RESPONSES | ({"cancel": True} if before == "cancelled" else {}))
    world.server.takes = None
    if before != "cancelled":
        world.server.creates.append(BAD_REQUEST if before == "refused" else "lost answer")
    world.settle()
    other = world.server.create(world.record.model_copy(update={"token": "other"}))  # type: ignore[union-attr]
    world.server.sent.clear()
    world.edit(runID=other.id, cancel=None)
    world.until(lambda w: w.status.phase == "InProgress")
    assert (world.status.runID, world.server.sent) == (other.id, [])


def test_an_id_beside_a_run_of_its_own_has_no_effect_and_that_is_said() -> None:
    world = running()
    world.edit(runID="resp_9")
    world.until(lambda w: w.status.observedGeneration == 2)
    assert (world.status.runID, condition(world, "Advisory")) == ("resp_1", "True NoEffect")


def test_under_an_id_a_changed_definition_creates_nothing_and_without_it_only_a_later_change_does() -> None:
    world = foreign(RESPONSES, runID="resp_1", input="Say hello", model="m")
    world.until(lambda w: w.status.phase == "InProgress")
    world.edit(instructions="Be short")
    world.until(lambda w: w.status.observedGeneration == 2)
    world.edit(runID=None)
    world.until(lambda w: w.status.observedGeneration == 3)
    assert (world.status.runID, world.server.going(), world.server.sent) == ("resp_1", ["resp_1"], [])
    world.edit(instructions="Be long")
    world.until(lambda w: w.server.sent)
    assert (len(world.server.sent), world.server.going()) == (1, ["resp_2"])


def test_while_openai_cannot_be_asked_an_id_is_neither_taken_up_nor_called_wrong() -> None:
    world = foreign(RESPONSES, runID="resp_1")
    world.server.down = BAD_KEY
    world.until(lambda w: w.reason() == "InvalidCredentials")
    world.server.down = None
    world.known.retry_at = None
    world.until(lambda w: w.status.phase == "InProgress")
    assert world.server.sent == []


# --- leaving a run alone


@WIRES
def test_deletion_policy_orphan_leaves_the_run_alone_and_goes_at_once(spec: dict[str, Any]) -> None:
    world = running(spec | {"deletionPolicy": "Orphan"})
    asked = len(world.server.log)
    world.delete()
    world.settle(limit=timedelta())
    assert (world.body, world.orphan, world.server.going()) == (None, None, ["resp_1"])
    assert len(world.server.log) == asked


def test_a_replaced_run_is_cancelled_whatever_the_deletion_policy() -> None:
    world = running(RESPONSES | {"deletionPolicy": "Orphan"})
    world.edit(instructions="Be short")
    world.until(lambda w: len(w.server.sent) == 2)
    assert world.server.going() == ["resp_2"]


# --- deleting oneself


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "expired", "incomplete"])
def test_a_resource_is_deleted_when_its_time_after_the_end_is_over(end: str) -> None:
    world = World(RESPONSES | {"ttlAfterFinished": "1h"})
    world.server.ends_as = end
    world.until(lambda w: w.status.finishedAt)
    ended = world.now
    world.settle()
    assert world.body is None
    assert ended + timedelta(minutes=59) < world.now <= ended + timedelta(minutes=61)


def test_without_a_ttl_nothing_is_ever_deleted() -> None:
    world = World()
    world.settle()
    world.advance(days=400)
    world.settle()
    assert world.body is not None


def test_a_ttl_of_nothing_deletes_at_once_and_holds_over_a_restart() -> None:
    world = World(RESPONSES | {"ttlAfterFinished": "1h"})
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    world.edit(ttlAfterFinished="0s")
    world.settle(limit=timedelta())
    assert world.body is None


def test_a_ttl_never_removes_a_create_whose_outcome_is_unknown() -> None:
    world = World(RESPONSES | {"ttlAfterFinished": "0s"})
    world.server.creates.append("lost answer")
    world.settle()
    world.advance(days=1)
    world.settle()
    assert world.reason() == "CreateOutcomeUnknown"
    world.create_again("1")
    world.settle()
    world.advance(days=1)
    world.settle()
    assert world.status.phase == "Completed", "its history alone tells of the first create"


@pytest.mark.parametrize("mark", ["argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name"])
def test_a_ttl_on_what_gitops_applies_is_warned_of(mark: str) -> None:
    world = World(RESPONSES | {"ttlAfterFinished": "1h"}, annotations={mark: "x"})
    world.until(lambda w: w.status.runID)
    assert condition(world, "Advisory") == "True TTLUnderGitOps"


# --- fields without effect


def test_stream_for_tool_is_accepted_and_said_to_have_no_effect() -> None:
    world = World(RESPONSES | {"streamForTool": True})
    world.settle()
    assert (world.status.phase, condition(world, "Advisory")) == ("Completed", "True NoEffect")


def test_the_completion_window_is_the_timeout_by_another_name() -> None:
    world = World(RESPONSES | {"completionWindow": 30})
    world.server.takes = None
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    assert world.status.effective
    assert world.status.effective.timeout == "30s"


# --- references


def test_the_input_is_read_once_before_the_create() -> None:
    world = World({"inputFrom": {"configMapKeyRef": {"name": "texts", "key": "q"}}, "model": "m"})
    world.until(lambda w: w.reason() == "ReferenceNotFound")
    assert world.record is None, "nothing is claimed before it can be sent"
    assert condition(world, "Reconciling") == "True ReferenceNotFound", "it may be applied any moment"
    world.texts.add(("texts", "q"))
    world.settle()
    assert (world.status.phase, world.reads, len(world.server.sent)) == ("Completed", 1, 1)


# --- what trying to break it found


def test_with_deletion_policy_orphan_too_an_unknown_create_is_told_of() -> None:
    world = World(RESPONSES | {"deletionPolicy": "Orphan"})
    world.server.creates.append("lost answer")
    world.settle()
    world.delete()
    world.settle()
    assert world.orphan
    assert "token-" in world.orphan


def test_back_to_the_first_definition_under_suspend_a_run_of_it_is_created_once_that_ends() -> None:
    world = running()
    world.edit(suspend=True, instructions="Be short")
    world.settle()
    world.edit(instructions=None)
    world.settle()
    assert (world.reason(), world.status.runID) == ("Suspended", None)
    world.server.takes = timedelta(seconds=20)
    world.edit(suspend=None)
    world.settle()
    assert (world.status.phase, world.status.runID, len(world.server.sent)) == ("Completed", "resp_2", 2)


def test_cancel_beside_a_wrong_id_is_cancelled() -> None:
    world = World({"runID": "resp_none", "cancel": True})
    world.until(lambda w: w.status.finishedAt)
    assert (world.status.phase, world.reason()) == ("Cancelled", "Cancelled")


def test_a_wrong_id_does_not_hide_that_a_create_is_unknown() -> None:
    world = World()
    world.server.creates.append("lost answer")
    world.settle()
    world.edit(runID="resp_none")
    world.until(lambda w: w.reason() == "RunNotFound")
    assert world.status.condition("CreateOutcomeUnknown")


# --- what is said of an id that is not found


def ready(world: World) -> str:
    found = world.status.condition("Ready")
    return found.message if found else ""


def wrong_id(**fields: Any) -> str:
    world = World(fields)
    world.until(lambda w: w.reason() == "RunNotFound")
    return ready(world)


def test_a_wrong_id_is_to_be_removed_only_where_a_definition_stands_beside_it() -> None:
    assert "Correct spec.runID, or remove it to have a run created" in wrong_id(runID="resp_7", **RESPONSES)
    alone = wrong_id(runID="resp_7")
    assert alone.endswith("Correct spec.runID")
    assert "remove" not in alone


def test_a_run_on_a_thread_that_is_not_found_is_looked_for_by_id_and_thread() -> None:
    assert wrong_id(runID="run_7", threadID="thread_1").endswith("Correct spec.runID or spec.threadID")
    said = wrong_id(runID="run_7", **ASSISTANTS)
    assert said.endswith("Correct spec.runID or spec.threadID, or remove spec.runID to have a run created")
    assert "A run on a thread needs spec.threadID" in wrong_id(runID="run_7")
    assert "A run on a thread" not in wrong_id(runID="run_7", threadID="thread_1")


def test_beside_an_unknown_create_a_wrong_id_is_not_said_to_be_removable_for_a_new_run() -> None:
    world = World()
    world.server.creates.append("lost answer")
    world.settle()
    unknown = ready(world)
    world.edit(runID="resp_none")
    world.until(lambda w: w.reason() == "RunNotFound")
    assert "to have a run created" not in ready(world)
    assert "Removing it creates nothing" in ready(world)
    world.edit(runID=None)
    world.settle()
    assert (world.reason(), ready(world)) == ("CreateOutcomeUnknown", unknown)


def test_a_claim_whose_reference_went_meanwhile_reads_it_no_oftener_than_any_other() -> None:
    world = World({"inputFrom": {"configMapKeyRef": {"name": "texts", "key": "q"}}, "model": "m"})
    world.texts.add(("texts", "q"))
    world.until(lambda w: isinstance(w.decide().action, Create))
    world.texts.clear()
    world.advance(minutes=2)
    began = world.now
    world.go_on(50)
    assert world.reason() == "ReferenceNotFound"
    assert world.now - began > timedelta(minutes=5), "it waits between two tries"
    world.texts.add(("texts", "q"))
    world.settle()
    assert (world.status.phase, len(world.server.sent)) == ("Completed", 1)


# --- advice


def advised(world: World) -> str:
    found = world.status.condition("Advisory")
    return found.message if found else ""


def test_create_again_under_an_id_is_said_to_have_no_effect() -> None:
    world = foreign(RESPONSES, runID="resp_1")
    world.until(lambda w: w.status.phase == "InProgress")
    assert advised(world) == ""
    world.create_again("1")
    world.until(lambda w: w.record and w.record.createAgain == "1" and advised(w))
    assert advised(world) == "create-again has no effect while spec.runID is set"
    assert condition(world, "Advisory") == "True NoEffect"
    assert world.server.sent == []


def test_suspend_is_not_said_to_have_no_effect_on_a_run_that_is_being_replaced() -> None:
    world = running()
    world.server.cancel_takes = None
    world.edit(suspend=True, instructions="Be short")
    world.until(lambda w: w.reason() == "Replacing")
    assert condition(world, "Advisory") is None
    world.settle()
    assert (world.reason(), condition(world, "Advisory")) == ("Suspended", None)
