"""Tool results are sent exactly once, in the form that each API has for them, and the run goes on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.beta.threads.run_submit_tool_outputs_params import RunSubmitToolOutputsParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.responses.response_input_param import McpApprovalResponse
from openai_description import schema_errors
from pydantic import TypeAdapter

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.references import KeyRef
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import (
    Call,
    CreateRequest,
    RunObservation,
    RunRef,
    SubmitRequest,
    ToolResult,
)
from openairun_operator.wires import responses
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

KEY = "team-key-0123456789"
SUBMITS = "POST /(responses|submit_tool_outputs)$"
START = 1_790_000_000.0
APIS = pytest.mark.parametrize("api", ["Responses", "Assistants"])


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Waiting:
    """A run that asks for results, on a stand-in whose clock is ours."""

    def __init__(self, api: API, server: OpenAIStandIn, clock: Clock, clients: Clients) -> None:
        self.api, self.server, self.clock = api, server, clock
        self.wire: Wire = wire(api, clients, Credentials(server.url, KEY))
        self.definition = CreateRequest(OpenAIRunSpec())
        self.seen = RunObservation(id="", status="")

    async def begin(self, script: str = "requires_action", **spec: Any) -> None:
        named = {"input": "Hello", "model": "m"}
        if self.api == "Assistants":
            named = {"assistantID": "asst_1", "threadID": "thread_1"}
        self.definition = CreateRequest(
            OpenAIRunSpec.model_validate({**named, **spec}), "gpt-default", {"standin": script}
        )
        self.seen = await self.wire.create(self.definition)
        await self.look()
        self.server.clear_requests()

    async def look(self) -> RunObservation:
        self.clock.now += 10
        self.seen = await self.wire.observe(self.ref)
        return self.seen

    @property
    def ref(self) -> RunRef:
        return RunRef(self.api, self.seen.id, self.seen.thread)

    def results(self) -> tuple[ToolResult, ...]:
        return tuple(ToolResult(call.id, call.type, f"result of {call.name}", True) for call in self.seen.calls)

    def request(self) -> SubmitRequest:
        return SubmitRequest(self.ref, self.results(), self.definition)

    async def submit(self) -> RunObservation:
        self.seen = await self.wire.submit(self.request())
        return self.seen

    async def failure(self) -> Failure:
        with pytest.raises(CallFailedError) as raised:
            await self.submit()
        return raised.value.failure


@contextlib.asynccontextmanager
async def served(api: API) -> AsyncIterator[Waiting]:
    clock, clients = Clock(), Clients(5)
    async with OpenAIStandIn(keys=[KEY], clock=clock, strict_threads=True) as server:
        yield Waiting(api, server, clock, clients)
        await clients.close()


@pytest.fixture(params=["Responses", "Assistants"])
async def waiting(request: pytest.FixtureRequest) -> AsyncIterator[Waiting]:
    async with served(request.param) as waiting:
        yield waiting


# The run goes on


@pytest.mark.parametrize("script", ["requires_action", "two_calls", "custom_call", "mcp_approval"])
async def test_a_run_goes_on_with_its_results_to_its_end(waiting: Waiting, script: str) -> None:
    await waiting.begin(script)
    first, asked = waiting.seen.id, [call.id for call in waiting.seen.calls]
    taken = await waiting.submit()
    assert (taken.status, taken.calls) == ("queued", ())
    assert (taken.id == first) == (waiting.api == "Assistants")
    assert list(waiting.server.submits()[0].results) == asked
    ended = await waiting.look()
    assert ended.status == "completed"
    assert ended.text


async def test_a_run_that_asks_twice_is_answered_twice(waiting: Waiting) -> None:
    await waiting.begin("twice")
    first = waiting.seen.calls
    await waiting.submit()
    second = (await waiting.look()).calls
    assert len(first) == len(second) == 1
    assert first[0].id != second[0].id
    await waiting.submit()
    assert (await waiting.look()).status == "completed"
    assert len(waiting.server.submits()) == 2


async def test_a_forced_choice_does_not_make_the_run_ask_for_ever(waiting: Waiting) -> None:
    await waiting.begin(toolChoice={"type": "required"})
    await waiting.submit()
    assert (await waiting.look()).status == "completed"


async def test_a_run_in_a_conversation_stays_in_it() -> None:
    async with served("Responses") as waiting:
        await waiting.begin(conversationID="conv_1")
        assert (await waiting.submit()).conversation == "conv_1"
        assert (await waiting.look()).status == "completed"


async def test_the_calls_of_each_kind_are_told_apart() -> None:
    wiki = {"type": "mcp", "options": {"server_label": "wiki"}}
    async with served("Responses") as waiting:
        await waiting.begin("mcp_approval", tools=[wiki])
        id_ = waiting.seen.calls[0].id
        assert waiting.seen.calls == (Call(id_, "lookup", '{"query": "stand-in"}', "mcp_approval", "wiki"),)
        assert id_.startswith("mcpr_")
        await waiting.begin("custom_call")
        assert [(call.type, call.arguments) for call in waiting.seen.calls] == [("custom", "stand-in")]


async def test_a_run_that_is_finished_at_once_is_read_by_the_next_look() -> None:
    """Nothing that may fail follows a submit, since it is sent once."""
    async with served("Assistants") as waiting:
        await waiting.begin()
        done = {"id": waiting.seen.id, "object": "thread.run", "thread_id": "thread_1", "status": "completed"}
        waiting.server.add_fault("POST /submit_tool_outputs$", body=done)
        assert (await waiting.submit()).status == "in_progress"
        assert [request.method for request in waiting.server.requests()] == ["POST"]


# What is sent

SPEC: dict[str, Any] = {
    "input": "How is the weather?",
    "previousResponseID": "resp_0",
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "additionalInstructions": "Use metric units.",
    "additionalMessages": [{"role": "user", "content": "I am in Oslo."}],
    "tools": [
        {"type": "function", "function": {"name": "weather"}},
        {"type": "mcp", "options": {"server_label": "wiki"}, "authorizationFrom": {"name": "wiki", "key": "token"}},
    ],
    "toolChoice": {"type": "function", "name": "weather"},
    "parallelToolCalls": False,
    "responseFormat": {"type": "json_object"},
    "reasoningEffort": "low",
    "temperature": 0.0,
    "topP": 1.0,
    "maxTokens": 100,
    "truncation": {"type": "auto"},
}
RESULTS = (
    ToolResult("call_1", "function", ""),
    ToolResult("call_2", "custom", "42"),
    ToolResult("mcpr_1", "mcp_approval", approve=True),
    ToolResult("mcpr_2", "mcp_approval", approve=False),
    ToolResult("mcpr_3", "mcp_approval"),
)
ITEMS = [
    {"type": "function_call_output", "call_id": "call_1", "output": ""},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "42"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_2", "approve": False},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_3", "approve": False},
]


def submitted(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body of the submit for this spec, and that of its create."""
    secrets = {KeyRef(name="wiki", key="token"): "wiki-token"}
    definition = CreateRequest(OpenAIRunSpec.model_validate(spec), "gpt-default", {"team": "blue"}, None, secrets)
    request = SubmitRequest(RunRef("Responses", "resp_1"), RESULTS, definition)
    return responses.submit_body(request), responses.request_body(definition)


