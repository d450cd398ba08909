"""A run goes through its whole life the same way on both wires, whatever the server has in store for it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from openairun_devkit.openai import SHORTHANDS, OpenAIStandIn
from openairun_operator.api.names import TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

START = 1_790_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Life:
    """One wire to a stand-in whose clock is ours."""

    def __init__(self, api: API, server: OpenAIStandIn, clock: Clock, wire: Wire) -> None:
        self.api, self.server, self.clock, self.wire = api, server, clock, wire

    async def create(self, script: str, **metadata: str) -> RunObservation:
        spec = {"input": "Hello"} if self.api == "Responses" else {"assistantID": "asst_1", "threadID": "thread_1"}
        told = {"standin": script, **metadata}
        return await self.wire.create(CreateRequest(OpenAIRunSpec.model_validate(spec), "gpt-standin", told))

    def ref(self, run: RunObservation) -> RunRef:
        return RunRef(self.api, run.id, run.thread)

    async def after(self, seconds: float, run: RunObservation) -> RunObservation:
        """What is observed `seconds` later."""
        self.clock.now += seconds
        return await self.wire.observe(self.ref(run))

    async def cancel(self, run: RunObservation) -> RunObservation:
        return await self.wire.cancel(self.ref(run))


@pytest.fixture(params=["Responses", "Assistants"])
async def life(request: pytest.FixtureRequest) -> AsyncIterator[Life]:
    clock, clients = Clock(), Clients(5)
    async with OpenAIStandIn(clock=clock) as server:
        yield Life(request.param, server, clock, wire(request.param, clients, Credentials(server.url, "sk-standin")))
        await clients.close()


ENDS: dict[str, tuple[str, str]] = {
    # script: the last status on the responses wire, and on the assistants wire
    "complete": ("completed", "completed"),
    "fail": ("failed", "failed"),
    "incomplete": ("incomplete", "incomplete"),
    "expire": ("failed", "expired"),
    "requires_action": ("requires_action", "requires_action"),
    "two_calls": ("requires_action", "requires_action"),
    "twice": ("requires_action", "requires_action"),
    "custom_call": ("requires_action", "requires_action"),
    "mcp_approval": ("requires_action", "requires_action"),
    "cites": ("completed", "completed"),
    "never": ("in_progress", "in_progress"),
    "stuck_queued": ("queued", "queued"),
    "slow_cancel": ("in_progress", "in_progress"),
    "uncancellable": ("in_progress", "in_progress"),
    "long": ("completed", "completed"),
    "odd": ("completed", "completed"),
}


def test_every_script_of_the_stand_in_is_followed_to_its_end() -> None:
    assert set(ENDS) | {"vanish"} == set(SHORTHANDS)


@pytest.mark.parametrize("script", ENDS)
async def test_a_run_is_followed_to_its_end(life: Life, script: str) -> None:
    created = await life.create(script)
    assert created.id == life.server.runs()[0].id
    assert created.object == ("response" if life.api == "Responses" else "thread.run")
    assert created.thread == (None if life.api == "Responses" else "thread_1")
    assert (created.created_at, created.model, created.text) == (START, "gpt-standin", None)
    ended = await life.after(10, created)
    assert ended.id == created.id
    assert ended.status == ENDS[script][life.api == "Assistants"]
    assert (ended.text is not None) == (ended.status in ("completed", "incomplete"))
    if ended.status in ("completed", "incomplete"):
        assert ended.usage is not None
        assert ended.usage.totalTokens == (ended.usage.promptTokens or 0) + (ended.usage.completionTokens or 0)


async def test_the_states_come_in_openais_own_words(life: Life) -> None:
    run = await life.create("queued:1,in_progress:1,completed")
    assert [run.status] + [(await life.after(seconds, run)).status for seconds in (0, 1, 1)] == [
        "queued",
        "queued",
        "in_progress",
        "completed",
    ]


async def test_an_unknown_state_passes_through(life: Life) -> None:
    assert (await life.create("odd")).status == "pondering"


async def test_an_answer_with_an_unknown_item_keeps_its_text(life: Life) -> None:
    ended = await life.after(10, await life.create("odd"))
    assert ended.text == ("You said: Hello" if life.api == "Responses" else "Answered on thread thread_1.")


async def test_times_of_a_run(life: Life) -> None:
    ended = await life.after(10, await life.create("queued:1,in_progress:1,completed"))
    assert ended.completed_at == START + 2
    assert ended.started_at == (None if life.api == "Responses" else START + 1)


async def test_why_a_run_failed(life: Life) -> None:
    ended = await life.after(10, await life.create("fail"))
    assert ended.error is not None
    assert ended.error[0] == "server_error"
    assert ended.error[1]


async def test_why_a_run_is_incomplete(life: Life) -> None:
    ended = await life.after(10, await life.create("incomplete"))
    assert ended.incomplete_reason == ("max_output_tokens" if life.api == "Responses" else "max_completion_tokens")


async def test_a_run_that_asks_for_a_tool_says_which_call(life: Life) -> None:
    ended = await life.after(10, await life.create("requires_action"))
    (call,) = ended.calls
    assert (call.name, call.arguments) == ("lookup", '{"query": "stand-in"}')
    assert call.id.startswith("call_")
    assert ended.completed_at is None


async def test_a_vanished_run_is_not_found(life: Life) -> None:
    run = await life.create("vanish")
    with pytest.raises(CallFailedError) as raised:
        await life.after(10, run)
    assert raised.value.failure.reason is Reason.NOT_FOUND
    assert run.id in raised.value.failure.message


async def test_a_run_on_its_way_is_cancelled(life: Life) -> None:
    run = await life.create("never")
    assert (await life.cancel(run)).status == ("cancelled" if life.api == "Responses" else "cancelling")
    ended = await life.after(1, run)
    assert ended.status == "cancelled"
    assert ended.cancelled_at == (None if life.api == "Responses" else START)


async def test_cancelling_twice_is_no_failure(life: Life) -> None:
    run = await life.create("slow_cancel")
    first, second = await life.cancel(run), await life.cancel(run)
    assert first.status == second.status == ("in_progress" if life.api == "Responses" else "cancelling")
    assert (await life.after(1, run)).status == "cancelled"


async def test_a_refused_cancel_says_how_the_run_stands(life: Life) -> None:
    assert (await life.cancel(await life.create("uncancellable"))).status == "in_progress"


@pytest.mark.parametrize("script", ["complete", "fail", "incomplete", "expire", "requires_action"])
async def test_cancelling_a_finished_run_changes_nothing(life: Life, script: str) -> None:
    run = await life.create(script)
    ended = await life.after(10, run)
    again = await life.cancel(run)
    if (life.api, script) == ("Assistants", "requires_action"):  # there the run still goes
        assert again.status == "cancelling"
    else:
        assert again == ended


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410])
async def test_whatever_a_server_answers_to_a_late_cancel_the_answer_is_kept(life: Life, status: int) -> None:
    run = await life.create("complete")
    ended = await life.after(10, run)
    life.server.add_fault("POST /cancel$", status=status)
    assert await life.cancel(run) == ended
    assert ended.text


@pytest.mark.parametrize("body", ["", {"detail": "Not Found"}, {"error": {"message": "Invalid URL (POST /v1/x)"}}])
async def test_a_server_without_a_cancel_still_tells_how_the_run_ended(life: Life, body: Any) -> None:
    run = await life.create("complete")
    ended = await life.after(10, run)
    life.server.add_fault("POST /cancel$", status=404, body=body)
    assert await life.cancel(run) == ended


async def test_a_cancel_that_answers_with_the_finished_run_keeps_its_text(life: Life) -> None:
    run = await life.create("complete")
    ended = await life.after(10, run)
    if life.api == "Assistants":  # other servers than OpenAI's answer as the responses wire does
        done = {"id": run.id, "object": "thread.run", "thread_id": "thread_1", "status": "completed"}
        life.server.add_fault("POST /cancel$", body=done)
    assert (await life.cancel(run)).text == ended.text


async def test_cancelling_a_vanished_run_finds_it_gone(life: Life) -> None:
    run = await life.create("vanish")
    life.clock.now += 10
    with pytest.raises(CallFailedError) as raised:
        await life.cancel(run)
    assert raised.value.failure.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
async def test_a_cancel_that_was_not_answered_tells_nothing_of_the_run(life: Life, status: int) -> None:
    run = await life.create("never")
    life.server.add_fault("POST /cancel$", status=status)
    with pytest.raises(CallFailedError):
        await life.cancel(run)
    assert life.server.requests("GET") == []


async def test_a_run_that_completes_at_once_keeps_its_text(life: Life) -> None:
    """The operator takes what create says as an observation, and asks no more once a run is finished."""
    created = await life.create("completed")
    assert created.status != "completed" or created.text
    assert (await life.after(0, created)).text


async def test_a_found_run_that_is_finished_brings_its_text(life: Life) -> None:
    if not life.wire.searchable:
        pytest.skip("responses cannot be searched for")
    ended = await life.after(10, await life.create("complete", **{TOKEN_KEY: "mine"}))
    assert await life.wire.find("thread_1", "mine", datetime.fromtimestamp(START, UTC)) == ended


async def test_nothing_is_asked_after_a_create_whose_run_completed_at_once(life: Life) -> None:
    """What fails after the POST would make a run that exists look like none."""
    await life.create("completed")
    assert [request.method for request in life.server.requests()] == ["POST"]
