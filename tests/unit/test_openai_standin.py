"""The OpenAI stand-in keeps its promises: answers as OpenAI's, runs by script, faults when told."""

import asyncio
import importlib.util
import json
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import openai
import pytest
from openai.types.beta.threads import Message, Run
from openai.types.beta.threads.run_create_params import RunCreateParamsBase
from openai.types.beta.threads.runs import RunStep
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from openairun_devkit.openai import SHORTHANDS, OpenAIStandIn, assistants, responses, scripts
from openairun_devkit.openai.assistants import Assistants
from openairun_devkit.openai.errors import APIError, wrong_key
from openairun_devkit.openai.responses import Responses

ROOT = Path(__file__).parents[2]
VALIDATOR = ROOT.parent / "shared/tools/validate_openai.py"
"""OpenAI's own API description and a script that checks against it, where they lie beside the checkout."""

START = 1_790_000_000.0

FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
ASSISTANT_FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Api:
    """Plain HTTP to a stand-in, so that what is seen is what was sent."""

    def __init__(self, server: OpenAIStandIn, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def call(
        self, method: str, path: str, json: Any = None, *, key: str | None = "sk-standin", data: str | None = None
    ) -> tuple[int, Any]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with self.session.request(
            method, self.server.url + path, json=json, data=data, headers=headers
        ) as response:
            assert response.headers["x-request-id"]
            return response.status, await response.json()

    async def control(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        async with self.session.request(method, self.server.control_url + path, json=json) as response:
            return response.status, await response.json()

    async def response(self, **more: Any) -> str:
        status, body = await self.call("POST", "/responses", a_response(**more))
        assert status == 200
        return str(body["id"])


def a_response(script: str | None = None, **more: Any) -> dict[str, Any]:
    metadata = {} if script is None else {"standin": script}
    return {"model": "gpt-5", "input": "Hello", "background": True, "store": True, "metadata": metadata, **more}


def a_run(script: str | None = None, **more: Any) -> dict[str, Any]:
    return {"assistant_id": "asst_1", "metadata": {} if script is None else {"standin": script}, **more}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(clock=clock) as server:
        yield server


@pytest.fixture
async def api(server: OpenAIStandIn) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server, session)


@pytest.fixture
async def client(server: OpenAIStandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="sk-standin", base_url=server.url, max_retries=0, http_client=openai.DefaultAioHttpClient()
    ) as client:
        yield client


@pytest.fixture(scope="session")
def schema_errors() -> Callable[[str, Any], list[str]]:
    if not VALIDATOR.exists():
        pytest.skip(f"OpenAI's API description is not at {VALIDATOR.parent}")
    spec = importlib.util.spec_from_file_location("validate_openai", VALIDATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    errors: Callable[[str, Any], list[str]] = module.errors
    return errors


# Scripts


def test_every_shorthand_is_a_script() -> None:
    for name in SHORTHANDS:
        assert scripts.parse(name).steps[0][0] == 0


def test_a_script_says_when_which_state_begins() -> None:
    script = scripts.parse("queued:0.2, in_progress:0.5, completed, cancel=2, odd_item")
    assert script.stages(100) == [(100, "queued"), (100.2, "in_progress"), (100.7, "completed")]
    assert (script.cancel_seconds, script.cancel_refused, script.odd_item) == (2, False, True)


def test_a_script_says_what_a_run_asks_for_and_how_often() -> None:
    script = scripts.parse("in_progress:1,requires_action,calls=3,turns=2,asks=mcp")
    assert (script.calls, script.turns, script.asks, script.requires_action) == (3, 2, "mcp", True)
    script = scripts.parse("completed")
    assert (script.calls, script.turns, script.asks, script.requires_action) == (1, 1, "function", False)


@pytest.mark.parametrize("text", ["never,asks=me", "never,cancal=1", "never,cites=1", "never,calls=x", "cites,calls"])
def test_an_option_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no script|invalid literal"):
        scripts.parse(text)


@pytest.mark.parametrize("text", ["", "complet", "queued,completed", "queued:x", "cancel=soon", "odd_item", "a b:1"])
def test_what_is_no_script_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no script|could not convert"):
        scripts.parse(text)


def walk(wire: str, script: str, *times: float) -> list[str]:
    """The statuses of a run at these seconds after its creation."""
    if wire == "responses":
        api = Responses(default_script=script, strict=False)
        id = api.create(a_response(), START)["id"]
        return [str(api.show(api.runs[id], START + at)["status"]) for at in times]
    old = Assistants(default_script=script, strict=False)
    id = old.create("thread_1", a_run(), START)["id"]
    return [str(old.show(old.runs[id], START + at)["status"]) for at in times]


@pytest.mark.parametrize("wire", ["responses", "assistants"])
@pytest.mark.parametrize(
    ("script", "last"),
    [("complete", "completed"), ("fail", "failed"), ("incomplete", "incomplete")],
)
def test_a_run_goes_through_its_states_by_the_clock(wire: str, script: str, last: str) -> None:
    assert walk(wire, script, 0, 0.1, 0.3, 0.9, 1e6) == ["queued", "queued", "in_progress", last, last]


@pytest.mark.parametrize("wire", ["responses", "assistants"])
def test_some_runs_never_end(wire: str) -> None:
    assert walk(wire, "never", 0, 1e6) == ["in_progress", "in_progress"]
    assert walk(wire, "stuck_queued", 0, 1e6) == ["queued", "queued"]
    assert walk(wire, "long", 4.9, 5.1) == ["in_progress", "completed"]
    assert walk(wire, "odd", 0, 1.1) == ["pondering", "completed"]


def test_states_that_responses_lack_are_put_in_their_terms() -> None:
    assert walk("assistants", "expire", 0.9) == ["expired"]
    assert walk("responses", "expire", 0.9) == ["failed"]
    assert walk("assistants", "requires_action", 0.9) == ["requires_action"]
    assert walk("responses", "requires_action", 0.9) == ["completed"]


# Shapes

REGULAR = [name for name in SHORTHANDS if name not in ("odd", "vanish")]


def all_responses() -> list[dict[str, Any]]:
    """A response of each kind at each stage of its life."""
    seen: list[dict[str, Any]] = []
    asks: list[dict[str, Any]] = [
        {},
        {"tools": [FUNCTION], "conversation": "conv_1", "instructions": "Be brief.", "temperature": 0.2},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], "conversation": {"id": "c"}},
    ]
    for script in REGULAR:
        for more in asks:
            api = Responses(default_script="complete", strict=False)
            run = api.runs[api.create(a_response(script, **more), START)["id"]]
            seen.extend(api.show(run, START + at) for at in (0.0, 0.3, 0.9, 9.0))
    cancelled = Responses(default_script="never", strict=False)
    seen.append(cancelled.cancel(cancelled.create(a_response(), START)["id"], START + 1))
    return seen


