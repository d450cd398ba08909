"""One transport for all, nothing taken from the environment, and no key where a person could read it."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from openairun_devkit.openai import OpenAIStandIn, RecordedRequest
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.lifecycle.observation import CreateRequest, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

KEY = "team-key-0123456789"
SPECS: dict[API, OpenAIRunSpec] = {
    "Responses": OpenAIRunSpec(input="Hello", model="gpt-standin"),
    "Assistants": OpenAIRunSpec(assistantID="asst_1", threadID="thread_1"),
}
APIS = pytest.mark.parametrize("api", SPECS)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn(keys=[KEY, "sk-other-0123456789"]) as server:
        yield server


async def live(clients: Clients, credentials: Credentials, api: API) -> None:
    """A run's whole life."""
    carrier = wire(api, clients, credentials)
    made = await carrier.create(CreateRequest(SPECS[api]))
    ref = RunRef(api, made.id, made.thread)
    await carrier.observe(ref)
    await carrier.cancel(ref)


# The environment

POISON = {
    "OPENAI_API_KEY": "sk-poison",
    "OPENAI_ADMIN_KEY": "sk-admin-poison",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/poison",
    "OPENAI_ORG_ID": "org-poison",
    "OPENAI_PROJECT_ID": "proj-poison",
    "OPENAI_WEBHOOK_SECRET": "poison",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer sk-poison\nOpenAI-Organization: org-poison",
}


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    return environment()


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@APIS
async def test_nothing_is_taken_from_the_environment(
    server: OpenAIStandIn, clients: Clients, poisoned: dict[str, str], api: API
) -> None:
    await live(clients, Credentials(server.url, KEY), api)
    assert len(server.requests()) >= 3
    for request in server.requests():
        assert request.authorization == f"Bearer {KEY}"
        assert "poison" not in repr(request)
    assert environment() == poisoned


def sent_as(request: RecordedRequest) -> tuple[str | None, str | None]:
    return request.headers.get("openai-organization"), request.headers.get("openai-project")


@APIS
async def test_organization_and_project_are_sent_when_set(
    server: OpenAIStandIn, clients: Clients, poisoned: dict[str, str], api: API
) -> None:
    await live(clients, Credentials(server.url, KEY, "org-1", "proj_1"), api)
    assert {sent_as(request) for request in server.requests()} == {("org-1", "proj_1")}


@APIS
async def test_organization_and_project_are_absent_otherwise(
    server: OpenAIStandIn, clients: Clients, poisoned: dict[str, str], api: API
) -> None:
    await live(clients, Credentials(server.url, KEY), api)
    assert {sent_as(request) for request in server.requests()} == {(None, None)}


