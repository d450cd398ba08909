"""What is sent to OpenAI is what OpenAI's description and the installed SDK accept, field by field."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from openai.types.beta.threads.run_create_params import RunCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai_description import schema_errors

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.names import TOKEN_KEY
from openairun_operator.api.record import API
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.lifecycle.observation import CreateRequest
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
RESPONSE: dict[str, Any] = {
    "input": "How is the weather?",
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "tools": [FUNCTION, BARE_FUNCTION, *HOSTED],
    "temperature": 0.0,
    "topP": 1.0,
    "maxTokens": 100,
}
ON_THREAD: dict[str, Any] = {
    "assistantID": "asst_1",
    "threadID": "thread_1",
    "model": "gpt-5-mini",
    "instructions": "Be brief.",
    "tools": [
        FUNCTION,
        BARE_FUNCTION,
        {"type": "code_interpreter"},
        {"type": "file_search", "options": {"file_search": {"max_num_results": 5}}},
    ],
    "temperature": 2.0,
    "topP": 0.0,
    "maxTokens": 300,
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


def test_every_defining_field_is_in_one_of_the_specs_above() -> None:
    assert {field for _, spec in SPECS.values() for field in spec} == set(DEFINING)


async def test_every_field_of_a_response_arrives_as_written(server: OpenAIStandIn) -> None:
    assert await sent(server, "Responses", {**RESPONSE, "conversationID": "conv_1"}) == {
        "background": True,
        "store": True,
        "model": "gpt-5-mini",
        "input": "How is the weather?",
        "instructions": "Be brief.",
        "conversation": "conv_1",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_output_tokens": 100,
        "tools": [
            {"type": "function", **FUNCTION["function"]},  # type: ignore[dict-item]
            {"type": "function", "name": "now", "parameters": None, "strict": None},
            *({"type": tool["type"], **tool.get("options", {})} for tool in HOSTED),
        ],
        "metadata": METADATA,
    }


async def test_every_field_of_a_run_on_a_thread_arrives_as_written(server: OpenAIStandIn) -> None:
    assert await sent(server, "Assistants", ON_THREAD) == {
        "assistant_id": "asst_1",
        "model": "gpt-5-mini",
        "instructions": "Be brief.",
        "temperature": 2.0,
        "top_p": 0.0,
        "max_completion_tokens": 300,
        "tools": [
            FUNCTION,
            BARE_FUNCTION,
            {"type": "code_interpreter"},
            {"type": "file_search", "file_search": {"max_num_results": 5}},
        ],
        "metadata": METADATA,
    }
    assert server.requests()[0].path == "/v1/threads/thread_1/runs"


async def test_a_response_without_a_model_gets_the_default_one(server: OpenAIStandIn) -> None:
    assert (await sent(server, "Responses", {"input": "Hello"}))["model"] == "gpt-default"


async def test_an_assistant_keeps_its_own_model(server: OpenAIStandIn) -> None:
    assert "model" not in await sent(server, "Assistants", SPECS["an assistant on a thread"][1])
