"""What is sent to OpenAI is what OpenAI's description and the installed SDK accept, field by field."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from openai.types.beta.threads.run_create_params import RunCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai_description import schema_errors

from openairun_devkit.cluster.rules import check
from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.crd import custom_resource_definition
from openairun_operator.api.names import TOKEN_KEY
from openairun_operator.api.record import API
from openairun_operator.api.references import KeyRef
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.lifecycle.observation import CreateRequest
from openairun_operator.wires import assistants, responses
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

FUNCTION = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        "strict": True,
    },
}
BARE_FUNCTION = {"type": "function", "function": {"name": "now"}}
HOSTED: list[dict[str, Any]] = [
    {"type": "file_search", "options": {"vector_store_ids": ["vs_1"], "max_num_results": 5}},
    {"type": "web_search", "options": {"search_context_size": "low"}},
    {"type": "code_interpreter", "options": {"container": {"type": "auto"}}},
    {"type": "mcp", "options": {"server_label": "wiki", "server_url": "https://mcp.example"}},
    {"type": "image_generation"},
    {"type": "custom", "options": {"name": "sql", "description": "SQL"}},
]
MESSAGES = [{"role": "user", "content": "I am in Oslo."}, {"role": "assistant", "content": "Noted."}]
FORM = {"type": "object", "properties": {"degrees": {"type": "number"}}, "required": ["degrees"]}
REPORT: dict[str, Any] = {
    "type": "json_schema",
    "jsonSchema": {"name": "report", "description": "The weather.", "schema": FORM, "strict": True},
}
RESPONSE: dict[str, Any] = {
    "input": "How is the weather?",
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "additionalInstructions": "Use metric units.",
    "additionalMessages": MESSAGES,
    "tools": [FUNCTION, BARE_FUNCTION, *HOSTED],
    "toolChoice": {"type": "function", "name": "weather"},
    "parallelToolCalls": False,
    "responseFormat": REPORT,
    "reasoningEffort": "low",
    "temperature": 0.0,
    "topP": 1.0,
    "maxTokens": 100,
    "truncation": {"type": "disabled"},
}
ON_THREAD: dict[str, Any] = {
    "assistantID": "asst_1",
    "threadID": "thread_1",
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "additionalInstructions": "Use metric units.",
    "additionalMessages": MESSAGES,
    "tools": [
        FUNCTION,
        BARE_FUNCTION,
        {"type": "code_interpreter"},
        {"type": "file_search", "options": {"file_search": {"max_num_results": 5}}},
    ],
    "toolChoice": {"type": "function", "name": "weather"},
    "parallelToolCalls": False,
    "responseFormat": REPORT,
    "reasoningEffort": "low",
    "temperature": 2.0,
    "topP": 0.0,
    "maxTokens": 300,
    "maxPromptTokens": 1000,
    "truncation": {"type": "last_messages", "lastMessages": 4},
}
SPECS: dict[str, tuple[API, dict[str, Any]]] = {
    "text alone": ("Responses", {"input": "Hello"}),
    "everything, in a conversation": ("Responses", {**RESPONSE, "conversationID": "conv_1"}),
    "everything, after a response": ("Responses", {**RESPONSE, "previousResponseID": "resp_1"}),
    "a response, empty lists and texts": ("Responses", {"input": "Hello", "instructions": "", "tools": []}),
    "an assistant on a thread": ("Assistants", {"assistantID": "asst_1", "threadID": "thread_1"}),
    "everything, on a thread": ("Assistants", ON_THREAD),
    "on a thread, empty lists and texts": (
        "Assistants",
        {"assistantID": "asst_1", "threadID": "thread_1", "instructions": "", "tools": []},
    ),
}
TEXT, THREAD = SPECS["text alone"][1], SPECS["an assistant on a thread"][1]
CHOICES: list[tuple[API, dict[str, Any], Any]] = [
    ("Responses", {"type": "auto"}, "auto"),
    ("Responses", {"type": "none"}, "none"),
    ("Responses", {"type": "required"}, "required"),
    ("Responses", {"type": "function", "name": "weather"}, {"type": "function", "name": "weather"}),
    ("Responses", {"type": "custom", "name": "sql"}, {"type": "custom", "name": "sql"}),
    ("Responses", {"type": "file_search"}, {"type": "file_search"}),
    (
        "Responses",
        {"type": "mcp", "name": "look", "options": {"server_label": "wiki", "type": "function", "name": "other"}},
        {"type": "mcp", "name": "look", "server_label": "wiki"},
    ),
    (
        "Responses",
        {"type": "allowed_tools", "options": {"mode": "auto", "tools": [{"type": "function", "name": "weather"}]}},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
    ),
    ("Assistants", {"type": "auto"}, "auto"),
    ("Assistants", {"type": "none"}, "none"),
    ("Assistants", {"type": "required"}, "required"),
    ("Assistants", {"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ("Assistants", {"type": "file_search"}, {"type": "file_search"}),
]
FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "text"}, {"type": "text"}),
    ({"type": "json_object"}, {"type": "json_object"}),
    (
        {"type": "json_schema", "jsonSchema": {"name": "report", "schema": FORM}},
        {"type": "json_schema", "name": "report", "schema": FORM},
    ),
    (
        {"type": "json_schema", "jsonSchema": {"name": "report", "schema": FORM, "strict": False}},
        {"type": "json_schema", "name": "report", "schema": FORM, "strict": False},
    ),
]
for n, (api, choice, _) in enumerate(CHOICES):
    SPECS[f"choice {n}: {choice['type']}"] = (api, {**(TEXT if api == "Responses" else THREAD), "toolChoice": choice})
for n, (form, _) in enumerate(FORMS):
    SPECS[f"form {n} of a response"] = ("Responses", {**TEXT, "responseFormat": form})
    SPECS[f"form {n} on a thread"] = ("Assistants", {**THREAD, "responseFormat": form})
METADATA = {TOKEN_KEY: "token", "team": "blue"}


@pytest.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn() as server:
        yield server


async def sent(server: OpenAIStandIn, api: API, spec: dict[str, Any], default_model: str | None = "gpt-default") -> Any:
    """The body that arrives for `spec`."""
    clients = Clients(5)
    try:
        carrier = wire(api, clients, Credentials(server.url, "sk-standin"))
        await carrier.create(CreateRequest(OpenAIRunSpec.model_validate(spec), default_model, METADATA))
    finally:
        await clients.close()
    (request,) = server.requests()
    return request.body


@pytest.mark.parametrize("name", SPECS)
async def test_what_is_sent_is_what_openai_describes(server: OpenAIStandIn, name: str) -> None:
    api, spec = SPECS[name]
    body = await sent(server, api, spec)
    schema = "CreateResponse" if api == "Responses" else "CreateRunRequest"
    assert schema_errors(schema, body) == []


@pytest.mark.parametrize("name", SPECS)
async def test_what_is_sent_has_only_fields_that_the_sdk_knows(server: OpenAIStandIn, name: str) -> None:
    api, spec = SPECS[name]
    known: Mapping[str, Any] = (ResponseCreateParamsBase if api == "Responses" else RunCreateParamsBase).__annotations__
    assert set(await sent(server, api, spec)) <= set(known)


WITNESS: dict[str, Any] = {
    **RESPONSE,
    **ON_THREAD,
    "inputFrom": {"configMapKeyRef": {"name": "text", "key": "text"}},
    "conversationID": "conv_1",
    "previousResponseID": "resp_1",
    "truncation": {"type": "auto"},
}
"""A value of each field."""


def body_of(api: API, spec: dict[str, Any]) -> dict[str, Any]:
    """The body for `spec`, whose `inputFrom`, if it has one, has been read."""
    read = "What stands there." if "inputFrom" in spec else None
    request = CreateRequest(OpenAIRunSpec.model_validate(spec), None, METADATA, read)
    return responses.request_body(request) if api == "Responses" else assistants.request_body(request)


@pytest.mark.parametrize("field", DEFINING)
@pytest.mark.parametrize("api", ["Responses", "Assistants"])
def test_every_defining_field_reaches_openai_or_is_refused_by_the_crd(api: API, field: str) -> None:
    """A field that says what the run is, and is dropped in silence, would make a run that nobody asked for."""
    whole = {"additionalMessages": MESSAGES} if field in ("input", "inputFrom") else {"input": "Hello"}
    if api == "Assistants":
        whole = {**THREAD, "runID": "run_1"}
    without = {name: value for name, value in whole.items() if name != field}
    spec = {**without, field: WITNESS[field]}
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    refused = bool(check(spec, schema))
    in_the_address = (api, field) == ("Assistants", "threadID")
    reaches = body_of(api, spec) != body_of(api, without) or in_the_address
    assert reaches != refused


async def test_a_thread_is_in_the_address(server: OpenAIStandIn) -> None:
    await sent(server, "Assistants", {**THREAD, "threadID": "thread_other"})
    assert server.requests()[0].path == "/v1/threads/thread_other/runs"


async def test_every_field_of_a_response_arrives_as_written(server: OpenAIStandIn) -> None:
    assert await sent(server, "Responses", {**RESPONSE, "conversationID": "conv_1"}) == {
        "background": True,
        "store": True,
        "model": "gpt-5-mini",
        "input": [*MESSAGES, {"role": "user", "content": "How is the weather?"}],
        "instructions": "Be brief.\n\nUse metric units.",
        "conversation": "conv_1",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_output_tokens": 100,
        "tools": [
            {"type": "function", **FUNCTION["function"]},  # type: ignore[dict-item]
            {"type": "function", "name": "now", "parameters": None, "strict": None},
            *({"type": tool["type"], **tool.get("options", {})} for tool in HOSTED),
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", **REPORT["jsonSchema"]}},
        "reasoning": {"effort": "low"},
        "truncation": "disabled",
        "metadata": METADATA,
    }


async def test_every_field_of_a_run_on_a_thread_arrives_as_written(server: OpenAIStandIn) -> None:
    assert await sent(server, "Assistants", ON_THREAD) == {
        "assistant_id": "asst_1",
        "model": "gpt-5-mini",
        "instructions": "Be brief.",
        "additional_instructions": "Use metric units.",
        "additional_messages": MESSAGES,
        "temperature": 2.0,
        "top_p": 0.0,
        "max_completion_tokens": 300,
        "tools": [
            FUNCTION,
            BARE_FUNCTION,
            {"type": "code_interpreter"},
            {"type": "file_search", "file_search": {"max_num_results": 5}},
        ],
        "max_prompt_tokens": 1000,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": REPORT["jsonSchema"]},
        "reasoning_effort": "low",
        "truncation_strategy": {"type": "last_messages", "last_messages": 4},
        "metadata": METADATA,
    }
    assert server.requests()[0].path == "/v1/threads/thread_1/runs"


async def test_a_response_without_a_model_gets_the_default_one(server: OpenAIStandIn) -> None:
    assert (await sent(server, "Responses", {"input": "Hello"}))["model"] == "gpt-default"


async def test_an_assistant_keeps_its_own_model(server: OpenAIStandIn) -> None:
    assert "model" not in await sent(server, "Assistants", SPECS["an assistant on a thread"][1])


@pytest.mark.parametrize(("api", "choice", "written"), CHOICES)
def test_a_choice_among_tools_is_written_as_the_api_has_it(api: API, choice: dict[str, Any], written: Any) -> None:
    spec = {**(TEXT if api == "Responses" else THREAD), "toolChoice": choice}
    assert body_of(api, spec)["tool_choice"] == written


@pytest.mark.parametrize(("form", "written"), FORMS)
def test_the_form_of_the_answer_is_written_as_the_api_has_it(form: dict[str, Any], written: dict[str, Any]) -> None:
    assert body_of("Responses", {**TEXT, "responseFormat": form})["text"] == {"format": written}
    on_thread = body_of("Assistants", {**THREAD, "responseFormat": form})["response_format"]
    inner = {name: value for name, value in written.items() if name != "type"}
    assert on_thread == {"type": form["type"], **({"json_schema": inner} if inner else {})}


@pytest.mark.parametrize(
    ("instructions", "added", "written"),
    [
        ("Be brief.", "Be kind.", "Be brief.\n\nBe kind."),
        (None, "Be kind.", "Be kind."),
        ("", "Be kind.", "Be kind."),
        ("Be brief.", "", "Be brief."),
        ("", None, ""),
    ],
)
def test_what_is_added_to_the_instructions_stands_after_a_blank_line(
    instructions: str | None, added: str | None, written: str
) -> None:
    spec = {**TEXT, "instructions": instructions, "additionalInstructions": added}
    assert body_of("Responses", spec)["instructions"] == written


def test_the_input_may_stand_elsewhere() -> None:
    spec = {"inputFrom": WITNESS["inputFrom"]}
    assert body_of("Responses", spec)["input"] == "What stands there."
    with_messages = body_of("Responses", {**spec, "additionalMessages": MESSAGES})["input"]
    assert with_messages == [*MESSAGES, {"role": "user", "content": "What stands there."}]


def test_messages_may_be_all_the_input() -> None:
    assert body_of("Responses", {"additionalMessages": MESSAGES})["input"] == MESSAGES


def test_an_assistant_without_tools_is_another_thing_than_one_with_its_own() -> None:
    assert body_of("Assistants", {**THREAD, "tools": []})["tools"] == []
    assert "tools" not in body_of("Assistants", THREAD)


@pytest.mark.parametrize("api", ["Responses", "Assistants"])
def test_an_mcp_server_gets_its_token_and_nothing_else_does(api: API) -> None:
    secret = KeyRef(name="wiki", key="token")
    mcp = {"type": "mcp", "options": {"server_label": "wiki"}, "authorizationFrom": secret.model_dump()}
    spec = OpenAIRunSpec.model_validate({**(TEXT if api == "Responses" else THREAD), "tools": [mcp, FUNCTION]})
    request = CreateRequest(spec, authorizations={secret: "wiki-token"})
    made = responses.request_body(request) if api == "Responses" else assistants.request_body(request)
    assert made["tools"][0] == {"type": "mcp", "server_label": "wiki", "authorization": "wiki-token"}
    assert repr(made).count("wiki-token") == 1
    assert "wiki-token" not in repr(request)
    if api == "Responses":
        assert schema_errors("CreateResponse", {**made, "model": "m"}) == []
