"""No key in anything that is said of a call, whatever its shape, and however and wherever a server writes it."""

import asyncio
import dataclasses
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from echoes import KEYS, echoed_run, shows, texts, written

from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle import text
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import CreateRequest, RunRef, SubmitRequest, ToolResult
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.probe import probe
from openairun_operator.wires.protocol import Wire

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

SHAPES = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


class Server:
    """Answers every request as `answer` says."""

    def __init__(self) -> None:
        self.answer: Callable[[web.BaseRequest], web.Response] = lambda _: web.Response()
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        return self.answer(request)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


# What fails

REQUESTS: Mapping[API, CreateRequest] = {
    "Responses": CreateRequest(OpenAIRunSpec(input="Hello", model="gpt-standin")),
    "Assistants": CreateRequest(OpenAIRunSpec(assistantID="asst_1", threadID="thread_1")),
}
CALLS: Mapping[str, Callable[[Wire, RunRef], Awaitable[Any]]] = {
    "create": lambda carrier, ref: carrier.create(REQUESTS[ref.api]),
    "look": lambda carrier, ref: carrier.observe(ref),
    "cancel": lambda carrier, ref: carrier.cancel(ref),
    "submit": lambda carrier, ref: carrier.submit(
        SubmitRequest(ref, (ToolResult("call_1", "function", "{}"),), REQUESTS[ref.api])
    ),
    "find": lambda carrier, _: carrier.find("thread_1", "token", datetime(2026, 1, 1, tzinfo=UTC)),
}
PATHS: list[tuple[API, str]] = [
    (api, call) for api in REQUESTS for call in CALLS if (api, call) != ("Responses", "find")
]


IN_BODY = ("message", "code", "type", "param")
IN_HEADER = ("x-request-id", "Content-Type", "Retry-After", "openai-poll-after-ms", "Location")
PLACES = (*IN_BODY, *IN_HEADER, "split", "object", "page", "reason", "no object")


def answer(key: str, status: int, place: str) -> web.Response:
    """An answer with the key in one of the places."""
    said = " | ".join(written(key))
    if place in IN_HEADER:
        return web.Response(status=status, text="{}", headers={place: said})
    match place:
        case "page":
            return web.Response(status=status, text=f"<html>{said}</html>", content_type="text/html")
        case "reason":
            return web.Response(status=status, reason=said, text="")
        case "no object":
            return web.json_response([said], status=status)
        case "split":
            told: dict[str, Any] = {"message": "\0".join((key[:5], key[5:]))}
        case "object":
            told = {"message": {"you sent": [said]}}
        case _:
            told = {"message": "No.", "type": "t", "param": None, "code": None, place: said}
    return web.json_response({"error": told}, status=status)


def statuses(key: str) -> tuple[int, ...]:
    return (200, 302, 400, 401, 403, 404, 429, 500) if key == KEYS["a quote in it"] else (400, 500)


@SHAPES
@pytest.mark.parametrize(("api", "call"), PATHS)
async def test_no_key_in_what_is_said_of_a_call_that_failed(
    server: Server, clients: Clients, key: str, api: API, call: str
) -> None:
    carrier = wire(api, clients, Credentials(server.url, key))
    for status in statuses(key):
        for place in PLACES:
            server.answer = lambda _, status=status, place=place: answer(key, status, place)  # type: ignore[misc]
            try:
                await CALLS[call](carrier, RunRef(api, "id_1", "thread_1"))
            except CallFailedError as error:
                said = [str(error), repr(error), error.failure.message, *traceback.format_exception(error)]
                assert not [each for each in said if shows(key, each)], (status, place)
            else:
                assert (call, status, place) == ("find", 200, place)  # a page without runs


@SHAPES
async def test_no_key_in_what_a_check_says(server: Server, clients: Clients, key: str) -> None:
    for status in statuses(key):
        for place in PLACES:
            server.answer = lambda _, status=status, place=place: answer(key, status, place)  # type: ignore[misc]
            found = await probe(clients, Credentials(server.url, key))
            assert not shows(key, repr(found)), (status, place)
            assert not shows(key, found.failure.message if found.failure else ""), (status, place)


@SHAPES
async def test_no_key_where_an_answer_is_no_http(clients: Clients, key: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{key.strip()} {key.strip()}\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    rude = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{rude.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(CallFailedError) as raised:
            await wire("Responses", clients, Credentials(url, key)).observe(RunRef("Responses", "resp_1"))
        assert not shows(key, "".join(traceback.format_exception(raised.value)))
    finally:
        rude.close()


# What succeeds


def answer_to(request: web.BaseRequest, api: API, status: str, said: str) -> web.Response:
    entry = {"id": said, "object": said, "type": said, "status": said, "run_id": "id_1", said: said}
    content = [{"type": "text", "text": {"value": said, "annotations": [{"file_id": said}]}}]
    headers = {"openai-poll-after-ms": "1"}
    match request.path.rsplit("/", 1)[-1]:
        case "messages":
            return web.json_response({"data": [{**entry, "content": content}], "has_more": False}, headers=headers)
        case "steps":
            return web.json_response({"data": [{**entry, "step_details": {said: said}}], "has_more": False})
    return web.json_response(echoed_run(api, status, said), headers=headers)


@SHAPES
@pytest.mark.parametrize("api", REQUESTS)
@pytest.mark.parametrize("status", ["in_progress", "completed", "failed", "incomplete", "requires_action"])
async def test_no_key_in_what_is_read_of_a_run(
    server: Server, clients: Clients, key: str, api: API, status: str
) -> None:
    split = "\0".join((key[:5], key[5:]))
    for said in (key, split, " | ".join(written(key))):
        server.answer = lambda request, said=said: answer_to(request, api, status, said)  # type: ignore[misc]
        carrier = wire(api, clients, Credentials(server.url, key))
        for call in ("create", "look", "cancel"):
            seen = await CALLS[call](carrier, RunRef(api, "id_1", "thread_1"))
            found = [each for each in texts(dataclasses.asdict(seen)) if shows(key, each)]
            assert not found, said


async def test_a_run_whose_id_is_the_key_is_none(server: Server, clients: Clients) -> None:
    key = KEYS["OpenAI's"]
    server.answer = lambda _: web.json_response({"id": f"resp_{key}", "status": "queued"})
    with pytest.raises(CallFailedError, match="no id that can be one"):
        await wire("Responses", clients, Credentials(server.url, key)).observe(RunRef("Responses", "resp_1"))


async def test_a_status_that_is_the_key_is_redacted(server: Server, clients: Clients) -> None:
    key = KEYS["OpenAI's"]
    server.answer = lambda _: web.json_response({"id": "resp_1", "status": f"x-{key}"})
    seen = await wire("Responses", clients, Credentials(server.url, key)).observe(RunRef("Responses", "resp_1"))
    assert seen.status == f"x-{text.REDACTED}"


@pytest.mark.parametrize("key", ["completed", "function_call", "response", "assistant"])
async def test_a_word_for_a_key_does_not_tear_the_api_apart(server: Server, clients: Clients, key: str) -> None:
    body = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [{"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}],
    }
    server.answer = lambda _: web.json_response(body)
    seen = await wire("Responses", clients, Credentials(server.url, key)).observe(RunRef("Responses", "resp_1"))
    assert (seen.id, seen.object, seen.status) == ("resp_1", "response", "requires_action")
    assert [call.id for call in seen.calls] == ["call_1"]
