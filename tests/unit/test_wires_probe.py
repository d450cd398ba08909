"""An address and a key are checked by what costs nothing, and what is said of them is what a create would meet."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.probe import Probe, probe

KEY = "team-key-0123456789"
NEITHER = "answers, and serves neither the Responses API nor the Assistants API."


@pytest.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(keys=[KEY]) as server:
        yield server


async def asked(clients: Clients, server: OpenAIStandIn, key: str = KEY, **more: Any) -> Probe:
    return await probe(clients, Credentials(server.url, key, **more))


def said(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


async def test_a_server_of_both_apis(server: OpenAIStandIn, clients: Clients) -> None:
    assert await asked(clients, server) == Probe(frozenset({"Responses", "Assistants"}), None)


async def test_nothing_is_created_and_two_requests_are_made(server: OpenAIStandIn, clients: Clients) -> None:
    await asked(clients, server, api_version="v1", key_in_header=True)
    assert [(each.method, each.path, each.query) for each in server.requests()] == [
        ("GET", "/v1/responses/resp_openairun_check", "api-version=v1"),
        ("GET", "/v1/assistants", "api-version=v1&limit=1"),
    ]
    assert [each.headers.get("openai-beta") for each in server.requests()] == [None, "assistants=v2"]
    assert {each.headers["api-key"] for each in server.requests()} == {KEY}
    assert not server.runs()


async def test_openai_itself_serves_responses_alone(server: OpenAIStandIn, clients: Clients) -> None:
    server.assistants = False
    assert await asked(clients, server) == Probe(frozenset({"Responses"}), None)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "body": said("Invalid URL (GET /v1/responses/resp_openairun_check)")},
        {"status": 404, "body": said("Not Found")},  # vLLM, of any path
        {"status": 404, "body": said("Resource not found")},  # Azure, of any path
        {"status": 404, "body": {"detail": "Not Found"}},
        {"status": 404, "body": ""},
        {"status": 404, "body": "<html>no response</html>", "content_type": "text/html"},
        {"status": 405, "body": {"detail": "Method Not Allowed"}},
        {"status": 200, "body": "<html>Welcome</html>", "content_type": "text/html"},
        {"status": 200, "body": {"status": "ok"}},
        {"status": 400, "body": "<html>400 The plain HTTP request was sent to HTTPS port</html>"},
        {"status": 302, "body": "", "headers": {"Location": "https://login.test/"}},
    ],
    ids=str,
)
async def test_what_says_that_responses_are_not_served(
    server: OpenAIStandIn, clients: Clients, fault: dict[str, Any]
) -> None:
    server.add_fault("GET /responses/", times=None, **fault)
    assert await asked(clients, server) == Probe(frozenset({"Assistants"}), None)
    server.assistants = False
    found = await asked(clients, server)
    assert not found.apis
    assert found.failure is not None
    assert found.failure.reason is Reason.API_NOT_SERVED
    assert found.failure.message == f"{server.url} {NEITHER} Check the address (for OpenAI it ends in /v1)"


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 400, "body": said("Invalid 'response_id': 'resp_openairun_check'. Expected an id of OpenAI's.")},
        {"status": 404, "body": said("response not found")},
        {"status": 404, "body": said("No object 'resp_openairun_check'")},
        {"status": 200, "body": {"id": "resp_openairun_check", "object": "response", "status": "completed"}},
    ],
    ids=str,
)
async def test_what_says_that_responses_are_served(
    server: OpenAIStandIn, clients: Clients, fault: dict[str, Any]
) -> None:
    server.assistants = False
    server.add_fault("GET /responses/", **fault)
    assert await asked(clients, server) == Probe(frozenset({"Responses"}), None)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "body": said("No assistants here")},
        {"status": 405, "body": ""},
        {"status": 200, "body": "<html>"},
        {"status": 200, "body": {"data": "none"}},
        {"status": 400, "body": said("Bad request.")},
        {"status": 401},
        {"status": 403},
        {"status": 500},
        {"close": "before"},
    ],
    ids=str,
)
async def test_what_says_that_assistants_are_not_served_is_no_failure_where_responses_are(
    server: OpenAIStandIn, clients: Clients, fault: dict[str, Any]
) -> None:
    server.add_fault("GET /assistants", times=None, **fault)
    assert await asked(clients, server) == Probe(frozenset({"Responses"}), None)


async def test_a_wrong_key(server: OpenAIStandIn, clients: Clients) -> None:
    found = await asked(clients, server, "sk-wrong-0123456789")
    assert not found.apis
    assert found.failure is not None
    assert found.failure.reason is Reason.INVALID_CREDENTIALS
    assert "OpenAI said 401: Incorrect API key provided: [redacted]" in found.failure.message
    assert len(server.requests()) == 1


@pytest.mark.parametrize(
    ("match", "status", "reason", "requests"),
    [
        ("* .", 403, Reason.PERMISSION_DENIED, 2),
        ("* .", 500, Reason.SERVER_ERROR, 2),
        ("* .", 503, Reason.SERVER_ERROR, 2),
        ("* .", 429, Reason.RATE_LIMITED, 1),
        ("* .", 408, Reason.TIMED_OUT, 1),
        ("* .", 402, Reason.QUOTA_EXCEEDED, 1),
        ("* /responses/", 403, Reason.PERMISSION_DENIED, 2),
        ("* /responses/", 500, Reason.SERVER_ERROR, 2),
    ],
)
async def test_an_answer_that_does_not_tell_is_the_failure(
    server: OpenAIStandIn, clients: Clients, match: str, status: int, reason: Reason, requests: int
) -> None:
    server.assistants = False
    server.add_fault(match, times=None, status=status)
    found = await asked(clients, server)
    assert not found.apis
    assert found.failure is not None
    assert found.failure.reason is reason
    assert len(server.requests()) == requests


async def test_no_right_to_one_api_is_no_failure_where_the_other_is_served(
    server: OpenAIStandIn, clients: Clients
) -> None:
    server.add_fault("GET /responses/", status=403)
    assert await asked(clients, server) == Probe(frozenset({"Assistants"}), None)


async def test_nobody_at_the_address(clients: Clients) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        found = await probe(clients, Credentials(url, KEY))
    assert not found.apis
    assert found.failure is not None
    assert found.failure.reason is Reason.UNREACHABLE
    assert url in found.failure.message


async def test_no_answer(server: OpenAIStandIn, clients: Clients) -> None:
    server.add_fault("* .", times=None, hold="before")
    found = await asked(clients, server, timeout=1.0)
    assert found.failure is not None
    assert found.failure.reason is Reason.TIMED_OUT
    assert len(server.requests()) == 1


async def test_an_address_that_is_refused(server: OpenAIStandIn, clients: Clients) -> None:
    found = await asked(clients, server, guarded=True)
    assert found.failure is not None
    assert found.failure.reason is Reason.ADDRESS_REFUSED
    assert not server.requests()


async def test_a_key_that_cannot_be_sent(clients: Clients) -> None:
    with pytest.raises(ValueError, match="the key holds characters"):
        await probe(clients, Credentials("http://127.0.0.1:9/v1", "sk-ключ"))
