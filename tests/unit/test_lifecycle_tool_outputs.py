"""Tool outputs: submitted once, when all calls are answered, and never sent twice for want of an answer."""

from datetime import timedelta
from typing import Any

import pytest
from builders import ASSISTANTS, BAD_KEY, BAD_REQUEST, NO_ANSWER, RATE_LIMITED, RESPONSES, World, record

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Turn, Usage
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle import turns
from openairun_operator.lifecycle.actions import Create, Submit
from openairun_operator.lifecycle.failure import Failure, Outcome
from openairun_operator.lifecycle.ledger import Ledger
from openairun_operator.lifecycle.observation import Call, RunObservation
from openairun_operator.lifecycle.run import dump_record, parse

WIRES = pytest.mark.parametrize("spec", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])
ADD, MUL = Call("call_1", "add", '{"a": 1}'), Call("call_2", "multiply", "{}")
APPROVAL = Call("mcpr_1", "delete_all", "{}", type="mcp_approval", server="files")
ANSWERS = [{"toolCallID": "call_1", "output": "2"}, {"toolCallID": "call_2", "output": "3"}]


def asking(spec: dict[str, Any] | None = None, *calls: Call, **fields: Any) -> World:
    """A world in which a run waits for the results of tool calls."""
    world = World((spec or RESPONSES) | fields)
    world.server.asks.append(calls or (ADD, MUL))
    world.until(lambda w: w.status.phase == "RequiresAction")
    return world


def message(world: World, type_: str = "Ready") -> str:
    condition = world.status.condition(type_)
    return condition.message if condition else ""


@WIRES
def test_a_run_that_asks_shows_its_calls_and_how_to_answer(spec: dict[str, Any]) -> None:
    world = asking(spec)
    assert world.status.requiredAction
    assert [(c.id, c.name, c.arguments) for c in world.status.requiredAction.toolCalls] == [
        ("call_1", "add", '{"a": 1}'),
        ("call_2", "multiply", "{}"),
    ]
    assert world.reason() == "ActionRequired"
    assert "spec.toolOutputs" in message(world)


@WIRES
def test_all_answered_they_are_submitted_once_and_the_run_stays_one(spec: dict[str, Any]) -> None:
    world = asking(spec)
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert (world.status.phase, world.status.runID) == ("Completed", "resp_1")
    ((one, two),) = world.server.submitted
    assert ((one.id, one.output), (two.id, two.output)) == (("call_1", "2"), ("call_2", "3"))
    assert world.status.requiredAction is None
    assert world.status.condition("ActionRequired") is None
    assert world.status.history is None
    if spec == RESPONSES:
        assert (world.status.responseIDs, world.status.responseCount) == (["resp_1", "resp_2"], 2)


@WIRES
def test_answers_that_are_there_before_they_are_asked_for_go_at_once(spec: dict[str, Any]) -> None:
    world = World(spec | {"toolOutputs": ANSWERS})
    world.server.asks.append((ADD, MUL))
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)


@WIRES
def test_while_one_is_missing_nothing_is_submitted_and_that_is_said(spec: dict[str, Any]) -> None:
    world = asking(spec)
    world.edit(toolOutputs=[ANSWERS[0], {"toolCallID": "call_9", "output": ""}])
    world.until(lambda w: w.status.observedGeneration == 2)
    assert "multiply (call_2)" in message(world)
    assert "of no call of this run: call_9" in message(world)
    assert world.server.submitted == []
    world.edit(toolOutputs=[*ANSWERS, {"toolCallID": "call_9", "output": ""}])
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)


def test_an_approval_is_answered_by_yes_or_no_and_by_nothing_else() -> None:
    world = asking(RESPONSES, APPROVAL)
    world.edit(toolOutputs=[{"toolCallID": "mcpr_1", "output": "yes"}])
    world.until(lambda w: w.status.observedGeneration == 2)
    assert "mcpr_1 needs approve" in message(world)
    world.edit(toolOutputs=[{"toolCallID": "mcpr_1", "approve": False}])
    world.settle()
    ((result,),) = world.server.submitted
    assert (result.type, result.approve) == ("mcp_approval", False)