async def test_the_environment_comes_back_when_the_client_cannot_be_made(
    clients: Clients, poisoned: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        assert not [name for name in os.environ if name.startswith("OPENAI_")]
        raise RuntimeError("broken")

    monkeypatch.setattr("openairun_operator.wires.clients.Client", broken)
    with pytest.raises(RuntimeError, match="broken"):
        clients.client(Credentials("http://127.0.0.1:9/v1", KEY))
    assert environment() == poisoned


# Keys


@pytest.mark.parametrize("key", ["sk-ключ-0123456789", "sk-line\nfeed-0123", "sk-nul\0-0123456789", "sk-\udcff-012345"])
async def test_a_key_that_no_header_can_carry_is_refused_plainly(clients: Clients, key: str) -> None:
    with pytest.raises(ValueError, match="characters that no HTTP header can carry") as raised:
        wire("Responses", clients, Credentials("http://127.0.0.1:9/v1", key))
    assert not isinstance(raised.value, UnicodeError)
    assert key not in str(raised.value)


def test_a_key_does_not_show_in_a_repr() -> None:
    assert KEY not in repr(Credentials("http://127.0.0.1:9/v1", KEY, "org", "project"))


async def failures(clients: Clients, url: str, api: API, key: str) -> list[Failure]:
    """What each call of a wire fails with."""
    carrier = wire(api, clients, Credentials(url, key))
    ref = RunRef(api, "id_1", "thread_1")
    told = []
    for call in (carrier.create(CreateRequest(SPECS[api])), carrier.observe(ref), carrier.cancel(ref)):
        with pytest.raises(CallFailedError) as raised:
            await call
        assert raised.value.failure.message in str(raised.value)
        told.append(raised.value.failure)
    return told


@APIS
@pytest.mark.parametrize("key", ["sk-proj-abcdefghij0123456789", "sk-abcd1234", "sess-abcdefghij0123456789"])
async def test_a_key_that_openai_quotes_in_part_does_not_show(
    server: OpenAIStandIn, clients: Clients, api: API, key: str
) -> None:
    for failure in await failures(clients, server.url, api, key):
        assert failure.reason is Reason.INVALID_CREDENTIALS
        assert "Incorrect API key provided: [redacted]" in failure.message
        assert key[:5] not in failure.message
        assert key[-4:] not in failure.message


def evil(status: int, place: str, authorization: str) -> web.Response:
    """An answer that quotes the key, with the name of its scheme and without."""
    key = authorization.removeprefix("Bearer ")
    seen = f"I saw {authorization}, {key}!"
    told = {"split": f"I saw {key[:9]}\x00{key[9:]}", "long": "x" * 990 + f" {key}" * 5}.get(place, seen)
    match place:
        case "headers":
            headers = {"x-request-id": seen, "Content-Type": seen, "Location": seen, "Retry-After": seen}
            return web.Response(status=status, body=b"<html>", headers=headers)
        case "reason":
            return web.Response(status=status, reason=seen, text="<html>")
        case "HTML":
            return web.Response(status=status, text=f"<html>{seen}</html>", content_type="text/html")
    return web.json_response({"error": {"message": told, "code": seen, "type": seen}}, status=status)


@APIS
@pytest.mark.parametrize("status", [200, 301, 401, 404, 500])
@pytest.mark.parametrize("place", ["error", "HTML", "headers", "reason", "split", "long"])
async def test_a_key_that_a_server_echoes_does_not_show(clients: Clients, api: API, status: int, place: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return evil(status, place, request.headers["Authorization"])

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for failure in await failures(clients, f"http://127.0.0.1:{runner.addresses[0][1]}/v1", api, KEY):
            assert KEY not in failure.message
            assert len(failure.message) <= 1024
    finally:
        await runner.cleanup()


# The transport


async def test_two_keys_share_one_pool_of_connections(server: OpenAIStandIn, clients: Clients) -> None:
    first = clients.client(Credentials(server.url, KEY))
    second = clients.client(Credentials(server.url, "sk-other-0123456789"))
    assert first is not second
    assert first._client is second._client
    await live(clients, Credentials(server.url, KEY), "Responses")
    await live(clients, Credentials(server.url, "sk-other-0123456789"), "Responses")
    keys = [request.authorization for request in server.requests("POST", "/responses$")]
    assert keys == [f"Bearer {KEY}", "Bearer sk-other-0123456789"]
    assert connections(server) == 1


def connections(server: OpenAIStandIn) -> int:
    """How many connections the server has open."""
    assert server._runner is not None
    assert server._runner.server is not None
    return len(server._runner.server.connections)


async def test_the_same_credentials_give_the_same_client(clients: Clients) -> None:
    credentials = Credentials("http://127.0.0.1:9/v1", KEY)
    assert clients.client(credentials) is clients.client(Credentials("http://127.0.0.1:9/v1", KEY))


async def test_closing_closes_all_connections(server: OpenAIStandIn) -> None:
    clients = Clients(5)
    await live(clients, Credentials(server.url, KEY), "Responses")
    used = clients.client(Credentials(server.url, KEY))
    assert connections(server) == 1
    await clients.close()
    assert used.is_closed()
    async with asyncio.timeout(2):
        while connections(server):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0)
    await clients.close()


async def test_a_closed_wire_fails_as_every_failure_does(server: OpenAIStandIn) -> None:
    clients = Clients(5)
    carrier = wire("Responses", clients, Credentials(server.url, KEY))
    await clients.close()
    with pytest.raises(CallFailedError):
        await carrier.observe(RunRef("Responses", "resp_1"))


@APIS
async def test_the_time_for_a_request_holds(server: OpenAIStandIn, api: API) -> None:
    server.add_fault("* .", times=None, hold="before")
    clients = Clients(0.2)
    try:
        started = time.monotonic()
        told = await failures(clients, server.url, api, KEY)
        assert 0.6 <= time.monotonic() - started < 3
        assert {failure.reason for failure in told} == {Reason.TIMED_OUT}
    finally:
        await clients.close()


@APIS
async def test_reads_and_cancels_are_sent_once_too(server: OpenAIStandIn, clients: Clients, api: API) -> None:
    server.add_fault("* .", times=None, status=500)
    await failures(clients, server.url, api, KEY)
    assert [request.method for request in server.requests()] == ["POST", "GET", "POST"]


LIFE = """
import asyncio, contextlib, datetime, sys
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import CreateRequest, RunRef, SubmitRequest, ToolResult
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

async def live(api, spec):
    clients = Clients(10.0)
    carrier, made = wire(api, clients, Credentials(sys.argv[1], sys.argv[2])), CreateRequest(spec)
    run = await carrier.create(made)
    ref = RunRef(api, run.id, run.thread)
    await carrier.observe(ref)
    with contextlib.suppress(CallFailedError):
        await carrier.submit(SubmitRequest(ref, (ToolResult("call_1", "function", "42"),), made))
    if carrier.searchable:
        await carrier.find(run.thread, "nobody", datetime.datetime.now(datetime.UTC))
    await carrier.cancel(ref)
    await clients.close()

before = set(sys.modules)
asyncio.run(live("Responses", OpenAIRunSpec(input="Hello", model="gpt-standin")))
asyncio.run(live("Assistants", OpenAIRunSpec(assistantID="asst_1", threadID="thread_1")))
print(sorted(name for name in set(sys.modules) - before if name.startswith("openai.")))
"""


async def test_all_that_a_request_needs_is_loaded_before_the_first(server: OpenAIStandIn) -> None:
    """Loading it in a request took up to a second of the time that the request has."""
    program = [sys.executable, "-c", LIFE, server.url, KEY]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said.decode().strip()) == (0, "[]")
