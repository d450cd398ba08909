"""A create is sent exactly once whatever happens, and its failure says truly whether a run may exist."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import httpx2
import openai
import pytest

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.errors import never_connected

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

NOT_CREATED, UNKNOWN = Outcome.NOT_CREATED, Outcome.UNKNOWN
CREATES: Final = "/(responses|runs)$"
KEY: Final = "team-key-0123456789"
REQUESTS: dict[API, CreateRequest] = {
    "Responses": CreateRequest(OpenAIRunSpec(input="Hello", model="gpt-standin")),
    "Assistants": CreateRequest(OpenAIRunSpec(assistantID="asst_1", threadID="thread_1")),
}
APIS = pytest.mark.parametrize("api", REQUESTS)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(keys=[KEY]) as server:
        yield server


@pytest.fixture
async def elsewhere() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(keys=[KEY]) as server:
        yield server


async def create(api: API, url: str, timeout: float = 5) -> RunObservation:
    clients = Clients(timeout)
    try:
        return await wire(api, clients, Credentials(url, KEY)).create(REQUESTS[api])
    finally:
        await clients.close()


async def failure(api: API, url: str, timeout: float = 5) -> Failure:
    with pytest.raises(CallFailedError) as raised:
        await create(api, url, timeout)
    assert KEY not in raised.value.failure.message
    return raised.value.failure


def error(message: str, code: str | None = None, type: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


SAID: Final = "These are OpenAI's own words."

ANSWERS: dict[str, tuple[dict[str, Any], Reason, Outcome, float | None, str]] = {
    # what: (the fault, reason, outcome, retry after, what the message says)
    "400": ({"status": 400, "body": error(SAID)}, Reason.INVALID_REQUEST, NOT_CREATED, None, SAID),
    "400 HTML": ({"status": 400, "body": "<html>no</html>"}, Reason.INVALID_REQUEST, NOT_CREATED, None, "Bad Request"),
    "400 conversation locked": (
        {"status": 400, "body": error(SAID, "conversation_locked")},
        Reason.BUSY,
        NOT_CREATED,
        None,
        SAID,
    ),
    "400 thread busy": (
        {"status": 400, "body": error("Thread thread_1 already has an active run run_1.")},
        Reason.BUSY,
        NOT_CREATED,
        None,
        "already has an active run",
    ),
    "401": ({"status": 401, "body": error(SAID)}, Reason.INVALID_CREDENTIALS, NOT_CREATED, None, SAID),
    "402": ({"status": 402, "body": error(SAID)}, Reason.QUOTA_EXCEEDED, NOT_CREATED, None, SAID),
    "403": ({"status": 403, "body": error(SAID)}, Reason.PERMISSION_DENIED, NOT_CREATED, None, SAID),
    "403 model": (
        {"status": 403, "body": error(SAID, "model_not_found")},
        Reason.MODEL_NOT_ACCESSIBLE,
        NOT_CREATED,
        None,
        SAID,
    ),
    "404 model": (
        {"status": 404, "body": error(SAID, "model_not_found")},
        Reason.MODEL_NOT_ACCESSIBLE,
        NOT_CREATED,
        None,
        SAID,
    ),
    "405": ({"status": 405, "body": error(SAID)}, Reason.API_NOT_SERVED, NOT_CREATED, None, SAID),
    "408": ({"status": 408, "body": error(SAID)}, Reason.TIMED_OUT, UNKNOWN, None, SAID),
    "409": ({"status": 409, "body": error(SAID)}, Reason.REFUSED, NOT_CREATED, None, SAID),
    "422": ({"status": 422, "body": error(SAID)}, Reason.INVALID_REQUEST, NOT_CREATED, None, SAID),
    "429": ({"status": 429, "body": error(SAID)}, Reason.RATE_LIMITED, NOT_CREATED, None, SAID),
    "429 for 7 s": (
        {"status": 429, "body": error(SAID), "headers": {"Retry-After": "7"}},
        Reason.RATE_LIMITED,
        NOT_CREATED,
        7,
        SAID,
    ),
    "429 for 1500 ms": (
        {"status": 429, "body": error(SAID), "headers": {"retry-after-ms": "1500", "Retry-After": "9"}},
        Reason.RATE_LIMITED,
        NOT_CREATED,
        1.5,
        SAID,
    ),
    "429 for a year": (
        {"status": 429, "headers": {"Retry-After": "31536000"}},
        Reason.RATE_LIMITED,
        NOT_CREATED,
        600,
        "429",
    ),
    "429 for nan": ({"status": 429, "headers": {"Retry-After": "nan"}}, Reason.RATE_LIMITED, NOT_CREATED, None, "429"),
    "429 until a date": (
        {"status": 429, "headers": {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}},
        Reason.RATE_LIMITED,
        NOT_CREATED,
        None,
        "429",
    ),
    "429 no credit": (
        {"status": 429, "body": error(SAID, "insufficient_quota", "insufficient_quota")},
        Reason.QUOTA_EXCEEDED,
        NOT_CREATED,
        None,
        SAID,
    ),
    "429 HTML": ({"status": 429, "body": "<html>"}, Reason.RATE_LIMITED, NOT_CREATED, None, "429"),
    "500": ({"status": 500, "body": error(SAID)}, Reason.SERVER_ERROR, UNKNOWN, None, SAID),
    "500 after it was processed": ({"status": 500, "process": True}, Reason.SERVER_ERROR, UNKNOWN, None, "500"),
    "502 HTML": ({"status": 502, "body": "<html>"}, Reason.SERVER_ERROR, UNKNOWN, None, "502"),
    "502": ({"status": 502, "body": error(SAID)}, Reason.SERVER_ERROR, UNKNOWN, None, SAID),
    "503": (
        {"status": 503, "body": error(SAID), "headers": {"Retry-After": "3"}},
        Reason.SERVER_ERROR,
        NOT_CREATED,
        3,
        SAID,
    ),
    "503 HTML": ({"status": 503, "body": "<html>upstream"}, Reason.SERVER_ERROR, UNKNOWN, None, "503"),
    "503 empty": ({"status": 503, "body": ""}, Reason.SERVER_ERROR, UNKNOWN, None, "503"),
    "503 JSON without an error": ({"status": 503, "body": {"ok": False}}, Reason.SERVER_ERROR, UNKNOWN, None, "503"),
    "503 JSON list": ({"status": 503, "body": []}, Reason.SERVER_ERROR, UNKNOWN, None, "503"),
    "503 deep JSON": ({"status": 503, "body": "[" * 100_000}, Reason.SERVER_ERROR, UNKNOWN, None, "503"),
    "504": ({"status": 504, "body": error(SAID)}, Reason.TIMED_OUT, UNKNOWN, None, SAID),
    "520": ({"status": 520, "body": "<html>"}, Reason.SERVER_ERROR, UNKNOWN, None, "520"),
    "524": ({"status": 524, "body": "<html>"}, Reason.SERVER_ERROR, UNKNOWN, None, "524"),
    "200 HTML": (
        {"body": "<html>Log in</html>", "content_type": "text/html"},
        Reason.UNREADABLE_ANSWER,
        UNKNOWN,
        None,
        "text/html",
    ),
    "200 without an id": ({"body": {"status": "queued"}}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no id"),
    "200 with another id": ({"body": {"id": 7, "status": "queued"}}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no id"),
    "200 list": ({"body": []}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no JSON object"),
    "200 empty": ({"body": ""}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no JSON object"),
    "200 deep JSON": ({"body": "[" * 100_000}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no JSON object"),
    "202 without an id": ({"status": 202, "body": {}}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "no id"),
    "204": ({"status": 204, "body": ""}, Reason.UNREADABLE_ANSWER, UNKNOWN, None, "cannot be read"),
}


@APIS
@pytest.mark.parametrize("what", ANSWERS)
async def test_a_create_that_was_answered_badly(server: OpenAIStandIn, api: API, what: str) -> None:
    fault, reason, outcome, retry_after, said = ANSWERS[what]
    headers = {"x-request-id": "req_told", **fault.get("headers", {})}
    server.add_fault(f"POST {CREATES}", times=None, **{**fault, "headers": headers})
    failed = await failure(api, server.url)
    assert (failed.reason, failed.outcome, failed.retry_after) == (reason, outcome, retry_after)
    assert said in failed.message
    assert len(server.requests()) == 1
    if fault.get("status", 200) >= 300:
        assert "req_told" in failed.message


async def test_an_api_that_is_gone_is_told_plainly() -> None:
    async with OpenAIStandIn(keys=[KEY], assistants=False) as server:
        failed = await failure("Assistants", server.url)
        assert len(server.requests()) == 1
        assert (failed.reason, failed.outcome) == (Reason.API_NOT_SERVED, NOT_CREATED)
        for words in (
            server.url,
            "Assistants API",
            "OpenAI ended on 2026-08-26",
            "threadID",
            "input",
            "point the provider",
        ):
            assert words in failed.message


async def test_an_address_that_serves_no_responses_is_told_plainly(server: OpenAIStandIn) -> None:
    failed = await failure("Responses", server.url.removesuffix("/v1"))
    assert (failed.reason, failed.outcome) == (Reason.API_NOT_SERVED, NOT_CREATED)
    for words in ("does not serve the Responses API", "the provider's address", "/v1"):
        assert words in failed.message


async def test_a_thing_that_the_definition_names_and_is_not_there_is_the_definitions_fault(
    server: OpenAIStandIn,
) -> None:
    clients = Clients(5)
    request = CreateRequest(OpenAIRunSpec(input="Hello", model="m", conversationID="conv_missing"))
    with pytest.raises(CallFailedError, match="conv_missing") as raised:
        await wire("Responses", clients, Credentials(server.url, KEY)).create(request)
    await clients.close()
    assert raised.value.failure.reason is Reason.INVALID_REQUEST


@APIS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    server: OpenAIStandIn, elsewhere: OpenAIStandIn, api: API, status: int
) -> None:
    server.add_fault("* .", times=None, status=status, headers={"Location": f"{elsewhere.url}/responses"})
    failed = await failure(api, server.url)
    assert failed.outcome is NOT_CREATED
    assert len(server.requests()) == 1
    assert elsewhere.requests() == []


# Connections that are not made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@APIS
async def test_a_refused_connection_made_no_run(api: API) -> None:
    failed = await failure(api, f"http://127.0.0.1:{free_port()}/v1")
    assert (failed.reason, failed.outcome) == (Reason.UNREACHABLE, NOT_CREATED)
    assert "Connect" in failed.message


@APIS
async def test_an_unknown_host_made_no_run(api: API) -> None:
    failed = await failure(api, "http://nowhere.invalid/v1")
    assert (failed.reason, failed.outcome) == (Reason.UNREACHABLE, NOT_CREATED)
    assert "nowhere.invalid" in failed.message


@APIS
async def test_tls_to_a_server_that_speaks_none_made_no_run(server: OpenAIStandIn, api: API) -> None:
    failed = await failure(api, server.url.replace("http:", "https:"))
    assert (failed.reason, failed.outcome) == (Reason.UNREACHABLE, NOT_CREATED)
    assert server.requests() == []


# Connections that break


@APIS
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_closed_without_an_answer_leaves_the_outcome_open(
    server: OpenAIStandIn, api: API, when: str
) -> None:
    server.add_fault(f"POST {CREATES}", times=None, close=when)
    failed = await failure(api, server.url)
    assert (failed.reason, failed.outcome) == (Reason.UNREACHABLE, UNKNOWN)
    assert len(server.requests()) == 1
    assert len(server.runs()) == (1 if when == "after" else 0)


@APIS
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_request_that_is_held_ends_in_time(server: OpenAIStandIn, api: API, when: str) -> None:
    server.add_fault(f"POST {CREATES}", times=None, hold=when)
    started = time.monotonic()
    failed = await failure(api, server.url, timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 2
    assert (failed.reason, failed.outcome) == (Reason.TIMED_OUT, UNKNOWN)
    assert len(server.requests()) == 1


class Peer:
    """A server that speaks no HTTP of its own: it reads a request and lets `answer` do as it likes."""

    def __init__(self, answer: Callable[["Peer", asyncio.StreamWriter], Any]) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.requests.append(head)
                await self._answer(self, writer)
        writer.close()

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def complete(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


RUN = b'{"id": "resp_1", "object": "response", "thread_id": "thread_1", "status": "queued"}'


@APIS
@pytest.mark.parametrize(
    "head",
    [b"200 OK", b"400 Bad Request", b"429 Too Many Requests", b"503 Service Unavailable"],
)
async def test_a_truncated_answer_leaves_the_outcome_open(api: API, head: bytes) -> None:
    async def answer(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 500\r\n\r\n" + RUN[:40])
        writer.close()

    async with Peer(answer) as peer:
        assert (await failure(api, peer.url)).outcome is UNKNOWN
        assert len(peer.requests) == 1


@APIS
async def test_an_answer_that_is_no_http_leaves_the_outcome_open(api: API) -> None:
    async def answer(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    async with Peer(answer) as peer:
        assert (await failure(api, peer.url)).outcome is UNKNOWN
        assert len(peer.requests) == 1


@APIS
async def test_an_answer_that_drips_ends_in_time(api: API) -> None:
    """Each byte comes well within the time for one read; all of them together do not."""

    async def answer(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with Peer(answer) as peer:
        started = time.monotonic()
        failed = await failure(api, peer.url, timeout=0.2)
        assert time.monotonic() - started < 2
        assert (failed.reason, failed.outcome) == (Reason.TIMED_OUT, UNKNOWN)
        assert len(peer.requests) == 1


@APIS
async def test_a_kept_connection_closed_as_the_create_was_sent_leaves_the_outcome_open(api: API) -> None:
    """The SDK's transport reports this as a time-out of connecting, which would mean that nothing was sent."""

    async def answer(peer: Peer, writer: asyncio.StreamWriter) -> None:
        if len(peer.requests) == 1:
            writer.write(complete(RUN))
        else:
            writer.close()

    clients = Clients(5)
    async with Peer(answer) as peer:
        carrier = wire(api, clients, Credentials(peer.url, KEY))
        await carrier.observe(RunRef(api, "resp_1", "thread_1"))
        with pytest.raises(CallFailedError) as raised:
            await carrier.create(REQUESTS[api])
        await clients.close()
        assert (len(peer.requests), peer.connections) == (2, 1)
    assert raised.value.failure.outcome is UNKNOWN
    told = raised.value.__context__
    assert isinstance(told, openai.APITimeoutError)
    assert isinstance(told.__cause__, httpx2.ConnectTimeout)
    assert isinstance(told.__cause__.__cause__, aiohttp.ServerDisconnectedError)


def test_an_earlier_failure_to_connect_does_not_tell_that_nothing_was_sent() -> None:
    """Python notes what was being handled when an exception was raised; that need not be the same request."""
    refused = aiohttp.ClientConnectorError(None, OSError(111, "refused"))  # type: ignore[arg-type]
    assert never_connected(refused)
    closed = aiohttp.ServerDisconnectedError()
    closed.__context__ = refused
    assert not never_connected(closed)


@APIS
async def test_a_create_sent_while_another_failure_is_handled_is_judged_by_its_own(api: API) -> None:

    async def answer(_: Peer, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with Peer(answer) as peer:
        try:
            await create(api, f"http://127.0.0.1:{free_port()}/v1")
        except CallFailedError:
            failed = await failure(api, peer.url)
        assert len(peer.requests) == 1
    assert failed.outcome is UNKNOWN
    assert "Cannot connect" not in failed.message


@APIS
async def test_a_create_that_went_well_is_sent_once(server: OpenAIStandIn, api: API) -> None:
    assert (await create(api, server.url)).id == server.runs()[0].id
    assert len(server.requests()) == 1