def test_a_second_round_is_asked_and_answered_with_the_first_answers_left_alone() -> None:
    world = World(RESPONSES)
    world.server.asks.extend([(ADD,), (MUL,)])
    world.until(lambda w: w.status.phase == "RequiresAction")
    world.edit(toolOutputs=ANSWERS[:1])
    world.until(lambda w: w.status.requiredAction and w.status.requiredAction.toolCalls[0].id == "call_2")
    assert "of no call" not in message(world)
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert (world.status.phase, world.status.responseIDs) == ("Completed", ["resp_1", "resp_2", "resp_3"])
    assert [[result.id for result in results] for results in world.server.submitted] == [["call_1"], ["call_2"]]


def test_outputs_that_stand_elsewhere_are_read_when_all_calls_are_answered() -> None:
    world = asking()
    elsewhere = {"toolCallID": "call_2", "outputFrom": {"configMapKeyRef": {"name": "texts", "key": "two"}}}
    world.edit(toolOutputs=[ANSWERS[0], elsewhere])
    world.until(lambda w: w.reason() == "ReferenceNotFound")
    assert world.server.submitted == []
    world.texts.add(("texts", "two"))
    world.settle()
    ((_, two),) = world.server.submitted
    assert two.output == "read"
    assert world.status.phase == "Completed"


@WIRES
def test_outputs_that_are_refused_are_not_sent_again_until_they_change(spec: dict[str, Any]) -> None:
    world = asking(spec, timeout="1h")
    world.server.creates.append(BAD_REQUEST)
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "ToolOutputsRefused")
    assert BAD_REQUEST.message in message(world, "ActionRequired")
    world.restart()
    world.advance(minutes=2)
    for _ in range(20):
        world.step()
    assert BAD_REQUEST.message in message(world, "ActionRequired"), "OpenAI's words are kept over a restart"
    assert world.server.log.count("submit") == 1
    world.edit(toolOutputs=[ANSWERS[0], {"toolCallID": "call_2", "output": "better"}])
    world.settle()
    assert (world.status.phase, world.server.log.count("submit")) == ("Completed", 2)


@WIRES
@pytest.mark.parametrize("fault", [RATE_LIMITED, BAD_KEY], ids=["limited", "key"])
def test_outputs_that_surely_did_not_arrive_are_sent_again(spec: dict[str, Any], fault: Any) -> None:
    world = asking(spec, timeout="1h")
    world.server.creates.append(fault)
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)


@pytest.mark.parametrize("arrived", [True, False])
def test_on_a_thread_the_run_itself_tells_whether_outputs_without_an_answer_were_taken(arrived: bool) -> None:
    world = asking(ASSISTANTS)
    world.server.creates.append("lost answer" if arrived else NO_ANSWER)
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)
    assert world.server.log.count("submit") == (1 if arrived else 2)


@pytest.mark.parametrize("claimed", [-600, 0, 600], ids=["long ago", "now", "by a clock that was ahead"])
@pytest.mark.parametrize("restarted", [False, True], ids=["lives", "restarted"])
def test_how_long_outputs_may_be_on_their_way_counts_from_the_first_look_after_them(
    claimed: int, restarted: bool
) -> None:
    world = asking(ASSISTANTS, timeout="24h")
    world.server.takes = None
    world.server.creates.append(NO_ANSWER)
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: isinstance(w.decide().action, Submit))
    record = world.record
    assert record
    assert record.turn
    turn = record.turn.model_copy(update={"submittedAt": record.turn.submittedAt + timedelta(seconds=claimed)})
    record = record.model_copy(update={"turn": turn})
    world.annotate(RECORD_ANNOTATION, dump_record(record))
    world.object["status"]["record"] = record.model_dump(mode="json", exclude_none=True)
    world.step()
    assert world.server.log[-1] == "submit"
    if restarted:
        world.restart()
    begun = world.now
    world.until(lambda w: w.server.log.count("submit") == 2)
    assert timedelta(seconds=35) <= world.now - begun <= timedelta(seconds=50)


