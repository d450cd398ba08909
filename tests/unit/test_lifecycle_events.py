"""Events: on transitions only."""

from datetime import timedelta

import pytest
from builders import BAD_KEY, BAD_REQUEST, NO_CREDENTIALS, START, World, record, seen

from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import Condition, OpenAIRunStatus
from openairun_operator.lifecycle.events import Event, events
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.observation import Call

DOWN = Failure(reason=Reason.UNREACHABLE, message="cannot be reached")


class Watched(World):
    """A world that notes its events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, str]] = []

    def _show(self, status: OpenAIRunStatus) -> bool:
        before = self.status
        wrote = super()._show(status)
        if wrote:
            cancel = bool(self.run.spec and self.run.spec.cancel)
            self.events += [(event.type, event.reason) for event in events(before, status, cancel=cancel)]
        return wrote


def test_a_life_that_goes_well_is_two_events() -> None:
    world = Watched()
    world.settle()
    assert world.events == [("Normal", "Created"), ("Normal", "Completed")]


def test_a_refused_definition_is_one_warning() -> None:
    world = Watched()
    world.server.creates.append(BAD_REQUEST)
    world.settle()
    assert world.events == [("Warning", "InvalidRequest")]


@pytest.mark.parametrize("failure", [NO_CREDENTIALS, BAD_KEY], ids=lambda f: f.reason)
def test_what_a_person_must_act_on_is_one_warning_however_long_it_takes(failure: Failure) -> None:
    world = Watched()
    world.server.creates.extend([failure] * 10)
    world.settle()
    assert world.events.count(("Warning", failure.reason)) == 1


def test_trouble_is_one_warning_and_its_end_none() -> None:
    world = Watched()
    world.server.takes = timedelta(minutes=5)
    world.until(lambda w: w.status.phase == "InProgress")
    world.server.faults.extend([DOWN] * 5)
    world.settle()
    assert world.events == [("Normal", "Created"), ("Warning", "Unreachable"), ("Normal", "Completed")]


def test_an_unknown_create_and_a_passed_deadline_are_warnings() -> None:
    world = Watched()
    world.server.creates.append("lost answer")
    world.settle()
    world.server.takes = None
    world.create_again("1")
    world.settle()
    assert world.events == [
        ("Warning", "CreateOutcomeUnknown"),
        ("Normal", "Created"),
        ("Warning", "DeadlineExceeded"),
    ]


def test_a_run_that_requires_action_says_so_once() -> None:
    world = Watched()
    world.server.takes = None
    world.until(lambda w: w.status.phase == "InProgress")
    for _ in range(3):
        world.known.observation = seen("requires_action", id="resp_1")
        world._show(world.decide().status)
    assert world.events == [("Normal", "Created"), ("Normal", "ActionRequired")]


@pytest.mark.parametrize("after", [0, 3, 10], ids=lambda seconds: f"after {seconds} s")
def test_a_run_that_was_cancelled_as_the_user_wants_is_no_warning(after: int) -> None:
    world = Watched()
    world.server.takes = None
    world.until(lambda w: not after or (w.status.createdAt and w.now >= w.status.createdAt + timedelta(seconds=after)))
    world.edit(cancel=True)
    world.settle()
    assert world.events[-1] == ("Normal", "Cancelled")
    assert {type_ for type_, _ in world.events} == {"Normal"}


@pytest.mark.parametrize("asks", [False, True], ids=["that goes", "that waits for tool results"])
def test_a_run_that_makes_way_for_another_is_no_warning(asks: bool) -> None:
    world = Watched()
    if asks:
        world.server.asks.append((Call("call_1", "add", "{}"),))
    else:
        world.server.takes = None
    world.until(lambda w: w.status.phase == ("RequiresAction" if asks else "InProgress"))
    world.server.takes = timedelta(seconds=20)
    world.edit(input="another")
    world.settle()
    assert [each for each in world.events if each != ("Normal", "ActionRequired")] == [
        ("Normal", "Created"),
        ("Normal", "Cancelled"),
        ("Normal", "Created"),
        ("Normal", "Completed"),
    ]


@pytest.mark.parametrize("status", ["cancelling", "cancelled"])
def test_a_run_that_somebody_cancelled_at_openai_is_a_warning(status: str) -> None:
    world = Watched()
    world.server.takes = None
    world.until(lambda w: w.status.phase == "InProgress")
    if status == "cancelling":
        world.server.cancel("resp_1")
    else:
        world.server.runs["resp_1"].end = "cancelled"
    world.settle()
    assert world.events == [("Normal", "Created"), ("Warning", "Cancelled")]


def test_no_event_without_a_change() -> None:
    world = World()
    world.settle()
    assert events(world.status, world.status, cancel=False) == []


def test_a_reason_of_another_version_stops_nothing() -> None:
    condition = Condition(type="Ready", status="False", reason="ReasonOfTheFuture", lastTransitionTime=START)
    before = OpenAIRunStatus(conditions=[condition])
    after = before.model_copy(update={"runID": "resp_1", "api": "Responses"})
    assert events(before, after, cancel=False) == [
        Event("Normal", Reason.CREATED, "Run resp_1 was created over the Responses API")
    ]


def test_a_run_that_was_taken_up_is_not_said_to_be_created() -> None:
    world = World({"runID": "resp_1"})
    world.server.create(record(token="another's"))
    world.until(lambda w: w.status.runID)
    (event,) = events(OpenAIRunStatus(), world.status, cancel=False)
    assert (event.reason, "taken up" in event.message) == ("Adopted", True)


def test_an_answer_that_is_not_stored_and_a_ttl_under_gitops_are_warned_of() -> None:
    marks = {"argocd.argoproj.io/tracking-id": "x"}
    spec = {"input": "x", "model": "m", "outputTo": {"configMap": "a"}, "ttlAfterFinished": "1h"}
    world = World(spec, annotations=marks)
    world.store_faults.append(Failure(reason=Reason.OUTPUT_NOT_ALLOWED, message="may not"))
    world.until(lambda w: w.status.finishedAt)
    before = OpenAIRunStatus()
    types = {event.reason: event.type for event in events(before, world.status, cancel=False)}
    assert (types[Reason.TTL_UNDER_GITOPS], types[Reason.OUTPUT_NOT_ALLOWED]) == ("Warning", "Warning")
    world.until(lambda w: w.status.output and w.status.output.configMap)
    before = world.status.model_copy(update={"conditions": []})
    assert ("Normal", Reason.STORED) in [(e.type, e.reason) for e in events(before, world.status, cancel=False)]


def test_tool_outputs_that_are_refused_are_one_warning() -> None:
    world = Watched()
    world.server.asks.append((Call("call_1", "add", "{}"),))
    world.until(lambda w: w.status.phase == "RequiresAction")
    world.server.creates.append(BAD_REQUEST)
    world.edit(toolOutputs=[{"toolCallID": "call_1", "output": "2"}])
    world.until(lambda w: w.reason() == "ToolOutputsRefused")
    world.settle()
    assert world.events[:3] == [
        ("Normal", "Created"),
        ("Normal", "ActionRequired"),
        ("Warning", "ToolOutputsRefused"),
    ]
    assert [reason for _, reason in world.events].count("ToolOutputsRefused") == 1