def test_a_response_that_goes_on_has_the_whole_definition_and_the_results_for_its_only_input() -> None:
    body, made = submitted(SPEC)
    assert body.pop("input") == ITEMS
    assert body.pop("previous_response_id") == "resp_1"
    for replaced in ("input", "previous_response_id", "tool_choice"):
        made.pop(replaced)
    assert body == made
    assert set(SPEC) | {"inputFrom", "conversationID", "assistantID", "threadID", "maxPromptTokens"} == set(DEFINING)


def test_a_conversation_is_gone_on_with_by_its_own_name() -> None:
    body, _ = submitted({"input": "Hello", "conversationID": "conv_1"})
    assert body["conversation"] == "conv_1"
    assert "previous_response_id" not in body
    assert body["model"] == "gpt-default"


LIMIT = {"tools": [{"type": "function", "name": "weather"}]}


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "required"}, None),
        ({"type": "function", "name": "weather"}, None),
        ({"type": "file_search"}, None),
        (
            {"type": "allowed_tools", "options": {"mode": "required", **LIMIT}},
            {"type": "allowed_tools", "mode": "auto", **LIMIT},
        ),
    ],
)
def test_a_choice_that_forces_a_call_is_not_carried_along(choice: dict[str, Any], written: Any) -> None:
    body, _ = submitted({"input": "Hello", "toolChoice": choice})
    assert body.get("tool_choice") == written