def test_a_look_from_before_a_submission_that_another_process_made_tells_nothing_of_it() -> None:
    world = asking(ASSISTANTS, timeout="24h")
    world.server.takes = None
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: isinstance(w.decide().action, Submit))
    world.known.ledger = Ledger()  # it has the right to act again, and the other died in its stead
    world.known.observation = RunObservation(id="resp_1", status="in_progress", thread="thread_1")
    world.known.looked_at = world.now + timedelta(minutes=1)  # by a clock that was ahead
    world.until(lambda w: w.server.submitted)
    assert world.server.log.count("submit") == 1


def test_another_submission_is_waited_for_anew() -> None:
    world = asking(ASSISTANTS, timeout="24h")
    world.server.takes = None
    world.server.creates.extend([NO_ANSWER, NO_ANSWER])
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.log.count("submit") == 2)
    begun = world.now
    world.until(lambda w: w.server.log.count("submit") == 3)
    assert world.now - begun >= timedelta(seconds=35)


def test_a_clock_that_is_set_back_does_not_delay_a_submission() -> None:
    world = asking(ASSISTANTS, timeout="24h")
    world.server.takes = None
    world.advance(hours=2)
    world.server.creates.append(NO_ANSWER)
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.log[-2:] == ["submit", "observe"])
    world.known.turn_back(world.now)
    world.now -= timedelta(hours=1)
    world.known.turn_back(world.now)
    begun = world.now
    world.until(lambda w: w.server.log.count("submit") == 2)
    assert timedelta(seconds=35) <= world.now - begun <= timedelta(seconds=50)


def test_over_responses_outputs_without_an_answer_are_not_sent_again_and_that_is_said() -> None:
    world = asking(RESPONSES, timeout="1h")
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    assert world.status.phase == "RequiresAction"
    assert "openairun.dev/create-again" in message(world)
    world.restart()
    world.advance(minutes=5)
    for _ in range(10):
        world.step()
    assert (world.reason(), world.server.log.count("submit")) == ("CreateOutcomeUnknown", 1)
    world.create_again("1")
    world.settle()
    assert world.server.log.count("create") == 2, "all of it, from the start"


def test_over_responses_they_are_sent_once_more_where_the_team_prefers_that() -> None:
    world = asking(RESPONSES, onUnknownCreate="CreateAgain", timeout="1h")
    world.server.creates.extend(["lost answer", "lost answer"])
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    assert world.server.log.count("submit") == 2, "once more, not without end"


def test_an_unknown_submission_ends_at_the_deadline_and_stays_told_of_when_it_is_deleted() -> None:
    world = asking(RESPONSES, timeout="5m")
    world.server.takes = None
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert world.reason() == "DeadlineExceeded"
    assert world.status.condition("CreateOutcomeUnknown"), "a response may still go"


def test_deleting_during_an_unknown_submission_names_what_may_be_left() -> None:
    world = asking(RESPONSES, timeout="1h")
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    world.delete()
    world.settle()
    assert world.orphan
    assert "resp_1" in world.orphan


@WIRES
def test_deleting_after_a_submission_cancels_what_goes_now(spec: dict[str, Any]) -> None:
    world = asking(spec)
    world.server.takes = None
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.submitted and w.status.phase == "InProgress")
    world.delete()
    world.settle()
    assert (world.body, world.server.going(), world.orphan) == (None, [], None)


@WIRES
def test_the_timeout_keeps_counting_over_tool_outputs(spec: dict[str, Any]) -> None:
    world = asking(spec, timeout="2m")
    world.server.takes = None
    asked = world.record and world.record.recordedAt
    world.advance(seconds=100)
    world.edit(toolOutputs=ANSWERS)
    world.settle()
    assert asked
    assert world.reason() == "DeadlineExceeded"
    assert world.status.finishedAt
    assert world.status.finishedAt < asked + timedelta(minutes=3)
    assert world.server.going() == []


def test_edits_between_claim_and_submission_send_the_last_answers_alone() -> None:
    world = asking()
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: isinstance(w.decide().action, Submit))
    world.edit(toolOutputs=[ANSWERS[0], {"toolCallID": "call_2", "output": "better"}])
    world.settle()
    ((_, two),) = world.server.submitted
    assert two.output == "better"