def all_runs() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Runs of each kind at each stage, and the messages and steps that came of them."""
    runs, messages, steps = [], [], []
    for script in REGULAR:
        for more in ({}, {"tools": [ASSISTANT_FUNCTION], "instructions": "Be brief.", "max_prompt_tokens": 300}):
            api = Assistants(default_script="complete", strict=False)
            id = api.create("thread_1", a_run(script, **more), START)["id"]
            for at in (0.0, 0.3, 0.9, 9.0):
                runs.append(api.show(api.runs[id], START + at))
                messages.extend(api.messages("thread_1", {}, START + at)["data"])
                steps.extend(api.steps("thread_1", id, {}, START + at)["data"])
    api = Assistants(default_script="never", strict=False)
    id = api.create("thread_1", a_run(), START)["id"]
    runs.append(api.cancel("thread_1", id, START + 1))
    runs.append(api.show(api.runs[id], START + 2))
    return runs, messages, steps


def test_answers_are_what_the_sdk_expects() -> None:
    runs, messages, steps = all_runs()
    shapes: list[tuple[type[openai.BaseModel], list[dict[str, Any]]]] = [
        (Response, all_responses()),
        (Run, runs),
        (Message, messages),
        (RunStep, steps),
    ]
    for model, bodies in shapes:
        assert bodies
        for body in bodies:
            model.model_validate(body, strict=True)


def test_answers_are_what_openai_describes(schema_errors: Callable[[str, Any], list[str]]) -> None:
    def distinct(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # The schema checks are slow: one body for each status and set of parts.
        def kind(body: dict[str, Any]) -> str:
            parts = [(item["type"], [*item]) for item in body.get("output") or body.get("content") or ()]
            return f"{body.get('status')}{body.get('tools')}{body.get('step_details', {}).get('type')}{parts}"

        return list({kind(body): body for body in bodies}.values())

    runs, messages, steps = all_runs()
    api = Assistants(default_script="complete", strict=False)
    page = api.list_runs("thread_1", {}, START)
    for schema, bodies in {
        "Response": distinct(all_responses()),
        "RunObject": distinct(runs),
        "MessageObject": distinct(messages),
        "RunStepObject": distinct(steps),
    }.items():
        for body in bodies:
            assert schema_errors(schema, body) == [], body
    assert page["data"] == []
    with pytest.raises(APIError) as caught:
        api.list_runs("thread_missing", {}, START)
    assert schema_errors("ErrorResponse", caught.value.body) == []


def test_parameters_are_those_of_the_sdk() -> None:
    in_sdk = set(ResponseCreateParamsBase.__annotations__)
    assert in_sdk | {"stream"} == responses.PARAMETERS
    in_sdk = set(RunCreateParamsBase.__annotations__)
    assert in_sdk - {"include"} | {"stream"} == assistants.PARAMETERS


# The responses wire


async def test_a_response_completes_with_text_and_usage(api: Api, clock: Clock) -> None:
    status, created = await api.call("POST", "/responses", a_response(input="How are you?"))
    assert (status, created["status"], created["output"], created.get("usage")) == (200, "queued", [], None)
    clock.now += 1
    _, done = await api.call("GET", f"/responses/{created['id']}")
    assert done["output"][0]["content"][0]["text"] == "You said: How are you?"
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 0
    assert done["completed_at"] == START
    assert done["created_at"] == START


async def test_the_length_of_the_answer_can_be_chosen(api: Api, clock: Clock) -> None:
    id = await api.response(metadata={"standin_text": "text:70001"})
    clock.now += 1
    _, done = await api.call("GET", f"/responses/{id}")
    assert len(done["output"][0]["content"][0]["text"]) == 70001


async def test_an_input_may_be_long(api: Api) -> None:
    await api.response(input="x" * 3_000_000)


async def test_cancelling_a_response(api: Api, clock: Clock) -> None:
    id = await api.response(script="never")
    for _ in range(2):
        status, body = await api.call("POST", f"/responses/{id}/cancel")
        assert (status, body["status"]) == (200, "cancelled")
    done = await api.response()
    clock.now += 1
    status, body = await api.call("POST", f"/responses/{done}/cancel")
    assert (status, body["status"]) == (200, "completed")


async def test_a_response_may_take_its_time_to_cancel_or_refuse(api: Api, clock: Clock) -> None:
    slow = await api.response(script="slow_cancel")
    assert (await api.call("POST", f"/responses/{slow}/cancel"))[1]["status"] == "in_progress"
    clock.now += 0.9
    assert (await api.call("POST", f"/responses/{slow}/cancel"))[1]["status"] == "in_progress"
    clock.now += 0.2
    assert (await api.call("GET", f"/responses/{slow}"))[1]["status"] == "cancelled"
    never = await api.response(script="uncancellable")
    assert (await api.call("POST", f"/responses/{never}/cancel"))[0] == 400
    assert (await api.call("GET", f"/responses/{never}"))[1]["status"] == "in_progress"


async def test_a_response_can_vanish(api: Api, clock: Clock) -> None:
    id = await api.response(script="vanish")
    assert (await api.call("GET", f"/responses/{id}"))[0] == 200
    clock.now += 0.6
    status, body = await api.call("GET", f"/responses/{id}")
    assert (status, body["error"]["message"]) == (404, f"Response with id '{id}' not found.")


async def test_a_function_call_wants_its_output_in_the_next_response(api: Api, clock: Clock) -> None:
    first = await api.response(script="requires_action", tools=[FUNCTION])
    clock.now += 1
    _, body = await api.call("GET", f"/responses/{first}")
    (call,) = body["output"]
    assert (body["status"], call["type"], call["name"]) == ("completed", "function_call", "weather")
    status, body = await api.call("POST", "/responses", a_response(previous_response_id=first))
    assert (status, body["error"]["message"]) == (400, f"No tool output found for function call {call['call_id']}.")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    second = await api.response(script="requires_action", previous_response_id=first, input=[output])
    clock.now += 1
    _, body = await api.call("GET", f"/responses/{second}")
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", "You said: sunny")


ANSWER: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "function_call": lambda call: {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"},
    "custom_tool_call": lambda call: {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "rain"},
    "mcp_approval_request": lambda call: {
        "type": "mcp_approval_response",
        "approval_request_id": call["id"],
        "approve": False,
    },
}


async def calls_of(api: Api, id: str) -> list[dict[str, Any]]:
    _, body = await api.call("GET", f"/responses/{id}")
    return [item for item in body["output"] if item["type"] in ANSWER]


@pytest.mark.parametrize(
    ("script", "kinds", "said"),
    [
        ("two_calls", ["function_call", "function_call"], "sunny"),
        ("custom_call", ["custom_tool_call"], "rain"),
        ("mcp_approval", ["mcp_approval_request"], "not approved"),
    ],
)
async def test_each_call_wants_its_answer_and_no_other_is_taken(
    api: Api, clock: Clock, script: str, kinds: list[str], said: str
) -> None:
    first = await api.response(script=script)
    clock.now += 1
    calls = await calls_of(api, first)
    assert [call["type"] for call in calls] == kinds
    results = [ANSWER[call["type"]](call) for call in calls]
    other = {"type": "function_call_output", "call_id": "call_other", "output": "x"}
    for given in ([], results[:-1], [*results, other], [other]):
        body = a_response(script, previous_response_id=first, input=given)
        assert (await api.call("POST", "/responses", body))[0] == 400
    assert len(api.server.runs()) == 1
    second = await api.response(script=script, previous_response_id=first, input=results)
    clock.now += 1
    _, body = await api.call("GET", f"/responses/{second}")
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", f"You said: {said}")


@pytest.mark.parametrize("where", ["previous_response_id", "conversation"])
async def test_a_response_may_ask_twice_in_a_row(api: Api, clock: Clock, where: str) -> None:
    more = {"conversation": "conv_1"} if where == "conversation" else {}
    last, asked = await api.response(script="twice", **more), []
    for turn in range(2):
        clock.now += 1
        (call,) = await calls_of(api, last)
        asked.append(call["call_id"])
        more = {where: "conv_1" if where == "conversation" else last}
        output = ANSWER["function_call"](call)
        last = await api.response(script="twice", input=[output], **more)
        assert len(api.server.submits()) == turn + 1
    clock.now += 1
    assert await calls_of(api, last) == []
    assert len(set(asked)) == 2


async def test_an_output_without_a_call_is_refused_in_openais_words(api: Api) -> None:
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    status, body = await api.call("POST", "/responses", a_response(input=[output]))
    told = "No tool call found for function call output with call_id call_1."
    assert (status, body["error"]["message"]) == (400, told)
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    await api.response(input=[call, output])


@pytest.mark.parametrize(
    ("choice", "asks"),
    [
        ("required", True),
        ({"type": "function", "name": "weather"}, True),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, True),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, False),
        ("auto", False),
        (None, False),
    ],
)
async def test_a_choice_that_forces_a_call_forces_it_again(api: Api, clock: Clock, choice: Any, asks: bool) -> None:
    first = await api.response(script="requires_action", tools=[FUNCTION])
    clock.now += 1
    results = [ANSWER["function_call"](call) for call in await calls_of(api, first)]
    more = {} if choice is None else {"tool_choice": choice}
    second = await api.response(script="requires_action", previous_response_id=first, input=results, **more)
    clock.now += 1
    assert bool(await calls_of(api, second)) == asks


FORM = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "kind": {"enum": ["warm", "cold"]},
        "degrees": {"type": ["number", "null"]},
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}},
    },
    "required": ["city", "kind", "degrees", "days"],
    "$defs": {"day": {"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"]}},
}


async def test_an_answer_is_json_of_the_form_that_was_asked_for(api: Api, clock: Clock) -> None:
    named = {"name": "report", "schema": FORM}
    response = await api.response(text={"format": {"type": "json_schema", **named}})
    free = await api.response(text={"format": {"type": "json_object"}})
    form = {"type": "json_schema", "json_schema": named}
    await api.call("POST", "/threads/thread_1/runs", a_run(response_format=form))
    clock.now += 1
    for id, judge in ((response, FORM), (free, {"type": "object"})):
        _, done = await api.call("GET", f"/responses/{id}")
        jsonschema.validate(json.loads(done["output"][0]["content"][0]["text"]), judge)
    _, messages = await api.call("GET", "/threads/thread_1/messages")
    jsonschema.validate(json.loads(messages["data"][0]["content"][0]["text"]["value"]), FORM)


async def test_a_token_for_an_mcp_server_is_not_shown(api: Api) -> None:
    tool = {"type": "mcp", "server_label": "wiki", "authorization": "wiki-token"}
    _, body = await api.call("POST", "/responses", a_response(tools=[tool]))
    assert body["tools"] == [{"type": "mcp", "server_label": "wiki"}]


async def test_an_odd_response_has_what_no_sdk_knows(api: Api, clock: Clock) -> None:
    id = await api.response(script="odd")
    assert (await api.call("GET", f"/responses/{id}"))[1]["status"] == "pondering"
    clock.now += 1.1
    _, body = await api.call("GET", f"/responses/{id}")
    assert [item["type"] for item in body["output"]] == ["pondering_trace", "message"]


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"model": None}, 400, "missing_required_parameter"),
        ({"modle": "gpt-5"}, 400, "unknown_parameter"),
        ({"store": False}, 400, None),
        ({"background": False}, 400, "standin_unsupported"),
        ({"stream": True}, 400, "standin_unsupported"),
        ({"input": 7}, 400, "invalid_type"),
        ({"tools": ["weather"]}, 400, "invalid_type"),
        ({"max_output_tokens": "100"}, 400, "invalid_type"),
        ({"max_output_tokens": 1}, 400, "integer_below_min_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, 400, "object_above_max_properties"),
        ({"metadata": {"k": "v" * 513}}, 400, "string_above_max_length"),
        ({"metadata": {"k": 1}}, 400, "invalid_type"),
        ({"metadata": {"standin": "complet"}}, 400, "standin_script"),
        ({"metadata": {"standin_text": "text:long"}}, 400, "standin_script"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, 400, "mutually_exclusive_parameters"),
        ({"conversation": "conv_missing_1"}, 404, None),
        ({"previous_response_id": "resp_missing"}, 400, "previous_response_not_found"),
    ],
)
async def test_a_bad_response_is_refused(api: Api, more: dict[str, Any], status: int, code: str | None) -> None:
    answered, body = await api.call("POST", "/responses", a_response() | more)
    assert (answered, body["error"]["code"]) == (status, code)
    assert api.server.runs() == []


# The assistants wire


async def test_a_run_answers_on_its_thread(api: Api, clock: Clock) -> None:
    _, run = await api.call("POST", "/threads/thread_1/runs", a_run())
    assert (run["status"], run["started_at"], run["usage"]) == ("queued", None, None)
    assert run["expires_at"] == START + 600
    clock.now += 1
    path = f"/threads/thread_1/runs/{run['id']}"
    _, done = await api.call("GET", path)
    assert (done["status"], done["expires_at"], done["completed_at"]) == ("completed", None, int(START + 0.8))
    assert done["usage"]["total_tokens"] > 0
    _, messages = await api.call("GET", f"/threads/thread_1/messages?run_id={run['id']}")
    (message,) = messages["data"]
    assert message["content"][0]["text"]["value"] == "Answered on thread thread_1."
    _, steps = await api.call("GET", f"{path}/steps")
    assert steps["data"][0]["step_details"]["message_creation"]["message_id"] == message["id"]
    assert (await api.call("GET", "/threads/thread_1/messages?run_id=run_other"))[1]["data"] == []


async def test_runs_are_listed_newest_first_in_pages(api: Api, clock: Clock) -> None:
    ids = []
    for _ in range(5):
        ids.append((await api.call("POST", "/threads/thread_1/runs", a_run()))[1]["id"])
    _, page = await api.call("GET", "/threads/thread_1/runs?limit=2")
    assert [run["id"] for run in page["data"]] == [ids[4], ids[3]]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[4], ids[3])
    _, page = await api.call("GET", f"/threads/thread_1/runs?limit=5&after={ids[3]}")
    assert ([run["id"] for run in page["data"]], page["has_more"]) == (ids[2::-1], False)
    _, page = await api.call("GET", "/threads/thread_1/runs?order=asc")
    assert [run["id"] for run in page["data"]] == ids
    assert (await api.call("GET", "/threads/thread_2/runs"))[1]["data"] == []
    assert (await api.call("GET", "/threads/thread_1/runs?limit=101"))[0] == 400


async def test_cancelling_a_run_goes_through_cancelling(api: Api, clock: Clock) -> None:
    for script, seconds in (("never", 0.1), ("slow_cancel", 1.0)):
        _, run = await api.call("POST", "/threads/t/runs", a_run(script))
        path = f"/threads/t/runs/{run['id']}"
        assert (await api.call("POST", f"{path}/cancel"))[1]["status"] == "cancelling"
        status, body = await api.call("POST", f"{path}/cancel")
        assert (status, body["error"]["message"]) == (400, "Cannot cancel run with status 'cancelling'.")
        clock.now += seconds + 0.01
        _, body = await api.call("GET", path)
        assert body["status"] == "cancelled"
        assert body["cancelled_at"] is not None


async def test_what_has_ended_or_refuses_cannot_be_cancelled(api: Api, clock: Clock) -> None:
    for script, status in (("complete", "completed"), ("uncancellable", "in_progress"), ("expire", "expired")):
        _, run = await api.call("POST", "/threads/t/runs", a_run(script))
        clock.now += 1
        answered, body = await api.call("POST", f"/threads/t/runs/{run['id']}/cancel")
        assert (answered, body["error"]["message"]) == (400, f"Cannot cancel run with status '{status}'.")


async def test_a_run_goes_on_with_its_tool_outputs(api: Api, clock: Clock) -> None:
    _, run = await api.call("POST", "/threads/t/runs", a_run("requires_action", tools=[ASSISTANT_FUNCTION]))
    path = f"/threads/t/runs/{run['id']}"
    outputs = {"tool_outputs": [{"tool_call_id": "call_wrong", "output": "sunny"}]}
    assert (await api.call("POST", f"{path}/submit_tool_outputs", outputs))[0] == 400
    clock.now += 1
    _, run = await api.call("GET", path)
    (call,) = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert (await api.call("POST", f"{path}/submit_tool_outputs", outputs))[0] == 400
    outputs["tool_outputs"][0]["tool_call_id"] = call["id"]
    assert (await api.call("POST", f"{path}/submit_tool_outputs", outputs))[1]["status"] == "queued"
    clock.now += 1
    _, run = await api.call("GET", path)
    assert (run["status"], run["required_action"]) == ("completed", None)
    _, steps = await api.call("GET", f"{path}/steps?order=asc")
    assert [step["type"] for step in steps["data"]] == ["tool_calls", "message_creation"]
    assert steps["data"][0]["step_details"]["tool_calls"][0]["function"]["output"] == "sunny"


async def test_a_run_may_ask_for_several_outputs_and_ask_again(api: Api, clock: Clock) -> None:
    _, run = await api.call("POST", "/threads/t/runs", a_run("in_progress:1,requires_action,calls=2,turns=2"))
    path, asked = f"/threads/t/runs/{run['id']}", []
    for _ in range(2):
        clock.now += 1
        _, run = await api.call("GET", path)
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        outputs = [{"tool_call_id": call["id"], "output": "sunny"} for call in calls]
        asked += [call["id"] for call in calls]
        for given in ([], outputs[:1], [*outputs, outputs[0]]):
            status, body = await api.call("POST", f"{path}/submit_tool_outputs", {"tool_outputs": given})
            assert (status, body["error"]["message"].split("[")[0]) == (400, "Expected tool outputs for call_ids ")
        status, run = await api.call("POST", f"{path}/submit_tool_outputs", {"tool_outputs": outputs[::-1]})
        assert (status, run["status"]) == (200, "queued")
    status, body = await api.call("POST", f"{path}/submit_tool_outputs", {"tool_outputs": outputs})
    assert (status, body["error"]["message"]) == (400, 'Runs in status "queued" do not accept tool outputs.')
    clock.now += 1
    assert (await api.call("GET", path))[1]["status"] == "completed"
    _, steps = await api.call("GET", f"{path}/steps?order=asc")
    assert [step["type"] for step in steps["data"]] == ["tool_calls", "tool_calls", "message_creation"]
    assert len({step["id"] for step in steps["data"]}) == 3
    assert len(set(asked)) == 4


async def test_results_that_were_taken_are_written_down(api: Api, clock: Clock) -> None:
    first = await api.response(script="mcp_approval")
    _, run = await api.call("POST", "/threads/t/runs", a_run("requires_action"))
    clock.now += 1
    results = [ANSWER[call["type"]](call) for call in await calls_of(api, first)]
    second = await api.response(script="mcp_approval", previous_response_id=first, input=results)
    _, run = await api.call("GET", f"/threads/t/runs/{run['id']}")
    (call,) = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    path, outputs = f"/threads/t/runs/{run['id']}/submit_tool_outputs", [{"tool_call_id": call["id"], "output": "1"}]
    await api.call("POST", path, {"tool_outputs": [{"tool_call_id": "call_wrong", "output": "1"}]})
    await api.call("POST", path, {"tool_outputs": outputs})
    assert (await api.control("GET", "/submits"))[1] == [
        {"at": START + 1, "run": second, "results": {results[0]["approval_request_id"]: False}},
        {"at": START + 1, "run": run["id"], "results": {call["id"]: "1"}},
    ]


async def test_missing_threads_assistants_and_runs_are_404(api: Api) -> None:
    for method, path, body, message in (
        ("POST", "/threads/thread_missing_1/runs", a_run(), "No thread found with id 'thread_missing_1'."),
        ("GET", "/threads/thread_missing/messages", None, "No thread found with id 'thread_missing'."),
        ("POST", "/threads/t/runs", {"assistant_id": "asst_missing"}, "No assistant found with id 'asst_missing'."),
        ("GET", "/threads/t/runs/run_1", None, "No run found with id 'run_1'."),
    ):
        status, answer = await api.call(method, path, body)
        assert (status, answer["error"]["message"]) == (404, message)
    _, run = await api.call("POST", "/threads/t/runs", a_run())
    assert (await api.call("GET", f"/threads/other/runs/{run['id']}"))[0] == 404


async def test_a_vanished_run_is_in_no_list(api: Api, clock: Clock) -> None:
    _, run = await api.call("POST", "/threads/t/runs", a_run("vanish"))
    clock.now += 0.6
    assert (await api.call("GET", f"/threads/t/runs/{run['id']}"))[0] == 404
    assert (await api.call("GET", "/threads/t/runs"))[1]["data"] == []


async def test_strict_threads_take_one_run_at_a_time(clock: Clock) -> None:
    async with OpenAIStandIn(clock=clock, strict_threads=True) as server, aiohttp.ClientSession() as session:
        api = Api(server, session)
        _, run = await api.call("POST", "/threads/thread_x/runs", a_run())
        await api.response(conversation="conv_1")
        status, body = await api.call("POST", "/threads/thread_x/runs", a_run())
        assert status == 400
        assert body["error"]["message"] == f"Thread thread_x already has an active run {run['id']}."
        status, body = await api.call("POST", "/responses", a_response(conversation="conv_1"))
        assert (status, body["error"]["code"]) == (400, "conversation_locked")
        clock.now += 1
        assert (await api.call("POST", "/threads/thread_x/runs", a_run()))[0] == 200
        await api.response(conversation="conv_1")


async def test_assistants_can_be_gone(api: Api) -> None:
    api.server.assistants = False
    status, body = await api.call("POST", "/threads/thread_1/runs", a_run())
    assert (status, body["error"]["message"]) == (404, "Invalid URL (POST /v1/threads/thread_1/runs)")
    await api.response()


# Keys


async def test_a_wrong_key_is_401_and_quoted_in_part(api: Api) -> None:
    status, body = await api.call("GET", "/models", key="sk-proj-0123456789abcdefghij")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert body["error"]["message"].startswith("Incorrect API key provided: sk-proj-****************ghij.")
    status, body = await api.call("GET", "/models", key=None)
    assert (status, body["error"]["code"]) == (401, None)
    assert [request.status for request in api.server.requests()] == [401, 401]


@pytest.mark.parametrize("key", ["s", "sk-", "sk-abcdefwxyz", "sk-0123456789abc", "sk-0123456789abcd"])
def test_no_key_is_quoted_in_full(key: str) -> None:
    assert key not in str(wrong_key(f"Bearer {key}")).partition(". ")[0].partition(": ")[2]


async def test_keys_can_be_changed(api: Api) -> None:
    await api.control("POST", "/keys", {"keys": ["sk-a", "sk-b"]})
    assert (await api.call("GET", "/models", key="sk-b"))[0] == 200
    assert (await api.call("GET", "/models"))[0] == 401


# Counting and control


async def test_every_request_is_written_down(api: Api, clock: Clock) -> None:
    id = await api.response()
    await api.call("GET", f"/responses/{id}?include=usage")
    _, (post, get) = await api.control("GET", "/requests")
    assert (post["n"], post["at"], post["method"], post["path"]) == (1, START, "POST", "/v1/responses")
    assert (post["authorization"], post["body"], post["status"]) == ("Bearer sk-standin", a_response(), 200)
    assert "user-agent" in post["headers"]
    assert (get["path"], get["query"], get["body"]) == (f"/v1/responses/{id}", "include=usage", None)
    assert [request["n"] for request in (await api.control("GET", "/requests?method=get"))[1]] == [2]
    await api.control("DELETE", "/requests")
    await api.call("GET", "/models")
    assert [request.n for request in api.server.requests()] == [3]


async def test_runs_of_both_wires_are_shown(api: Api, clock: Clock) -> None:
    id = await api.response(script="never", conversation="conv_1")
    clock.now += 0.1
    _, run = await api.call("POST", "/threads/t/runs", a_run("never"))
    await api.call("GET", f"/responses/{id}")
    await api.call("POST", f"/threads/t/runs/{run['id']}/cancel")
    _, (first, second) = await api.control("GET", "/runs")
    assert first == {
        "id": id,
        "wire": "responses",
        "thread": "conv_1",
        "status": "in_progress",
        "metadata": {"standin": "never"},
        "created_at": START,
        "cancel_calls": 0,
        "polls": 1,
    }
    assert (second["wire"], second["thread"], second["status"]) == ("assistants", "t", "cancelling")
    assert second["cancel_calls"] == 1


async def test_a_run_can_be_moved_on_by_hand(api: Api, clock: Clock) -> None:
    id = await api.response(script="never")
    clock.now += 100
    assert (await api.control("POST", f"/runs/{id}", {"script": "queued:1,completed"}))[0] == 200
    assert (await api.call("GET", f"/responses/{id}"))[1]["status"] == "queued"
    clock.now += 1
    assert (await api.call("GET", f"/responses/{id}"))[1]["status"] == "completed"
    assert (await api.control("POST", "/runs/run_1", {"script": "never"}))[0] == 400


async def test_waiting_ends_when_enough_requests_have_come(api: Api) -> None:
    await api.call("GET", "/models")
    waiting = asyncio.create_task(api.control("GET", "/wait?method=GET&path=/models$&count=3&timeout=5"))
    await api.call("GET", "/models")
    await api.call("GET", "/responses/resp_1")
    assert not waiting.done()
    await api.call("GET", "/models")
    status, found = await waiting
    assert (status, len(found)) == (200, 3)
    assert (await api.control("GET", "/wait?path=nothing&timeout=0.01"))[0] == 408
    with pytest.raises(TimeoutError):
        await api.server.wait_for("POST", timeout=0.01)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/faults", {"match": "POST"}, 400),
        ("POST", "/faults", {"match": "POST ("}, 400),
        ("POST", "/faults", {"match": "POST x", "stauts": 500}, 400),
        ("POST", "/faults", {"match": "POST x", "hold": "never"}, 400),
        ("POST", "/release", {"id": "fault-9"}, 400),
        ("POST", "/keys", {}, 400),
        ("GET", "/nothing", None, 404),
    ],
)
async def test_the_control_api_says_what_is_wrong(api: Api, method: str, path: str, body: Any, status: int) -> None:
    answered, said = await api.control(method, path, body)
    assert answered == status
    assert said["error"]


# Faults


async def test_a_fault_answers_so_many_times_and_nothing_is_processed(api: Api) -> None:
    await api.control("POST", "/faults", {"match": "POST /responses$", "times": 2, "status": 429})
    for _ in range(2):
        status, body = await api.call("POST", "/responses", a_response())
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert api.server.runs() == []
    await api.response()
    _, (fault,) = await api.control("GET", "/faults")
    assert (fault["matched"], fault["waiting"]) == (2, 0)


async def test_a_fault_can_say_anything(api: Api) -> None:
    api.server.add_fault(
        "* /models", body="<html>proxy</html>", content_type="text/html", headers={"Retry-After": "7"}, times=None
    )
    url, headers = f"{api.server.url}/models", {"Authorization": "Bearer sk-standin"}
    for _ in range(3):
        async with api.session.get(url, headers=headers) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            assert (response.headers["Retry-After"], await response.text()) == ("7", "<html>proxy</html>")
    await api.control("DELETE", "/faults")
    api.server.add_fault("GET /models", headers={"openai-poll-after-ms": "500"}, delay=0.001)
    async with api.session.get(url, headers=headers) as response:
        assert response.headers["openai-poll-after-ms"] == "500"
        assert (await response.json())["object"] == "list"


async def test_a_request_can_be_processed_and_its_answer_replaced(api: Api) -> None:
    api.server.add_fault("POST /responses$", status=504, process=True)
    assert (await api.call("POST", "/responses", a_response()))[0] == 504
    assert len(api.server.runs()) == 1


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_connection_can_be_dropped(api: Api, when: str, created: int) -> None:
    api.server.add_fault("POST /responses$", close=when)
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.call("POST", "/responses", a_response())
    assert len(api.server.runs()) == created
    assert [request.status for request in api.server.requests()] == [None]
    await api.response()


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_request_can_be_held(api: Api, when: str, created: int) -> None:
    _, answer = await api.control("POST", "/faults", {"match": "POST /responses$", "hold": when})
    posting = asyncio.create_task(api.response())
    await api.control("GET", "/wait?method=POST&path=/responses$&timeout=5")
    _, (fault,) = await api.control("GET", "/faults")
    assert (fault["matched"], fault["waiting"]) == (1, 1)
    assert len(api.server.runs()) == created
    assert api.server.requests()[0].status is None
    await api.control("POST", "/release", answer)
    assert await posting == api.server.runs()[0].id
    assert api.server.faults()[0].as_json()["waiting"] == 0
    assert api.server.requests()[0].status == 200


@pytest.mark.parametrize(("when", "taken"), [("before", 0), ("after", 1)])
async def test_a_fault_can_be_for_submits_alone(api: Api, clock: Clock, when: str, taken: int) -> None:
    await api.control("POST", "/faults", {"match": "POST /responses$", "submits": True, "close": when})
    first = await api.response(script="requires_action")
    clock.now += 1
    results = [ANSWER["function_call"](call) for call in await calls_of(api, first)]
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.response(script="requires_action", previous_response_id=first, input=results)
    assert len(api.server.submits()) == taken
    await api.response(script="requires_action", previous_response_id=first, input=results)
    assert api.server.faults()[0].matched == 1


async def test_a_fault_can_spare_submits(api: Api, clock: Clock) -> None:
    _, run = await api.call("POST", "/threads/t/runs", a_run("requires_action"))
    clock.now += 1
    api.server.add_fault("POST .", submits=False, status=500)
    path = f"/threads/t/runs/{run['id']}/submit_tool_outputs"
    assert (await api.call("POST", path, {"tool_outputs": []}))[0] == 400
    assert (await api.call("POST", "/threads/t/runs", a_run()))[0] == 500


async def test_a_held_request_is_let_go_with_the_faults(api: Api) -> None:
    api.server.add_fault("POST /responses$", hold="before")
    posting = asyncio.create_task(api.response())
    await api.server.wait_for("POST", timeout=5)
    await api.control("DELETE", "/faults")
    await posting
    assert api.server.faults() == []


async def test_stopping_drops_what_is_held_and_who_waits(clock: Clock) -> None:
    server = OpenAIStandIn(clock=clock)
    await server.start()
    server.add_fault("GET /models", hold="before")
    async with aiohttp.ClientSession() as session:
        api = Api(server, session)
        calls = [
            asyncio.create_task(api.call("GET", "/models")),
            asyncio.create_task(api.control("GET", "/wait?path=nothing&timeout=60")),
        ]
        await server.wait_for("GET", "/models", timeout=5)
        await asyncio.sleep(0.005)
        began = time.monotonic()
        await server.stop()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, aiohttp.ClientConnectionError)
    assert time.monotonic() - began < 0.5


async def test_bodies_that_are_no_json_and_unknown_addresses_are_refused(api: Api) -> None:
    status, body = await api.call("POST", "/responses", data="{nonsense")
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert api.server.requests()[0].body is None
    assert (await api.call("GET", "/nothing"))[1]["error"]["message"] == "Invalid URL (GET /v1/nothing)"


# With the real SDK


async def test_the_sdk_carries_a_response_through(client: openai.AsyncOpenAI, clock: Clock) -> None:
    made = await client.responses.create(model="gpt-5", input="Hello", background=True, store=True)
    assert made.status == "queued"
    clock.now += 1
    done = await client.responses.retrieve(made.id)
    assert (done.status, done.output_text, done.background) == ("completed", "You said: Hello", True)
    assert (await client.responses.cancel(made.id)).status == "completed"
    assert [model.id async for model in client.models.list()]


async def test_the_sdk_carries_a_run_through(client: openai.AsyncOpenAI, clock: Clock) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        runs = client.beta.threads.runs
        run = await runs.create(thread_id="thread_1", assistant_id="asst_1", metadata={"token": "x"})
        clock.now += 1
        assert (await runs.retrieve(run.id, thread_id="thread_1")).status == "completed"
        assert [(found.id, found.metadata) async for found in runs.list("thread_1")] == [(run.id, {"token": "x"})]
        messages = [m async for m in client.beta.threads.messages.list("thread_1", run_id=run.id)]
        steps = [s async for s in runs.steps.list(run.id, thread_id="thread_1")]
        with pytest.raises(openai.BadRequestError, match="Cannot cancel run with status 'completed'"):
            await runs.cancel(run.id, thread_id="thread_1")
    assert (len(messages), len(steps)) == (1, 1)


async def test_the_sdk_sees_openais_errors(server: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.retrieve("resp_1")
    assert missing.value.type == "invalid_request_error"
    assert (missing.value.request_id or "").startswith("req_")
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.with_options(api_key="sk-other").models.list()
    assert refused.value.code == "invalid_api_key"
    server.add_fault("GET /models", close="before", times=2)  # aiohttp itself sends a dropped GET once more
    with pytest.raises(openai.APIConnectionError):
        await client.models.list()


# As a process


async def test_the_help_names_every_script_and_option() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openairun_devkit.openai", "--help", stdout=asyncio.subprocess.PIPE
    )
    told = (await process.communicate())[0].decode()
    for name, script in SHORTHANDS.items():
        assert f"  {name:<16}{script}" in told
    for option in ("cancel=", "odd_item", "cites", "calls=", "turns=", "asks="):
        assert f"``{option}" in told


async def test_the_process_tells_its_port_and_ends_when_told(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "openairun_devkit.openai", "--port-file", str(port_file), "--key", "sk-a",
        "--no-assistants", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        port = port_file.read_text()
        assert f"http://127.0.0.1:{port}/v1" in line
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-a"}) as session:
            base = f"http://127.0.0.1:{port}"
            async with session.get(f"{base}/v1/threads/t/runs") as response:
                assert response.status == 404
            fault = {"match": "GET /models", "hold": "before"}
            async with session.post(f"{base}/_standin/faults", json=fault):
                held = asyncio.create_task(session.get(f"{base}/v1/models").__aenter__())
            async with session.get(f"{base}/_standin/wait?path=/models"):
                process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.wait_for(process.wait(), 5) == 0
            assert time.monotonic() - began < 1
            with pytest.raises(aiohttp.ClientConnectionError):
                await held
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