def test_what_is_submitted_is_what_openai_describes_and_the_sdk_knows() -> None:
    body, _ = submitted(SPEC)
    assert set(body) <= set(ResponseCreateParamsBase.__annotations__)
    approvals = [item for item in ITEMS if item["type"] == "mcp_approval_response"]
    # The description demands a `request_id` of these that it does not describe, so the SDK is their judge.
    for item in approvals:
        assert TypeAdapter(McpApprovalResponse).validate_python(item, strict=True) == item
    assert schema_errors("CreateResponse", {**body, "input": [item for item in ITEMS if item not in approvals]}) == []


async def test_outputs_for_a_run_on_a_thread_are_what_openai_describes() -> None:
    clients = Clients(5)
    async with OpenAIStandIn(keys=[KEY]) as server:
        server.add_fault("POST .", body={"id": "run_1", "status": "queued"})
        carrier = wire("Assistants", clients, Credentials(server.url, KEY))
        definition = CreateRequest(OpenAIRunSpec(assistantID="asst_1", threadID="thread_1"))
        await carrier.submit(SubmitRequest(RunRef("Assistants", "run_1", "thread_1"), RESULTS[:1], definition))
        await clients.close()
        (request,) = server.requests()
    assert request.path == "/v1/threads/thread_1/runs/run_1/submit_tool_outputs"
    assert request.body == {"tool_outputs": [{"tool_call_id": "call_1", "output": ""}]}
    assert schema_errors("SubmitToolOutputsRunRequest", request.body) == []
    assert set(request.body) <= set(RunSubmitToolOutputsParamsBase.__annotations__)


def test_no_result_shows_in_a_repr() -> None:
    definition = CreateRequest(OpenAIRunSpec(input="Hello"))
    result = ToolResult("call_1", "function", "a secret result")
    assert "secret" not in repr(SubmitRequest(RunRef("Responses", "resp_1"), (result,), definition))


# Once, and with a failure that tells what may have happened

NOT_CREATED, UNKNOWN = Outcome.NOT_CREATED, Outcome.UNKNOWN


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