def test_a_definition_that_changes_replaces_the_run_and_its_answers_are_left_alone() -> None:
    world = asking()
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.submitted)
    world.edit(instructions="Be short")
    world.settle()
    assert (world.status.phase, world.status.runID, len(world.server.submitted)) == ("Completed", "resp_3", 1)
    assert world.server.going() == []


@WIRES
def test_cancel_ends_a_run_that_waits_for_answers(spec: dict[str, Any]) -> None:
    world = asking(spec)
    world.edit(cancel=True)
    world.settle()
    assert (world.status.phase, world.reason(), world.server.going()) == ("Cancelled", "Cancelled", [])
    assert world.status.requiredAction is None


def test_a_response_that_waits_for_answers_is_not_asked_again_before_they_are_there() -> None:
    world = asking(RESPONSES, timeout="1h")
    asked = len(world.server.log)
    for _ in range(5):
        match world.step():
            case bool():
                pass
            case moment:
                assert moment - world.now > timedelta(minutes=50), "nothing is due before the deadline"
    assert len(world.server.log) == asked


@WIRES
def test_the_same_calls_shown_a_while_longer_are_not_answered_again(spec: dict[str, Any]) -> None:
    world = asking(spec)
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.submitted)
    if spec == ASSISTANTS:
        world.server.runs["resp_1"].answered_at = None  # a replica that lags behind
        world.known.look_at = None
        world.step()
        assert world.status.phase != "RequiresAction"
        world.server.runs["resp_1"].answered_at = world.now
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)


def test_tokens_are_counted_over_all_responses() -> None:
    both = turns.add(Usage(promptTokens=1, totalTokens=3), Usage(promptTokens=2, cachedTokens=1))
    assert both == Usage(promptTokens=3, totalTokens=3, cachedTokens=1)
    assert turns.add(None, None) is None
    most = Usage(totalTokens=2**63 - 1)
    assert turns.add(most, most) == most, "an API server would refuse the whole status for more"


@pytest.mark.parametrize("which", ["annotation", "status"])
def test_of_annotation_and_mirror_the_one_that_knows_more_of_the_turn_counts(which: str) -> None:
    made = record().submittedAt
    turn = Turn(token="t", state="claimed", digest="d", calls=["call_1"], submittedAt=made + timedelta(minutes=1))
    before, after = record(turn=turn), record(turn=turn.model_copy(update={"state": "taken"}), current="resp_2")
    world = World(RESPONSES, annotation=after if which == "annotation" else before)
    mirror = before if which == "annotation" else after
    world.object["status"] = {"record": mirror.model_dump(mode="json", exclude_none=True)}
    run = parse(world.object)
    assert run.record
    assert run.record.followed == "resp_2"


@WIRES
@pytest.mark.parametrize("point", ["before", "after"])
def test_a_restart_at_any_step_never_submits_twice(spec: dict[str, Any], point: str) -> None:
    def life(world: World) -> None:
        world.server.asks.append((ADD, MUL))
        world.until(lambda w: w.status.phase == "RequiresAction" or w.reason() == "CreateOutcomeUnknown")
        world.edit(toolOutputs=ANSWERS)
        world.settle()

    whole = World(spec)
    life(whole)
    assert whole.status.phase == "Completed"
    for step in range(1, whole.steps + 1):
        world = World(spec)
        world.crash = (step, point)
        life(world)
        assert len(world.server.submitted) <= 1, (step, point)
        told = {"Completed"} | ({"DeadlineExceeded", "CreateOutcomeUnknown"} if spec == RESPONSES else set())
        assert world.reason() in told, (step, point, world.reason())
        assert world.reason() == "CreateOutcomeUnknown" or not world.server.going(), "nobody follows it"


# --- what trying to break it found


def test_create_again_beside_tool_outputs_reads_the_input_anew() -> None:
    source = {"configMapKeyRef": {"name": "texts", "key": "q"}}
    world = World({"inputFrom": source, "model": "m"})
    world.texts.add(("texts", "q"))
    world.server.asks.append((ADD, MUL))
    world.until(lambda w: w.status.phase == "RequiresAction")
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.known.contents is not None)
    world.create_again("1")
    world.until(lambda w: isinstance(w.decide().action, Create))
    contents = world.known.contents
    assert contents
    assert contents.input == "read", "read for the submission it was not"


def test_an_output_whose_reference_changes_is_read_anew() -> None:
    world = asking(RESPONSES, ADD)
    world.texts.update({("texts", "a"), ("texts", "b")})

    def output(key: str) -> list[dict[str, Any]]:
        return [{"toolCallID": "call_1", "outputFrom": {"configMapKeyRef": {"name": "texts", "key": key}}}]

    world.edit(toolOutputs=output("a"))
    world.until(lambda w: w.reads == 1)
    world.edit(toolOutputs=output("b"))
    world.settle()
    assert (world.status.phase, world.reads) == ("Completed", 2)


def test_what_was_read_long_ago_is_read_anew() -> None:
    world = World({"inputFrom": {"configMapKeyRef": {"name": "texts", "key": "q"}}, "model": "m"})
    world.texts.add(("texts", "q"))
    world.until(lambda w: w.reads == 1)
    world.edit(suspend=True)
    world.settle()
    world.advance(hours=1)
    world.edit(suspend=None)
    world.settle()
    assert (world.status.phase, world.reads) == ("Completed", 2)


def test_create_again_of_a_submission_is_once_over_crashes_too() -> None:
    world = asking(RESPONSES, onUnknownCreate="CreateAgain", timeout="24h")
    world.server.takes = None
    world.edit(toolOutputs=ANSWERS)
    for _ in range(6):
        world.until(lambda w: isinstance(w.decide().action, Submit) or w.reason() == "CreateOutcomeUnknown")
        if world.reason() == "CreateOutcomeUnknown":
            break
        world.crash = (world.steps + 1, "after")
        world.step()
        world.crash = None
    assert (world.reason(), world.server.log.count("submit")) == ("CreateOutcomeUnknown", 2)


def test_a_turn_is_later_than_the_one_before_whatever_the_clock_says() -> None:
    world = asking(ASSISTANTS, timeout="1h")
    world.server.creates.append(RATE_LIMITED)
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.record and w.record.turn and w.record.turn.state == "released")
    assert world.record
    assert world.record.turn
    before = world.record.turn.submittedAt
    world.restart()
    world.now -= timedelta(seconds=40)
    world.until(lambda w: w.record and w.record.turn and w.record.turn.state == "claimed")
    assert world.record.turn
    assert world.record.turn.submittedAt > before


@pytest.mark.parametrize("why", ["refused", "reference"])
def test_a_run_on_a_thread_whose_outputs_cannot_be_sent_is_looked_at_all_the_same(why: str) -> None:
    world = asking(ASSISTANTS, timeout="24h")
    source = {"configMapKeyRef": {"name": "none", "key": "none"}}
    if why == "refused":
        world.server.creates.append(BAD_REQUEST)
        world.edit(toolOutputs=ANSWERS)
        world.until(lambda w: w.reason() == "ToolOutputsRefused")
    else:
        world.edit(toolOutputs=[ANSWERS[0], {"toolCallID": "call_2", "outputFrom": source}])
        world.until(lambda w: w.reason() == "ReferenceNotFound")
    world.server.runs["resp_1"].end = "expired"
    began = world.now
    world.settle()
    assert world.status.phase == "Expired"
    assert world.now - began < timedelta(minutes=10)


def test_a_ttl_keeps_what_tells_of_a_response_that_may_still_go() -> None:
    world = asking(RESPONSES, ttlAfterFinished="1s", timeout="1h")
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    world.edit(cancel=True)
    world.settle()
    assert (world.reason(), world.body is None) == ("Orphaned", False)
    assert world.status.condition("CreateOutcomeUnknown")
    assert "tool outputs" in message(world)


def test_with_deletion_policy_orphan_too_an_unknown_response_is_told_of() -> None:
    world = asking(RESPONSES, deletionPolicy="Orphan", timeout="1h")
    world.server.creates.append("lost answer")
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    world.delete()
    world.settle()
    assert world.orphan
    assert "resp_1" in world.orphan
    assert "datetime" not in world.orphan


# --- which of several responses is meant


def goes_on(spec: dict[str, Any] | None = None, **fields: Any) -> World:
    """A world in which the second response of a run goes, and no cancel ends it."""
    world = asking(spec, **fields)
    world.server.takes = world.server.cancel_takes = None
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.server.submitted and w.status.phase == "InProgress")
    return world