FAILURES: dict[str, tuple[dict[str, Any], Reason, Outcome]] = {
    "400": ({"status": 400}, Reason.INVALID_REQUEST, NOT_CREATED),
    "400 locked": ({"status": 400, "body": error("Wait.", "conversation_locked")}, Reason.BUSY, NOT_CREATED),
    "400 busy": ({"status": 400, "body": error("Thread t already has an active run r.")}, Reason.BUSY, NOT_CREATED),
    "401": ({"status": 401}, Reason.INVALID_CREDENTIALS, NOT_CREATED),
    "403": ({"status": 403}, Reason.PERMISSION_DENIED, NOT_CREATED),
    "404": ({"status": 404, "body": error("No run found with id 'r'.")}, Reason.NOT_FOUND, NOT_CREATED),
    "404 URL": ({"status": 404, "body": error("Invalid URL (POST /v1/x)")}, Reason.SERVER_ERROR, NOT_CREATED),
    "404 empty": ({"status": 404, "body": ""}, Reason.SERVER_ERROR, NOT_CREATED),
    "404 HTML": ({"status": 404, "body": "<html>default backend"}, Reason.SERVER_ERROR, NOT_CREATED),
    "404 model": ({"status": 404, "body": error("No.", "model_not_found")}, Reason.MODEL_NOT_ACCESSIBLE, NOT_CREATED),
    "405": ({"status": 405}, Reason.REFUSED, NOT_CREATED),
    "408": ({"status": 408}, Reason.TIMED_OUT, UNKNOWN),
    "409": ({"status": 409}, Reason.REFUSED, NOT_CREATED),
    "422": ({"status": 422}, Reason.INVALID_REQUEST, NOT_CREATED),
    "429": ({"status": 429}, Reason.RATE_LIMITED, NOT_CREATED),
    "500": ({"status": 500}, Reason.SERVER_ERROR, UNKNOWN),
    "502 HTML": ({"status": 502, "body": "<html>"}, Reason.SERVER_ERROR, UNKNOWN),
    "503": ({"status": 503}, Reason.SERVER_ERROR, NOT_CREATED),
    "503 HTML": ({"status": 503, "body": "<html>"}, Reason.SERVER_ERROR, UNKNOWN),
    "504 after it was taken": ({"status": 504, "process": True}, Reason.TIMED_OUT, UNKNOWN),
    "200 HTML": ({"body": "<html>Log in</html>"}, Reason.UNREADABLE_ANSWER, UNKNOWN),
    "200 without an id": ({"body": {"status": "queued"}}, Reason.UNREADABLE_ANSWER, UNKNOWN),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_a_submit_that_was_answered_badly(waiting: Waiting, what: str) -> None:
    fault, reason, outcome = FAILURES[what]
    await waiting.begin()
    waiting.server.add_fault(SUBMITS, times=None, submits=True, headers={"Retry-After": "4"}, **fault)
    failed = await waiting.failure()
    assert (failed.reason, failed.outcome) == (reason, outcome)
    assert [request.method for request in waiting.server.requests()] == ["POST"]
    assert len(waiting.server.submits()) == bool(fault.get("process"))
    assert failed.retry_after == (4 if fault.get("status", 0) >= 400 else None)


@pytest.mark.parametrize(("when", "taken"), [("before", 0), ("after", 1)])
async def test_a_connection_closed_on_a_submit_leaves_the_outcome_open(waiting: Waiting, when: str, taken: int) -> None:
    await waiting.begin()
    waiting.server.add_fault(SUBMITS, times=None, submits=True, close=when)
    failed = await waiting.failure()
    assert (failed.reason, failed.outcome) == (Reason.UNREACHABLE, UNKNOWN)
    assert len(waiting.server.requests()) == 1
    assert len(waiting.server.submits()) == taken


@APIS
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_submit_that_is_held_ends_in_time(api: API, when: str) -> None:
    clients = Clients(0.2)
    async with OpenAIStandIn(keys=[KEY]) as server:
        server.add_fault("POST .", hold=when)
        definition = CreateRequest(OpenAIRunSpec(input="Hello", model="m"))
        carrier, began = wire(api, clients, Credentials(server.url, KEY)), time.monotonic()
        with pytest.raises(CallFailedError) as raised:
            await carrier.submit(SubmitRequest(RunRef(api, "id_1", "thread_1"), RESULTS[:1], definition))
        assert time.monotonic() - began < 2
        await clients.close()
        assert len(server.requests()) == 1
    assert (raised.value.failure.reason, raised.value.failure.outcome) == (Reason.TIMED_OUT, UNKNOWN)


@APIS
async def test_a_submit_that_could_not_connect_was_not_made(api: API) -> None:
    clients = Clients(5)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    carrier = wire(api, clients, Credentials(f"http://127.0.0.1:{port}/v1", KEY))
    definition = CreateRequest(OpenAIRunSpec(input="Hello", model="m"))
    with pytest.raises(CallFailedError) as raised:
        await carrier.submit(SubmitRequest(RunRef(api, "id_1", "thread_1"), RESULTS[:1], definition))
    await clients.close()
    assert (raised.value.failure.reason, raised.value.failure.outcome) == (Reason.UNREACHABLE, NOT_CREATED)


async def test_results_that_nobody_asked_for_are_refused_in_openais_words(waiting: Waiting) -> None:
    await waiting.begin()
    stray = SubmitRequest(waiting.ref, (ToolResult("call_stray", "function", "x"),), waiting.definition)
    with pytest.raises(CallFailedError, match="call_stray") as raised:
        await waiting.wire.submit(stray)
    assert raised.value.failure.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("does", ["create", "submit"])
@pytest.mark.parametrize("status", [200, 400, 500])
@APIS
async def test_a_token_for_an_mcp_server_that_is_echoed_does_not_show(api: API, does: str, status: int) -> None:
    clients, token = Clients(5), "wiki-token-0123456789"
    secrets = {KeyRef(name="wiki", key="token"): token}
    named = SPEC if api == "Responses" else {"assistantID": "a", "threadID": "t", "tools": SPEC["tools"]}
    definition = CreateRequest(OpenAIRunSpec.model_validate(named), None, {}, None, secrets)
    said = f"I was given {token}"
    body = {"id": "id_1", "status": "failed", "model": said, "error": {"code": "x", "message": said}}
    async with OpenAIStandIn(keys=[KEY]) as server:
        server.add_fault("POST .", status=status, body=body)
        carrier = wire(api, clients, Credentials(server.url, KEY))
        try:
            if does == "create":
                told = repr(await carrier.create(definition))
            else:
                told = repr(await carrier.submit(SubmitRequest(RunRef(api, "i", "t"), RESULTS[:1], definition)))
        except CallFailedError as error:
            told = repr(error.failure)
        assert (token in repr(server.requests()[0].body)) == (api == "Responses" or does == "create")
        await clients.close()
    assert "I was given [redacted]" in told
    assert token not in told