@pytest.mark.parametrize(
    ("edit", "reason"), [({"cancel": True}, "Orphaned"), ({"timeout": "1m"}, "DeadlineExceeded")], ids=str
)
def test_what_may_still_go_is_named_by_the_last_response(edit: dict[str, Any], reason: str) -> None:
    world = goes_on()
    world.edit(**edit)
    world.until(lambda w: w.reason() in ("Cancelling", "DeadlineExceeded"))
    assert "run resp_1 (last response resp_2)" in message(world).lower()
    world.settle()
    assert world.reason() == reason
    assert "Run resp_1 (last response resp_2)" in message(world)
    assert "may still go" in message(world)


def test_a_replaced_run_and_its_history_tell_of_the_last_response() -> None:
    world = goes_on()
    world.edit(instructions="Be short")
    world.until(lambda w: w.reason() == "Replacing")
    assert "run resp_1 (last response resp_2)" in message(world)
    world.until(lambda w: w.status.history)
    assert "Run resp_1 (last response resp_2)" in message(world)
    (past,) = world.status.history or ()
    assert (past.runID, past.lastResponseID, past.reason) == ("resp_1", "resp_2", "Orphaned")


def test_a_run_of_one_response_is_named_by_its_id_alone() -> None:
    world = World()
    world.settle()
    world.edit(instructions="Be short")
    world.settle()
    (past,) = world.status.history or ()
    assert (past.runID, past.lastResponseID) == ("resp_1", None)


def test_a_lost_run_is_named_by_the_response_that_is_not_found() -> None:
    world = goes_on()
    del world.server.runs["resp_2"]
    world.settle()
    assert world.reason() == "Lost"
    assert "Run resp_1 (last response resp_2) is no longer known" in message(world)


def test_a_deleted_run_that_may_still_go_is_named_by_its_last_response() -> None:
    world = goes_on()
    world.delete()
    world.settle()
    assert world.orphan == "run resp_1 (last response resp_2)"


@WIRES
def test_a_claimed_turn_whose_reference_went_meanwhile_reads_it_no_oftener_than_any_other(
    spec: dict[str, Any],
) -> None:
    world = asking(spec, ADD, timeout="24h")
    world.texts.add(("texts", "a"))
    source = {"configMapKeyRef": {"name": "texts", "key": "a"}}
    world.edit(toolOutputs=[{"toolCallID": "call_1", "outputFrom": source}])
    world.until(lambda w: isinstance(w.decide().action, Submit))
    world.texts.clear()
    world.advance(minutes=2)
    began = world.now
    world.go_on(50)
    assert world.reason() == "ReferenceNotFound"
    assert world.now - began > timedelta(minutes=5), "it waits between two tries"
    world.texts.add(("texts", "a"))
    world.settle()
    assert (world.status.phase, len(world.server.submitted)) == ("Completed", 1)


def test_a_long_answer_to_a_submission_takes_no_room_of_the_request_id() -> None:
    world = asking(RESPONSES, timeout="1h")
    words = f"OpenAI said 500: {'long ' * 100}(request id req_1)"
    world.server.creates.append(Failure(reason=Reason.SERVER_ERROR, message=words, outcome=Outcome.UNKNOWN))
    world.edit(toolOutputs=ANSWERS)
    world.until(lambda w: w.reason() == "CreateOutcomeUnknown")
    assert "… (request id req_1))" in message(world)


def test_an_approval_is_asked_for_as_what_it_is() -> None:
    alone, both = asking(RESPONSES, APPROVAL), asking(RESPONSES, ADD, APPROVAL)
    assert message(alone).startswith("Run resp_1 waits for leave to make tool calls: delete_all.")
    assert "spec.toolOutputs lacks delete_all (mcpr_1, by approve)" in message(alone)
    assert "waits for the results of tool calls: add, delete_all" in message(both)
    assert "lacks add (call_1), delete_all (mcpr_1, by approve)" in message(both)
    status = both.status
    assert st.verdict_of(status, wait=True).message.endswith(
        "Answer them in spec.toolOutputs, MCP approvals by approve"
    )
